//! The first bytes of an arriving connection.
//!
//! Invariant: no input panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_node::proxy::classify;

fuzz_target!(|bytes: &[u8]| {
    let _ = classify(bytes);
});

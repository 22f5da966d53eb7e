//! A file with objects of users.
//!
//! Invariant: no input panics or takes more memory than it is worth.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_node::source::file::parse_documents;

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_documents(bytes);
});

//! A frame from another node.
//!
//! Invariant: no input panics; a control frame that decodes is encoded to one that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_node::proxy::frame::Frame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Frame::Control(control)) = Frame::decode(bytes) {
        assert_eq!(Frame::decode(&control.encode()), Ok(Frame::Control(control)));
    }
});

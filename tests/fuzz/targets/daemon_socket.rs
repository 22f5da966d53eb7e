//! A line at the daemon's CNI socket.
//!
//! Invariant: no input panics; an accepted request survives being written and read, and its ids cannot leave a directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_common::cni::{Request, is_container_id, is_ifname};
use mesh_node::source::cni::parse_request;

fuzz_target!(|line: &[u8]| {
    let Ok(request) = parse_request(line) else { return };
    let written = serde_json::to_vec(&request).expect("a request can be written");
    // Escapes may make it longer than a message.
    if let Ok(again) = parse_request(&written) {
        assert_eq!(again, request);
    }
    match &request {
        Request::Add(attachment) | Request::Check(attachment) => safe(&attachment.container_id, &attachment.ifname),
        Request::Del { container_id, ifname } => safe(container_id, ifname),
        Request::Gc { valid } => valid.iter().for_each(|(container_id, ifname)| safe(container_id, ifname)),
        Request::Status => {}
    }
});

fn safe(container_id: &str, ifname: &str) {
    assert!(is_container_id(container_id) && is_ifname(ifname));
    assert!(!container_id.contains(['/', '\0', '@', '\n']) && !ifname.contains(['/', '\0', '\n']));
}

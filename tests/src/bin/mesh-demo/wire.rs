//! What a capture of the link between the nodes shows, port by port.
//!
//! In:  every TCP connection that was captured.
//! Out: for each port that was dialled: connections, TLS records, bytes, and bytes that are no TLS.
//! Invariant: a byte counts as TLS only if its whole direction is a chain of TLS records.

use mesh_common::route::DSCP_MESH;
use mesh_tests::{Captured, tls_records};
use std::collections::BTreeMap;

/// What was seen for one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) connections: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) plain_bytes: u64,
    /// Do the SYNs carry the mesh's mark?
    pub(crate) marked: u64,
}

/// The ports that were dialled.
pub(crate) fn ports(captured: &Captured) -> BTreeMap<u16, Port> {
    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    for flow in &captured.flows {
        let port = ports.entry(flow.server.port()).or_default();
        port.connections += 1;
        port.marked += u64::from(flow.syn_dscp == Some(DSCP_MESH));
        for bytes in [&flow.sent, &flow.received] {
            port.add(bytes);
        }
    }
    ports
}

impl Port {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        match tls_records(bytes) {
            Some(records) => self.records += records as u64,
            None => self.plain_bytes += bytes.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tests::Flow;

    #[test]
    fn a_direction_with_plain_text_is_plain_as_a_whole() {
        let flow = |port: u16, received: &[u8]| Flow {
            client: "10.0.0.1:5000".parse().unwrap(),
            server: format!("10.0.0.2:{port}").parse().unwrap(),
            sent: b"\x16\x03\x01\x00\x01a\x17\x03\x03\x00\x01b".to_vec(),
            received: received.to_vec(),
            syn_dscp: Some(23),
        };
        let captured = Captured { flows: vec![flow(80, b"\x17\x03\x03\x00\x01c"), flow(80, b""), flow(81, b"HTTP")] };
        let ports = ports(&captured);
        let port80 = Port { connections: 2, records: 5, bytes: 30, plain_bytes: 0, marked: 2 };
        assert_eq!(ports[&80], port80);
        assert_eq!((ports[&81].records, ports[&81].plain_bytes), (2, 4));
    }
}

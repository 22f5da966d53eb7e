//! Marks, routing table and ports by which a pod's traffic is steered.
//!
//! Marks live in pods' network namespaces only: the kernel clears them when a packet crosses a veth,
//! so they cannot meet the marks of Calico or kube-proxy on the host.

/// The bits of a socket mark that belong to the mesh; an application keeps the others.
pub const MARK_MASK: u32 = 0xfff0_0000;
/// The mark of an application's socket whose traffic loops through `lo` to the daemon.
pub const MARK_CAPTURE: u32 = 0x4d50_0000;
/// The mark of the daemon's own sockets inside a pod: routed as if there were no mesh.
pub const MARK_PROXY: u32 = 0x4d60_0000;

/// The routing table that delivers captured traffic locally.
pub const TABLE: u32 = 0x4d50;
/// Priority of the two `fwmark` rules, before `main` (32766) and after `local` (0).
pub const RULE_PRIORITY: u32 = 77;
/// The routing protocol number that marks routes and rules as the mesh's own, for the sweep.
pub const ROUTE_PROTOCOL: u8 = 0x4d;

/// Port of the listeners for connections a pod makes. Steering selects sockets, not ports: the
/// number only has to stay out of the applications' way.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port of the listeners for connections made to a pod.
pub const INBOUND_PORT: u16 = 15006;

/// First source port of connections from the daemon to an application on behalf of a client.
pub const SOURCE_PORT_FIRST: u16 = 1024;
/// Number of source ports; all lie below the kernel's default ephemeral range (32768), because a
/// port from that range would sooner or later equal a live port of the same client.
pub const SOURCE_PORTS: u16 = 31_000;

/// The DSCP value on SYN packets of mesh connections. Calico uses the same value.
pub const DSCP_MESH: u8 = 23;

/// The index of the loopback device, the same in every network namespace.
pub const LO_IFINDEX: u32 = 1;

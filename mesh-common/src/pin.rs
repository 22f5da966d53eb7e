//! Names under which kernel objects are pinned in the daemon's directory of the BPF file system.
//!
//! Invariant: a process with no memory can tell from the names alone what is the mesh's, and sweep it.
//! bpffs refuses names with a dot.

/// The layout of the maps; programs of another layout never share maps.
pub const LAYOUT: &str = "v1";
/// Sub-directory with one pinned `sk_lookup` link (or set of TCX links) for each pod, by pod UID.
pub const LINKS: &str = "pods";

/// Programs and maps, by the names they have in the object file.
pub const CONNECT4: &str = "connect4_outbound";
/// See [`CONNECT4`].
pub const CONNECT6: &str = "connect6_outbound";
/// The `sk_lookup` program, one link per pod.
pub const LOOKUP: &str = "lookup_pod";
/// The TCX fallback: leaving the pod.
pub const TC_EGRESS: &str = "tc_egress_outbound";
/// The TCX fallback: arriving on the pod's loopback.
pub const TC_LO: &str = "tc_ingress_lo";

/// Map of listening sockets.
pub const LISTENERS: &str = "LISTENERS";
/// Map of enrolled pods.
pub const PODS: &str = "PODS";
/// Map of excluded ports.
pub const EXCLUDED_PORTS: &str = "EXCLUDED_PORTS";
/// Trie of excluded prefixes.
pub const EXCLUDED_PREFIXES: &str = "EXCLUDED_PREFIXES";
/// Per-CPU counters, by [`crate::map::Fate`].
pub const FATES: &str = "FATES";

//! Names under which kernel objects are pinned in the daemon's directory of the BPF file system.
//!
//! Invariant: a process with no memory can tell from the names alone what is the mesh's, and sweep it.
//! bpffs refuses names with a dot.

/// The layout of the maps; programs of another layout never share maps.
pub const LAYOUT: &str = "v1";
/// Sub-directory with one directory for each pod, which holds the links of its programs by their names. The
/// directory is named by the pod's sandbox; bytes other than ASCII letters, digits, `-` and `_` are written `%xx`.
pub const LINKS: &str = "pods";

/// Programs and maps, by the names they have in the object file.
pub const CONNECT4: &str = "connect4_outbound";
/// See [`CONNECT4`].
pub const CONNECT6: &str = "connect6_outbound";
/// The `sk_lookup` program, one instance and link per pod.
pub const LOOKUP: &str = "lookup_pod";
/// The TCX fallback, one instance per pod: leaving the pod.
pub const TC_EGRESS: &str = "tc_egress_outbound";
/// The TCX fallback, one instance per pod: arriving on the pod's loopback.
pub const TC_LO: &str = "tc_ingress_lo";
/// Every program of the object.
pub const PROGRAMS: [&str; 5] = [CONNECT4, CONNECT6, LOOKUP, TC_EGRESS, TC_LO];

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
/// Every map that is pinned.
pub const MAPS: [&str; 5] = [LISTENERS, PODS, EXCLUDED_PORTS, EXCLUDED_PREFIXES, FATES];

/// Constant of per-pod programs: the pod's [`crate::map::PodConfig`].
pub const POD: &str = "POD";
/// Constant of per-pod programs: does the pod leave the mesh?
pub const LEAVING: &str = "LEAVING";

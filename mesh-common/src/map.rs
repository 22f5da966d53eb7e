//! Keys and values of the eBPF maps.
//!
//! Invariant: every type is `repr(C)`, has no padding and is valid for any bit pattern.
//! Addresses are stored as 16 bytes in network order, IPv4 in its IPv6-mapped form.

/// An IP address as the programs compare it: 16 bytes in network order, read as four words.
pub type Address = [u32; 4];

/// The third word of an IPv4-mapped IPv6 address, as loaded from memory.
pub const MAPPED_PREFIX: u32 = 0xffff_u32.to_be();

/// Which side of a pod a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    /// Connections that the pod's applications make.
    Outbound = 0,
    /// Connections that arrive for the pod.
    Inbound = 1,
}

/// Key of `LISTENERS`: the daemon's listening socket for one address and side of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerKey {
    /// The pod's address.
    pub address: Address,
    /// A [`Side`], as a number.
    pub side: u32,
}

/// Value of `PODS`, keyed by network-namespace cookie: one enrolled pod. Also written into per-pod programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodConfig {
    /// The pod's IPv4 address in mapped form; all zero if it has none.
    pub address4: Address,
    /// The pod's IPv6 address; all zero if it has none.
    pub address6: Address,
}

/// Key of `EXCLUDED_PREFIXES`, a longest-prefix trie over addresses in mapped form.
/// A prefix length for IPv4 is 96 plus the IPv4 length.
pub type Prefix = Address;

/// Value of `EXCLUDED_PORTS`, keyed by port in host order: which sides leave the port alone.
pub type ExcludedSides = u32;
/// Bit of [`ExcludedSides`]: connections made to this port are not captured.
pub const EXCLUDE_OUTBOUND: ExcludedSides = 1;
/// Bit of [`ExcludedSides`]: connections arriving on this port are not captured.
pub const EXCLUDE_INBOUND: ExcludedSides = 2;

/// What a program did with a connection: index into the per-CPU counters `FATES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fate {
    /// An enrolled pod's connect was marked for capture.
    ConnectCaptured = 0,
    /// Left alone: loopback or the pod's own address.
    ConnectSelf = 1,
    /// Left alone: excluded port or prefix.
    ConnectExcluded = 2,
    /// Left alone: the daemon's own socket, or one bound to the loopback device.
    ConnectProxy = 3,
    /// Left alone: not TCP, bound to a device, or of a family in which the pod has no address.
    ConnectOther = 4,
    /// The mark could not be set; the connect was refused.
    ConnectFailed = 5,
    /// A captured connection was given to the outbound listener.
    LookupOutbound = 6,
    /// An arriving connection was given to the inbound listener.
    LookupInbound = 7,
    /// Left alone: loopback, own address, or not TCP.
    LookupSelf = 8,
    /// Left alone: excluded port, or the pod is leaving the mesh.
    LookupExcluded = 9,
    /// Dropped: captured, but no daemon listens.
    DropOutbound = 10,
    /// Dropped: arrived for an enrolled pod, but no daemon listens.
    DropInbound = 11,
}

impl Fate {
    /// Every fate, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::ConnectCaptured,
        Self::ConnectSelf,
        Self::ConnectExcluded,
        Self::ConnectProxy,
        Self::ConnectOther,
        Self::ConnectFailed,
        Self::LookupOutbound,
        Self::LookupInbound,
        Self::LookupSelf,
        Self::LookupExcluded,
        Self::DropOutbound,
        Self::DropInbound,
    ];

    /// The name used as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectCaptured => "connect_captured",
            Self::ConnectSelf => "connect_self",
            Self::ConnectExcluded => "connect_excluded",
            Self::ConnectProxy => "connect_proxy",
            Self::ConnectOther => "connect_other",
            Self::ConnectFailed => "connect_failed",
            Self::LookupOutbound => "lookup_outbound",
            Self::LookupInbound => "lookup_inbound",
            Self::LookupSelf => "lookup_self",
            Self::LookupExcluded => "lookup_excluded",
            Self::DropOutbound => "drop_outbound",
            Self::DropInbound => "drop_inbound",
        }
    }
}

/// Capacity of `PODS`.
pub const MAX_PODS: u32 = 4096;
/// Capacity of `LISTENERS`: two sides and two families for each pod.
pub const MAX_LISTENERS: u32 = 4 * MAX_PODS;
/// Capacity of `EXCLUDED_PORTS`.
pub const MAX_EXCLUDED_PORTS: u32 = 1024;
/// Capacity of `EXCLUDED_PREFIXES`.
pub const MAX_EXCLUDED_PREFIXES: u32 = 1024;

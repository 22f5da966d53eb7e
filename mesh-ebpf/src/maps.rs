//! What the programs share with the daemon.
//!
//! In:  maps pinned by name, constants written in when a per-pod program is loaded.
//! Invariant: names and layouts are those of `mesh-common`.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie, PerCpuArray, SockHash};
use mesh_common::map::{
    Address, ExcludedSides, Fate, ListenerKey, MAPPED_PREFIX, MAX_EXCLUDED_PORTS, MAX_EXCLUDED_PREFIXES, MAX_LISTENERS,
    MAX_PODS, PodConfig, Prefix,
};

#[map]
pub static PODS: HashMap<u64, PodConfig> = HashMap::with_max_entries(MAX_PODS, 0);

#[map]
pub static LISTENERS: SockHash<ListenerKey> = SockHash::with_max_entries(MAX_LISTENERS, 0);

#[map]
pub static EXCLUDED_PORTS: HashMap<u32, ExcludedSides> = HashMap::with_max_entries(MAX_EXCLUDED_PORTS, 0);

#[map]
pub static EXCLUDED_PREFIXES: LpmTrie<Prefix, u32> = LpmTrie::with_max_entries(MAX_EXCLUDED_PREFIXES, 0);

#[map]
pub static FATES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Fate::ALL.len() as u32, 0);

/// The pod a per-pod program stands in: neither `sk_lookup` nor a packet says which namespace it is in.
#[unsafe(no_mangle)]
pub static POD: Global<PodConfig> = Global::new(PodConfig { address4: [0; 4], address6: [0; 4] });

/// Not zero while the pod leaves the mesh: what arrives is left alone, what was captured is still served.
#[unsafe(no_mangle)]
pub static LEAVING: Global<u32> = Global::new(0);

/// Counts what became of a connection.
#[inline(always)]
pub fn count(fate: Fate) {
    if let Some(counter) = FATES.get_ptr_mut(fate as u32) {
        // SAFETY: the slot belongs to this CPU; programs on one CPU do not preempt each other within it,
        // and a lost increment would be harmless.
        unsafe { *counter += 1 };
    }
}

/// Are connections with this port or peer left alone on `side`?
#[inline(always)]
pub fn port_excluded(port: u16, side: ExcludedSides) -> bool {
    // SAFETY: the value is an integer, copied at once.
    unsafe { EXCLUDED_PORTS.get(&u32::from(port)) }.is_some_and(|sides| sides & side != 0)
}

/// Are connections to this address left alone?
#[inline(always)]
pub fn prefix_excluded(address: &Address) -> bool {
    EXCLUDED_PREFIXES.get(&Key::new(128, *address)).is_some()
}

/// An IPv4 address, as loaded from memory, in mapped form.
#[inline(always)]
pub const fn mapped(address: u32) -> Address {
    [0, 0, MAPPED_PREFIX, address]
}

/// Copies an address out of a context. The verifier demands that each word is read at a constant offset, which the
/// compiler keeps to only for volatile reads.
///
/// # Safety
///
/// `address` is a field of the program's context.
#[inline(always)]
pub unsafe fn words(address: *const Address) -> Address {
    let first: *const u32 = address.cast();
    // SAFETY: the caller's promise; the offsets are those of the four words.
    unsafe {
        [
            first.read_volatile(),
            first.add(1).read_volatile(),
            first.add(2).read_volatile(),
            first.add(3).read_volatile(),
        ]
    }
}

/// Is there no mesh for connections to this address: loopback, unspecified, or link-local IPv6?
#[inline(always)]
pub fn is_node_local(address: &Address) -> bool {
    let first = u32::from_be(address[0]);
    if first != 0 {
        return first >> 22 == 0xfe80 >> 6;
    }
    if address[1] != 0 {
        return false;
    }
    let last = u32::from_be(address[3]);
    if address[2] == MAPPED_PREFIX { last >> 24 == 127 || last == 0 } else { address[2] == 0 && last <= 1 }
}

/// The pod's own address in the family of `address`; all zero if it has none.
#[inline(always)]
pub fn own_address(pod: &PodConfig, address: &Address) -> Address {
    let is_v4 = address[0] == 0 && address[1] == 0 && address[2] == MAPPED_PREFIX;
    if is_v4 { pod.address4 } else { pod.address6 }
}

/// Are the two addresses the same?
#[inline(always)]
pub fn same(a: &Address, b: &Address) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

/// Is there no address?
#[inline(always)]
pub fn is_none(address: &Address) -> bool {
    address[0] | address[1] | address[2] | address[3] == 0
}

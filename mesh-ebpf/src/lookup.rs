//! Chooses the listening socket of a connection inside an enrolled pod.
//!
//! In:  every packet of the pod's namespace that no open connection claims; `POD`, written in at load.
//! Out: one of the daemon's listeners, or the kernel's own choice.
//! Invariant: a captured connection never reaches a listener of the application: with no daemon it is dropped.
//! Source: `BPF_PROG_TYPE_SK_LOOKUP` in the kernel's documentation. The context does not tell the namespace, and
//! one pod's captured connection to another looks exactly like that other pod's connection from its proxy: so each
//! pod has a program of its own.

use crate::maps::{LEAVING, LISTENERS, POD, count, is_none, mapped, port_excluded, same, words};
use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, BPF_SK_LOOKUP_F_REPLACE};
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use mesh_common::map::{Address, EXCLUDE_INBOUND, Fate, ListenerKey, MAPPED_PREFIX, Side};
use mesh_common::route::LO_IFINDEX;

/// Verdicts of the hook.
const DROP: u32 = 0;
const PASS: u32 = 1;

const IPPROTO_TCP: u32 = 6;
const AF_INET6: u32 = 10;

/// One connection that looks for its listener.
struct Lookup {
    protocol: u32,
    /// The address dialled.
    local: Address,
    /// Who dials.
    remote: Address,
    port: u16,
    device: u32,
    /// The pod's own address in this family.
    own: Address,
}

/// Hands connections to the daemon's listeners.
#[sk_lookup]
pub fn lookup_pod(ctx: SkLookupContext) -> u32 {
    let lookup = parse(&ctx);
    act(&ctx, &lookup, decide(&lookup))
}

#[inline(always)]
fn parse(ctx: &SkLookupContext) -> Lookup {
    let pod = POD.load();
    // SAFETY: the kernel passes a valid context.
    unsafe {
        let lookup = ctx.lookup;
        let (local, remote, own) = if (*lookup).family == AF_INET6 {
            (words(&raw const (*lookup).local_ip6), words(&raw const (*lookup).remote_ip6), pod.address6)
        } else {
            (mapped((*lookup).local_ip4), mapped((*lookup).remote_ip4), pod.address4)
        };
        let port = (*lookup).local_port as u16;
        Lookup { protocol: (*lookup).protocol, local, remote, port, device: (*lookup).ingress_ifindex, own }
    }
}

#[inline(always)]
fn decide(lookup: &Lookup) -> Fate {
    if lookup.protocol != IPPROTO_TCP
        || is_none(&lookup.own)
        || is_loopback(&lookup.local)
        || same(&lookup.local, &lookup.remote)
    {
        Fate::LookupSelf
    } else if lookup.device == LO_IFINDEX {
        // For its own addresses the kernel reports the device that holds them, except to sockets bound to `lo`:
        // what arrives here for the pod comes from its proxy.
        if same(&lookup.local, &lookup.own) { Fate::LookupSelf } else { Fate::LookupOutbound }
    } else if !same(&lookup.local, &lookup.own) {
        Fate::LookupSelf
    } else if LEAVING.load() != 0 || port_excluded(lookup.port, EXCLUDE_INBOUND) {
        Fate::LookupExcluded
    } else {
        Fate::LookupInbound
    }
}

#[inline(always)]
fn act(ctx: &SkLookupContext, lookup: &Lookup, fate: Fate) -> u32 {
    let (side, otherwise) = match fate {
        Fate::LookupOutbound => (Side::Outbound, Fate::DropOutbound),
        Fate::LookupInbound => (Side::Inbound, Fate::DropInbound),
        _ => {
            count(fate);
            return PASS;
        }
    };
    let key = ListenerKey { address: lookup.own, side: side as u32 };
    // Without the second flag the kernel would spread connections over every daemon that listens.
    let flags = u64::from(BPF_SK_LOOKUP_F_REPLACE | BPF_SK_LOOKUP_F_NO_REUSEPORT);
    match LISTENERS.redirect_sk_lookup(ctx, &key, flags) {
        Ok(()) => {
            count(fate);
            PASS
        }
        Err(_) => {
            count(otherwise);
            DROP
        }
    }
}

/// Is it 127.0.0.0/8 or ::1?
#[inline(always)]
fn is_loopback(address: &Address) -> bool {
    let last = u32::from_be(address[3]);
    address[0] | address[1] == 0
        && ((address[2] == MAPPED_PREFIX && last >> 24 == 127) || (address[2] == 0 && last == 1))
}

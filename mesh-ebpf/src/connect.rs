//! Marks the connections that enrolled pods begin.
//!
//! In:  `connect(2)` of every process below the cgroup; `PODS` by network-namespace cookie.
//! Out: the mark under `MARK_MASK`; the application's other bits stay.
//! Invariant: a connection that should be captured and cannot be is refused.
//! Source: `cgroup/connect4`, `cgroup/connect6`; an IPv4 connection of an IPv6 socket comes by `connect6` only.

use crate::maps::{
    PODS, count, is_node_local, is_none, mapped, own_address, port_excluded, prefix_excluded, same, words,
};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_setsockopt};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use core::ptr;
use mesh_common::map::{Address, EXCLUDE_OUTBOUND, Fate, PodConfig};
use mesh_common::route::{LO_IFINDEX, MARK_CAPTURE, MARK_MASK, MARK_PROXY};

/// Verdicts of the hook.
const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

const IPPROTO_TCP: u32 = 6;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// One connection as its application asks for it.
struct Connect {
    protocol: u32,
    destination: Address,
    port: u16,
    mark: u32,
    device: u32,
}

/// Marks IPv4 connections.
#[cgroup_sock_addr(connect4)]
pub fn connect4_outbound(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the field is readable in this hook.
    let destination = mapped(unsafe { (*ctx.sock_addr).user_ip4 });
    outbound(&ctx, destination)
}

/// Marks IPv6 connections, and IPv4 ones of IPv6 sockets.
#[cgroup_sock_addr(connect6)]
pub fn connect6_outbound(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above.
    let destination = unsafe { words(&raw const (*ctx.sock_addr).user_ip6) };
    outbound(&ctx, destination)
}

#[inline(always)]
fn outbound(ctx: &SockAddrContext, destination: Address) -> i32 {
    // SAFETY: the helper accepts the context of this hook.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: the value is plain data; the daemon replaces it as a whole.
    let Some(pod) = (unsafe { PODS.get(&cookie) }) else { return ALLOW };
    let Some(connect) = parse(ctx, destination) else {
        count(Fate::ConnectFailed);
        return REFUSE;
    };
    act(ctx, &connect, decide(&connect, pod))
}

#[inline(always)]
fn parse(ctx: &SockAddrContext, destination: Address) -> Option<Connect> {
    // SAFETY: the kernel passes a valid context; the socket is read only after the check.
    unsafe {
        let address = ctx.sock_addr;
        let socket = (*address).__bindgen_anon_1.sk;
        if socket.is_null() {
            return None;
        }
        Some(Connect {
            protocol: (*address).protocol,
            destination,
            port: u16::from_be((*address).user_port as u16),
            mark: (*socket).mark,
            device: (*socket).bound_dev_if,
        })
    }
}

#[inline(always)]
fn decide(connect: &Connect, pod: &PodConfig) -> Fate {
    let own = own_address(pod, &connect.destination);
    if connect.mark & MARK_MASK == MARK_PROXY || connect.device == LO_IFINDEX {
        Fate::ConnectProxy
    } else if connect.protocol != IPPROTO_TCP {
        Fate::ConnectOther
    } else if is_node_local(&connect.destination) || same(&own, &connect.destination) {
        Fate::ConnectSelf
    } else if is_none(&own) || connect.device != 0 {
        // A socket bound to a device is routed by that device alone, whatever its mark.
        Fate::ConnectOther
    } else if port_excluded(connect.port, EXCLUDE_OUTBOUND) || prefix_excluded(&connect.destination) {
        Fate::ConnectExcluded
    } else {
        Fate::ConnectCaptured
    }
}

#[inline(always)]
fn act(ctx: &SockAddrContext, connect: &Connect, fate: Fate) -> i32 {
    let marked = connect.mark & MARK_MASK == MARK_CAPTURE;
    let rest = connect.mark & !MARK_MASK;
    let done = match fate {
        Fate::ConnectCaptured => marked || set_mark(ctx, rest | MARK_CAPTURE),
        // A socket whose first, captured attempt failed may be used again for what is left alone.
        Fate::ConnectSelf | Fate::ConnectExcluded | Fate::ConnectOther => !marked || set_mark(ctx, rest),
        _ => true,
    };
    count(if done { fate } else { Fate::ConnectFailed });
    if done { ALLOW } else { REFUSE }
}

#[inline(always)]
fn set_mark(ctx: &SockAddrContext, mut mark: u32) -> bool {
    // SAFETY: the helper accepts the context of this hook, and reads the four bytes of `mark`.
    unsafe { bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_MARK, ptr::addr_of_mut!(mark).cast(), 4) == 0 }
}

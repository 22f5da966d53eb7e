//! Captures connections packet by packet, where there is no cgroup v2 to mark their sockets.
//!
//! In:  packets that leave by the pod's device, and packets that arrive on its loopback.
//! Out: packets of captured connections, marked and turned to the loopback, where `lookup_pod` takes over.
//! Invariant: a connection is captured by its first packet or never: what was open before enrolment stays open.
//! Source: TCX in `bpf(2)`; `bpf_redirect` with `BPF_F_INGRESS`.

use crate::maps::{LEAVING, POD, count, is_node_local, is_none, mapped, own_address, port_excluded, prefix_excluded};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_F_CURRENT_NETNS, BPF_F_INGRESS, TC_ACT_UNSPEC, bpf_sock_tuple};
use aya_ebpf::helpers::{bpf_redirect, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use core::{mem, ptr};
use mesh_common::map::{Address, EXCLUDE_OUTBOUND, Fate};
use mesh_common::route::{LO_IFINDEX, MARK_CAPTURE, MARK_MASK, MARK_PROXY};

/// Go on to the next program, or to the network.
const NEXT: i32 = TC_ACT_UNSPEC;

const ETHERNET: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
const IPV6_HEADER: usize = 40;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;
/// Packet type "for this host".
const PACKET_HOST: u32 = 0;

/// One TCP packet of the pod.
struct Packet {
    mark: u32,
    destination: Address,
    port: u16,
    opens: bool,
    tuple: bpf_sock_tuple,
    tuple_size: u32,
}

enum Step {
    /// Leave it alone; the fate is counted when the packet opens a connection.
    Leave(Option<Fate>),
    /// Turn it to the loopback.
    Turn(Option<Fate>),
}

/// Turns packets of captured connections to the loopback.
#[classifier]
pub fn tc_egress_outbound(ctx: TcContext) -> i32 {
    match parse(&ctx) {
        Some(packet) => act(&ctx, &packet, decide(&ctx, &packet)),
        None => NEXT,
    }
}

/// Makes turned packets acceptable to this host: their frames are still addressed to the next hop.
#[classifier]
pub fn tc_ingress_lo(ctx: TcContext) -> i32 {
    if mark(&ctx) & MARK_MASK == MARK_CAPTURE {
        // A packet that keeps its type is not delivered, which is the closed case.
        let _ = ctx.change_type(PACKET_HOST);
    }
    NEXT
}

#[inline(always)]
fn mark(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*ctx.as_ptr().cast::<__sk_buff>()).mark }
}

#[inline(always)]
fn parse(ctx: &TcContext) -> Option<Packet> {
    // SAFETY: the kernel passes a valid context.
    let protocol = unsafe { (*ctx.as_ptr().cast::<__sk_buff>()).protocol } as u16;
    match u16::from_be(protocol) {
        ETH_P_IP => parse4(ctx),
        ETH_P_IPV6 => parse6(ctx),
        _ => None,
    }
}

#[inline(always)]
fn parse4(ctx: &TcContext) -> Option<Packet> {
    let header: [u8; 20] = ctx.load(ETHERNET).ok()?;
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[9] != IPPROTO_TCP || fragment_offset != 0 {
        return None;
    }
    let tcp: [u8; 14] = ctx.load(ETHERNET + usize::from(header[0] & 0x0f) * 4).ok()?;
    let destination = u32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
    // SAFETY: the union of integers is valid when zeroed.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    tuple.__bindgen_anon_1.ipv4.saddr = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
    tuple.__bindgen_anon_1.ipv4.daddr = destination;
    tuple.__bindgen_anon_1.ipv4.sport = u16::from_ne_bytes([tcp[0], tcp[1]]);
    tuple.__bindgen_anon_1.ipv4.dport = u16::from_ne_bytes([tcp[2], tcp[3]]);
    Some(packet(ctx, mapped(destination), &tcp, tuple, 12))
}

#[inline(always)]
fn parse6(ctx: &TcContext) -> Option<Packet> {
    let next: u8 = ctx.load(ETHERNET + 6).ok()?;
    if next != IPPROTO_TCP {
        return None;
    }
    let source: Address = ctx.load(ETHERNET + 8).ok()?;
    let destination: Address = ctx.load(ETHERNET + 24).ok()?;
    let tcp: [u8; 14] = ctx.load(ETHERNET + IPV6_HEADER).ok()?;
    // SAFETY: the union of integers is valid when zeroed.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    tuple.__bindgen_anon_1.ipv6.saddr = source;
    tuple.__bindgen_anon_1.ipv6.daddr = destination;
    tuple.__bindgen_anon_1.ipv6.sport = u16::from_ne_bytes([tcp[0], tcp[1]]);
    tuple.__bindgen_anon_1.ipv6.dport = u16::from_ne_bytes([tcp[2], tcp[3]]);
    Some(packet(ctx, destination, &tcp, tuple, 36))
}

#[inline(always)]
fn packet(ctx: &TcContext, destination: Address, tcp: &[u8; 14], tuple: bpf_sock_tuple, tuple_size: u32) -> Packet {
    Packet {
        mark: mark(ctx),
        destination,
        port: u16::from_be_bytes([tcp[2], tcp[3]]),
        opens: tcp[13] & (SYN | ACK) == SYN,
        tuple,
        tuple_size,
    }
}

#[inline(always)]
fn decide(ctx: &TcContext, packet: &Packet) -> Step {
    if packet.mark & MARK_MASK == MARK_PROXY {
        return Step::Leave(packet.opens.then_some(Fate::ConnectProxy));
    }
    if !packet.opens {
        return if is_captured(ctx, packet) { Step::Turn(None) } else { Step::Leave(None) };
    }
    if is_none(&own_address(&POD.load(), &packet.destination)) {
        Step::Leave(Some(Fate::ConnectOther))
    } else if is_node_local(&packet.destination) {
        Step::Leave(Some(Fate::ConnectSelf))
    } else if LEAVING.load() != 0 {
        Step::Leave(None)
    } else if port_excluded(packet.port, EXCLUDE_OUTBOUND) || prefix_excluded(&packet.destination) {
        Step::Leave(Some(Fate::ConnectExcluded))
    } else {
        Step::Turn(Some(Fate::ConnectCaptured))
    }
}

/// Does the daemon hold the other end of this packet's connection?
#[inline(always)]
fn is_captured(ctx: &TcContext, packet: &Packet) -> bool {
    // SAFETY: the tuple is initialized for its size; the reference is given back on the one path that has it.
    unsafe {
        let tuple = ptr::from_ref(&packet.tuple).cast_mut();
        let netns = BPF_F_CURRENT_NETNS as i64 as u64;
        let socket = bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, packet.tuple_size, netns, 0);
        if socket.is_null() {
            return false;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != LISTEN
    }
}

#[inline(always)]
fn act(ctx: &TcContext, packet: &Packet, step: Step) -> i32 {
    let (verdict, fate) = match step {
        Step::Leave(fate) => (NEXT, fate),
        Step::Turn(fate) => {
            ctx.set_mark(packet.mark & !MARK_MASK | MARK_CAPTURE);
            // SAFETY: the helper only records where the packet goes.
            (unsafe { bpf_redirect(LO_IFINDEX, u64::from(BPF_F_INGRESS)) } as i32, fate)
        }
    };
    if let Some(fate) = fate {
        count(fate);
    }
    verdict
}

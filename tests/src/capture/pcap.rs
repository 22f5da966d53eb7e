//! Reads the TCP segments of a capture file.
//!
//! Source: the pcap file format (draft-ietf-opsawg-pcap), RFC 791, RFC 8200, RFC 9293.

use anyhow::{Context, Result, bail};
use std::net::{IpAddr, SocketAddr};

const MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET: u32 = 1;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const FLAG_SYN: u8 = 0x02;
const FLAG_ACK: u8 = 0x10;

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) dscp: u8,
    pub(super) payload: Vec<u8>,
}

/// Every TCP segment in a capture file, in order. A packet at the end that is cut off is left out.
pub(super) fn segments(file: &[u8]) -> Result<Vec<Segment>> {
    let magic = file.get(..4).and_then(little32).context("a capture file without head")?;
    let link_type = file.get(20..24).and_then(little32).context("a capture file without head")?;
    if magic != MAGIC || link_type != LINKTYPE_ETHERNET {
        bail!("a capture file of another kind: {magic:#x}, link type {link_type}");
    }
    let mut segments = Vec::new();
    let mut rest = &file[24..];
    while let (Some(captured), Some(original)) =
        (rest.get(8..12).and_then(little32), rest.get(12..16).and_then(little32))
    {
        if captured != original {
            bail!("a packet of {original} bytes of which only {captured} were captured");
        }
        let Some(frame) = rest.get(16..16 + usize::try_from(captured)?) else { break };
        segments.extend(segment(frame));
        rest = &rest[16 + frame.len()..];
    }
    Ok(segments)
}

/// The TCP segment in an Ethernet frame, if that is what is in it.
fn segment(frame: &[u8]) -> Option<Segment> {
    let packet = frame.get(14..)?;
    match big16(frame.get(12..14)?)? {
        ETHERTYPE_IPV4 if *packet.get(9)? == PROTOCOL_TCP => {
            let head = usize::from(packet[0] & 0xf) * 4;
            let length = usize::from(big16(packet.get(2..4)?)?);
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            // Offloading may leave the length zero.
            let tcp = if length == 0 { packet.get(head..)? } else { packet.get(head..length)? };
            tcp_segment(address(12)?, address(16)?, packet[1] >> 2, tcp)
        }
        ETHERTYPE_IPV6 if *packet.get(6)? == PROTOCOL_TCP => {
            let class = (packet[0] << 4) | (packet[1] >> 4);
            let length = usize::from(big16(packet.get(4..6)?)?);
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            let tcp = if length == 0 { packet.get(40..)? } else { packet.get(40..40 + length)? };
            tcp_segment(address(8)?, address(24)?, class >> 2, tcp)
        }
        _ => None,
    }
}

fn tcp_segment(from: IpAddr, to: IpAddr, dscp: u8, tcp: &[u8]) -> Option<Segment> {
    let flags = *tcp.get(13)?;
    let head = usize::from(tcp[12] >> 4) * 4;
    Some(Segment {
        from: SocketAddr::new(from, big16(&tcp[0..2])?),
        to: SocketAddr::new(to, big16(&tcp[2..4])?),
        sequence: u32::from_be_bytes(tcp[4..8].try_into().ok()?),
        syn: flags & FLAG_SYN != 0,
        ack: flags & FLAG_ACK != 0,
        dscp,
        payload: tcp.get(head..)?.to_vec(),
    })
}

fn little32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn big16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

//! Judges what was seen on the wire between the nodes: is it TLS and nothing else?
//!
//! In:  a capture file as tcpdump writes it.
//! Out: for each port that was dialled: connections, TLS records, and bytes that are no TLS.
//! Invariant: every byte that TCP carried is either inside a well-formed TLS record or counted as plain.
//! Source: pcap savefile format (pcap-savefile(5)); RFC 9293; RFC 8446, section 5.

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What was seen for one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) connections: u64,
    /// TLS records of any type.
    pub(crate) records: u64,
    /// Of these, records whose content is hidden.
    pub(crate) hidden: u64,
    pub(crate) tls_bytes: u64,
    pub(crate) plain_bytes: u64,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ports: BTreeMap<u16, Port>,
    pub(crate) packets: u64,
    /// Packets with neither TCP nor the neighbour discovery without which no link works.
    pub(crate) other: u64,
    all: Vec<u8>,
}

impl Seen {
    /// Was this text anywhere in what TCP carried?
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.all.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// One direction of a connection: payload by its distance from the first byte.
#[derive(Default)]
struct Direction {
    first: Option<u32>,
    segments: BTreeMap<u32, Vec<u8>>,
}

type Flow = (SocketAddr, SocketAddr);

struct Segment<'a> {
    flow: Flow,
    sequence: u32,
    syn: bool,
    ack: bool,
    payload: &'a [u8],
}

/// Judges a capture.
///
/// **Errors**: it is no capture file of Ethernet frames.
pub(crate) fn judge(capture: &[u8]) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut flows: BTreeMap<Flow, Direction> = BTreeMap::new();
    let mut dialled: BTreeMap<Flow, ()> = BTreeMap::new();
    for frame in frames(capture)? {
        seen.packets += 1;
        let Some(segment) = segment(frame) else {
            seen.other += u64::from(!is_neighbour_discovery(frame));
            continue;
        };
        if segment.syn && !segment.ack && dialled.insert(segment.flow, ()).is_none() {
            seen.ports.entry(segment.flow.1.port()).or_default().connections += 1;
        }
        let direction = flows.entry(segment.flow).or_default();
        let begin = segment.sequence.wrapping_add(u32::from(segment.syn));
        let first = *direction.first.get_or_insert(begin);
        if !segment.payload.is_empty() {
            let kept = direction.segments.entry(begin.wrapping_sub(first)).or_default();
            if kept.len() < segment.payload.len() {
                *kept = segment.payload.to_vec();
            }
        }
    }
    for (flow, direction) in flows {
        // The server's port is the one that was dialled; a capture begun in the middle goes by the lower port.
        let port = if dialled.contains_key(&flow) {
            flow.1.port()
        } else if dialled.contains_key(&(flow.1, flow.0)) {
            flow.0.port()
        } else {
            flow.0.port().min(flow.1.port())
        };
        let bytes = direction.joined();
        records(&bytes, seen.ports.entry(port).or_default());
        seen.all.extend(bytes);
    }
    Ok(seen)
}

impl Direction {
    /// The payload in order, without what was sent again.
    fn joined(self) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::new();
        for (offset, segment) in self.segments {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let known = bytes.len().saturating_sub(offset);
            bytes.extend(segment.get(known..).unwrap_or_default());
        }
        bytes
    }
}

/// Counts TLS records from the first byte on; from the first byte that is none, everything is plain.
fn records(mut bytes: &[u8], port: &mut Port) {
    while let [kind, 3, minor, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // Change cipher spec, alert, handshake, application data; at most 2^14 + 256 bytes.
        if !(20..=23).contains(kind) || *minor > 4 || length == 0 || length > 16_640 {
            break;
        }
        port.records += 1;
        port.hidden += u64::from(*kind == 23);
        // The last record may be cut where the capture ended.
        let taken = length.min(rest.len());
        port.tls_bytes += 5 + taken as u64;
        bytes = &rest[taken..];
    }
    port.plain_bytes += bytes.len() as u64;
}

/// The frames of a pcap file in either byte order.
fn frames(capture: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    const HEADER: usize = 24;
    let magic = capture.get(..4).context("the capture is empty: did tcpdump start?")?;
    let number: fn([u8; 4]) -> u32 = match magic {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => u32::from_le_bytes,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => u32::from_be_bytes,
        _ => bail!("this is no capture file"),
    };
    let word = |at: usize| capture.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(number);
    if word(20) != Some(1) {
        bail!("the capture is not of Ethernet frames");
    }
    let mut frames = Vec::new();
    let mut at = HEADER;
    while let Some(length) = word(at + 8).and_then(|length| usize::try_from(length).ok()) {
        let Some(frame) = capture.get(at + 16..at + 16 + length) else { break };
        frames.push(frame);
        at += 16 + length;
    }
    Ok(frames)
}

fn ether_type(frame: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]))
}

/// ARP, or ICMPv6 for neighbours, routers and multicast listeners.
fn is_neighbour_discovery(frame: &[u8]) -> bool {
    match ether_type(frame) {
        Some(0x0806) => true,
        Some(0x86dd) => matches!(frame.get(14 + 6), Some(0 | 58)),
        _ => false,
    }
}

fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = frame.get(14..)?;
    let (source, destination, tcp): (IpAddr, IpAddr, &[u8]) = match ether_type(frame)? {
        0x0800 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            // The kernel leaves the length of a packet of more than 64 KB at zero.
            let end = if total == 0 { packet.len() } else { total };
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            (*packet.get(9)? == 6).then_some(())?;
            (address(12)?.into(), address(16)?.into(), packet.get(header..end)?)
        }
        0x86dd => {
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (*packet.get(6)? == 6).then_some(())?;
            let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            let end = if length == 0 { packet.len() } else { 40 + length };
            (address(8)?.into(), address(24)?.into(), packet.get(40..end)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let flags = *tcp.get(13)?;
    Some(Segment {
        flow: (SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?)),
        sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
        syn: flags & 0x02 != 0,
        ack: flags & 0x10 != 0,
        payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: u8 = 2;
    const ACK: u8 = 16;

    fn frame(ports: (u16, u16), sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 1]);
        frame.extend(ports.0.to_be_bytes());
        frame.extend(ports.1.to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend([0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        // Padding of short frames is no payload.
        frame.resize(frame.len().max(60), 0xee);
        frame
    }

    fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1];
        capture.resize(20, 0);
        capture.extend(1_u32.to_le_bytes());
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            capture.extend([0; 8]);
            capture.extend(length);
            capture.extend(length);
            capture.extend(frame);
        }
        capture
    }

    #[test]
    fn records_are_followed_over_segments_out_of_order_and_sent_again() {
        let record = [&[22, 3, 1, 0, 4][..], b"abcd", &[23, 3, 3, 0, 2], b"xy"].concat();
        let seen = judge(&capture(&[
            frame((5000, 80), 99, SYN, b""),
            frame((80, 5000), 7, SYN | ACK, b""),
            frame((5000, 80), 106, ACK, &record[6..]),
            frame((5000, 80), 100, ACK, &record[..6]),
            frame((5000, 80), 100, ACK, &record[..3]),
            frame((5000, 80), 106, ACK, &record[6..]),
        ]))
        .unwrap();
        let port = Port { connections: 1, records: 2, hidden: 1, tls_bytes: 16, plain_bytes: 0 };
        assert_eq!(seen.ports, [(80, port)].into());
        assert_eq!((seen.packets, seen.other), (6, 0));
    }

    #[test]
    fn plain_text_is_seen_even_after_tls() {
        let mixed = [&[23, 3, 3, 0, 1, 0][..], b"GET / HTTP/1.1\r\n"].concat();
        let seen = judge(&capture(&[frame((5000, 80), 99, SYN, b""), frame((5000, 80), 100, ACK, &mixed)])).unwrap();
        assert_eq!((seen.ports[&80].records, seen.ports[&80].plain_bytes), (1, 16));
        assert!(seen.contains("GET /") && !seen.contains("POST"));
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        assert!(judge(b"").is_err());
        assert!(judge(&[0; 64]).is_err());
    }
}

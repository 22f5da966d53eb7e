//! Frames of the mesh's own protocol, `mesh/1`: one stream after another on one TLS connection.
//!
//! **Shape**: a frame is exactly one TLS record: its first byte is the type, the rest the content. The record
//! delimits and authenticates it, so there is no length that could disagree.
//! **Order**: the dialler sends OPEN, the other side answers ACCEPT or RESET; then both send DATA and end
//! their half by FIN. After both FINs the connection is free for the next OPEN. RESET ends the connection.
//! Frames that follow one another may share a write: OPEN and the first DATA, ACCEPT and the answer, DATA and FIN.
//! A connection that closes by `close_notify` before it answered an OPEN never acted on it.
//! DRAIN comes from the side that was dialled, once, at any time after ACCEPT, where OPEN said that it is understood: of a stream
//! that carries one request after another, the other side is to begin no further one, and to end the stream by FIN.
//! Invariant: decoding arbitrary bytes yields a frame or an error, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const OPEN: u8 = 1;
pub(crate) const ACCEPT: u8 = 2;
/// What a frame begins with in which bytes of the stream follow.
pub const DATA: u8 = 3;
pub(crate) const FIN: u8 = 4;
const RESET: u8 = 5;
pub(crate) const DRAIN: u8 = 6;

/// The longest text that a RESET carries, in bytes.
const MAX_REASON: usize = 64;
/// The extension of OPEN that says that DRAIN is understood. It has no content.
const HEEDS_DRAIN: u8 = 1;
/// Extensions of OPEN from here on must be understood, or the stream is refused.
const CRITICAL: u8 = 128;

/// A frame other than DATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Begins a stream.
    Open(Open),
    /// The application on the other side took the connection.
    Accept,
    /// The sender has no more to send.
    Fin,
    /// The stream broke off; the reason is an identifier as in logs and metrics, empty when the
    /// application itself reset.
    Reset(String),
    /// The sender takes no further request on this stream after the one that may be on its way.
    Drain,
}

/// What begins a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The address that the application dialled.
    pub original: SocketAddr,
    /// Does the sender understand DRAIN on this stream?
    pub heeds_drain: bool,
}

impl From<SocketAddr> for Open {
    fn from(original: SocketAddr) -> Self {
        Self { original, heeds_drain: false }
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A record without content.
    #[error("an empty frame")]
    Empty,
    /// A type this version does not know.
    #[error("a frame of unknown type {0}")]
    UnknownType(u8),
    /// The content does not match the type.
    #[error("a malformed frame of type {0}")]
    Malformed(u8),
    /// OPEN asks for something this version does not know and must not ignore.
    #[error("OPEN carries the unknown critical extension {0}")]
    UnknownExtension(u8),
}

/// What a record's payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The application's bytes: all after the first byte.
    Data,
    /// Anything else.
    Control(Control),
}

impl Frame {
    /// The frame in one record's payload.
    ///
    /// **Errors**: the bytes are no frame of this protocol.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let (&kind, content) = payload.split_first().ok_or(FrameError::Empty)?;
        let control = match (kind, content) {
            (DATA, _) => return Ok(Self::Data),
            (OPEN, content) => Control::Open(decode_open(content)?),
            (ACCEPT, []) => Control::Accept,
            (FIN, []) => Control::Fin,
            (DRAIN, []) => Control::Drain,
            (RESET, text) if text.len() <= MAX_REASON && text.iter().all(|&b| is_reason(b)) => {
                Control::Reset(text.iter().copied().map(char::from).collect())
            }
            (ACCEPT | FIN | RESET | DRAIN, _) => return Err(FrameError::Malformed(kind)),
            _ => return Err(FrameError::UnknownType(kind)),
        };
        Ok(Self::Control(control))
    }
}

impl Control {
    /// The record's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Open(open) => encode_open(open),
            Self::Accept => vec![ACCEPT],
            Self::Drain => vec![DRAIN],
            Self::Fin => vec![FIN],
            Self::Reset(reason) => {
                let text = reason.bytes().filter(|&b| is_reason(b)).take(MAX_REASON);
                std::iter::once(RESET).chain(text).collect()
            }
        }
    }
}

/// Reasons come from another process into logs and metrics: identifiers only.
const fn is_reason(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Content of OPEN: family (4 or 6), address, port, then extensions of type, length and value.
fn encode_open(open: &Open) -> Vec<u8> {
    let mut payload = vec![OPEN];
    match open.original.ip() {
        IpAddr::V4(ip) => {
            payload.push(4);
            payload.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            payload.push(6);
            payload.extend_from_slice(&ip.octets());
        }
    }
    payload.extend_from_slice(&open.original.port().to_be_bytes());
    if open.heeds_drain {
        payload.extend_from_slice(&[HEEDS_DRAIN, 0, 0]);
    }
    payload
}

fn decode_open(content: &[u8]) -> Result<Open, FrameError> {
    let malformed = FrameError::Malformed(OPEN);
    let (&family, rest) = content.split_first().ok_or(malformed)?;
    let (ip, rest) = match family {
        4 => {
            let (octets, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
            (IpAddr::V4(Ipv4Addr::from(*octets)), rest)
        }
        6 => {
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(malformed)?;
            (IpAddr::V6(Ipv6Addr::from(*octets)), rest)
        }
        _ => return Err(malformed),
    };
    let (port, mut rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
    let mut open = Open::from(SocketAddr::new(ip, u16::from_be_bytes(*port)));
    while let Some((&kind, tail)) = rest.split_first() {
        let (length, tail) = tail.split_first_chunk::<2>().ok_or(malformed)?;
        rest = tail.get(usize::from(u16::from_be_bytes(*length))..).ok_or(malformed)?;
        open.heeds_drain |= kind == HEEDS_DRAIN;
        if kind >= CRITICAL {
            return Err(FrameError::UnknownExtension(kind));
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(original: &str) -> Control {
        Control::Open(original.parse::<SocketAddr>().expect("an address").into())
    }

    #[test]
    fn frames_survive_the_wire() {
        let original = "[fd00::7]:9080".parse().expect("an address");
        for control in [
            open("10.96.0.7:9080"),
            open("[fd00::7]:9080"),
            Control::Open(Open { original, heeds_drain: true }),
            Control::Accept,
            Control::Fin,
            Control::Drain,
            Control::Reset(String::new()),
            Control::Reset("no_endpoints".to_owned()),
        ] {
            assert_eq!(Frame::decode(&control.encode()), Ok(Frame::Control(control)));
        }
        assert_eq!(Frame::decode(&[DATA, 1, 2]), Ok(Frame::Data));
    }

    #[test]
    fn extensions_are_skipped_unless_critical() {
        let mut payload = open("10.96.0.7:9080").encode();
        payload.extend_from_slice(&[CRITICAL - 1, 0, 3, 9, 9, 9]);
        assert_eq!(Frame::decode(&payload), Ok(Frame::Control(open("10.96.0.7:9080"))));
        payload.extend_from_slice(&[CRITICAL, 0, 0]);
        assert_eq!(Frame::decode(&payload), Err(FrameError::UnknownExtension(CRITICAL)));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for payload in [
            &[][..],
            &[0],
            &[ACCEPT, 1],
            &[FIN, 1],
            &[DRAIN, 1],
            &[OPEN],
            &[OPEN, 5, 1, 2, 3, 4, 0, 80],
            &[OPEN, 4, 1, 2, 3, 4, 0],
            &[OPEN, 4, 1, 2, 3, 4, 0, 80, 1],
            &[OPEN, 4, 1, 2, 3, 4, 0, 80, 1, 0, 9],
            &[RESET, b'\n'],
            &[RESET; 66],
        ] {
            assert!(Frame::decode(payload).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn a_reason_is_an_identifier() {
        assert_eq!(Control::Reset("Bad reason\n!".to_owned()).encode(), b"\x05adreason");
    }
}

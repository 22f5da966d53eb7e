//! What a connection speaks whose port does not say so.
//!
//! In:  the first bytes that a client sends, if it speaks first.
//! Out: HTTP or not; what a port was seen to speak is remembered.
//! Invariant: a port on which HTTP was never seen waits for nobody: server-first protocols do not stall.
//! Cancel: safe; bytes are looked at, not taken.

use super::learnt::Learnt;
use crate::proxy::io;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::SystemTime;
use tokio::net::TcpStream;

/// Ports that are remembered.
const REMEMBERED: usize = 4096;
/// What connections of HTTP/2 begin with: RFC 9113, section 3.4.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Methods that a request begins with: RFC 9110, section 9, and RFC 5789.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// What first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// A request, or the preface of HTTP/2.
    Http,
    /// Something else.
    Other,
    /// The beginning of either.
    Unclear,
}

/// What was seen on ports that do not say what they speak, by the address that was dialled.
#[derive(Default)]
pub(crate) struct Seen {
    /// Ports on which HTTP was seen: was it the last that was?
    http: RefCell<HashMap<SocketAddr, bool>>,
    /// What was told to whoever shows it.
    told: RefCell<HashSet<(SocketAddr, bool)>>,
    learnt: Learnt,
}

impl Seen {
    /// One that has seen nothing, and tells `learnt`.
    pub(crate) fn new(learnt: Learnt) -> Self {
        Self { learnt, ..Self::default() }
    }

    /// Was HTTP seen there last?
    pub(crate) fn is_http(&self, original: SocketAddr) -> bool {
        self.http.borrow().get(&original).copied().unwrap_or(false)
    }

    /// Notes what was seen.
    pub(crate) fn note(&self, original: SocketAddr, is_http: bool) {
        let mut told = self.told.borrow_mut();
        if told.len() < REMEMBERED && told.insert((original, is_http)) {
            self.learnt.note(original, is_http, SystemTime::now());
        }
        let mut seen = self.http.borrow_mut();
        // What is no HTTP says something only where HTTP was expected.
        let is_worth_it = seen.contains_key(&original) || (is_http && seen.len() < REMEMBERED);
        if is_worth_it && seen.insert(original, is_http).is_none() {
            tracing::info!(port = %original, "HTTP was seen on a port that does not say what it speaks");
        }
    }
}

/// What `bytes`, the first of a connection, begin.
pub(crate) fn begins_as_http(bytes: &[u8]) -> Sniffed {
    if bytes.is_empty() {
        return Sniffed::Unclear;
    }
    let length = bytes.len().min(PREFACE.len());
    if bytes[..length] == PREFACE[..length] && (length == PREFACE.len() || length < 4) {
        return if length == PREFACE.len() { Sniffed::Http } else { Sniffed::Unclear };
    }
    if bytes[..length] == PREFACE[..length] {
        return Sniffed::Unclear;
    }
    for method in METHODS {
        let method = method.as_bytes();
        let length = bytes.len().min(method.len());
        if bytes[..length] == method[..length] {
            return match bytes.get(method.len()) {
                Some(b' ') => Sniffed::Http,
                Some(_) => continue,
                None => Sniffed::Unclear,
            };
        }
    }
    Sniffed::Other
}

/// Does the client begin as HTTP does? One that says nothing within a turn of the loop is not waited for, unless it
/// is `patient`: HTTP was seen on its port before.
///
/// **Errors**: the connection broke.
pub(crate) async fn sniff(stream: &TcpStream, patient: bool) -> std::io::Result<bool> {
    let mut bytes = [0_u8; PREFACE.len()];
    let mut seen = 0;
    loop {
        match io::peek_now(stream, &mut bytes)? {
            Some(0) => return Ok(false),
            Some(length) => match begins_as_http(&bytes[..length]) {
                Sniffed::Http => return Ok(true),
                Sniffed::Other => return Ok(false),
                // Peeking does not empty the socket, so nothing tells of the rest: a client that stops in the middle
                // of a word for longer than a turn is not waited for.
                Sniffed::Unclear if length == seen => return Ok(false),
                Sniffed::Unclear => {
                    seen = length;
                    tokio::task::yield_now().await;
                }
            },
            None if patient => {
                stream.peek(&mut [0]).await?;
            }
            None => {
                let there = io::readable_in_a_turn(stream).await?;
                if !there || io::peek_now(stream, &mut [0])?.is_none() {
                    return Ok(false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_tell() {
        for (bytes, expected) in [
            (&b""[..], Sniffed::Unclear),
            (b"GET / HTTP/1.1\r\n", Sniffed::Http),
            (b"PATCH /x HTTP/1.1", Sniffed::Http),
            (b"P", Sniffed::Unclear),
            (b"PRI", Sniffed::Unclear),
            (b"PRI * HTT", Sniffed::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http),
            (b"PRI * HTTP/1.0\r\n\r\nSM\r\n\r\n", Sniffed::Other),
            (b"GETX / HTTP/1.1", Sniffed::Other),
            (b"get / HTTP/1.1", Sniffed::Other),
            (b"\x16\x03\x01", Sniffed::Other),
            (b"*1\r\n$4\r\nPING", Sniffed::Other),
            (b"SSH-2.0", Sniffed::Other),
        ] {
            assert_eq!(begins_as_http(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_last_that_was_seen_counts() {
        let seen = Seen::default();
        let port = "10.0.0.1:80".parse().expect("an address");
        assert!(!seen.is_http(port));
        seen.note(port, true);
        assert!(seen.is_http(port));
        seen.note(port, false);
        assert!(!seen.is_http(port));
    }

    #[test]
    fn what_is_no_http_takes_no_place_and_is_told_once() {
        let seen = Seen::default();
        let ports = (1..=5000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        ports.for_each(|port| seen.note(port, false));
        let http = SocketAddr::from(([10, 0, 0, 2], 80));
        seen.note(http, true);
        assert!(seen.is_http(http));
        assert!(seen.told.borrow().len() <= REMEMBERED);
    }
}

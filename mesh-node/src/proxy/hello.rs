//! Reads the ClientHello with which a client begins TLS, without taking it from the connection.
//!
//! In:  the bytes that a client sent first.
//! Out: a [`Hello`]: whether it offers `mesh/1`, and the server name that it asks for.
//! Invariant: arbitrary bytes give an answer, never a panic.
//! Invariant: only a client that began a ClientHello is waited for, and for a bounded time and number of bytes.
//! Cancel: safe; nothing is consumed.
//! Source: RFC 8446, section 4.1.2; RFC 6066, section 3.

use crate::identity::ALPN;
use crate::policy::Sni;
use rustls::server::Acceptor;
use std::time::Duration;
use tokio::net::TcpStream;

/// The longest ClientHello that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;
/// Bytes that are looked at first.
const FIRST_LOOK: usize = 1024;
/// How long a ClientHello may take from its first byte on.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest rest before a ClientHello is looked at again: whoever stops in the middle costs little.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// The type of a record of a handshake, and the first half of its version: RFC 8446, section 5.1.
const BEGINNING: [u8; 2] = [0x16, 0x03];

/// What first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A whole ClientHello.
    Whole {
        /// Is it a mesh peer's?
        is_mesh: bool,
        /// The server name that it asks for.
        sni: Sni,
    },
    /// The beginning of a ClientHello.
    Incomplete,
    /// It begins as TLS does, and cannot be read.
    Unreadable,
    /// Anything else.
    Other,
}

impl Hello {
    /// Is it a mesh peer's?
    pub(super) const fn is_mesh(&self) -> bool {
        matches!(self, Self::Whole { is_mesh: true, .. })
    }

    /// The server name that it asks for.
    pub(super) fn sni(self) -> Sni {
        match self {
            Self::Whole { sni, .. } => sni,
            Self::Incomplete | Self::Unreadable => Sni::Unread,
            Self::Other => Sni::Absent,
        }
    }
}

/// Classifies a connection's first bytes.
#[must_use]
pub fn classify(bytes: &[u8]) -> Hello {
    match *bytes {
        [] => return Hello::Other,
        [first] if first == BEGINNING[0] => return Hello::Incomplete,
        [first, second, ..] if [first, second] == BEGINNING => {}
        // Some servers take any version in the first record, and skip alerts that come before it.
        [0x14..=0x17] | [0x14..=0x17, ..0x10, ..] => return Hello::Unreadable,
        _ => return Hello::Other,
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let is_mesh = hello.alpn().is_some_and(|mut names| names.any(|name| name == ALPN));
            Hello::Whole { is_mesh, sni: hello.server_name().map_or(Sni::Absent, Sni::of) }
        }
        Ok(None) if bytes.len() < LONGEST => Hello::Incomplete,
        Ok(None) | Err(_) => Hello::Unreadable,
    }
}

/// What the client begins with. Waits for its first bytes.
pub(super) async fn peek(stream: &TcpStream) -> Hello {
    let mut seen = 0;
    let mut deadline = None;
    let mut bytes = vec![0; FIRST_LOOK];
    loop {
        let Ok(length) = stream.peek(&mut bytes).await else { return Hello::Unreadable };
        let hello = classify(&bytes[..length]);
        if hello != Hello::Incomplete {
            return hello;
        }
        if length == bytes.len() {
            bytes.resize(bytes.len() * 2, 0);
            continue;
        }
        if length == seen {
            return hello;
        }
        seen = length;
        // Peeking does not empty the socket, so the runtime cannot tell new bytes from old ones.
        let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + PATIENCE);
        if tokio::time::timeout_at(deadline, more(stream, seen)).await.is_err() {
            return hello;
        }
    }
}

/// Waits until more than `seen` bytes are there.
async fn more(stream: &TcpStream, seen: usize) {
    let mut bytes = vec![0; seen + 1];
    let mut rest = Duration::from_millis(5);
    while matches!(stream.peek(&mut bytes).await, Ok(length) if length == seen) {
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(LONGEST_REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::io;
    use crate::proxy::lab::{client_hello, pair};

    #[test]
    fn plain_protocols_are_told_at_once() {
        for bytes in [&b""[..], b"G", b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", &[0x16, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(classify(bytes), Hello::Other, "{bytes:?}");
        }
    }

    #[test]
    fn what_servers_may_take_for_tls_has_a_name_that_nobody_knows() {
        let hello = client_hello("example.com", b"h2");
        let of_version = |version: [u8; 2]| [&[0x16], &version[..], &hello[3..]].concat();
        let after_an_alert = [&[0x15, 3, 1, 0, 2, 1, 0x5a][..], &hello].concat();
        for bytes in [of_version([0, 1]), of_version([2, 1]), after_an_alert, vec![0x15], vec![0x17, 3, 3]] {
            assert_eq!(classify(&bytes).sni(), Sni::Unread, "{:?}", &bytes[..3.min(bytes.len())]);
        }
    }

    #[test]
    fn a_hello_is_recognised_whole_and_in_part() {
        for (alpn, is_mesh) in [(ALPN, true), (b"h2", false)] {
            let hello = client_hello("Example.com", alpn);
            assert_eq!(classify(&hello), Hello::Whole { is_mesh, sni: Sni::of("example.com") });
            for length in 1..hello.len() {
                assert_eq!(classify(&hello[..length]), Hello::Incomplete, "{length}");
            }
        }
        // No name is asked for where the server is told by its address.
        assert_eq!(classify(&client_hello("10.0.0.1", b"h2")).sni(), Sni::Absent);
        assert_eq!(Sni::of("Example.com."), Sni::of("example.com"), "servers take it for the same name");
    }

    #[test]
    fn a_hello_may_be_split_over_records() {
        let hello = client_hello("example.com", b"h2");
        let (header, message) = hello.split_at(5);
        for size in [1, 7, 100] {
            let records = message.chunks(size).flat_map(|part| {
                let length = u16::try_from(part.len()).expect("a short part").to_be_bytes();
                [&header[..3], &length, part].concat()
            });
            assert_eq!(classify(&records.collect::<Vec<u8>>()).sni(), Sni::of("example.com"), "{size}");
        }
    }

    #[test]
    fn what_only_begins_as_a_hello_has_a_name_that_nobody_knows() {
        let mut hello = client_hello("example.com", b"h2");
        let name = hello.windows(11).position(|bytes| bytes == b"example.com").expect("the name is in it");
        // The name is longer than the extension in which it stands.
        hello[name - 1] = 200;
        assert_eq!(classify(&hello), Hello::Unreadable);
        let endless = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &vec![0; LONGEST]].concat();
        assert_eq!(classify(&endless).sni(), Sni::Unread);
        assert_eq!(Hello::Incomplete.sni(), Sni::Unread, "whoever stops in the middle");
    }

    #[tokio::test]
    async fn a_hello_that_comes_in_parts_as_large_as_the_buffer_is_waited_for() {
        let hello = client_hello("example.com", b"h2");
        let (header, message) = hello.split_at(5);
        // In small records, which are longer than what is looked at first.
        let hello: Vec<u8> = message.iter().flat_map(|byte| [header[0], header[1], header[2], 0, 1, *byte]).collect();
        let (first, rest) = hello.split_at_checked(FIRST_LOOK).expect("more than is looked at first");
        let (client, server) = pair().await;
        io::write_all(&client, first).await.expect("it is sent");
        server.readable().await.expect("something is there");
        let (whole, sent) = tokio::join!(biased; peek(&server), io::write_all(&client, rest));
        sent.expect("it is sent");
        assert_eq!(whole.sni(), Sni::of("example.com"));
    }

    #[tokio::test]
    async fn whoever_begins_is_waited_for() {
        let hello = client_hello("example.com", b"h2");
        let (client, server) = pair().await;
        io::write_all(&client, &hello[..50]).await.expect("it is sent");
        server.readable().await.expect("something is there");
        let (whole, sent) = tokio::join!(biased; peek(&server), io::write_all(&client, &hello[50..]));
        sent.expect("it is sent");
        assert_eq!(whole.sni(), Sni::of("example.com"));
    }
}

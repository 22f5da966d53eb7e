//! Recognises a mesh peer by its first bytes, without taking them from the connection.
//!
//! In:  the bytes that a client sent first.
//! Out: whether they are a TLS ClientHello that offers `mesh/1`.
//! Invariant: arbitrary bytes give an answer, never a panic.
//! Cancel: safe; nothing is consumed.

use crate::identity::ALPN;
use rustls::server::Acceptor;
use std::time::Duration;
use tokio::net::TcpStream;

/// The longest ClientHello that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;
/// How long a ClientHello may take from its first byte on. Only a client that began one gets to wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// What first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// A ClientHello of a mesh peer.
    Mesh,
    /// Anything else.
    Other,
    /// The beginning of a ClientHello.
    Incomplete,
}

/// Classifies a connection's first bytes.
#[must_use]
pub fn classify(bytes: &[u8]) -> Hello {
    if bytes.first().is_none_or(|&first| first != 0x16) {
        return Hello::Other;
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
            let offers = accepted.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == ALPN));
            if offers { Hello::Mesh } else { Hello::Other }
        }
        Ok(None) if bytes.len() < LONGEST => Hello::Incomplete,
        Ok(None) | Err(_) => Hello::Other,
    }
}

/// Does the client begin as a mesh peer does? Waits for its first bytes.
pub(super) async fn is_mesh(stream: &TcpStream) -> bool {
    let mut seen = 0;
    let mut deadline = None;
    let mut bytes = vec![0; 4096];
    loop {
        let Ok(length) = stream.peek(&mut bytes).await else { return false };
        match classify(&bytes[..length]) {
            Hello::Mesh => return true,
            Hello::Other => return false,
            Hello::Incomplete if length == seen => return false,
            Hello::Incomplete => {}
        }
        seen = length;
        if length == bytes.len() {
            bytes.resize(bytes.len() * 2, 0);
            continue;
        }
        // Peeking does not empty the socket, so the runtime cannot tell new bytes from old ones.
        let deadline = *deadline.get_or_insert_with(|| tokio::time::Instant::now() + PATIENCE);
        if tokio::time::timeout_at(deadline, more(stream, seen)).await.is_err() {
            return false;
        }
    }
}

/// Waits until more than `seen` bytes are there.
async fn more(stream: &TcpStream, seen: usize) {
    let mut bytes = vec![0; seen + 1];
    while matches!(stream.peek(&mut bytes).await, Ok(length) if length == seen) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_protocols_are_told_at_once() {
        for bytes in [&b""[..], b"G", b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", &[0x16, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(classify(bytes), Hello::Other, "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_is_recognised_whole_and_in_part() {
        for (alpn, whole) in [(ALPN, Hello::Mesh), (b"h2", Hello::Other)] {
            let hello = client_hello(alpn);
            assert_eq!(classify(&hello), whole);
            for length in 1..hello.len() {
                assert_eq!(classify(&hello[..length]), Hello::Incomplete, "{length}");
            }
        }
    }

    fn client_hello(alpn: &[u8]) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = "example.com".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(config.into(), name).expect("a connection");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a hello");
        hello
    }
}

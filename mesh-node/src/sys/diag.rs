//! The TCP sockets of the network namespace that this thread is in.
//!
//! In:  both ends of a connection.
//! Out: whether a socket of this namespace is one of them.
//! Invariant: synchronous; a request is answered before the call returns.
//! Source: `sock_diag(7)`: `struct inet_diag_req_v2`, `struct inet_diag_msg`.

use super::netlink::{connected, request};
use netlink_packet_core::{NLM_F_ACK, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The type of requests and of answers.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Family, protocol, extensions, padding, and a mask of states.
const HEAD: usize = 8;
/// Ports, addresses, device and cookie.
const ID: usize = 48;
/// Where the answer has the remote end's port, and its address.
const REMOTE: (usize, usize) = (6, 24);

/// A question for one socket, or the first bytes of what the kernel says of it.
struct Diag([u8; HEAD + ID]);

impl Diag {
    fn of(local: SocketAddr, remote: SocketAddr) -> Self {
        let family = if local.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        let mut bytes = Vec::with_capacity(HEAD + ID);
        // Both are small numbers.
        bytes.extend([family, libc::IPPROTO_TCP, 0, 0].map(|number| number.to_le_bytes()[0]));
        bytes.extend(u32::MAX.to_ne_bytes());
        bytes.extend(local.port().to_be_bytes());
        bytes.extend(remote.port().to_be_bytes());
        bytes.extend(words(local.ip()));
        bytes.extend(words(remote.ip()));
        bytes.extend([0; 4]);
        // No cookie.
        bytes.extend([0xff; 8]);
        let mut own = Self([0; HEAD + ID]);
        own.0.copy_from_slice(&bytes);
        own
    }

    /// Is the other end of the socket that the kernel speaks of `remote`?
    fn is_toward(&self, remote: SocketAddr) -> bool {
        let (port, address) = REMOTE;
        let mapped = match remote.ip() {
            IpAddr::V4(remote) => remote.to_ipv6_mapped(),
            IpAddr::V6(remote) => remote,
        };
        let mut forms = [words(remote.ip()), mapped.octets()].into_iter();
        self.0[port..].starts_with(&remote.port().to_be_bytes())
            && forms.any(|form| self.0[address..].starts_with(&form))
    }
}

/// An address in four words.
fn words(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&address.octets());
            words
        }
        IpAddr::V6(address) => address.octets(),
    }
}

impl NetlinkSerializable for Diag {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl NetlinkDeserializable for Diag {
    type Error = io::Error;

    fn deserialize(_header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        payload.first_chunk().map(|bytes| Self(*bytes)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Does a socket here have this connection, from `local` to `remote`, or had it a moment ago?
///
/// **Errors**: the kernel refuses.
pub fn is_connected(local: SocketAddr, remote: SocketAddr) -> io::Result<bool> {
    let mut found = false;
    let asked = Diag::of(local, remote);
    // Where no connection is like that, the kernel names whoever listens there.
    let answered =
        request(&connected(NETLINK_SOCK_DIAG)?, asked, NLM_F_ACK, |answer: Diag| found |= answer.is_toward(remote));
    match answered {
        Ok(()) => Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn only_a_connection_is_one() -> io::Result<()> {
        for here in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(here)?;
            let server = listener.local_addr()?;
            let client = TcpStream::connect_timeout(&server, std::time::Duration::from_secs(5))?;
            let own = client.local_addr()?;
            assert!(is_connected(own, server)?, "the client's socket");
            let other = SocketAddr::new(own.ip(), own.port() ^ 1);
            assert!(!is_connected(other, server)?, "nobody is there");
            assert!(
                !is_connected(server, SocketAddr::new(own.ip(), 1))?,
                "it listens, and is connected to somebody else"
            );
        }
        Ok(())
    }
}

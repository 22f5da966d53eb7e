//! Small TCP servers and clients inside namespaces.
//!
//! Invariant: every read and write has a deadline.

use crate::netns::NetNs;
use crate::wait::PATIENCE;
use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown as How, shutdown};
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A TCP server; it takes no new clients once this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: Arc<TcpListener>,
    accepted: Arc<AtomicU64>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on all addresses of both families in `ns`; each client is served on a thread of its own.
    ///
    /// **Errors**: the port is taken.
    pub fn start(
        ns: &NetNs,
        port: u16,
        serve: impl Fn(TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_on(ns, (Ipv6Addr::UNSPECIFIED, port).into(), serve)
    }

    /// As [`Server::start`], on one address: an unspecified IPv4 one means a socket of that family alone.
    ///
    /// **Errors**: the address is taken, or none of the namespace's.
    pub fn start_on(
        ns: &NetNs,
        address: SocketAddr,
        serve: impl Fn(TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener =
            ns.enter(|| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}")))?;
        let listener = Arc::new(listener);
        let accepted = Arc::new(AtomicU64::new(0));
        let (source, count, serve) = (Arc::clone(&listener), Arc::clone(&accepted), Arc::new(serve));
        let acceptor = thread::spawn(move || {
            while let Ok((stream, peer)) = source.accept() {
                count.fetch_add(1, Ordering::Relaxed);
                let serve = Arc::clone(&serve);
                thread::spawn(move || {
                    // What went wrong is for the client to see.
                    drop(with_deadline(&stream, PATIENCE).and_then(|()| serve(stream, peer)));
                });
            }
        });
        Ok(Self { listener, accepted, acceptor: Some(acceptor) })
    }

    /// How many clients it has taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the acceptor, whose next accept fails.
        if shutdown(self.listener.as_raw_fd(), How::Both).is_ok() {
            drop(self.acceptor.take().map(JoinHandle::join));
        }
    }
}

/// Sends back what comes, and closes its side when the client closes its own.
///
/// **Errors**: the connection breaks.
pub fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// Speaks first, then echoes.
///
/// **Errors**: the connection breaks.
pub fn banner(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    echo(stream)
}

/// Answers one HTTP request with a page.
///
/// **Errors**: the connection breaks.
pub fn page(mut stream: TcpStream, body: &str) -> io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Tells the client which address it is seen under, and closes.
///
/// **Errors**: the connection breaks.
pub fn whoami(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.write_all(canonical(peer).to_string().as_bytes())
}

/// An address without the mapping that sockets of both families give to IPv4.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connects from inside `ns`.
///
/// **Errors**: refused, or no answer within `patience`.
pub fn connect(ns: &NetNs, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
    ns.enter(|| {
        let stream = TcpStream::connect_timeout(&to, patience).with_context(|| format!("cannot connect to {to}"))?;
        with_deadline(&stream, PATIENCE)?;
        Ok(stream)
    })
}

/// Sends `bytes`, closes its side, and gives all that comes back.
///
/// **Errors**: the connection breaks, or is silent for [`PATIENCE`].
pub fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut sender = stream.try_clone().context("cannot share a connection")?;
    let answer = thread::scope(|scope| {
        // An echo of more than what sockets hold needs both directions at once.
        let sent = scope.spawn(move || sender.write_all(bytes).and_then(|()| sender.shutdown(Shutdown::Write)));
        let answer = read_to_end(&mut stream);
        let sent = sent.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
        sent.context("cannot send").and(answer)
    })?;
    Ok(answer)
}

/// Sends `bytes`, and gives all that comes back until the server closes.
///
/// **Errors**: as [`exchange`].
pub fn exchange_open(mut stream: TcpStream, bytes: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(bytes).context("cannot send")?;
    read_to_end(&mut stream)
}

/// Reads exactly `length` bytes.
///
/// **Errors**: the connection ends or breaks before, or is silent for [`PATIENCE`].
pub fn read_exactly(stream: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).with_context(|| format!("cannot read {length} bytes"))?;
    Ok(bytes)
}

fn read_to_end(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("cannot read on after {} bytes", bytes.len()))?;
    Ok(bytes)
}

fn with_deadline(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))
}

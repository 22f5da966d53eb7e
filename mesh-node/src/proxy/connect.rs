//! Outgoing connections: to the network, and to a pod's own application.
//!
//! In:  a pod's namespace and an address.
//! Out: a connected socket, or the error that the kernel gave.
//! Invariant: every outgoing connection of the daemon on behalf of a pod is made here.
//! Cancel: dropping the future closes the socket.

use crate::sys::netns::NetNs;
use crate::sys::socket::{self, Destined};
use mesh_common::route::{SOURCE_PORT_FIRST, SOURCE_PORTS};
use socket2::Socket;
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long an application on this node may take before its SYN is taken for lost.
const LOCAL_PATIENCE: Duration = Duration::from_secs(1);
/// Attempts from different source ports.
const LOCAL_ATTEMPTS: usize = 3;
/// Source ports tried for one attempt.
const PORTS_TRIED: usize = 64;

/// Connects to the network from inside `ns`.
///
/// **Errors**: those of `connect(2)`; `TimedOut` after `patience`.
pub(crate) async fn to_network(
    ns: &NetNs,
    to: SocketAddr,
    destined: Destined,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = socket::toward_network(ns, to.is_ipv6(), destined)?;
    let stream = within(patience, connect(socket, to)).await?;
    if destined == Destined::Mesh {
        // Only the SYN carries the mark: payload keeps the network's default class.
        socket::set_dscp(&stream, to.is_ipv6(), 0)?;
    }
    Ok(stream)
}

/// Connects to the application at `to`, an address of the pod itself, as if from `client`.
///
/// **Errors**: those of `connect(2)`; `AddrInUse` if no source port is free.
pub(crate) async fn to_application(
    ns: &NetNs,
    ports: &Cell<u16>,
    client: IpAddr,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..LOCAL_ATTEMPTS {
        let socket = bound(ns, ports, client)?;
        // A SYN is lost when the client holds the very source port that was chosen; another port helps.
        match within(LOCAL_PATIENCE, connect(socket, to)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::AddrNotAvailable) => {
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A socket with the client's address and the next free source port.
fn bound(ns: &NetNs, ports: &Cell<u16>, client: IpAddr) -> io::Result<Socket> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORTS_TRIED {
        let offset = ports.get();
        ports.set((offset + 1) % SOURCE_PORTS);
        match socket::toward_application(ns, SocketAddr::new(client, SOURCE_PORT_FIRST + offset)) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn connect(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    let connected = match socket.connect(&to.into()) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
        Err(error) => return Err(error),
    };
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

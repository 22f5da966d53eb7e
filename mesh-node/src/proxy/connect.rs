//! Outgoing connections: to the network, and to a pod's own application.
//!
//! In:  a pod's namespace and an address.
//! Out: a connected socket, or the error that the kernel gave.
//! Invariant: every outgoing connection of the daemon on behalf of a pod is made here.
//! Invariant: a socket serves the pod in whose namespace it was made; a pod at rest holds none ahead.
//! Cancel: dropping the future closes the socket.

use crate::sys::netns::NetNs;
use crate::sys::socket::{self, Destined};
use mesh_common::route::{SOURCE_PORT_FIRST, SOURCE_PORTS};
use socket2::{SockAddr, Socket};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long an application on this node may take before its SYN is taken for lost.
const LOCAL_PATIENCE: Duration = Duration::from_secs(1);
/// Attempts from different source ports.
const LOCAL_ATTEMPTS: usize = 3;
/// Source ports tried for one attempt.
const PORTS_TRIED: usize = 64;
/// Sockets made ahead for each family. Making eight at a time leaves an eighth of the cost of entering a namespace.
const SPARE: usize = 8;

/// The sockets of one pod: in its namespace, and with source ports of their own toward its application.
pub(crate) struct Sockets {
    ns: Arc<NetNs>,
    /// Is it a pod's, where marks tell the mesh's own connections?
    is_marked: bool,
    /// Offset of the next source port toward the application.
    port: Cell<u16>,
    /// Made ahead, for IPv4 and IPv6.
    spare: [RefCell<Spare>; 2],
}

#[derive(Default)]
struct Spare {
    sockets: Vec<Socket>,
    /// How many were made at a time.
    made: usize,
}

impl Sockets {
    /// No socket yet.
    pub(crate) fn new(ns: Arc<NetNs>) -> Self {
        Self { ns, is_marked: true, port: Cell::new(fastrand::u16(..SOURCE_PORTS)), spare: Default::default() }
    }

    /// The same for the node's own namespace, where nothing is steered.
    pub(crate) fn of_node(ns: Arc<NetNs>) -> Self {
        Self { is_marked: false, ..Self::new(ns) }
    }

    /// Does something inside the namespace.
    ///
    /// **Errors**: the namespace cannot be entered; those of `work`.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.ns.enter(work)
    }

    /// A socket without any option. The more a pod connects, the more are made at a time.
    fn take(&self, v6: bool) -> io::Result<Socket> {
        let mut spare = self.spare[usize::from(v6)].borrow_mut();
        if let Some(socket) = spare.sockets.pop() {
            return Ok(socket);
        }
        spare.made = (2 * spare.made).clamp(1, SPARE);
        spare.sockets = socket::streams(&self.ns, v6, spare.made)?;
        spare.sockets.pop().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Closes the sockets made ahead, so that a pod at rest holds none.
    pub(crate) fn sweep(&self) {
        for spare in &self.spare {
            spare.take();
        }
    }

    /// A socket with the client's address and the next free source port.
    fn bound(&self, client: IpAddr) -> io::Result<Socket> {
        let socket = self.take(client.is_ipv6())?;
        socket::toward_application(&socket, client.is_ipv6())?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORTS_TRIED {
            let offset = self.port.get();
            self.port.set((offset + 1) % SOURCE_PORTS);
            match socket.bind(&SocketAddr::new(client, SOURCE_PORT_FIRST + offset).into()) {
                Ok(()) => return Ok(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// Connects a pod to the network.
///
/// **Errors**: those of `connect(2)`; `TimedOut` after `patience`.
pub(crate) async fn to_network(
    sockets: &Sockets,
    to: SocketAddr,
    destined: Destined,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = sockets.take(to.is_ipv6())?;
    socket::toward_network(&socket, to.is_ipv6(), (destined, sockets.is_marked))?;
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
pub(crate) async fn to_application(sockets: &Sockets, client: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..LOCAL_ATTEMPTS {
        let socket = sockets.bound(client)?;
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

async fn connect(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    let to = to.into();
    let mut connected = begin(&socket, &to)?;
    if !connected {
        // Over `lo` the answer is there already, but a non-blocking call ends before the kernel looks at it.
        connected = begin(&socket, &to)?;
    }
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Calls `connect(2)`, the first time or again; true if the connection stands.
fn begin(socket: &Socket, to: &SockAddr) -> io::Result<bool> {
    match socket.connect(to) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

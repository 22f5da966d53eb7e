//! Where the admin server listens.
//!
//! In:  addresses and a path.
//! Out: [`Listeners`].
//! Invariant: everything is served on loopback and at a socket of root's; other addresses are for metrics alone.
//! Invariant: several daemons may hold the same address, so that a new one begins while the old one drains. A socket is one
//! daemon's own: whoever asks there is not answered by the other.
//! Source: `SO_REUSEPORT` in socket(7); unix(7).

use super::AdminError;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::Permissions;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Open listeners.
#[derive(Debug)]
pub struct Listeners {
    admin: std::net::TcpListener,
    socket: Option<std::os::unix::net::UnixListener>,
    metrics: Option<std::net::TcpListener>,
}

/// Opens the listener at `address`.
///
/// **Errors**: the address is not on loopback, or cannot be listened on.
pub fn listen(address: SocketAddr) -> Result<Listeners, AdminError> {
    if !address.ip().to_canonical().is_loopback() {
        return Err(AdminError::NotLoopback { address });
    }
    let admin = open(address).map_err(|source| AdminError::Listen { address, source })?;
    Ok(Listeners { admin, socket: None, metrics: None })
}

impl Listeners {
    /// And at a socket, in place of whoever listened there before.
    ///
    /// **Errors**: it cannot be made.
    pub fn and_socket(self, path: &Path) -> Result<Self, AdminError> {
        let open = || -> io::Result<_> {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = std::os::unix::net::UnixListener::bind(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let socket = open().map_err(|source| AdminError::Socket { path: path.to_owned(), source })?;
        Ok(Self { socket: Some(socket), ..self })
    }

    /// And at an address where the metrics alone are served. Where a machine has no IPv6, `[::]` is every address of IPv4.
    ///
    /// **Errors**: it cannot be listened on.
    pub fn and_metrics(self, address: SocketAddr) -> Result<Self, AdminError> {
        let every = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        let opened = match open(address) {
            Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => open(every),
            opened => opened,
        };
        let metrics = opened.map_err(|source| AdminError::Listen { address, source })?;
        Ok(Self { metrics: Some(metrics), ..self })
    }

    /// Where the admin server is reached.
    ///
    /// **Errors**: the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where the metrics are, if they have an address of their own.
    ///
    /// **Errors**: the system does not say.
    pub fn metrics_address(&self) -> io::Result<Option<SocketAddr>> {
        self.metrics.as_ref().map(std::net::TcpListener::local_addr).transpose()
    }

    pub(super) fn into_tokio(self) -> io::Result<(TcpListener, Option<UnixListener>, Option<TcpListener>)> {
        let admin = TcpListener::from_std(self.admin)?;
        let socket = self.socket.map(UnixListener::from_std).transpose()?;
        Ok((admin, socket, self.metrics.map(TcpListener::from_std).transpose()?))
    }
}

fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// A listener of either kind.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send
    where
        Self: Sync,
    {
        poll_fn(|context| self.poll(context))
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        self.poll_accept(context).map_ok(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.poll_accept(context).map_ok(|(stream, _)| stream)
    }
}

//! Sockets in pods' namespaces, with the options that steering needs.
//!
//! Source: `ip(7)` for `IP_TRANSPARENT` and `IP_TOS`, `tcp(7)` for `TCP_SAVE_SYN`.
#![expect(unsafe_code, reason = "TCP_SAVE_SYN and IPV6_TRANSPARENT have no safe wrappers")]

use super::netns::NetNs;
use mesh_common::map::Side;
use mesh_common::route::{DSCP_MESH, INBOUND_PORT, MARK_CAPTURE, MARK_PROXY, OUTBOUND_PORT};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Connections waiting to be accepted, for each listener.
const BACKLOG: i32 = 4096;

/// A peer that vanished without a word is noticed after about two minutes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// A pod's four listening sockets; the IPv6 ones are missing where the pod has no IPv6.
#[derive(Debug)]
pub struct PodListeners {
    /// For connections the pod makes over IPv4.
    pub outbound4: Option<TcpListener>,
    /// For connections the pod makes over IPv6.
    pub outbound6: Option<TcpListener>,
    /// For connections to the pod over IPv4.
    pub inbound4: Option<TcpListener>,
    /// For connections to the pod over IPv6.
    pub inbound6: Option<TcpListener>,
}

impl PodListeners {
    /// Listeners inside `ns` for a pod with these addresses.
    ///
    /// **Errors**: the namespace cannot be entered, or an application holds the mesh's port.
    pub fn open(ns: &NetNs, addresses: &[IpAddr]) -> io::Result<Self> {
        let has4 = addresses.iter().any(IpAddr::is_ipv4);
        let has6 = addresses.iter().any(IpAddr::is_ipv6);
        ns.enter(|| {
            let open = |wanted: bool, v6: bool, side: Side| wanted.then(|| listener(v6, side)).transpose();
            Ok(Self {
                outbound4: open(has4, false, Side::Outbound)?,
                outbound6: open(has6, true, Side::Outbound)?,
                inbound4: open(has4, false, Side::Inbound)?,
                inbound6: open(has6, true, Side::Inbound)?,
            })
        })
    }
}

/// A listener in the namespace of the calling thread, on loopback. Steering brings it connections for any
/// address, so it is transparent; a new daemon may open the same while the old one still listens.
fn listener(v6: bool, side: Side) -> io::Result<TcpListener> {
    let (domain, address) = if v6 {
        (Domain::IPV6, IpAddr::V6(Ipv6Addr::LOCALHOST))
    } else {
        (Domain::IPV4, IpAddr::V4(Ipv4Addr::LOCALHOST))
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    set_transparent(&socket, v6)?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    let port = match side {
        Side::Outbound => OUTBOUND_PORT,
        Side::Inbound => {
            // Accepted sockets inherit it, so their replies take the pod's ordinary routes.
            socket.set_mark(MARK_PROXY)?;
            set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1)?;
            INBOUND_PORT
        }
    };
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listener for a port of gateways on all addresses of the calling thread's namespace. Every worker has one of its own, and so
/// has a daemon that takes over.
///
/// **Errors**: the port is another program's.
pub fn edge_listener(port: u16) -> io::Result<TcpListener> {
    let open = |v6: bool| -> io::Result<TcpListener> {
        let (domain, any) = if v6 {
            (Domain::IPV6, IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        } else {
            (Domain::IPV4, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if v6 {
            socket.set_only_v6(false)?;
        }
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    match open(true) {
        // A kernel without IPv6.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => open(false),
        opened => opened,
    }
}

/// Where the daemon's connection to the network goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destined {
    /// To a mesh peer: its SYN carries the mesh's DSCP.
    Mesh,
    /// In plain text.
    Plain,
}

/// Non-blocking TCP sockets inside `ns`: one at least, and `count` if there are descriptors for so many. Entering a
/// namespace costs more than making a socket, so whoever needs many takes them together.
///
/// **Errors**: the namespace cannot be entered, or the process has no descriptors left.
pub fn streams(ns: &NetNs, v6: bool, count: usize) -> io::Result<Vec<Socket>> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    ns.enter(|| {
        let open = || Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
        let mut sockets = vec![open()?];
        sockets.extend((1..count).map_while(|_| open().ok()));
        Ok(sockets)
    })
}

/// Readies one of [`streams`] for a connection to the network. In pods' namespaces it `is_marked`, so that it is not captured.
///
/// **Errors**: those of `setsockopt(2)`.
pub fn toward_network(socket: &Socket, v6: bool, (destined, is_marked): (Destined, bool)) -> io::Result<()> {
    if is_marked {
        socket.set_mark(MARK_PROXY)?;
    }
    socket.set_tcp_nodelay(true)?;
    // The application's own probes end at this daemon, so a vanished peer has to be noticed here.
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    if destined == Destined::Mesh {
        set_dscp(socket, v6, DSCP_MESH)?;
    }
    Ok(())
}

/// Readies one of [`streams`] for a connection to the pod's own application; `bind(2)` to the address that the
/// application is to see remains.
///
/// **Errors**: those of `setsockopt(2)`.
pub fn toward_application(socket: &Socket, v6: bool) -> io::Result<()> {
    // The application's replies go to a foreign address; the mark, which its accepted socket takes over,
    // routes them back through `lo`.
    socket.set_mark(MARK_CAPTURE)?;
    // The kernel would report the pod's device, not `lo`, for the pod's own address: steering could then
    // not tell this connection from one that arrives from the network.
    socket.bind_device(Some(b"lo"))?;
    set_transparent(socket, v6)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)
}

/// Marks the socket's packets with a DSCP value; zero takes the mark away.
///
/// **Errors**: those of `setsockopt(2)`.
pub fn set_dscp(socket: &impl AsFd, v6: bool, dscp: u8) -> io::Result<()> {
    let class = i32::from(dscp) << 2;
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_TOS, class)
    }
}

/// The DSCP value of the SYN that opened an accepted connection; `None` if it was not saved, as with SYN cookies.
///
/// **Errors**: those of `getsockopt(2)`.
pub fn syn_dscp(socket: &impl AsFd) -> io::Result<Option<u8>> {
    // An IPv6 header and a TCP header with all its options are 100 bytes, IPv4 with options 120.
    let mut header = [0_u8; 128];
    let mut length = libc::socklen_t::try_from(header.len()).map_err(io::Error::other)?;
    // SAFETY: `header` and `length` are valid for writes, and `length` is the size of `header`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            header.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let header = &header[..usize::try_from(length).map_err(io::Error::other)?.min(header.len())];
    Ok(match header {
        [first, second, ..] if first >> 4 == 4 => Some(second >> 2),
        [first, second, ..] if first >> 4 == 6 => Some((((first & 0x0f) << 4) | (second >> 4)) >> 2),
        _ => None,
    })
}

fn set_transparent(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)
    }
}

fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: `value` is readable for `length` bytes.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

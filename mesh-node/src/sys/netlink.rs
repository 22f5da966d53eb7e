//! Addresses, routes and rules of a network namespace.
//!
//! In:  a namespace, and the two kinds of routing entries that steering needs.
//! Invariant: synchronous; a request is answered before the call returns.
//! Source: `rtnetlink(7)`; `NLM_F_EXCL` tells an entry that was there from one that was made.

use super::netns::NetNs;
use mesh_common::route::{LO_IFINDEX, MARK_MASK, ROUTE_PROTOCOL, RULE_PRIORITY, TABLE};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// The table of ordinary routes.
pub const TABLE_MAIN: u32 = 254;

/// One routing entry of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Everything is delivered locally, through `lo`, from this address: `local default dev lo src …`.
    Local {
        /// The pod's address.
        source: IpAddr,
    },
    /// Packets with a mark of the mesh are looked up in a table.
    Rule {
        /// For IPv6?
        v6: bool,
        /// The mark, under the mesh's mask.
        mark: u32,
        /// The table.
        table: u32,
    },
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its other end, if it is one of a pair.
    pub peer: Option<Peer>,
}

/// The other end of a pair of devices, in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The number by which this namespace knows the other one; see [`Routing::id_of`].
    pub namespace: i32,
    /// The device's index there.
    pub ifindex: u32,
}

/// A connection to the kernel's routing, in one namespace.
pub struct Routing {
    socket: Socket,
}

impl Routing {
    /// The routing of `ns`.
    ///
    /// **Errors**: the namespace cannot be entered.
    pub fn open(ns: &NetNs) -> io::Result<Self> {
        Ok(Self { socket: ns.enter(|| connected(NETLINK_ROUTE))? })
    }

    /// The routing of the namespace that this thread is in.
    ///
    /// **Errors**: the kernel has no socket to give.
    pub fn here() -> io::Result<Self> {
        Ok(Self { socket: connected(NETLINK_ROUTE)? })
    }

    /// Every address of the namespace, on any device.
    ///
    /// **Errors**: the kernel refuses, or what it answers cannot be read.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                addresses.extend(own_address(&message.attributes));
            }
        })?;
        Ok(addresses)
    }

    /// The device through which packets to `address` leave; `None` if there is no route.
    ///
    /// **Errors**: the kernel refuses.
    pub fn device_to(&self, address: IpAddr) -> io::Result<Option<u32>> {
        let device = |attribute: &RouteAttribute| {
            if let RouteAttribute::Oif(device) = attribute { Some(*device) } else { None }
        };
        Ok(self.route_to(address)?.and_then(|route| route.attributes.iter().find_map(device)))
    }

    /// Is `address` one of the namespace's own?
    ///
    /// **Errors**: the kernel refuses.
    pub fn is_local(&self, address: IpAddr) -> io::Result<bool> {
        Ok(self.route_to(address)?.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    fn route_to(&self, address: IpAddr) -> io::Result<Option<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address.is_ipv6());
        message.header.destination_prefix_length = if address.is_ipv6() { 128 } else { 32 };
        message.attributes = vec![RouteAttribute::Destination(match address {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        })];
        let mut route = None;
        let asked = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewRoute(answer) = answer {
                route = Some(answer);
            }
        });
        match asked {
            Ok(()) => Ok(route),
            Err(error) if error.raw_os_error().is_some_and(is_nowhere) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The device with this index; `None` if there is none.
    ///
    /// **Errors**: the kernel refuses.
    pub fn link(&self, ifindex: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        let mut link = None;
        let asked = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                link = read_link(&message.attributes);
            }
        });
        match asked {
            Ok(()) => Ok(link),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number by which this namespace knows `ns`; `None` if no device of it leads there.
    ///
    /// **Errors**: the kernel refuses.
    pub fn id_of(&self, ns: &NetNs) -> io::Result<Option<i32>> {
        let descriptor = u32::try_from(ns.as_fd().as_raw_fd()).map_err(io::Error::other)?;
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Fd(descriptor)];
        let mut id = None;
        self.request(RouteNetlinkMessage::GetNsId(message), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewNsId(message) = answer {
                // A number below zero says that there is none.
                id = message
                    .attributes
                    .iter()
                    .find_map(|attribute| if let NsidAttribute::Id(id @ 0..) = attribute { Some(*id) } else { None });
            }
        })?;
        Ok(id)
    }

    /// Makes the entry; true if it was not there before.
    ///
    /// **Errors**: the kernel refuses it.
    pub fn add(&self, entry: Entry) -> io::Result<bool> {
        let message = match entry {
            Entry::Local { source } => RouteNetlinkMessage::NewRoute(route(source)),
            Entry::Rule { v6, mark, table } => RouteNetlinkMessage::NewRule(rule(v6, mark, table)),
        };
        match self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| ()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the entry; false if it was not there.
    ///
    /// **Errors**: the kernel refuses.
    pub fn remove(&self, entry: Entry) -> io::Result<bool> {
        let message = match entry {
            Entry::Local { source } => RouteNetlinkMessage::DelRoute(route(source)),
            Entry::Rule { v6, mark, table } => RouteNetlinkMessage::DelRule(rule(v6, mark, table)),
        };
        match self.request(message, NLM_F_ACK, |_| ()) {
            Ok(()) => Ok(true),
            // A missing rule, and a missing route.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends one request and passes each part of the answer on, up to the end or the acknowledgement.
    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        request(&self.socket, message, flags, each)
    }
}

/// A connection to one of the kernel's services, in the namespace that this thread is in.
pub(super) fn connected(protocol: isize) -> io::Result<Socket> {
    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Asks the kernel and takes `each` of its answers.
pub(super) fn request<M>(socket: &Socket, message: M, flags: u16, mut each: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let part = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            if let NetlinkPayload::InnerMessage(inner) = part.payload {
                each(inner);
            } else if let NetlinkPayload::Error(error) = part.payload {
                return if error.code.is_none() { Ok(()) } else { Err(error.to_io()) };
            } else if let NetlinkPayload::Done(_) = part.payload {
                return Ok(());
            }
            // Messages are padded to four bytes.
            let length = usize::try_from(NetlinkBuffer::new(rest).length()).map_err(io::Error::other)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// On a point-to-point device `IFA_ADDRESS` is the peer, `IFA_LOCAL` the host.
fn own_address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let (mut local, mut any) = (None, None);
    for attribute in attributes {
        if let AddressAttribute::Local(address) = attribute {
            local = Some(*address);
        } else if let AddressAttribute::Address(address) = attribute {
            any = Some(*address);
        }
    }
    local.or(any)
}

fn read_link(attributes: &[LinkAttribute]) -> Option<Link> {
    let (mut name, mut namespace, mut ifindex) = (None, None, None);
    for attribute in attributes {
        if let LinkAttribute::IfName(text) = attribute {
            name = Some(text.clone());
        } else if let LinkAttribute::LinkNetNsId(id) = attribute {
            namespace = Some(*id);
        } else if let LinkAttribute::Link(index) = attribute {
            ifindex = Some(*index);
        }
    }
    let peer = namespace.zip(ifindex).map(|(namespace, ifindex)| Peer { namespace, ifindex });
    Some(Link { name: name?, peer })
}

/// Does this refusal say that there is no way to an address? Routes may say so themselves: `unreachable`, `prohibit` and
/// `blackhole`, which Calico has for a node's own pools.
fn is_nowhere(errno: i32) -> bool {
    matches!(errno, libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
}

fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn route(source: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(source.is_ipv6()),
        table: RouteHeader::RT_TABLE_UNSPEC,
        protocol: RouteProtocol::Other(ROUTE_PROTOCOL),
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Table(TABLE),
        RouteAttribute::Oif(LO_IFINDEX),
        RouteAttribute::PrefSource(match source {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        }),
    ];
    message
}

fn rule(v6: bool, mark: u32, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header = RuleHeader { family: family(v6), action: RuleAction::ToTable, ..RuleHeader::default() };
    message.attributes = vec![
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::FwMark(mark),
        RuleAttribute::FwMask(MARK_MASK),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
    ];
    message
}

//! Two nodes: namespaces joined by a veth, with routes to each other's pods.
//!
//! Invariant: addresses depend on the node alone, so that every run looks the same.

use crate::leftovers;
use crate::netns::NetNs;
use anyhow::Result;
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// The device of a node towards the other.
pub(crate) const LINK: &str = "link0";

/// Which of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// The first.
    A,
    /// The second.
    B,
}

impl Node {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its name in Kubernetes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The number in its addresses.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its addresses, as a node, IPv4 first.
    #[must_use]
    pub fn addresses(self) -> [IpAddr; 2] {
        let number = self.number();
        [
            Ipv4Addr::new(10, 245, 0, number).into(),
            Ipv6Addr::new(0xfd00, 0x245, 0, 0, 0, 0, 0, u16::from(number)).into(),
        ]
    }

    /// The subnets of its pods, IPv4 first.
    #[must_use]
    pub fn pod_subnets(self) -> [String; 2] {
        let number = self.number();
        [format!("10.244.{number}.0/24"), format!("fd00:244:{number}::/64")]
    }
}

/// A node's namespace and directory.
#[derive(Debug)]
pub struct NodeNet {
    node: Node,
    ns: NetNs,
    dir: PathBuf,
}

impl NodeNet {
    /// Which node it is.
    #[must_use]
    pub const fn node(&self) -> Node {
        self.node
    }

    /// Its network namespace.
    #[must_use]
    pub const fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Its own directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Both nodes of the run `id`, joined.
pub(crate) fn pair(id: &str, dir: &Path) -> Result<[NodeNet; 2]> {
    let nodes = [single(id, dir, Node::A)?, single(id, dir, Node::B)?];
    let (a, b) = (&nodes[0], &nodes[1]);
    let peer = b.ns.name();
    a.ns.run("ip", ["link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", peer])?;
    for node in &nodes {
        let [address4, address6] = node.node.addresses();
        ip(&node.ns, &format!("address add {address4}/24 dev {LINK}"))?;
        ip(&node.ns, &format!("address add {address6}/64 dev {LINK} nodad"))?;
        ip(&node.ns, &format!("link set {LINK} up"))?;
    }
    for node in &nodes {
        let other = node.node.other();
        for (subnet, via) in other.pod_subnets().iter().zip(other.addresses()) {
            ip(&node.ns, &format!("route add {subnet} via {via}"))?;
        }
    }
    Ok(nodes)
}

fn single(id: &str, dir: &Path, node: Node) -> Result<NodeNet> {
    let ns = NetNs::create(&format!("{id}-{}", node.name()))?;
    ns.set_sysctl("net/ipv4/ip_forward", "1")?;
    ns.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let dir = dir.join(node.name());
    fs::create_dir(&dir)?;
    Ok(NodeNet { node, ns, dir })
}

/// Makes pods reachable from the machine's own namespace, through node A. One mesh at a time has that; others wait.
pub(crate) fn join_root(id: &str, nodes: &[NodeNet; 2]) -> Result<Flock<File>> {
    let alone = leftovers::lock_exclusive("root-link")?;
    // Device names have 15 characters; the end of an id tells runs apart.
    let device = format!("mesh-{}", &id[id.len().saturating_sub(4)..]);
    let (a, b) = (&nodes[0].ns, &nodes[1].ns);
    let root = |arguments: &str| crate::exec::checked(std::process::Command::new("ip").args(arguments.split(' ')));
    root(&format!("link add {device} type veth peer name root0 netns {}", a.name()))?;
    root(&format!("address add 10.246.0.1/24 dev {device}"))?;
    root(&format!("address add fd00:246::1/64 dev {device} nodad"))?;
    root(&format!("link set {device} up"))?;
    ip(a, "address add 10.246.0.2/24 dev root0")?;
    ip(a, "address add fd00:246::2/64 dev root0 nodad")?;
    ip(a, "link set root0 up")?;
    let [via4, via6] = Node::A.addresses();
    ip(b, &format!("route add 10.246.0.0/24 via {via4}"))?;
    ip(b, &format!("route add fd00:246::/64 via {via6}"))?;
    root(&format!("route add 10.244.0.0/16 via 10.246.0.2 dev {device}"))?;
    root(&format!("route add fd00:244::/32 via fd00:246::2 dev {device}"))?;
    Ok(alone)
}

fn ip(ns: &NetNs, arguments: &str) -> Result<String> {
    ns.run("ip", arguments.split(' '))
}

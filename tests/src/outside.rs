//! A world outside the cluster: machines that are no pods, with names and certificates.
//!
//! In:  a mesh.
//! Out: a namespace that nodes and pods reach through node A; servers in it; an authority that vouches for them.
//! Invariant: addresses are those that RFC 5737 and RFC 3849 keep for examples.

use crate::certificates::Certificate;
use crate::env;
use crate::exec::Process;
use crate::mesh::Cluster;
use crate::netns::NetNs;
use crate::node::Node;
use anyhow::{Context, Result};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The numbers of the addresses that there are.
const ADDRESSES: std::ops::RangeInclusive<u8> = 10..=13;

/// The world outside.
#[derive(Debug)]
pub struct Outside {
    ns: NetNs,
    dir: PathBuf,
}

impl Outside {
    pub(crate) fn create(cluster: &Cluster) -> Result<Self> {
        let ns = NetNs::create(&format!("{}-outside", cluster.id()))?;
        let a = cluster.node(Node::A).ns();
        let ip = |ns: &NetNs, arguments: &str| ns.run("ip", arguments.split(' '));
        ip(&ns, &format!("link add out0 type veth peer name out0 netns {}", a.name()))?;
        for number in ADDRESSES.chain([2]) {
            ip(&ns, &format!("address add {}/24 dev out0", v4(number)))?;
            ip(&ns, &format!("address add {}/64 dev out0 nodad", v6(number)))?;
        }
        ip(&ns, "link set out0 up")?;
        ip(a, &format!("address add {}/24 dev out0", v4(1)))?;
        ip(a, &format!("address add {}/64 dev out0 nodad", v6(1)))?;
        ip(a, "link set out0 up")?;
        ip(&ns, &format!("route add default via {}", v4(1)))?;
        ip(&ns, &format!("-6 route add default via {}", v6(1)))?;
        let [via4, via6] = Node::A.addresses();
        let b = cluster.node(Node::B).ns();
        ip(b, &format!("route add 203.0.113.0/24 via {via4}"))?;
        ip(b, &format!("-6 route add 2001:db8:113::/64 via {via6}"))?;
        let dir = cluster.node(Node::A).dir().join("outside");
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { ns, dir })
    }

    /// Its namespace.
    #[must_use]
    pub const fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Where files of it can be put.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One of its addresses over IPv4; there are those from 10 to 13.
    #[must_use]
    pub fn address(number: u8, port: u16) -> SocketAddr {
        (v4(number), port).into()
    }

    /// Starts a server of HTTP that tells each client what it understood; under TLS with a certificate.
    ///
    /// **Errors**: it is not built, or cannot be started.
    pub fn http(&self, name: &str, listen: SocketAddr, tls: Option<&Certificate>) -> Result<Process> {
        let mut command = self.ns.command(env::built("httpecho")?);
        command.args(["--name", name, "--listen", &listen.to_string()]);
        if let Some(Certificate { certificate, key }) = tls {
            command.arg("--certificate").arg(certificate).arg("--key").arg(key);
        }
        let process = Process::start(&mut command, &self.dir.join(format!("{name}.log")))?;
        crate::wait::until_true(&format!("{name} listens"), crate::wait::PATIENCE, || {
            Ok(crate::traffic::connect(&self.ns, listen, crate::wait::PATIENCE).is_ok())
        })?;
        Ok(process)
    }

    /// A new authority; its root is the file that is given back.
    ///
    /// **Errors**: openssl is not installed, or fails.
    pub fn authority(&self, name: &str) -> Result<PathBuf> {
        Ok(Certificate::authority(&self.dir, name)?.certificate)
    }

    /// A certificate for these names, as in `DNS:www.example.com` or `URI:spiffe://a/b`, by an authority that was made.
    ///
    /// **Errors**: openssl is not installed, or fails.
    pub fn certificate(&self, authority: &str, name: &str, names: &str) -> Result<Certificate> {
        Certificate::signed(&self.dir, authority, name, names)
    }
}

fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, number).into()
}

fn v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, u16::from(number)).into()
}

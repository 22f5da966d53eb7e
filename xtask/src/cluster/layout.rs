//! What the cluster consists of, where it is and what it is called.
//!
//! Invariant: everything on this machine that outlives a command bears [`Layout::id`], which belongs to one work tree,
//!            so that it is found and removed by a process that knows nothing of how it came to be.

use crate::env;
use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the API server and etcd are, on the network that joins the machines.
pub(super) const CONTROL_ADDRESS: &str = "10.99.0.1";
/// The same with the length of the network's prefix.
pub(super) const CONTROL_NETWORK: &str = "10.99.0.1/24";
/// The API server, from wherever the machines' network is reached.
pub(super) const API: &str = "https://10.99.0.1:6443";
/// Of which Services get their addresses.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The first of these, which is the API server's.
pub(super) const API_SERVICE: &str = "10.96.0.1";
/// The cluster's DNS.
pub(super) const DNS: &str = "10.96.0.10";
/// Of which pods get their addresses.
pub(super) const PODS: &str = "10.244.0.0/16";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// A node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) address: &'static str,
    /// The pool of its pods' addresses.
    pub(super) pods: &'static str,
    /// The address in it that packets between nodes come from when they are wrapped.
    pub(super) tunnel: &'static str,
}

/// The nodes.
pub(super) const NODES: [Node; 2] = [
    Node { name: "node1", address: "10.99.0.11", pods: "10.244.1.0/24", tunnel: "10.244.1.0" },
    Node { name: "node2", address: "10.99.0.12", pods: "10.244.2.0/24", tunnel: "10.244.2.0" },
];

/// The machine with etcd, the API server, the controllers and the scheduler.
pub(super) const CONTROL: &str = "control";

/// Every machine's name.
pub(super) fn machines() -> impl Iterator<Item = &'static str> {
    std::iter::once(CONTROL).chain(NODES.iter().map(|node| node.name))
}

/// The node of that name.
///
/// **Errors**: there is none.
pub(super) fn node(name: &str) -> Result<&'static Node> {
    let names: Vec<_> = NODES.iter().map(|node| node.name).collect();
    let node = NODES.iter().find(|node| node.name == name);
    node.with_context(|| format!("there is no node `{name}`, only {}", names.join(" and ")))
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    target: PathBuf,
}

impl Layout {
    /// That of this work tree.
    pub(super) fn of_work_tree() -> Self {
        Self { target: env::target_dir() }
    }

    /// What its names begin with.
    pub(super) fn id(&self) -> String {
        let digest = Sha256::digest(self.target.as_os_str().as_encoded_bytes());
        format!("mesh-{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2])
    }

    /// The name of a machine's network namespace, and of its cgroups.
    pub(super) fn name(&self, machine: &str) -> String {
        format!("{}-{machine}", self.id())
    }

    /// A machine's network namespace.
    pub(super) fn namespace(&self, machine: &str) -> PathBuf {
        Path::new(NAMESPACES).join(self.name(machine))
    }

    /// Cargo's directory.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    /// The cluster's directory.
    pub(super) fn dir(&self) -> PathBuf {
        self.target.join("cluster")
    }

    /// A program that `cargo xtask setup cluster` built.
    pub(super) fn tool(&self, name: &str) -> PathBuf {
        self.target.join("tools").join(name)
    }

    /// A certificate, key or kubeconfig.
    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.dir().join("pki").join(file)
    }

    /// Who may do anything.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.pki("admin.kubeconfig")
    }

    /// A machine's files.
    pub(super) fn machine(&self, name: &str) -> PathBuf {
        self.dir().join("machines").join(name)
    }

    /// What a component of a machine prints.
    pub(super) fn log(&self, machine: &str, component: &str) -> PathBuf {
        self.dir().join("logs").join(machine).join(format!("{component}.log"))
    }

    /// The description of a running cluster, for tests.
    pub(super) fn state(&self) -> PathBuf {
        self.dir().join("state.json")
    }

    /// A command that runs in a machine's network, and otherwise on this machine.
    pub(super) fn in_network(&self, machine: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace(machine).display())).arg("--").arg(program);
        command
    }

    /// `kubectl` with all rights.
    pub(super) fn kubectl(&self) -> Command {
        let mut command = self.in_network(CONTROL, self.tool("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// `calicoctl` with all rights.
    pub(super) fn calicoctl(&self) -> Command {
        let mut command = self.in_network(CONTROL, self.tool("calicoctl"));
        command.arg("--allow-version-mismatch");
        command.env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// The first process of a machine, if it lives.
    pub(super) fn first_process(&self, machine: &str) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let process: u32 = std::fs::read_to_string(self.machine(machine).join("pid")).ok()?.trim().parse().ok()?;
        // Its number may have gone to another process since.
        let network = |path: &Path| std::fs::metadata(path).ok().map(|namespace| namespace.ino());
        let own = network(&self.namespace(machine))?;
        (network(Path::new(&format!("/proc/{process}/ns/net"))) == Some(own)).then_some(process)
    }
}

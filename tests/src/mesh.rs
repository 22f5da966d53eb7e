//! The stage of a scenario: two nodes, a Kubernetes of files, and the mesh on both.
//!
//! In:  a scenario's name and what it wants different from the usual.
//! Out: [`Mesh`], from which everything else is made.

use crate::capture::Capture;
use crate::cni::{Chain, Runtime};
use crate::daemon::Daemon;
use crate::kube::Kube;
use crate::leftovers::{self, Run};
use crate::node::{self, LINK, Node, NodeNet};
use crate::outside::Outside;
use crate::pod::PodBuilder;
use anyhow::{Context, Result};
use nix::fcntl::Flock;
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In a run's directory: a BPF file system of its own, so that what is pinned goes away with it.
pub(crate) const BPF_DIR: &str = "bpf";

/// What pods and daemons share. Fields are dropped in their order: namespaces before the run that names them.
#[derive(Debug)]
pub(crate) struct Cluster {
    kube: Kube,
    chains: [Chain; 2],
    nodes: [NodeNet; 2],
    daemon_arguments: Vec<(Option<Node>, String)>,
    hosts: Option<PathBuf>,
    foreign: Option<Node>,
    shows_logs: bool,
    run: Run,
    _root_link: Option<Flock<File>>,
}

impl Cluster {
    pub(crate) fn id(&self) -> &str {
        &self.run.id
    }

    pub(crate) const fn kube(&self) -> &Kube {
        &self.kube
    }

    pub(crate) const fn node(&self, node: Node) -> &NodeNet {
        match node {
            Node::A => &self.nodes[0],
            Node::B => &self.nodes[1],
        }
    }

    pub(crate) const fn chain(&self, node: Node) -> &Chain {
        match node {
            Node::A => &self.chains[0],
            Node::B => &self.chains[1],
        }
    }

    pub(crate) fn bpf_dir(&self, node: Node) -> PathBuf {
        self.run.dir.join(BPF_DIR).join(node.name())
    }

    pub(crate) fn ca_dir(&self, node: Node) -> PathBuf {
        self.run.dir.join(if self.foreign == Some(node) { "foreign-ca" } else { "ca" })
    }

    pub(crate) fn state_dir(&self, node: Node) -> PathBuf {
        self.node(node).dir().join("state")
    }

    pub(crate) fn socket(&self, node: Node) -> PathBuf {
        self.node(node).dir().join("cni.sock")
    }

    pub(crate) fn daemon_arguments(&self, of: Node) -> impl Iterator<Item = &str> {
        let meant = move |(node, _): &&(Option<Node>, String)| node.is_none_or(|node| node == of);
        self.daemon_arguments.iter().filter(meant).map(|(_, argument)| argument.as_str())
    }

    /// The file in which daemons look names up, if it is one of the scenario's own.
    pub(crate) fn hosts(&self) -> Option<&Path> {
        self.hosts.as_deref()
    }

    pub(crate) const fn shows_logs(&self) -> bool {
        self.shows_logs
    }
}

/// What a scenario wants different from the usual.
#[derive(Debug)]
pub struct Builder {
    name: String,
    meshed: bool,
    reachable: bool,
    shows_logs: bool,
    runtime: Runtime,
    daemon_arguments: Vec<(Option<Node>, String)>,
    own_names: bool,
    foreign: Option<Node>,
}

impl Builder {
    /// Nodes and pods alone: no daemons, and the mesh's plugin is not in the chain.
    #[must_use]
    pub const fn without_mesh(mut self) -> Self {
        self.meshed = false;
        self
    }

    /// Pods can be reached from the machine's own network. One mesh at a time has that; others wait for it.
    #[must_use]
    pub const fn reachable_from_host(mut self) -> Self {
        self.reachable = true;
        self
    }

    /// Daemons' logs are not shown at the end.
    #[must_use]
    pub const fn quiet(mut self) -> Self {
        self.shows_logs = false;
        self
    }

    /// Which program runs the CNI plugins; the reference runtime unless said.
    #[must_use]
    pub const fn cni_runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    /// Daemons know the names that [`Mesh::name`] gives, and no others.
    #[must_use]
    pub const fn own_names(mut self) -> Self {
        self.own_names = true;
        self
    }

    /// Gives every daemon one more argument, such as `--svid-ttl=10s`.
    #[must_use]
    pub fn daemon_argument(mut self, argument: &str) -> Self {
        self.daemon_arguments.push((None, argument.to_owned()));
        self
    }

    /// Gives the daemons of one node one more argument.
    #[must_use]
    pub fn daemon_argument_on(mut self, node: Node, argument: &str) -> Self {
        self.daemon_arguments.push((Some(node), argument.to_owned()));
        self
    }

    /// Gives this node a certificate authority of its own, which the other does not know.
    #[must_use]
    pub const fn foreign_authority(mut self, node: Node) -> Self {
        self.foreign = Some(node);
        self
    }

    /// Sets everything up, and waits until both daemons are ready.
    ///
    /// **Errors**: this is not root, something is not installed or not built, the same scenario runs already, or a
    /// daemon does not become ready.
    pub fn build(self) -> Result<Mesh> {
        let run = Run::begin(&self.name)?;
        let nodes = node::pair(&run.id, &run.dir)?;
        let root_link = self.reachable.then(|| node::join_root(&run.id, &nodes)).transpose()?;
        let kube = Kube::create(run.dir.join("objects"))?;
        for namespace in ["default", "kube-system"] {
            kube.namespace(namespace, &[])?;
        }
        mount_bpf(&run)?;
        let hosts = self.own_names.then(|| run.dir.join("hosts"));
        if let Some(hosts) = &hosts {
            fs::write(hosts, "").context("cannot write the file of names")?;
        }
        let chain = |node: &NodeNet| {
            let socket = self.meshed.then(|| node.dir().join("cni.sock"));
            Chain::install(node, socket.as_deref(), self.runtime)
        };
        let chains = [chain(&nodes[0])?, chain(&nodes[1])?];
        let cluster = Arc::new(Cluster {
            kube,
            chains,
            nodes,
            daemon_arguments: self.daemon_arguments,
            hosts,
            foreign: self.foreign,
            shows_logs: self.shows_logs,
            run,
            _root_link: root_link,
        });
        let mesh = Mesh { daemons: Mutex::default(), cluster };
        if self.meshed {
            for node in Node::BOTH {
                let daemon = mesh.start_daemon(node)?;
                mesh.set_daemon(daemon);
            }
            for node in Node::BOTH {
                mesh.daemon(node)?.ready()?;
            }
        }
        Ok(mesh)
    }
}

/// A BPF file system in the run's directory.
pub(crate) fn mount_bpf(run: &Run) -> Result<()> {
    let dir = run.dir.join(BPF_DIR);
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    mount(Some("bpf"), &dir, Some("bpf"), MsFlags::empty(), None::<&str>)
        .context("cannot mount a BPF file system: does the kernel have eBPF?")
}

/// Two nodes, and the mesh on both. Everything goes away when this and what was made from it are dropped.
#[derive(Debug)]
pub struct Mesh {
    daemons: Mutex<Vec<Arc<Daemon>>>,
    cluster: Arc<Cluster>,
}

impl Mesh {
    /// A mesh for the scenario `name`, which everything is named after.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            meshed: true,
            reachable: false,
            shows_logs: true,
            runtime: Runtime::Reference,
            daemon_arguments: Vec::new(),
            own_names: false,
            foreign: None,
        }
    }

    /// The objects of the cluster.
    #[must_use]
    pub fn kube(&self) -> &Kube {
        self.cluster.kube()
    }

    /// A node's namespace and directory.
    #[must_use]
    pub fn node(&self, node: Node) -> &NodeNet {
        self.cluster.node(node)
    }

    /// A pod to be; `name` is `namespace/name`.
    #[must_use]
    pub fn pod(&self, name: &str) -> PodBuilder {
        PodBuilder::new(Arc::clone(&self.cluster), name)
    }

    /// The daemon in charge of a node.
    ///
    /// **Errors**: there is none.
    pub fn daemon(&self, node: Node) -> Result<Arc<Daemon>> {
        let found = self.daemons().iter().find(|daemon| daemon.node() == node).cloned();
        found.with_context(|| format!("node {} has no daemon", node.name()))
    }

    /// Starts a further daemon on a node, as an upgrade or a restart does, and gives it back before it is ready.
    ///
    /// **Errors**: it is not built, or cannot be started.
    pub fn start_daemon(&self, node: Node) -> Result<Daemon> {
        Daemon::start(&self.cluster, node)
    }

    /// Puts `daemon` in charge of its node, for [`Mesh::daemon`]; gives the one before, which is killed when dropped.
    pub fn set_daemon(&self, daemon: Daemon) -> Option<Arc<Daemon>> {
        let mut daemons = self.daemons();
        let at = daemons.iter().position(|before| before.node() == daemon.node());
        let before = at.map(|at| daemons.remove(at));
        daemons.push(Arc::new(daemon));
        before
    }

    /// Replaces the daemon of a node as an upgrade does: the next one is ready before the one before is told to end. It is given
    /// back while it drains.
    ///
    /// **Errors**: there was none, or the next one does not become ready.
    pub fn replace_daemon(&self, node: Node) -> Result<Arc<Daemon>> {
        let before = self.daemon(node)?;
        let next = self.start_daemon(node)?;
        next.ready()?;
        self.set_daemon(next);
        before.terminate()?;
        Ok(before)
    }

    /// The world outside the cluster.
    ///
    /// **Errors**: it is there already.
    pub fn outside(&self) -> Result<Outside> {
        Outside::create(&self.cluster)
    }

    /// Gives names to addresses in place of those that were given before, for the daemons of a mesh with names of its own.
    ///
    /// **Errors**: it has none.
    pub fn name(&self, names: &[(&str, IpAddr)]) -> Result<()> {
        let hosts = self.cluster.hosts().context("the mesh was built without names of its own")?;
        let lines: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        // In place: what is mounted is this very file.
        fs::write(hosts, lines).context("cannot write the file of names")
    }

    /// Captures what passes between the nodes from now on; `name` tells captures of a scenario apart.
    ///
    /// **Errors**: tcpdump is not installed, or does not start.
    pub fn capture(&self, name: &str) -> Result<Capture> {
        let node = self.node(Node::A);
        Capture::start(&node.ns().path(), LINK, &node.dir().join(format!("{name}.pcap")))
    }

    /// Where roots and their keys are.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.cluster.ca_dir(Node::A)
    }

    /// Where a node's daemon keeps what is to outlive it.
    #[must_use]
    pub fn state_dir(&self, node: Node) -> PathBuf {
        self.cluster.state_dir(node)
    }

    /// Where the daemon of a node listens for the CNI plugin.
    #[must_use]
    pub fn socket(&self, node: Node) -> PathBuf {
        self.cluster.socket(node)
    }

    /// Where the daemon of a node pins what is the kernel's.
    #[must_use]
    pub fn bpf_dir(&self, node: Node) -> PathBuf {
        self.cluster.bpf_dir(node)
    }

    /// Leaves nodes, pods, programs and daemons as they are when this process ends, until [`down`](crate::down).
    ///
    /// **Errors**: the run cannot be marked.
    pub fn keep(&self) -> Result<()> {
        self.cluster.run.keep()
    }

    fn daemons(&self) -> MutexGuard<'_, Vec<Arc<Daemon>>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if leftovers::kept() {
            println!("kept: {}", self.cluster.run.dir.display());
        }
    }
}

//! Pods: what the kubelet does for them, and what their applications do.
//!
//! In:  a pod's name, node, labels and account.
//! Out: a network namespace that the CNI chain joined to the node, and the pod's object with its addresses.

use crate::cni::Sandbox;
use crate::exec::{Output, Process, execute};
use crate::http::Seen;
use crate::kube::{self, split};
use crate::mesh::Cluster;
use crate::netns::NetNs;
use crate::node::Node;
use crate::traffic::{self, Server};
use crate::wait::PATIENCE;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// A pod to be.
#[derive(Debug)]
pub struct PodBuilder {
    cluster: Arc<Cluster>,
    name: String,
    node: Node,
    account: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    before_the_mesh: bool,
    probe_port: Option<u16>,
    ports: BTreeMap<String, u16>,
}

impl PodBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, name: &str) -> Self {
        let (labels, annotations) = (BTreeMap::new(), BTreeMap::new());
        Self {
            cluster,
            name: name.to_owned(),
            node: Node::A,
            account: "default".to_owned(),
            labels,
            annotations,
            before_the_mesh: false,
            probe_port: None,
            ports: BTreeMap::new(),
        }
    }

    /// Where it runs; on A unless said.
    #[must_use]
    pub const fn on(mut self, node: Node) -> Self {
        self.node = node;
        self
    }

    /// Its service account; `default` unless said.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.account);
        self
    }

    /// Gives it a label.
    #[must_use]
    pub fn label(mut self, label: &str, value: &str) -> Self {
        self.labels.insert(label.to_owned(), value.to_owned());
        self
    }

    /// Gives it an annotation.
    #[must_use]
    pub fn annotation(mut self, annotation: &str, value: &str) -> Self {
        self.annotations.insert(annotation.to_owned(), value.to_owned());
        self
    }

    /// The kubelet asks after it on this port.
    #[must_use]
    pub const fn probe_port(mut self, port: u16) -> Self {
        self.probe_port = Some(port);
        self
    }

    /// Gives a port of its container a name.
    #[must_use]
    pub fn port(mut self, name: &str, port: u16) -> Self {
        self.ports.insert(name.to_owned(), port);
        self
    }

    /// Joins it to the node by a chain without the mesh's plugin, as if it had run before that was there.
    #[must_use]
    pub const fn before_the_mesh(mut self) -> Self {
        self.before_the_mesh = true;
        self
    }

    /// Creates the pod, and waits until the CNI chain has it and Kubernetes knows its addresses.
    ///
    /// **Errors**: the name has no namespace, or the chain refuses the pod, in which case everything is undone.
    pub fn start(self) -> Result<Pod> {
        let (namespace, name) = split(&self.name)?;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let ns = NetNs::create(&format!("{}-{namespace}-{name}", self.cluster.id()))?;
        let kube = self.cluster.kube();
        let probe = self.probe_port.map(|port| json!({"tcpSocket": {"port": port}}));
        let ports: Vec<Value> =
            self.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port})).collect();
        kube.pod(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": self.labels, "annotations": self.annotations},
            "spec": {
                "nodeName": self.node.name(),
                "serviceAccountName": self.account,
                "containers": [{"name": "main", "image": name, "ports": ports, "readinessProbe": probe}],
            },
            "status": {"phase": "Pending"},
        }))?;
        let object = kube.object("Pod", &namespace, &name).context("the pod is gone")?;
        let uid = object["metadata"]["uid"].as_str().context("a pod without uid")?.to_owned();
        let container_id = uid.replace('-', "");
        let sandbox = Sandbox { container_id, netns: ns.path(), namespace, name, uid };
        let mut pod =
            Pod { cluster: self.cluster, node: self.node, ns, sandbox, addresses: Vec::new(), added_in: None };
        let chain = pod.cluster.chain(pod.node);
        let plain = self.before_the_mesh.then(|| chain.without_mesh());
        let chain = plain.as_ref().unwrap_or(chain);
        match chain.add(pod.cluster.node(pod.node), &pod.sandbox) {
            Ok((addresses, added_in)) => (pod.addresses, pod.added_in) = (addresses, added_in),
            Err(error) => {
                pod.cluster.kube().delete("Pod", &pod.sandbox.namespace, &pod.sandbox.name)?;
                return Err(error.context(format!("the CNI chain refused the pod {}", self.name)));
            }
        }
        pod.update(|object, addresses| {
            object["status"] = json!({
                "phase": "Running",
                "podIP": addresses.first().map(IpAddr::to_string),
                "podIPs": addresses.iter().copied().map(kube::pod_ip).collect::<Vec<_>>(),
                "conditions": [{"type": "Ready", "status": "True"}],
            });
        })?;
        Ok(pod)
    }
}

/// A running pod. Its namespace goes away when this is dropped; [`Pod::delete`] does it as Kubernetes does.
#[derive(Debug)]
pub struct Pod {
    cluster: Arc<Cluster>,
    node: Node,
    ns: NetNs,
    sandbox: Sandbox,
    addresses: Vec<IpAddr>,
    added_in: Option<Duration>,
}

impl Pod {
    /// Its name, without namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.sandbox.name
    }

    /// Its namespace in Kubernetes.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.sandbox.namespace
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.sandbox.uid
    }

    /// Where it runs.
    #[must_use]
    pub const fn node(&self) -> Node {
        self.node
    }

    /// Its network namespace.
    #[must_use]
    pub const fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Its addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// How long the last plugin of the chain, which is the mesh's, took to add it; only [`Runtime::Direct`] can tell.
    ///
    /// [`Runtime::Direct`]: crate::Runtime::Direct
    #[must_use]
    pub const fn added_in(&self) -> Option<Duration> {
        self.added_in
    }

    /// `port` at its IPv4 address.
    ///
    /// **Panics**: it has none; the chain gives every pod one of each family.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        self.address_of(false, port)
    }

    /// `port` at its IPv6 address.
    ///
    /// **Panics**: as [`Pod::address`].
    #[must_use]
    pub fn address6(&self, port: u16) -> SocketAddr {
        self.address_of(true, port)
    }

    fn address_of(&self, v6: bool, port: u16) -> SocketAddr {
        let address = self.addresses.iter().find(|address| address.is_ipv6() == v6);
        SocketAddr::new(*address.expect("the chain gives every pod an address of each family"), port)
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.ns.command(program)
    }

    /// Runs a program inside to its end.
    ///
    /// **Errors**: it cannot be started, or takes longer than [`PATIENCE`]; not: it fails.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
        execute(self.command(program).args(arguments), PATIENCE)
    }

    /// Starts `command`, made by [`Pod::command`], as the pod's application; it prints into a file of the node.
    ///
    /// **Errors**: it cannot be started.
    pub fn spawn(&self, command: &mut Command, name: &str) -> Result<Process> {
        let file = format!("{}-{}-{name}.log", self.sandbox.namespace, self.sandbox.name);
        Process::start(command, &self.cluster.node(self.node).dir().join(file))
    }

    /// Fetches a page with curl.
    ///
    /// **Errors**: no answer, or one that says failure; the error has curl's reason.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.run("curl", ["--silent", "--show-error", "--fail", "--globoff", "--max-time", "10", url])?.success()
    }

    /// What curl gets, with further arguments.
    ///
    /// **Errors**: no answer came.
    pub fn ask(&self, url: &str, arguments: &[&str]) -> Result<Seen> {
        self.ns.ask(url, arguments)
    }

    /// Starts a server that sends back what it gets, on all addresses of both families.
    ///
    /// **Errors**: the port is taken.
    pub fn echo(&self, port: u16) -> Result<Server> {
        Server::start(&self.ns, port, |stream, _| traffic::echo(stream))
    }

    /// Starts a server that speaks first, then echoes.
    ///
    /// **Errors**: the port is taken.
    pub fn banner(&self, port: u16, text: &'static str) -> Result<Server> {
        Server::start(&self.ns, port, move |stream, _| traffic::banner(stream, text))
    }

    /// Starts a web server with one page.
    ///
    /// **Errors**: the port is taken.
    pub fn page(&self, port: u16, body: &'static str) -> Result<Server> {
        Server::start(&self.ns, port, move |stream, _| traffic::page(stream, body))
    }

    /// Starts a server that tells each client the address it sees it under, and closes.
    ///
    /// **Errors**: the port is taken.
    pub fn whoami(&self, port: u16) -> Result<Server> {
        Server::start(&self.ns, port, traffic::whoami)
    }

    /// Connects from inside; reads and writes have [`PATIENCE`] as their deadline.
    ///
    /// **Errors**: refused, or no answer within the deadline.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.connect_within(to, PATIENCE)
    }

    /// As [`Pod::connect`], with a deadline.
    ///
    /// **Errors**: refused, or no answer within `patience`.
    pub fn connect_within(&self, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
        traffic::connect(&self.ns, to, patience)
    }

    /// Connects, sends `bytes`, closes its side, and gives all that comes back.
    ///
    /// **Errors**: the connection fails at any point.
    pub fn exchange(&self, to: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
        traffic::exchange(self.connect(to)?, bytes)
    }

    /// Says that it is ready, or not.
    ///
    /// **Errors**: its file cannot be written.
    pub fn set_ready(&self, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "False" };
        self.update(|object, _| object["status"]["conditions"] = json!([{"type": "Ready", "status": status}]))
    }

    /// Gives it a label, or another value of it.
    ///
    /// **Errors**: its file cannot be written.
    pub fn set_label(&self, label: &str, value: &str) -> Result<()> {
        self.update(|object, _| object["metadata"]["labels"][label] = json!(value))
    }

    /// Takes a label away.
    ///
    /// **Errors**: its file cannot be written.
    pub fn remove_label(&self, label: &str) -> Result<()> {
        self.update(|object, _| {
            if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
                labels.remove(label);
            }
        })
    }

    /// Says that it is being deleted: it serves what it has, and gets no new clients.
    ///
    /// **Errors**: its file cannot be written.
    pub fn set_terminating(&self) -> Result<()> {
        self.update(|object, _| object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z"))
    }

    /// Runs CNI CHECK.
    ///
    /// **Errors**: a plugin says that the pod is not as ADD left it.
    pub fn check(&self) -> Result<()> {
        self.cluster.chain(self.node).check(self.cluster.node(self.node), &self.sandbox)
    }

    /// Deletes it as Kubernetes does: terminating, CNI DEL, gone.
    ///
    /// **Errors**: a plugin fails, or a file cannot be removed.
    pub fn delete(self) -> Result<()> {
        self.set_terminating()?;
        self.cluster.chain(self.node).delete(self.cluster.node(self.node), &self.sandbox)?;
        self.cluster.kube().delete("Pod", &self.sandbox.namespace, &self.sandbox.name)
    }

    fn update(&self, change: impl FnOnce(&mut Value, &[IpAddr])) -> Result<()> {
        let kube = self.cluster.kube();
        let (namespace, name) = (&self.sandbox.namespace, &self.sandbox.name);
        let mut object = kube.object("Pod", namespace, name).with_context(|| format!("no pod {namespace}/{name}"))?;
        change(&mut object, &self.addresses);
        kube.pod(object)
    }
}

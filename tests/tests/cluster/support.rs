//! A Kubernetes namespace for a test, with pods in it.

use crate::witness::{state, until};
use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::{Cluster, ClusterNode};
use mesh_tests::load::Figures;
use mesh_tests::{Capture, Captured, Flow, Process, env, tools, wait};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long pods may take to start, with others starting beside them.
pub(crate) const START: Duration = Duration::from_secs(60);
/// The label that puts a namespace into the mesh.
pub(crate) const MODE: &str = "istio.io/dataplane-mode";
/// Where the mesh itself is.
pub(crate) const SYSTEM: &str = "mesh-system";
/// Where the daemons serve their metrics.
const METRICS: u16 = 15020;

/// A Kubernetes namespace; deleted when this is dropped.
pub(crate) struct Space {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
}

/// A pod that is ready.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) address: Ipv4Addr,
}

impl Space {
    /// A namespace of a cluster with the mesh.
    pub(crate) fn new(name: &str, in_mesh: bool) -> Result<Self> {
        let cluster = Cluster::attach()?;
        install(&cluster)?;
        Self::beside(cluster, name, in_mesh)
    }

    /// A namespace of a cluster, with the mesh or without.
    pub(crate) fn beside(cluster: Cluster, name: &str, in_mesh: bool) -> Result<Self> {
        cluster.kubectl(["delete", "namespace", name, "--ignore-not-found", "--timeout=60s"])?;
        let labels = if in_mesh { json!({MODE: "ambient"}) } else { json!({}) };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        cluster.apply(&namespace.to_string())?;
        let space = Self { cluster, name: name.to_owned() };
        wait::until_true("the namespace has its service account", START, || {
            Ok(space.cluster.kubectl_tried(["-n", name, "get", "serviceaccount", "default"])?.status.success())
        })?;
        Ok(space)
    }

    /// Runs `kubectl` in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(["--namespace", &self.name].iter().chain(arguments))
    }

    /// Applies objects in the namespace.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        let objects = objects.iter().cloned().map(|mut object| {
            object["metadata"]["namespace"] = json!(self.name);
            object
        });
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()});
        self.cluster.apply(&list.to_string()).map(drop)
    }

    /// Makes pods, and waits until each is ready.
    pub(crate) fn pods<const N: usize>(&self, pods: [Value; N]) -> Result<[Pod; N]> {
        self.apply(&pods)?;
        let names = pods.map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        let mut wait = vec!["wait", "--for=condition=Ready", "--timeout=60s"];
        let paths: Vec<_> = names.iter().map(|name| format!("pod/{name}")).collect();
        wait.extend(paths.iter().map(String::as_str));
        self.kubectl(&wait)
            .with_context(|| self.kubectl(&["describe", "pods"]).unwrap_or_default())
            .with_context(|| state(&self.cluster))?;
        let ready: Vec<_> = names.iter().map(|name| self.pod(name)).collect::<Result<_>>()?;
        ready.try_into().ok().context("as many pods as were made")
    }

    /// A pod that is there.
    pub(crate) fn pod(&self, name: &str) -> Result<Pod> {
        let path = "--output=jsonpath={.spec.nodeName} {.status.podIP}";
        let found = self.kubectl(&["get", "pod", name, path])?;
        let (node, address) = found.split_once(' ').with_context(|| format!("{name} is on no node"))?;
        Ok(Pod { name: name.to_owned(), node: node.to_owned(), address: address.parse().context("its address")? })
    }

    /// A Service over the pods with the label `app`; gives its address.
    pub(crate) fn service(&self, app: &str, ports: Value) -> Result<String> {
        self.apply(&[json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
            "spec": {"selector": {"app": app}, "ports": ports},
        })])?;
        self.kubectl(&["get", "service", app, "--output=jsonpath={.spec.clusterIP}"])
    }

    /// Runs a program in a pod, and gives what it prints.
    pub(crate) fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", pod, "--"];
        arguments.extend(command);
        self.kubectl(&arguments)
    }

    /// What `host` says to a pod that asks who it is: which pod answers, and the client's address.
    pub(crate) fn who(&self, from: &str, host: &str) -> Result<(String, String)> {
        let url = format!("http://{host}/cgi-bin/who");
        let said = self.exec(from, &["timeout", "5", "wget", "-q", "-O", "-", &url])?;
        let (server, client) = said.trim().split_once(' ').with_context(|| format!("{host} says {said:?}"))?;
        let client = client.trim_matches(['[', ']']).trim_start_matches("::ffff:");
        Ok((server.to_owned(), client.to_owned()))
    }

    /// A load from a pod in the background, which has begun.
    pub(crate) fn load(&self, from: &str, arguments: &[&str]) -> Result<Load> {
        let log = self.file(&format!("load-{from}.log"))?;
        let mut command = vec!["--namespace", &self.name, "exec", from, "--", "meshload"];
        command.extend(arguments);
        let load = Load { process: self.cluster.kubectl_started(command, &log)? };
        wait::until_true("the load runs", wait::PATIENCE, || {
            let runs =
                self.cluster.kubectl_tried(["--namespace", &self.name, "exec", from, "--", "pidof", "meshload"])?;
            Ok(runs.status.success() || !load.runs()?)
        })?;
        Ok(load)
    }

    /// Waits for an Event with this reason on a pod.
    pub(crate) fn event(&self, pod: &str, reason: &str) -> Result<()> {
        let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
        until(&self.cluster, &format!("{pod} gets the Event {reason}"), START, || {
            Ok(!self.kubectl(&["get", "events", &selector, "--output=name"])?.trim().is_empty())
        })
    }

    /// Demands mutual TLS of whoever speaks to the namespace's pods.
    pub(crate) fn strict(&self) -> Result<()> {
        self.apply(&[json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default"},
            "spec": {"mtls": {"mode": "STRICT"}},
        })])
    }

    /// Captures what pods of different nodes say on a port, before it is wrapped; one of them is `pod`, if any is given.
    pub(crate) fn capture(&self, port: u16, pod: Option<&Pod>) -> Result<Capture> {
        let host = pod.map_or_else(String::new, |pod| format!(" and host {}", pod.address));
        let (node, file) = (self.cluster.nodes()[0].namespace(), self.file("wire.pcap")?);
        Capture::start_of(node, "vxlan.calico", &file, &format!("tcp port {port}{host}"))
    }

    /// A file of the test.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir()?.join(name))
    }

    /// Where files of the test are.
    pub(crate) fn dir(&self) -> Result<PathBuf> {
        let dir = env::programs()?.parent().context("programs are in no directory")?.join("cluster/suites");
        let dir = dir.join(&self.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // The next run that wants the name waits for its end.
        drop(self.cluster.kubectl(["delete", "namespace", &self.name, "--ignore-not-found", "--wait=false"]));
    }
}

/// A load that runs in a pod.
pub(crate) struct Load {
    process: Process,
}

impl Load {
    /// Waits for its end.
    pub(crate) fn figures(self) -> Result<Figures> {
        self.process.wait(Duration::from_secs(120))?;
        Figures::read(&self.process.log())
    }

    /// Is it still running?
    pub(crate) fn runs(&self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }
}

/// A pod's manifest.
pub(crate) fn pod(name: &str, node: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container("main", command)]},
    })
}

/// A container that runs a program of the suites' image.
pub(crate) fn container(name: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": "mesh.test/suites:1", "imagePullPolicy": "Never", "command": command})
}

/// A pod that only waits.
pub(crate) fn client(name: &str, node: &str) -> Value {
    pod(name, node, &["sleep", "1000000"])
}

/// A pod that says on port 8080 who asks.
pub(crate) fn server(name: &str, node: &str) -> Value {
    with_readiness(pod(name, node, &["httpd", "-f", "-p", "8080", "-h", "/www"]))
}

/// A pod that answers a load on port 8080.
pub(crate) fn target(name: &str, node: &str) -> Value {
    with_readiness(pod(name, node, &["meshload", "serve", "--bytes", "64"]))
}

fn with_readiness(mut pod: Value) -> Value {
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    pod
}

/// The definition of the policies that the mesh reads.
pub(crate) const POLICIES: &str = "peerauthentications.security.istio.io";

/// The definition of routes that the mesh reads.
const ROUTES: &str = "httproutes.gateway.networking.k8s.io";

/// Installs the mesh, unless it is there, with the definitions of the policies that it reads.
pub(crate) fn install(cluster: &Cluster) -> Result<()> {
    define(cluster, POLICIES)?;
    if !cluster.kubectl_tried(["get", "customresourcedefinition", ROUTES])?.status.success() {
        let definitions = tools::gateway_api()?.display().to_string();
        cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-f", &definitions])?;
    }
    wait::until_established(ROUTES, |arguments| cluster.kubectl_tried(arguments))?;
    let counts =
        "--output=jsonpath={.status.updatedNumberScheduled} {.status.numberReady} {.metadata.deletionTimestamp}";
    let there = cluster.kubectl_tried(["-n", SYSTEM, "get", "daemonset", "mesh-node", counts])?;
    if there.status.success() && there.stdout.trim() == "2 2" {
        return Ok(());
    }
    cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-f", &manifest()])?;
    rolled_out(cluster)
}

/// Waits until every daemon and signer is the newest, and ready.
pub(crate) fn rolled_out(cluster: &Cluster) -> Result<()> {
    for what in ["daemonset/mesh-node", "deployment/mesh-signer", "deployment/mesh-reporter"] {
        let status = ["-n", SYSTEM, "rollout", "status", what, "--timeout=85s"];
        cluster
            .kubectl(status)
            .with_context(|| cluster.kubectl(["-n", SYSTEM, "describe", "pods"]).unwrap_or_default())
            .with_context(|| state(cluster))?;
    }
    Ok(())
}

/// The mesh's manifest, as users apply it.
pub(crate) fn manifest() -> String {
    root().join("manifests/mesh.yaml").display().to_string()
}

/// The root of the work tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Makes one of Istio's kinds known, unless it is.
pub(crate) fn define(cluster: &Cluster, name: &str) -> Result<()> {
    if !cluster.kubectl_tried(["get", "customresourcedefinition", name])?.status.success() {
        cluster.apply(&definition(name)?)?;
    }
    wait::until_established(name, |arguments| cluster.kubectl_tried(arguments))
}

/// Istio's sample application in a namespace, each of its Deployments available.
pub(crate) fn bookinfo(space: &Space) -> Result<()> {
    let manifest = tools::istio()?.join("samples/bookinfo/platform/kube/bookinfo.yaml").display().to_string();
    space.kubectl(&["apply", "--server-side", "-f", &manifest])?;
    let ready = ["wait", "--for=condition=Available", "deployments", "--all", "--timeout=80s"];
    space.kubectl(&ready).with_context(|| space.kubectl(&["describe", "pods"]).unwrap_or_default())?;
    Ok(())
}

/// One of Istio's resource definitions.
fn definition(name: &str) -> Result<String> {
    let path = tools::istio()?.join("manifests/charts/base/files/crd-all.gen.yaml");
    let all = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = all.split("\n---").find(|document| document.contains(&format!("name: {name}\n")));
    found.map(str::to_owned).with_context(|| format!("no {name} in {}", path.display()))
}

/// The number of a node's daemon, as the node counts processes. The signer and the reporter are the same program.
pub(crate) fn daemon(node: &ClusterNode) -> Result<String> {
    let found = node.exec("pgrep", ["--oldest", "--full", "mesh-node run"])?.success()?;
    Ok(found.trim().to_owned())
}

/// The metrics of all daemons.
pub(crate) fn metrics(cluster: &Cluster) -> Result<String> {
    cluster.nodes().iter().map(|node| page(cluster, node)).collect()
}

/// Waits until a destination's daemon has counted a request with all of these labels, and demands that all of them came
/// by mutual TLS. A request is counted after its response has passed.
pub(crate) fn arrived_by_mutual_tls(cluster: &Cluster, labels: &[String]) -> Result<()> {
    let counted = wait::until(&format!("a request is counted with {labels:?}"), wait::PATIENCE, || {
        let seen = metrics(cluster)?;
        let counted = seen
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{") && line.contains("reporter=\"destination\""))
            .filter(|line| labels.iter().all(|label| line.contains(label)));
        let counted: Vec<_> = counted.map(str::to_owned).collect();
        Ok(Some(counted).filter(|counted| !counted.is_empty()))
    })?;
    ensure!(counted.iter().all(|line| line.contains("=\"mutual_tls\"")), "{counted:#?}");
    Ok(())
}

/// The metrics of a node's daemon.
pub(crate) fn page(cluster: &Cluster, node: &ClusterNode) -> Result<String> {
    cluster.enter(|| {
        let address = SocketAddr::from((node.address(), METRICS));
        let mut stream = TcpStream::connect_timeout(&address, wait::PATIENCE)
            .with_context(|| format!("the daemon of {} serves no metrics", node.name()))?;
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: mesh\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "{} says {text}", node.name());
        Ok(text)
    })
}

/// The connections with bytes from one of these pods to port `port` of another, in a capture.
///
/// **Errors**: there is none, which would prove nothing.
pub(crate) fn between<'captured>(
    captured: &'captured Captured,
    pods: &[&Pod],
    port: u16,
) -> Result<Vec<&'captured Flow>> {
    let ours = |address: SocketAddr| pods.iter().any(|pod| address.ip() == IpAddr::from(pod.address));
    let flows = captured.to_port(port).filter(|flow| ours(flow.client) && ours(flow.server) && !flow.is_empty());
    let flows: Vec<_> = flows.collect();
    ensure!(!flows.is_empty(), "nothing passed between {pods:?}, which proves nothing");
    Ok(flows)
}

/// How many edges from service accounts of a namespace the daemons of these nodes have seen as destinations, each by
/// mutual TLS.
///
/// **Errors**: one was seen that was not.
pub(crate) fn mutual_edges<'cluster>(
    cluster: &Cluster,
    nodes: impl IntoIterator<Item = &'cluster ClusterNode>,
    namespace: &str,
) -> Result<usize> {
    let seen: String = nodes.into_iter().map(|node| page(cluster, node)).collect::<Result<_>>()?;
    let edges: Vec<_> = seen
        .lines()
        .filter(|line| {
            line.starts_with("istio_tcp_connections_opened_total{") || line.starts_with("istio_requests_total{")
        })
        .filter(|line| line.contains("reporter=\"destination\""))
        .filter(|line| line.contains(&format!("source_workload_namespace=\"{namespace}\"")))
        .collect();
    let mutual = format!("source_principal=\"spiffe://cluster.local/ns/{namespace}/sa/");
    let mutual = |line: &&&str| line.contains("connection_security_policy=\"mutual_tls\"") && line.contains(&mutual);
    ensure!(edges.iter().all(|line| mutual(&line)), "not every edge is mutual TLS: {edges:#?}");
    // Requests that were answered differently are counted apart.
    let label = |line: &str, name: &str| {
        line.split_once(&format!("{name}=\""))
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(value, _)| value.to_owned())
    };
    let pairs = edges.iter().map(|line| (label(line, "source_workload"), label(line, "destination_workload")));
    Ok(pairs.collect::<std::collections::BTreeSet<_>>().len())
}

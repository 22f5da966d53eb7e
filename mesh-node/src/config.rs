//! Every setting of the daemon, from the command line or the environment.
//!
//! Out: [`Cli`]; each module's own configuration is made from it in `app`.
//! Invariant: the environment is read here and nowhere else; each setting has a flag, a variable and a default.

use crate::model::Name;
use crate::steer::{Mode, Prefix};
use crate::sys::sysctl;
use crate::telemetry::{access, log, trace};
use crate::why::Place;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The mesh's daemon, one on each node.
#[derive(Debug, Parser)]
#[command(name = "mesh-node", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this node's pods.
    Run(Box<Run>),
    /// Sign certificates for a cluster, when elected among the signers.
    Sign(Box<Sign>),
    /// Report in statuses what became of routes and gateways, when elected among the reporters.
    Report(Box<Report>),
    /// Show what the daemon of this node does.
    Status {
        /// Where the daemon answers.
        #[arg(long, env = "MESH_ADMIN_ADDR", default_value = "127.0.0.1:15000")]
        admin_addr: SocketAddr,
    },
    /// Say why something may speak with something, or may not: routes, protection and policies of every API, with the object that decides.
    Why(Box<Why>),
    /// Read a tree of objects and say what of it is not understood, contradicts itself or leads nowhere.
    Lint(Lint),
    /// Ask the daemon of this pod whether it is well; for probes.
    Probe {
        /// What to ask.
        what: Probe,
        /// Where the daemon answers.
        #[arg(long, env = "MESH_ADMIN_SOCKET")]
        admin_socket: PathBuf,
    },
    /// Take the mesh out of this node: out of the runtime's chain, of pods' namespaces and of the kernel.
    Uninstall(Box<Uninstall>),
    /// Look after the embedded certificate authority.
    Ca {
        /// What to do with it.
        #[command(subcommand)]
        command: CaCommand,
    },
}

/// Who asks whom, and for what.
#[derive(Clone, Debug, Args)]
pub struct Why {
    /// Who dials: the namespace/name of a pod, an address, `outside`, as gateway/namespace/name what entered by a gateway, or as deploy/namespace/name and the like a pod that is made by it.
    pub source: Place,
    /// Whom it dials: the same, the namespace/name of a service, or a host that a gateway serves.
    pub destination: Place,
    /// The port that it dials; without one the only one that there is.
    pub port: Option<u16>,
    /// The method of a request.
    #[arg(requires = "port")]
    pub method: Option<String>,
    /// Its path.
    #[arg(default_value = "/")]
    pub path: String,
    /// The host that it names.
    #[arg(long)]
    pub host: Option<String>,
    /// A header of it, as in `end-user: jason`; may be given several times.
    #[arg(long = "header", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The server name that the source asks for in TLS of its own.
    #[arg(long, conflicts_with = "method")]
    pub sni: Option<String>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
    /// Answer from a tree of objects, in YAML or JSON, instead of asking the daemon of this node; from standard input if it is `-`.
    #[arg(long)]
    pub objects: Option<PathBuf>,
    /// Names that the objects presume.
    #[command(flatten)]
    pub names: Names,
    /// Where the daemon answers.
    #[arg(long, env = "MESH_ADMIN_ADDR", default_value = "127.0.0.1:15000")]
    pub admin_addr: SocketAddr,
}

/// A tree of objects to be looked at.
#[derive(Clone, Debug, Args)]
pub struct Lint {
    /// The directory, everything below which is read; standard input if it is `-`.
    pub objects: PathBuf,
    /// Names that the objects presume.
    #[command(flatten)]
    pub names: Names,
}

/// Names that objects presume, where no daemon knows them.
#[derive(Clone, Debug, Args)]
pub struct Names {
    /// Who vouches for identities.
    #[arg(long, env = "MESH_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// The suffix of service names.
    #[arg(long, env = "MESH_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The namespace whose policies without a selector hold for the whole mesh.
    #[arg(long, env = "MESH_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
}

/// A header as curl writes it.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written as in `end-user: jason`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Does it answer?
    Live,
    /// Is it in force?
    Ready,
}

/// Where the mesh is on this node.
#[derive(Clone, Debug, Args)]
pub struct Uninstall {
    /// The runtime's chain.
    #[command(flatten)]
    pub chain: Chain,
    /// Directory of what outlived the daemon.
    #[arg(long, env = "MESH_STATE_DIR", default_value = "/var/lib/mesh/node")]
    pub state_dir: PathBuf,
    /// Directory in the BPF file system for pinned programs and maps.
    #[arg(long, env = "MESH_BPF_DIR", default_value = "/sys/fs/bpf/mesh")]
    pub bpf_dir: PathBuf,
}

/// How the plugin gets into the container runtime's chain.
#[derive(Clone, Debug, Args)]
pub struct Chain {
    /// Whether the daemon puts the plugin into the chain, and how.
    #[arg(long, env = "MESH_CHAIN", default_value = "off")]
    pub chain: ChainMode,
    /// The runtime's directory of CNI configuration.
    #[arg(long, env = "MESH_CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// The runtime's directory of CNI plugins.
    #[arg(long, env = "MESH_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// The plugin's program, which is copied there; beside this program by default.
    #[arg(long, env = "MESH_CNI_PLUGIN")]
    pub cni_plugin: Option<PathBuf>,
    /// The runtime and its version, as in `containerd://2.2.9`, which `auto` decides by.
    #[arg(long, env = "MESH_CONTAINER_RUNTIME")]
    pub container_runtime: Option<String>,
    /// Namespaces whose pods pass the plugin untouched, also while no daemon runs.
    #[arg(long, env = "MESH_EXEMPT_NAMESPACES", value_delimiter = ',', default_value = "kube-system,mesh-system")]
    pub exempt_namespaces: Vec<String>,
}

/// How the plugin gets into the chain, as a flag says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChainMode {
    /// By the runtime's version.
    Auto,
    /// As a file of its own, for runtimes with libcni 1.3 or later.
    DropIn,
    /// As an entry of the network's list.
    Conflist,
    /// Not by the daemon.
    Off,
}

/// What can be done with the embedded certificate authority.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Add a root. It is trusted at once and signs after the overlap; older roots stay trusted until they expire.
    Rotate {
        /// The authority.
        #[command(flatten)]
        ca: Ca,
        /// That of a cluster.
        #[command(flatten)]
        shared: SharedCa,
    },
}

/// The embedded certificate authority.
#[derive(Clone, Debug, Args)]
pub struct Ca {
    /// Directory of roots and their keys; daemons that share it trust each other.
    #[arg(long, env = "MESH_CA_DIR", default_value = "/var/lib/mesh/ca")]
    pub ca_dir: PathBuf,
    /// Who vouches for identities.
    #[arg(long, env = "MESH_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// How long a root is valid.
    #[arg(long, env = "MESH_ROOT_TTL", default_value = "365d", value_parser = humantime::parse_duration)]
    pub root_ttl: Duration,
}

/// The certificate authority that the daemons of a cluster share.
#[derive(Clone, Debug, Args)]
pub struct SharedCa {
    /// Rotate the root of the cluster, in its Secret, instead of one in a directory.
    #[arg(long)]
    pub in_cluster: bool,
    /// How to reach the Kubernetes API; by default with the service account of a pod.
    #[arg(long, env = "MESH_KUBECONFIG", requires = "in_cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// The daemons' namespace.
    #[arg(long, env = "MESH_NAMESPACE", default_value = "mesh-system")]
    pub namespace: String,
}

/// Settings of the daemon.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// This node's name, as in pods' `spec.nodeName`.
    #[arg(long, env = "MESH_NODE_NAME")]
    pub node_name: String,
    /// Directory of Kubernetes objects in YAML or JSON, watched for changes, in place of the Kubernetes API.
    #[arg(long, env = "MESH_OBJECTS")]
    pub objects: Option<PathBuf>,
    /// The cluster that this node is of.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Directory for what must outlive the daemon: certificates, attachments, what steering changed.
    #[arg(long, env = "MESH_STATE_DIR", default_value = "/var/lib/mesh/node")]
    pub state_dir: PathBuf,
    /// Directory in the BPF file system for pinned programs and maps.
    #[arg(long, env = "MESH_BPF_DIR", default_value = "/sys/fs/bpf/mesh")]
    pub bpf_dir: PathBuf,
    /// Mount the BPF file system where there is none. In a container that would last no longer than the container.
    #[arg(long, env = "MESH_MOUNT_BPF", default_value_t = true, action = ArgAction::Set)]
    pub mount_bpf: bool,
    /// Where settings of the kernel are written; another directory where a container has this one read-only.
    #[arg(long, env = "MESH_SYSCTL_DIR", default_value = sysctl::ALL)]
    pub sysctl_dir: PathBuf,
    /// Where the CNI plugin asks.
    #[arg(long, env = "MESH_CNI_SOCKET", default_value = mesh_common::cni::DEFAULT_SOCKET)]
    pub cni_socket: PathBuf,
    /// Where the runtime keeps the network namespaces of pods, to find those that ran before the plugin was there.
    #[arg(long, env = "MESH_NETNS_DIR", default_value = "/var/run/netns")]
    pub netns_dir: PathBuf,
    /// Where the program tells of itself.
    #[command(flatten)]
    pub admin: Admin,
    /// The runtime's chain of plugins.
    #[command(flatten)]
    pub chain: Chain,
    /// The DaemonSet that this daemon is of, in its own namespace: when it is gone, the mesh is being uninstalled.
    #[arg(long, env = "MESH_DAEMON_SET")]
    pub daemon_set: Option<String>,
    /// The certificate authority.
    #[command(flatten)]
    pub ca: Ca,
    /// Who issues certificates.
    #[command(flatten)]
    pub issuing: Issuing,
    /// How long a workload's certificate is valid; it is renewed at half of that.
    #[arg(long, env = "MESH_SVID_TTL", default_value = "24h", value_parser = humantime::parse_duration)]
    pub svid_ttl: Duration,
    /// How long a new root is only trusted before it signs.
    #[arg(long, env = "MESH_ROOT_OVERLAP", default_value = "1h", value_parser = humantime::parse_duration)]
    pub root_overlap: Duration,
    /// How often roots are read again.
    #[arg(long, env = "MESH_ROOT_REREAD", default_value = "5s", value_parser = humantime::parse_duration)]
    pub root_reread: Duration,
    /// The namespace whose policies without a selector hold for the whole mesh.
    #[arg(long, env = "MESH_ROOT_NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
    /// The suffix of service names.
    #[arg(long, env = "MESH_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The cluster's name in telemetry.
    #[arg(long, env = "MESH_CLUSTER_NAME", default_value = "Kubernetes")]
    pub cluster_name: String,
    /// The name of the daemon's own pod, which tells what becomes of gateways at its node.
    #[arg(long, env = "MESH_POD_NAME")]
    pub pod_name: Option<String>,
    /// Where traffic enters from outside the mesh.
    #[command(flatten)]
    pub edge: Edge,
    /// Capture and exclusions.
    #[command(flatten)]
    pub capture: Capture,
    /// How traffic is carried.
    #[command(flatten)]
    pub traffic: Traffic,
    /// Traces of HTTP requests.
    #[command(flatten)]
    pub tracing: Tracing,
    /// What is written about connections and requests, on standard output.
    #[arg(long, env = "MESH_ACCESS_LOG", default_value = "text")]
    pub access_log: access::Format,
    /// The form of the daemon's own log, on standard error.
    #[arg(long, env = "MESH_LOG", default_value = "text")]
    pub log: log::Format,
    /// What the daemon's own log says, as in `info,mesh_node::steer=debug`.
    #[arg(long, env = "MESH_LOG_FILTER", default_value = "info,kube_client=error")]
    pub log_filter: String,
}

/// Where traffic enters from outside the mesh.
#[derive(Clone, Debug, Args)]
pub struct Edge {
    /// The service account of the daemons, as which they send to pods what entered through gateways.
    #[arg(long, env = "MESH_SERVICE_ACCOUNT", default_value = "mesh-node")]
    pub service_account: String,
    /// The labels by which Istio's Gateways select the daemons.
    #[arg(
        long = "edge-label",
        env = "MESH_EDGE_LABELS",
        value_delimiter = ',',
        value_parser = label,
        default_value = "app=istio-ingressgateway,istio=ingressgateway"
    )]
    pub labels: Vec<(String, String)>,
    /// Connections at one port of gateways, on each of the threads that carry traffic.
    #[arg(long = "edge-connections", env = "MESH_EDGE_CONNECTIONS", default_value_t = 4096)]
    pub connections: u32,
    /// How long a connection to a port of gateways may be open without a request, or leave what it was answered. Load balancers in front must give up earlier, lest
    /// their requests meet the end: their defaults are between 60 and 600 seconds.
    #[arg(
        long = "edge-idle-timeout",
        env = "MESH_EDGE_IDLE_TIMEOUT",
        default_value = "620s",
        value_parser = humantime::parse_duration
    )]
    pub idle_timeout: Duration,
    /// How long nothing may pass on a connection that entered through a gateway and went over to another protocol, such as
    /// WebSocket.
    #[arg(
        long = "edge-upgraded-idle-timeout",
        env = "MESH_EDGE_UPGRADED_IDLE_TIMEOUT",
        default_value = "1h",
        value_parser = humantime::parse_duration
    )]
    pub upgraded_idle_timeout: Duration,
    /// The Secrets with certificates that listeners of gateways may show, as in `shop/page`. No others are read of the
    /// Kubernetes API.
    #[arg(long = "edge-certificate", env = "MESH_EDGE_CERTIFICATES", value_delimiter = ',', value_parser = secret)]
    pub certificates: Vec<Name>,
}

fn secret(text: &str) -> Result<Name, String> {
    let is_name = |text: &str| {
        let may_be = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        !text.is_empty() && text.bytes().all(may_be)
    };
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Name::new(namespace, name)),
        Some(_) | None => Err(format!("`{text}` is not of the form `namespace/name`")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form `key=value`"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// How HTTP requests are traced.
#[derive(Clone, Debug, Args)]
pub struct Tracing {
    /// The collector of OpenTelemetry to which spans are posted, over HTTP, as in http://192.0.2.1:4318. Without one,
    /// traces pass as they come.
    #[arg(long, env = "MESH_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<trace::Endpoint>,
    /// How many of a hundred requests are traced, of those that do not say themselves whether to be.
    #[arg(long, env = "MESH_TRACE_SAMPLING", default_value = "1")]
    pub trace_sampling: trace::Percent,
}

/// The cluster that the node is of.
#[derive(Clone, Debug, Args)]
pub struct Cluster {
    /// How to reach the Kubernetes API; by default with the service account of the daemon's own pod.
    #[arg(long, env = "MESH_KUBECONFIG", conflicts_with = "objects")]
    pub kubeconfig: Option<PathBuf>,
    /// The daemon's own namespace.
    #[arg(long, env = "MESH_NAMESPACE", default_value = "mesh-system")]
    pub namespace: String,
}

/// Who issues certificates.
#[derive(Clone, Debug, Args)]
pub struct Issuing {
    /// Who issues certificates.
    #[arg(long, env = "MESH_ISSUER", default_value = "auto")]
    pub issuer: IssuerChoice,
}

/// Where a daemon or a signer tells of itself.
#[derive(Clone, Debug, Args)]
pub struct Admin {
    /// Where the admin server listens; loopback only.
    #[arg(long, env = "MESH_ADMIN_ADDR", default_value = "127.0.0.1:15000")]
    pub admin_addr: SocketAddr,
    /// A socket at which the admin server answers too. At the address, another daemon of the node may answer.
    #[arg(long, env = "MESH_ADMIN_SOCKET")]
    pub admin_socket: Option<PathBuf>,
    /// Where the metrics are served to other machines; nowhere by default.
    #[arg(long, env = "MESH_METRICS_ADDR")]
    pub metrics_addr: Option<SocketAddr>,
}

/// Settings of a signer.
#[derive(Clone, Debug, Args)]
pub struct Sign {
    /// This signer's name among those that stand for election, such as that of its pod.
    #[arg(long, env = "MESH_SIGNER_NAME")]
    pub name: String,
    /// How to reach the Kubernetes API; by default with the service account of the signer's own pod.
    #[arg(long, env = "MESH_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of signers and daemons.
    #[arg(long, env = "MESH_NAMESPACE", default_value = "mesh-system")]
    pub namespace: String,
    /// The service account of the daemons, which alone may ask for certificates.
    #[arg(long, env = "MESH_SERVICE_ACCOUNT", default_value = "mesh-node")]
    pub service_account: String,
    /// Who vouches for identities.
    #[arg(long, env = "MESH_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// How long a root is valid.
    #[arg(long, env = "MESH_ROOT_TTL", default_value = "365d", value_parser = humantime::parse_duration)]
    pub root_ttl: Duration,
    /// How long a new root is only trusted before it signs.
    #[arg(long, env = "MESH_ROOT_OVERLAP", default_value = "1h", value_parser = humantime::parse_duration)]
    pub root_overlap: Duration,
    /// Where the program tells of itself.
    #[command(flatten)]
    pub admin: Admin,
    /// The form of the signer's own log, on standard error.
    #[arg(long, env = "MESH_LOG", default_value = "text")]
    pub log: log::Format,
    /// What the signer's own log says, as in `info,mesh_node::identity=debug`.
    #[arg(long, env = "MESH_LOG_FILTER", default_value = "info,kube_client=error")]
    pub log_filter: String,
}

/// Settings of a reporter.
#[derive(Clone, Debug, Args)]
pub struct Report {
    /// This reporter's name among those that stand for election, such as that of its pod.
    #[arg(long, env = "MESH_REPORTER_NAME")]
    pub name: String,
    /// How to reach the Kubernetes API; by default with the service account of the reporter's own pod.
    #[arg(long, env = "MESH_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of reporters.
    #[arg(long, env = "MESH_NAMESPACE", default_value = "mesh-system")]
    pub namespace: String,
    /// The suffix of service names.
    #[arg(long, env = "MESH_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where the program tells of itself.
    #[command(flatten)]
    pub admin: Admin,
    /// The form of the reporter's own log, on standard error.
    #[arg(long, env = "MESH_LOG", default_value = "text")]
    pub log: log::Format,
    /// What the reporter's own log says, as in `info,mesh_node::status=debug`.
    #[arg(long, env = "MESH_LOG_FILTER", default_value = "info,kube_client=error")]
    pub log_filter: String,
}

/// Who issues certificates, as a flag says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IssuerChoice {
    /// In a cluster its signer, by the best way that the API server serves; without one the embedded authority.
    Auto,
    /// The embedded authority, in a directory.
    Embedded,
    /// The cluster's signer, by PodCertificateRequest.
    PodCertificate,
    /// The cluster's signer, by CertificateSigningRequest.
    Csr,
}

/// Which connections are captured, and how.
#[derive(Clone, Debug, Args)]
pub struct Capture {
    /// How connections are captured.
    #[arg(long, env = "MESH_CAPTURE", default_value = "auto")]
    pub capture: CaptureMode,
    /// Root of cgroup v2, or of the directory that has it beside v1; found among the mounts by default.
    #[arg(long, env = "MESH_CGROUP")]
    pub cgroup: Option<PathBuf>,
    /// Ports to which connections of pods are left alone.
    #[arg(long, env = "MESH_EXCLUDE_OUTBOUND_PORTS", value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<u16>,
    /// Ports of pods on which connections are left alone.
    #[arg(long, env = "MESH_EXCLUDE_INBOUND_PORTS", value_delimiter = ',')]
    pub exclude_inbound_ports: Vec<u16>,
    /// Prefixes to which connections of pods are left alone, as in 169.254.0.0/16.
    #[arg(long, env = "MESH_EXCLUDE_PREFIXES", value_delimiter = ',')]
    pub exclude_prefixes: Vec<Prefix>,
}

/// How connections are captured, as a flag says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureMode {
    /// By cgroup where there is a cgroup v2, else packet by packet.
    Auto,
    /// By a hook at the root of cgroup v2.
    Cgroup,
    /// Packet by packet, on the pod's device.
    Tcx,
}

impl From<CaptureMode> for Mode {
    fn from(mode: CaptureMode) -> Self {
        match mode {
            CaptureMode::Auto => Self::Auto,
            CaptureMode::Cgroup => Self::Cgroup,
            CaptureMode::Tcx => Self::Tcx,
        }
    }
}

/// How traffic is carried.
#[derive(Clone, Debug, Args)]
pub struct Traffic {
    /// Threads that carry traffic; the number of processors, at most 8, by default.
    #[arg(long, env = "MESH_WORKERS")]
    pub workers: Option<usize>,
    /// How long an upstream may take to accept.
    #[arg(long, env = "MESH_CONNECT_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,
    /// How long a TLS handshake may take.
    #[arg(long, env = "MESH_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub handshake_timeout: Duration,
    /// Unfinished handshakes of one source address.
    #[arg(long, env = "MESH_HANDSHAKES_PER_SOURCE", default_value_t = 512)]
    pub handshakes_per_source: usize,
    /// Connections of one pod, both sides together; three quarters of what the open-file limit allows by default.
    #[arg(long, env = "MESH_CONNECTIONS_PER_POD")]
    pub connections_per_pod: Option<u64>,
    /// A file of roots in PEM that prove servers outside the mesh, beside the system's, where a traffic policy wants TLS.
    #[arg(long, env = "MESH_OUTSIDE_ROOTS")]
    pub outside_roots: Option<PathBuf>,
    /// How long open connections may go on after SIGTERM.
    #[arg(long, env = "MESH_DRAIN_DEADLINE", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_deadline: Duration,
}

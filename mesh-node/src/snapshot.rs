//! What this node acts on: immutable, complete, with no choice left.
//!
//! In:  built by `compile` alone.
//! Out: [`NodeSnapshot`]: the pods to steer, and the directory by which connections are judged.
//! Invariant: ids, indexes and `Arc`s only; no label selectors and no names to look up.
//! Invariant: one snapshot per connection or request.

mod addresses;
pub mod edge;
pub mod http;

pub use addresses::AddressList;

use crate::model::http::AppProtocol;
use crate::model::{Announced, Identity, Issue, MtlsMode, Name, Subject, Text, Visibility};
use crate::policy::Chains;
use crate::share::AddressMap;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Tells one pod sandbox of this node from every other, past ones included: the runtime's container id.
pub type PodKey = Arc<str>;

/// Everything this node does, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSnapshot {
    /// The pods of this node whose traffic is steered.
    pub pods: BTreeMap<PodKey, Arc<LocalPod>>,
    /// Who is where, for judging connections.
    pub directory: Arc<Directory>,
    /// What policies say of the pods of this node. One that is missing is told nothing and tells nothing.
    pub policies: Arc<BTreeMap<PodKey, PodPolicies>>,
    /// What policies say of what enters. Nothing enters by what is missing.
    pub entrances: Arc<BTreeMap<edge::Entrance, Arc<Chains>>>,
    /// What this node lets in from outside the mesh; `None` without gateways.
    pub edge: Option<Arc<edge::Edge>>,
    /// The listeners of gateways of the Gateway API, for whoever tells what became of them.
    pub listeners: Arc<[edge::ListenerHere]>,
    /// What is wrong in users' objects, ordered.
    pub issues: Arc<[Arc<Issue>]>,
}

impl NodeSnapshot {
    /// The workload whose connections are kept under this key: a pod of this node, or the edge.
    #[must_use]
    pub fn workload(&self, key: &PodKey) -> Option<&Arc<WorkloadEntry>> {
        let edge = || self.edge.as_ref().filter(|_| **key == *EDGE).map(|edge| &edge.workload);
        self.pods.get(key).map(|pod| &pod.workload).or_else(edge)
    }
}

/// What policies say of a pod; pods of which they say the same share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPolicies {
    /// Of what arrives for it.
    pub inbound: Arc<Chains>,
    /// Of what leaves it.
    pub outbound: Arc<Chains>,
}

/// The key of this node's edge among those of pods; no sandbox has it.
pub const EDGE: &str = "edge";

/// A pod of this node whose traffic is steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// Its sandbox.
    pub key: PodKey,
    /// Namespace and name.
    pub name: Name,
    /// The pod's UID; empty if it came from no API server.
    pub uid: String,
    /// Path of its network namespace.
    pub netns: String,
    /// The name of its interface.
    pub ifname: String,
    /// Its addresses, primary first: at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// What the directory says of it.
    pub workload: Arc<WorkloadEntry>,
    /// Is it to be steered? If not, it is leaving the mesh.
    pub enrolled: bool,
    /// What the other nodes have been told of it.
    pub announced: Announced,
    /// Ports on which the kubelet asks how the pod is, in order.
    pub probe_ports: Box<[u16]>,
}

impl LocalPod {
    /// The mutual-TLS mode of one of its ports. While some nodes have not heard yet that it has joined or leaves, it takes what
    /// they send.
    #[must_use]
    pub fn mode(&self, port: u16) -> MtlsMode {
        match self.workload.inbound.as_ref().map_or(MtlsMode::Disable, |modes| modes.mode(port)) {
            MtlsMode::Strict if !self.is_settled() => MtlsMode::Permissive,
            mode @ (MtlsMode::Strict | MtlsMode::Permissive | MtlsMode::Disable) => mode,
        }
    }

    /// Do all nodes know that it is in the mesh?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.enrolled && self.announced == Announced::InForce
    }
}

/// Workloads and services by address.
///
/// **Shape**: a directory that differs in one entry shares the rest with the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Workloads by each of their addresses.
    pub workloads: AddressMap<IpAddr, Arc<WorkloadEntry>>,
    /// Services by each of their virtual addresses.
    pub services: AddressMap<IpAddr, Arc<ServiceEntry>>,
    /// What each endpoint's address and port are of which service: of several the one whose name is the least.
    pub endpoints: AddressMap<SocketAddr, Arc<EndpointOf>>,
    /// Hosts that are no services of the cluster, by name.
    pub hosts: Arc<Hosts>,
}

impl Directory {
    /// The service that a workload's port most plainly belongs to, for telemetry of connections that dial a pod address.
    #[must_use]
    pub fn service_of(&self, endpoint: &SocketAddr) -> Option<&Arc<ServiceName>> {
        let owner = self.endpoints.get(endpoint).filter(|_| self.workloads.contains_key(&endpoint.ip()));
        owner.map(|owner| &owner.service)
    }

    /// The service that a connection to an address is for. What is nobody's address is told by what a request names, as far as that
    /// has such a port: `named` is its host without port, and the namespace of the pod that asks.
    #[must_use]
    pub fn dialled(&self, address: SocketAddr, named: Option<(&str, &str)>) -> Option<&Arc<ServiceEntry>> {
        let found = self.services.get(&address.ip());
        if found.is_some() || self.service_of(&address).is_some() {
            return found;
        }
        let (host, namespace) = named?;
        self.hosts.find(&host.to_ascii_lowercase(), namespace).filter(|host| host.port(address.port()).is_some())
    }
}

/// Something for each of some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHost<T> {
    /// By the whole name, in small letters.
    pub exact: HashMap<Arc<str>, T>,
    /// By what follows the star: `.example.com`; nothing for every host.
    pub wildcards: HashMap<Arc<str>, T>,
}

impl<T> Default for ByHost<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<T> ByHost<T> {
    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }

    /// What there is for a host, without port and in small letters, the most exact first.
    pub fn covering(&self, host: &str) -> impl Iterator<Item = &T> {
        let ends = host.match_indices('.').map(|(dot, _)| &host[dot..]).chain([""]);
        self.exact.get(host).into_iter().chain(ends.filter_map(|end| self.wildcards.get(end)))
    }
}

/// Hosts that are no services of the cluster, by name.
pub type Hosts = ByHost<Box<[HostEntry]>>;

impl Hosts {
    /// The host of this name, without port and in small letters, as pods of `namespace` know it: the entry that says
    /// most of the name.
    #[must_use]
    pub fn find(&self, host: &str, namespace: &str) -> Option<&Arc<ServiceEntry>> {
        self.covering(host).flatten().find(|entry| entry.clients.covers(namespace)).map(|entry| &entry.service)
    }

    /// Is there one that speaks TLS on this port?
    #[must_use]
    pub fn speak_tls(&self, port: u16) -> bool {
        let mut all = self.exact.values().chain(self.wildcards.values()).flatten();
        all.any(|entry| entry.service.port(port).is_some_and(|port| port.protocol == AppProtocol::Tls))
    }
}

/// A host as some pods know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Whose pods.
    pub clients: Visibility,
    /// The host's ports, each with an upstream.
    pub service: Arc<ServiceEntry>,
}

/// A workload as connections to or from it are judged. Pods for which the same holds share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadEntry {
    /// Who it must prove to be.
    pub identity: Arc<Identity>,
    /// How connections to it are judged; `None` if it is not in the mesh.
    pub inbound: Option<InboundModes>,
    /// Does its node say that it takes mutual TLS?
    pub takes_mutual_tls: bool,
    /// Its labels in telemetry.
    pub labels: Arc<WorkloadLabels>,
    /// By what policies know it.
    pub subject: Arc<Subject>,
}

impl WorkloadEntry {
    /// Who must be there if connections to `port` are mutual TLS; `None` if they are not.
    #[must_use]
    pub fn proves(&self, port: u16) -> Option<&Arc<Identity>> {
        let mode = self.inbound.as_ref()?.mode(port);
        (self.takes_mutual_tls && mode != MtlsMode::Disable).then_some(&self.identity)
    }
}

/// The mutual-TLS modes of a workload's ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundModes {
    /// The mode of ports that are not listed.
    pub default: MtlsMode,
    /// Ports with a mode of their own, ordered by port.
    pub ports: Box<[(u16, MtlsMode)]>,
}

impl InboundModes {
    /// The mode of `port`.
    #[must_use]
    pub fn mode(&self, port: u16) -> MtlsMode {
        self.ports.binary_search_by_key(&port, |&(port, _)| port).map_or(self.default, |at| self.ports[at].1)
    }
}

/// What Istio's standard metrics and the access log say of a workload.
///
/// **Source**: Istio standard metrics, `source_*` and `destination_*` labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadLabels {
    /// The controller's name.
    pub workload: Text,
    /// The pod's namespace.
    pub namespace: Text,
    /// Label `app`, or the canonical name.
    pub app: Text,
    /// Label `version`.
    pub version: Text,
    /// `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, or the workload's name.
    pub canonical_service: Text,
    /// `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, or `latest`.
    pub canonical_revision: Text,
    /// The principal, without scheme.
    pub principal: Text,
}

/// What telemetry says of a service; ordered by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// `default`.
    pub namespace: Text,
    /// `reviews`.
    pub name: Text,
    /// `reviews.default.svc.cluster.local`.
    pub host: Text,
}

/// What an endpoint is to a service; ordered by the service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointOf {
    /// The service.
    pub service: Arc<ServiceName>,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// A service as connections to it are balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// What telemetry says of it.
    pub name: Arc<ServiceName>,
    /// Does one client keep to one endpoint?
    pub client_affinity: bool,
    /// Its ports, ordered by port, with the endpoints this node may use.
    pub ports: Box<[ServicePortEntry]>,
}

impl ServiceEntry {
    /// The port that clients dial as `port`.
    #[must_use]
    pub fn port(&self, port: u16) -> Option<&ServicePortEntry> {
        self.ports.binary_search_by_key(&port, |entry| entry.port).ok().map(|at| &self.ports[at])
    }
}

/// A port of a service, with the endpoints this node may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortEntry {
    /// The port clients dial.
    pub port: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
    /// Endpoints, ordered and without duplicates; empty means that connections are refused.
    pub endpoints: AddressList,
    /// Where connections go instead, under the traffic policy that holds for them; `None` without one. A host that is no
    /// service of the cluster always has one.
    pub upstream: Option<Arc<http::Upstream>>,
    /// The same for pods for which something else holds, ordered by pod.
    pub upstream_by_pod: Box<[(PodKey, Option<Arc<http::Upstream>>)]>,
    /// How HTTP is routed; `None` where no route speaks of the port: requests go to its endpoints.
    pub routes: Option<Arc<http::HttpPort>>,
    /// How connections are routed that are no HTTP; `None` where no route speaks of them: they go to its endpoints.
    pub streams: Option<Arc<http::StreamPort>>,
}

impl ServicePortEntry {
    /// Where connections of a pod go instead of to the endpoints.
    #[must_use]
    pub fn upstream_of(&self, pod: &PodKey) -> Option<&Arc<http::Upstream>> {
        let own = self.upstream_by_pod.binary_search_by(|(key, _)| key.cmp(pod));
        own.map_or(&self.upstream, |at| &self.upstream_by_pod[at].1).as_ref()
    }
}

//! The mesh's one vocabulary: what every foreign API is translated into.
//!
//! In:  nothing; plain data.
//! Out: [`Model`] and its parts, ordered so that equal content compares equal.
//! Invariant: no async, I/O, clock, randomness or logging; no foreign API type.
//! Source: the terms are those of Kubernetes, SPIFFE and Istio.

mod external;
mod gateway;
pub mod http;
mod identity;
mod issue;
mod listening;
mod name;
pub mod policy;
mod selector;
mod standing;

pub use external::{EndpointAddress, ExternalEndpoint, ExternalPort, ExternalService, Resolution, WorkloadEntry};
pub use gateway::{AllowedRoutes, CONTROLLER, Gateway, GatewayClass, Listener, ListenerProtocol, ListenerTls};
pub use identity::{Identity, IdentityError, TrustDomain};
pub use issue::{Issue, ObjectRef, Reason};
pub use listening::{Closed, Daemon, Listening, Told};
pub use name::{Name, Text};
pub use selector::{Key, PackedLabels, Selector, Subject};
pub use standing::{Attachment, GatewayStanding, Heard, ListenerStanding, RouteStanding};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether connections to a workload must be, may be or are never mutual TLS.
///
/// **Source**: Istio `PeerAuthentication.MutualTLS.Mode`; UNSET is the absence of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plain text is refused.
    Strict,
    /// Both are accepted; mesh peers use mutual TLS.
    Permissive,
    /// Plain text only.
    Disable,
}

impl MtlsMode {
    /// As Istio writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}

/// What a pod's node has told the others of the pod.
///
/// A pod that is wanted in the mesh is not there yet: its node may have no daemon, or one that has not steered it so far. So the
/// node says it, and the others believe nothing else. The states follow each other in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Announced {
    /// Nothing: it is to be spoken to in plain text.
    #[default]
    Nothing,
    /// It takes mutual TLS, and plain text of those that have not heard yet.
    Joining,
    /// It takes what its policies say.
    InForce,
    /// It is to be spoken to in plain text, and takes mutual TLS of those that have not heard yet.
    Leaving,
}

impl Announced {
    /// Are connections to the pod made by mutual TLS?
    #[must_use]
    pub const fn takes_mutual_tls(self) -> bool {
        matches!(self, Self::Joining | Self::InForce)
    }
}

/// Everything the mesh knows, in its own words.
///
/// **Shape**: maps are keyed by name, so the order of arrival leaves no trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Every pod that has not ended.
    pub workloads: BTreeMap<Name, Arc<Workload>>,
    /// Every service with its endpoints.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// Every peer-authentication policy.
    pub peer_authentications: BTreeMap<Name, Arc<PeerAuthentication>>,
    /// Every object that routes HTTP.
    pub routes: BTreeMap<ObjectRef, Arc<http::HttpRoute>>,
    /// Every object that says how connections to a host are made.
    pub traffic_policies: BTreeMap<Name, Arc<http::TrafficPolicies>>,
    /// Every object that describes hosts which are no services of the cluster.
    pub external_services: BTreeMap<Name, Arc<ExternalService>>,
    /// Every workload that is no pod.
    pub workload_entries: BTreeMap<Name, Arc<WorkloadEntry>>,
    /// Every gateway.
    pub gateways: BTreeMap<ObjectRef, Arc<Gateway>>,
    /// Every tier of policies that an object describes. Those of the mesh's chain are there without one.
    pub tiers: BTreeMap<policy::TierKey, Arc<policy::Tier>>,
    /// Every policy, by its object.
    pub policies: BTreeMap<ObjectRef, Arc<policy::Policy>>,
    /// Every set of addresses that selectors of peers may select.
    pub address_sets: BTreeMap<ObjectRef, Arc<policy::AddressSet>>,
}

/// Whose pods something holds for.
///
/// **Source**: Istio `exportTo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Every pod's.
    #[default]
    Everyone,
    /// Those of these namespaces; none for nobody's.
    Namespaces(BTreeSet<Text>),
}

impl Visibility {
    /// Does it hold for pods of `namespace`?
    #[must_use]
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }
}

/// A pod as the mesh sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub name: Name,
    /// The pod's UID; tells a pod from its successor of the same name.
    pub uid: String,
    /// The node it is scheduled to, once it is.
    pub node: Option<String>,
    /// Its addresses; the first is the primary one. Empty until it has one.
    pub addresses: Vec<IpAddr>,
    /// The runtime's id of its sandbox, where the network plugin tells.
    pub container_id: Option<String>,
    /// What it proves about itself.
    pub identity: Identity,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// The name of what created it (Deployment, StatefulSet, Job), or its own.
    pub controller: String,
    /// Is its traffic to be steered?
    pub enrolled: bool,
    /// What its node says of that.
    pub announced: Announced,
    /// Does it share the node's network namespace? Such pods are never enrolled.
    pub host_network: bool,
    /// Named container ports, for services that target them by name.
    pub port_names: BTreeMap<String, u16>,
    /// Ports on which its node's kubelet asks how it is.
    pub probe_ports: BTreeSet<u16>,
}

/// A Kubernetes Service with the endpoints behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: Name,
    /// Its virtual addresses: cluster IPs and external IPs. Empty for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Does one client keep to one endpoint (`sessionAffinity: ClientIP`)?
    pub client_affinity: bool,
    /// Are only endpoints on the client's node used (`internalTrafficPolicy: Local`)?
    pub local_only: bool,
    /// Which endpoints are preferred by where they are.
    pub locality: http::LocalityPreference,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty if the service has one unnamed port.
    pub name: String,
    /// The port clients dial.
    pub port: u16,
    /// What is spoken there.
    pub protocol: http::AppProtocol,
    /// Endpoints that accept traffic, ordered and without duplicates: the ready ones or, when none is, the
    /// terminating ones that still serve; judged for each address family, and for each node if the service
    /// is `local_only`.
    pub endpoints: Vec<Endpoint>,
}

/// One address and port that answers for a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port at that address.
    pub port: u16,
    /// The node it is on, if known.
    pub node: Option<String>,
    /// The zone it is in, if known.
    pub zone: Option<String>,
}

/// Which mutual-TLS mode some workloads have.
///
/// **Source**: Istio `PeerAuthentication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Namespace and name.
    pub name: Name,
    /// What it applies to.
    pub scope: Scope,
    /// The mode for ports without one of their own; `None` inherits.
    pub mode: Option<MtlsMode>,
    /// Modes by the workload's port; `None` inherits.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
    /// When the object was created, as its API gives it (RFC 3339): the oldest of equals wins.
    pub created: Text,
}

impl PeerAuthentication {
    /// Is `workload` within its scope?
    #[must_use]
    pub fn covers(&self, workload: &Workload) -> bool {
        match &self.scope {
            Scope::Mesh => true,
            Scope::Namespace => self.name.namespace == workload.name.namespace,
            Scope::Workloads(labels) => {
                self.name.namespace == workload.name.namespace
                    && labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
            }
        }
    }

    /// What decides between policies of equal scope: the least wins, which is the oldest.
    #[must_use]
    pub fn seniority(&self) -> (&str, &Name) {
        (&self.created, &self.name)
    }
}

/// The reach of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every workload: the policy lives in the root namespace and selects nothing.
    Mesh,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads of the policy's namespace that have all these labels.
    Workloads(Labels),
}

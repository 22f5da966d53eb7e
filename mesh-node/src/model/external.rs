//! Hosts that are no services of the cluster, and workloads that are no pods.
//!
//! Out: [`ExternalService`], [`WorkloadEntry`].
//! Source: Istio `ServiceEntry`, `WorkloadEntry`.

use super::http::AppProtocol;
use super::{Labels, Name, ObjectRef, Text, Visibility};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Hosts that one object describes, all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalService {
    /// The object it was translated from.
    pub object: ObjectRef,
    /// When the object was created (RFC 3339): the oldest of equals wins.
    pub created: Text,
    /// The names; each may begin with `*.`.
    pub hosts: Vec<Arc<str>>,
    /// Addresses that clients dial for them; empty if they dial what the names resolve to.
    pub addresses: Vec<IpAddr>,
    /// Ports, ordered by number.
    pub ports: Vec<ExternalPort>,
    /// Where connections go.
    pub resolution: Resolution,
    /// The endpoints that the object lists.
    pub endpoints: Vec<ExternalEndpoint>,
    /// Labels of the pods and workload entries of the object's namespace that are endpoints.
    pub selector: Option<Labels>,
    /// Whose traffic it is for.
    pub clients: Visibility,
    /// Names that the servers may prove, where the daemon originates TLS.
    pub names: Vec<String>,
    /// Something in the object is not understood, so that nothing goes to its hosts.
    pub closed: bool,
}

/// A port of external hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPort {
    /// The port clients dial.
    pub port: u16,
    /// Its name, by which endpoints may give a port of their own.
    pub name: String,
    /// What is spoken there.
    pub protocol: AppProtocol,
    /// The endpoints' port.
    pub target: u16,
}

/// Where connections to an external host go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// To the address that the client dialled.
    Original,
    /// To endpoints whose addresses are given.
    Static,
    /// To wherever names lead: those of the endpoints, or the hosts themselves.
    Dns,
}

/// Something that answers for external hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExternalEndpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// Ports by the name of the host's port, where they differ from it.
    pub ports: BTreeMap<String, u16>,
    /// Its share, relative to the others.
    pub weight: u32,
    /// Its labels, for subsets.
    pub labels: Labels,
    /// The zone it is in, if known.
    pub zone: Option<String>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// At this address.
    Ip(IpAddr),
    /// Wherever this name leads.
    Name(String),
}

/// A workload that is no pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Namespace and name.
    pub name: Name,
    /// Where it is, with the labels by which services select it.
    pub endpoint: ExternalEndpoint,
    /// Something in the object is not understood, so that nothing goes to it.
    pub closed: bool,
}

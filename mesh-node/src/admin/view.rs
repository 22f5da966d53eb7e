//! World, model and snapshot as people look at them.
//!
//! In:  a world's parts, a [`Model`] or a [`NodeSnapshot`], and what is known of each pod while it runs.
//! Out: JSON; [`Snapshot`] is also what `mesh-node status` reads back.
//! Invariant: the foreign types of serialisation end here; model and snapshot know nothing of them.

use crate::model::{self, Model, MtlsMode, Name, Scope};
use crate::snapshot::{Directory, InboundModes, LocalPod, NodeSnapshot, WorkloadEntry};
use crate::telemetry::timestamp;
use mesh_common::cni::Attachment;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

#[cfg(test)]
mod tests;

/// The answer of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Is the daemon in force?
    pub ready: bool,
    /// What is still missing.
    pub missing: Vec<String>,
}

/// What is known of a pod while it runs, beyond the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// Is its traffic steered now?
    pub enrolled: bool,
    /// When its certificate expires; `None` until it has one.
    pub certificate_expires: Option<SystemTime>,
    /// Its connections that are open now.
    pub connections: u64,
    /// Bytes it was sent so far.
    pub bytes_sent: u64,
    /// Bytes it sent so far.
    pub bytes_received: u64,
}

/// The answer of `/debug/snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The pods of this node, by namespace and name.
    pub pods: Vec<Pod>,
    /// What is wrong in users' objects.
    pub issues: Vec<Issue>,
    /// What ports were seen to speak that do not say so, by the address that was dialled.
    #[serde(default)]
    pub learnt: Vec<Learnt>,
    /// Who is where; for people only.
    #[serde(default)]
    pub directory: Value,
}

/// What a port was seen to speak that does not say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// The address that pods dialled.
    pub address: SocketAddr,
    /// The service that it is of, if any; a host outside is not told by its address.
    pub service: String,
    /// When HTTP was first seen there, RFC 3339; null if it was not.
    pub http: Option<String>,
    /// When a connection was first served there as bytes.
    pub other: Option<String>,
}

impl Learnt {
    /// What was seen at an address, when HTTP and when something else.
    #[must_use]
    pub fn new(
        snapshot: &NodeSnapshot,
        address: SocketAddr,
        http: Option<SystemTime>,
        other: Option<SystemTime>,
    ) -> Self {
        let directory = &snapshot.directory;
        let service = directory.services.get(&address.ip()).map(|service| &service.name);
        let service = service.or_else(|| directory.service_of(&address)).map(|name| name.host.to_string());
        let service = service.unwrap_or_default();
        Self { address, service, http: http.map(timestamp), other: other.map(timestamp) }
    }
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace and name.
    pub name: String,
    /// Its sandbox.
    pub key: String,
    /// Its addresses, primary first.
    pub addresses: Vec<IpAddr>,
    /// Who it proves to be.
    pub identity: String,
    /// Its network namespace.
    pub netns: String,
    /// Its interface.
    pub interface: String,
    /// How connections to it are made: by port, and `default`; empty if it is not in the mesh.
    pub inbound: BTreeMap<String, String>,
    /// Is its traffic steered now?
    pub enrolled: bool,
    /// When its certificate expires, RFC 3339; null until it has one.
    pub certificate_expires: Option<String>,
    /// Its connections that are open now.
    pub connections: u64,
    /// Bytes it was sent so far.
    pub bytes_sent: u64,
    /// Bytes it sent so far.
    pub bytes_received: u64,
}

/// Something wrong in a user's object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Kind, namespace and name.
    pub object: String,
    /// The field at fault, empty for the object as a whole.
    pub field: String,
    /// What is wrong and what follows from it.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

impl From<&model::Issue> for Issue {
    fn from(issue: &model::Issue) -> Self {
        Self {
            object: issue.object.to_string(),
            field: issue.field.clone(),
            problem: issue.problem.clone(),
            cure: issue.cure.clone(),
        }
    }
}

/// `/debug/snapshot`; `state` says what is known of each pod while it runs, `learnt` what ports were seen to speak.
#[must_use]
pub fn snapshot(snapshot: &NodeSnapshot, state: impl Fn(&LocalPod) -> PodState, learnt: &[Learnt]) -> Value {
    let mut pods: Vec<Pod> = snapshot.pods.values().map(|local| pod(local, state(local))).collect();
    pods.sort_by(|a, b| (&a.name, &a.key).cmp(&(&b.name, &b.key)));
    json!({
        "pods": pods,
        "issues": issues(snapshot.issues.iter().map(|issue| &**issue)),
        "learnt": learnt,
        "directory": directory(&snapshot.directory),
    })
}

/// Issues, in their order.
#[must_use]
pub fn issues<'a>(issues: impl IntoIterator<Item = &'a model::Issue>) -> Vec<Issue> {
    issues.into_iter().map(Issue::from).collect()
}

fn pod(local: &LocalPod, state: PodState) -> Pod {
    Pod {
        name: local.name.to_string(),
        key: local.key.to_string(),
        addresses: local.addresses.clone(),
        identity: local.workload.identity.to_string(),
        netns: local.netns.clone(),
        interface: local.ifname.clone(),
        inbound: local.workload.inbound.as_ref().map(inbound).unwrap_or_default(),
        enrolled: state.enrolled,
        certificate_expires: state.certificate_expires.map(timestamp),
        connections: state.connections,
        bytes_sent: state.bytes_sent,
        bytes_received: state.bytes_received,
    }
}

fn inbound(modes: &InboundModes) -> BTreeMap<String, String> {
    let ports = modes.ports.iter().map(|&(port, mode)| (port.to_string(), mode.name().to_owned()));
    ports.chain([("default".to_owned(), modes.default.name().to_owned())]).collect()
}

fn directory(directory: &Directory) -> Value {
    let workloads: BTreeMap<IpAddr, Value> =
        directory.workloads.iter().map(|(address, entry)| (address, workload_entry(entry))).collect();
    let services: BTreeMap<IpAddr, Value> = directory
        .services
        .iter()
        .map(|(address, entry)| {
            let ports: BTreeMap<u16, Vec<SocketAddr>> =
                entry.ports.iter().map(|port| (port.port, port.endpoints.iter().collect())).collect();
            let service = json!({ "host": entry.name.host, "client_affinity": entry.client_affinity, "ports": ports });
            (address, service)
        })
        .collect();
    let of = |address: SocketAddr| Some((address, directory.service_of(&address)?.host.as_str()));
    let service_of: BTreeMap<SocketAddr, &str> = directory.endpoints.keys().filter_map(of).collect();
    json!({ "workloads": workloads, "services": services, "service_of": service_of })
}

fn workload_entry(entry: &WorkloadEntry) -> Value {
    let labels = &entry.labels;
    json!({
        "identity": entry.identity.to_string(),
        "inbound": entry.inbound.as_ref().map(inbound),
        "takes_mutual_tls": entry.takes_mutual_tls,
        "labels": {
            "workload": labels.workload,
            "namespace": labels.namespace,
            "app": labels.app,
            "version": labels.version,
            "canonical_service": labels.canonical_service,
            "canonical_revision": labels.canonical_revision,
            "principal": labels.principal,
        },
    })
}

/// The parts of a world that are shown.
#[derive(Clone, Debug, Default)]
pub struct World<'a> {
    /// Has every source told everything that it knew when it started?
    pub in_sync: bool,
    /// The names of all objects, by kind.
    pub objects: BTreeMap<&'static str, Vec<&'a Name>>,
    /// The pod sandboxes of this node.
    pub attachments: Vec<&'a Attachment>,
    /// What the sources could not read.
    pub faults: Vec<&'a model::Issue>,
}

/// `/debug/world`: which objects are known, not their content.
#[must_use]
pub fn world(world: &World<'_>) -> Value {
    let names = |names: &Vec<&Name>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let objects: BTreeMap<&str, Vec<String>> =
        world.objects.iter().map(|(&kind, known)| (kind, names(known))).collect();
    json!({
        "in_sync": world.in_sync,
        "objects": objects,
        "attachments": world.attachments,
        "faults": issues(world.faults.iter().copied()),
    })
}

/// `/debug/model`.
#[must_use]
pub fn model(model: &Model) -> Value {
    json!({
        "workloads": model.workloads.values().map(|workload| self::workload(workload)).collect::<Vec<_>>(),
        "services": model.services.values().map(|service| self::service(service)).collect::<Vec<_>>(),
        "peer_authentications":
            model.peer_authentications.values().map(|policy| peer_authentication(policy)).collect::<Vec<_>>(),
    })
}

fn workload(workload: &model::Workload) -> Value {
    json!({
        "name": workload.name.to_string(),
        "uid": workload.uid,
        "node": workload.node,
        "addresses": workload.addresses,
        "identity": workload.identity.to_string(),
        "labels": workload.labels.iter().collect::<BTreeMap<_, _>>(),
        "controller": workload.controller,
        "enrolled": workload.enrolled,
        "announced": format!("{:?}", workload.announced),
        "host_network": workload.host_network,
        "port_names": workload.port_names,
        "probe_ports": workload.probe_ports,
    })
}

fn service(service: &model::Service) -> Value {
    let endpoint = |endpoint: &model::Endpoint| json!({ "address": endpoint.address, "port": endpoint.port, "node": endpoint.node });
    let port = |port: &model::ServicePort| {
        json!({
            "name": port.name,
            "port": port.port,
            "endpoints": port.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": service.name.to_string(),
        "addresses": service.addresses,
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "client_affinity": service.client_affinity,
        "local_only": service.local_only,
    })
}

fn peer_authentication(policy: &model::PeerAuthentication) -> Value {
    let written = |inherited: Option<MtlsMode>| inherited.map_or("UNSET", MtlsMode::name);
    let ports: BTreeMap<u16, &str> = policy.ports.iter().map(|(&port, &mode)| (port, written(mode))).collect();
    json!({
        "name": policy.name.to_string(),
        "scope": match &policy.scope {
            Scope::Mesh => json!("mesh"),
            Scope::Namespace => json!("namespace"),
            Scope::Workloads(labels) => json!({ "workloads": labels }),
        },
        "mode": written(policy.mode),
        "ports": ports,
        "created": policy.created,
    })
}

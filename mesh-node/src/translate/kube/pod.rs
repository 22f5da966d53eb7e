//! Pods become workloads.
//!
//! In:  a pod, its namespace, its sandboxes on this node, and who else claims its addresses.
//! Out: the `Workload`, unless the pod has ended.
//! Invariant: an address that two workloads claim belongs to neither.
//! Source: Kubernetes `core/v1.Pod`; Istio's ambient enrolment label; Calico's `cni.projectcalico.org` annotations.

use super::address;
use crate::api::announcement;
use crate::api::core::{Namespace, Pod, PortOrName};
use crate::model::{Announced, Identity, IdentityError, Issue, Name, ObjectRef, TrustDomain, Workload};
use crate::share::Claims;
use crate::world::{Attachment, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The label of pods and namespaces that asks for the mesh.
const MODE_LABEL: &str = "istio.io/dataplane-mode";
/// The namespace whose pods a node needs to come up; they are never enrolled.
const EXEMPT_NAMESPACE: &str = "kube-system";

/// Calico's annotation of the sandbox that it gave the addresses to.
const SANDBOX_ANNOTATION: &str = "cni.projectcalico.org/containerID";

/// What a pod's workload depends on besides the pod.
#[derive(Clone, Copy)]
pub(in crate::translate) struct Around<'a> {
    pub(in crate::translate) trust_domain: &'a TrustDomain,
    /// See `translate::Settings`.
    pub(in crate::translate) installation: Option<&'a str>,
    /// The pod's namespace, if it is known.
    pub(in crate::translate) namespace: Option<&'a Namespace>,
    /// The sandboxes that this node has of the pod or of its predecessors.
    pub(in crate::translate) sandboxes: &'a [Attachment],
}

/// The workload that a pod is; `None` if it has ended or nobody can vouch for it.
pub(in crate::translate) fn workload(
    pod: &Pod,
    around: Around<'_>,
    claims: &Claims<IpAddr, Name>,
    issues: &mut Vec<Issue>,
) -> Option<Workload> {
    if has_ended(pod) {
        return None;
    }
    let object = ObjectRef::new(Kind::Pod.name(), pod.metadata.full_name());
    let identity = match identity(pod, around.trust_domain) {
        Ok(identity) => identity,
        Err(error) => {
            issues.push(Issue::new(
                &object,
                "spec.serviceAccountName",
                format!("{error}; the pod has no identity and stays out of the mesh"),
                "use a valid name for the service account",
            ));
            return None;
        }
    };
    let mut addresses = addresses(pod, around.sandboxes, &object, issues);
    if !pod.spec.host_network {
        disown_shared(&mut addresses, claims, &object, issues);
    }
    let in_mesh_namespace = around.namespace.is_some_and(is_in_mesh);
    let enrolled = is_enrolled(pod, in_mesh_namespace, &object, issues);
    Some(Workload {
        enrolled,
        announced: announced(pod, enrolled, around.installation),
        name: object.name,
        uid: pod.metadata.uid.clone(),
        node: pod.spec.node_name.clone().filter(|node| !node.is_empty()),
        addresses,
        container_id: pod.metadata.annotations.get(SANDBOX_ANNOTATION).filter(|id| !id.is_empty()).cloned(),
        identity,
        labels: Arc::clone(&pod.metadata.labels),
        controller: controller(pod),
        host_network: pod.spec.host_network,
        port_names: port_names(pod),
        probe_ports: probe_ports(pod),
    })
}

/// The addresses that the pod claims to have, be they believed or not.
pub(in crate::translate) fn claims(pod: &Pod, around: Around<'_>) -> Vec<IpAddr> {
    if has_ended(pod) || identity(pod, around.trust_domain).is_err() {
        return Vec::new();
    }
    let object = ObjectRef::new(Kind::Pod.name(), pod.metadata.full_name());
    // What is wrong with them is told of the workload.
    addresses(pod, around.sandboxes, &object, &mut Vec::new())
}

/// Are the pods of a namespace in the mesh unless they say otherwise?
pub(in crate::translate) fn is_in_mesh(namespace: &Namespace) -> bool {
    mode(namespace) == Some("ambient")
}

fn mode(namespace: &Namespace) -> Option<&str> {
    namespace.metadata.labels.get(MODE_LABEL).map(String::as_str)
}

/// What is wrong with a namespace.
pub(in crate::translate) fn namespace_issues(name: &Name, namespace: &Namespace) -> Vec<Issue> {
    let unknown = mode(namespace).filter(|mode| !matches!(*mode, "ambient" | "none"));
    let issue = |mode: &str| {
        Issue::new(
            &ObjectRef::new(Kind::Namespace.name(), name.clone()),
            format!("metadata.labels[{MODE_LABEL}]"),
            format!("`{mode}` is no mode; its pods are not in the mesh unless they ask for it"),
            "use `ambient` or `none`",
        )
    };
    unknown.map(issue).into_iter().collect()
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

fn identity(pod: &Pod, trust_domain: &TrustDomain) -> Result<Identity, IdentityError> {
    let account = Some(pod.spec.service_account_name.as_str()).filter(|name| !name.is_empty()).unwrap_or("default");
    Identity::new(trust_domain, pod.metadata.namespace.as_str(), account)
}

fn is_enrolled(pod: &Pod, in_mesh_namespace: bool, object: &ObjectRef, issues: &mut Vec<Issue>) -> bool {
    let mode = pod.metadata.labels.get(MODE_LABEL).map(String::as_str);
    let mut report = |problem: String, cure: &str| {
        issues.push(Issue::new(object, format!("metadata.labels[{MODE_LABEL}]"), problem, cure));
    };
    let exempt = exemption(pod);
    let wanted = match mode {
        Some("ambient") => true,
        Some("none") => false,
        None => in_mesh_namespace,
        Some(other) => {
            let follows = if in_mesh_namespace { "it is in the mesh" } else { "it is not in the mesh" };
            report(
                format!("`{other}` is no mode; the namespace decides: {follows}"),
                "use `ambient` or `none`, or remove the label",
            );
            in_mesh_namespace
        }
    };
    if let Some(why) = exempt.filter(|_| mode == Some("ambient")) {
        report(format!("the pod cannot be in the mesh: {why}"), "remove the label");
    }
    wanted && exempt.is_none()
}

/// Why a pod cannot be in the mesh, whatever it asks for.
fn exemption(pod: &Pod) -> Option<&'static str> {
    if pod.spec.host_network {
        Some("it uses the node's network")
    } else if &*pod.metadata.namespace == EXEMPT_NAMESPACE {
        Some("the node needs the pods of kube-system to come up")
    } else {
        None
    }
}

/// What the pod's node has told the others of it.
fn announced(pod: &Pod, enrolled: bool, installation: Option<&str>) -> Announced {
    match installation {
        Some(installation) if exemption(pod).is_none() => announcement::read(&pod.metadata.annotations, installation),
        None if enrolled => Announced::InForce,
        Some(_) | None => Announced::Nothing,
    }
}

/// The addresses of a pod, primary first.
///
/// This node knows best what its own sandboxes have, provided that they are known to be this very pod's: the
/// status of a pod whose sandbox was replaced lags behind. Calico empties its annotation when it takes an address
/// back, which the status does not show either. Otherwise the status speaks, then the annotation, which precedes
/// it, then a sandbox that only the name ties to the pod.
fn addresses(pod: &Pod, sandboxes: &[Attachment], object: &ObjectRef, issues: &mut Vec<Issue>) -> Vec<IpAddr> {
    let uid = Some(pod.metadata.uid.as_str()).filter(|uid| !uid.is_empty());
    let certain = uid.map_or_else(Vec::new, |uid| sandbox_addresses(sandboxes, |of| of == Some(uid)));
    let annotation = annotation(pod);
    let was_taken_back = annotation.is_some_and(|(_, texts)| texts.is_empty());
    let found = [
        certain,
        if was_taken_back { Vec::new() } else { status_addresses(pod, object, issues) },
        annotation.map_or_else(Vec::new, |(key, texts)| annotated_addresses(key, texts, object, issues)),
        sandbox_addresses(sandboxes, |of| of.is_none() || uid.is_none()),
    ];
    let mut addresses = Vec::new();
    for address in found.into_iter().find(|found| !found.is_empty()).unwrap_or_default() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Calico's annotation of addresses, with its key.
fn annotation(pod: &Pod) -> Option<(&'static str, &str)> {
    ["cni.projectcalico.org/podIPs", "cni.projectcalico.org/podIP"]
        .into_iter()
        .find_map(|key| Some((key, pod.metadata.annotations.get(key)?.as_str())))
}

fn status_addresses(pod: &Pod, object: &ObjectRef, issues: &mut Vec<Issue>) -> Vec<IpAddr> {
    let (field, texts) = if pod.status.pod_ips.is_empty() {
        ("status.podIP", vec![pod.status.pod_ip.as_str()])
    } else {
        ("status.podIPs", pod.status.pod_ips.iter().map(|entry| entry.ip.as_str()).collect())
    };
    texts.into_iter().filter(|text| !text.is_empty()).filter_map(|text| address(text, object, field, issues)).collect()
}

/// Addresses with their prefix lengths, as in `10.0.0.3/32,fd00::3/128`.
fn annotated_addresses(key: &str, texts: &str, object: &ObjectRef, issues: &mut Vec<Issue>) -> Vec<IpAddr> {
    let field = format!("metadata.annotations[{key}]");
    texts
        .split(',')
        .map(|text| text.split_once('/').map_or(text, |(address, _prefix)| address).trim())
        .filter(|text| !text.is_empty())
        .filter_map(|text| address(text, object, &field, issues))
        .collect()
}

fn sandbox_addresses(sandboxes: &[Attachment], is_of_pod: impl Fn(Option<&str>) -> bool) -> Vec<IpAddr> {
    sandboxes
        .iter()
        .filter(|sandbox| is_of_pod(sandbox.pod_uid.as_deref()))
        .flat_map(|sandbox| sandbox.addresses.iter().map(IpAddr::to_canonical))
        .collect()
}

/// The name of what created the pod, as Istio reports it; the pod's own name if nothing did.
fn controller(pod: &Pod) -> String {
    makers(pod).last().map_or(&*pod.metadata.name, |(_, name)| name).to_owned()
}

/// What created the pod, by kind and name: its owner, then of a ReplicaSet the Deployment, of a Job the CronJob.
#[must_use]
pub fn makers(pod: &Pod) -> Vec<(&str, &str)> {
    let owners = &pod.metadata.owner_references;
    let Some(owner) = owners.iter().find(|owner| owner.controller).or_else(|| owners.first()) else {
        return Vec::new();
    };
    let name = owner.name.as_str();
    let creator = match owner.kind.as_str() {
        "ReplicaSet" => pod
            .metadata
            .labels
            .get("pod-template-hash")
            .and_then(|hash| Some(("Deployment", name.strip_suffix(hash.as_str())?.strip_suffix('-')?))),
        "Job" => name.rsplit_once('-').and_then(|(cron_job, minute)| {
            let is_minute = (8..=10).contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit());
            is_minute.then_some(("CronJob", cron_job))
        }),
        _ => None,
    };
    let creator = creator.filter(|(_, creator)| !creator.is_empty());
    [(owner.kind.as_str(), name)].into_iter().chain(creator).collect()
}

fn port_names(pod: &Pod) -> BTreeMap<String, u16> {
    let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
    ports
        .filter(|port| matches!(port.protocol.as_str(), "" | "TCP") && !port.name.is_empty())
        // The first container that declares a name has it, so later ones are written first.
        .rev()
        .map(|port| (port.name.clone(), port.container_port))
        .collect()
}

/// The ports of the pod that the kubelet connects to by itself.
fn probe_ports(pod: &Pod) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        let hooks = container.lifecycle.iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
        let probes = probes.into_iter().chain(hooks).flatten();
        let targets = probes.flat_map(|probe| [&probe.http_get, &probe.tcp_socket, &probe.grpc]).flatten();
        // A probe of another host does not arrive at the pod.
        for target in targets.filter(|target| target.host.is_empty()) {
            ports.extend(match &target.port {
                PortOrName::Port(port) => Some(*port),
                PortOrName::Name(name) => {
                    container.ports.iter().find(|port| port.name == *name).map(|port| port.container_port)
                }
            });
        }
    }
    ports
}

/// Takes every address that several workloads claim from a workload: none may be believed. Pods in the node's network
/// share its addresses by nature and keep them.
fn disown_shared(
    addresses: &mut Vec<IpAddr>,
    claims: &Claims<IpAddr, Name>,
    object: &ObjectRef,
    issues: &mut Vec<Issue>,
) {
    addresses.retain(|address| {
        let Some((first, second)) = claims.rivals(address) else { return true };
        let other = if *first == object.name { second } else { first };
        issues.push(Issue::new(
            object,
            "status.podIPs",
            format!("Pod {other} claims {address} too; neither is believed, the mesh knows nobody there"),
            "delete the pod that does not run",
        ));
        false
    });
}

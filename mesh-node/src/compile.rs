//! Makes what this node acts on from what is known.
//!
//! In:  the `Model`, the pod sandboxes of this node, the node's name.
//! Out: the `NodeSnapshot`, in which no choice is left.
//! Invariant: pure; equal input gives an equal snapshot, and equal parts share one `Arc`.
//! Invariant: nothing is chosen by order of arrival.
//! Source: kube-proxy for which endpoints a node uses; Istio's standard metrics for labels.

mod directory;

use crate::model::{Issue, Model, Name, ObjectRef, Workload};
use crate::snapshot::{Directory, LocalPod, NodeSnapshot, PodKey};
use crate::translate;
use crate::world::{Attachment, Kind, World};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// What is particular to this node and cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's name, as pods carry it.
    pub node: String,
    /// The suffix of service names, as in `cluster.local`.
    pub cluster_domain: String,
}

/// The whole way from what is known to what this node does: translates, compiles, and gathers the issues of
/// the sources and of both steps.
#[must_use]
pub fn snapshot(world: &World, names: &translate::Settings, settings: &Settings) -> (Model, NodeSnapshot) {
    let (model, issues) = translate::translate(world, names);
    let mut snapshot = compile(&model, world.attachments(), settings);
    snapshot.issues.extend(issues);
    snapshot.issues.extend(world.faults().cloned());
    snapshot.issues.sort();
    snapshot.issues.dedup();
    (model, snapshot)
}

/// What this node does under `model`. The issues are those of this step alone, ordered.
#[must_use]
pub fn compile<'a>(
    model: &Model,
    attachments: impl IntoIterator<Item = &'a Attachment>,
    settings: &Settings,
) -> NodeSnapshot {
    let directory = directory::directory(model, settings);
    let mut attachments: Vec<_> = attachments.into_iter().collect();
    attachments.sort_by_key(|attachment| (&attachment.container_id, &attachment.ifname));
    let mut pods: BTreeMap<PodKey, Arc<LocalPod>> = BTreeMap::new();
    let mut issues = Vec::new();
    for attachment in attachments {
        let name = Name::new(attachment.pod_namespace.as_str(), attachment.pod_name.as_str());
        let object = ObjectRef::new(Kind::Pod.name(), name);
        let Some(workload) = workload_of(attachment, model, &object, settings, &mut issues) else { continue };
        let Some(pod) = local_pod(attachment, workload, &directory) else { continue };
        if let Some(first) = pods.get(&pod.key) {
            let problem =
                format!("the traffic of its interface {} is not steered, only that of {}", pod.ifname, first.ifname);
            issues.push(Issue::new(&object, "", problem, "give the pod one interface, or keep it out of the mesh"));
        } else {
            pods.insert(Arc::clone(&pod.key), Arc::new(pod));
        }
    }
    issues.sort();
    issues.dedup();
    NodeSnapshot { pods, directory: Arc::new(directory), issues }
}

/// Pods of this node that are to be steered, but whose sandbox nobody told of: they ran before the plugin was in the
/// chain, or are about to be told of. Ordered by name.
#[must_use]
pub fn strangers<'m>(model: &'m Model, world: &World, settings: &Settings) -> Vec<&'m Arc<Workload>> {
    let told: HashSet<(&str, &str)> = world
        .attachments()
        .map(|attachment| (attachment.pod_namespace.as_str(), attachment.pod_name.as_str()))
        .collect();
    let here = |workload: &&Arc<Workload>| {
        workload.node.as_deref() == Some(&settings.node)
            && workload.enrolled
            && !workload.addresses.is_empty()
            && !told.contains(&(&*workload.name.namespace, &*workload.name.name))
    };
    model.workloads.values().filter(here).collect()
}

/// The workload that a sandbox belongs to.
fn workload_of<'m>(
    attachment: &Attachment,
    model: &'m Model,
    object: &ObjectRef,
    settings: &Settings,
    issues: &mut Vec<Issue>,
) -> Option<&'m Workload> {
    let workload = model.workloads.get(&object.name).map(|workload| &**workload);
    let (field, problem, cure) = match workload {
        None => (
            "",
            "a sandbox exists on this node, but no such pod that has not ended is known; it waits".to_owned(),
            "create the pod, or end the sandbox",
        ),
        Some(Workload { uid, .. }) if attachment.pod_uid.as_ref().is_some_and(|of| !uid.is_empty() && of != uid) => (
            "metadata.uid",
            format!("the pod's UID is {uid}, but a sandbox on this node is of a pod of another; it waits"),
            "end the old sandbox, or wait for the new pod to be known",
        ),
        Some(Workload { node: Some(node), .. }) if *node != settings.node => (
            "spec.nodeName",
            format!("the pod is scheduled to node {node}, but a sandbox exists on {}; it waits", settings.node),
            "end the old sandbox, or correct the node's name",
        ),
        Some(_) => return workload,
    };
    issues.push(Issue::new(object, field, problem, cure));
    None
}

/// The pod to steer; `None` if it is not enrolled or has no address yet.
fn local_pod(attachment: &Attachment, workload: &Workload, directory: &Directory) -> Option<LocalPod> {
    if !workload.enrolled {
        return None;
    }
    let entry = directory.workloads.get(workload.addresses.first()?)?;
    Some(LocalPod {
        key: PodKey::from(attachment.container_id.as_str()),
        name: workload.name.clone(),
        uid: workload.uid.clone(),
        netns: attachment.netns.clone(),
        ifname: attachment.ifname.clone(),
        addresses: own_addresses(workload, attachment),
        workload: Arc::clone(entry),
        probe_ports: workload.probe_ports.iter().copied().collect(),
    })
}

/// The workload's addresses that this sandbox has, or all if it told none of them: one of each family.
fn own_addresses(workload: &Workload, attachment: &Attachment) -> Vec<IpAddr> {
    let has = |address: &&IpAddr| attachment.addresses.iter().any(|own| own.to_canonical() == **address);
    let own: Vec<_> = workload.addresses.iter().filter(has).collect();
    let candidates = if own.is_empty() { workload.addresses.iter().collect() } else { own };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for &address in candidates {
        if addresses.iter().all(|taken| taken.is_ipv4() != address.is_ipv4()) {
            addresses.push(address);
        }
    }
    addresses
}

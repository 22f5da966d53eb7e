//! Makes what this node acts on from what is known.
//!
//! In:  the `World` and what of it was touched; the names that the operator chose; the node's name.
//! Out: the `NodeSnapshot`, in which no choice is left.
//! Invariant: pure; equal worlds give equal snapshots, and equal parts share one `Arc`: the snapshot of a world that changed
//! equals the one that is made of it from nothing.
//! Invariant: what a change costs follows what it reaches (`translate::Stale`) and the pods of this node, not the cluster.
//! Invariant: nothing is chosen by order of arrival.
//! Source: kube-proxy for which endpoints a node uses; Istio's standard metrics for labels.

mod directory;
mod edge;
mod hosts;
mod http;
mod policy;

pub use http::Standings;

use crate::model::{Announced, Gateway, Identity, Issue, Labels, Name, ObjectRef, Workload};
use crate::policy::MtlsPolicies;
use crate::snapshot::edge::Edge;
use crate::snapshot::{LocalPod, NodeSnapshot, PodKey, WorkloadEntry};
use crate::translate::{self, Stale, Translator, Unit};
use crate::world::{Attachment, Key, Kind, Object, Touched, World};
use directory::Builder;
pub use edge::workload as edge_workload;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// At most this many workloads of a namespace are compiled together, so that a large namespace takes no memory for itself.
const TOGETHER: usize = 256;

/// What is particular to this node and cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's name, as pods carry it.
    pub node: String,
    /// The suffix of service names, as in `cluster.local`.
    pub cluster_domain: String,
    /// The namespace whose traffic policies hold where neither the client's nor the service's has one.
    pub root_namespace: String,
    /// As whom traffic that enters through gateways goes on.
    pub edge: Arc<Identity>,
    /// The labels by which Istio's Gateways select the edge.
    pub edge_labels: Labels,
}

impl Default for Settings {
    /// Nameless, with Istio's names and those of the manifests.
    fn default() -> Self {
        let edge = Identity {
            trust_domain: "cluster.local".into(),
            namespace: "mesh-system".into(),
            service_account: "mesh-node".into(),
        };
        let labels = [("app", "istio-ingressgateway"), ("istio", "ingressgateway")];
        Self {
            node: String::new(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            edge: Arc::new(edge),
            edge_labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }
}

/// The snapshot of a world, with what it takes to change it as the world changes.
#[derive(Clone, Debug)]
pub struct Compiler {
    settings: Settings,
    translator: Translator,
    directory: Builder,
    routing: http::Live,
    policies: policy::Live,
    /// The workloads that are scheduled to this node or have a sandbox here.
    here: BTreeMap<Name, Arc<Workload>>,
    pods: BTreeMap<PodKey, Arc<LocalPod>>,
    edge: Option<Arc<Edge>>,
}

impl Compiler {
    /// One that knows of nothing.
    #[must_use]
    pub fn new(names: translate::Settings, settings: Settings) -> Self {
        Self {
            settings,
            translator: Translator::new(names),
            directory: Builder::default(),
            routing: http::Live::default(),
            policies: policy::Live::default(),
            here: BTreeMap::new(),
            pods: BTreeMap::new(),
            edge: None,
        }
    }

    /// One that knows `world`.
    #[must_use]
    pub fn of(world: &World, names: translate::Settings, settings: Settings) -> Self {
        let mut compiler = Self::new(names, settings);
        compiler.take(world, world.keys().map(|key| (key, None)));
        compiler.translator.compact();
        compiler.directory.compact();
        compiler
    }

    /// Learns that `world` is now this. `touched` is the difference to what was learnt before.
    pub fn learn(&mut self, world: &World, touched: Touched) {
        self.take(world, touched);
    }

    fn take(&mut self, world: &World, touched: impl IntoIterator<Item = (Key, Option<Box<Object>>)>) {
        let issues = &mut Vec::new();
        let touched = touched.into_iter().inspect(|(key, _)| {
            if let Key::Faults(origin) = key {
                issues.push(origin.clone());
            }
        });
        let mut stale = self.translator.learn(world, touched);
        for origin in issues.drain(..) {
            let faults = world.faults_of(&origin).to_vec();
            self.translator.issues.set(Unit::Faults(origin), faults);
        }
        if self.policies.learn(&self.translator, &stale) {
            stale.workloads.extend(world.pod_names().cloned());
        }
        let is_here = self.compile_workloads(world, &stale) || stale.sandboxes;
        if is_here {
            self.compile_pods(world);
            self.routing.set_clients(http::clients(&self.pods, &self.here));
        }
        self.compile_services(world, &stale);
        let Self { translator, directory, policies, pods, here, settings, .. } = self;
        let here = policy::Here { may_be_others: is_here, pods, workloads: here, settings };
        policies.compile((world, &stale), (translator, directory), here);
    }

    /// Returns whether one of them is of this node.
    fn compile_workloads(&mut self, world: &World, stale: &Stale) -> bool {
        stale.pod_addresses.iter().for_each(|address| self.directory.clear_workload(address));
        let mut is_here = false;
        let mut names = stale.workloads.iter().peekable();
        while let Some(first) = names.peek() {
            let namespace = first.namespace.clone();
            let mut workloads = Vec::new();
            while let Some(name) = names.next_if(|name| name.namespace == namespace && workloads.len() < TOGETHER) {
                let workload = self.translator.workload(world, name);
                is_here |= self.note_here(name, workload.as_ref());
                workloads.extend(workload);
            }
            let policies = MtlsPolicies::new(self.translator.policies_for(&namespace));
            let asked = self.policies.asked();
            for workload in &workloads {
                self.directory.put_workload((world, workload), asked, || policies.modes(workload));
            }
        }
        is_here
    }

    /// Keeps the workload if it is of this node. Returns whether it is or was.
    fn note_here(&mut self, name: &Name, workload: Option<&Workload>) -> bool {
        let is_attached = self.translator.is_attached(name);
        let is_ours = |workload: &&Workload| is_attached || workload.node.as_deref() == Some(&self.settings.node);
        match workload.filter(is_ours) {
            Some(workload) => {
                self.here.insert(name.clone(), Arc::new(workload.clone()));
                true
            }
            // A sandbox whose pod is gone is an issue.
            None => self.here.remove(name).is_some() || is_attached,
        }
    }

    fn compile_services(&mut self, world: &World, stale: &Stale) {
        stale.service_addresses.iter().for_each(|address| self.directory.clear_service(address));
        self.routing.learn(&self.translator, stale, &self.settings);
        let mut routed = HashMap::new();
        for name in &stale.services {
            let service = self.translator.service(world, name);
            if self.routing.note(name, service.as_ref(), &self.settings) {
                routed.insert(name.clone(), service.map(Arc::new));
            } else {
                self.directory.put_service(name, service.as_ref(), &BTreeMap::new(), &self.settings);
            }
        }
        let Self { translator, directory, settings, .. } = self;
        self.routing.compile((world, stale), routed, (translator, directory), settings);
    }

    fn compile_pods(&mut self, world: &World) {
        let mut pods: BTreeMap<PodKey, Arc<LocalPod>> = BTreeMap::new();
        let mut issues = Vec::new();
        for attachment in world.attachments() {
            let name = Name::new(attachment.pod_namespace.as_str(), attachment.pod_name.as_str());
            let known = self.here.get(&name).map(|workload| &**workload);
            let object = ObjectRef::new(Kind::Pod.name(), name);
            let Some(workload) = workload_of(attachment, known, &object, &self.settings, &mut issues) else { continue };
            let entry = workload.addresses.first().and_then(|address| self.directory.at(address));
            let Some(pod) = entry.and_then(|entry| local_pod(attachment, workload, entry)) else { continue };
            if let Some(first) = pods.get(&pod.key) {
                let problem = format!(
                    "the traffic of its interface {} is not steered, only that of {}",
                    pod.ifname, first.ifname
                );
                let cure = "give the pod one interface, or keep it out of the mesh";
                issues.push(Issue::new(&object, "", problem, cure));
            } else {
                let known = self.pods.get(&pod.key).filter(|known| ***known == pod).cloned();
                pods.insert(Arc::clone(&pod.key), known.unwrap_or_else(|| Arc::new(pod)));
            }
        }
        self.pods = pods;
        self.translator.issues.set(Unit::Sandboxes, issues);
    }

    /// What this node does now.
    #[must_use]
    pub fn snapshot(&mut self) -> NodeSnapshot {
        let edge = edge::edge(self.routing.edge(), &self.here, &self.settings);
        if self.edge.as_deref() != edge.as_ref() {
            self.edge = edge.map(Arc::new);
        }
        NodeSnapshot {
            pods: self.pods.clone(),
            policies: Arc::clone(&self.policies.published().pods),
            entrances: Arc::clone(&self.policies.published().entrances),
            directory: Arc::new(self.directory.directory()),
            edge: self.edge.clone(),
            listeners: self.routing.listeners(),
            issues: self.translator.issues.list(),
        }
    }

    /// The pod at an address, if anybody has it.
    #[must_use]
    pub fn pod_at(&self, address: &IpAddr) -> Option<&Name> {
        self.translator.pod_at(address)
    }

    /// The addresses that a pod claims to have, be they believed or not.
    #[must_use]
    pub fn claims(&self, world: &World, pod: &Name) -> Vec<IpAddr> {
        self.translator.claims(world, pod)
    }

    /// Every gateway, be it the mesh's or not.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.translator.customs.gateways.values()
    }

    /// A workload that is scheduled to this node or has a sandbox here.
    #[must_use]
    pub fn workload(&self, name: &Name) -> Option<&Arc<Workload>> {
        self.here.get(name)
    }

    /// The policy that says the mutual-TLS mode of a port of such a workload; `None` where none does.
    #[must_use]
    pub fn mode_by(&self, workload: &Workload, port: u16) -> Option<ObjectRef> {
        let policies = MtlsPolicies::new(self.translator.policies_for(&workload.name.namespace));
        let decider = policies.decider(workload, port)?;
        Some(ObjectRef::new(Kind::PeerAuthentication.name(), decider.name.clone()))
    }

    /// Pods of this node that are to be steered, but whose sandbox nobody told of: they ran before the plugin was in the
    /// chain, or are about to be told of. Ordered by name.
    pub fn strangers(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.here.values().filter(|workload| {
            workload.node.as_deref() == Some(&self.settings.node)
                && workload.enrolled
                && !workload.addresses.is_empty()
                && !self.translator.is_attached(&workload.name)
        })
    }
}

/// The workload that a sandbox belongs to.
fn workload_of<'w>(
    attachment: &Attachment,
    workload: Option<&'w Workload>,
    object: &ObjectRef,
    settings: &Settings,
    issues: &mut Vec<Issue>,
) -> Option<&'w Workload> {
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

/// The pod to steer; `None` if it is not to be, and no node believes that it is.
fn local_pod(attachment: &Attachment, workload: &Workload, entry: &Arc<WorkloadEntry>) -> Option<LocalPod> {
    let is_steered = workload.enrolled || workload.announced != Announced::Nothing;
    is_steered.then(|| LocalPod {
        key: PodKey::from(attachment.container_id.as_str()),
        name: workload.name.clone(),
        uid: workload.uid.clone(),
        netns: attachment.netns.clone(),
        ifname: attachment.ifname.clone(),
        addresses: own_addresses(workload, attachment),
        workload: Arc::clone(entry),
        enrolled: workload.enrolled,
        announced: workload.announced,
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

//! Turns foreign APIs into the mesh's one vocabulary.
//!
//! In:  the `World`, what of it was touched, and the names that the operator chose.
//! Out: the `Model`, piece by piece or whole, and an `Issue` for everything that could not be taken as written.
//! Invariant: the result depends on the world alone, not on how it came about: the whole is the pieces from nothing.
//! Invariant: a piece is translated by a pure function; what it depends on besides its objects is in an index of
//! [`Translator`], and [`Translator::learn`] says which pieces depend on what was touched.
//! Invariant: each field of a foreign API is enforced, reported or refused.
//! Source: each translator names its own.

mod book;
pub mod calico;
mod cluster_network_policy;
mod customs;
mod draft;
pub mod fields;
pub mod gateway;
pub mod istio;
pub mod kube;
mod reach;
mod read;
mod text;

pub use book::{IssueBook, TrafficUnit, Unit};
pub use customs::Customs;
pub use kube::pod::makers;
pub use reach::Stale;

use crate::model::{Issue, Model, Name, PeerAuthentication, Service, TrustDomain, Workload};
use crate::share::Claims;
use crate::world::{Attachment, Kind, World};
use kube::pod::Around;
use kube::service::Seniority;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// The names that the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who vouches for identities, as in `cluster.local`.
    pub trust_domain: TrustDomain,
    /// The namespace whose policies without a selector hold for the whole mesh.
    pub root_namespace: String,
    /// The installation whose announcements of pods are believed. `None` where nodes announce nothing: then every pod that is wanted
    /// in the mesh is taken to be there.
    pub installation: Option<Arc<str>>,
    /// The suffix of service names, as in `cluster.local`.
    pub cluster_domain: String,
}

impl Default for Settings {
    /// Istio's defaults.
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            root_namespace: "istio-system".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            installation: None,
        }
    }
}

/// The world in the mesh's own words. Issues are ordered and without duplicates.
#[must_use]
pub fn translate(world: &World, settings: &Settings) -> (Model, Vec<Issue>) {
    let mut translator = Translator::new(settings.clone());
    let stale = translator.learn(world, world.keys().map(|key| (key, None)));
    let workloads = stale.workloads.iter().filter_map(|name| translator.workload(world, name));
    let workloads = workloads.map(|workload| (workload.name.clone(), Arc::new(workload))).collect();
    let services = stale.services.iter().filter_map(|name| translator.service(world, name));
    let services = services.map(|service| (service.name.clone(), Arc::new(service))).collect();
    let issues = translator.issues.list().iter().map(|issue| Issue::clone(issue)).collect();
    let Customs { routes, traffic_policies, external_services, workload_entries, gateways, .. } = translator.customs;
    let Customs { tiers, policies, address_sets, .. } = translator.customs;
    let model = Model {
        workloads,
        services,
        peer_authentications: translator.policies,
        routes,
        traffic_policies,
        external_services,
        workload_entries,
        gateways,
        tiers,
        policies,
        address_sets,
    };
    (model, issues)
}

/// What must be known of all objects to translate one.
#[derive(Clone, Debug)]
pub struct Translator {
    settings: Settings,
    /// The pods that claim an address, those of the node's network among them.
    pods: Claims<IpAddr, Name>,
    /// The sandboxes that this node has of each pod.
    sandboxes: BTreeMap<Name, Vec<Attachment>>,
    /// The services that claim an address.
    services: Claims<IpAddr, Seniority>,
    /// The slices of each service, by names.
    slices: BTreeSet<(Name, Name)>,
    policies: BTreeMap<Name, Arc<PeerAuthentication>>,
    /// Of each policy the pods it selects for which another one decides, and which.
    overruled: BTreeMap<(Name, Name), Name>,
    /// Routes, traffic policies and hosts.
    pub customs: Customs,
    /// What is wrong, by what it was found in.
    pub issues: IssueBook,
}

impl Translator {
    /// One that knows of nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            pods: Claims::default(),
            sandboxes: BTreeMap::new(),
            services: Claims::default(),
            slices: BTreeSet::new(),
            policies: BTreeMap::new(),
            overruled: BTreeMap::new(),
            customs: Customs::default(),
            issues: IssueBook::default(),
        }
    }

    /// Lets the indexes take no more room than they must, once they have grown to their size.
    pub fn compact(&mut self) {
        self.pods.compact();
        self.services.compact();
        self.slices = std::mem::take(&mut self.slices).into_iter().collect();
    }

    /// Has this node sandboxes of the pod?
    #[must_use]
    pub fn is_attached(&self, pod: &Name) -> bool {
        self.sandboxes.contains_key(pod)
    }

    /// The policies that may hold for workloads of a namespace.
    pub fn policies_for<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a PeerAuthentication> {
        let root = self.policies_in(&self.settings.root_namespace);
        let own = self.policies_in(namespace).filter(move |_| namespace != self.settings.root_namespace);
        root.chain(own)
    }

    fn policies_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a PeerAuthentication> {
        let from = self.policies.range(Name::new(namespace, "")..);
        from.take_while(move |(name, _)| &*name.namespace == namespace).map(|(_, policy)| &**policy)
    }

    /// Translates a pod, and notes what is wrong with it.
    pub fn workload(&mut self, world: &World, name: &Name) -> Option<Workload> {
        let (workload, issues) = self.read_workload(world, name);
        self.issues.set(Unit::Object(Kind::Pod, name.clone()), issues);
        self.note_overruled(name, workload.as_ref());
        workload
    }

    /// A pod, translated, and what is wrong with it.
    #[must_use]
    pub fn read_workload(&self, world: &World, name: &Name) -> (Option<Workload>, Vec<Issue>) {
        let mut issues = Vec::new();
        let around = self.around(world, name);
        let workload = world.pod(name).and_then(|pod| kube::pod::workload(&pod, around, &self.pods, &mut issues));
        (workload, issues)
    }

    /// The least of the pods that claim an address: the one that has it, if anybody does.
    #[must_use]
    pub fn pod_at(&self, address: &IpAddr) -> Option<&Name> {
        self.pods.firsts().get(address)
    }

    /// The addresses that a pod claims to have, be they believed or not.
    #[must_use]
    pub fn claims(&self, world: &World, name: &Name) -> Vec<IpAddr> {
        world.pod(name).map_or_else(Vec::new, |pod| kube::pod::claims(&pod, self.around(world, name)))
    }

    fn around<'a>(&'a self, world: &'a World, pod: &Name) -> Around<'a> {
        Around {
            trust_domain: &self.settings.trust_domain,
            installation: self.settings.installation.as_deref(),
            namespace: world.namespace(&pod.namespace).map(|namespace| &**namespace),
            sandboxes: self.sandboxes.get(pod).map_or(&[], Vec::as_slice),
        }
    }

    /// Notes which policies select a pod without effect.
    fn note_overruled(&mut self, pod: &Name, workload: Option<&Workload>) {
        let selecting = workload.map(|workload| istio::selecting(self.policies_in(&pod.namespace), workload));
        let mut names = selecting.iter().flatten().map(|policy| policy.name.clone());
        let winner = names.next();
        let losers: BTreeSet<Name> = names.collect();
        let policies: Vec<Name> = self.policies_in(&pod.namespace).map(|policy| policy.name.clone()).collect();
        for policy in policies {
            let key = (policy, pod.clone());
            let before = match winner.as_ref().filter(|_| losers.contains(&key.0)) {
                Some(winner) => self.overruled.insert(key.clone(), winner.clone()),
                None => self.overruled.remove(&key),
            };
            if before.as_ref() != self.overruled.get(&key) {
                self.tell_overruled(key.0);
            }
        }
    }

    /// Tells of a policy that is overruled for some of its pods, naming the first.
    fn tell_overruled(&mut self, policy: Name) {
        let from = (policy.clone(), Name::new("", ""));
        let first = self.overruled.range(from..).next().filter(|((of, _), _)| *of == policy);
        let issue = first.map(|((_, pod), winner)| istio::overruled_for(&policy, winner, pod));
        self.issues.set(Unit::Selected(policy), issue.into_iter().collect());
    }

    /// Translates a service, and notes what is wrong with it and its slices.
    pub fn service(&mut self, world: &World, name: &Name) -> Option<Service> {
        let (service, issues) = self.read_service(world, name);
        issues.into_iter().for_each(|(unit, issues)| self.issues.set(unit, issues));
        service
    }

    /// A service, translated, and what is wrong with it and its slices.
    #[must_use]
    pub fn read_service(&self, world: &World, name: &Name) -> (Option<Service>, Vec<(Unit, Vec<Issue>)>) {
        let object = world.service(name);
        let object = object.as_ref();
        let from = self.slices.range((name.clone(), Name::new("", ""))..);
        let of_service = from.take_while(|(service, _)| service == name);
        let known: Vec<_> = of_service.filter_map(|(_, slice)| Some((slice, world.endpoint_slice(slice)?))).collect();
        let (mut slices, mut all) = (Vec::new(), Vec::new());
        for (slice_name, slice) in &known {
            let mut issues = Vec::new();
            if object.is_some() {
                slices.extend(kube::service::slice(slice_name, slice, &mut issues));
            } else {
                issues.push(kube::service::orphan(slice_name, name));
            }
            all.push((Unit::Object(Kind::EndpointSlice, Name::clone(slice_name)), issues));
        }
        let mut issues = Vec::new();
        let service =
            object.and_then(|object| kube::service::service(name, object, &slices, &self.services, &mut issues));
        all.push((Unit::Object(Kind::Service, name.clone()), issues));
        (service, all)
    }
}

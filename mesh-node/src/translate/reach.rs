//! What each kind of object influences.
//!
//! In:  what was touched, and what it was before.
//! Out: [`Stale`]: the workloads, services and addresses that must be made anew; indexes that are up to date.
//! Invariant: a new kind of object says here what depends on it, and nowhere else.
//! Invariant: what is named too much costs time; what is named too little would leave a trace of history.

use super::kube::{pod, service};
use super::{Translator, Unit, istio};
use crate::api::core::{Namespace, Pod, Service};
use crate::api::discovery::EndpointSlice;
use crate::model::http::HttpRoute;
use crate::model::{Labels, Name, ObjectRef, PeerAuthentication};
use crate::world::{CalicoFamily, CustomKind, Key, Kind, Object, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What must be made anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Pods whose workload may be another, or none.
    pub workloads: BTreeSet<Name>,
    /// Services that may be other ones, or none.
    pub services: BTreeSet<Name>,
    /// Addresses that may have become another pod's, or nobody's. Those who claim them are among `workloads`.
    pub pod_addresses: BTreeSet<IpAddr>,
    /// Addresses that may have become another service's, or nobody's. Those who claim them are among `services`.
    pub service_addresses: BTreeSet<IpAddr>,
    /// Are the sandboxes of this node others?
    pub sandboxes: bool,
    /// May traffic policies or hosts be others? What they hold for is found by `compile`, before and after.
    pub routing: bool,
    /// Routes that are others, or gone, each as it was before, if it was.
    pub routes: BTreeMap<ObjectRef, Option<Arc<HttpRoute>>>,
    /// Policies that may be others, or gone.
    pub policies: BTreeSet<ObjectRef>,
    /// May tiers be others?
    pub tiers: bool,
    /// May sets of addresses be others?
    pub address_sets: bool,
    /// May gateways, their classes, their certificates or what may attach to them be others?
    pub gateways: bool,
}

impl Translator {
    /// Brings the indexes up to date with `world`, which differs from what was learnt before by what was touched.
    pub fn learn(&mut self, world: &World, touched: impl IntoIterator<Item = (Key, Option<Box<Object>>)>) -> Stale {
        let mut stale = Stale::default();
        let mut grants = false;
        for (key, before) in touched {
            match (key, before.map(|before| *before)) {
                (Key::Object(Kind::Namespace, name), Some(Object::Namespace(before))) => {
                    self.reach_of_namespace(world, &name, Some(&before), &mut stale);
                }
                (Key::Object(Kind::Namespace, name), _) => self.reach_of_namespace(world, &name, None, &mut stale),
                (Key::Object(Kind::Pod, name), Some(Object::Pod(before))) => {
                    self.reach_of_pod(world, &name, Some(&before), &mut stale);
                }
                (Key::Object(Kind::Pod, name), _) => self.reach_of_pod(world, &name, None, &mut stale),
                (Key::Object(Kind::Service, name), Some(Object::Service(before))) => {
                    self.reach_of_service(world, &name, Some(&before), &mut stale);
                }
                (Key::Object(Kind::Service, name), _) => self.reach_of_service(world, &name, None, &mut stale),
                (Key::Object(Kind::EndpointSlice, name), Some(Object::EndpointSlice(before))) => {
                    self.reach_of_slice(world, &name, Some(&before), &mut stale);
                }
                (Key::Object(Kind::EndpointSlice, name), _) => self.reach_of_slice(world, &name, None, &mut stale),
                (Key::Object(Kind::PeerAuthentication, name), _) => {
                    self.reach_of_peer_authentication(world, &name, &mut stale);
                }
                (Key::Object(Kind::Custom(kind), name), _) => {
                    grants |= kind == CustomKind::ReferenceGrant;
                    self.reach_of_custom(world, kind, &name, &mut stale);
                }
                (Key::Sandboxes(name), _) => self.reach_of_sandboxes(world, &name, &mut stale),
                (Key::Object(Kind::Secret, _), _) => stale.gateways = true,
                (Key::Object(Kind::ServiceAccount, name), before) => {
                    let before = before.map(|before| Arc::clone(&before.metadata().labels)).unwrap_or_default();
                    self.reach_of_account(world, &name, &before, &mut stale);
                }
                // Faults and sources are nothing to translate.
                (Key::Faults(_) | Key::Sources, _) => {}
            }
        }
        if grants {
            self.reach_of_grants(world, &mut stale);
        }
        stale
    }

    /// The ports that it holds for and the hosts that it describes, which are found by its words; for grants see below.
    fn reach_of_custom(&mut self, world: &World, kind: CustomKind, name: &Name, stale: &mut Stale) {
        let object = world.custom(kind, name).map(|object| &**object);
        let is_route = matches!(kind, CustomKind::HttpRoute | CustomKind::GrpcRoute | CustomKind::VirtualService);
        let reference = is_route.then(|| ObjectRef::new(kind.full_name(), name.clone()));
        let before = reference.as_ref().and_then(|reference| self.customs.routes.get(reference).cloned());
        let learnt = self.customs.learn(kind, name, object, &self.settings);
        let is_other = !learnt.others.is_empty();
        self.issues.set(Unit::Object(Kind::Custom(kind), name.clone()), learnt.issues);
        for (object, contradiction) in learnt.contradictions {
            self.issues.set(Unit::Stored(object), contradiction.into_iter().collect());
        }
        match kind {
            CustomKind::HttpRoute | CustomKind::GrpcRoute | CustomKind::VirtualService => {
                if let Some(reference) = reference.filter(|_| is_other) {
                    stale.routes.entry(reference).or_insert(before);
                }
            }
            CustomKind::DestinationRule | CustomKind::ServiceEntry | CustomKind::WorkloadEntry => {
                stale.routing |= is_other;
            }
            CustomKind::ReferenceGrant | CustomKind::Gateway | CustomKind::GatewayClass | CustomKind::IstioGateway => {
                stale.gateways |= is_other
            }
            CustomKind::Sidecar => {}
            CustomKind::NetworkPolicy
            | CustomKind::ClusterNetworkPolicy
            | CustomKind::AuthorizationPolicy
            | CustomKind::RequestAuthentication => stale.policies.extend(learnt.others),
            CustomKind::Calico(kind, _) => match kind.family() {
                CalicoFamily::Policy => stale.policies.extend(learnt.others),
                CalicoFamily::Tier => stale.tiers |= is_other,
                CalicoFamily::Set => stale.address_sets |= is_other,
            },
        }
    }

    /// Every route that may send to another namespace: those of the Gateway API.
    fn reach_of_grants(&mut self, world: &World, stale: &mut Stale) {
        for kind in [CustomKind::HttpRoute, CustomKind::GrpcRoute] {
            let names: Vec<Name> = world.customs(kind).map(|(name, _)| name.clone()).collect();
            names.iter().for_each(|name| self.reach_of_custom(world, kind, name, stale));
        }
    }

    /// Its pods, if its labels are others: policies select by them.
    fn reach_of_account(&self, world: &World, name: &Name, before: &Labels, stale: &mut Stale) {
        let now = world.service_accounts().get(name).map(|now| Arc::clone(&now.metadata.labels)).unwrap_or_default();
        if *before != *now {
            stale.workloads.extend(world.pods_in(&name.namespace).cloned());
        }
    }

    /// Its pods and sets of addresses, if it says something else of them, and gateways, to which its routes may attach.
    fn reach_of_namespace(&mut self, world: &World, name: &Name, before: Option<&Namespace>, stale: &mut Stale) {
        let now = world.namespaces().get(name);
        let issues = now.map_or_else(Vec::new, |now| pod::namespace_issues(name, now));
        self.issues.set(Unit::Object(Kind::Namespace, name.clone()), issues);
        // Its labels may say whether its routes attach, whether its pods are in the mesh, and which policies select them.
        if before.map(|before| &before.metadata.labels) != now.map(|now| &now.metadata.labels) {
            stale.gateways = true;
            stale.address_sets = true;
            stale.workloads.extend(world.pods_in(&name.name).cloned());
        }
    }

    /// Itself, and pods that claim addresses which it claims now or claimed before.
    fn reach_of_pod(&mut self, world: &World, name: &Name, before: Option<&Pod>, stale: &mut Stale) {
        stale.workloads.insert(name.clone());
        let claimed = before.map_or_else(Vec::new, |pod| pod::claims(pod, self.around(world, name)));
        let sandboxes = world
            .attachments()
            .filter(|attachment| *attachment.pod_namespace == *name.namespace && *attachment.pod_name == *name.name);
        let sandboxes: Vec<_> = sandboxes.cloned().collect();
        if sandboxes.is_empty() {
            self.sandboxes.remove(name);
        } else {
            self.sandboxes.insert(name.clone(), sandboxes);
        }
        let now = world.pod(name);
        let claims = now.as_ref().map_or_else(Vec::new, |pod| pod::claims(pod, self.around(world, name)));
        let was_shared = before.is_some_and(|pod| pod.spec.host_network);
        if claimed == claims && was_shared == now.is_some_and(|pod| pod.spec.host_network) {
            return;
        }
        claimed.iter().for_each(|address| self.pods.withdraw(address, name));
        claims.iter().for_each(|address| self.pods.add(address, name.clone()));
        for address in claimed.into_iter().chain(claims) {
            stale.workloads.extend(self.pods.claimants(&address).cloned());
            stale.pod_addresses.insert(address);
        }
    }

    /// The pod, as if it had changed.
    fn reach_of_sandboxes(&mut self, world: &World, pod: &Name, stale: &mut Stale) {
        stale.sandboxes = true;
        self.reach_of_pod(world, pod, world.pod(pod).as_ref(), stale);
    }

    /// Itself, and services that claim addresses which it claims now or claimed before.
    fn reach_of_service(&mut self, world: &World, name: &Name, before: Option<&Service>, stale: &mut Stale) {
        stale.services.insert(name.clone());
        let of = |object: &Service| (service::seniority(name, object), service::claims(name, object));
        let (before, now) = (before.map(of), world.service(name).as_ref().map(of));
        if before == now {
            return;
        }
        for (seniority, addresses) in before.iter() {
            addresses.iter().for_each(|address| self.services.withdraw(address, seniority));
        }
        for (seniority, addresses) in now.iter() {
            addresses.iter().for_each(|address| self.services.add(address, seniority.clone()));
        }
        for address in before.into_iter().chain(now).flat_map(|(_, addresses)| addresses) {
            stale.services.extend(self.services.claimants(&address).map(|(_, name)| name.clone()));
            stale.service_addresses.insert(address);
        }
    }

    /// The service that it belongs to, and the one that it belonged to.
    fn reach_of_slice(&mut self, world: &World, name: &Name, before: Option<&EndpointSlice>, stale: &mut Stale) {
        self.issues.set(Unit::Object(Kind::EndpointSlice, name.clone()), Vec::new());
        if let Some(service) = before.and_then(|slice| service::service_of(name, slice)) {
            self.slices.remove(&(service.clone(), name.clone()));
            stale.services.insert(service);
        }
        let now = world.endpoint_slice(name);
        if let Some(service) = now.and_then(|slice| service::service_of(name, &slice)) {
            self.slices.insert((service.clone(), name.clone()));
            stale.services.insert(service);
        }
    }

    /// The pods of its namespace; all, if it is the root namespace.
    fn reach_of_peer_authentication(&mut self, world: &World, name: &Name, stale: &mut Stale) {
        let mut issues = Vec::new();
        let root = &self.settings.root_namespace;
        let object = world.peer_authentications().get(name);
        let now = object.and_then(|object| istio::peer_authentication(name, object, root, &mut issues));
        self.issues.set(Unit::Object(Kind::PeerAuthentication, name.clone()), issues);
        let before = self.policies.remove(name);
        if before.as_deref() == now.as_ref() {
            self.policies.extend(before.map(|before| (name.clone(), before)));
            return;
        }
        self.policies.extend(now.map(|now| (name.clone(), Arc::new(now))));
        self.forget_overruled(name);
        let rivals: Vec<&PeerAuthentication> = self.policies_in(&name.namespace).collect();
        let issues = istio::overruled_in_scope(rivals);
        self.issues.set(Unit::Scope(name.namespace.clone()), issues);
        if *name.namespace == *self.settings.root_namespace {
            stale.workloads.extend(world.pod_names().cloned());
        } else {
            stale.workloads.extend(world.pods_in(&name.namespace).cloned());
        }
    }

    /// Forgets for which pods a policy is overruled: they are looked at again.
    fn forget_overruled(&mut self, policy: &Name) {
        let from = self.overruled.range((policy.clone(), Name::new("", ""))..);
        let keys: Vec<_> = from.map(|(key, _)| key.clone()).take_while(|(of, _)| of == policy).collect();
        keys.iter().for_each(|key| {
            self.overruled.remove(key);
        });
        self.tell_overruled(policy.clone());
    }
}

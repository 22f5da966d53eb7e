//! What objects of custom kinds mean.
//!
//! In:  an object of such a kind, or that it is gone.
//! Out: [`Customs`]: routes, traffic policies, hosts, gateways and policies in the mesh's own words.
//! Invariant: each is the reading of its object alone, but for routes, which are read in the light of all grants, and for objects of
//! Calico's that are stored more than once.

use super::calico::{self, Meaning, Stored};
use super::gateway::Grants;
use super::kube::network_policy;
use super::read::Log;
use super::{Settings, cluster_network_policy, gateway, istio};
use crate::api::custom::{CalicoFamily, CalicoKind, CalicoStore, Custom, CustomKind};
use crate::model::http::{HttpRoute, TrafficPolicies};
use crate::model::policy::{AddressSet, Policy, Tier, TierKey};
use crate::model::{ExternalService, Gateway, Issue, Name, ObjectRef, WorkloadEntry};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Routes, traffic policies, hosts, gateways and policies.
#[derive(Clone, Debug, Default)]
pub struct Customs {
    /// Every object that routes HTTP.
    pub routes: BTreeMap<ObjectRef, Arc<HttpRoute>>,
    /// Every object that says how connections to a host are made.
    pub traffic_policies: BTreeMap<Name, Arc<TrafficPolicies>>,
    /// Every object that describes hosts which are no services of the cluster.
    pub external_services: BTreeMap<Name, Arc<ExternalService>>,
    /// Every workload that is no pod.
    pub workload_entries: BTreeMap<Name, Arc<WorkloadEntry>>,
    /// Every gateway.
    pub gateways: BTreeMap<ObjectRef, Arc<Gateway>>,
    /// Every tier of policies that an object describes.
    pub tiers: BTreeMap<TierKey, Arc<Tier>>,
    /// Every policy.
    pub policies: BTreeMap<ObjectRef, Arc<Policy>>,
    /// Every set of addresses that selectors of peers may select.
    pub address_sets: BTreeMap<ObjectRef, Arc<AddressSet>>,
    /// Of each class of gateways the name of its controller.
    pub classes: BTreeMap<Name, Arc<String>>,
    grants: Grants,
    stored: Stored,
}

/// What came of an object.
#[derive(Default)]
pub(super) struct Learnt {
    /// What is wrong with it.
    pub(super) issues: Vec<Issue>,
    /// What means anything else than before, by the name that its user gave it.
    pub(super) others: Vec<ObjectRef>,
    /// Whether objects that are stored more than once contradict themselves.
    pub(super) contradictions: Vec<(ObjectRef, Option<Issue>)>,
}

impl Customs {
    /// The object of Calico's is this, or gone.
    fn learn_calico(&mut self, kind: CalicoKind, store: CalicoStore, name: &Name, object: Option<&Custom>) -> Learnt {
        let (form, issues) = object.map(|object| calico::form(kind, store, object)).unzip();
        let mut learnt = Learnt { issues: issues.unwrap_or_default(), ..Learnt::default() };
        for object in self.stored.set((kind, store, name), form) {
            learnt.contradictions.push((object.clone(), self.stored.contradiction(&object)));
            if self.put_calico(kind, object.clone()) {
                learnt.others.push(object);
            }
        }
        learnt
    }

    /// Makes the form of an object that counts the one that holds. Returns whether that is another than before.
    fn put_calico(&mut self, kind: CalicoKind, object: ObjectRef) -> bool {
        let meaning = self.stored.meaning(&object).cloned();
        match kind.family() {
            CalicoFamily::Tier => {
                let tier = meaning.and_then(Meaning::into_tier);
                put(&mut self.tiers, TierKey::network(&*object.name.name), tier)
            }
            CalicoFamily::Set => put(&mut self.address_sets, object, meaning.and_then(Meaning::into_set)),
            CalicoFamily::Policy => put(&mut self.policies, object, meaning.and_then(Meaning::into_policy)),
        }
    }

    /// The object is this, or gone.
    pub(super) fn learn(
        &mut self,
        kind: CustomKind,
        name: &Name,
        object: Option<&Custom>,
        settings: &Settings,
    ) -> Learnt {
        let log = Log::new(ObjectRef::new(kind.full_name(), name.clone()));
        let domain = &settings.cluster_domain;
        let reference = || log.object().clone();
        let is_other = match kind {
            CustomKind::HttpRoute | CustomKind::GrpcRoute => {
                let route = object.map(|object| gateway::route(&log, kind, object, &self.grants));
                put(&mut self.routes, reference(), route)
            }
            CustomKind::VirtualService => {
                put(&mut self.routes, reference(), object.map(|object| istio::route(&log, object, domain)))
            }
            CustomKind::DestinationRule => {
                let policies = object.map(|object| istio::policies(&log, object, domain));
                put(&mut self.traffic_policies, name.clone(), policies)
            }
            CustomKind::ServiceEntry => {
                put(&mut self.external_services, name.clone(), object.map(|object| istio::service(&log, object)))
            }
            CustomKind::WorkloadEntry => {
                put(&mut self.workload_entries, name.clone(), object.map(|object| istio::workload(&log, object)))
            }
            CustomKind::Gateway => {
                put(&mut self.gateways, reference(), object.map(|object| gateway::gateway(&log, object)))
            }
            CustomKind::IstioGateway => {
                put(&mut self.gateways, reference(), object.map(|object| istio::gateway(&log, object)))
            }
            CustomKind::ReferenceGrant => {
                self.grants.set(name, object.map(|object| gateway::grant(&log, object)));
                true
            }
            CustomKind::GatewayClass => {
                let controller = object.map(|object| gateway::class(&log, object));
                put(&mut self.classes, name.clone(), controller)
            }
            CustomKind::AuthorizationPolicy => {
                let root = &settings.root_namespace;
                put(&mut self.policies, reference(), object.map(|object| istio::policy(&log, object, root)))
            }
            CustomKind::RequestAuthentication => {
                let root = &settings.root_namespace;
                put(
                    &mut self.policies,
                    reference(),
                    object.and_then(|object| istio::request_authentication(&log, object, root)),
                )
            }
            CustomKind::Sidecar => {
                object.into_iter().for_each(|object| istio::sidecar(&log, object));
                false
            }
            CustomKind::NetworkPolicy => {
                put(&mut self.policies, reference(), object.map(|object| network_policy::policy(&log, object)))
            }
            CustomKind::ClusterNetworkPolicy => {
                let policy = object.map(|object| cluster_network_policy::policy(&log, object));
                put(&mut self.policies, reference(), policy)
            }
            CustomKind::Calico(kind, store) => return self.learn_calico(kind, store, name, object),
        };
        let others = is_other.then(reference).into_iter().collect();
        Learnt { issues: log.into_issues(), others, ..Learnt::default() }
    }

    /// May a gateway of this namespace show the certificate in a Secret?
    #[must_use]
    pub fn may_show(&self, namespace: &str, secret: &Name) -> bool {
        *secret.namespace == *namespace || self.grants.allow_certificate(namespace, secret)
    }
}

/// Returns whether this differs from what was there.
fn put<K: Ord, T: ?Sized + PartialEq, V: Into<Arc<T>>>(
    known: &mut BTreeMap<K, Arc<T>>,
    key: K,
    value: Option<V>,
) -> bool {
    let value = value.map(Into::into);
    if known.get(&key) == value.as_ref() {
        return false;
    }
    known.remove(&key);
    known.extend(value.map(|value| (key, value)));
    true
}

//! What policies say of the pods of this node, kept up to date.
//!
//! In:  what may be another now, of the translator; the subjects of the directory; the pods of this node.
//! Out: [`PodPolicies`] for each pod, and what holds for what enters; what is wrong.
//! Invariant: a policy that selects no pod of this node costs a look at its scope and nothing else.
//! Invariant: what changes makes anew the policies that look it up and the chains that have them, and nothing else.
//! Invariant: a policy that changes touches nothing of the directory: a subject does not know who selects it.

mod chains;
mod groups;
mod rules;
mod services;
mod subject;

pub(super) use subject::{Asked, Population, known as subject};

use super::directory::Builder;
use super::{Settings, edge};
use crate::model::policy::{Chain, Order, Policy, PolicyScope, Stage};
use crate::model::{Issue, Key, Name, ObjectRef, Selector, Subject, Workload};
use crate::policy::Chains;
use crate::snapshot::edge::Entrance;
use crate::snapshot::{LocalPod, PodKey, PodPolicies};
use crate::translate::{Stale, Translator, Unit};
use crate::world::{CustomKind, World};
use chains::Tiers;
use groups::Groups;
use rules::{Known, Mentions, Ready};
use services::Services;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every policy, and what follows for this node's pods.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    tiers: Tiers,
    policies: BTreeMap<ObjectRef, Entry>,
    /// Policies by the namespace that their scope names.
    by_namespace: BTreeMap<Option<Arc<str>>, BTreeSet<ObjectRef>>,
    /// Policies that others are tried in the place of, with those.
    replaced: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    services: Services,
    /// Labels of single pods that selectors ask for.
    asked: Asked,
    groups: Groups,
    /// The gateways that policies are about, by those.
    gateways: BTreeSet<(Name, ObjectRef)>,
    /// By what something may enter.
    entrances: BTreeSet<Entrance>,
    kinds: BTreeMap<Arc<Guarded>, State>,
    pods: BTreeMap<PodKey, Arc<Guarded>>,
    stale: Marks,
    published: Published,
}

/// What policies say.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    /// Of each pod of this node.
    pub(super) pods: Arc<BTreeMap<PodKey, PodPolicies>>,
    /// Of what enters.
    pub(super) entrances: Arc<BTreeMap<Entrance, Arc<Chains>>>,
}

/// The pods of this node.
pub(super) struct Here<'a> {
    pub(super) may_be_others: bool,
    pub(super) pods: &'a BTreeMap<PodKey, Arc<LocalPod>>,
    pub(super) workloads: &'a BTreeMap<Name, Arc<Workload>>,
    pub(super) settings: &'a Settings,
}

/// What is to be made anew.
#[derive(Clone, Debug, Default)]
struct Marks {
    /// Policies of which it is not known whom they select.
    unplaced: BTreeSet<ObjectRef>,
    /// Policies whose rules are to be made.
    policies: BTreeSet<ObjectRef>,
    /// Pods whose chains are to be made.
    kinds: BTreeSet<Arc<Guarded>>,
    /// Policies of which it may be another what is wrong.
    told: BTreeSet<ObjectRef>,
}

/// A policy.
#[derive(Clone, Debug)]
struct Entry {
    policy: Arc<Policy>,
    rank: Arc<Rank>,
    mentions: Mentions,
    /// The selectors by which it asks now.
    asks: BTreeSet<Selector>,
    ready: Option<Arc<Ready>>,
    selecting: BTreeSet<Arc<Guarded>>,
}

/// When a policy is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    tier: (Chain, Order, Arc<str>),
    order: Order,
    /// Name, namespace and kind as one text, as Calico compares them: so `a-b` and `a.b` come before `a`.
    key: String,
}

/// Those for which policies say the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guarded {
    /// Pods of this node.
    Pods {
        /// With all labels.
        subject: Subject,
        /// The services that policies are about and that they are behind.
        services: BTreeSet<Name>,
    },
    /// What enters.
    Edge {
        /// By what.
        entrance: Entrance,
        /// The edge, as policies select it.
        subject: Subject,
    },
}

/// What holds for pods of one kind.
#[derive(Clone, Debug, Default)]
struct State {
    selected: BTreeMap<Arc<Rank>, Arc<Ready>>,
    policies: PodPolicies,
}

impl Live {
    /// Brings the indexes up to date. Returns whether every workload's subject is to be made anew, for selectors ask for other labels.
    pub(super) fn learn(&mut self, translator: &Translator, stale: &Stale) -> bool {
        let before = self.asked.keys();
        let customs = &translator.customs;
        if stale.tiers {
            let before = std::mem::replace(&mut self.tiers, Tiers::new(&customs.tiers));
            let is_other = |entry: &Entry| before.known(&entry.policy.tier) != self.tiers.known(&entry.policy.tier);
            let others = self.policies.iter().filter(|(object, _)| !stale.policies.contains(*object));
            let others: Vec<_> =
                others.filter(|(_, entry)| is_other(entry)).map(|(object, _)| object.clone()).collect();
            others.iter().for_each(|object| self.put(object, customs.policies.get(object)));
        }
        stale.policies.iter().for_each(|object| self.put(object, customs.policies.get(object)));
        self.asked.keys() != before
    }

    /// The policy is this, or there is none.
    fn put(&mut self, object: &ObjectRef, policy: Option<&Arc<Policy>>) {
        let before = self.policies.remove(object);
        for entry in before.iter() {
            let namespace = namespace(&entry.policy.scope);
            let others = self.by_namespace.entry(namespace.clone()).or_default();
            others.remove(object);
            if others.is_empty() {
                self.by_namespace.remove(&namespace);
            }
            self.index(object, entry, false);
            for kind in &entry.selecting {
                if let Some(state) = self.kinds.get_mut(kind) {
                    state.selected.remove(&entry.rank);
                }
            }
            self.stale.kinds.extend(entry.selecting.iter().cloned());
        }
        let asks = before.map(|entry| entry.asks).unwrap_or_default();
        self.stale.told.insert(object.clone());
        let Some(policy) = policy else {
            self.groups.ask(object, &asks, &BTreeSet::new());
            return;
        };
        let rank = Rank {
            tier: (policy.tier.chain, self.tiers.order(&policy.tier), Arc::clone(&policy.tier.name)),
            order: policy.order,
            key: format!("{}/{}/{}", object.name.name, object.name.namespace, object.kind),
        };
        let entry = Entry {
            policy: Arc::clone(policy),
            rank: Arc::new(rank),
            mentions: Mentions::of(policy),
            asks,
            ready: None,
            selecting: BTreeSet::new(),
        };
        self.by_namespace.entry(namespace(&policy.scope)).or_default().insert(object.clone());
        self.index(object, &entry, true);
        self.policies.insert(object.clone(), entry);
        self.stale.unplaced.insert(object.clone());
        self.stale.policies.insert(object.clone());
    }

    /// Notes what a policy looks up, or that it no longer does.
    fn index(&mut self, object: &ObjectRef, entry: &Entry, is_there: bool) {
        self.asked.note(&entry.mentions.selectors, is_there);
        self.services.note(object, &entry.policy.scope, &entry.mentions.services, is_there);
        for name in entry.policy.scope.gateways() {
            let about = (name.clone(), object.clone());
            if is_there {
                self.gateways.insert(about)
            } else {
                self.gateways.remove(&about)
            };
        }
        let Stage::DryRun { replaces: Some(replaced) } = &entry.policy.stage else { return };
        let by = self.replaced.entry(replaced.clone()).or_default();
        if is_there {
            by.insert(object.clone());
        } else {
            by.remove(object);
        }
        if by.is_empty() {
            self.replaced.remove(replaced);
        }
        let selecting = self.policies.get(replaced).map(|entry| entry.selecting.clone());
        self.stale.kinds.extend(selecting.unwrap_or_default());
    }

    /// Which labels of a workload belong to its subject?
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Makes what must be. `here` are the pods of this node.
    pub(super) fn compile(
        &mut self,
        (world, stale): (&World, &Stale),
        (translator, directory): (&mut Translator, &mut Builder),
        here: Here<'_>,
    ) {
        let changed = self.services.refresh(world, translator, &stale.services);
        self.stale.told.extend(changed.told);
        self.stale.policies.extend(changed.mentioning);
        let are_other_entrances = stale.gateways && self.see_gateways(translator);
        let pods_changed = here.may_be_others || changed.scopes || are_other_entrances;
        if pods_changed {
            self.set_pods(world, &here);
        }
        self.place();
        let askers = self.groups.change(directory.population().take_changes());
        self.stale.policies.extend(askers);
        if stale.address_sets {
            let askers = self.groups.set_addresses(translator.customs.address_sets.values(), world);
            self.stale.policies.extend(askers);
        }
        self.make_policies();
        let is_other = self.make_chains();
        if pods_changed || is_other {
            self.publish();
        }
        for object in std::mem::take(&mut self.stale.told) {
            let policy = self.policies.get(&object).map(|entry| &entry.policy);
            let issues = policy.map(|policy| self.issues((world, translator), here.settings, policy));
            translator.issues.set(Unit::Policy(object), issues.unwrap_or_default());
        }
    }

    /// Notes by what something may enter. Returns whether that is another now.
    fn see_gateways(&mut self, translator: &Translator) -> bool {
        let now = translator.customs.gateways.values().map(|gateway| edge::entrance(gateway)).collect();
        let before = std::mem::replace(&mut self.entrances, now);
        self.stale.told.extend(self.gateways.iter().map(|(_, object)| object.clone()));
        if before.is_empty() != self.entrances.is_empty() {
            self.stale.told.extend(self.policies.keys().cloned());
        }
        before != self.entrances
    }

    /// The pods of this node are these.
    fn set_pods(&mut self, world: &World, here: &Here<'_>) {
        let mut now: BTreeMap<PodKey, Arc<Guarded>> = BTreeMap::new();
        let mut kinds: BTreeMap<Arc<Guarded>, State> = BTreeMap::new();
        let before = std::mem::take(&mut self.kinds);
        let mut there = |live: &mut Self, kind: Guarded| {
            let kind = Arc::new(kind);
            let known = before.get_key_value(&kind).or_else(|| kinds.get_key_value(&kind));
            let (kind, state) = match known {
                Some((kind, state)) => (Arc::clone(kind), state.clone()),
                None => {
                    live.stale.kinds.insert(Arc::clone(&kind));
                    live.select(&kind);
                    (kind, State::default())
                }
            };
            kinds.entry(Arc::clone(&kind)).or_insert(state);
            kind
        };
        for (key, pod) in here.pods {
            let Some(workload) = here.workloads.get(&pod.name) else { continue };
            let subject = subject::whole(world, workload);
            let services = self.services.behind(&subject, &workload.addresses);
            now.insert(Arc::clone(key), there(self, Guarded::Pods { subject, services }));
        }
        for entrance in self.entrances.clone() {
            there(self, Guarded::Edge { entrance, subject: edge::subject(here.settings) });
        }
        for (kind, state) in before.iter().filter(|(kind, _)| !kinds.contains_key(*kind)) {
            for ready in state.selected.values() {
                if let Some(entry) = self.policies.get_mut(&ready.object) {
                    entry.selecting.remove(kind);
                    self.stale.policies.insert(ready.object.clone());
                }
            }
            self.stale.kinds.remove(kind);
        }
        (self.kinds, self.pods) = (kinds, now);
    }

    /// Finds the policies that select pods of a kind which is new.
    fn select(&mut self, kind: &Arc<Guarded>) {
        let Self { policies, by_namespace, stale, .. } = self;
        let (own, of_gateway) = match &**kind {
            Guarded::Pods { subject, .. } | Guarded::Edge { subject, entrance: Entrance::Istio } => {
                (&subject.namespace, None)
            }
            Guarded::Edge { subject, entrance: Entrance::Gateway(name) } => {
                (&subject.namespace, Some(Arc::from(name.namespace.as_str())))
            }
        };
        for namespace in [None, own.clone(), of_gateway].iter().collect::<BTreeSet<_>>() {
            for object in by_namespace.get(namespace).into_iter().flatten() {
                let Some(entry) = policies.get_mut(object).filter(|entry| kind.is_of(&entry.policy)) else { continue };
                entry.selecting.insert(Arc::clone(kind));
                stale.policies.insert(object.clone());
            }
        }
    }

    /// Finds whom policies select that are new.
    fn place(&mut self) {
        for object in std::mem::take(&mut self.stale.unplaced) {
            let Some(entry) = self.policies.get_mut(&object) else { continue };
            let selected = self.kinds.keys().filter(|kind| kind.is_of(&entry.policy));
            entry.selecting = selected.cloned().collect();
        }
    }

    /// Makes the rules of policies, and hands them to whom they select.
    fn make_policies(&mut self) {
        let nothing = BTreeSet::new();
        for object in std::mem::take(&mut self.stale.policies) {
            let Some(entry) = self.policies.get_mut(&object) else { continue };
            let asks = if entry.selecting.is_empty() { &nothing } else { &entry.mentions.selectors };
            if entry.asks != *asks {
                self.groups.ask(&object, &entry.asks, asks);
                entry.asks.clone_from(asks);
            }
            if entry.selecting.is_empty() {
                continue;
            }
            let ready = Ready::of(&entry.policy, &Known { groups: &self.groups, services: &self.services });
            let known = entry.ready.take().filter(|known| **known == ready);
            let ready = known.unwrap_or_else(|| Arc::new(ready));
            entry.ready = Some(Arc::clone(&ready));
            for kind in &entry.selecting {
                let Some(state) = self.kinds.get_mut(kind) else { continue };
                if state.selected.get(&entry.rank).is_none_or(|known| *known != ready) {
                    state.selected.insert(Arc::clone(&entry.rank), Arc::clone(&ready));
                    self.stale.kinds.insert(Arc::clone(kind));
                }
            }
        }
    }

    /// Makes the chains of pods. Returns whether any are others.
    fn make_chains(&mut self) -> bool {
        let mut is_other = false;
        for kind in std::mem::take(&mut self.stale.kinds) {
            let Some(state) = self.kinds.get(&kind) else { continue };
            let policies = state.selected.values();
            let withdrawn = policies.clone().map(|ready| &ready.object);
            let withdrawn = withdrawn.filter(|object| self.replaced.contains_key(object)).collect();
            let [inbound, outbound] = chains::chains(policies, &withdrawn, &self.tiers).map(|chains| {
                let all = self.kinds.values().flat_map(|state| [&state.policies.inbound, &state.policies.outbound]);
                let known = all.into_iter().find(|known| ***known == chains).cloned();
                known.unwrap_or_else(|| Arc::new(chains))
            });
            let policies = PodPolicies { inbound, outbound };
            if let Some(state) = self.kinds.get_mut(&kind).filter(|state| state.policies != policies) {
                state.policies = policies;
                is_other = true;
            }
        }
        is_other
    }

    fn publish(&mut self) {
        let of = |kind| self.kinds.get(kind).map(|state| state.policies.clone());
        let policies = self.pods.iter().filter_map(|(key, kind)| Some((Arc::clone(key), of(kind)?)));
        let policies: BTreeMap<_, _> = policies.collect();
        if policies != *self.published.pods {
            self.published.pods = Arc::new(policies);
        }
        let entrances = self.kinds.iter().filter_map(|(kind, state)| match &**kind {
            Guarded::Edge { entrance, .. } => Some((entrance.clone(), Arc::clone(&state.policies.inbound))),
            Guarded::Pods { .. } => None,
        });
        let entrances: BTreeMap<_, _> = entrances.collect();
        if entrances != *self.published.entrances {
            self.published.entrances = Arc::new(entrances);
        }
    }

    /// What policies say.
    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// What a policy refers to that is not there.
    fn issues(&self, (world, translator): (&World, &Translator), settings: &Settings, policy: &Policy) -> Vec<Issue> {
        let mut issues = Vec::new();
        let mut report = |field: &str, problem: String, cure: &str| {
            issues.push(Issue::new(&policy.object, field, problem, cure).because(crate::model::Reason::NotFound));
        };
        if self.tiers.known(&policy.tier).is_none() {
            let problem = format!(
                "there is no tier {}; it is asked last, and what none of it allows is denied",
                policy.tier.name
            );
            report("spec.tier", problem, "create the tier, or name another one");
        }
        for name in policy.scope.services().iter().filter(|name| world.service(name).is_none()) {
            let problem = format!("there is no Service {name}; the policy holds for nobody there");
            report("spec.targetRefs", problem, "create the service, or correct its name");
        }
        let is_gateway = |name: &Name| {
            translator.customs.gateways.contains_key(&ObjectRef::new(CustomKind::Gateway.full_name(), name.clone()))
        };
        for name in policy.scope.gateways().iter().filter(|name| !is_gateway(name)) {
            let problem = format!("there is no Gateway {name}; the policy holds for nothing there");
            report("spec.targetRefs", problem, "create the gateway, or correct its name");
        }
        if !self.entrances.is_empty() && is_about_an_edge_elsewhere(policy, settings) {
            let problem = format!(
                "gateways are served by the pods of namespace {}: it holds for nothing that enters",
                settings.edge.namespace
            );
            let cure = format!("move it there, or to {}", settings.root_namespace);
            report("spec.selector", problem, &cure);
        }
        issues
    }
}

impl Guarded {
    /// Is a policy about them? To those of the network the edge is a program of its node, and no pod.
    fn is_of(&self, policy: &Policy) -> bool {
        match (self, &policy.scope) {
            (Self::Pods { subject, .. }, PolicyScope::Selected(selector)) => selector.matches(subject),
            (Self::Pods { services: own, .. }, PolicyScope::Targets { services, .. }) => !own.is_disjoint(services),
            (Self::Edge { subject, entrance }, PolicyScope::Selected(selector)) => {
                let selects = |gateway: &Name| selector.matches(&edge::pods_of(gateway));
                let has_pods = matches!(entrance, Entrance::Gateway(gateway) if selects(gateway));
                policy.tier.chain == Chain::Mesh && (has_pods || selector.matches(subject))
            }
            (Self::Edge { entrance: Entrance::Gateway(name), .. }, PolicyScope::Targets { gateways, .. }) => {
                gateways.contains(name)
            }
            (Self::Edge { entrance: Entrance::Istio, .. }, PolicyScope::Targets { .. }) => false,
        }
    }
}

/// Does a policy select the labels of the edge in a namespace in which it is not?
fn is_about_an_edge_elsewhere(policy: &Policy, settings: &Settings) -> bool {
    let PolicyScope::Selected(selector) = &policy.scope else { return false };
    let Some(namespace) = selector.namespace().filter(|namespace| **namespace != settings.edge.namespace) else {
        return false;
    };
    let there = Subject { namespace: Some(Arc::clone(namespace)), ..edge::subject(settings) };
    let mut asks = false;
    selector.each_key(&mut |key| asks |= matches!(key, Key::Label(_)));
    policy.tier.chain == Chain::Mesh && asks && selector.matches(&there)
}

/// The namespace that all whom a policy selects are in, where it says so plainly.
fn namespace(scope: &PolicyScope) -> Option<Arc<str>> {
    match scope {
        PolicyScope::Selected(selector) => selector.namespace().cloned(),
        PolicyScope::Targets { .. } => None,
    }
}

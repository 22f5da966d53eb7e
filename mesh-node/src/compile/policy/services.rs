//! The services that policies speak of.
//!
//! In:  which policies speak of which; services as they change.
//! Out: who is behind them, and where their endpoints are.
//! Invariant: whom a service selects is behind it from its first moment, ready or not.

use crate::model::policy::PolicyScope;
use crate::model::{Labels, Name, ObjectRef, Selector, Service, Subject};
use crate::translate::Translator;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The services that policies speak of.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    /// By the policies that are about the pods behind them.
    scopes: BTreeSet<(Name, ObjectRef)>,
    /// By the policies whose rules mention them.
    mentions: BTreeSet<(Name, ObjectRef)>,
    /// Those of which somebody speaks or no longer does since they were looked at.
    noted: BTreeSet<Name>,
    known: BTreeMap<Name, Seen>,
}

/// A service as it was last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Is a policy about the pods behind it?
    is_scope: bool,
    is_there: bool,
    /// Whom it selects; `None` if it leaves that to its endpoints.
    selector: Option<Selector>,
    endpoints: Arc<[SocketAddr]>,
}

/// What services that are others make stale.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Policies that say in whose place something is.
    pub(super) told: BTreeSet<ObjectRef>,
    /// Policies whose rules mention them.
    pub(super) mentioning: BTreeSet<ObjectRef>,
    /// May other pods be behind a service that a policy is about?
    pub(super) scopes: bool,
}

impl Services {
    /// `object` speaks of these, or no longer does.
    pub(super) fn note(&mut self, object: &ObjectRef, scope: &PolicyScope, mentions: &BTreeSet<Name>, is_there: bool) {
        for (names, all) in [(scope.services(), &mut self.scopes), (mentions, &mut self.mentions)] {
            for name in names {
                self.noted.insert(name.clone());
                let entry = (name.clone(), object.clone());
                if is_there {
                    all.insert(entry)
                } else {
                    all.remove(&entry)
                };
            }
        }
    }

    /// Looks at those that are stale and at those that were noted; forgets those of which nobody speaks any more.
    pub(super) fn refresh(&mut self, world: &World, translator: &Translator, stale: &BTreeSet<Name>) -> Changed {
        let mut changed = Changed::default();
        let noted = std::mem::take(&mut self.noted);
        for name in noted.union(stale) {
            let [is_scope, is_mentioned] = [&self.scopes, &self.mentions].map(|all| of(all, name).next().is_some());
            let before = self.known.get(name);
            let was_scope = before.is_some_and(|before| before.is_scope);
            if !is_scope && !is_mentioned {
                changed.scopes |= was_scope;
                self.known.remove(name);
                continue;
            }
            if before.is_some() && was_scope == is_scope && !stale.contains(name) {
                continue;
            }
            let now = Seen { is_scope, ..known(world, translator, name) };
            if before == Some(&now) {
                continue;
            }
            changed.told.extend(of(&self.scopes, name).cloned());
            changed.mentioning.extend(of(&self.mentions, name).cloned());
            changed.scopes |= was_scope || is_scope;
            self.known.insert(name.clone(), now);
        }
        changed
    }

    /// The services that policies are about and that a pod is behind.
    pub(super) fn behind(&self, subject: &Subject, addresses: &[IpAddr]) -> BTreeSet<Name> {
        let mut scopes: Vec<&Name> = self.scopes.iter().map(|(name, _)| name).collect();
        scopes.dedup();
        let is_behind = |name: &&Name| {
            self.known.get(*name).is_some_and(|known| match &known.selector {
                Some(selector) => selector.matches(subject),
                None => known.endpoints.iter().any(|endpoint| addresses.contains(&endpoint.ip())),
            })
        };
        scopes.into_iter().filter(is_behind).cloned().collect()
    }

    /// The endpoints of a service that a policy mentions, in order.
    pub(super) fn endpoints(&self, name: &Name) -> Option<&Arc<[SocketAddr]>> {
        self.known.get(name).map(|known| &known.endpoints)
    }
}

fn of<'s>(all: &'s BTreeSet<(Name, ObjectRef)>, name: &Name) -> impl Iterator<Item = &'s ObjectRef> + use<'s> {
    let name = name.clone();
    let from = all.range((name.clone(), ObjectRef::new("", Name::new("", "")))..);
    from.take_while(move |(of, _)| *of == name).map(|(_, object)| object)
}

fn known(world: &World, translator: &Translator, name: &Name) -> Seen {
    let selector = world.service(name).map(|service| service.spec.selector);
    let service = translator.read_service(world, name).0;
    Seen {
        is_scope: false,
        is_there: selector.is_some(),
        selector: selector.filter(|labels| !labels.is_empty()).map(|labels| selecting(name, &labels)),
        endpoints: service.as_ref().map(endpoints).unwrap_or_default(),
    }
}

fn selecting(service: &Name, labels: &Labels) -> Selector {
    Selector::in_namespace(service.namespace.as_str().into()).and(Selector::labelled(labels))
}

fn endpoints(service: &Service) -> Arc<[SocketAddr]> {
    let all = service.ports.iter().flat_map(|port| &port.endpoints);
    let all: BTreeSet<_> = all.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port)).collect();
    all.into_iter().collect()
}

//! Which traffic policy holds for a client's connections to a host.
//!
//! In:  all traffic policies.
//! Out: the one that decides, and what it says of a port and a subset.
//! Invariant: those of the client's namespace come first, then those of the host's, then those of the root namespace;
//! in each the exact host before wildcards. Objects of one namespace for one host and the same clients are one: the
//! oldest says what several say, and subsets add up.
//! Source: Istio `DestinationRule`, "exportTo" and "Evaluation and merging"; `PortTrafficPolicy`, which inherits nothing.

use super::index::covering;
use crate::model::http::{TrafficPolicies, TrafficPolicy};
use crate::model::{Issue, Text, Visibility};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The policies of each namespace for one host.
type ByNamespace = BTreeMap<Text, Vec<Arc<TrafficPolicies>>>;

/// Every traffic policy, by host and namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    by_host: BTreeMap<Arc<str>, ByNamespace>,
    root: String,
    /// What was said twice.
    pub(super) issues: Vec<Issue>,
}

impl Policies {
    pub(super) fn new<'a>(all: impl IntoIterator<Item = &'a Arc<TrafficPolicies>>, root: &str) -> Self {
        let mut by_age: Vec<&Arc<TrafficPolicies>> = all.into_iter().collect();
        by_age.sort_by_key(|policies| (&policies.created, &policies.object));
        let mut found = Self { by_host: BTreeMap::new(), root: root.to_owned(), issues: Vec::new() };
        for policies in by_age.into_iter().filter(|policies| !policies.host.is_empty()) {
            let of_host = found.by_host.entry(Arc::clone(&policies.host)).or_default();
            let same = of_host.entry(policies.object.name.namespace.clone()).or_default();
            match same.iter_mut().find(|older| older.clients == policies.clients) {
                Some(older) => merge(Arc::make_mut(older), policies, &mut found.issues),
                None => same.push(Arc::clone(policies)),
            }
        }
        // Those for single namespaces say more than those for everyone.
        for same in found.by_host.values_mut().flat_map(BTreeMap::values_mut) {
            same.sort_by_key(|policies| policies.clients == Visibility::Everyone);
        }
        found
    }

    /// The hosts that policies speak of, wildcards included.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.by_host.keys().map(|host| &**host)
    }

    /// Does any policy speak of `host`?
    pub(super) fn speak_of(&self, host: &str) -> bool {
        !self.by_host.is_empty() && covering(host).any(|host| self.by_host.contains_key(&*host))
    }

    /// What holds for clients of `client` that connect to `host`, which is of the namespace `owner`.
    pub(super) fn find(&self, host: &str, owner: &str, client: &str) -> Option<&TrafficPolicies> {
        let namespaces = [client, owner, &*self.root];
        if self.by_host.is_empty() {
            return None;
        }
        namespaces.into_iter().find_map(|namespace| {
            covering(host).find_map(|host| {
                let same = self.by_host.get(&*host)?.get(namespace)?;
                same.iter().find(|policies| policies.clients.covers(client)).map(|policies| &**policies)
            })
        })
    }
}

fn merge(older: &mut TrafficPolicies, newer: &TrafficPolicies, issues: &mut Vec<Issue>) {
    let mut tell = |field: String| {
        let problem = format!("{} is older and says it too; this one has no effect", older.object);
        issues.push(Issue::new(&newer.object, field, problem, "keep one of them"));
    };
    let says_something =
        |policies: &TrafficPolicies| policies.all != TrafficPolicy::default() || !policies.ports.is_empty();
    let both = says_something(older) && says_something(newer);
    if both {
        tell("spec.trafficPolicy".to_owned());
    }
    for name in newer.subsets.keys().filter(|name| older.subsets.contains_key(*name)) {
        tell(format!("spec.subsets[{name}]"));
    }
    if !both && says_something(newer) {
        older.all.clone_from(&newer.all);
        older.ports.clone_from(&newer.ports);
    }
    for (name, subset) in &newer.subsets {
        older.subsets.entry(name.clone()).or_insert_with(|| subset.clone());
    }
    older.closed |= newer.closed;
}

/// What holds for a port, in a subset if one is named that exists.
pub(super) fn effective(policies: &TrafficPolicies, port: u16, subset: Option<&str>) -> TrafficPolicy {
    let of_host = policies.ports.get(&port).unwrap_or(&policies.all);
    let Some(subset) = subset.and_then(|name| policies.subsets.get(name)) else { return of_host.clone() };
    if let Some(policy) = subset.ports.get(&port) {
        return policy.clone();
    }
    let Some(own) = &subset.policy else { return of_host.clone() };
    TrafficPolicy {
        balance: own.balance.clone().or_else(|| of_host.balance.clone()),
        locality: own.locality.or(of_host.locality),
        limits: own.limits.or(of_host.limits),
        outliers: own.outliers.or(of_host.outliers),
        tls: own.tls.clone().or_else(|| of_host.tls.clone()),
    }
}

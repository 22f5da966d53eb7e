//! The policies that select a workload, as chains.
//!
//! In:  the policies in the order in which they are asked; the tiers.
//! Out: [`Chains`] for what arrives and for what leaves.
//! Invariant: a tier is in a chain if one of its policies speaks of that direction; one that nobody describes denies at its end, and
//! one of which it is not understood when it is asked denies everything.
//! Source: Calico's tiers, and its staged policies for what is on trial.

use super::rules::{Ready, merged};
use crate::model::ObjectRef;
use crate::model::policy::{Chain, End, Order, PortRange, Stage, Tier, TierKey};
use crate::policy::chain::{self, Both, Chains};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// When and how a tier is asked.
#[derive(Clone, Debug)]
pub(super) struct Tiers(BTreeMap<TierKey, Tier>);

impl Default for Tiers {
    fn default() -> Self {
        Self::new(&BTreeMap::new())
    }
}

impl Tiers {
    /// Those that are there anyhow, and these.
    pub(super) fn new(described: &BTreeMap<TierKey, Arc<Tier>>) -> Self {
        let described = described.iter().map(|(key, tier)| (key.clone(), (**tier).clone()));
        Self(Tier::of_network().into_iter().chain(described).chain(Tier::of_mesh()).collect())
    }

    pub(super) fn known(&self, key: &TierKey) -> Option<&Tier> {
        self.0.get(key)
    }

    pub(super) fn order(&self, key: &TierKey) -> Order {
        self.known(key).map_or(Order::LAST, |tier| tier.order.unwrap_or(Order::FIRST))
    }

    /// Is it understood when it is asked?
    fn is_placed(&self, key: &TierKey) -> bool {
        self.known(key).is_none_or(|tier| tier.order.is_some())
    }

    fn end(&self, key: &TierKey) -> End {
        self.known(key).filter(|tier| tier.order.is_some()).map_or(End::Deny, |tier| tier.end)
    }
}

/// The chains of policies in their order. `withdrawn` are those in whose place others are tried.
pub(super) fn chains<'p>(
    policies: impl Iterator<Item = &'p Arc<Ready>> + Clone,
    withdrawn: &BTreeSet<&ObjectRef>,
    tiers: &Tiers,
) -> [Chains; 2] {
    let is_enforced = |ready: &&Arc<Ready>| ready.stage == Stage::Enforced;
    let has_trial = !withdrawn.is_empty() || !policies.clone().all(|ready| is_enforced(&ready));
    [0, 1].map(|way| {
        let enforced = both(policies.clone().filter(is_enforced), way, tiers);
        let trial = has_trial.then(|| {
            let is_there = |ready: &&Arc<Ready>| !is_enforced(ready) || !withdrawn.contains(&ready.object);
            both(policies.clone().filter(is_there), way, tiers)
        });
        // Of what leaves nothing is read.
        let asking = policies.clone().filter(|_| way == 0);
        let ports =
            |read: fn(&Ready) -> &[PortRange]| merged(asking.clone().flat_map(|ready| read(ready)).cloned().collect());
        let (http, sni) = (ports(|ready| &ready.http), ports(|ready| &ready.sni));
        let trial = trial.filter(|trial| *trial != enforced).map(Box::new);
        Chains { enforced, trial, http, sni }
    })
}

fn both<'p>(policies: impl Iterator<Item = &'p Arc<Ready>>, way: usize, tiers: &Tiers) -> Both {
    let (mut network, mut mesh): (Vec<chain::Tier>, Vec<chain::Tier>) = Default::default();
    let mut open: Option<(&TierKey, Vec<Arc<chain::Policy>>)> = None;
    let mut close = |tier: Option<(&TierKey, Vec<Arc<chain::Policy>>)>| {
        let Some((key, policies)) = tier else { return };
        let tier = chain::Tier { key: key.clone(), end: tiers.end(key), policies: policies.into() };
        match key.chain {
            Chain::Network => network.push(tier),
            Chain::Mesh => mesh.push(tier),
        }
    };
    for ready in policies {
        let Some(policy) = &ready.ways[way] else { continue };
        let without_rules = || Arc::new(chain::Policy { rules: Box::default(), ..chain::Policy::clone(policy) });
        let policy = if tiers.is_placed(&ready.tier) { Arc::clone(policy) } else { without_rules() };
        match &mut open {
            Some((key, policies)) if **key == ready.tier => policies.push(policy),
            Some(_) | None => close(open.replace((&ready.tier, vec![policy]))),
        }
    }
    close(open);
    Both { network: network.into(), mesh: mesh.into() }
}

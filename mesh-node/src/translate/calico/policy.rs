//! Policies, and those on trial.
//!
//! In:  a NetworkPolicy, GlobalNetworkPolicy, or one of the staged kinds as written.
//! Out: a [`Policy`] of the tier that it names; `None` if it is about no pod.
//! Invariant: a part of the scope that is not understood does not narrow it.
//! Source: Calico `NetworkPolicy`, `GlobalNetworkPolicy`, `StagedNetworkPolicy`, `StagedKubernetesNetworkPolicy`; `types`, "the
//! default".

use super::entity::parse;
use super::label::Whose;
use super::rule;
use crate::api::custom::Custom;
use crate::model::policy::{Order, Policy, Rule, Stage, TierKey};
use crate::model::{ObjectRef, Selector};
use crate::translate::draft::{Draft, directions, understood};
use crate::translate::kube::network_policy;
use crate::translate::read::{Fields, Log, Place};
use crate::world::{CalicoKind, CalicoStore, CustomKind};
use std::sync::Arc;

const OF_HOSTS: &str = "it is about what hosts send and receive themselves, which felix alone sees";

/// What would be done with a staged policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    Set,
    Delete,
    Nothing,
}

/// The policy that an object is.
pub(super) fn policy(log: &Log, kind: CalicoKind, object: &Custom) -> Option<Policy> {
    let mut fields = log.spec(&object.spec);
    let staged = match kind {
        CalicoKind::StagedNetworkPolicy => Some(CustomKind::Calico(CalicoKind::NetworkPolicy, CalicoStore::Native)),
        CalicoKind::StagedGlobalNetworkPolicy => {
            Some(CustomKind::Calico(CalicoKind::GlobalNetworkPolicy, CalicoStore::Native))
        }
        CalicoKind::StagedKubernetesNetworkPolicy => Some(CustomKind::NetworkPolicy),
        CalicoKind::NetworkPolicy
        | CalicoKind::GlobalNetworkPolicy
        | CalicoKind::Tier
        | CalicoKind::NetworkSet
        | CalicoKind::GlobalNetworkSet => None,
    };
    let (trial, stage) = match staged {
        None => (None, Stage::Enforced),
        Some(kind) => {
            let replaces = Some(ObjectRef::new(kind.full_name(), log.object().name.clone()));
            (Some(trial(&fields.take("stagedAction"))), Stage::DryRun { replaces })
        }
    };
    let policy = if kind == CalicoKind::StagedKubernetesNetworkPolicy {
        let draft = network_policy::draft(&mut fields, &log.object().name.namespace);
        Some(network_policy::finished(log, draft.closed(fields), stage))
    } else {
        let is_global = matches!(kind, CalicoKind::GlobalNetworkPolicy | CalicoKind::StagedGlobalNetworkPolicy);
        of_calico(log, fields, is_global, stage)
    };
    match trial {
        None | Some(Trial::Set) => policy,
        Some(Trial::Delete) => policy.map(|policy| Policy { ingress: None, egress: None, ..policy }),
        Some(Trial::Nothing) => None,
    }
}

fn trial(place: &Place<'_>) -> Trial {
    let words = [("Set", Trial::Set), ("Delete", Trial::Delete), ("Learn", Trial::Nothing), ("Ignore", Trial::Nothing)];
    place.choice(&words).unwrap_or(Trial::Set)
}

fn of_calico(log: &Log, mut fields: Fields<'_>, is_global: bool, stage: Stage) -> Option<Policy> {
    let namespace = (!is_global).then_some(&*log.object().name.namespace);
    let tier = fields.take("tier");
    let tier = understood(log, || tier.text().filter(|tier| !tier.is_empty()).unwrap_or(TierKey::DEFAULT));
    let order = fields.take("order");
    let order = understood(log, || order.decimal());
    let (scope, widest) = scope(&mut fields, namespace);
    let read = |place: &Place<'_>, name, _| rule::rule(place, name, namespace);
    let arrives = |ingress: &[Rule], egress: &[Rule]| egress.is_empty() || !ingress.is_empty();
    let (ingress, egress) = directions(&mut fields, "types", read, arrives);
    fields.take("performanceHints").items().iter().for_each(Place::immaterial);
    let is_of_hosts = is_global && of_hosts(&mut fields);
    let draft = Draft { scope, widest, ingress, egress, is_placed: tier.is_some() && order.is_some() }.closed(fields);
    if is_of_hosts {
        return None;
    }
    Some(Policy {
        object: log.object().clone(),
        tier: TierKey::network(tier.unwrap_or(TierKey::NOWHERE)),
        order: match order {
            Some(order) => order.map_or(Order::LAST, Order::at),
            // What is only denials does most where it comes first.
            None => Order::FIRST,
        },
        scope: draft.scope(),
        ingress: draft.ingress,
        egress: draft.egress,
        stage,
    })
}

/// Is a policy about hosts alone?
fn of_hosts(fields: &mut Fields<'_>) -> bool {
    let mut is_of_hosts = false;
    for name in ["doNotTrack", "preDNAT"] {
        let place = fields.take(name);
        if place.bool() == Some(true) {
            place.ignored(OF_HOSTS);
            is_of_hosts = true;
        }
    }
    let place = fields.take("applyOnForward");
    if place.bool() == Some(true) {
        place.ignored("what a host forwards is for felix alone; to pods the policy applies as any other");
    }
    is_of_hosts
}

/// What is selected, if all of that is understood, and what is selected as far as it is.
fn scope(fields: &mut Fields<'_>, namespace: Option<&str>) -> (Option<Selector>, Selector) {
    let mut parts = vec![(fields.take("selector"), Whose::Endpoint)];
    if namespace.is_none() {
        parts.push((fields.take("namespaceSelector"), Whose::PolicyNamespace));
    }
    parts.push((fields.take("serviceAccountSelector"), Whose::Account));
    let base = namespace.map_or_else(Selector::everything, |namespace| Selector::in_namespace(Arc::from(namespace)));
    let (mut widest, mut is_clear) = (base, true);
    for (place, whose) in parts {
        let is_there = place.text().is_some_and(|text| !text.is_empty());
        match understood(place.log(), || is_there.then(|| parse(&place, whose))) {
            Some(Some(selector)) => widest = widest.and(selector),
            Some(None) => {}
            None => is_clear = false,
        }
    }
    (is_clear.then(|| widest.clone()), widest)
}

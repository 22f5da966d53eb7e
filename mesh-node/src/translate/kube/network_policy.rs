//! Kubernetes' NetworkPolicies.
//!
//! In:  a NetworkPolicy as written.
//! Out: a [`Policy`] of the tier `default`, where Calico puts it.
//! Invariant: it allows, and what it selects is denied everything else: so a peer or port that is not understood is none.
//! Source: Kubernetes `networking.k8s.io/v1.NetworkPolicy`; Calico's order of 1000.

use super::label_selector::{of_namespace, of_pod, pods, selector};
use crate::api::custom::Custom;
use crate::model::policy::{
    Action, Atom, Clause, Condition, Order, Policy, Ports, Prefix, Prefixes, Rule, Side, Stage, Test, TierKey,
};
use crate::model::{Selector, Text};
use crate::translate::draft::{Draft, SCTP, TCP, UDP, clause, directions, understood};
use crate::translate::read::{Fields, Log, Place, Scalar};
use std::collections::BTreeSet;
use std::sync::Arc;

const ORDER: Order = Order::at(1_000.0);

/// The policy that an object is.
pub(in crate::translate) fn policy(log: &Log, object: &Custom) -> Policy {
    let mut fields = log.spec(&object.spec);
    let namespace = &log.object().name.namespace;
    let draft = draft(&mut fields, namespace);
    finished(log, draft.closed(fields), Stage::Enforced)
}

/// The policy that a draft is.
pub(in crate::translate) fn finished(log: &Log, draft: Draft, stage: Stage) -> Policy {
    Policy {
        object: log.object().clone(),
        tier: TierKey::network(TierKey::DEFAULT),
        order: ORDER,
        scope: draft.scope(),
        ingress: draft.ingress,
        egress: draft.egress,
        stage,
    }
}

/// What the fields of a NetworkPolicy say.
pub(in crate::translate) fn draft(fields: &mut Fields<'_>, namespace: &Text) -> Draft {
    let log = fields.log();
    let own = Selector::in_namespace(Arc::from(&**namespace));
    let widest = own.and(pods());
    let selected = fields.take("podSelector");
    let scope = understood(log, || widest.clone().and(selector(&selected, of_pod)));
    let read = |place: &Place<'_>, name, side| rule(place, name, side, namespace);
    let (ingress, egress) = directions(fields, "policyTypes", read, |_, _| true);
    Draft { scope, widest, ingress, egress, is_placed: true }
}

fn rule(place: &Place<'_>, name: String, side: Side, namespace: &Text) -> Rule {
    let peers = match side {
        Side::Source => "from",
        Side::Destination => "to",
    };
    let clauses = understood(place.log(), || {
        let mut fields = place.fields()?;
        let peers = clause(&fields.take(peers), |place| peer(place, side, namespace));
        let ports = clause(&fields.take("ports"), port);
        // An empty list restricts nothing.
        let restricts = |clause: &Clause| !clause.alternatives.is_empty();
        Some(peers.into_iter().chain(ports).filter(restricts).collect())
    });
    let condition = clauses.flatten().map_or_else(Condition::never, |clauses| Condition { clauses });
    Rule { name, action: Action::Allow, condition }
}

fn peer(place: &Place<'_>, side: Side, namespace: &Text) -> Vec<Atom> {
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let (in_pods, in_namespaces) = (fields.take("podSelector"), fields.take("namespaceSelector"));
    let block = fields.take("ipBlock");
    let is_selected = in_pods.is_there() || in_namespaces.is_there();
    let mut atoms = ip_block(&block, side);
    if is_selected == block.is_there() {
        place
            .refuse("it must name either pods or addresses", "give podSelector, namespaceSelector or both, or ipBlock");
    }
    if is_selected {
        let around = if in_namespaces.is_there() {
            selector(&in_namespaces, of_namespace)
        } else {
            Selector::in_namespace(Arc::from(&**namespace))
        };
        let selector = pods().and(around).and(selector(&in_pods, of_pod));
        atoms.push(Atom::is(Test::Selected(side, selector)));
    }
    atoms
}

fn ip_block(place: &Place<'_>, side: Side) -> Vec<Atom> {
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let cidr = fields.take("cidr");
    if !cidr.is_there() {
        place.refuse("it has no range of addresses", "give it as `cidr`");
    }
    let mut atoms = vec![Atom::is(Test::Address(side, prefixes(&[cidr])))];
    let except = fields.take("except").items();
    if !except.is_empty() {
        atoms.push(Atom::is_not(Test::Address(side, prefixes(&except))));
    }
    atoms
}

/// The ranges of addresses that these are.
pub(in crate::translate) fn prefixes(places: &[Place<'_>]) -> Prefixes {
    let read = |place: &Place<'_>| place.parse("write it like 10.0.0.0/8 or fd00::/64", str::parse::<Prefix>);
    places.iter().filter_map(read).collect()
}

fn port(place: &Place<'_>) -> Vec<Atom> {
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let protocol = fields.take("protocol");
    let number = if protocol.is_there() {
        protocol.choice(&[("TCP", TCP), ("UDP", UDP), ("SCTP", SCTP)]).unwrap_or_default()
    } else {
        TCP
    };
    let (first, last) = (fields.take("port"), fields.take("endPort"));
    let mut atoms = vec![Atom::is(Test::Protocol(BTreeSet::from([number])))];
    let end = last.port();
    if last.is_there() && !first.is_there() {
        last.refuse("it ends a range that does not begin", "give `port`");
    }
    let mut ports = Ports::default();
    match first.scalar() {
        None => return atoms,
        Some(Scalar::Number(number)) => match u16::try_from(number).ok().filter(|&from| from > 0) {
            Some(from) if end.is_none_or(|end| from <= end) => ports.ranges.push(from..=end.unwrap_or(from)),
            Some(_) => last.refuse("it is less than the port", "give the last port of the range"),
            None => first.refuse("it is no port", "give a number from 1 to 65535, or a name"),
        },
        Some(Scalar::Text(name)) if is_port_name(name) => {
            ports.names.insert(name.to_owned());
            if last.is_there() {
                last.refuse("a name begins no range", "give `port` as a number");
            }
        }
        Some(Scalar::Text(_)) => first.refuse("it is no name of a port", "give a number, or a name such as http"),
    }
    atoms.push(Atom::is(Test::Port(Side::Destination, ports)));
    atoms
}

/// Is it a name of IANA's for a service?
///
/// **Source**: RFC 6335, section 5.1.
fn is_port_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=15).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

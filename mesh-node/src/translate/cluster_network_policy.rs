//! ClusterNetworkPolicies: what an administrator says before and after the policies of namespaces.
//!
//! In:  a ClusterNetworkPolicy as written.
//! Out: a [`Policy`] of the tier `kube-admin` or `kube-baseline`, where Calico puts it.
//! Invariant: a rule of which anything is not understood accepts nothing, and otherwise denies everything.
//! Source: `policy.networking.k8s.io/v1alpha2`, "fail closed".

use super::draft::{Draft, SCTP, TCP, UDP, rules, unclear, understood};
use super::kube::label_selector::{of_namespace, of_pod, pods, selector};
use super::kube::network_policy::prefixes;
use super::read::{Log, Place};
use crate::api::custom::Custom;
use crate::model::Selector;
use crate::model::policy::{
    Action, Atom, Clause, Condition, Order, Policy, PortRange, Ports, Rule, Side, Stage, Test, TierKey,
};
use std::collections::BTreeSet;

const ACTIONS: [(&str, Action); 3] = [("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)];

/// The policy that an object is.
pub(super) fn policy(log: &Log, object: &Custom) -> Policy {
    let mut fields = log.spec(&object.spec);
    let (tier, priority) = (fields.take("tier"), fields.take("priority"));
    let tiers = [("Admin", TierKey::KUBE_ADMIN), ("Baseline", TierKey::KUBE_BASELINE)];
    let tier = understood(log, || required(&tier).and_then(|tier| tier.choice(&tiers))).flatten();
    let priority = understood(log, || required(&priority).and_then(|place| place.number(0, 1_000))).flatten();
    let subject = fields.take("subject");
    let scope = understood(log, || pods_of(&subject)).flatten();
    let (arriving, leaving) = (fields.take("ingress"), fields.take("egress"));
    let ingress = rules(&arriving, "ingress", |place, name| rule(place, name, ("from", Side::Source)));
    let egress = rules(&leaving, "egress", |place, name| rule(place, name, ("to", Side::Destination)));
    // Without rules for it, a policy does not speak of a direction.
    let [ingress, egress] = [ingress, egress].map(|rules| (!rules.is_empty()).then_some(rules));
    let is_placed = tier.is_some() && priority.is_some();
    let draft = Draft { scope, widest: pods(), ingress, egress, is_placed }.closed(fields);
    Policy {
        object: log.object().clone(),
        // What is only denials does most where it comes first.
        tier: TierKey::network(tier.unwrap_or(TierKey::KUBE_ADMIN)),
        order: Order::at(priority.unwrap_or_default().into()),
        scope: draft.scope(),
        ingress: draft.ingress,
        egress: draft.egress,
        stage: Stage::Enforced,
    }
}

/// The place, if it is there, as it must be.
fn required<'p, 'a>(place: &'p Place<'a>) -> Option<&'p Place<'a>> {
    if !place.is_there() {
        place.refuse("it is missing", "give it");
        return None;
    }
    Some(place)
}

/// The pods that exactly one of two fields selects.
fn pods_of(place: &Place<'_>) -> Option<Selector> {
    let mut fields = required(place)?.fields()?;
    let (namespaces, pods) = (fields.take("namespaces"), fields.take("pods"));
    one(place, &[&namespaces, &pods]);
    selected(&namespaces, &pods)
}

/// Refuses unless exactly one is there.
fn one(place: &Place<'_>, places: &[&Place<'_>]) {
    if places.iter().filter(|place| place.is_there()).count() != 1 {
        place.refuse("exactly one of its fields must be given", "give one that this version of the mesh knows");
    }
}

/// The pods that are selected, if either is there.
fn selected(namespaces: &Place<'_>, in_namespaces: &Place<'_>) -> Option<Selector> {
    let of_namespaces = namespaces.is_there().then(|| pods().and(selector(namespaces, of_namespace)));
    let of_pods = in_namespaces.fields().map(|mut fields| {
        let around = selector(&fields.take("namespaceSelector"), of_namespace);
        pods().and(around).and(selector(&fields.take("podSelector"), of_pod))
    });
    of_namespaces.or(of_pods)
}

fn rule(place: &Place<'_>, name: String, (peers, side): (&'static str, Side)) -> Rule {
    let mut rule = Rule { name, action: Action::Deny, condition: Condition::default() };
    let read = || {
        let Some(mut fields) = place.fields() else { return };
        if let Some(name) = fields.take("name").text().filter(|name| !name.is_empty()) {
            rule.name = format!("{} ({name})", rule.name);
        }
        let action = fields.take("action");
        rule.action = required(&action).and_then(|action| action.choice(&ACTIONS)).unwrap_or(Action::Deny);
        let peers = fields.take(peers);
        let alternatives = peers.items().iter().map(|place| peer(place, side)).collect::<Vec<_>>();
        if alternatives.is_empty() {
            peers.refuse("it names nobody", "name at least one peer");
        }
        rule.condition.clauses.push(Clause { alternatives });
        let protocols = fields.take("protocols");
        let alternatives = protocols.items().iter().map(protocol).collect::<Vec<_>>();
        if !alternatives.is_empty() {
            rule.condition.clauses.push(Clause { alternatives });
        }
    };
    let (_, is_clear) = place.log().part(read);
    if is_clear { rule } else { unclear(rule) }
}

fn peer(place: &Place<'_>, side: Side) -> Vec<Atom> {
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let (namespaces, in_pods) = (fields.take("namespaces"), fields.take("pods"));
    let mut atoms: Vec<Atom> =
        selected(&namespaces, &in_pods).map(|selector| Atom::is(Test::Selected(side, selector))).into_iter().collect();
    if side == Side::Source {
        one(place, &[&namespaces, &in_pods]);
        return atoms;
    }
    let (networks, nodes, domains) = (fields.take("networks"), fields.take("nodes"), fields.take("domainNames"));
    one(place, &[&namespaces, &in_pods, &networks, &nodes, &domains]);
    nodes.unsupported("select the nodes' addresses by networks");
    domains.unsupported("select the addresses by networks");
    if networks.is_there() {
        atoms.push(Atom::is(Test::Address(side, prefixes(&networks.items()))));
    }
    atoms
}

fn protocol(place: &Place<'_>) -> Vec<Atom> {
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let known = [("tcp", TCP), ("udp", UDP), ("sctp", SCTP)].map(|(name, number)| (fields.take(name), number));
    let named = fields.take("destinationNamedPort");
    let places: Vec<&Place<'_>> = known.iter().map(|(place, _)| place).chain([&named]).collect();
    one(place, &places);
    let mut atoms = Vec::new();
    for (place, number) in &known {
        let Some(mut fields) = place.fields() else { continue };
        atoms.push(Atom::is(Test::Protocol(BTreeSet::from([*number]))));
        let ports = port(&fields.take("destinationPort"));
        atoms.extend(ports.map(|range| {
            Atom::is(Test::Port(Side::Destination, Ports { ranges: vec![range], names: BTreeSet::new() }))
        }));
    }
    if let Some(name) = named.text() {
        let ports = Ports { ranges: Vec::new(), names: BTreeSet::from([name.to_owned()]) };
        atoms.push(Atom::is(Test::Port(Side::Destination, ports)));
    }
    atoms
}

fn port(place: &Place<'_>) -> Option<PortRange> {
    let mut fields = place.fields()?;
    let (number, range) = (fields.take("number"), fields.take("range"));
    one(place, &[&number, &range]);
    let single = number.port();
    let between = range.fields().and_then(|mut fields| {
        let (start, end) = (fields.take("start").port(), fields.take("end").port());
        if start.is_none() || end.is_none() || start > end {
            range.refuse("it is no range of ports", "give `start`, and an `end` that is not less");
        }
        Some(start?..=end?)
    });
    single.map(|port| port..=port).or(between)
}

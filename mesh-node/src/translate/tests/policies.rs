//! Network policies of every API in the model's one form, written so that people can read it.

use super::*;
use crate::model::policy::{Atom, Condition, Policy, PolicyScope, Ports, Rule, Side, Stage, Test};
use crate::model::{Key, Selector};

mod calico;
mod cluster;
mod kubernetes;

fn key(key: &Key) -> String {
    match key {
        Key::Label(name) => name.to_string(),
        Key::NamespaceLabel(name) => format!("namespace:{name}"),
        Key::AccountLabel(name) => format!("account:{name}"),
        Key::Namespace => "namespace".to_owned(),
        Key::Account => "account".to_owned(),
    }
}

fn selector(selector: &Selector) -> String {
    let join = |all: &[Selector], with: &str| all.iter().map(self::selector).collect::<Vec<_>>().join(with);
    match selector {
        Selector::All(all) if all.is_empty() => "everything".to_owned(),
        Selector::Any(any) if any.is_empty() => "nothing".to_owned(),
        Selector::All(all) => join(all, " & "),
        Selector::Any(any) => format!("({})", join(any, " | ")),
        Selector::Not(one) => format!("!({})", self::selector(one)),
        Selector::Has(of) => format!("has {}", key(of)),
        Selector::Is(of, text) => format!("{}={text}", key(of)),
        Selector::In(of, texts) => format!("{} in {texts:?}", key(of)),
        Selector::Contains(of, text) => format!("{} contains {text}", key(of)),
        Selector::StartsWith(of, text) => format!("{} starts with {text}", key(of)),
        Selector::EndsWith(of, text) => format!("{} ends with {text}", key(of)),
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Source => "from",
        Side::Destination => "to",
    }
}

fn ports(ports: &Ports) -> String {
    let ranges = ports.ranges.iter().map(|range| {
        let (first, last) = (range.start(), range.end());
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    ranges.chain(ports.names.iter().cloned()).collect::<Vec<_>>().join(",")
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what needs no words of its own is shown as it is")]
fn atom(atom: &Atom) -> String {
    let test = match &atom.test {
        Test::Unknown => "unknown".to_owned(),
        Test::Selected(end, chosen) => format!("{} [{}]", side(*end), selector(chosen)),
        Test::Service(end, name) => format!("{} service {name}", side(*end)),
        Test::Address(end, prefixes) => format!("{} {}", side(*end), format!("{prefixes:?}").replace('"', "")),
        Test::Port(end, numbers) => format!("{} port {}", side(*end), ports(numbers)),
        Test::Protocol(numbers) => format!("protocol {numbers:?}"),
        other => format!("{other:?}"),
    };
    if atom.negated { format!("not {test}") } else { test }
}

fn condition(condition: &Condition) -> String {
    let alternative = |atoms: &Vec<Atom>| {
        let atoms: Vec<_> = atoms.iter().map(atom).collect();
        if atoms.is_empty() { "anything".to_owned() } else { atoms.join(", ") }
    };
    let clauses = condition.clauses.iter().map(|clause| {
        let alternatives: Vec<_> = clause.alternatives.iter().map(alternative).collect();
        if alternatives.is_empty() { "never".to_owned() } else { alternatives.join(" OR ") }
    });
    let clauses: Vec<_> = clauses.collect();
    if clauses.is_empty() { "anything".to_owned() } else { clauses.join(" AND ") }
}

fn policy(policy: &Policy) -> String {
    let scope = match &policy.scope {
        PolicyScope::Selected(chosen) => selector(chosen),
        PolicyScope::Targets { services, gateways } => format!("services {services:?}, gateways {gateways:?}"),
    };
    let stage = match &policy.stage {
        Stage::Enforced => String::new(),
        Stage::DryRun { replaces } => {
            format!(" on trial for {}", replaces.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string))
        }
    };
    let mut text = format!("{} in {} at {:?}{stage}: {scope}\n", policy.object, policy.tier.name, policy.order);
    for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        match rules {
            None => {}
            Some(rules) if rules.is_empty() => text += &format!("  no rule of {direction}\n"),
            Some(rules) => {
                let line = |rule: &Rule| format!("  {} {:?} {}\n", rule.name, rule.action, condition(&rule.condition));
                text += &rules.iter().map(line).collect::<String>();
            }
        }
    }
    text
}

/// The policies of a world and its issues.
fn policies(yaml: &str) -> String {
    let (model, issues) = model(yaml);
    let policies: String = model.policies.values().map(|known| policy(known)).collect();
    policies + &lines(&issues)
}

//! Rules in the form in which they are asked.
//!
//! In:  a policy; the groups of its selectors and the endpoints of its services.
//! Out: [`Ready`].
//! Invariant: what cannot be resolved is not understood, which denies.

use super::groups::Groups;
use super::services::Services;
use crate::model::policy::{
    self, Condition, Policy, PortRange, Ports, Prefixes, Rule, RuleOrigin, Side, Stage, Test, TierKey,
};
use crate::model::{Name, ObjectRef, Selector};
use crate::policy::chain::{self, Check, Clause};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const EVERY_PORT: PortRange = 0..=u16::MAX;

/// A policy as it is put into chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) object: ObjectRef,
    pub(super) tier: TierKey,
    pub(super) stage: Stage,
    /// Its rules for what arrives and for what leaves; `None` where it does not speak of that.
    pub(super) ways: [Option<Arc<chain::Policy>>; 2],
    /// Ports on which it asks what a request is that arrives.
    pub(super) http: Box<[PortRange]>,
    /// Ports on which it asks for the server name in TLS that arrives.
    pub(super) sni: Box<[PortRange]>,
}

/// What a policy looks up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    /// Selectors of peers.
    pub(super) selectors: BTreeSet<Selector>,
    /// Services of peers.
    pub(super) services: BTreeSet<Name>,
}

impl Mentions {
    pub(super) fn of(policy: &Policy) -> Self {
        let mut found = Self::default();
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        let clauses = rules.flat_map(|rule| &rule.condition.clauses);
        for atom in clauses.flat_map(|clause| &clause.alternatives).flatten() {
            if let Test::Selected(_, selector) = &atom.test {
                found.selectors.insert(selector.clone());
            } else if let Test::Service(_, name) = &atom.test {
                found.services.insert(name.clone());
            }
        }
        found
    }
}

/// Where what policies mention is found.
pub(super) struct Known<'k> {
    pub(super) groups: &'k Groups,
    pub(super) services: &'k Services,
}

impl Ready {
    pub(super) fn of(policy: &Policy, known: &Known<'_>) -> Self {
        let on_trial = policy.stage != Stage::Enforced;
        let way = |rules: &Option<Vec<Rule>>| {
            rules.as_ref().map(|rules| {
                let rules = rules.iter().map(|rule| known.rule(&policy.object, rule)).collect();
                Arc::new(chain::Policy { object: policy.object.clone(), on_trial, rules })
            })
        };
        let ports = |asks: fn(&Test) -> bool| {
            merged(policy.ingress.iter().flatten().flat_map(|rule| ports_where(rule, asks)).collect())
        };
        Self {
            object: policy.object.clone(),
            tier: policy.tier.clone(),
            stage: policy.stage.clone(),
            ways: [way(&policy.ingress), way(&policy.egress)],
            http: ports(|test| test.is_of_http() || *test == Test::Http),
            sni: ports(|test| matches!(test, Test::Sni(_))),
        }
    }
}

impl Known<'_> {
    fn rule(&self, object: &ObjectRef, rule: &Rule) -> chain::Rule {
        let clause = |clause: &policy::Clause| -> Clause {
            let atoms = |atoms: &Vec<policy::Atom>| atoms.iter().map(|atom| self.atom(atom)).collect();
            clause.alternatives.iter().map(atoms).collect()
        };
        chain::Rule {
            origin: RuleOrigin { object: object.clone(), rule: rule.name.clone() },
            action: rule.action,
            clauses: rule.condition.clauses.iter().map(clause).collect(),
        }
    }

    fn atom(&self, atom: &policy::Atom) -> chain::Atom {
        chain::Atom { negated: atom.negated, check: self.check(&atom.test) }
    }

    fn check(&self, test: &Test) -> Check {
        match test {
            Test::Unknown => Check::Unknown,
            Test::Selected(side, selector) => {
                self.groups.group(selector).map_or(Check::Unknown, |group| Check::Member(*side, Arc::clone(group)))
            }
            Test::Service(side, name) => match (self.services.endpoints(name), side) {
                (None, _) => Check::Unknown,
                (Some(endpoints), Side::Source) => {
                    let addresses = endpoints.iter().map(SocketAddr::ip).collect::<BTreeSet<IpAddr>>();
                    Check::Address(Side::Source, addresses.into_iter().collect::<Prefixes>())
                }
                (Some(endpoints), Side::Destination) => Check::Endpoint(Arc::clone(endpoints)),
            },
            Test::Address(side, prefixes) => Check::Address(*side, prefixes.clone()),
            Test::Port(side, Ports { ranges, names }) => {
                // Nobody gives a name to the port that a client dials from.
                let names = names.iter().filter(|_| *side == Side::Destination).map(|name| name.as_str().into());
                Check::Port(*side, ranges.as_slice().into(), names.collect())
            }
            Test::Protocol(numbers) => Check::Protocol(numbers.iter().copied().collect()),
            Test::Principal(texts) => Check::Principal(texts.clone()),
            Test::PrincipalNamespace(texts) => Check::PrincipalNamespace(texts.clone()),
            Test::PrincipalAccount(names) => Check::PrincipalAccount(names.iter().cloned().collect()),
            Test::Sni(texts) => Check::Sni(texts.clone()),
            Test::Http => Check::Http,
            Test::Method(texts) => Check::Method(texts.clone()),
            Test::Host(texts) => Check::Host(texts.clone()),
            Test::Path(texts) => Check::Path(texts.clone()),
            Test::PathIsPlain => Check::PathIsPlain,
            Test::Header(name, texts) => Check::Header(name.clone(), texts.clone()),
            Test::ForwardedFor(prefixes) => Check::ForwardedFor(prefixes.clone()),
        }
    }
}

/// The ports of the destination on which a rule `asks` something. Every port where it does not say so plainly.
fn ports_where(rule: &Rule, asks: fn(&Test) -> bool) -> Vec<PortRange> {
    let Condition { clauses } = &rule.condition;
    if !clauses.iter().flat_map(|clause| &clause.alternatives).flatten().any(|atom| asks(&atom.test)) {
        return Vec::new();
    }
    // One clause that is about ports alone says enough: all clauses must be met.
    let ranges = |clause: &policy::Clause| {
        clause.alternatives.iter().map(|atoms| plain_ports(atoms)).collect::<Option<Vec<_>>>()
    };
    let narrowed = clauses.iter().find_map(ranges);
    narrowed.map_or_else(|| Vec::from_iter([EVERY_PORT]), |ranges| ranges.concat())
}

/// The ports that one of these tests asks for by number alone.
fn plain_ports(atoms: &[policy::Atom]) -> Option<Vec<PortRange>> {
    atoms.iter().find_map(|atom| {
        let Test::Port(Side::Destination, ports) = &atom.test else { return None };
        (!atom.negated && ports.names.is_empty()).then(|| ports.ranges.clone())
    })
}

/// The same ports in order, each once.
pub(super) fn merged(mut ranges: Vec<PortRange>) -> Box<[PortRange]> {
    ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged.into()
}

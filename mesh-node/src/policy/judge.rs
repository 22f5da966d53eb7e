//! Whether a connection or request is allowed, and which rule says so.
//!
//! In:  the chains of one workload in one direction; a [`Flow`].
//! Out: a [`Verdict`]; what it was besides, to whoever wants to be [`Told`].
//! Invariant: the same for the data plane, the command line and the tests; nothing is looked up, and nothing allocated but for a
//! header of several values.
//! Invariant: what is not understood, or speaks of HTTP where none is read, is met in rules that deny and in no other.
//! Source: Calico's tiers; Kubernetes `NetworkPolicy`, which leaves a pod's own node alone; Istio `AuthorizationPolicy`, "evaluation" and "dependency on mTLS".

use super::chain::{Atom, Both, Chains, Check, Policy, Rule, Tier};
use super::flow::{Flow, Party, Request, Sni, Spoken};
use super::path::Readings;
use crate::model::policy::{Action, End, PortRange, RuleOrigin, Side, Texts};
use crate::model::{Identity, Name, ObjectRef, Text};
use http::{HeaderMap, HeaderName};
use std::borrow::Cow;
use std::fmt;

#[cfg(test)]
mod tests;

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'c> {
    /// Is it allowed?
    pub is_allowed: bool,
    /// Who says so.
    pub by: By<'c>,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'c> {
    /// A rule of a policy.
    Rule(&'c Policy, &'c Rule),
    /// No rule of a tier.
    End(&'c Tier),
    /// Nobody.
    Nobody,
}

impl<'c> By<'c> {
    /// The rule that decided, or the first policy of the tier that did.
    #[must_use]
    pub fn object(&self) -> Option<&'c ObjectRef> {
        match self {
            Self::Rule(policy, _) => Some(&policy.object),
            Self::End(tier) => tier.policies.first().map(|policy| &policy.object),
            Self::Nobody => None,
        }
    }

    /// The rule's name or place in that policy.
    #[must_use]
    pub fn rule(&self) -> Cow<'c, str> {
        match self {
            Self::Rule(_, rule) => rule.origin.rule.as_str().into(),
            Self::End(tier) => format!("end of the tier {}", tier.key.name).into(),
            Self::Nobody => "none".into(),
        }
    }

    /// Is it said by a policy that is on trial?
    fn is_on_trial(&self) -> bool {
        match self {
            Self::Rule(policy, _) => policy.on_trial,
            Self::End(tier) => tier.policies.iter().all(|policy| policy.on_trial),
            Self::Nobody => false,
        }
    }
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(_, rule) => write!(f, "{}", rule.origin),
            Self::End(tier) => {
                write!(f, "no rule of the tier {}", tier.key.name)?;
                let Some(first) = tier.policies.first() else { return Ok(()) };
                write!(f, ": {}", first.object)?;
                if tier.policies.len() > 1 { write!(f, " and {} more", tier.policies.len() - 1) } else { Ok(()) }
            }
            Self::Nobody => f.write_str("no policy"),
        }
    }
}

/// What a verdict is besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'c> {
    /// A rule that tells was met.
    Rule(&'c RuleOrigin),
    /// With the policies that are on trial it would be this.
    Trial(Verdict<'c>),
}

/// Judges it; tells what it is besides. What is allowed while nothing is read on it may be allowed, no more.
pub fn judge<'c>(chains: &'c Chains, flow: &Flow<'_>, mut tell: impl FnMut(Told<'c>)) -> Verdict<'c> {
    let verdict = both(&chains.enforced, flow, &mut |origin| tell(Told::Rule(origin)));
    if let Some(trial) = &chains.trial {
        let would_be = both(trial, flow, &mut |_| {});
        if would_be.is_allowed != verdict.is_allowed || would_be.by.is_on_trial() {
            tell(Told::Trial(would_be));
        }
    }
    verdict
}

fn both<'c>(both: &'c Both, flow: &Flow<'_>, tell: &mut impl FnMut(&'c RuleOrigin)) -> Verdict<'c> {
    let network = if flow.with_node { &[][..] } else { &both.network };
    let network = chain(network, flow, tell);
    if !network.is_allowed {
        return network;
    }
    let mesh = chain(&both.mesh, flow, tell);
    if mesh.by == By::Nobody { network } else { mesh }
}

fn chain<'c>(tiers: &'c [Tier], flow: &Flow<'_>, tell: &mut impl FnMut(&'c RuleOrigin)) -> Verdict<'c> {
    'tiers: for tier in tiers {
        for policy in &tier.policies {
            for rule in &policy.rules {
                let by = By::Rule(policy, rule);
                match (met(rule, flow), rule.action) {
                    (Met::No, _) => {}
                    (Met::Yes, Action::Log) => tell(&rule.origin),
                    (Met::Yes, Action::Deny) => return Verdict { is_allowed: false, by },
                    // What a rule says that may be met cannot be told, but for the worst.
                    (Met::Maybe, Action::Log | Action::Deny) => {}
                    (Met::Yes, Action::Pass) => continue 'tiers,
                    (Met::Yes | Met::Maybe, Action::Allow) | (Met::Maybe, Action::Pass) => {
                        return Verdict { is_allowed: true, by };
                    }
                }
            }
        }
        match tier.end {
            End::Pass => {}
            End::Allow => return Verdict { is_allowed: true, by: By::End(tier) },
            End::Deny => return Verdict { is_allowed: false, by: By::End(tier) },
        }
    }
    Verdict { is_allowed: true, by: By::Nobody }
}

/// Is something met? It is unclear only while nothing is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    No,
    Maybe,
    Yes,
}

impl From<bool> for Met {
    fn from(is_met: bool) -> Self {
        if is_met { Self::Yes } else { Self::No }
    }
}

fn met(rule: &Rule, flow: &Flow<'_>) -> Met {
    let denies = rule.action == Action::Deny;
    all(&rule.clauses, |clause| any(clause, |alternative| all(alternative, |atom| is_met(atom, flow, denies))))
}

fn all<T>(items: &[T], is_met: impl Fn(&T) -> Met) -> Met {
    let mut least = Met::Yes;
    for item in items {
        least = least.min(is_met(item));
        if least == Met::No {
            break;
        }
    }
    least
}

fn any<T>(items: &[T], is_met: impl Fn(&T) -> Met) -> Met {
    let mut most = Met::No;
    for item in items {
        most = most.max(is_met(item));
        if most == Met::Yes {
            break;
        }
    }
    most
}

/// Is an atom of a rule met that `denies`, or that does not?
fn is_met(atom: &Atom, flow: &Flow<'_>, denies: bool) -> Met {
    let plainly = |is_so: bool| Met::from(is_so != atom.negated);
    let unclear = Met::from(denies);
    match &atom.check {
        Check::Unknown => unclear,
        Check::Member(side, group) => {
            let party = party(flow, *side);
            plainly(group.contains(party.address, party.subject))
        }
        Check::Endpoint(endpoints) => {
            let to = &flow.destination;
            let found = |port| endpoints.binary_search(&(to.address, port).into()).is_ok();
            to.port.map_or(unclear, |port| plainly(found(port)))
        }
        Check::Address(side, prefixes) => plainly(prefixes.contains(party(flow, *side).address)),
        Check::Port(side, ranges, names) => {
            let party = party(flow, *side);
            party.port.map_or(unclear, |port| plainly(is_port(party, port, (ranges, names))))
        }
        Check::Protocol(numbers) => plainly(numbers.contains(&flow.protocol)),
        Check::Principal(texts) => plainly(flow.proof.is_some_and(|proof| texts.matches(proof.principal))),
        Check::PrincipalNamespace(texts) => {
            plainly(flow.proof.is_some_and(|proof| texts.matches(&proof.identity.namespace)))
        }
        Check::PrincipalAccount(names) => plainly(flow.proof.is_some_and(|proof| is_among(proof.identity, names))),
        Check::Sni(texts) => match (flow.sni, flow.spoken) {
            (Sni::Name(name), _) => plainly(texts.matches(name)),
            (Sni::Absent, _) => plainly(false),
            (Sni::Unread, Spoken::Unread) => Met::Maybe,
            (Sni::Unread, Spoken::Opaque | Spoken::Http(_)) => unclear,
        },
        Check::Http => match flow.spoken {
            Spoken::Opaque => plainly(false),
            Spoken::Http(_) => plainly(true),
            Spoken::Unread => Met::Maybe,
        },
        Check::Method(_)
        | Check::Host(_)
        | Check::Path(_)
        | Check::PathIsPlain
        | Check::Header(..)
        | Check::ForwardedFor(_) => match flow.spoken {
            Spoken::Opaque => unclear,
            Spoken::Unread => Met::Maybe,
            Spoken::Http(request) => is_met_by(atom, (request, flow), denies),
        },
    }
}

/// The same of a check that speaks of a request.
fn is_met_by(atom: &Atom, (request, flow): (&Request<'_>, &Flow<'_>), denies: bool) -> Met {
    let plainly = |is_so: bool| Met::from(is_so != atom.negated);
    // Of several readings the worst counts.
    let worst = |readings: &Readings<'_>, texts: &Texts| {
        let is_met = |text: &str| texts.matches(text) != atom.negated;
        Met::from(if denies { readings.any(is_met) } else { readings.all(is_met) })
    };
    match &atom.check {
        Check::Method(texts) => plainly(texts.matches(request.method)),
        // What allows a host says whether its port matters: `shop`, `shop:80` and `shop:*` are three things.
        Check::Host(texts) if !denies && !atom.negated => Met::from(texts.matches(request.authority.written())),
        Check::Host(texts) => worst(&request.authority, texts),
        Check::Path(texts) => worst(&request.path, texts),
        Check::PathIsPlain => plainly(request.path.is_plain()),
        Check::Header(name, texts) => has(request.headers, name, texts).map_or(Met::from(denies), plainly),
        Check::ForwardedFor(prefixes) => match request.forwarded_for() {
            Ok(address) => plainly(prefixes.contains(address.unwrap_or(flow.source.address))),
            Err(()) => Met::from(denies),
        },
        Check::Unknown
        | Check::Member(..)
        | Check::Endpoint(_)
        | Check::Address(..)
        | Check::Port(..)
        | Check::Protocol(_)
        | Check::Principal(_)
        | Check::PrincipalNamespace(_)
        | Check::PrincipalAccount(_)
        | Check::Sni(_)
        | Check::Http => Met::from(denies),
    }
}

fn party<'f, 'a>(flow: &'f Flow<'a>, side: Side) -> &'f Party<'a> {
    match side {
        Side::Source => &flow.source,
        Side::Destination => &flow.destination,
    }
}

fn is_port(party: &Party<'_>, port: u16, (ranges, names): (&[PortRange], &[Text])) -> bool {
    let named = || party.subject.iter().flat_map(|subject| &subject.ports).filter(|(_, number)| *number == port);
    ranges.iter().any(|range| range.contains(&port))
        || (!names.is_empty() && named().any(|(name, _)| names.contains(name)))
}

fn is_among(identity: &Identity, names: &[Name]) -> bool {
    let key = (&*identity.namespace, &*identity.service_account);
    names.binary_search_by(|name| (&*name.namespace, &*name.name).cmp(&key)).is_ok()
}

/// Has the header such a value? `None` if its value is no text. Several values are one, joined by commas.
fn has(headers: &HeaderMap, name: &HeaderName, texts: &Texts) -> Option<bool> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Some(false) };
    let first = first.to_str().ok()?;
    let Some(second) = values.next() else { return Some(texts.matches(first)) };
    let mut joined = first.to_owned();
    for value in std::iter::once(second).chain(values) {
        joined.push(',');
        joined.push_str(value.to_str().ok()?);
    }
    Some(texts.matches(&joined))
}

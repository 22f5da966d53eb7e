//! What users are told of their gateways and classes.
//!
//! In:  a gateway with what was said of it before; how it and its listeners stand; the time.
//! Out: its whole new status, if that is another.
//! Invariant: pure. Conditions of other controllers stay, of the gateway and of its listeners.
//! Source: Gateway API `GatewayStatus`, `ListenerStatus`, `GatewayClassStatus`.

use super::{Condition, Holds, Speaker, Status, list, merged, sentences};
use crate::api::custom::Custom;
use crate::model::{Closed, GatewayStanding, Heard, Issue, ListenerStanding, Reason};
use serde_json::{Value, json};

const GROUP: &str = "gateway.networking.k8s.io";
/// Addresses that the status of a gateway may have.
const MAX_ADDRESSES: usize = 16;
/// Nodes that are named where something is wrong at them.
const MAX_NODES: usize = 5;

/// The status of a gateway that is the mesh's, if it must be another.
#[must_use]
pub fn gateway(object: &Custom, standing: &GatewayStanding, speaker: Speaker<'_>) -> Option<Status> {
    let reported = object.reported.as_ref()?;
    let known = list(reported.status.get("listeners"));
    let listeners: Vec<Listener<'_>> = list(object.spec.get("listeners"))
        .into_iter()
        .enumerate()
        .map(|(at, written)| Listener::new(at, written["name"].clone(), standing))
        .collect();
    let said = listeners.iter().map(|listener| {
        let before = known.iter().find(|entry| entry["name"] == listener.name);
        let before = before.map(|entry| list(entry.get("conditions"))).unwrap_or_default();
        let kinds = listener.standing.map(|of| of.kinds.as_slice()).unwrap_or_default();
        let kinds: Vec<_> = kinds.iter().map(|kind| json!({"group": GROUP, "kind": kind})).collect();
        json!({
            "name": listener.name,
            "supportedKinds": kinds,
            "attachedRoutes": listener.standing.map_or(0, |of| of.attached),
            "conditions": merged(&before, &listener.conditions(), reported.generation, speaker.now),
        })
    });
    let said: Vec<Value> = said.collect();
    let conditions = [accepted(standing, &listeners), programmed(&listeners)];
    let before = list(reported.status.get("conditions"));
    let conditions = merged(&before, &conditions, reported.generation, speaker.now);
    let addresses = standing.addresses.iter().take(MAX_ADDRESSES);
    let addresses: Vec<_> = addresses.map(|of| json!({"type": "IPAddress", "value": of})).collect();
    if before == conditions && known == said && list(reported.status.get("addresses")) == addresses {
        return None;
    }
    let mut status = reported.status.clone();
    status.insert("addresses".to_owned(), Value::Array(addresses));
    status.insert("conditions".to_owned(), Value::Array(conditions));
    status.insert("listeners".to_owned(), Value::Array(said));
    Some(status)
}

/// The status of a class that is the mesh's, if it must be another.
#[must_use]
pub fn class(object: &Custom, speaker: Speaker<'_>) -> Option<Status> {
    let reported = object.reported.as_ref()?;
    let accepted = Condition::yes("Accepted", "Accepted", "Gateways of this class are the mesh's");
    let before = list(reported.status.get("conditions"));
    super::changed(reported, "conditions", merged(&before, &[accepted], reported.generation, speaker.now))
}

/// Is the gateway as a whole understood?
fn accepted(standing: &GatewayStanding, listeners: &[Listener<'_>]) -> Condition {
    let refused: Vec<&Issue> = standing.issues.iter().filter(|issue| issue.reason == Reason::Unsupported).collect();
    let (of_listeners, whole): (Vec<&Issue>, Vec<&Issue>) =
        refused.into_iter().partition(|issue| is_of_listener(issue));
    if !whole.is_empty() {
        return Condition::no("Accepted", "Invalid", sentences(&whole));
    }
    let wrong = standing.listeners.iter().filter_map(|listener| listener.refusal.as_ref());
    let wrong: Vec<&Issue> = of_listeners.into_iter().chain(wrong).collect();
    if wrong.is_empty() {
        return Condition::yes("Accepted", "Accepted", "The gateway is understood");
    }
    let is_any_left = listeners.iter().any(Listener::is_valid);
    let holds = if is_any_left { Holds::Yes } else { Holds::No };
    Condition { kind: "Accepted", holds, reason: "ListenersNotValid", message: sentences(&wrong) }
}

/// Is every listener listened on that may be?
fn programmed(listeners: &[Listener<'_>]) -> Condition {
    let of_valid: Vec<Condition> =
        listeners.iter().filter(|listener| listener.is_valid()).map(Listener::programmed).collect();
    let Some(first) = of_valid.iter().find(|of| of.holds != Holds::Yes).or(of_valid.first()) else {
        return Condition::no("Programmed", "Invalid", "None of its listeners can be listened on");
    };
    Condition { kind: "Programmed", holds: first.holds, reason: first.reason, message: first.message.clone() }
}

fn is_of_listener(issue: &Issue) -> bool {
    issue.field.starts_with("spec.listeners[")
}

/// A listener as it was written.
struct Listener<'s> {
    name: Value,
    /// How it stands, if it is understood.
    standing: Option<&'s ListenerStanding>,
    /// What is wrong in what was written, then why it is not listened on.
    issues: Vec<&'s Issue>,
    /// The path of its protocol.
    protocol: String,
}

impl<'s> Listener<'s> {
    fn new(at: usize, name: Value, standing: &'s GatewayStanding) -> Self {
        let path = format!("spec.listeners[{at}]");
        let own = standing.listeners.iter().find(|of| of.at == at);
        let refusal = own.and_then(|of| of.refusal.as_ref());
        let issues = standing.issues.iter().filter(|issue| issue.field.starts_with(&path)).chain(refusal).collect();
        Self { name, standing: own, issues, protocol: format!("{path}.protocol") }
    }

    /// May it be listened on, as far as objects say?
    fn is_valid(&self) -> bool {
        self.standing.is_some_and(|of| of.refusal.is_none())
    }

    fn conditions(&self) -> Vec<Condition> {
        vec![self.accepted(), self.resolved(), self.programmed(), self.conflicted()]
    }

    /// What daemons say of it.
    fn heard(&self) -> Option<&'s Heard> {
        self.standing?.heard.as_ref()
    }

    fn programmed(&self) -> Condition {
        if !self.is_valid() {
            return Condition::no("Programmed", "Invalid", "Nothing listens: see the other conditions");
        }
        let Some(heard) = self.heard() else {
            let message = "The daemons cannot be heard: it is not known whether they listen".to_owned();
            return Condition { kind: "Programmed", holds: Holds::Unknown, reason: "Pending", message };
        };
        if heard.is_open() {
            return Condition::yes("Programmed", "Programmed", "It is listened on at every node of the mesh");
        }
        let reason = if heard.closed.keys().any(|why| *why != Closed::Opening) { "Invalid" } else { "Pending" };
        Condition::no("Programmed", reason, told(heard))
    }

    /// What daemons say, if this is why nobody listens.
    fn closed_by(&self, why: Closed) -> Option<String> {
        self.heard().filter(|heard| heard.is_closed_by(why)).map(told)
    }

    /// The issues for which there is a word, with the first word.
    fn because(&self, word: impl Fn(&Issue) -> Option<&'static str>) -> Option<(&'static str, String)> {
        let found: Vec<&Issue> = self.issues.iter().copied().filter(|issue| word(issue).is_some()).collect();
        let reason = word(found.first()?)?;
        Some((reason, sentences(&found)))
    }

    fn accepted(&self) -> Condition {
        let word = |issue: &Issue| match of_conflict(issue.reason) {
            None if issue.reason == Reason::UnsupportedProtocol => Some("UnsupportedProtocol"),
            None if issue.reason != Reason::Unsupported => None,
            None if issue.field == self.protocol => Some("UnsupportedProtocol"),
            None => Some("UnsupportedValue"),
            Some(conflict) => Some(conflict),
        };
        match self.because(word) {
            Some((reason, message)) => Condition::no("Accepted", reason, message),
            None if self.standing.is_none() => {
                Condition::no("Accepted", "UnsupportedValue", "The gateway as a whole is not accepted")
            }
            None => match self.closed_by(Closed::PortUnavailable) {
                Some(message) => Condition::no("Accepted", "PortUnavailable", message),
                None => Condition::yes("Accepted", "Accepted", "The listener is understood"),
            },
        }
    }

    fn resolved(&self) -> Condition {
        match self.because(|issue| of_reference(issue.reason)) {
            Some((reason, message)) => Condition::no("ResolvedRefs", reason, message),
            None => match self.closed_by(Closed::InvalidCertificate) {
                Some(message) => Condition::no("ResolvedRefs", "InvalidCertificateRef", message),
                None => Condition::yes("ResolvedRefs", "ResolvedRefs", "Every reference is resolved"),
            },
        }
    }

    fn conflicted(&self) -> Condition {
        match self.because(|issue| of_conflict(issue.reason)) {
            Some((reason, message)) => Condition { kind: "Conflicted", holds: Holds::Yes, reason, message },
            None => Condition::no("Conflicted", "NoConflicts", "It shares its port with all others there"),
        }
    }
}

/// Where something is not listened on, and why.
fn told(heard: &Heard) -> String {
    if heard.open == 0 && heard.silent.is_empty() && heard.closed.is_empty() {
        return "No node has a daemon that is ready".to_owned();
    }
    let nodes = |nodes: &[String]| {
        let more = nodes.len().saturating_sub(MAX_NODES);
        let named = nodes.iter().take(MAX_NODES).cloned().collect::<Vec<_>>().join(", ");
        if more == 0 { named } else { format!("{named} and {more} more") }
    };
    let mut text = format!("It is listened on at {} nodes", heard.open);
    for (why, at) in &heard.closed {
        let why = match why {
            Closed::Opening => "its port is being opened",
            Closed::PortUnavailable => "its port cannot be listened on, perhaps because another program has it",
            Closed::InvalidCertificate => {
                "its certificate is not there or cannot be shown: of Secrets the daemons read those of `edge.certificates` alone"
            }
            Closed::Conflict => "another gateway has its port or its host",
        };
        text.push_str(&format!("; {why}: {}", nodes(at)));
    }
    if !heard.silent.is_empty() {
        text.push_str(&format!("; not heard of yet: {}", nodes(&heard.silent)));
    }
    text
}

/// Why a reference of a listener is not resolved.
fn of_reference(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::InvalidKind => Some("InvalidRouteKinds"),
        Reason::InvalidCertificate => Some("InvalidCertificateRef"),
        Reason::NotPermitted => Some("RefNotPermitted"),
        Reason::Remark
        | Reason::Unsupported
        | Reason::IncompatibleFilters
        | Reason::UnsupportedProtocol
        | Reason::ProtocolConflict
        | Reason::HostnameConflict
        | Reason::NotFound
        | Reason::NoMatchingParent
        | Reason::NotAllowed
        | Reason::NoMatchingHost => None,
    }
}

/// With what a listener is in conflict.
fn of_conflict(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::ProtocolConflict => Some("ProtocolConflict"),
        Reason::HostnameConflict => Some("HostnameConflict"),
        Reason::Remark
        | Reason::Unsupported
        | Reason::IncompatibleFilters
        | Reason::UnsupportedProtocol
        | Reason::InvalidCertificate
        | Reason::InvalidKind
        | Reason::NotPermitted
        | Reason::NotFound
        | Reason::NoMatchingParent
        | Reason::NotAllowed
        | Reason::NoMatchingHost => None,
    }
}

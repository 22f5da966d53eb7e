//! What users are told of their routes and gateways.
//!
//! In:  an object with what was said of it before; how it stands; the time.
//! Out: its whole new status, if that is another.
//! Invariant: pure. What other controllers said stays, in its place; a condition that says the same keeps its time.
//! Invariant: nothing is judged here: standings come with their reasons, which get their names of the Gateway API.
//! Source: Gateway API `RouteStatus`, `GatewayStatus`, `GatewayClassStatus`; Kubernetes `meta/v1.Condition`.

use crate::api::custom::{Custom, Reported};
use crate::model::{Attachment, Issue, Reason, RouteStanding};
use serde_json::{Map, Value, json};

mod gateway;
#[cfg(test)]
mod tests;

pub use gateway::{class, gateway};

/// The longest message of a condition, in bytes, that is written: the API server takes 32768 characters.
const MAX_MESSAGE: usize = 2048;

type Status = Map<String, Value>;

/// One thing that is so or not.
#[derive(Debug)]
struct Condition {
    kind: &'static str,
    holds: Holds,
    reason: &'static str,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Unknown,
}

/// Who says it, and when.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// The name of the controller.
    pub controller: &'a str,
    /// The time, as in `2026-01-31T12:00:00Z`.
    pub now: &'a str,
}

/// The status of a route, if it must be another.
#[must_use]
pub fn route(object: &Custom, standing: &RouteStanding, speaker: Speaker<'_>) -> Option<Status> {
    let reported = object.reported.as_ref()?;
    let known = list(reported.status.get("parents"));
    let references = list(object.spec.get("parentRefs"));
    let whose = |entry: &Value| entry["controllerName"] == speaker.controller;
    let mut own: Vec<Value> = Vec::new();
    for (reference, attachment) in references.iter().zip(&standing.parents) {
        if *attachment == Attachment::Others || own.iter().any(|entry| entry["parentRef"] == *reference) {
            continue;
        }
        let before = known.iter().find(|entry| whose(entry) && entry["parentRef"] == *reference);
        let before = before.map(|entry| list(entry.get("conditions"))).unwrap_or_default();
        let conditions = of_route(attachment, standing);
        let said: Vec<_> =
            conditions.iter().map(|condition| condition.say(&before, reported.generation, speaker.now)).collect();
        own.push(json!({"parentRef": reference, "controllerName": speaker.controller, "conditions": said}));
    }
    // Each stays where it was, so that two controllers do not move each other's for ever.
    let mut parents: Vec<Value> = Vec::new();
    for entry in &known {
        if !whose(entry) {
            parents.push(entry.clone());
        } else if let Some(at) = own.iter().position(|own| own["parentRef"] == entry["parentRef"]) {
            parents.push(own.remove(at));
        }
    }
    parents.append(&mut own);
    changed(reported, "parents", parents)
}

/// What is said now: the conditions that are given, in their places, and those of others as they were.
fn merged(before: &[Value], conditions: &[Condition], generation: i64, now: &str) -> Vec<Value> {
    let mut said = before.to_vec();
    for condition in conditions {
        let new = condition.say(before, generation, now);
        match said.iter_mut().find(|of| of["type"] == condition.kind) {
            Some(known) => *known = new,
            None => said.push(new),
        }
    }
    said
}

/// The status with this field, if that makes a difference.
fn changed(reported: &Reported, field: &str, list: Vec<Value>) -> Option<Status> {
    let known = reported.status.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if known == list {
        return None;
    }
    let mut status = reported.status.clone();
    status.insert(field.to_owned(), Value::Array(list));
    Some(status)
}

fn of_route(attachment: &Attachment, standing: &RouteStanding) -> Vec<Condition> {
    let refused: Vec<&Issue> = standing.refusals().collect();
    let accepted = match attachment {
        Attachment::Refused(issue) => Condition::no("Accepted", of_attachment(issue.reason), sentences(&[issue])),
        Attachment::Attached | Attachment::Others if standing.is_closed() => {
            Condition::no("Accepted", of_refusals(&refused), sentences(&refused))
        }
        Attachment::Attached | Attachment::Others => {
            Condition::yes("Accepted", "Accepted", "The route holds for what it attaches to")
        }
    };
    let is_accepted = accepted.holds == Holds::Yes;
    let mut conditions = vec![accepted, resolved(standing)];
    if is_accepted && !refused.is_empty() {
        // The specification wants the message to begin so.
        let message = format!("Dropped Rule: its requests are answered 500. {}", sentences(&refused));
        conditions.push(Condition::yes("PartiallyInvalid", of_refusals(&refused), message));
    }
    conditions
}

fn resolved(standing: &RouteStanding) -> Condition {
    let unresolved: Vec<&Issue> = standing.issues.iter().filter(|issue| of_reference(issue.reason).is_some()).collect();
    let reason = unresolved.first().and_then(|issue| of_reference(issue.reason));
    match reason {
        None => Condition::yes("ResolvedRefs", "ResolvedRefs", "Every reference is resolved"),
        Some(reason) => Condition::no("ResolvedRefs", reason, sentences(&unresolved)),
    }
}

/// Why what is refused is: the reason that says most.
fn of_refusals(refused: &[&Issue]) -> &'static str {
    let is_contradiction = refused.iter().any(|issue| issue.reason == Reason::IncompatibleFilters);
    if is_contradiction { "IncompatibleFilters" } else { "UnsupportedValue" }
}

/// Why a reference to a backend is not resolved.
fn of_reference(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::InvalidKind => Some("InvalidKind"),
        Reason::NotPermitted => Some("RefNotPermitted"),
        Reason::NotFound => Some("BackendNotFound"),
        Reason::Remark
        | Reason::Unsupported
        | Reason::IncompatibleFilters
        | Reason::UnsupportedProtocol
        | Reason::ProtocolConflict
        | Reason::HostnameConflict
        | Reason::InvalidCertificate
        | Reason::NoMatchingParent
        | Reason::NotAllowed
        | Reason::NoMatchingHost => None,
    }
}

/// Why a route does not attach.
fn of_attachment(reason: Reason) -> &'static str {
    match reason {
        Reason::NotAllowed => "NotAllowedByListeners",
        Reason::NoMatchingHost => "NoMatchingListenerHostname",
        Reason::Remark
        | Reason::Unsupported
        | Reason::IncompatibleFilters
        | Reason::UnsupportedProtocol
        | Reason::ProtocolConflict
        | Reason::HostnameConflict
        | Reason::InvalidCertificate
        | Reason::InvalidKind
        | Reason::NotPermitted
        | Reason::NotFound
        | Reason::NoMatchingParent => "NoMatchingParent",
    }
}

impl Condition {
    fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: Holds::Yes, reason, message: message.into() }
    }

    fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: Holds::No, reason, message: message.into() }
    }

    /// The condition as it is written. Its time is that of the last change.
    fn say(&self, before: &[Value], generation: i64, now: &str) -> Value {
        let status = match self.holds {
            Holds::Yes => "True",
            Holds::No => "False",
            Holds::Unknown => "Unknown",
        };
        let before = before.iter().find(|of| of["type"] == self.kind && of["status"] == status);
        let since = before.and_then(|of| of["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({
            "type": self.kind, "status": status, "reason": self.reason, "message": self.message,
            "observedGeneration": generation, "lastTransitionTime": since,
        })
    }
}

fn sentences(issues: &[&Issue]) -> String {
    let sentence = |issue: &&Issue| format!("{}: {}; {}", issue.field, issue.problem, issue.cure);
    let mut text = issues.iter().map(sentence).collect::<Vec<_>>().join(". ");
    text.truncate(text.floor_char_boundary(MAX_MESSAGE));
    text
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

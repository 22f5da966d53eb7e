//! What users are told of their routes and gateways.
//!
//! In:  an object with what was said of it before; how it stands; the time.
//! Out: its whole new status, if that is another.
//! Invariant: pure. What other controllers said stays, in its place; a condition that says the same keeps its time.
//! Invariant: nothing is judged here: standings come with their reasons, which get their names of the Gateway API.
//! Source: Gateway API `RouteStatus`, `GatewayStatus`, `GatewayClassStatus`; Kubernetes `meta/v1.Condition`.

use crate::api::custom::{Custom, Reported};
use crate::model::{Attachment, GatewayStanding, Issue, Reason, RouteStanding};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

#[cfg(test)]
mod tests;

/// The longest message of a condition, in bytes, that is written: the API server takes 32768 characters.
const MAX_MESSAGE: usize = 2048;
/// Where rules are, in the paths of issues.
const RULES: &str = "spec.rules[";

type Status = Map<String, Value>;

/// One thing that is so or not.
#[derive(Debug)]
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
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

/// The status of a gateway that is the mesh's, if it must be another. Whether it listens is for others to say: `Programmed`
/// is left as it is.
#[must_use]
pub fn gateway(object: &Custom, standing: &GatewayStanding, speaker: Speaker<'_>) -> Option<Status> {
    let refused: Vec<&Issue> = standing.issues.iter().filter(|issue| issue.reason == Reason::Unsupported).collect();
    let of_listener = |issue: &&Issue| issue.field.starts_with("spec.listeners[");
    let (holds, reason) = match (refused.iter().all(of_listener), standing.listeners) {
        _ if refused.is_empty() => (true, "Accepted"),
        (true, 1..) => (true, "ListenersNotValid"),
        (true, 0) => (false, "ListenersNotValid"),
        (false, _) => (false, "Invalid"),
    };
    let message = if refused.is_empty() { "The gateway is understood".to_owned() } else { sentences(&refused) };
    shared(object, &[Condition { kind: "Accepted", holds, reason, message }], speaker)
}

/// The status of a class that is the mesh's, if it must be another.
#[must_use]
pub fn class(object: &Custom, speaker: Speaker<'_>) -> Option<Status> {
    let message = "Gateways of this class are the mesh's".to_owned();
    shared(object, &[Condition { kind: "Accepted", holds: true, reason: "Accepted", message }], speaker)
}

/// A status of which others write conditions too.
fn shared(object: &Custom, conditions: &[Condition], speaker: Speaker<'_>) -> Option<Status> {
    let reported = object.reported.as_ref()?;
    let mut said = list(reported.status.get("conditions"));
    for condition in conditions {
        let new = condition.say(&said, reported.generation, speaker.now);
        match said.iter_mut().find(|of| of["type"] == condition.kind) {
            Some(known) => *known = new,
            None => said.push(new),
        }
    }
    changed(reported, "conditions", said)
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
    let refused: Vec<&Issue> = standing.issues.iter().filter(|issue| issue.reason == Reason::Unsupported).collect();
    let rules: BTreeSet<&str> = refused.iter().filter_map(|issue| rule_of(&issue.field)).collect();
    let is_whole = refused.iter().any(|issue| rule_of(&issue.field).is_none());
    let is_closed = !refused.is_empty() && (is_whole || rules.len() >= standing.rules);
    let (holds, reason, message) = match attachment {
        Attachment::Refused(issue) => (false, of_attachment(issue.reason), sentences(&[issue])),
        Attachment::Attached | Attachment::Others if is_closed => (false, "UnsupportedValue", sentences(&refused)),
        Attachment::Attached | Attachment::Others => {
            (true, "Accepted", "The route holds for what it attaches to".to_owned())
        }
    };
    let mut conditions = vec![Condition { kind: "Accepted", holds, reason, message }, resolved(standing)];
    if holds && !refused.is_empty() {
        // The specification wants the message to begin so.
        let message = format!("Dropped Rule: its requests are answered 500. {}", sentences(&refused));
        conditions.push(Condition { kind: "PartiallyInvalid", holds: true, reason: "UnsupportedValue", message });
    }
    conditions
}

fn resolved(standing: &RouteStanding) -> Condition {
    let unresolved: Vec<&Issue> = standing.issues.iter().filter(|issue| of_reference(issue.reason).is_some()).collect();
    let reason = unresolved.first().and_then(|issue| of_reference(issue.reason));
    let message = match reason {
        None => "Every reference is resolved".to_owned(),
        Some(_) => sentences(&unresolved),
    };
    Condition { kind: "ResolvedRefs", holds: reason.is_none(), reason: reason.unwrap_or("ResolvedRefs"), message }
}

/// Why a reference to a backend is not resolved.
fn of_reference(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::InvalidKind => Some("InvalidKind"),
        Reason::NotPermitted => Some("RefNotPermitted"),
        Reason::NotFound => Some("BackendNotFound"),
        Reason::Remark
        | Reason::Unsupported
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
        | Reason::InvalidKind
        | Reason::NotPermitted
        | Reason::NotFound
        | Reason::NoMatchingParent => "NoMatchingParent",
    }
}

/// The rule that a path is in.
fn rule_of(field: &str) -> Option<&str> {
    field.strip_prefix(RULES)?.split(']').next()
}

impl Condition {
    /// The condition as it is written. Its time is that of the last change.
    fn say(&self, before: &[Value], generation: i64, now: &str) -> Value {
        let status = if self.holds { "True" } else { "False" };
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

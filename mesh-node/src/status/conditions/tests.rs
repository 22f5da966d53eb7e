use super::*;
use crate::model::{Name, ObjectRef};

const US: Speaker<'static> = Speaker { controller: "mesh.internal/controller", now: "2026-02-01T00:00:00Z" };

fn object(spec: &Value, status: &Value) -> Custom {
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let reported = Reported { generation: 7, revision: "42".to_owned(), status: map(status) };
    Custom { spec: map(spec), reported: Some(reported), ..Custom::default() }
}

fn issue(reason: Reason, field: &str) -> Issue {
    let object = ObjectRef::new("HTTPRoute", Name::new("shop", "web"));
    Issue::new(&object, field, "something is wrong", "right it").because(reason)
}

fn standing(parents: Vec<Attachment>, issues: Vec<Issue>) -> RouteStanding {
    RouteStanding { parents, rules: 2, issues }
}

fn one_parent() -> Value {
    json!({"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}]})
}

/// What is said of the first parent, as `Type=Status/Reason`.
fn said(standing: &RouteStanding) -> Vec<String> {
    let status = route(&object(&one_parent(), &json!({})), standing, US).expect("a status");
    let conditions = list(status["parents"][0].get("conditions"));
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    conditions.iter().map(|of| format!("{}={}/{}", text(of, "type"), text(of, "status"), text(of, "reason"))).collect()
}

#[test]
fn each_reason_has_its_name_in_the_gateway_api() {
    let attached = |issues: &[(Reason, &str)]| {
        let issues = issues.iter().map(|(reason, field)| issue(*reason, field)).collect();
        said(&standing(vec![Attachment::Attached], issues))
    };
    assert_eq!(attached(&[]), ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
    assert_eq!(attached(&[(Reason::Remark, "spec")]), ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]);
    for (reason, word) in [
        (Reason::InvalidKind, "InvalidKind"),
        (Reason::NotPermitted, "RefNotPermitted"),
        (Reason::NotFound, "BackendNotFound"),
    ] {
        let found = attached(&[(reason, "spec.rules[0].backendRefs[0]")]);
        assert_eq!(found, ["Accepted=True/Accepted".to_owned(), format!("ResolvedRefs=False/{word}")]);
    }
    for (reason, word) in [
        (Reason::NoMatchingParent, "NoMatchingParent"),
        (Reason::NotAllowed, "NotAllowedByListeners"),
        (Reason::NoMatchingHost, "NoMatchingListenerHostname"),
    ] {
        let found = said(&standing(vec![Attachment::Refused(issue(reason, "spec.parentRefs[0]"))], Vec::new()));
        assert_eq!(found[0], format!("Accepted=False/{word}"));
    }
}

#[test]
fn a_route_is_refused_when_nothing_of_it_is_left_and_partially_invalid_when_something_is() {
    let of = |fields: &[&str]| {
        let issues = fields.iter().map(|field| issue(Reason::Unsupported, field)).collect();
        said(&standing(vec![Attachment::Attached], issues))
    };
    let resolved = "ResolvedRefs=True/ResolvedRefs";
    let partially = "PartiallyInvalid=True/UnsupportedValue";
    assert_eq!(of(&["spec.rules[1].filters"]), ["Accepted=True/Accepted", resolved, partially]);
    assert_eq!(of(&["spec.rules[1].filters", "spec.rules[1].matches"]).len(), 3);
    let refused = ["Accepted=False/UnsupportedValue", resolved];
    assert_eq!(of(&["spec.rules[1].filters", "spec.rules[0].timeouts"]), refused);
    assert_eq!(of(&["spec.unknown"]), refused);
}

#[test]
fn what_others_said_stays_where_it_is_and_what_nobody_wants_goes() {
    let other = |name: &str| json!({"parentRef": {"name": name}, "controllerName": "other/one", "conditions": []});
    let own = |name: &str| json!({"parentRef": {"name": name}, "controllerName": US.controller, "conditions": []});
    let spec = json!({"parentRefs": [{"name": "ours"}, {"name": "theirs"}, {"name": "new"}]});
    let status = json!({"parents": [other("a"), own("ours"), own("gone"), other("b")]});
    let attachments = vec![Attachment::Attached, Attachment::Others, Attachment::Attached];
    let before = object(&spec, &status);
    let status = route(&before, &standing(attachments.clone(), Vec::new()), US).expect("a status");
    let parents = list(status.get("parents"));
    let names: Vec<_> = parents.iter().map(|parent| parent["parentRef"]["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["a", "ours", "b", "new"]);
    assert_eq!((&parents[0], &parents[2]), (&other("a"), &other("b")));
    // Written once, nothing is left to write.
    let after = object(&spec, &Value::Object(status));
    assert_eq!(route(&after, &standing(attachments, Vec::new()), US), None);
}

#[test]
fn the_time_is_that_of_the_last_change_and_the_generation_is_that_of_now() {
    let spec = one_parent();
    let first = route(&object(&spec, &json!({})), &standing(vec![Attachment::Attached], Vec::new()), US);
    let mut later = object(&spec, &Value::Object(first.expect("a status")));
    if let Some(reported) = &mut later.reported {
        reported.generation = 8;
    }
    let missing = vec![issue(Reason::NotFound, "spec.rules[0]")];
    let now = Speaker { now: "2026-03-01T00:00:00Z", ..US };
    let status = route(&later, &standing(vec![Attachment::Attached], missing), now).expect("a status");
    let conditions = &status["parents"][0]["conditions"];
    assert_eq!(conditions[0]["lastTransitionTime"], US.now, "it is still accepted");
    assert_eq!(conditions[1]["lastTransitionTime"], now.now, "its references are no longer resolved");
    assert_eq!((&conditions[0]["observedGeneration"], &conditions[1]["observedGeneration"]), (&json!(8), &json!(8)));
}

#[test]
fn a_gateway_keeps_what_is_said_of_its_listening() {
    let programmed = json!({"type": "Programmed", "status": "Unknown", "reason": "Pending"});
    let status = json!({"conditions": [programmed], "addresses": []});
    let of = |listeners, issues| {
        let status = gateway(&object(&json!({}), &status), &GatewayStanding { listeners, issues }, US);
        let status = status.expect("a status");
        assert_eq!((&status["conditions"][0], &status["addresses"]), (&programmed, &json!([])));
        let accepted = &status["conditions"][1];
        format!(
            "{}/{}",
            accepted["status"].as_str().unwrap_or_default(),
            accepted["reason"].as_str().unwrap_or_default()
        )
    };
    assert_eq!(of(1, Vec::new()), "True/Accepted");
    let listener = || issue(Reason::Unsupported, "spec.listeners[0].protocol");
    assert_eq!(of(1, vec![listener()]), "True/ListenersNotValid");
    assert_eq!(of(0, vec![listener()]), "False/ListenersNotValid");
    assert_eq!(of(1, vec![issue(Reason::Unsupported, "spec.tls")]), "False/Invalid");
}

#[test]
fn a_class_is_accepted() {
    let status = class(&object(&json!({}), &json!({})), US).expect("a status");
    assert_eq!(
        (&status["conditions"][0]["status"], &status["conditions"][0]["observedGeneration"]),
        (&json!("True"), &json!(7))
    );
}

#[test]
fn a_long_message_is_cut() {
    let long = Issue { problem: "ß".repeat(5000), ..issue(Reason::NotFound, "spec") };
    let condition = resolved(&standing(Vec::new(), vec![long]));
    assert!((MAX_MESSAGE - 1..=MAX_MESSAGE).contains(&condition.message.len()));
}

use super::*;
use crate::model::{GatewayStanding, ListenerStanding, Name, ObjectRef};

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
    words(&list(status["parents"][0].get("conditions")))
}

/// Conditions as `Type=Status/Reason`.
fn words(conditions: &[Value]) -> Vec<String> {
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
    let filters = ["spec.rules[0].filters", "spec.rules[1].filters"];
    let issues = filters.map(|field| issue(Reason::IncompatibleFilters, field)).to_vec();
    let contradictory = said(&standing(vec![Attachment::Attached], issues));
    assert_eq!(contradictory, ["Accepted=False/IncompatibleFilters", resolved]);
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

/// Listeners that are written, and that are understood but for those of these places.
fn gateway_standing(listeners: Vec<ListenerStanding>, issues: Vec<Issue>) -> GatewayStanding {
    GatewayStanding { listeners, issues }
}

fn listener(at: usize, refusal: Option<Reason>) -> ListenerStanding {
    let refusal = refusal.map(|reason| issue(reason, &format!("spec.listeners[{at}]")));
    ListenerStanding { at, kinds: vec!["HTTPRoute"], attached: 2, refusal }
}

/// What is said of a gateway with the listeners `a` and `b`, first of itself: `Type=Status/Reason`.
fn told(standing: &GatewayStanding) -> Vec<Vec<String>> {
    let spec = json!({"listeners": [{"name": "a"}, {"name": "b"}]});
    let status = gateway(&object(&spec, &json!({})), standing, US).expect("a status");
    let said = |of: &Value| words(&list(of.get("conditions")));
    let listeners = list(status.get("listeners"));
    std::iter::once(said(&Value::Object(status))).chain(listeners.iter().map(said)).collect()
}

const FINE: [&str; 3] = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs", "Conflicted=False/NoConflicts"];

#[test]
fn a_gateway_is_accepted_as_far_as_its_listeners_are() {
    let whole = |listeners, issues| told(&gateway_standing(listeners, issues)).remove(0);
    let wrong = || issue(Reason::Unsupported, "spec.listeners[1].hostname");
    let both = || vec![listener(0, None), listener(1, None)];
    assert_eq!(whole(both(), Vec::new()), ["Accepted=True/Accepted"]);
    assert_eq!(whole(vec![listener(0, None)], vec![wrong()]), ["Accepted=True/ListenersNotValid"]);
    assert_eq!(whole(Vec::new(), vec![wrong()]), ["Accepted=False/ListenersNotValid"]);
    let refused = Some(Reason::InvalidCertificate);
    assert_eq!(whole(vec![listener(0, None), listener(1, refused)], Vec::new()), ["Accepted=True/ListenersNotValid"]);
    assert_eq!(
        whole(vec![listener(0, refused), listener(1, refused)], Vec::new()),
        ["Accepted=False/ListenersNotValid"]
    );
    assert_eq!(whole(both(), vec![issue(Reason::Unsupported, "spec.tls")]), ["Accepted=False/Invalid"]);
}

#[test]
fn each_listener_is_told_what_is_wrong_with_it_and_not_with_others() {
    let [accepted, resolved, free] = FINE;
    for (reason, expected) in [
        (Reason::UnsupportedProtocol, ["Accepted=False/UnsupportedProtocol", resolved, free]),
        (Reason::Unsupported, ["Accepted=False/UnsupportedValue", resolved, free]),
        (Reason::InvalidCertificate, [accepted, "ResolvedRefs=False/InvalidCertificateRef", free]),
        (Reason::NotPermitted, [accepted, "ResolvedRefs=False/RefNotPermitted", free]),
        (Reason::ProtocolConflict, ["Accepted=False/ProtocolConflict", resolved, "Conflicted=True/ProtocolConflict"]),
        (Reason::HostnameConflict, ["Accepted=False/HostnameConflict", resolved, "Conflicted=True/HostnameConflict"]),
    ] {
        let found = told(&gateway_standing(vec![listener(0, None), listener(1, Some(reason))], Vec::new()));
        assert_eq!(found[1..], [FINE.map(str::to_owned), expected.map(str::to_owned)], "{reason:?}");
    }
    // What is wrong in what is written, where nothing else is left of it.
    for (reason, field, expected) in [
        (Reason::Unsupported, "protocol", ["Accepted=False/UnsupportedProtocol", resolved, free]),
        (Reason::Unsupported, "port", ["Accepted=False/UnsupportedValue", resolved, free]),
    ] {
        let issue = issue(reason, &format!("spec.listeners[0].{field}"));
        let found = told(&gateway_standing(vec![listener(1, None)], vec![issue]));
        assert_eq!(found[1..], [expected.map(str::to_owned), FINE.map(str::to_owned)], "{field}");
    }
    // And where it is.
    let kind = issue(Reason::InvalidKind, "spec.listeners[0].allowedRoutes.kinds[0].kind");
    let found = told(&gateway_standing(vec![listener(0, None), listener(1, None)], vec![kind]));
    assert_eq!(found[0], [accepted], "it takes the other kinds");
    assert_eq!(found[1], [accepted, "ResolvedRefs=False/InvalidRouteKinds", free]);
    // A gateway that is closed as a whole has no listeners.
    let found = told(&gateway_standing(Vec::new(), vec![issue(Reason::Unsupported, "spec.tls")]));
    assert_eq!(found[1], ["Accepted=False/UnsupportedValue", resolved, free]);
}

#[test]
fn listeners_keep_what_others_say_and_those_that_are_gone_go() {
    let theirs = json!({"type": "Theirs", "status": "True"});
    let before = json!({"listeners": [
        {"name": "gone", "conditions": []},
        {"name": "a", "attachedRoutes": 0, "conditions": [theirs]},
    ], "addresses": []});
    let spec = json!({"listeners": [{"name": "a"}]});
    let standing = gateway_standing(vec![listener(0, None)], Vec::new());
    let status = gateway(&object(&spec, &before), &standing, US).expect("a status");
    let [of] = &list(status.get("listeners"))[..] else { panic!("{status:?}") };
    assert_eq!((&of["name"], &of["attachedRoutes"]), (&json!("a"), &json!(2)));
    assert_eq!(of["supportedKinds"], json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]));
    assert_eq!((&of["conditions"][0], &status["addresses"]), (&theirs, &json!([])));
    // Written once, nothing is left to write.
    assert_eq!(gateway(&object(&spec, &Value::Object(status)), &standing, US), None);
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

use super::*;
use crate::model::{Closed, Daemon, GatewayStanding, Heard, ListenerStanding, Name, ObjectRef, Told};

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
    GatewayStanding { listeners, addresses: Vec::new(), issues }
}

fn listener(at: usize, refusal: Option<Reason>) -> ListenerStanding {
    let refusal = refusal.map(|reason| issue(reason, &format!("spec.listeners[{at}]")));
    let heard = Some(Heard { open: 2, ..Heard::default() });
    ListenerStanding { at, kinds: vec!["HTTPRoute"], attached: 2, refusal, heard }
}

/// What is said of a gateway with the listeners `a` and `b`, first of itself: `Type=Status/Reason`.
fn told(standing: &GatewayStanding) -> Vec<Vec<String>> {
    let spec = json!({"listeners": [{"name": "a"}, {"name": "b"}]});
    let status = gateway(&object(&spec, &json!({})), standing, US).expect("a status");
    let said = |of: &Value| words(&list(of.get("conditions")));
    let listeners = list(status.get("listeners"));
    std::iter::once(said(&Value::Object(status))).chain(listeners.iter().map(said)).collect()
}

const FINE: [&str; 4] = [
    "Accepted=True/Accepted",
    "ResolvedRefs=True/ResolvedRefs",
    "Programmed=True/Programmed",
    "Conflicted=False/NoConflicts",
];

const OPEN: &str = "Programmed=True/Programmed";
const SHUT: &str = "Programmed=False/Invalid";

#[test]
fn a_gateway_is_accepted_as_far_as_its_listeners_are() {
    let whole = |listeners, issues| told(&gateway_standing(listeners, issues)).remove(0);
    let wrong = || issue(Reason::Unsupported, "spec.listeners[1].hostname");
    let both = || vec![listener(0, None), listener(1, None)];
    assert_eq!(whole(both(), Vec::new()), ["Accepted=True/Accepted", OPEN]);
    assert_eq!(whole(vec![listener(0, None)], vec![wrong()]), ["Accepted=True/ListenersNotValid", OPEN]);
    assert_eq!(whole(Vec::new(), vec![wrong()]), ["Accepted=False/ListenersNotValid", SHUT]);
    let refused = Some(Reason::InvalidCertificate);
    assert_eq!(
        whole(vec![listener(0, None), listener(1, refused)], Vec::new()),
        ["Accepted=True/ListenersNotValid", OPEN]
    );
    assert_eq!(
        whole(vec![listener(0, refused), listener(1, refused)], Vec::new()),
        ["Accepted=False/ListenersNotValid", SHUT]
    );
    assert_eq!(whole(Vec::new(), vec![issue(Reason::Unsupported, "spec.tls")]), ["Accepted=False/Invalid", SHUT]);
}

#[test]
fn each_listener_is_told_what_is_wrong_with_it_and_not_with_others() {
    let [accepted, resolved, _, free] = FINE;
    for (reason, expected) in [
        (Reason::UnsupportedProtocol, ["Accepted=False/UnsupportedProtocol", resolved, SHUT, free]),
        (Reason::Unsupported, ["Accepted=False/UnsupportedValue", resolved, SHUT, free]),
        (Reason::InvalidCertificate, [accepted, "ResolvedRefs=False/InvalidCertificateRef", SHUT, free]),
        (Reason::NotPermitted, [accepted, "ResolvedRefs=False/RefNotPermitted", SHUT, free]),
        (
            Reason::ProtocolConflict,
            ["Accepted=False/ProtocolConflict", resolved, SHUT, "Conflicted=True/ProtocolConflict"],
        ),
        (
            Reason::HostnameConflict,
            ["Accepted=False/HostnameConflict", resolved, SHUT, "Conflicted=True/HostnameConflict"],
        ),
    ] {
        let found = told(&gateway_standing(vec![listener(0, None), listener(1, Some(reason))], Vec::new()));
        assert_eq!(found[1..], [FINE.map(str::to_owned), expected.map(str::to_owned)], "{reason:?}");
    }
    // What is wrong in what is written, where nothing else is left of it.
    for (reason, field, expected) in [
        (Reason::Unsupported, "protocol", ["Accepted=False/UnsupportedProtocol", resolved, SHUT, free]),
        (Reason::Unsupported, "port", ["Accepted=False/UnsupportedValue", resolved, SHUT, free]),
    ] {
        let issue = issue(reason, &format!("spec.listeners[0].{field}"));
        let found = told(&gateway_standing(vec![listener(1, None)], vec![issue]));
        assert_eq!(found[1..], [expected.map(str::to_owned), FINE.map(str::to_owned)], "{field}");
    }
    // And where it is.
    let kind = issue(Reason::InvalidKind, "spec.listeners[0].allowedRoutes.kinds[0].kind");
    let found = told(&gateway_standing(vec![listener(0, None), listener(1, None)], vec![kind]));
    assert_eq!(found[0], [accepted, OPEN], "it takes the other kinds");
    assert_eq!(found[1], [accepted, "ResolvedRefs=False/InvalidRouteKinds", OPEN, free]);
    // A gateway that is closed as a whole has no listeners.
    let found = told(&gateway_standing(Vec::new(), vec![issue(Reason::Unsupported, "spec.tls")]));
    assert_eq!(found[1], ["Accepted=False/UnsupportedValue", resolved, SHUT, free]);
}

#[test]
fn a_listener_is_programmed_once_every_daemon_that_is_ready_listens() {
    let [accepted, resolved, open, free] = FINE;
    let daemon = |node: &str, generation: i64, closed: Option<Closed>| {
        let closed = closed.into_iter().map(|why| ("a".to_owned(), why)).collect();
        let listening = [("u".to_owned(), Told { generation, closed })].into();
        Daemon { node: node.to_owned(), addresses: Vec::new(), listening }
    };
    let (pending, unknown) = ("Programmed=False/Pending", "Programmed=Unknown/Pending");
    let one = |closed: Closed| daemon("two", 7, Some(closed));
    for (daemons, expected, text) in [
        (None, [accepted, resolved, unknown, free], "cannot be heard"),
        (Some(vec![]), [accepted, resolved, pending, free], "No node has a daemon"),
        (Some(vec![daemon("one", 7, None), daemon("two", 7, None)]), [accepted, resolved, open, free], "at every node"),
        (
            Some(vec![daemon("one", 7, None), daemon("two", 6, None)]),
            [accepted, resolved, pending, free],
            "at 1 nodes; not heard of yet: two",
        ),
        (
            Some(vec![daemon("one", 7, None), one(Closed::Opening)]),
            [accepted, resolved, pending, free],
            "its port is being opened: two",
        ),
        (
            Some(vec![daemon("one", 7, None), one(Closed::PortUnavailable)]),
            [accepted, resolved, SHUT, free],
            "another program has it: two",
        ),
        (
            Some(vec![one(Closed::PortUnavailable)]),
            ["Accepted=False/PortUnavailable", resolved, SHUT, free],
            "at 0 nodes",
        ),
        (
            Some(vec![one(Closed::InvalidCertificate)]),
            [accepted, "ResolvedRefs=False/InvalidCertificateRef", SHUT, free],
            "`edge.certificates`",
        ),
        (Some(vec![one(Closed::Conflict)]), [accepted, resolved, SHUT, free], "its host: two"),
    ] {
        let heard = daemons.map(|daemons| Heard::of(&daemons, ("u", 7), "a"));
        let standing = gateway_standing(vec![ListenerStanding { heard, ..listener(0, None) }], Vec::new());
        let spec = json!({"listeners": [{"name": "a"}]});
        let status = gateway(&object(&spec, &json!({})), &standing, US).expect("a status");
        assert_eq!(words(&list(status["listeners"][0].get("conditions"))), expected);
        let of_gateway = words(&list(status.get("conditions")));
        assert_eq!(of_gateway[1], expected[2], "the gateway is as its listener");
        let message = status["conditions"][1]["message"].as_str().unwrap_or_default();
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn a_certificate_that_is_not_there_is_told_of_a_listener_in_conflict_too() {
    let closed = [(Closed::InvalidCertificate, vec!["one".to_owned()])].into();
    let heard = Some(Heard { closed, ..Heard::default() });
    let standing = ListenerStanding { heard, ..listener(1, Some(Reason::HostnameConflict)) };
    let found = told(&gateway_standing(vec![listener(0, None), standing], Vec::new()));
    let missing = "ResolvedRefs=False/InvalidCertificateRef";
    assert_eq!(found[2], ["Accepted=False/HostnameConflict", missing, SHUT, "Conflicted=True/HostnameConflict"]);
}

#[test]
fn the_addresses_are_those_of_nodes_that_listen_and_no_more_than_fit() {
    let addresses = (1..=20).map(|last| [192, 0, 2, last].into()).collect();
    let standing = GatewayStanding { addresses, ..gateway_standing(vec![listener(0, None)], Vec::new()) };
    let status = gateway(&object(&json!({"listeners": [{"name": "a"}]}), &json!({})), &standing, US);
    let found = list(status.expect("a status").get("addresses"));
    assert_eq!(found.len(), 16);
    assert_eq!(found[0], json!({"type": "IPAddress", "value": "192.0.2.1"}));
}

#[test]
fn listeners_keep_what_others_say_and_those_that_are_gone_go() {
    let theirs = json!({"type": "Theirs", "status": "True"});
    let before = json!({"listeners": [
        {"name": "gone", "conditions": []},
        {"name": "a", "attachedRoutes": 0, "conditions": [theirs]},
    ]});
    let spec = json!({"listeners": [{"name": "a"}]});
    let standing = gateway_standing(vec![listener(0, None)], Vec::new());
    let status = gateway(&object(&spec, &before), &standing, US).expect("a status");
    let [of] = &list(status.get("listeners"))[..] else { panic!("{status:?}") };
    assert_eq!((&of["name"], &of["attachedRoutes"]), (&json!("a"), &json!(2)));
    assert_eq!(of["supportedKinds"], json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]));
    assert_eq!(of["conditions"][0], theirs);
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

//! What policies say of what enters by gateways.

use super::*;
use crate::model::{Closed, Name};
use crate::policy::flow::TCP;
use crate::policy::{Flow, Party, Request, Sni, Spoken, judge};
use crate::snapshot::edge::{EdgeHost, Entrance};
use http::HeaderMap;

/// Two gateways of the Gateway API and one of Istio's, all at port 80.
const GATEWAYS: &str = "
{kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mesh}
spec: {controllerName: mesh.internal/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec: {gatewayClassName: mesh, listeners: [{name: l, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: side}
spec: {gatewayClassName: mesh, listeners: [{name: l, port: 80, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door}
spec: {hosts: [door.example], gateways: [door], http: [{route: [{destination: {host: web, port: {number: 80}}}]}]}
---
";

fn route(name: &str, parents: &[&str], host: &str) -> String {
    let parents: Vec<_> = parents.iter().map(|parent| format!("{{name: {parent}}}")).collect();
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: {name}}}, spec: \
         {{parentRefs: [{}], hostnames: ['{host}'], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}}}\n---\n",
        parents.join(", ")
    )
}

/// A policy that allows nothing.
fn closed(namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, namespace: {namespace}}}, \
         spec: {spec}}}\n---\n"
    )
}

fn world_with(policies: &str) -> String {
    let routes = route("front", &["front"], "front.example")
        + &route("side", &["side"], "side.example")
        + &route("both", &["front", "side"], "both.example")
        + &route("any", &["side"], "*.any.example")
        + &route("one", &["front"], "one.any.example");
    GATEWAYS.to_owned() + &routes + policies
}

fn of<'s>(snapshot: &'s NodeSnapshot, host: &str) -> &'s EdgeHost {
    let edge = snapshot.edge.as_ref().expect("an edge");
    edge.port(80).expect("its port").hosts.covering(host).next().expect("the host")
}

/// Is a request allowed to enter that names this host?
fn enters(snapshot: &NodeSnapshot, host: &str) -> bool {
    let headers = HeaderMap::new();
    let request = Request::new("GET", host, "/", &headers);
    let flow = Flow {
        source: Party { address: [192, 0, 2, 1].into(), port: None, subject: None },
        destination: Party { address: [10, 0, 0, 9].into(), port: Some(80), subject: None },
        with_node: false,
        protocol: TCP,
        proof: None,
        sni: &Sni::Absent,
        spoken: Spoken::Http(&request),
    };
    of(snapshot, host).entrances().all(|entrance| {
        let chains = snapshot.entrances.get(entrance).expect("what policies say of it");
        judge(chains, &flow, |_| {}).is_allowed
    })
}

const HOSTS: [&str; 6] =
    ["front.example", "side.example", "both.example", "two.any.example", "one.any.example", "door.example"];

/// Asserts which of [`HOSTS`] are closed by policies, and what is wrong with those.
fn check_closed(policies: &str, closed: &[&str], issues: &[&str]) {
    let snapshot = compiled(&world(&world_with(policies)));
    let found: Vec<_> = HOSTS.into_iter().filter(|host| !enters(&snapshot, host)).collect();
    assert_eq!(found, closed, "{policies}");
    assert_eq!(snapshot.issues.iter().map(ToString::to_string).collect::<Vec<_>>(), issues, "{policies}");
}

#[test]
fn a_policy_about_a_gateway_holds_for_what_its_routes_serve() {
    check_closed("", &[], &[]);
    let about = |name: &str| {
        let target = format!("{{group: gateway.networking.k8s.io, kind: Gateway, name: {name}}}");
        closed("default", &format!("{{targetRefs: [{target}]}}"))
    };
    check_closed(&about("front"), &["front.example", "both.example", "one.any.example"], &[]);
    // By its name as a label too, which Istio gives to its pods.
    let named = |namespace: &str| {
        closed(namespace, "{selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: front}}}")
    };
    for namespace in ["default", "istio-system"] {
        check_closed(&named(namespace), &["front.example", "both.example", "one.any.example"], &[]);
    }
    check_closed(&named("shop"), &[], &[]);
    // Of a host that two gateways' routes cover, whichever of them is met.
    check_closed(&about("side"), &["side.example", "both.example", "two.any.example", "one.any.example"], &[]);
    let snapshot = compiled(&world(&world_with("")));
    let entrance = |name: &str| Entrance::Gateway(Name::new("default", name));
    let by: Vec<_> = of(&snapshot, "both.example").entrances().cloned().collect();
    assert_eq!(by, [entrance("front"), entrance("side")]);
    assert_eq!(of(&snapshot, "both.example").table.routes.len(), 1, "a route of two gateways is asked once");
}

#[test]
fn a_policy_that_selects_the_ingress_holds_for_what_enters() {
    for (namespace, spec, holds) in [
        ("istio-system", "{selector: {matchLabels: {istio: ingressgateway}}}", true),
        ("istio-system", "{}", true),
        ("mesh-system", "{}", true),
        ("mesh-system", "{selector: {matchLabels: {app: istio-ingressgateway}}}", true),
        ("istio-system", "{selector: {matchLabels: {app: web}}}", false),
        ("default", "{selector: {matchLabels: {app: web}}}", false),
    ] {
        check_closed(&closed(namespace, spec), if holds { &HOSTS } else { &[] }, &[]);
    }
    check_closed(
        &closed("istio-ingress", "{selector: {matchLabels: {istio: ingressgateway}}}"),
        &[],
        &[
            "AuthorizationPolicy istio-ingress/p, spec.selector: gateways are served by the pods of namespace mesh-system: \
           it holds for nothing that enters; move it there, or to istio-system",
        ],
    );
    // Policies of the network are about pods.
    let network = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: mesh-system}, \
                   spec: {podSelector: {}}}";
    check_closed(network, &[], &[]);
}

#[test]
fn a_policy_without_selector_holds_for_the_gateways_of_its_namespace() {
    // Istio would run pods of these there, and those of the ingress elsewhere.
    let of_namespace = ["front.example", "side.example", "both.example", "two.any.example", "one.any.example"];
    for spec in ["{}", "{action: DENY, rules: [{}]}", "{selector: {matchExpressions: []}, action: DENY, rules: [{}]}"] {
        let policy = closed("default", spec);
        let snapshot = compiled(&world(&world_with(&policy)));
        let found: Vec<_> = HOSTS.into_iter().filter(|host| !enters(&snapshot, host)).collect();
        assert_eq!(found, of_namespace, "{spec}");
    }
    check_closed(&closed("shop", "{}"), &[], &[]);
}

#[test]
fn what_is_allowed_at_the_ingress_and_at_a_gateway_adds_up() {
    let allow = |namespace: &str, name: &str, scope: &str, host: &str| {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{{scope}, rules: [{{to: [{{operation: {{hosts: ['{host}']}}}}]}}]}}}}\n---\n"
        )
    };
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]";
    let policies = allow("istio-system", "a", "selector: {matchLabels: {istio: ingressgateway}}", "side.example")
        + &allow("default", "b", target, "front.example");
    check_closed(&policies, &["both.example", "two.any.example", "one.any.example", "door.example"], &[]);
}

#[test]
fn of_each_listener_that_objects_allow_it_is_known_what_became_of_it() {
    let gateway = |name: &str, age: u32, listeners: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, uid: u-{name}, \
             creationTimestamp: '2026-01-0{age}T00:00:00Z'}}, spec: {{gatewayClassName: mesh, listeners: [{listeners}]}}}}\n---\n"
        )
    };
    let tls = |secret: &str| format!("protocol: HTTPS, tls: {{certificateRefs: [{{name: {secret}}}]}}");
    let objects = GATEWAYS.to_owned()
        + &gateway(
            "old",
            1,
            &format!(
                "{{name: a, port: 90, protocol: HTTP}}, {{name: b, port: 91, protocol: TCP}}, {{name: c, port: 92, {}}}",
                tls("x")
            ),
        )
        + &gateway("new", 2, &format!("{{name: a, port: 92, protocol: HTTP}}, {{name: b, port: 92, {}}}", tls("z")))
        + &gateway("other", 3, "{name: a, port: 92, protocol: HTTP}");
    let snapshot = compiled(&world(&objects));
    let found: Vec<_> = snapshot.listeners.iter().map(|of| (&*of.gateway, &*of.name, of.port, of.closed)).collect();
    assert_eq!(
        found,
        [
            ("u-old", "a", 90, None),
            ("u-old", "c", 92, Some(Closed::InvalidCertificate)),
            ("u-new", "a", 92, Some(Closed::Conflict)),
            ("u-new", "b", 92, Some(Closed::InvalidCertificate)),
            ("u-other", "a", 92, Some(Closed::Conflict)),
        ]
    );
}

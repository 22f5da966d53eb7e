//! What enters by gateways.

use super::*;

const GATEWAYS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mesh}
spec: {controllerName: mesh.internal/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: shop, name: front}
spec:
  gatewayClassName: mesh
  listeners:
    - {name: web, port: 80, protocol: HTTP}
    - {name: secure, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: missing}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {namespace: shop, name: web}
spec:
  parentRefs: [{name: front}]
  hostnames: [shop.example]
  rules:
    - matches: [{path: {type: PathPrefix, value: /shop}}]
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
      backendRefs: [{name: web, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {namespace: shop, name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [door.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: shop, name: door}
spec:
  hosts: [door.example]
  gateways: [door]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
";

/// What enters by one of the gateways may not ask for `/shop/admin`, and pods answer the edge for `/ok` alone.
const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: no-admin}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]
  action: DENY
  rules:
    - to: [{operation: {paths: [/shop/admin]}}]
    - from: [{source: {ipBlocks: [203.0.113.0/24]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: edge-alone}
spec:
  selector: {matchLabels: {app: web}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/mesh-system/sa/mesh-node]}}]
      to: [{operation: {paths: [/ok]}}]
";

fn world() -> String {
    format!("{SHOP}---{GATEWAYS}---{POLICIES}")
}

fn entering(source: &str, gateway: &str, path: &str) -> Question {
    Question { port: Some(80), ..question(source, gateway, Some(("GET", path))) }
}

#[test]
fn the_listener_the_route_and_both_policies_are_named() {
    assert_eq!(
        page(&world(), &entering("198.51.100.7", "gateway/shop/front", "/shop/ok")),
        "198.51.100.7 -> Gateway shop/front:80\n  \
         enters by Gateway shop/front, listener web\n    \
         entering  allowed by no policy\n  \
         routed by HTTPRoute shop/web, rules[0]\n  \
         to shop/web-v1 at 10.0.1.1:8080, shop/web-v2 at 10.0.1.2:8080\n    \
         protected by mutual TLS, as spiffe://cluster.local/ns/mesh-system/sa/mesh-node; PeerAuthentication shop/default says STRICT\n    \
         arriving  allowed by AuthorizationPolicy shop/edge-alone, rules[0]\n              \
         its address is that of a node, which is not known: here it is asked as one that is in no range\nALLOWED\n"
    );
    // The edge denies before any route is asked.
    assert_eq!(
        page(&world(), &entering("198.51.100.7", "shop.example", "/shop/admin")),
        "198.51.100.7 -> shop.example:80\n  \
         enters by Gateway shop/front, listener web\n    \
         entering  DENIED by AuthorizationPolicy shop/no-admin, rules[0]\nDENIED\n"
    );
    for (source, denied) in [("203.0.113.9", true), ("outside", false), ("shop/client", false)] {
        let answer = asked(&world(), &entering(source, "gateway/shop/front", "/shop/ok")).expect("a clear question");
        assert_eq!(answer.is_allowed(), !denied, "{source}: {answer:?}");
        let by = &answer.entered.as_ref().expect("it enters").steps[0];
        assert_eq!(by.told.is_empty(), source != "outside", "{by:?}");
    }
}

#[test]
fn a_pod_is_asked_by_the_path_that_reaches_it() {
    let other = asked(&world(), &entering("outside", "gateway/shop/front", "/shop/other")).expect("a clear question");
    let steps = &other.ways[0].steps;
    let last = steps.last().expect("verdicts");
    assert_eq!((last.what, last.is_allowed), (What::Ingress, false), "{other:?}");
    assert_eq!(last.by, "no rule of the tier allow: AuthorizationPolicy shop/edge-alone");
}

#[test]
fn a_gateway_of_istio_is_asked_like_one_of_the_gateway_api() {
    let answer = asked(&world(), &entering("outside", "gateway/shop/door", "/ok")).expect("a clear question");
    assert_eq!(
        answer.entered.as_ref().expect("it enters").by,
        ["Gateway.networking.istio.io shop/door, listener http"]
    );
    assert_eq!(answer.route.rule.as_deref(), Some("VirtualService shop/door, http[0]"));
    assert!(answer.is_allowed(), "{answer:?}");
    let ingress = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: istio-system, name: nothing}
spec: {selector: {matchLabels: {istio: ingressgateway}}}
";
    let closed = asked(&format!("{}---{ingress}", world()), &entering("outside", "door.example", "/ok"));
    let closed = closed.expect("a clear question").entered.expect("it enters");
    assert_eq!(closed.steps[0].by, "no rule of the tier allow: AuthorizationPolicy istio-system/nothing");
}

#[test]
fn what_is_not_taken_is_told_with_what_is_wrong() {
    let not_sent = |question: &Question| {
        let answer = asked(&world(), question).expect("a clear question");
        assert!(!answer.is_allowed() && answer.ways.is_empty());
        (answer.route.answered.expect("an answer"), answer.route.notes)
    };
    let (told, notes) = not_sent(&Question { port: Some(81), ..entering("outside", "gateway/shop/front", "/") });
    assert_eq!(told, "no gateway listens on port 81");
    assert!(notes.iter().any(|note| note.contains("Secret shop/missing is not known")), "{notes:?}");
    let (told, _) = not_sent(&entering("outside", "other.example", "/"));
    assert_eq!(told, "404: no route of a gateway speaks of the host");
    let (told, _) = not_sent(&entering("outside", "gateway/shop/front", "/elsewhere"));
    assert_eq!(told, "404: no rule of the routes for this port matches");
    let elsewhere = Question {
        request: Some(Request { host: Some("door.example".to_owned()), ..get("/ok") }),
        ..entering("outside", "gateway/shop/front", "/")
    };
    let answer = asked(&world(), &elsewhere).expect("a clear question");
    assert_eq!(answer.route.notes, ["gateways share the port, and another one takes the host"]);
}

fn get(path: &str) -> Request {
    Request { method: "GET".to_owned(), path: path.to_owned(), host: None, headers: Vec::new() }
}

#[test]
fn a_question_about_a_gateway_that_is_not_clear_says_what_is_missing() {
    for (question, told) in [
        (question("outside", "gateway/shop/none", Some(("GET", "/"))), "there is no gateway shop/none"),
        (
            question("outside", "gateway/shop/front", Some(("GET", "/"))),
            "say which port of gateway/shop/front is dialled: it has 80, 443",
        ),
        (
            Question { port: Some(80), ..question("outside", "gateway/shop/front", None) },
            "this is no request: by gateways enter requests alone",
        ),
        (question("outside", "outside", None), "`outside` cannot be meant here"),
        (question("service/shop/web", "shop/web", None), "`service/shop/web` cannot be meant here"),
    ] {
        let error = asked(&world(), &question).expect_err("it is not clear");
        assert!(error.to_string().starts_with(told), "{error}");
    }
    let wide = world().replace("hostnames: [shop.example]", "hostnames: [shop.example, '*.example']");
    let error = asked(&wide, &entering("outside", "gateway/shop/front", "/")).expect_err("which host?");
    assert_eq!(
        error.to_string(),
        "say by `--host` which host is asked for: gateway/shop/front serves *.example, shop.example"
    );
}

#[test]
fn a_gateway_may_ask_as_the_edge_does() {
    let ok = asked(&world(), &question("gateway/shop/front", "shop/web", Some(("GET", "/ok")))).expect("clear");
    assert!(ok.is_allowed(), "{ok:?}");
    assert_eq!(ok.source, "Gateway shop/front");
    assert_eq!(ok.route.notes, ["what enters is routed at its gateway: ask with the gateway as destination for that"]);
    let denied = page(&world(), &question("gateway/shop/front", "shop/web-v1", Some(("GET", "/other"))));
    assert!(denied.contains("arriving  DENIED by no rule of the tier allow"), "{denied}");
    // Policies of the network do not come between a pod and its own node.
    let network = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop}, \
                   spec: {podSelector: {}}}";
    let world = format!("{}---\n{network}", world());
    let denied = page(&world, &question("gateway/shop/front", "shop/web-v1", Some(("GET", "/ok"))));
    assert!(
        denied.contains("DENIED by no rule of the tier default: NetworkPolicy shop/closed")
            && denied.contains("from the pod's own node it would be allowed by AuthorizationPolicy shop/edge-alone"),
        "{denied}"
    );
}

#[test]
fn what_a_policy_without_selector_says_of_the_gateways_of_its_namespace_is_told() {
    let nothing = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: nothing}
spec: {action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}
";
    let world = format!("{SHOP}---{GATEWAYS}---{nothing}");
    let enters =
        |host: &str| asked(&world, &entering("outside", host, "/shop")).expect("clear").entered.expect("it enters");
    assert_eq!(enters("shop.example").steps[0].by, "AuthorizationPolicy shop/nothing, rules[0]");
    // Istio's ingress runs in a namespace of its own, wherever its Gateway is.
    assert!(enters("door.example").is_allowed());
}

//! Answers about worlds as users write them.

use super::*;

mod edge;
mod plans;
use crate::world::fixture;

const SHOP: &str = "
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, kubernetes.io/metadata.name: shop}}
---
kind: Namespace
metadata: {name: outside, labels: {kubernetes.io/metadata.name: outside}}
---
kind: Pod
metadata: {namespace: shop, name: client, labels: {app: client}}
spec: {nodeName: a, serviceAccountName: client}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
metadata: {namespace: outside, name: stranger}
spec: {nodeName: a, serviceAccountName: default}
status: {phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
metadata: {namespace: shop, name: web-v1, labels: {app: web, version: v1}}
spec: {nodeName: b, serviceAccountName: web}
status: {phase: Running, podIP: 10.0.1.1, podIPs: [{ip: 10.0.1.1}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
metadata: {namespace: shop, name: web-v2, labels: {app: web, version: v2}}
spec: {nodeName: b, serviceAccountName: web}
status: {phase: Running, podIP: 10.0.1.2, podIPs: [{ip: 10.0.1.2}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Service
metadata: {namespace: shop, name: web}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1]
  selector: {app: web}
  ports: [{name: http, protocol: TCP, port: 80, targetPort: 8080}]
---
kind: EndpointSlice
metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, protocol: TCP, port: 8080}]
endpoints:
  - {addresses: [10.0.1.1], conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: web-v1}}
  - {addresses: [10.0.1.2], conditions: {ready: true}, targetRef: {kind: Pod, namespace: shop, name: web-v2}}
---
kind: PeerAuthentication
metadata: {namespace: shop, name: default}
spec: {mtls: {mode: STRICT}}
";

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: v2-is-closed}
spec:
  selector: {matchLabels: {version: v2}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {namespace: shop, name: web}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: shop, name: web}
spec:
  hosts: [web]
  http:
    - route:
        - {destination: {host: web, subset: v1}, weight: 90}
        - {destination: {host: web, subset: v2}, weight: 10}
";

fn question(source: &str, destination: &str, request: Option<(&str, &str)>) -> Question {
    let request = request.map(|(method, path)| Request {
        method: method.to_owned(),
        path: path.to_owned(),
        host: None,
        headers: Vec::new(),
    });
    let place = |text: &str| text.parse().expect("a place");
    Question { source: place(source), destination: place(destination), port: None, request, sni: None }
}

fn asked(yaml: &str, question: &Question) -> Result<Answer, WhyError> {
    ask(fixture::world(yaml), Default::default(), Default::default(), question)
}

fn page(yaml: &str, question: &Question) -> String {
    render(&asked(yaml, question).expect("a clear question"))
}

#[test]
fn a_stranger_is_refused_by_the_mode_and_a_pod_of_the_mesh_is_not() {
    let denied = page(SHOP, &question("outside/stranger", "shop/web", None));
    assert_eq!(
        denied,
        "outside/stranger at 10.0.0.2 -> service shop/web:80\n  \
         the source is not in the mesh, so that routes are not asked\n  \
         to shop/web-v1 at 10.0.1.1:8080, shop/web-v2 at 10.0.1.2:8080\n    \
         protected DENIED by plain text, where PeerAuthentication shop/default says STRICT; the source must be in the mesh\nDENIED\n"
    );
    let allowed = asked(SHOP, &question("shop/client", "shop/web", None)).expect("a clear question");
    assert!(allowed.is_allowed(), "{allowed:?}");
}

#[test]
fn the_route_and_the_rule_that_decide_are_named() {
    let world = format!("{SHOP}---{POLICIES}");
    let told = page(&world, &question("shop/client", "shop/web", Some(("GET", "/admin?x=1"))));
    assert_eq!(
        told,
        "shop/client at 10.0.0.1 -> service shop/web:80\n  \
         routed by VirtualService shop/web, http[0]\n  \
         90 of 100 to shop/web-v1 at 10.0.1.1:8080\n    \
         leaving   allowed by no policy\n    \
         protected by mutual TLS, as spiffe://cluster.local/ns/shop/sa/client; PeerAuthentication shop/default says STRICT\n    \
         arriving  allowed by no policy\n  \
         10 of 100 to shop/web-v2 at 10.0.1.2:8080\n    \
         leaving   allowed by no policy\n    \
         protected by mutual TLS, as spiffe://cluster.local/ns/shop/sa/client; PeerAuthentication shop/default says STRICT\n    \
         arriving  DENIED by AuthorizationPolicy shop/v2-is-closed, rules[0]\nALLOWED to some, DENIED to others\n"
    );
    let other = asked(&world, &question("shop/client", "shop/web", Some(("GET", "/")))).expect("a clear question");
    assert!(other.is_allowed(), "{other:?}");
    let unsaid = page(&world, &question("shop/client", "10.0.1.2", None));
    assert!(unsaid.contains("this depends on the request"), "{unsaid}");
}

#[test]
fn a_server_name_that_nobody_told_is_asked_for() {
    let by_name = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: by-name}
spec:
  selector: {matchLabels: {version: v2}}
  rules: [{when: [{key: connection.sni, values: [web.example]}]}]
";
    let world = format!("{SHOP}---{by_name}");
    let ask = |sni: Option<&str>| {
        let sni = sni.map(str::to_owned);
        let question = Question { port: Some(8080), sni, ..question("shop/client", "10.0.1.2", None) };
        asked(&world, &question).expect("a clear question")
    };
    let unsaid = ask(None);
    assert!(unsaid.is_allowed());
    assert_eq!(
        unsaid.ways[0].steps[2].told,
        [
            "this depends on the server name that is asked for in TLS: give --sni",
            "what asks for no server name, and is no HTTP, is denied by no rule of the tier allow: AuthorizationPolicy shop/by-name",
        ]
    );
    assert!(ask(Some("Web.example")).is_allowed());
    assert!(!ask(Some("other.example")).is_allowed());
}

#[test]
fn connections_are_routed_by_the_server_name() {
    let vault = "
kind: Service
metadata: {namespace: shop, name: vault}
spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2], ports: [{name: tls, protocol: TCP, port: 443, targetPort: 8443}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: shop, name: vault}
spec:
  hosts: [vault]
  tls: [{match: [{sniHosts: [web.example]}], route: [{destination: {host: web, port: {number: 80}}}]}]
";
    let world = format!("{SHOP}---{vault}");
    let ask = |sni: Option<&str>| {
        let sni = sni.map(str::to_owned);
        asked(&world, &Question { sni, ..question("shop/client", "shop/vault", None) }).expect("a clear question")
    };
    let meant = ask(Some("Web.example"));
    assert_eq!(meant.route.rule.as_deref(), Some("VirtualService shop/vault, tls[0]"), "{meant:?}");
    assert_eq!(meant.ways[0].to, ["shop/web-v1 at 10.0.1.1:8080", "shop/web-v2 at 10.0.1.2:8080"]);
    for (sni, notes) in [(Some("other.example"), 0), (None, 1)] {
        let refused = ask(sni);
        let answered = Some("refused: no rule for TLS on the port means the server name");
        assert_eq!((refused.route.answered.as_deref(), refused.route.notes.len()), (answered, notes), "{refused:?}");
        assert!(!refused.is_allowed());
    }
}

#[test]
fn what_a_pod_says_to_itself_passes_its_loopback_and_is_not_judged() {
    let closed = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: nothing}
spec: {}
";
    let world = format!("{SHOP}---{closed}");
    for destination in ["10.0.0.1", "shop/client"] {
        let question = Question { port: Some(8080), ..question("shop/client", destination, None) };
        assert_eq!(
            page(&world, &question),
            "shop/client at 10.0.0.1 -> shop/client at 10.0.0.1:8080\n  \
             to shop/client at 10.0.0.1:8080\n    \
             protected by plain text, through the pod's own loopback\nALLOWED\n"
        );
    }
}

#[test]
fn a_host_outside_is_told_by_what_the_request_names() {
    let outside = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {namespace: shop, name: api}
spec:
  hosts: [api.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 198.51.100.7}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: shop, name: api}
spec:
  hosts: [api.example]
  http: [{route: [{destination: {host: api.example, port: {number: 80}}}]}]
";
    let world = format!("{SHOP}---{outside}");
    let ask = |host: &str| {
        let request = Request {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: Some(host.to_owned()),
            headers: Vec::new(),
        };
        let question =
            Question { port: Some(80), request: Some(request), ..question("shop/client", "192.0.2.1", None) };
        asked(&world, &question).expect("a clear question")
    };
    let answer = ask("API.example:80");
    assert_eq!(answer.route.rule.as_deref(), Some("VirtualService shop/api, http[0]"), "{answer:?}");
    assert_eq!(answer.ways[0].to, ["198.51.100.7:80"]);
    for other in ["other.example", "[fd00::1]"] {
        assert_eq!(ask(other).ways[0].to, ["192.0.2.1:80"], "{other}");
    }
}

#[test]
fn a_question_that_is_not_clear_says_what_is_missing() {
    for (source, destination, told) in [
        (
            "shop/nobody",
            "shop/web",
            "there is no pod shop/nobody with an address; name one that `kubectl get pods` shows",
        ),
        ("shop/client", "shop/nobody", "there is no pod shop/nobody with an address, and no service"),
        ("shop/client", "192.0.2.1", "say which port of 192.0.2.1 is dialled: it has none that is known"),
    ] {
        let error = asked(SHOP, &question(source, destination, None)).expect_err("it is not clear");
        assert!(error.to_string().starts_with(told), "{error}");
    }
    let error = asked(SHOP, &question("shop/client", "shop/web", Some(("G T", "/")))).expect_err("no method");
    assert_eq!(error.to_string(), "this is no request: the method is none");
}

#[test]
fn a_kind_is_named_where_a_pod_and_a_service_have_one_name() {
    let service =
        "{kind: Service, metadata: {namespace: shop, name: client}, spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}";
    let world = format!("{SHOP}---\n{service}");
    for (destination, shown) in [
        ("shop/client", "shop/client at 10.0.0.1:80"),
        ("pod/shop/client", "shop/client at 10.0.0.1:80"),
        ("svc/shop/client", "service shop/client:80"),
    ] {
        let question = Question { port: Some(80), ..question("shop/client", destination, None) };
        assert_eq!(asked(&world, &question).expect("a clear question").destination, shown);
    }
    let error = asked(&world, &question("shop/client", "pod/shop/web", None)).expect_err("a service");
    assert!(error.to_string().starts_with("there is no pod shop/web"), "{error}");
}

#[test]
fn a_pod_is_judged_by_what_a_route_made_of_the_request() {
    let rewriting = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {namespace: shop, name: web}
spec:
  hosts: [web]
  http: [{match: [{uri: {prefix: /shop/}}], rewrite: {uri: /}, route: [{destination: {host: web}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {namespace: shop, name: no-admin}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}
";
    let world = format!("{SHOP}---{rewriting}");
    let denied = page(&world, &question("shop/client", "shop/web", Some(("GET", "/shop/admin"))));
    assert!(denied.contains("arriving  DENIED by AuthorizationPolicy shop/no-admin, rules[0]"), "{denied}");
}

#[test]
fn where_a_traffic_policy_has_plain_text_spoken_a_strict_pod_refuses() {
    let disabled = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {namespace: shop, name: web}
spec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}
";
    let world = format!("{SHOP}---{disabled}");
    for request in [Some(("GET", "/")), None] {
        let denied = page(&world, &question("shop/client", "shop/web", request));
        assert!(denied.contains("a traffic policy has plain text spoken to "), "{denied}");
        assert!(denied.contains("protected DENIED by plain text, where PeerAuthentication shop/default"), "{denied}");
    }
}

#[test]
fn a_host_that_is_resolved_by_name_is_sent_to() {
    let host = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {namespace: shop, name: api}
spec:
  hosts: [api.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
";
    let world = format!("{SHOP}---{host}");
    let request = Request {
        host: Some("api.example.com".to_owned()),
        ..question("a/b", "a/b", Some(("GET", "/"))).request.expect("one")
    };
    let asking = Question { request: Some(request), port: Some(80), ..question("shop/client", "192.0.2.1", None) };
    let answer = asked(&world, &asking).expect("a clear question");
    assert!(answer.is_allowed(), "{}", render(&answer));
    assert_eq!(answer.ways[0].to, ["api.example.com:80"]);
}

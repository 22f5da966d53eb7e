//! What becomes of a request, as both APIs say it.

use super::*;

fn actions(yaml: &str) -> String {
    let (model, issues) = model(yaml);
    let mut text = String::new();
    for rule in model.routes.values().flat_map(|route| &route.rules) {
        let (action, filters) = (&rule.action, &rule.action.filters);
        writeln!(text, "{:?}", action.target).expect("writing to a text");
        for mirror in &action.mirrors {
            writeln!(text, "  copied {mirror:?}").expect("writing to a text");
        }
        writeln!(text, "  fault {:?}\n  request {:?}", filters.fault, filters.request_headers)
            .expect("writing to a text");
        writeln!(text, "  response {:?}\n  {:?}", filters.response_headers, filters.rewrite)
            .expect("writing to a text");
        writeln!(text, "  {:?}", filters.cors).expect("writing to a text");
        writeln!(text, "  limits {:?} {:?}", filters.request_timeout, filters.attempt_timeout)
            .expect("writing to a text");
        writeln!(text, "  {:?}", filters.retry).expect("writing to a text");
    }
    text + &lines(&issues)
}

#[test]
fn everything_that_a_rule_of_istio_does() {
    let yaml = "
{apiVersion: networking.istio.io/v1alpha3, kind: VirtualService, metadata: {name: a, namespace: shop}, spec: {hosts: [a], http: [{
 route: [{destination: {host: a}, headers: {response: {remove: [x]}}}], timeout: 5s,
 retries: {attempts: 3, perTryTimeout: 250ms, retryOn: 'gateway-error,reset,418,unavailable', backoff: 25ms},
 fault: {delay: {fixedDelay: 7s, percentage: {value: 0.01}}, abort: {httpStatus: 555, percentage: {value: 100.0}}},
 mirror: {host: b.bank.svc.cluster.local, subset: v1}, mirrorPercentage: {value: 50},
 headers: {request: {set: {x-a: '1'}, add: {x-b: 100%%}, remove: [x-c]}},
 rewrite: {uri: /new, authority: b.example.com},
 corsPolicy: {allowOrigins: [{exact: 'https://a.example.com'}], allowMethods: [GET], allowHeaders: [x], exposeHeaders: [z], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}},
 {route: [{destination: {host: a}}], headers: {request: {set: {x: '%DOWNSTREAM_REMOTE_ADDRESS%'}}}},
 {redirect: {uri: /x, authority: 'a.example.com:8080', scheme: https, redirectCode: 307}},
 {route: [{destination: {host: a}}], retries: {attempts: 0}}]}}
";
    expect![[r#"
        Backends([Backend { weight: 1, target: Service { name: Name { namespace: "shop", name: "a" }, port: None, subset: None }, request_headers: HeaderChanges { set: [], add: [], remove: [] }, response_headers: HeaderChanges { set: [], add: [], remove: ["x"] } }])
          copied Mirror { target: Service { name: Name { namespace: "bank", name: "b" }, port: None, subset: Some("v1") }, share: Share { parts: 500000 } }
          fault Fault { delay: Some((7s, Share { parts: 100 })), abort: Some((555, Share { parts: 1000000 })) }
          request HeaderChanges { set: [("x-a", "1")], add: [("x-b", "100%")], remove: ["x-c"] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: Some(RawPrefix("/new")), authority: Some("b.example.com") }
          Some(Cors { origins: [Exact("https://a.example.com")], methods: ["GET"], headers: ["x"], expose: ["z"], credentials: true, max_age: Some(86400s), forward_unmatched: false })
          limits Some(5s) Some(250ms)
          Some(Retry { attempts: 3, on: [GatewayError, Reset, Status(418), Grpc(14)], backoff: Some(25ms) })
        Respond { status: 500, body: "" }
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [], add: [], remove: [] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: None, authority: None }
          None
          limits None None
          None
        Redirect(Redirect { scheme: Some("https"), host: Some("a.example.com"), port: Port(8080), path: Some(Full("/x")), status: 307 })
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [], add: [], remove: [] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: None, authority: None }
          None
          limits None None
          None
        Backends([Backend { weight: 1, target: Service { name: Name { namespace: "shop", name: "a" }, port: None, subset: None }, request_headers: HeaderChanges { set: [], add: [], remove: [] }, response_headers: HeaderChanges { set: [], add: [], remove: [] } }])
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [], add: [], remove: [] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: None, authority: None }
          None
          limits None None
          Some(Retry { attempts: 0, on: [ConnectFailure, RefusedStream, Grpc(14), Grpc(1), Status(503)], backoff: None })
        VirtualService shop/a, spec.http[1].headers.request.set.x: `%DOWNSTREAM_REMOTE_ADDRESS%` has a part that is to be replaced, which is not supported; give a value that is meant as it stands
    "#]].assert_eq(&actions(yaml));
}

#[test]
fn everything_that_a_rule_of_the_gateway_api_does() {
    let yaml = "
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a, namespace: shop}, spec: {
 parentRefs: [{group: '', kind: Service, name: a}], rules: [{filters: [
 {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '1'}, {name: x-a, value: '2'}], add: [{name: b, value: c}], remove: [d]}},
 {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: e, value: f}]}},
 {type: URLRewrite, urlRewrite: {hostname: b.example.com, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}},
 {type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}, fraction: {numerator: 1, denominator: 3}}},
 {type: CORS, cors: {allowOrigins: ['https://*.example.com', 'http://a'], allowMethods: ['*'], allowCredentials: true, maxAge: 60}}],
 timeouts: {request: 1m30s, backendRequest: 0s}, retry: {codes: [500, 503], attempts: 2, backoff: 100ms},
 backendRefs: [{name: a, port: 80}]},
 {filters: [{type: RequestRedirect, requestRedirect: {hostname: b.example.com, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /}, statusCode: 308}}]},
 {filters: [{type: RequestRedirect, requestRedirect: {statusCode: 304}}]},
 {filters: [{type: RequestMirror, urlRewrite: {hostname: a}}]}]}}
";
    expect![[r#"
        Backends([Backend { weight: 1, target: Service { name: Name { namespace: "shop", name: "a" }, port: Some(80), subset: None }, request_headers: HeaderChanges { set: [], add: [], remove: [] }, response_headers: HeaderChanges { set: [], add: [], remove: [] } }])
          copied Mirror { target: Service { name: Name { namespace: "shop", name: "b" }, port: Some(80), subset: None }, share: Share { parts: 333333 } }
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [("x-a", "1")], add: [("b", "c")], remove: ["d"] }
          response HeaderChanges { set: [], add: [("e", "f")], remove: [] }
          Rewrite { path: Some(Prefix("/new")), authority: Some("b.example.com") }
          Some(Cors { origins: [Regex(/https\:\/\/[^/:]*\.example\.com/), Exact("http://a")], methods: ["*"], headers: [], expose: [], credentials: true, max_age: Some(60s), forward_unmatched: false })
          limits Some(90s) None
          Some(Retry { attempts: 2, on: [ConnectFailure, RefusedStream, Reset, Status(500), Status(503)], backoff: Some(100ms) })
        Redirect(Redirect { scheme: None, host: Some("b.example.com"), port: Port(8443), path: Some(Full("/")), status: 308 })
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [], add: [], remove: [] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: None, authority: None }
          None
          limits None None
          None
        Respond { status: 500, body: "" }
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [], add: [], remove: [] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: None, authority: None }
          None
          limits None None
          None
        Respond { status: 500, body: "" }
          fault Fault { delay: None, abort: None }
          request HeaderChanges { set: [], add: [], remove: [] }
          response HeaderChanges { set: [], add: [], remove: [] }
          Rewrite { path: None, authority: None }
          None
          limits None None
          None
        HTTPRoute shop/a, spec.rules[2].filters[0].requestRedirect.statusCode: 304 is no redirect that is supported; use 301, 302, 303, 307 or 308
        HTTPRoute shop/a, spec.rules[3].backendRefs: there are none; requests are answered 500; name a backend, or redirect
        HTTPRoute shop/a, spec.rules[3].filters[0].requestMirror: a filter of type RequestMirror has the field of its type, and no other; let type and field agree
        HTTPRoute shop/a, spec.rules[3].filters[0].urlRewrite: a filter of type RequestMirror has the field of its type, and no other; let type and field agree
    "#]].assert_eq(&actions(yaml));
}

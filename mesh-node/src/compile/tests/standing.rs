//! How routes stand, from what users write to what they are told.

use super::routes::cluster;
use crate::compile::Standings;
use crate::model::{Attachment, Closed, Daemon, Issue, Name, Told};
use crate::translate::{Settings, Translator};
use crate::world::{CustomKind, World};
use expect_test::{Expect, expect};

const OURS: &str = "mesh.internal/controller";

fn told(issue: &Issue) -> String {
    format!("{:?} {}: {}", issue.reason, issue.field, issue.problem)
}

fn with<T>(world: &World, look: impl FnOnce(&Standings<'_>) -> T) -> T {
    let mut translator = Translator::new(Settings::default());
    let _all = translator.learn(world, world.keys().map(|key| (key, None)));
    look(&Standings::new(world, &translator, OURS))
}

/// How the route `r` of the namespace default stands, whose spec is this, among these other objects.
fn check(kind: CustomKind, spec: &str, others: &str, expected: &Expect) {
    let of = |kind: &str| {
        format!(
            "{others}{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: r, namespace: default}}, spec: {spec}}}\n"
        )
    };
    let standing = with(&cluster(&of(kind.name())), |standings| standings.route(kind, &Name::new("default", "r")));
    let standing = standing.expect("it is there");
    let parents = standing.parents.iter().map(|parent| match parent {
        Attachment::Refused(issue) => format!("refused {}\n", told(issue)),
        Attachment::Attached | Attachment::Others => format!("{parent:?}\n"),
    });
    let issues = standing.issues.iter().map(|issue| format!("{}\n", told(issue)));
    expected.assert_eq(&parents.chain(issues).collect::<String>());
}

#[test]
fn a_reference_to_a_service_is_attached_if_a_port_of_it_takes_the_route() {
    check(
        CustomKind::HttpRoute,
        "{parentRefs: [
            {group: '', kind: Service, name: reviews},
            {group: '', kind: Service, name: reviews, port: 9080},
            {group: '', kind: Service, name: pay, namespace: shop},
            {group: '', kind: Service, name: reviews, port: 9081},
            {group: '', kind: Service, name: reviews, sectionName: grpc},
            {group: '', kind: Service, name: nobody},
            {group: '', kind: Service, name: ratings, port: 3306},
            {name: somebody},
            {group: other.example, kind: Thing, name: x}],
          rules: [{backendRefs: [{name: reviews, port: 9080}]}]}",
        "",
        &expect![[r#"
            Attached
            Attached
            Attached
            refused NoMatchingParent spec.parentRefs[3]: Service default/reviews has no port that is the one meant
            refused NoMatchingParent spec.parentRefs[4]: Service default/reviews has no port that is the one meant
            refused NoMatchingParent spec.parentRefs[5]: there is no Service default/nobody; the route does not hold for it
            refused NoMatchingParent spec.parentRefs[6]: no port of Service default/ratings that is meant speaks HTTP by its own word
            Others
            Others
        "#]],
    );
}

#[test]
fn a_reference_to_a_backend_that_cannot_be_used_has_its_reason() {
    check(
        CustomKind::GrpcRoute,
        "{parentRefs: [{group: '', kind: Service, name: reviews}], rules: [
            {backendRefs: [{name: reviews, port: 9080}, {name: nobody, port: 1}]},
            {backendRefs: [{name: reviews, port: 7}]},
            {backendRefs: [{kind: Thing, group: other.example, name: x}]},
            {backendRefs: [{name: pay, namespace: shop, port: 80}]},
            {filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 1}}}],
             backendRefs: [{name: reviews, port: 9080}]},
            {sessionPersistence: {}, backendRefs: [{name: reviews, port: 9080}]}]}",
        "",
        &expect![[r#"
            Attached
            InvalidKind spec.rules[2].backendRefs[0].kind: Thing of group `other.example` is no backend that is supported; requests that fall to it are answered 500
            NotPermitted spec.rules[3].backendRefs[0].namespace: no ReferenceGrant allows to refer to Service shop/pay; requests that fall to it are answered 500
            Unsupported spec.rules[5].sessionPersistence: it is not supported
            NotFound spec.rules[0]: there is no Service default/nobody
            NotFound spec.rules[1]: Service default/reviews has no port 7
            NotFound spec.rules[4]: there is no Service default/nobody
        "#]],
    );
}

#[test]
fn a_gateway_of_the_mesh_takes_what_a_listener_allows() {
    let gateways = "
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: mesh}, spec: {controllerName: mesh.internal/controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: other}, spec: {controllerName: other.example/controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: theirs, namespace: default}, spec: {gatewayClassName: other,
 listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: ours, namespace: default}, spec: {gatewayClassName: mesh,
 listeners: [{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'}, {name: own, port: 81, protocol: HTTP}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: far, namespace: shop}, spec: {gatewayClassName: mesh,
 listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
";
    check(
        CustomKind::HttpRoute,
        "{hostnames: [web.example.org], parentRefs: [{name: theirs}, {name: ours}, {name: ours, sectionName: http}, {name: ours, port: 82},
            {name: far, namespace: shop}, {name: nobody}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}",
        gateways,
        &expect![[r#"
            Others
            Attached
            refused NoMatchingHost spec.parentRefs[2]: no listener of Gateway default/ours serves a host of the route
            refused NoMatchingParent spec.parentRefs[3]: no listener of Gateway default/ours is the one that is meant
            refused NotAllowed spec.parentRefs[4]: no listener of Gateway shop/far takes routes of this namespace
            Others
        "#]],
    );
    let world = cluster(gateways);
    let names = ["ours", "theirs", "nobody"].map(|name| Name::new("default", name));
    let found =
        with(&world, |standings| names.each_ref().map(|name| standings.gateway(name).map(|of| of.listeners.len())));
    assert_eq!(found, [Some(2), None, None]);
}

/// Says how listeners stand of the gateways of these names, each given by its listeners, the oldest first.
fn check_listeners(gateways: &[(&str, &str)], others: &str, expected: &Expect) {
    let mut text = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: mesh}, \
                    spec: {controllerName: mesh.internal/controller}}\n"
        .to_owned();
    for (age, (name, listeners)) in gateways.iter().enumerate() {
        text.push_str(&format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, namespace: default, \
             creationTimestamp: '2026-01-0{}T00:00:00Z'}}, spec: {{gatewayClassName: mesh, listeners: [{listeners}]}}}}\n",
            age + 1
        ));
    }
    let world = cluster(&format!("{others}{text}"));
    let said = with(&world, |standings| {
        let mut said = String::new();
        for (name, _) in gateways {
            let standing = standings.gateway(&Name::new("default", *name)).expect("it is there");
            for of in standing.listeners {
                let refusal = of.refusal.as_ref().map(told).unwrap_or_default();
                said.push_str(&format!("{name}[{}] {:?} {} {refusal}\n", of.at, of.kinds, of.attached));
            }
            said.extend(standing.issues.iter().map(|issue| format!("{}\n", told(issue))));
        }
        said
    });
    expected.assert_eq(&said);
}

#[test]
fn a_listener_that_cannot_be_listened_on_has_its_reason() {
    check_listeners(
        &[(
            "web",
            "{name: a, port: 80, protocol: HTTP},
             {name: b, port: 81, protocol: TCP},
             {name: c, port: 82, protocol: UDP},
             {name: d, port: 443, protocol: HTTPS},
             {name: e, port: 444, protocol: HTTPS, tls: {certificateRefs: [{group: wrong.example, name: x}]}},
             {name: f, port: 445, protocol: HTTPS, tls: {certificateRefs: [{name: x, namespace: shop}]}},
             {name: g, port: 446, protocol: HTTPS, tls: {certificateRefs: [{name: x}, {name: z}]}},
             {name: h, port: 83, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}, {kind: Odd}]}},
             {name: i, port: 84, protocol: HTTP, allowedRoutes: {kinds: [{group: odd.example, kind: HTTPRoute}]}}",
        )],
        "",
        &expect![[r#"
            web[0] ["HTTPRoute", "GRPCRoute"] 0 
            web[1] [] 0 UnsupportedProtocol spec.listeners[1]: connections that are not HTTP do not enter yet
            web[3] ["HTTPRoute", "GRPCRoute"] 0 InvalidCertificate spec.listeners[3]: it has no certificate
            web[4] ["HTTPRoute", "GRPCRoute"] 0 InvalidCertificate spec.listeners[4]: it has no certificate
            web[5] ["HTTPRoute", "GRPCRoute"] 0 NotPermitted spec.listeners[5]: no ReferenceGrant lets it use Secret shop/x
            web[6] ["HTTPRoute", "GRPCRoute"] 0 
            web[7] ["GRPCRoute"] 0 
            web[8] [] 0 
            Unsupported spec.listeners[2].protocol: `UDP` is not supported
            InvalidCertificate spec.listeners[4].tls.certificateRefs[0]: Secret of group `wrong.example` is no certificate that can be shown
            Remark spec.listeners[6].tls: only the first of its certificates is shown
            InvalidKind spec.listeners[7].allowedRoutes.kinds[1].kind: Odd of group `gateway.networking.k8s.io` is no route that can attach to it
            InvalidKind spec.listeners[8].allowedRoutes.kinds[0].kind: HTTPRoute of group `odd.example` is no route that can attach to it
        "#]],
    );
}

#[test]
fn of_gateways_that_want_one_port_the_oldest_has_it_and_of_one_gateway_nobody() {
    let https = "protocol: HTTPS, tls: {certificateRefs:";
    check_listeners(
        &[
            ("old", &format!("{{name: a, port: 80, protocol: HTTP}}, {{name: b, port: 443, {https} [{{name: x}}]}}}}")),
            (
                "new",
                &format!(
                    "{{name: a, port: 80, {https} [{{name: x}}]}}}}, {{name: b, port: 443, {https} [{{name: x}}]}}}},
                     {{name: c, port: 443, hostname: a.example, {https} [{{name: z}}]}}}}"
                ),
            ),
            (
                "other",
                &format!("{{name: a, port: 80, protocol: HTTP}}, {{name: b, port: 443, {https} [{{name: w}}]}}}}"),
            ),
            ("torn", &format!("{{name: a, port: 90, protocol: HTTP}}, {{name: b, port: 90, {https} [{{name: x}}]}}}}")),
        ],
        "",
        &expect![[r#"
            old[0] ["HTTPRoute", "GRPCRoute"] 0 
            old[1] ["HTTPRoute", "GRPCRoute"] 0 
            new[0] ["HTTPRoute", "GRPCRoute"] 0 ProtocolConflict spec.listeners[0]: port 80 is that of Gateway default/old, in another protocol
            new[1] ["HTTPRoute", "GRPCRoute"] 0 
            new[2] ["HTTPRoute", "GRPCRoute"] 0 
            other[0] ["HTTPRoute", "GRPCRoute"] 0 
            other[1] ["HTTPRoute", "GRPCRoute"] 0 HostnameConflict spec.listeners[1]: another certificate is shown at port 443 for its host
            torn[0] ["HTTPRoute", "GRPCRoute"] 0 ProtocolConflict spec.listeners[0]: port 90 is that of another listener of the gateway, in another protocol
            torn[1] ["HTTPRoute", "GRPCRoute"] 0 ProtocolConflict spec.listeners[1]: port 90 is that of another listener of the gateway, in another protocol
        "#]],
    );
}

#[test]
fn routes_are_counted_where_they_are_accepted() {
    let route = |kind: &str, name: &str, rest: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: default}}, \
             spec: {{{rest}}}}}\n---\n"
        )
    };
    let to =
        |parents: &str| format!("parentRefs: [{parents}], rules: [{{backendRefs: [{{name: reviews, port: 9080}}]}}]");
    let closed =
        "parentRefs: [{name: web}], rules: [{sessionPersistence: {}, backendRefs: [{name: reviews, port: 9080}]}]";
    let routes = route("HTTPRoute", "r1", &to("{name: web}"))
        + &route("HTTPRoute", "r2", &to("{name: web, sectionName: a}, {name: web, port: 80}"))
        + &route("GRPCRoute", "r3", &to("{name: web, sectionName: b}"))
        + &route("HTTPRoute", "r4", closed)
        + &route("HTTPRoute", "r5", &to("{name: elsewhere}"));
    check_listeners(
        &[(
            "web",
            "{name: a, port: 80, protocol: HTTP},
             {name: b, port: 81, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}},
             {name: c, port: 443, protocol: HTTPS, tls: {certificateRefs: [{kind: Odd, name: x}]}},
             {name: d, port: 82, protocol: TCP}",
        )],
        &routes,
        &expect![[r#"
            web[0] ["HTTPRoute", "GRPCRoute"] 2 
            web[1] ["GRPCRoute"] 1 
            web[2] ["HTTPRoute", "GRPCRoute"] 1 InvalidCertificate spec.listeners[2]: it has no certificate
            web[3] [] 0 UnsupportedProtocol spec.listeners[3]: connections that are not HTTP do not enter yet
            InvalidCertificate spec.listeners[2].tls.certificateRefs[0]: Odd of group `` is no certificate that can be shown
        "#]],
    );
}

#[test]
fn a_gateway_has_the_addresses_of_nodes_that_listen_to_all_of_it() {
    let object = "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: mesh}, \
                  spec: {controllerName: mesh.internal/controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: web, namespace: default, uid: u}, spec: {gatewayClassName: mesh,
 listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}, {name: c, port: 82, protocol: TCP}]}}";
    let world = cluster(object);
    let daemon = |last: u8, uid: &str, closed: &[&str]| {
        let closed = closed.iter().map(|name| ((*name).to_owned(), Closed::PortUnavailable)).collect();
        let listening = [(uid.to_owned(), Told { generation: 0, closed })].into();
        Daemon { node: last.to_string(), addresses: vec![[192, 0, 2, last].into()], listening }
    };
    // Of the listener that no object allows nothing is expected; what was told of another gateway of this name says nothing.
    let daemons = [daemon(3, "u", &[]), daemon(2, "u", &["b"]), daemon(1, "u", &["c"]), daemon(4, "before", &[])];
    let mut translator = Translator::new(Settings::default());
    let _all = translator.learn(&world, world.keys().map(|key| (key, None)));
    let standings = Standings::new(&world, &translator, OURS).hearing(Some(&daemons));
    let standing = standings.gateway(&Name::new("default", "web")).expect("it is there");
    assert_eq!(standing.addresses, [[192, 0, 2, 1], [192, 0, 2, 3]].map(std::net::IpAddr::from));
    let heard: Vec<_> = standing.listeners.iter().filter_map(|of| of.heard.as_ref()).map(|of| of.open).collect();
    assert_eq!(heard, [3, 2, 2]);
}

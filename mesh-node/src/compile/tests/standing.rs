//! How routes stand, from what users write to what they are told.

use super::routes::cluster;
use crate::compile::Standings;
use crate::model::{Attachment, Issue, Name};
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
    let found = with(&world, |standings| names.each_ref().map(|name| standings.gateway(name).map(|of| of.listeners)));
    assert_eq!(found, [Some(2), None, None]);
}

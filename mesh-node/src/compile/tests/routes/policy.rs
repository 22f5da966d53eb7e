use super::*;

fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n---\n"
    )
}

#[test]
fn the_clients_namespace_decides_before_the_hosts_and_the_root() {
    let all = [
        rule(
            "root",
            "istio-system",
            "{host: '*.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}",
        ),
        rule("own", "default", "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"),
        rule("clients", "shop", "{host: reviews.default.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}"),
        rule("elsewhere", "bank", "{host: ratings.default.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}"),
    ];
    check(
        &all.concat(),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          under reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] Random Mesh
          under, for c2, reviews.default.svc.cluster.local:9080@shop [10.0.1.1:9080 10.0.1.2:9080]
        10.96.0.2 ratings:3306 Opaque
          under ratings.default.svc.cluster.local:3306 [] RoundRobin Mesh
        10.96.0.2 ratings:9080 Undeclared
          under ratings.default.svc.cluster.local:9080 [10.0.1.3:9080] RoundRobin Mesh
        10.96.0.3 pay:80 Http
          under pay.shop.svc.cluster.local:80 [] RoundRobin Mesh
    "#]],
    );
}

#[test]
fn objects_for_one_host_add_up() {
    let all = [
        rule("a", "default", "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}"),
        rule(
            "b",
            "default",
            "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v2}}, {name: v2, labels: {version: v2}}]}",
        ),
        rule(
            "c",
            "default",
            "{host: reviews.default.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}",
        ),
    ];
    check(
        &all.concat(),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          under reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] Random Mesh
        DestinationRule default/b, spec.subsets[v1]: DestinationRule default/a is older and says it too; this one has no effect; keep one of them
        DestinationRule default/c, spec.trafficPolicy: DestinationRule default/a is older and says it too; this one has no effect; keep one of them
    "#]],
    );
}

#[test]
fn what_is_not_understood_closes_the_host() {
    let all = [
        rule("a", "default", "{host: reviews, trafficPolicy: {tls: {mode: MUTUAL}}}"),
        rule("b", "default", "{host: ratings, trafficPolicy: {loadBalancer: {warmup: {duration: 1s}}, odd: 1}}"),
    ];
    check(
        &all.concat(),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          under reviews.default.svc.cluster.local:9080 [] LeastRequest Mesh
        10.96.0.2 ratings:3306 Opaque
          under ratings.default.svc.cluster.local:3306 [] LeastRequest Mesh
        10.96.0.2 ratings:9080 Undeclared
          under ratings.default.svc.cluster.local:9080 [] LeastRequest Mesh
        DestinationRule default/a, spec.trafficPolicy.tls.mode: `MUTUAL` is not supported; use DISABLE, SIMPLE, ISTIO_MUTUAL
        DestinationRule default/b, spec.trafficPolicy.loadBalancer.warmup: it has no effect: a new endpoint takes its full share at once; remove it, or do not rely on it
        DestinationRule default/b, spec.trafficPolicy.odd: there is no such field; remove it, or correct its name
    "#]],
    );
}

#[test]
fn near_endpoints_come_first_where_the_service_asks_for_it() {
    let service = "{kind: Service, metadata: {name: reviews}, spec: {clusterIP: 10.96.0.1, trafficDistribution: PreferSameZone, ports: [{name: http, port: 9080}]}}\n---\n";
    check(
        service,
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          under reviews.default.svc.cluster.local:9080 [10.0.1.1:9080+1 10.0.1.2:9080] LeastRequest Mesh
    "#]],
    );
    check(
        &service.replace("SameZone", "SameNode"),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          under reviews.default.svc.cluster.local:9080 [10.0.1.1:9080+2 10.0.1.2:9080] LeastRequest Mesh
    "#]],
    );
}

#[test]
fn a_port_inherits_nothing_and_a_subset_does() {
    let all = rule(
        "a",
        "default",
        "{host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}, tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 9080}, tls: {mode: SIMPLE, sni: a.example.com}}]},
          subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}}}}}]}",
    );
    let route = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: r}, spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}}";
    check(
        &(all + route),
        &expect![[r#"
        10.96.0.1 reviews:9080 Http
          under reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] LeastRequest Originate(OriginateTls { sni: Some("a.example.com"), names: [], roots: None, insecure: false })
          routes
            Any => 1x reviews.default.svc.cluster.local:9080/v1 [10.0.1.1:9080] (VirtualService default/r http[0])
    "#]],
    );
}

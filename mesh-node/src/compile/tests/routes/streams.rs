use super::istio::istio;
use super::*;

/// A service that speaks TCP on one port and TLS on another, with one pod of each of two versions.
const DB: &str = "
{kind: Pod, metadata: {name: db-1, labels: {app: db, version: v1}}, spec: {nodeName: two}, status: {podIP: 10.0.2.1}}
---
{kind: Pod, metadata: {name: db-2, labels: {app: db, version: v2}}, spec: {nodeName: two}, status: {podIP: 10.0.2.2}}
---
{kind: Service, metadata: {name: db}, spec: {clusterIP: 10.96.0.7, ports: [{name: tcp, port: 3306}, {name: tls-db, port: 3307}]}}
---
{kind: EndpointSlice, metadata: {name: db-a, labels: {kubernetes.io/service-name: db}}, addressType: IPv4,
 ports: [{name: tcp, port: 3306}, {name: tls-db, port: 3307}], endpoints: [{addresses: [10.0.2.1]}, {addresses: [10.0.2.2]}]}
---
";
const SUBSETS: &str = "{host: db, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}";

fn db(rules: &str) -> String {
    let route = istio("VirtualService", "db", "default", &format!("{{hosts: [db], {rules}}}"));
    format!("{DB}{route}{}", istio("DestinationRule", "db", "default", SUBSETS))
}

#[test]
fn connections_are_split_over_subsets_and_the_first_rule_that_holds_for_a_client_counts() {
    check(
        &db("tcp: [
          {match: [{sourceLabels: {app: client}, port: 3306, destinationSubnets: [10.96.0.0/24]}], route: [{destination: {host: db, subset: v1}, weight: 90}, {destination: {host: db, subset: v2}, weight: 10}]},
          {match: [{sourceNamespace: shop}, {gateways: [edge]}], route: [{destination: {host: db, port: {number: 3307}}}]}]"),
        &expect![[r#"
            10.96.0.7 db:3306 Opaque
              streams
                others go on
              streams for c1
                ConnectionMatch { sni: None, destinations: Some(["10.96.0.0-10.96.0.255"]) } => 90x db.default.svc.cluster.local:3306/v1 [10.0.2.1:3306], 10x db.default.svc.cluster.local:3306/v2 [10.0.2.2:3306] (VirtualService default/db tcp[0])
                others go on
              streams for c2
                ConnectionMatch { sni: None, destinations: None } => 1x db.default.svc.cluster.local:3307 [10.0.2.1:3307 10.0.2.2:3307] (VirtualService default/db tcp[1])
                others go on
        "#]],
    );
}

#[test]
fn tls_is_routed_by_the_server_name_on_ports_that_speak_it_and_what_no_rule_means_is_refused_there() {
    check(
        &db("tcp: [{route: [{destination: {host: db, subset: v1}}]}], tls: [
          {match: [{sniHosts: [A.example, '*.b.example']}], route: [{destination: {host: db, subset: v2}}]},
          {match: [{sniHosts: ['*'], sourceNamespace: shop}], route: [{destination: {host: db, subset: v1}}]}]"),
        &expect![[r#"
            10.96.0.7 db:3306 Opaque
              streams
                ConnectionMatch { sni: None, destinations: None } => 1x db.default.svc.cluster.local:3306/v1 [10.0.2.1:3306] (VirtualService default/db tcp[0])
                others go on
            10.96.0.7 db:3307 Tls
              streams
                ConnectionMatch { sni: Some(Texts { exact: ["a.example"], others: [Suffix(".b.example")] }), destinations: None } => 1x db.default.svc.cluster.local:3307/v2 [10.0.2.2:3307] (VirtualService default/db tls[0])
                others are refused
              streams for c2
                ConnectionMatch { sni: Some(Texts { exact: ["a.example"], others: [Suffix(".b.example")] }), destinations: None } => 1x db.default.svc.cluster.local:3307/v2 [10.0.2.2:3307] (VirtualService default/db tls[0])
                ConnectionMatch { sni: None, destinations: None } => 1x db.default.svc.cluster.local:3307/v1 [10.0.2.1:3307] (VirtualService default/db tls[1])
                others are refused
        "#]],
    );
}

#[test]
fn a_rule_that_is_not_understood_or_leads_nowhere_refuses_what_it_means() {
    check(
        &db("tcp: [
          {match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: db}}]},
          {match: [{destinationSubnets: [here]}], route: [{destination: {host: db}}]},
          {route: []},
          {route: [{destination: {host: gone}}, {destination: {host: db, subset: v3}, weight: 1}]}], tls: [
          {route: [{destination: {host: db}}]},
          {match: [{port: 3307}], route: [{destination: {host: db}}]}]"),
        &expect![[r#"
            10.96.0.7 db:3306 Opaque
              streams
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/db tcp[0])
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/db tcp[1])
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/db tcp[2])
                ConnectionMatch { sni: None, destinations: None } => 0x !503, 1x !503 (VirtualService default/db tcp[3])
                others go on
            10.96.0.7 db:3307 Tls
              streams
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/db tls[0])
                ConnectionMatch { sni: None, destinations: None } =>  (VirtualService default/db tls[1])
                others are refused
            VirtualService default/db, spec.tcp[0].match[0].sourceSubnet: it is not supported; tell clients apart by `sourceLabels`
            VirtualService default/db, spec.tcp[1].match[0].destinationSubnets[0]: `here` is no address and no range such as 10.0.0.0/8; write it like 10.0.0.0/8 or fd00::/64
            VirtualService default/db, spec.tcp[2].route: nothing says where connections go; give a destination
            VirtualService default/db, spec.tcp[3]: no DestinationRule for db.default.svc.cluster.local has a subset v3; connections that fall to it are refused; create one
            VirtualService default/db, spec.tcp[3]: there is no Service default/gone; connections that fall to it are refused; create it, or correct the name
            VirtualService default/db, spec.tls[0].match: nothing says which server names are meant; give `sniHosts`
            VirtualService default/db, spec.tls[1].match[0].sniHosts: no server name is given; give one; `*` is every one
        "#]],
    );
}

#[test]
fn rules_that_no_port_takes_are_told() {
    let outside = istio(
        "ServiceEntry",
        "outside",
        "default",
        "{hosts: [db.example], resolution: DNS, ports: [{number: 5432, name: tcp, protocol: TCP}]}",
    );
    let route = |name: &str, host: &str, rules: &str| {
        istio("VirtualService", name, "default", &format!("{{hosts: [{host}], {rules}}}"))
    };
    let tcp = |host: &str| format!("tcp: [{{route: [{{destination: {{host: {host}}}}}]}}]");
    let tls = |host: &str| {
        format!("tls: [{{match: [{{sniHosts: [a.example]}}], route: [{{destination: {{host: {host}}}}}]}}]")
    };
    let rules = [
        route("requests", "reviews", &format!("{}, {}", tcp("reviews"), tls("reviews"))),
        route("a", "ratings", &tcp("reviews")),
        route("b", "ratings", &tcp("ratings")),
        route("outside", "db.example", &format!("{}, {}", tcp("db.example"), tls("db.example"))),
        route("edge", "x.example", &format!("gateways: [door], {}", tcp("ratings"))),
    ];
    check(
        &(outside + &rules.concat()),
        &expect![[r#"
        10.96.0.2 ratings:3306 Opaque
          streams
            ConnectionMatch { sni: None, destinations: None } => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (VirtualService default/a tcp[0])
            others go on
        10.96.0.2 ratings:9080 Undeclared
          streams
            ConnectionMatch { sni: None, destinations: None } => 1x reviews.default.svc.cluster.local:9080 [10.0.1.1:9080 10.0.1.2:9080] (VirtualService default/a tcp[0])
            others go on
        db.example for Everyone:5432 Opaque
          under db.example:5432 Dns([("db.example", 5432)]) LeastRequest Mesh
          streams
            ConnectionMatch { sni: None, destinations: None } => 1x db.example:5432 Dns([("db.example", 5432)]) (VirtualService default/outside tcp[0])
            others go on
        ServiceEntry default/outside, spec.addresses: connections to db.example port 5432 are told by its addresses, and it has none: rules for them are not enforced; list some
        VirtualService default/b, spec.hosts: VirtualService default/a routes ratings.default.svc.cluster.local port 3306, where this one has no effect; put the rules into one object
        VirtualService default/b, spec.hosts: VirtualService default/a routes ratings.default.svc.cluster.local port 9080, where this one has no effect; put the rules into one object
        VirtualService default/edge, spec.tcp: connections that are not HTTP do not enter yet; at gateways the rules have no effect; name no gateway but `mesh`
        VirtualService default/outside, spec.tls: no port of db.example that speaks TLS takes the rules; let a port's name or appProtocol say `tls` or `https`
        VirtualService default/requests, spec.tcp: no port of Service default/reviews that speaks anything but HTTP and TLS takes the rules; let a port's name or appProtocol say `tcp`, or nothing
        VirtualService default/requests, spec.tls: no port of Service default/reviews that speaks TLS takes the rules; let a port's name or appProtocol say `tls` or `https`
    "#]],
    );
}

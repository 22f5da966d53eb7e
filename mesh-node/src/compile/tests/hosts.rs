//! Hosts that are no services of the cluster.

use super::routes::{check, cluster};
use super::*;

const GOOGLE: &str = "
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: googleapis}, spec: {
 hosts: [www.googleapis.com], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}], resolution: DNS}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: rewrite}, spec: {hosts: [www.googleapis.com],
 http: [{match: [{port: 80}], route: [{destination: {host: www.googleapis.com, port: {number: 443}}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: originate}, spec: {host: www.googleapis.com,
 trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}}}
";

#[test]
fn a_host_by_name_is_routed_and_its_tls_is_originated() {
    check(
        GOOGLE,
        &expect![[r#"
            www.googleapis.com for Everyone:443 Tls
              under www.googleapis.com:443 Dns([("www.googleapis.com", 443)]) LeastRequest Originate(OriginateTls { sni: None, names: [], roots: None, insecure: false })
            www.googleapis.com for Everyone:80 Http
              under www.googleapis.com:80 Dns([("www.googleapis.com", 80)]) RoundRobin Mesh
              routes
                Any => 1x www.googleapis.com:443 Dns([("www.googleapis.com", 443)]) (VirtualService default/rewrite http[0])
        "#]],
    );
}

#[test]
fn endpoints_are_listed_or_selected_and_addresses_are_dialled() {
    check(
        "
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: vm}, spec: {hosts: [db.example.com], addresses: [10.200.0.1, 10.96.0.1, 10.201.0.0/16],
 ports: [{number: 3306, name: tcp-db, protocol: TCP, targetPort: 3307}], resolution: STATIC, workloadSelector: {labels: {app: db}}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm1, labels: {app: db}}, spec: {address: 192.168.0.1, weight: 3, ports: {tcp-db: 13306}}}
---
{kind: Pod, metadata: {name: db, labels: {app: db}}, status: {podIP: 10.0.1.9}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: any}, spec: {hosts: ['*.example.org'], exportTo: [shop],
 ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: odd}, spec: {hosts: ['*.example.net'], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: zz}, spec: {hosts: [db.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC}}
",
        &expect![[r#"
            *.example.net for Everyone:80 Http
              under *.example.net:80 [] LeastRequest Mesh
            *.example.org for Namespaces({"shop"}):443 Tls
              under *.example.org:443@default/any Original LeastRequest Mesh
            10.200.0.1 db.example.com:3306 Opaque
              under db.example.com:3306 [10.0.1.9:3307 192.168.0.1:13306*3] LeastRequest Mesh
            db.example.com for Everyone:3306 Opaque
              under db.example.com:3306 [10.0.1.9:3307 192.168.0.1:13306*3] LeastRequest Mesh
            ServiceEntry default/odd, spec.resolution: a name with a star leads nowhere; list endpoints, or use NONE
            ServiceEntry default/vm, spec.addresses: 10.96.0.1 belongs to reviews.default.svc.cluster.local, which keeps it; give it another address
            ServiceEntry default/vm, spec.addresses[2]: a range of addresses is not looked at; connections to it go as they are; list addresses
            ServiceEntry default/zz, spec.hosts: ServiceEntry default/vm is older and describes db.example.com for the same clients; keep one of them
        "#]],
    );
}

#[test]
fn the_entry_that_says_most_of_a_name_and_of_the_clients_is_found() {
    let entry = |name: &str, host: &str, export: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}}}, spec: {{hosts: ['{host}'], exportTo: [{export}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: NONE}}}}\n---\n"
        )
    };
    let world = cluster(
        &[
            entry("a", "*.example.com", "'*'"),
            entry("b", "*.b.example.com", "shop"),
            entry("c", "c.b.example.com", "bank"),
        ]
        .concat(),
    );
    let hosts = &compiled(&world).directory.hosts;
    let find = |host: &str, namespace: &str| hosts.find(host, namespace).map(|entry| entry.name.host.clone());
    assert_eq!(find("c.b.example.com", "bank").as_deref(), Some("c.b.example.com"));
    assert_eq!(find("c.b.example.com", "shop").as_deref(), Some("*.b.example.com"));
    assert_eq!(find("c.b.example.com", "default").as_deref(), Some("*.example.com"));
    assert_eq!(find("example.com", "default"), None);
}

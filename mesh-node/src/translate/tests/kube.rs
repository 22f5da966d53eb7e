//! Tests of the Kubernetes translator, as data.

use super::*;

/// One line per workload, then the issues.
fn check_pods(yaml: &str, expected: &Expect) {
    let (model, issues) = model(yaml);
    expected.assert_eq(&(workloads(&model) + &lines(&issues)));
}

fn workloads(model: &Model) -> String {
    let mut text = String::new();
    for workload in model.workloads.values() {
        let enrolled = if workload.enrolled { "in" } else { "out" };
        writeln!(
            text,
            "{} {:?} {} of {}, {enrolled}",
            workload.name,
            workload.addresses,
            workload.identity.principal(),
            workload.controller
        )
        .expect("writing to a string");
    }
    text
}

/// One line per service port, then the issues.
fn check_services(yaml: &str, expected: &Expect) {
    let (model, issues) = model(yaml);
    let mut text = String::new();
    for service in model.services.values() {
        let flags = [(service.client_affinity, " affinity"), (service.local_only, " local")];
        let flags: String = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
        writeln!(text, "{} {:?}{flags}", service.name, service.addresses).expect("writing to a string");
        for port in &service.ports {
            write!(text, "  {}:", port.port).expect("writing to a string");
            for endpoint in &port.endpoints {
                write!(text, " {}:{}", endpoint.address, endpoint.port).expect("writing to a string");
            }
            text.push('\n');
        }
    }
    expected.assert_eq(&(text + &lines(&issues)));
}

#[test]
fn a_pod_joins_by_its_own_label_or_its_namespaces() {
    check_pods(
        "
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
kind: Namespace
metadata: {name: odd, labels: {istio.io/dataplane-mode: sidecar}}
---
{kind: Pod, metadata: {name: a, namespace: shop}}
---
{kind: Pod, metadata: {name: b, namespace: shop, labels: {istio.io/dataplane-mode: none}}}
---
{kind: Pod, metadata: {name: c, namespace: shop, labels: {istio.io/dataplane-mode: maybe}}}
---
{kind: Pod, metadata: {name: d, namespace: shop}, spec: {hostNetwork: true}}
---
{kind: Pod, metadata: {name: e, namespace: odd}}
---
{kind: Pod, metadata: {name: f, labels: {istio.io/dataplane-mode: ambient}}, spec: {serviceAccountName: me}}
---
{kind: Pod, metadata: {name: g, namespace: kube-system, labels: {istio.io/dataplane-mode: ambient}}}
---
{kind: Pod, metadata: {name: h}, spec: {serviceAccountName: a/sa/b}}
",
        &expect![[r#"
            default/f [] cluster.local/ns/default/sa/me of f, in
            kube-system/g [] cluster.local/ns/kube-system/sa/default of g, out
            odd/e [] cluster.local/ns/odd/sa/default of e, out
            shop/a [] cluster.local/ns/shop/sa/default of a, in
            shop/b [] cluster.local/ns/shop/sa/default of b, out
            shop/c [] cluster.local/ns/shop/sa/default of c, in
            shop/d [] cluster.local/ns/shop/sa/default of d, out
            Namespace odd, metadata.labels[istio.io/dataplane-mode]: `sidecar` is no mode; its pods are not in the mesh unless they ask for it; use `ambient` or `none`
            Pod default/h, spec.serviceAccountName: `spiffe://cluster.local/ns/default/sa/a/sa/b` is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>; the pod has no identity and stays out of the mesh; use a valid name for the service account
            Pod kube-system/g, metadata.labels[istio.io/dataplane-mode]: the pod cannot be in the mesh: the node needs the pods of kube-system to come up; remove the label
            Pod shop/c, metadata.labels[istio.io/dataplane-mode]: `maybe` is no mode; the namespace decides: it is in the mesh; use `ambient` or `none`, or remove the label
        "#]],
    );
}

#[test]
fn addresses_come_from_the_status_or_calicos_annotation() {
    check_pods(
        "
{kind: Pod, metadata: {name: a}, status: {podIP: 10.0.0.1}}
---
{kind: Pod, metadata: {name: b}, status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}, {ip: 'fd00::2'}]}}
---
kind: Pod
metadata:
  name: c
  annotations: {cni.projectcalico.org/podIP: 10.0.0.3/32, cni.projectcalico.org/podIPs: '10.0.0.3/32,fd00::3/128', big: one}
---
kind: Pod
metadata: {name: d, annotations: {cni.projectcalico.org/podIPs: ''}}
status: {podIP: 10.0.0.4}
---
{kind: Pod, metadata: {name: e}, status: {phase: Succeeded, podIP: 10.0.0.5}}
---
{kind: Pod, metadata: {name: f}, status: {podIPs: [{ip: nonsense}, {ip: 127.0.0.1}, {ip: '::ffff:10.0.0.6'}]}}
",
        &expect![[r#"
            default/a [10.0.0.1] cluster.local/ns/default/sa/default of a, out
            default/b [10.0.0.2, fd00::2] cluster.local/ns/default/sa/default of b, out
            default/c [10.0.0.3, fd00::3] cluster.local/ns/default/sa/default of c, out
            default/d [] cluster.local/ns/default/sa/default of d, out
            default/f [10.0.0.6] cluster.local/ns/default/sa/default of f, out
            Pod default/f, status.podIPs: `127.0.0.1` is a loopback address; it is not used; give the address by which other pods reach it
            Pod default/f, status.podIPs: `nonsense` is no IP address; it is not used; give the address by which other pods reach it
        "#]],
    );
}

#[test]
fn an_address_that_two_claim_is_nobodys() {
    check_pods(
        "
{kind: Pod, metadata: {name: a}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}
---
{kind: Pod, metadata: {name: b}, status: {podIP: 10.0.0.1}}
---
{kind: Pod, metadata: {name: c}, status: {podIP: 10.0.0.1}}
---
{kind: Pod, metadata: {name: node1}, spec: {hostNetwork: true}, status: {podIP: 192.168.0.1}}
---
{kind: Pod, metadata: {name: node2}, spec: {hostNetwork: true}, status: {podIP: 192.168.0.1}}
---
{kind: Pod, metadata: {name: ended}, status: {phase: Failed, podIP: 'fd00::1'}}
",
        &expect![[r#"
            default/a [fd00::1] cluster.local/ns/default/sa/default of a, out
            default/b [] cluster.local/ns/default/sa/default of b, out
            default/c [] cluster.local/ns/default/sa/default of c, out
            default/node1 [192.168.0.1] cluster.local/ns/default/sa/default of node1, out
            default/node2 [192.168.0.1] cluster.local/ns/default/sa/default of node2, out
            Pod default/a, status.podIPs: Pod default/b claims 10.0.0.1 too; neither is believed, the mesh knows nobody there; delete the pod that does not run
            Pod default/b, status.podIPs: Pod default/a claims 10.0.0.1 too; neither is believed, the mesh knows nobody there; delete the pod that does not run
            Pod default/c, status.podIPs: Pod default/a claims 10.0.0.1 too; neither is believed, the mesh knows nobody there; delete the pod that does not run
        "#]],
    );
}

#[test]
fn the_controller_is_what_people_made() {
    check_pods(
        "
kind: Pod
metadata:
  name: reviews-v1-5b5d4-x
  labels: {pod-template-hash: 5b5d4}
  ownerReferences: [{kind: Thing, name: other}, {kind: ReplicaSet, name: reviews-v1-5b5d4, controller: true}]
---
{kind: Pod, metadata: {name: x, ownerReferences: [{kind: ReplicaSet, name: lonely, controller: true}]}}
---
{kind: Pod, metadata: {name: db-0, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}}
---
{kind: Pod, metadata: {name: j, ownerReferences: [{kind: Job, name: nightly-28391040, controller: true}]}}
---
{kind: Pod, metadata: {name: k, ownerReferences: [{kind: Job, name: once, controller: true}]}}
",
        &expect![[r#"
            default/db-0 [] cluster.local/ns/default/sa/default of db, out
            default/j [] cluster.local/ns/default/sa/default of nightly, out
            default/k [] cluster.local/ns/default/sa/default of once, out
            default/reviews-v1-5b5d4-x [] cluster.local/ns/default/sa/default of reviews-v1, out
            default/x [] cluster.local/ns/default/sa/default of lonely, out
        "#]],
    );
}

#[test]
fn this_nodes_sandboxes_tell_addresses() {
    let mut world = world(
        "
{kind: Pod, metadata: {name: a}}
---
{kind: Pod, metadata: {name: b, uid: b-uid}, status: {podIP: 10.0.0.2}}
---
{kind: Pod, metadata: {name: c}, status: {podIP: 10.0.0.3}}
",
    );
    for (pod, uid, address) in [
        ("a", None, "10.0.0.9"),
        ("b", Some("b-uid"), "10.0.0.22"),
        ("b", Some("old"), "10.0.0.21"),
        ("c", None, "10.0.0.33"),
    ] {
        world.apply(Change::Attach(Attachment {
            container_id: address.to_owned(),
            ifname: "eth0".to_owned(),
            netns: "/run/netns/x".to_owned(),
            pod_namespace: "default".to_owned(),
            pod_name: pod.to_owned(),
            pod_uid: uid.map(str::to_owned),
            addresses: vec![address.parse().expect("an address")],
        }));
    }
    let (model, issues) = translate(&world, &Settings::default());
    // The status of `b` is of its former sandbox.
    expect![[r#"
        default/a [10.0.0.9] cluster.local/ns/default/sa/default of a, out
        default/b [10.0.0.22] cluster.local/ns/default/sa/default of b, out
        default/c [10.0.0.3] cluster.local/ns/default/sa/default of c, out
    "#]]
    .assert_eq(&(workloads(&model) + &lines(&issues)));
}

#[test]
fn endpoints_answer_for_ports_of_their_name() {
    check_services(
        "
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd01::1']
  externalIPs: [203.0.113.7]
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, targetPort: www}, {name: admin, port: 81}, {name: dns, port: 53, protocol: UDP}]
status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, {hostname: lb}, {ip: 198.51.100.2, ipMode: Proxy}]}}
---
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}, {name: admin}]
endpoints:
- {addresses: [10.0.0.2, 10.0.0.3]}
- {addresses: [10.0.0.1], conditions: {ready: true}}
- {addresses: [10.0.0.4], conditions: {ready: false}}
---
kind: EndpointSlice
metadata: {name: web-2, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}, {addresses: ['fd00::9']}]
---
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8080}, {name: admin, port: 8081}]
endpoints: [{addresses: ['fd00::1']}]
",
        &expect![[r#"
            default/web [10.96.0.1, fd01::1, 203.0.113.7, 198.51.100.1] affinity
              80: 10.0.0.1:8080 10.0.0.2:8080 fd00::1:8080
              81: fd00::1:8081
            EndpointSlice default/web-2, endpoints.addresses: `fd00::9` is not of the slice's type, IPv4; it is not used; put it into a slice of its own type
        "#]],
    );
}

#[test]
fn terminating_endpoints_serve_when_no_ready_one_does() {
    let service = "
{kind: Service, metadata: {name: s}, spec: {clusterIP: 10.96.0.1, internalTrafficPolicy: POLICY, ports: [{port: 80}]}}
---
kind: EndpointSlice
metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{port: 80}]
endpoints:
- {addresses: [10.0.0.1], nodeName: one, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.2], nodeName: one, conditions: {ready: false, serving: false, terminating: true}}
- {addresses: [10.0.0.3], nodeName: two, conditions: {ready: READY}}
";
    let with = |policy: &str, ready: &str| service.replace("POLICY", policy).replace("READY", ready);
    check_services(
        &with("Cluster", "true"),
        &expect![[r#"
        default/s [10.96.0.1]
          80: 10.0.0.3:80
    "#]],
    );
    check_services(
        &with("Cluster", "false"),
        &expect![[r#"
        default/s [10.96.0.1]
          80: 10.0.0.1:80
    "#]],
    );
    check_services(
        &with("Local", "true"),
        &expect![[r#"
        default/s [10.96.0.1] local
          80: 10.0.0.1:80 10.0.0.3:80
    "#]],
    );
    check_services(
        &with("Nearby", "true"),
        &expect![[r#"
        default/s [10.96.0.1] local
          80: 10.0.0.1:80 10.0.0.3:80
        Service default/s, spec.internalTrafficPolicy: `Nearby` is no policy; only endpoints on the client's node are used; use `Cluster` or `Local`
    "#]],
    );
}

#[test]
fn services_of_every_kind() {
    check_services(
        "
{kind: Service, metadata: {name: headless}, spec: {clusterIP: None, ports: [{port: 80}]}}
---
{kind: Service, metadata: {name: outside}, spec: {type: ExternalName, externalName: example.org}}
---
{kind: Service, metadata: {name: pending}, spec: {ports: [{port: 80}, {port: 80, name: again}, {port: 81, protocol: QUIC}]}}
---
kind: EndpointSlice
metadata: {name: h, labels: {kubernetes.io/service-name: headless}}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
---
{kind: EndpointSlice, metadata: {name: lost, labels: {kubernetes.io/service-name: nowhere}}, addressType: IPv4}
---
{kind: EndpointSlice, metadata: {name: fqdn, labels: {kubernetes.io/service-name: pending}}, addressType: FQDN}
---
{kind: EndpointSlice, metadata: {name: foreign}, addressType: IPv4}
",
        &expect![[r#"
            default/headless []
              80: 10.0.0.1:8080
            default/pending []
              80:
            EndpointSlice default/fqdn, addressType: `FQDN` is not supported; its endpoints are not used; use IPv4 or IPv6
            EndpointSlice default/lost, metadata.labels[kubernetes.io/service-name]: there is no Service default/nowhere; its endpoints answer for nothing; create the service or correct the label
            Service default/pending, spec.ports.port: port 80 is listed twice; ``, the first, is used; remove one
            Service default/pending, spec.ports.protocol: `QUIC` is no protocol; the port 81 is refused; use TCP, UDP or SCTP
        "#]],
    );
}

#[test]
fn an_address_belongs_to_the_oldest_service() {
    check_services(
        "
{kind: Service, metadata: {name: a, creationTimestamp: '2026-01-02T00:00:00Z'}, spec: {clusterIP: 10.96.0.1}}
---
{kind: Service, metadata: {name: b, creationTimestamp: '2026-01-01T00:00:00Z'}, spec: {clusterIP: 10.96.0.1}}
---
{kind: Service, metadata: {name: c, creationTimestamp: '2026-01-02T00:00:00Z'}, spec: {clusterIP: 10.96.0.2, externalIPs: [10.96.0.2, 10.96.0.1]}}
",
        &expect![[r#"
            default/a []
            default/b [10.96.0.1]
            default/c [10.96.0.2]
            Service default/a, spec.clusterIP: 10.96.0.1 belongs to Service default/b, which is older and keeps it; give each service an address of its own
            Service default/c, spec.externalIPs: 10.96.0.1 belongs to Service default/b, which is older and keeps it; give each service an address of its own
        "#]],
    );
}

#[test]
fn named_container_ports_are_kept() {
    let (model, _) = model(
        "
kind: Pod
metadata: {name: a}
spec:
  containers:
  - ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}, {containerPort: 1}]
  - ports: [{name: http, containerPort: 9090}, {name: admin, containerPort: 9091, protocol: TCP}]
",
    );
    let ports = &model.workloads[&Name::new("default", "a")].port_names;
    expect![[r#"{"admin": 9091, "http": 8080}"#]].assert_eq(&format!("{ports:?}"));
}

#[test]
fn the_ports_of_probes_are_those_that_the_kubelet_connects_to() {
    let (model, issues) = model(
        "
kind: Pod
metadata: {name: a}
spec:
  initContainers:
  - startupProbe: {grpc: {port: 7070}}
  containers:
  - ports: [{name: http, containerPort: 8080}]
    livenessProbe: {httpGet: {port: http, path: /}}
    readinessProbe: {tcpSocket: {port: 9090}}
    startupProbe: {exec: {command: [\"true\"]}}
    lifecycle: {preStop: {httpGet: {port: 8081}}}
  - livenessProbe: {httpGet: {port: http}}
    readinessProbe: {tcpSocket: {port: 6060, host: 10.0.0.1}}
",
    );
    assert_eq!(issues, []);
    let ports = &model.workloads[&Name::new("default", "a")].probe_ports;
    expect![[r#"{7070, 8080, 8081, 9090}"#]].assert_eq(&format!("{ports:?}"));
}

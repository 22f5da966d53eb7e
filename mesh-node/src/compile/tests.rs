use super::{Compiler, Settings};
use crate::snapshot::NodeSnapshot;
use crate::translate;
use crate::world::fixture::world;
use crate::world::{Attachment, Change, World};
use expect_test::{Expect, expect};
use std::fmt::Write;
use std::sync::Arc;

mod announced;
mod edge;
mod history;
mod hosts;
mod policies;
mod routes;
mod scale;
mod standing;

fn settings() -> Settings {
    Settings { node: "one".to_owned(), ..Settings::default() }
}

fn compiled(world: &World) -> NodeSnapshot {
    Compiler::of(world, translate::Settings::default(), settings()).snapshot()
}

fn attach(world: &mut World, pod: &str, container_id: &str, uid: Option<&str>, addresses: &[&str]) {
    world.apply(Change::Attach(Attachment {
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
        netns: format!("/run/netns/{container_id}"),
        pod_namespace: "default".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: uid.map(str::to_owned),
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
    }));
}

/// Pods, then workloads, services and owned ports, then issues.
fn text(snapshot: &NodeSnapshot) -> String {
    let mut lines = Vec::new();
    for pod in snapshot.pods.values() {
        lines.push(format!("pod {} {} {} {} {:?}", pod.key, pod.name, pod.netns, pod.ifname, pod.addresses));
    }
    let directory = &snapshot.directory;
    let mut found: Vec<String> = Vec::new();
    for (address, workload) in directory.workloads.iter() {
        let mut inbound = "out".to_owned();
        if let Some(modes) = &workload.inbound {
            inbound = format!("{:?}", modes.default);
            for (port, mode) in &modes.ports {
                write!(inbound, " {port}={mode:?}").expect("writing to a string");
            }
        }
        let labels = &workload.labels;
        found.push(format!("workload {address} {}/{} {inbound}", labels.namespace, labels.workload));
    }
    for (address, service) in directory.services.iter() {
        for port in &service.ports {
            let affinity = if service.client_affinity { " affinity" } else { "" };
            found.push(format!("service {address}:{}{affinity} {} {:?}", port.port, service.name.host, port.endpoints));
        }
    }
    for address in directory.endpoints.keys() {
        found.extend(directory.service_of(&address).map(|service| format!("port {address} of {}", service.host)));
    }
    found.sort();
    lines.extend(found);
    lines.extend(snapshot.issues.iter().map(ToString::to_string));
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn check(world: &World, expected: &Expect) {
    let snapshot = compiled(world);
    assert_eq!(snapshot, compiled(world), "an equal world gives an equal snapshot");
    expected.assert_eq(&text(&snapshot));
}

const SHOP: &str = "
{kind: Namespace, metadata: {name: default, labels: {istio.io/dataplane-mode: ambient}}}
---
{kind: Pod, metadata: {name: a, uid: a1, labels: {app: a}}, spec: {nodeName: one}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}
---
{kind: Pod, metadata: {name: b, labels: {app: a}}, spec: {nodeName: two}, status: {podIP: 10.0.0.2}}
---
{kind: Pod, metadata: {name: host}, spec: {nodeName: one, hostNetwork: true}, status: {podIP: 192.168.0.1}}
---
{kind: Pod, metadata: {name: aside, labels: {istio.io/dataplane-mode: none}}, status: {podIP: 10.0.0.4}}
---
{kind: PeerAuthentication, metadata: {name: p}, spec: {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {9000: {mode: DISABLE}}}}
---
{kind: Service, metadata: {name: web}, spec: {clusterIPs: [10.96.0.1, 'fd01::1'], sessionAffinity: ClientIP, ports: [{port: 80}]}}
---
{kind: Service, metadata: {name: near}, spec: {clusterIP: 10.96.0.2, internalTrafficPolicy: Local, ports: [{port: 80}]}}
---
{kind: Service, metadata: {name: headless}, spec: {clusterIP: None, ports: [{port: 81}]}}
---
kind: EndpointSlice
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}, {addresses: [203.0.113.1]}]
---
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{port: 8080}]
endpoints: [{addresses: ['fd00::1']}]
---
kind: EndpointSlice
metadata: {name: near-4, labels: {kubernetes.io/service-name: near}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1], nodeName: one}, {addresses: [10.0.0.2], nodeName: two}, {addresses: [10.0.0.4]}]
---
kind: EndpointSlice
metadata: {name: headless-4, labels: {kubernetes.io/service-name: headless}}
addressType: IPv4
ports: [{port: 8081}]
endpoints: [{addresses: [10.0.0.1]}]
";

#[test]
fn a_node_knows_who_is_where() {
    let mut world = world(SHOP);
    attach(&mut world, "a", "c1", Some("a1"), &["10.0.0.1", "fd00::1"]);
    attach(&mut world, "aside", "c2", None, &["10.0.0.4"]);
    check(
        &world,
        &expect![[r#"
        pod c1 default/a /run/netns/c1 eth0 [10.0.0.1, fd00::1]
        port 10.0.0.1:8080 of near.default.svc.cluster.local
        port 10.0.0.1:8081 of headless.default.svc.cluster.local
        port 10.0.0.2:8080 of near.default.svc.cluster.local
        port 10.0.0.4:8080 of near.default.svc.cluster.local
        port [fd00::1]:8080 of web.default.svc.cluster.local
        service 10.96.0.1:80 affinity web.default.svc.cluster.local [10.0.0.1:8080, 10.0.0.2:8080, 203.0.113.1:8080]
        service 10.96.0.2:80 near.default.svc.cluster.local [10.0.0.1:8080]
        service fd01::1:80 affinity web.default.svc.cluster.local [[fd00::1]:8080]
        workload 10.0.0.1 default/a Strict 9000=Disable
        workload 10.0.0.2 default/b Strict 9000=Disable
        workload 10.0.0.4 default/aside out
        workload fd00::1 default/a Strict 9000=Disable
    "#]],
    );
}

#[test]
fn a_sandbox_must_be_the_pods() {
    let mut world = world(SHOP);
    attach(&mut world, "a", "old", Some("a0"), &["10.0.0.9"]);
    attach(&mut world, "b", "moved", None, &["10.0.0.2"]);
    attach(&mut world, "nobody", "early", None, &["10.0.0.7"]);
    let snapshot = compiled(&world);
    assert!(snapshot.pods.is_empty());
    expect![[r#"
        Pod default/a, metadata.uid: the pod's UID is a1, but a sandbox on this node is of a pod of another; it waits; end the old sandbox, or wait for the new pod to be known
        Pod default/b, spec.nodeName: the pod is scheduled to node two, but a sandbox exists on one; it waits; end the old sandbox, or correct the node's name
        Pod default/nobody: a sandbox exists on this node, but no such pod that has not ended is known; it waits; create the pod, or end the sandbox
    "#]].assert_eq(&snapshot.issues.iter().fold(String::new(), |text, issue| text + &issue.to_string() + "\n"));
}

#[test]
fn of_two_sandboxes_of_a_pod_each_has_its_own_addresses() {
    let mut world = world(SHOP);
    attach(&mut world, "a", "c1", Some("a1"), &["10.0.0.1", "fd00::1"]);
    attach(&mut world, "a", "c2", Some("a1"), &["10.0.0.11"]);
    let pods = compiled(&world).pods;
    let addresses: Vec<_> = pods.values().map(|pod| (&*pod.key, &pod.addresses)).collect();
    expect![[r#"[("c1", [10.0.0.1, fd00::1]), ("c2", [10.0.0.11])]"#]].assert_eq(&format!("{addresses:?}"));
}

#[test]
fn equal_parts_are_shared() {
    let world = world(
        "
{kind: Pod, metadata: {name: a, labels: {app: a}, ownerReferences: [{kind: StatefulSet, name: s}]}, status: {podIP: 10.0.0.1}}
---
{kind: Pod, metadata: {name: b, labels: {app: a}, ownerReferences: [{kind: StatefulSet, name: s}]}, status: {podIP: 10.0.0.2}}
",
    );
    let directory = compiled(&world).directory;
    let entries: Vec<_> = directory.workloads.values().collect();
    assert!(Arc::ptr_eq(&entries[0].identity, &entries[1].identity));
    assert!(Arc::ptr_eq(&entries[0].labels, &entries[1].labels));
}

#[test]
fn labels_are_those_of_istios_standard_metrics() {
    let labels = |labels: &str| {
        let world =
            world(&format!("{{kind: Pod, metadata: {{name: p, labels: {labels}}}, status: {{podIP: 10.0.0.1}}}}"));
        let directory = compiled(&world).directory;
        let labels = directory.workloads.values().next().map(|entry| Arc::clone(&entry.labels)).expect("one workload");
        format!(
            "{} {} {} {} {} {} {}",
            labels.workload,
            labels.namespace,
            labels.app,
            labels.version,
            labels.canonical_service,
            labels.canonical_revision,
            labels.principal
        )
    };
    let principal = "cluster.local/ns/default/sa/default";
    for (given, expected) in [
        ("{}", "p default p unknown p latest"),
        ("{app: a, version: v1}", "p default a v1 a v1"),
        ("{app.kubernetes.io/name: k, app.kubernetes.io/version: '2', app: a}", "p default a unknown k 2"),
        (
            "{service.istio.io/canonical-name: c, service.istio.io/canonical-revision: r, app: a, version: v1}",
            "p default a v1 c r",
        ),
    ] {
        assert_eq!(labels(given), format!("{expected} {principal}"), "{given}");
    }
}

#[test]
fn issues_of_sources_are_told() {
    use crate::model::{Issue, Name, ObjectRef};
    let mut world = World::default();
    let issue = Issue::new(&ObjectRef::new("File", Name::new("", "a.yaml")), "line 3", "is broken", "mend it");
    world.apply(Change::Faults { origin: "a.yaml".to_owned(), issues: vec![issue.clone()] });
    assert_eq!(*compiled(&world).issues, [Arc::new(issue)]);
}

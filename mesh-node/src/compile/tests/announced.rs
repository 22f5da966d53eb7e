//! What nodes announce of their pods decides what is spoken to them.

use super::*;
use crate::model::{Announced, MtlsMode};

/// A node's own pod, and one of another node, of a namespace that demands mutual TLS and that is in the mesh if it says so.
fn cluster(label: &str, said: &str) -> World {
    let annotations = format!("{{mesh.internal/steered-by: {said}}}");
    let mut world = world(&format!(
        "
{{kind: Namespace, metadata: {{name: default, labels: {{istio.io/dataplane-mode: {label}}}}}}}
---
{{kind: PeerAuthentication, metadata: {{name: default}}, spec: {{mtls: {{mode: STRICT}}}}}}
---
{{kind: Pod, metadata: {{name: own, uid: u1, annotations: {annotations}}}, spec: {{nodeName: one}}, status: {{podIP: 10.0.0.1}}}}
---
{{kind: Pod, metadata: {{name: far, uid: u2, annotations: {annotations}}}, spec: {{nodeName: two}}, status: {{podIP: 10.0.0.2}}}}
"
    ));
    attach(&mut world, "own", "c1", Some("u1"), &["10.0.0.1"]);
    world
}

/// How the own pod's port is judged, `None` if it is not steered; and whether mutual TLS is spoken to the far pod.
fn judged(label: &str, said: &str) -> (Option<MtlsMode>, bool) {
    let settings = translate::Settings { installation: Some("i1".into()), ..translate::Settings::default() };
    let snapshot = Compiler::of(&cluster(label, said), settings, super::settings()).snapshot();
    let own = snapshot.pods.get("c1").map(|pod| pod.mode(80));
    let address = "10.0.0.2".parse::<std::net::IpAddr>().expect("an address");
    let far = snapshot.directory.workloads.get(&address).expect("the pod of the other node");
    (own, far.takes_mutual_tls)
}

#[test]
fn mutual_tls_is_spoken_to_pods_that_are_announced_and_no_others() {
    assert_eq!(judged("ambient", "i1"), (Some(MtlsMode::Strict), true));
    // Its node has no daemon, or one that has not come to it.
    assert_eq!(judged("ambient", "''"), (Some(MtlsMode::Permissive), false));
    // What an installation said that is gone.
    assert_eq!(judged("ambient", "i0"), (Some(MtlsMode::Permissive), false));
    assert_eq!(judged("none", "''"), (None, false));
}

#[test]
fn a_pod_takes_both_while_it_joins_and_while_it_leaves() {
    assert_eq!(judged("ambient", "i1/joining"), (Some(MtlsMode::Permissive), true));
    // The label is gone, and not all have heard.
    assert_eq!(judged("none", "i1"), (Some(MtlsMode::Permissive), true));
    assert_eq!(judged("none", "i1/leaving"), (Some(MtlsMode::Permissive), false));
}

#[test]
fn without_announcements_the_label_counts() {
    let settings = translate::Settings::default();
    let snapshot = Compiler::of(&cluster("ambient", "i1/leaving"), settings, super::settings()).snapshot();
    assert_eq!(snapshot.pods["c1"].announced, Announced::InForce);
    assert!(snapshot.directory.workloads.iter().all(|(_, workload)| workload.takes_mutual_tls));
}

#[test]
fn a_pod_of_the_nodes_network_or_of_kube_system_is_never_announced() {
    let settings = translate::Settings { installation: Some("i1".into()), ..translate::Settings::default() };
    let mut world = world(
        "
{kind: Pod, metadata: {name: dns, namespace: kube-system, uid: u1, annotations: {mesh.internal/steered-by: i1}}, spec: {nodeName: one}, status: {podIP: 10.0.0.1}}
",
    );
    world.apply(Change::Attach(Attachment {
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/c1".to_owned(),
        pod_namespace: "kube-system".to_owned(),
        pod_name: "dns".to_owned(),
        pod_uid: Some("u1".to_owned()),
        addresses: vec!["10.0.0.1".parse().expect("an address")],
    }));
    let snapshot = Compiler::of(&world, settings, super::settings()).snapshot();
    assert!(snapshot.pods.is_empty());
    assert!(snapshot.directory.workloads.iter().all(|(_, workload)| !workload.takes_mutual_tls));
}

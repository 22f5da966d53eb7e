use super::Packer;
use crate::world::Object;
use crate::world::fixture::object;

/// Each document, unpacked again.
fn check(yaml: &str) {
    let mut packer = Packer::default();
    for document in yaml.split("---\n").filter(|document| !document.trim().is_empty()) {
        let object = object(document);
        if let Object::Pod(pod) = &object {
            let (name, packed) = packer.pod(pod.clone());
            assert_eq!(name, pod.metadata.full_name());
            assert_eq!(packed.unpack(&name), *pod, "{document}");
            assert_eq!(packer.pod(packed.unpack(&name)).1, packed, "{document}");
        } else if let Object::EndpointSlice(slice) = &object {
            let (name, packed) = packer.slice(slice.clone());
            assert_eq!(name, slice.metadata.full_name());
            assert_eq!(packed.unpack(&name), *slice, "{document}");
            assert_eq!(packer.slice(packed.unpack(&name)).1, packed, "{document}");
        } else {
            panic!("{object:?} is not packed");
        }
    }
}

#[test]
fn what_is_unpacked_is_what_was_packed() {
    check(
        "
{kind: Pod, metadata: {name: bare}}
---
kind: Pod
metadata:
  name: whole
  namespace: shop
  uid: u-1
  creationTimestamp: 2026-01-31T12:00:00Z
  labels: {app: web, version: v1}
  annotations: {cni.projectcalico.org/podIP: 10.0.0.9/32}
  ownerReferences: [{kind: ReplicaSet, name: web, controller: true}, {kind: Other, name: o}]
spec:
  nodeName: worker-1
  serviceAccountName: web
  hostNetwork: true
  containers: [{ports: [{name: http, containerPort: 8080}], livenessProbe: {httpGet: {port: http}}}, {}]
  initContainers: [{readinessProbe: {tcpSocket: {port: 8080}}}]
status: {phase: Running, podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}, {ip: 'fd00::9'}]}
---
{kind: Pod, metadata: {name: one}, spec: {nodeName: ''}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}}
---
{kind: Pod, metadata: {name: only-primary}, status: {podIP: 10.0.0.1}}
---
{kind: Pod, metadata: {name: without-primary}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{kind: Pod, metadata: {name: other-primary}, status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.1}]}}
---
{kind: Pod, metadata: {name: unusual}, status: {podIP: 'FD00::1', podIPs: [{ip: 'FD00::1'}]}}
---
{kind: Pod, metadata: {name: odd}, status: {podIP: nonsense, podIPs: [{ip: nonsense}, {ip: ''}]}}
---
{kind: EndpointSlice, metadata: {name: bare}}
---
kind: EndpointSlice
metadata: {name: whole, uid: u-2, labels: {kubernetes.io/service-name: web}, ownerReferences: [{kind: Service, name: web}]}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: every}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true, serving: true, terminating: false}, nodeName: worker-1, zone: east}
- {addresses: [10.0.0.1, 10.0.0.2]}
- {addresses: []}
- {addresses: [nonsense], nodeName: ''}
- {addresses: [10.0.0.3], zone: west}
- {addresses: ['FD00::1'], conditions: {ready: false}}
",
    );
}

#[test]
fn a_pod_of_a_known_template_takes_little_room() {
    use std::mem::size_of;
    assert!(size_of::<super::PackedPod>() <= 56, "{} bytes", size_of::<super::PackedPod>());
    assert!(size_of::<super::PackedEndpoint>() <= 40, "{} bytes", size_of::<super::PackedEndpoint>());
    let mut packer = Packer::default();
    let mut pod = |name: &str, node: &str| {
        let text = format!("{{kind: Pod, metadata: {{name: {name}, labels: {{app: a}}}}, spec: {{nodeName: {node}}}}}");
        let Object::Pod(pod) = object(&text) else { panic!("a pod") };
        packer.pod(pod)
    };
    let ((first_name, first), (second_name, second)) = (pod("a-1", "one"), pod("a-2", "one"));
    assert!(std::sync::Arc::ptr_eq(&first.template, &second.template));
    assert!(std::sync::Arc::ptr_eq(&first_name.namespace, &second_name.namespace));
    assert!(first.rest.is_none());
}

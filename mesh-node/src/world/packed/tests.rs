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
        } else if let Object::Service(service) = &object {
            let (name, packed) = packer.service(service.clone());
            assert_eq!(name, service.metadata.full_name());
            assert_eq!(packed.unpack(&name), *service, "{document}");
            assert_eq!(packer.service(packed.unpack(&name)).1, packed, "{document}");
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
  annotations: {cni.projectcalico.org/podIP: 10.0.0.9/32, mesh.internal/steered-by: b1}
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
{kind: Pod, metadata: {name: modern}, status: {podIP: 'fd00::1', podIPs: [{ip: 'fd00::1'}]}}
---
{kind: Service, metadata: {name: bare}}
---
kind: Service
metadata: {name: whole, uid: u-3, creationTimestamp: 2026-01-31T12:00:00Z, labels: {app: web}, annotations: {cni.projectcalico.org/a: b}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd00::a']
  externalIPs: [192.0.2.1]
  ports: [{name: http, port: 80, protocol: TCP, appProtocol: http}]
  selector: {app: web, version: v1}
  sessionAffinity: ClientIP
  internalTrafficPolicy: Local
  trafficDistribution: PreferSameZone
status: {loadBalancer: {ingress: [{ip: 192.0.2.9, ipMode: VIP}]}}
---
{kind: Service, metadata: {name: one}, spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1]}}
---
{kind: Service, metadata: {name: modern}, spec: {clusterIP: 'fd00::a', clusterIPs: ['fd00::a']}}
---
{kind: Service, metadata: {name: only-primary}, spec: {clusterIP: 10.96.0.1}}
---
{kind: Service, metadata: {name: headless}, spec: {clusterIP: None, clusterIPs: [None]}}
---
{kind: Service, metadata: {name: other-primary}, spec: {clusterIP: 10.96.0.2, clusterIPs: [10.96.0.1, 10.96.0.2]}}
---
{kind: Service, metadata: {name: unusual}, spec: {clusterIP: 'FD00::A', clusterIPs: ['FD00::A']}}
---
{kind: EndpointSlice, metadata: {name: bare}}
---
kind: EndpointSlice
metadata: {name: v4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], zone: east}, {addresses: [10.0.0.2], nodeName: worker-1, conditions: {ready: false}}]
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
    assert!(size_of::<super::PackedPod>() <= 32, "{} bytes", size_of::<super::PackedPod>());
    let of_endpoint = size_of::<super::PackedEndpoint<std::net::Ipv4Addr>>();
    assert!(of_endpoint <= 16, "{of_endpoint} bytes");
    let mut packer = Packer::default();
    let mut pod = |name: &str, node: &str| {
        let text = format!("{{kind: Pod, metadata: {{name: {name}, labels: {{app: a}}}}, spec: {{nodeName: {node}}}}}");
        let Object::Pod(pod) = object(&text) else { panic!("a pod") };
        packer.pod(pod)
    };
    let ((first_name, first), (second_name, second)) = (pod("a-1", "one"), pod("a-2", "one"));
    assert!(std::sync::Arc::ptr_eq(&first.template, &second.template));
    assert!(crate::model::Text::ptr_eq(&first_name.namespace, &second_name.namespace));
    assert!(first.own.parts().1.is_none());
}

#[test]
fn services_that_differ_in_name_and_address_take_little_room() {
    let size = std::mem::size_of::<super::PackedService>();
    assert!(size <= 40, "{size} bytes");
    let mut packer = Packer::default();
    let mut service = |name: &str, address: &str| {
        let text = format!(
            "{{kind: Service, metadata: {{name: {name}, creationTimestamp: 2026-01-31T12:00:00Z}}, spec: {{clusterIP: {address},
              clusterIPs: [{address}], selector: {{app: {name}}}, ports: [{{port: 80}}]}}}}"
        );
        let Object::Service(service) = object(&text) else { panic!("a service") };
        packer.service(service).1
    };
    let (first, second) = (service("a", "10.96.0.1"), service("b", "10.96.0.2"));
    assert!(std::sync::Arc::ptr_eq(&first.shape, &second.shape));
    assert!(first.own.parts().1.is_none());
}

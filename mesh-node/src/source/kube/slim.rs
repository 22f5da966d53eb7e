//! What is kept of an object: what somebody reads.
//!
//! In:  objects as the API server has them, the name of this node.
//! Out: the same objects without the fields that nothing on this node reads.
//! Invariant: what a node does is the same with these fields and without them. A kind that begins to be read for one of
//! them says so here.
//! Invariant: a pod that is scheduled nowhere, or here, is kept whole.

use crate::api::core::{Container, Pod};
use crate::api::discovery::SERVICE_NAME_LABEL;
use crate::api::meta::ObjectMeta;
use crate::model::{Labels, Text};
use crate::world::Object;
use std::sync::Arc;

/// Drops what nobody reads of `object` on `node`.
pub(super) fn slim(object: &mut Object, node: &str) {
    match object {
        Object::Pod(pod) if pod.spec.node_name.as_deref().is_some_and(|of| !of.is_empty() && of != node) => {
            slim_elsewhere(pod);
        }
        Object::EndpointSlice(slice) => {
            let service = slice.metadata.labels.get_key_value(SERVICE_NAME_LABEL);
            let labels: Labels = service.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            slice.metadata = ObjectMeta { labels: Arc::new(labels), ..named(&slice.metadata) };
        }
        Object::Service(service) => {
            // The oldest of those that claim an address has it.
            let creation_timestamp = std::mem::take(&mut service.metadata.creation_timestamp);
            service.metadata = ObjectMeta { creation_timestamp, ..named(&service.metadata) };
        }
        Object::Pod(_)
        | Object::Namespace(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::PeerAuthentication(_)
        | Object::Custom(..) => {}
    }
}

fn named(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { name: metadata.name.clone(), namespace: metadata.namespace.clone(), ..ObjectMeta::default() }
}

/// Sandboxes and probes are the business of a pod's own node, policies speak of the names of its ports; that an object is the same as
/// before is read of its fields.
fn slim_elsewhere(pod: &mut Pod) {
    pod.metadata.uid.clear();
    pod.metadata.creation_timestamp = Text::default();
    for container in &mut pod.spec.containers {
        let ports = std::mem::take(&mut container.ports).into_iter();
        *container = Container { ports: ports.filter(|port| !port.name.is_empty()).collect(), ..Container::default() };
    }
    pod.spec.containers.retain(|container| !container.ports.is_empty());
    pod.spec.init_containers.clear();
    let has_address = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
    // An annotation of addresses precedes the status; an empty one takes back what the status says.
    pod.metadata.annotations.retain(|key, value| {
        let is_address = matches!(key.as_str(), "cni.projectcalico.org/podIP" | "cni.projectcalico.org/podIPs");
        if is_address { value.is_empty() || !has_address } else { !key.starts_with("cni.projectcalico.org/") }
    });
}

#[cfg(test)]
mod tests {

    use crate::world::fixture::object;
    use crate::world::{Change, World};

    const OBJECTS: &str = r#"
{kind: Namespace, metadata: {name: default, labels: {istio.io/dataplane-mode: ambient}}}
---
kind: Pod
metadata:
  name: a
  uid: u-1
  creationTimestamp: 2026-01-31T12:00:00Z
  labels: {app: web, pod-template-hash: x}
  annotations:
    cni.projectcalico.org/containerID: c1
    cni.projectcalico.org/podIP: 10.0.0.1/32
    cni.projectcalico.org/podIPs: 10.0.0.1/32
  ownerReferences: [{kind: ReplicaSet, name: web-x, controller: true}]
spec:
  nodeName: two
  serviceAccountName: web
  containers: [{ports: [{name: http, containerPort: 8080}], livenessProbe: {httpGet: {port: http}}}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
{kind: Pod, metadata: {name: early, annotations: {cni.projectcalico.org/podIP: 10.0.0.2/32}}, spec: {nodeName: two}}
---
{kind: Pod, metadata: {name: gone, annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: two}, status: {podIP: 10.0.0.3}}
---
{kind: Pod, metadata: {name: here, uid: u-2}, spec: {nodeName: one, containers: [{livenessProbe: {tcpSocket: {port: 80}}}]}, status: {podIP: 10.0.0.4}}
---
{kind: Pod, metadata: {name: unscheduled, uid: u-3}, spec: {containers: [{livenessProbe: {tcpSocket: {port: 80}}}]}}
---
{kind: Service, metadata: {name: web, creationTimestamp: 2026-01-31T12:00:00Z, labels: {app: web}}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
{kind: Service, metadata: {name: also, creationTimestamp: 2026-01-30T12:00:00Z, labels: {app: web}}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
kind: EndpointSlice
metadata: {name: web-4, uid: u-4, labels: {kubernetes.io/service-name: web, app: web}, ownerReferences: [{kind: Service, name: web}]}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1], nodeName: two}]
"#;

    fn worlds() -> (World, World) {
        let (mut whole, mut slim) = (World::default(), World::default());
        for document in OBJECTS.split("---\n") {
            let mut object = object(document);
            whole.apply(Change::Upsert(Box::new(object.clone())));
            super::slim(&mut object, "one");
            slim.apply(Change::Upsert(Box::new(object)));
        }
        (whole, slim)
    }

    #[test]
    fn a_node_does_the_same_without_what_nobody_reads() {
        use crate::{compile, translate};
        let snapshot = |world: &World| {
            let settings = compile::Settings { node: "one".to_owned(), ..compile::Settings::default() };
            compile::Compiler::of(world, translate::Settings::default(), settings).snapshot()
        };
        let (whole, slim) = worlds();
        assert_eq!(snapshot(&slim), snapshot(&whole));
        assert_eq!(snapshot(&slim).directory.workloads.len(), 3);
        assert_eq!(snapshot(&slim).issues.len(), 1, "two services claim one address");
    }

    #[test]
    fn pods_of_this_node_and_of_none_are_whole() {
        let (whole, slim) = worlds();
        let changed: Vec<_> =
            whole.pods().zip(slim.pods()).filter(|(whole, slim)| whole != slim).map(|(pod, _)| pod).collect();
        let names: Vec<_> = changed.iter().map(|pod| &*pod.metadata.name).collect();
        assert_eq!(names, ["a"]);
    }
}

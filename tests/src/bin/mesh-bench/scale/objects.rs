//! The objects of a large cluster, as its API server stores them.
//!
//! In:  a number of pods.
//! Out: keys and values of the store: namespaces, pods, services, endpoint slices.
//! Invariant: a pod looks as a Deployment's pod looks behind Calico: labels, owner, containers with probes, annotations of
//! the network plugin and of its node's daemon, a whole status. Ten pods make a service.

use serde_json::{Value, json};

/// Pods of a service.
pub(super) const OF_SERVICE: usize = 10;
/// Pods of a node elsewhere.
const OF_NODE: usize = 100;
const NAMESPACES: usize = 50;
const CREATED: &str = "2026-01-01T00:00:00Z";

/// A key of the store with its value.
pub(super) type Entry = (String, String);

fn uid(kind: u8, number: usize) -> String {
    format!("00000000-0000-4000-8{kind:03x}-{number:012x}")
}

/// The namespace of a service and its pods.
fn namespace(service: usize) -> String {
    format!("team-{:02}", service % NAMESPACES)
}

/// The address of a pod elsewhere.
fn address(number: usize) -> String {
    format!("10.{}.{}.{}", 100 + number / 62_500, number / 250 % 250, 2 + number % 250)
}

/// The name of a pod elsewhere, with its namespace.
pub(super) fn pod_name(number: usize) -> (String, String) {
    let service = number / OF_SERVICE;
    (namespace(service), format!("app-{service}-5d8f9c7b6d-{number:05x}"))
}

/// The name of a service's slice, with its namespace.
pub(super) fn slice_name(service: usize) -> (String, String) {
    (namespace(service), format!("app-{service}-x7k2p"))
}

/// Every namespace, all in the mesh.
pub(super) fn namespaces() -> impl Iterator<Item = Entry> {
    (0..NAMESPACES).map(|number| {
        let name = namespace(number);
        let labels = json!({"istio.io/dataplane-mode": "ambient", "kubernetes.io/metadata.name": name});
        let metadata = json!({"name": name, "uid": uid(1, number), "creationTimestamp": CREATED, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": {"phase": "Active"},
            "spec": {"finalizers": ["kubernetes"]}});
        (format!("/registry/namespaces/{name}"), object.to_string())
    })
}

/// The first pods, services and slices.
pub(super) fn crowd(pods: usize) -> impl Iterator<Item = Entry> {
    let services = pods.div_ceil(OF_SERVICE);
    (0..pods).map(pod).chain((0..services).map(service)).chain((0..services).map(slice))
}

fn pod(number: usize) -> Entry {
    let (namespace, name) = pod_name(number);
    let (service, ip) = (number / OF_SERVICE, address(number));
    let started = json!({"startedAt": CREATED});
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10,
        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3});
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": CREATED});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generateName": format!("app-{service}-5d8f9c7b6d-"),
            "uid": uid(2, number),
            "creationTimestamp": CREATED,
            "labels": {
                "app": format!("app-{service}"),
                "app.kubernetes.io/name": format!("app-{service}"),
                "app.kubernetes.io/part-of": "crowd",
                "version": "v1",
                "pod-template-hash": "5d8f9c7b6d",
            },
            "annotations": {
                "cni.projectcalico.org/containerID": format!("{number:064x}"),
                "cni.projectcalico.org/podIP": format!("{ip}/32"),
                "cni.projectcalico.org/podIPs": format!("{ip}/32"),
                "kubernetes.io/config.seen": CREATED,
                "mesh.internal/steered-by": "kubeconfig",
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": uid(3, service),
                "name": format!("app-{service}-5d8f9c7b6d"), "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "nodeName": format!("worker-{:04}", number / OF_NODE),
            "serviceAccountName": format!("app-{service}"),
            "serviceAccount": format!("app-{service}"),
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
            "containers": [{
                "name": "app",
                "image": format!("registry.example/app-{service}:1.0"),
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "PORT", "value": "8080"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "livenessProbe": probe,
                "readinessProbe": probe,
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
        },
        "status": {
            "phase": "Running",
            "qosClass": "Burstable",
            "hostIP": "192.0.2.1",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": CREATED,
            "conditions": conditions,
            "containerStatuses": [{"name": "app", "ready": true, "started": true, "restartCount": 0,
                "image": format!("registry.example/app-{service}:1.0"), "imageID": format!("sha256:{number:064x}"),
                "containerID": format!("containerd://{number:064x}"), "state": {"running": started}}],
        },
    });
    (format!("/registry/pods/{namespace}/{name}"), object.to_string())
}

/// The namespace of the pods of the daemon's node.
pub(super) const LOCAL_NAMESPACE: &str = "team-00";

/// A pod of the daemon's node.
pub(super) fn local(number: usize, node: &str, ip: &str) -> Entry {
    let name = format!("local-{number}");
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": LOCAL_NAMESPACE, "uid": uid(6, number), "creationTimestamp": CREATED,
            "labels": {"app": name}},
        "spec": {"nodeName": node, "serviceAccountName": name, "containers": [{"name": "app", "image": "none"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    });
    (format!("/registry/pods/{LOCAL_NAMESPACE}/{name}"), object.to_string())
}

fn service(number: usize) -> Entry {
    let (namespace, name) = (namespace(number), format!("app-{number}"));
    let ip = format!("10.96.{}.{}", 1 + number / 250, 2 + number % 250);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "uid": uid(4, number), "creationTimestamp": CREATED,
            "labels": {"app": name, "app.kubernetes.io/part-of": "crowd"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
        "status": {"loadBalancer": {}},
    });
    (format!("/registry/services/specs/{namespace}/{name}"), object.to_string())
}

/// The endpoints of a service's slice, those from `ready` on not ready.
pub(super) fn endpoints(service: usize, ready: usize) -> Value {
    let endpoint = |number: usize| {
        let is_ready = number % OF_SERVICE < ready;
        let (namespace, name) = pod_name(number);
        json!({
            "addresses": [address(number)],
            "conditions": {"ready": is_ready, "serving": is_ready, "terminating": false},
            "nodeName": format!("worker-{:04}", number / OF_NODE),
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid(2, number)},
        })
    };
    (service * OF_SERVICE..(service + 1) * OF_SERVICE).map(endpoint).collect()
}

fn slice(service: usize) -> Entry {
    let (namespace, name) = slice_name(service);
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "uid": uid(5, service), "creationTimestamp": CREATED,
            "generateName": format!("app-{service}-"),
            "labels": {"kubernetes.io/service-name": format!("app-{service}"), "app": format!("app-{service}"),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": format!("app-{service}"),
                "uid": uid(4, service), "controller": true, "blockOwnerDeletion": true}]},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints(service, OF_SERVICE),
    });
    (format!("/registry/endpointslices/{namespace}/{name}"), object.to_string())
}

/// The `number`th change: another address for a pod, or other endpoints that are ready. Returns the path and a merge patch;
/// each differs from what is there.
pub(super) fn change(number: usize, pods: usize) -> (String, Value) {
    let (turn, is_pod) = (number / 2, number.is_multiple_of(2));
    if is_pod {
        let (number, turn) = (turn % pods, turn / pods);
        let (namespace, name) = pod_name(number);
        let ip = format!("10.{}.{}.{}", 200 + turn % 20 + number / 62_500, number / 250 % 250, 2 + number % 250);
        let patch = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        return (format!("/api/v1/namespaces/{namespace}/pods/{name}/status"), patch);
    }
    let services = pods.div_ceil(OF_SERVICE);
    let (service, turn) = (turn % services, turn / services);
    let (namespace, name) = slice_name(service);
    let patch = json!({"endpoints": endpoints(service, OF_SERVICE - 1 - turn % OF_SERVICE)});
    (format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"), patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_objects_share_a_key_and_no_two_pods_an_address() {
        let keys: BTreeSet<String> = namespaces().chain(crowd(1_000)).map(|(key, _)| key).collect();
        assert_eq!(keys.len(), NAMESPACES + 1_000 + 100 + 100);
        let addresses: BTreeSet<String> = (0..100_000).map(address).collect();
        assert_eq!(addresses.len(), 100_000);
    }

    #[test]
    fn each_change_says_something_new_of_its_object() {
        let mut last = std::collections::BTreeMap::new();
        for number in 0..4_000 {
            let (path, patch) = change(number, 500);
            assert_ne!(last.insert(path.clone(), patch.clone()), Some(patch), "{number}: {path}");
        }
        assert_eq!(last.len(), 500 + 50, "every pod and every slice changed");
    }
}

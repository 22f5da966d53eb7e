use super::*;
use crate::model::http::{AppProtocol, LocalityPreference};
use crate::model::{Announced, Identity, Name, ObjectRef, PeerAuthentication};
use crate::snapshot::{EndpointOf, ServiceEntry, ServiceName, ServicePortEntry, WorkloadLabels};
use std::sync::Arc;
use std::time::Duration;

fn identity(service_account: &str) -> Identity {
    format!("spiffe://cluster.local/ns/default/sa/{service_account}").parse().expect("an identity")
}

/// `value` in whatever the model keeps it.
fn stored<T, U: From<T>>(value: T) -> U {
    value.into()
}

fn node() -> NodeSnapshot {
    let entry = Arc::new(WorkloadEntry {
        identity: Arc::new(identity("reviews")),
        inbound: Some(InboundModes { default: MtlsMode::Strict, ports: Box::new([(9080, MtlsMode::Permissive)]) }),
        takes_mutual_tls: true,
        labels: Arc::new(WorkloadLabels {
            workload: "reviews-v1".into(),
            namespace: "default".into(),
            app: "reviews".into(),
            version: "v1".into(),
            canonical_service: "reviews".into(),
            canonical_revision: "v1".into(),
            principal: "cluster.local/ns/default/sa/reviews".into(),
        }),
        subject: Arc::default(),
    });
    let name = Arc::new(ServiceName {
        host: "reviews.default.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "default".into(),
    });
    let endpoint: SocketAddr = "10.0.0.3:9080".parse().expect("an address");
    let owner = Arc::new(EndpointOf { service: Arc::clone(&name), protocol: AppProtocol::Http });
    let service = Arc::new(ServiceEntry {
        name: Arc::clone(&name),
        client_affinity: false,
        ports: Box::new([ServicePortEntry {
            port: 80,
            protocol: AppProtocol::Http,
            endpoints: [endpoint].into_iter().collect(),
            upstream: None,
            upstream_by_pod: Box::default(),
            routes: None,
            streams: None,
        }]),
    });
    let address: IpAddr = "10.0.0.3".parse().expect("an address");
    let pod = LocalPod {
        key: "c0ffee".into(),
        name: Name::new("default", "reviews-1"),
        uid: "4e1f".to_owned(),
        netns: "/run/netns/reviews-1".into(),
        ifname: "eth0".into(),
        addresses: vec![address],
        probe_ports: [8080].into(),
        workload: Arc::clone(&entry),
        enrolled: true,
        announced: Announced::InForce,
    };
    NodeSnapshot {
        pods: [(Arc::clone(&pod.key), Arc::new(pod))].into(),
        policies: Arc::default(),
        entrances: Arc::default(),
        directory: Arc::new(Directory {
            workloads: [(address, entry)].into_iter().collect(),
            services: [("10.96.0.10".parse().expect("an address"), service)].into_iter().collect(),
            endpoints: [(endpoint, owner)].into_iter().collect(),
            ..Directory::default()
        }),
        edge: None,
        listeners: Arc::default(),
        issues: [Arc::new(model::Issue {
            object: ObjectRef { kind: "PeerAuthentication".into(), name: Name::new("default", "odd") },
            field: "spec.mtls.mode".into(),
            problem: "unknown mode `LAX`; STRICT is enforced".into(),
            cure: "use STRICT, PERMISSIVE or DISABLE".into(),
            reason: model::Reason::Unsupported,
        })]
        .into(),
    }
}

#[test]
fn a_snapshot_shows_its_pods_their_state_and_who_is_where() {
    let state = PodState {
        enrolled: true,
        certificate_expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)),
        connections: 2,
        bytes_sent: 10,
        bytes_received: 20,
    };
    let seen = |address: &str| {
        let address = address.parse().expect("an address");
        Learnt::new(&node(), address, Some(SystemTime::UNIX_EPOCH), None)
    };
    let learnt = ["10.96.0.10:80", "10.0.0.3:9080", "192.0.2.1:25"].map(seen);
    let value = snapshot(&node(), |_| state, &learnt);
    assert_eq!(
        value,
        json!({
            "pods": [{
                "name": "default/reviews-1",
                "key": "c0ffee",
                "addresses": ["10.0.0.3"],
                "identity": "spiffe://cluster.local/ns/default/sa/reviews",
                "netns": "/run/netns/reviews-1",
                "interface": "eth0",
                "inbound": { "default": "STRICT", "9080": "PERMISSIVE" },
                "enrolled": true,
                "certificate_expires": "2020-09-13T12:26:40.000Z",
                "connections": 2,
                "bytes_sent": 10,
                "bytes_received": 20,
            }],
            "issues": [{
                "object": "PeerAuthentication default/odd",
                "field": "spec.mtls.mode",
                "problem": "unknown mode `LAX`; STRICT is enforced",
                "cure": "use STRICT, PERMISSIVE or DISABLE",
            }],
            "learnt": [
                {
                    "address": "10.96.0.10:80", "service": "reviews.default.svc.cluster.local",
                    "http": "1970-01-01T00:00:00.000Z", "other": null,
                },
                {
                    "address": "10.0.0.3:9080", "service": "reviews.default.svc.cluster.local",
                    "http": "1970-01-01T00:00:00.000Z", "other": null,
                },
                {"address": "192.0.2.1:25", "service": "", "http": "1970-01-01T00:00:00.000Z", "other": null},
            ],
            "directory": {
                "workloads": { "10.0.0.3": {
                    "identity": "spiffe://cluster.local/ns/default/sa/reviews",
                    "inbound": { "default": "STRICT", "9080": "PERMISSIVE" },
                    "takes_mutual_tls": true,
                    "labels": {
                        "workload": "reviews-v1",
                        "namespace": "default",
                        "app": "reviews",
                        "version": "v1",
                        "canonical_service": "reviews",
                        "canonical_revision": "v1",
                        "principal": "cluster.local/ns/default/sa/reviews",
                    },
                } },
                "services": { "10.96.0.10": {
                    "host": "reviews.default.svc.cluster.local",
                    "client_affinity": false,
                    "ports": { "80": ["10.0.0.3:9080"] },
                } },
                "service_of": { "10.0.0.3:9080": "reviews.default.svc.cluster.local" },
            },
        })
    );
    let read: Snapshot = serde_json::from_value(value).expect("the status command reads what is served");
    assert_eq!(read.pods[0].connections, 2);
}

#[test]
fn a_model_shows_workloads_services_and_policies() {
    let name = Name::new("default", "reviews");
    let workload = model::Workload {
        name: Name::new("default", "reviews-1"),
        uid: "u1".into(),
        node: Some("n1".into()),
        addresses: vec!["10.0.0.3".parse().expect("an address")],
        container_id: None,
        identity: identity("reviews"),
        labels: stored(model::Labels::from([("app".to_owned(), "reviews".to_owned())])),
        controller: "reviews-v1".into(),
        enrolled: true,
        announced: Announced::InForce,
        host_network: false,
        port_names: [("http".to_owned(), 9080)].into(),
        probe_ports: [8080].into(),
    };
    let endpoint = model::Endpoint {
        address: "10.0.0.3".parse().expect("an address"),
        port: 9080,
        node: Some("n1".into()),
        zone: None,
    };
    let service = model::Service {
        name: name.clone(),
        addresses: vec!["fd00::1".parse().expect("an address")],
        ports: vec![model::ServicePort {
            name: "http".into(),
            port: 80,
            protocol: AppProtocol::Http,
            endpoints: vec![endpoint],
        }],
        client_affinity: true,
        local_only: false,
        locality: LocalityPreference::None,
    };
    let policy = PeerAuthentication {
        name: name.clone(),
        scope: Scope::Workloads([("app".to_owned(), "reviews".to_owned())].into()),
        mode: None,
        ports: [(9080, Some(MtlsMode::Disable))].into(),
        created: "2020-01-01T00:00:00Z".into(),
    };
    let all = Model {
        workloads: [(workload.name.clone(), Arc::new(workload))].into(),
        services: [(name.clone(), Arc::new(service))].into(),
        peer_authentications: [(name, Arc::new(policy))].into(),
        ..Model::default()
    };
    assert_eq!(
        model(&all),
        json!({
            "workloads": [{
                "name": "default/reviews-1",
                "uid": "u1",
                "node": "n1",
                "addresses": ["10.0.0.3"],
                "identity": "spiffe://cluster.local/ns/default/sa/reviews",
                "labels": { "app": "reviews" },
                "controller": "reviews-v1",
                "enrolled": true,
                "announced": "InForce",
                "host_network": false,
                "port_names": { "http": 9080 },
                "probe_ports": [8080],
            }],
            "services": [{
                "name": "default/reviews",
                "addresses": ["fd00::1"],
                "ports": [{
                    "name": "http",
                    "port": 80,
                    "endpoints": [{ "address": "10.0.0.3", "port": 9080, "node": "n1" }],
                }],
                "client_affinity": true,
                "local_only": false,
            }],
            "peer_authentications": [{
                "name": "default/reviews",
                "scope": { "workloads": { "app": "reviews" } },
                "mode": "UNSET",
                "ports": { "9080": "DISABLE" },
                "created": "2020-01-01T00:00:00Z",
            }],
        })
    );
}

#[test]
fn a_world_names_its_objects_sandboxes_and_faults() {
    let node = node();
    let (pod, namespace) = (Name::new("default", "reviews-1"), Name::new("", "default"));
    let attachment = Attachment {
        container_id: "c0ffee".into(),
        ifname: "eth0".into(),
        netns: "/run/netns/reviews-1".into(),
        pod_namespace: "default".into(),
        pod_name: "reviews-1".into(),
        pod_uid: None,
        addresses: vec!["10.0.0.3".parse().expect("an address")],
    };
    let parts = World {
        in_sync: true,
        objects: [("Pod", vec![&pod]), ("Namespace", vec![&namespace]), ("Service", Vec::new())].into(),
        attachments: vec![&attachment],
        faults: node.issues.iter().map(|issue| &**issue).collect(),
    };
    assert_eq!(
        world(&parts),
        json!({
            "in_sync": true,
            "objects": { "Namespace": ["default"], "Pod": ["default/reviews-1"], "Service": [] },
            "attachments": [{
                "container_id": "c0ffee",
                "ifname": "eth0",
                "netns": "/run/netns/reviews-1",
                "pod_namespace": "default",
                "pod_name": "reviews-1",
                "pod_uid": null,
                "addresses": ["10.0.0.3"],
            }],
            "faults": [{
                "object": "PeerAuthentication default/odd",
                "field": "spec.mtls.mode",
                "problem": "unknown mode `LAX`; STRICT is enforced",
                "cure": "use STRICT, PERMISSIVE or DISABLE",
            }],
        })
    );
}

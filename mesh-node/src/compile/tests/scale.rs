//! Ten thousand workloads, and as many policies.

use super::{Compiler, compiled, settings};
use crate::api::core::{Namespace, Pod, PodIp, Service, ServicePort};
use crate::api::custom::{Custom, CustomKind};
use crate::api::discovery::{Endpoint, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL};
use crate::api::meta::{ObjectMeta, OwnerReference};
use crate::model::{Labels, Name};
use crate::translate;
use crate::world::{Attachment, Change, Kind, Object, World};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const SERVICES: u32 = 1_000;
const PODS_PER_SERVICE: u32 = 10;

fn metadata(namespace: &str, name: String, labels: &[(&str, &str)]) -> ObjectMeta {
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ObjectMeta { name: name.into(), namespace: namespace.into(), labels: labels.into(), ..ObjectMeta::default() }
}

fn pod(service: u32, number: u32) -> Pod {
    let (namespace, app) = (format!("team-{}", service % 50), format!("app-{service}"));
    let labels = [
        ("app", app.as_str()),
        ("version", "v1"),
        ("pod-template-hash", "5b5d4c7f9"),
        ("istio.io/dataplane-mode", "ambient"),
    ];
    let mut pod =
        Pod { metadata: metadata(&namespace, format!("{app}-5b5d4c7f9-{number}"), &labels), ..Pod::default() };
    pod.metadata.owner_references =
        vec![OwnerReference { kind: "ReplicaSet".to_owned(), name: format!("{app}-5b5d4c7f9"), controller: true }];
    pod.spec.service_account_name = app;
    pod.status.pod_ips = vec![PodIp { ip: pod_address(service, number) }];
    pod
}

fn pod_address(service: u32, number: u32) -> String {
    Ipv4Addr::from_bits(0x0a00_0001 + service * PODS_PER_SERVICE + number).to_string()
}

fn service(number: u32) -> Service {
    let name = format!("app-{number}");
    let mut service = Service { metadata: metadata(&format!("team-{}", number % 50), name, &[]), ..Service::default() };
    service.spec.cluster_ip = Ipv4Addr::from_bits(0x0a60_0001 + number).to_string();
    service.spec.ports =
        vec![ServicePort { name: "http".to_owned(), port: 80, protocol: "TCP".to_owned(), ..ServicePort::default() }];
    service
}

fn slice(service: u32) -> EndpointSlice {
    let (namespace, name) = (format!("team-{}", service % 50), format!("app-{service}"));
    let endpoint = |number| Endpoint { addresses: vec![pod_address(service, number)], ..Endpoint::default() };
    EndpointSlice {
        metadata: metadata(&namespace, format!("{name}-1"), &[(SERVICE_NAME_LABEL, &name)]),
        address_type: "IPv4".to_owned(),
        ports: vec![EndpointPort { name: "http".to_owned(), port: Some(8080), protocol: "TCP".to_owned() }],
        endpoints: (0..PODS_PER_SERVICE).map(endpoint).collect(),
    }
}

fn large_world() -> World {
    let mut world = World::default();
    let mut upsert = |object| world.apply(Change::Upsert(Box::new(object)));
    for number in 0..SERVICES {
        upsert(Object::Service(service(number)));
        upsert(Object::EndpointSlice(slice(number)));
        for pod_number in 0..PODS_PER_SERVICE {
            upsert(Object::Pod(pod(number, pod_number)));
        }
    }
    world
}

#[test]
fn ten_thousand_workloads_compile_in_seconds_at_most() {
    let world = large_world();
    // The best of several, for the machine may be busy with something else.
    let timed = |_| {
        let start = Instant::now();
        (compiled(&world), start.elapsed())
    };
    let (snapshot, took) = (0..3).map(timed).min_by_key(|(_, took)| *took).expect("three");
    assert_eq!(*snapshot.issues, []);
    assert_eq!(snapshot.directory.workloads.len(), 10_000);
    assert_eq!(snapshot.directory.services.len(), 1_000);
    assert_eq!(snapshot.directory.endpoints.len(), 10_000);
    // Far above what an unoptimized build takes, far below what quadratic work would.
    println!("10,000 workloads and 1,000 services: {took:?}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

/// How many policies there are, and of how many services the workloads are.
const POLICIES: (u32, u32) = if cfg!(debug_assertions) { (1_000, 500) } else { (10_000, 5_000) };

/// A policy of the network that lets pods of one service speak to those of another, and to nobody else.
fn network_policy(number: u32) -> Object {
    let spec = serde_json::json!({
        "podSelector": {"matchLabels": {"app": format!("app-{}", number % POLICIES.1)}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app": format!("app-{}", number.wrapping_mul(7) % POLICIES.1)}},
        }]}],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]}],
    });
    let namespace = format!("team-{}", number % POLICIES.1 % 50);
    let metadata = metadata(&namespace, format!("policy-{number}"), &[]);
    let spec = spec.as_object().expect("made as one").clone();
    Object::Custom(CustomKind::NetworkPolicy, Custom { metadata, spec, reported: None })
}

/// A policy of the mesh that is about everyone, and about one account.
fn authorization_policy(number: u32) -> Object {
    let from = serde_json::json!([{"source": {"principals": [format!("cluster.local/ns/a/sa/app-{number}")]}}]);
    let spec = serde_json::json!({"action": "DENY", "rules": [{"from": from}]});
    let metadata = metadata("istio-system", format!("policy-{number}"), &[]);
    let spec = spec.as_object().expect("made as one").clone();
    Object::Custom(CustomKind::AuthorizationPolicy, Custom { metadata, spec, reported: None })
}

#[test]
fn a_change_among_many_policies_costs_what_it_reaches() {
    let (policies, services) = POLICIES;
    let mut world = World::default();
    let mut upsert = |object| drop(world.learn(Change::Upsert(Box::new(object))));
    for team in 0..50 {
        let labels = [("team", if team < 5 { "red" } else { "blue" })];
        upsert(Object::Namespace(Namespace { metadata: metadata("", format!("team-{team}"), &labels) }));
    }
    for number in 0..services {
        (0..PODS_PER_SERVICE).for_each(|pod_number| upsert(Object::Pod(pod(number, pod_number))));
    }
    (0..policies).for_each(|number| upsert(network_policy(number)));
    (0..50).for_each(|number| upsert(authorization_policy(number)));
    // A hundred of the pods are this node's, ten services of ten.
    for number in 0..10 {
        for pod_number in 0..PODS_PER_SERVICE {
            let name = pod(number, pod_number).metadata.name;
            world.apply(Change::Attach(Attachment {
                container_id: format!("c-{name}"),
                ifname: "eth0".to_owned(),
                netns: format!("/run/netns/{name}"),
                pod_namespace: format!("team-{number}"),
                pod_name: name.to_string(),
                pod_uid: None,
                addresses: Vec::new(),
            }));
        }
    }
    let started = Instant::now();
    let mut compiler = Compiler::of(&world, translate::Settings::default(), settings());
    let whole = started.elapsed();
    println!("{} policies, {} workloads, from nothing: {whole:?}", policies + 50, services * 10);
    // An optimized build is held to its aim; of another one it is asked that nothing looks at everything.
    let limit = if cfg!(debug_assertions) { whole / 5 } else { Duration::from_millis(50) };
    let before = compiler.snapshot();
    assert_eq!(before.policies.len(), 100);
    let chains = &before.policies.values().next().expect("a pod's").inbound.enforced;
    assert!(!chains.network.is_empty() && !chains.mesh.is_empty());
    assert_eq!(*before.issues, []);
    let mut changed = network_policy(0);
    changed.metadata_mut().name = "another".into();
    let mut rolled = pod(0, 0);
    rolled.metadata.name = "app-0-new".into();
    rolled.metadata.labels = std::sync::Arc::new([("app".to_owned(), "app-7".to_owned())].into());
    rolled.status.pod_ips = vec![PodIp { ip: "10.200.0.1".to_owned() }];
    for (what, change) in [
        ("a policy of some pods here", Change::Upsert(Box::new(changed))),
        ("a policy of pods elsewhere", Change::Upsert(Box::new(network_policy(policies + 400)))),
        ("a policy of every pod", Change::Upsert(Box::new(authorization_policy(51)))),
        (
            "a policy less",
            Change::Delete(Kind::Custom(CustomKind::AuthorizationPolicy), Name::new("istio-system", "policy-7")),
        ),
        ("a pod of a new template", Change::Upsert(Box::new(Object::Pod(rolled)))),
    ] {
        let touched = world.learn(change);
        let started = Instant::now();
        compiler.learn(&world, touched);
        let now = compiler.snapshot();
        let took = started.elapsed();
        println!("{what}: {took:?}");
        assert!(took < limit, "{what}: it took {took:?}");
        assert!(now.policies.len() == 100);
    }
    assert_ne!(*compiler.snapshot().policies, *before.policies);
}

/// A route of a service, whose answers carry `mark`.
fn route(number: u32, mark: &str) -> Object {
    let (namespace, name) = (format!("team-{}", number % 50), format!("app-{number}"));
    let headers = serde_json::json!({"set": [{"name": "x-mark", "value": mark}]});
    let spec = serde_json::json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": &name}],
        "rules": [{
            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers}],
            "backendRefs": [{"name": &name, "port": 80}],
        }],
    });
    let spec = spec.as_object().expect("made as one").clone();
    Object::Custom(CustomKind::HttpRoute, Custom { metadata: metadata(&namespace, name, &[]), spec, reported: None })
}

#[test]
fn one_route_among_many_costs_its_own_ports() {
    let mut world = large_world();
    for number in 0..SERVICES {
        world.apply(Change::Upsert(Box::new(route(number, "0"))));
    }
    let started = Instant::now();
    let mut compiler = Compiler::of(&world, translate::Settings::default(), settings());
    let whole = started.elapsed();
    let before = compiler.snapshot();
    // A tenth of what all routes take, in whatever build: the best of several, for the machine may be busy.
    let mut timed = |turn: u32| {
        let touched = world.learn(Change::Upsert(Box::new(route(7, &format!("{turn}")))));
        let started = Instant::now();
        compiler.learn(&world, touched);
        let now = compiler.snapshot();
        (started.elapsed(), now)
    };
    let (took, now) = (1..4).map(&mut timed).min_by_key(|(took, _)| *took).expect("three");
    println!("one route of {SERVICES}: {took:?}; from nothing: {whole:?}");
    assert!(took < whole / 10, "it took {took:?}, and all together {whole:?}");
    let service = |snapshot: &crate::snapshot::NodeSnapshot, number: u32| {
        let address = std::net::IpAddr::from(Ipv4Addr::from_bits(0x0a60_0001 + number));
        format!("{:?}", snapshot.directory.services.get(&address).expect("a service's address"))
    };
    assert_ne!(service(&before, 7), service(&now, 7));
    assert_eq!(service(&before, 8), service(&now, 8));
}

//! Ten thousand workloads.

use super::compiled;
use crate::api::core::{Pod, PodIp, Service, ServicePort};
use crate::api::discovery::{Endpoint, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL};
use crate::api::meta::{ObjectMeta, OwnerReference};
use crate::model::Labels;
use crate::world::{Change, Object, World};
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

//! Same world, same snapshot: whatever the order in which changes arrive, and however often.
//!
//! A world is a set of last words, one for each key. A history reaches it through other words: older
//! versions, deletions, repetitions, keys that are gone in the end, all interleaved at random.

use super::{Compiler, compiled, settings};
use crate::api::core::{Container, ContainerPort, Namespace, Pod, PodIp, Service, ServiceAccount, ServicePort};
use crate::api::discovery::{Conditions, Endpoint, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL};
use crate::api::istio::PeerAuthentication;
use crate::api::meta::{ObjectMeta, OwnerReference};
use crate::api::secret::Secret;
use crate::model::{Issue, Labels, Name, ObjectRef};
use crate::snapshot::NodeSnapshot;
use crate::translate;
use crate::world::{Attachment, Change, CustomKind, Kind, Object, SourceId, Touched, World};
use fastrand::Rng;
use serde_json::json;
use std::collections::BTreeSet;

const NAMESPACES: [&str; 4] = ["shop", "bank", "istio-system", "kube-system"];

mod customs;
mod policies;

fn kinds() -> impl Iterator<Item = Kind> {
    Kind::all()
}

fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.usize(..choices.len())]
}

/// Few enough that pods and services quarrel about them.
fn address(rng: &mut Rng) -> String {
    let n = rng.u8(1..60);
    match rng.u8(..8) {
        0 => format!("fd00::{n}"),
        1 => "nonsense".to_owned(),
        _ => format!("10.0.0.{n}"),
    }
}

fn some<T>(rng: &mut Rng, at_most: usize, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(..=at_most)).map(|_| make(rng)).collect()
}

fn labels(rng: &mut Rng) -> Labels {
    let choices = [
        ("app", "a"),
        ("app", "b"),
        ("tier", "web"),
        ("version", "v1"),
        ("pod-template-hash", "x"),
        ("istio.io/dataplane-mode", "ambient"),
        ("istio.io/dataplane-mode", "ambient"),
        ("istio.io/dataplane-mode", "ambient"),
        ("istio.io/dataplane-mode", "none"),
        ("istio.io/dataplane-mode", "odd"),
    ];
    some(rng, 4, |rng| *pick(rng, &choices)).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn metadata(rng: &mut Rng, name: &Name) -> ObjectMeta {
    ObjectMeta {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        uid: pick(rng, &["", "u1", "u1", "u2"]).to_string(),
        creation_timestamp: (*pick(rng, &["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])).into(),
        labels: labels(rng).into(),
        ..ObjectMeta::default()
    }
}

fn pod(rng: &mut Rng, mut metadata: ObjectMeta) -> Pod {
    if rng.bool() {
        metadata.owner_references =
            vec![OwnerReference { kind: "StatefulSet".to_owned(), name: "set".to_owned(), controller: true }];
    }
    let mut pod = Pod { metadata, ..Pod::default() };
    pod.spec.node_name = pick(rng, &[None, Some("one"), Some("one"), Some("one"), Some("two")]).map(str::to_owned);
    pod.spec.service_account_name = pick(rng, &["", "n0", "n1", "bad/sa"]).to_string();
    let port = |rng: &mut Rng| ContainerPort {
        name: "http".to_owned(),
        container_port: rng.u16(8080..8082),
        protocol: String::new(),
    };
    pod.spec.containers = some(rng, 1, |rng| Container { ports: some(rng, 1, port), ..Container::default() });
    pod.spec.host_network = rng.u8(..10) == 0;
    pod.status.phase = pick(rng, &["", "Running", "Running", "Failed"]).to_string();
    pod.status.pod_ips = some(rng, 2, |rng| PodIp { ip: address(rng) });
    pod
}

fn service(rng: &mut Rng, metadata: ObjectMeta) -> Service {
    let mut service = Service { metadata, ..Service::default() };
    service.spec.kind = pick(rng, &["", "ClusterIP", "LoadBalancer", "ExternalName"]).to_string();
    service.spec.cluster_ip = if rng.u8(..4) == 0 { "None".to_owned() } else { address(rng) };
    service.spec.external_ips = some(rng, 1, address);
    service.spec.selector = if rng.bool() { labels(rng) } else { Labels::new() };
    service.spec.traffic_distribution = pick(rng, &["", "", "PreferSameZone", "PreferSameNode", "Odd"]).to_string();
    service.spec.internal_traffic_policy = pick(rng, &["", "Local", "Odd"]).to_string();
    service.spec.session_affinity = pick(rng, &["", "ClientIP"]).to_string();
    service.spec.ports = some(rng, 3, |rng| ServicePort {
        name: pick(rng, &["", "http"]).to_string(),
        port: rng.u16(80..83),
        protocol: pick(rng, &["", "TCP", "UDP"]).to_string(),
        app_protocol: pick(rng, &["", "http", "grpc", "tcp", "tls"]).to_string(),
    });
    service
}

fn slice(rng: &mut Rng, mut metadata: ObjectMeta) -> EndpointSlice {
    let mut labels = Labels::clone(&metadata.labels);
    labels.insert(SERVICE_NAME_LABEL.to_owned(), pick(rng, &["n0", "n1", "n2"]).to_string());
    metadata.labels = labels.into();
    let condition = |rng: &mut Rng| *pick(rng, &[None, Some(true), Some(false)]);
    EndpointSlice {
        metadata,
        address_type: pick(rng, &["IPv4", "IPv4", "IPv6", "FQDN"]).to_string(),
        ports: some(rng, 2, |rng| EndpointPort {
            name: pick(rng, &["", "http"]).to_string(),
            port: Some(rng.u16(8080..8082)),
            protocol: String::new(),
        }),
        endpoints: some(rng, 3, |rng| Endpoint {
            addresses: vec![address(rng)],
            conditions: Conditions { ready: condition(rng), serving: condition(rng), terminating: condition(rng) },
            node_name: pick(rng, &[None, Some("one"), Some("two")]).map(str::to_owned),
            zone: pick(rng, &[None, Some("east"), Some("west")]).map(str::to_owned),
        }),
    }
}

fn secret(rng: &mut Rng, metadata: ObjectMeta) -> Secret {
    let entry = |rng: &mut Rng| json!(pick(rng, &["a", "b"]));
    let data = json!({"metadata": {}, "stringData": {"tls.crt": entry(rng), "tls.key": entry(rng)}});
    let secret: Secret = serde_json::from_value(data).expect("a secret");
    Secret { metadata, ..secret }
}

fn peer_authentication(rng: &mut Rng, metadata: ObjectMeta) -> PeerAuthentication {
    let mode = |rng: &mut Rng| json!({"mode": *pick(rng, &["STRICT", "PERMISSIVE", "DISABLE", "UNSET", "odd"])});
    let mut spec = json!({"mtls": mode(rng)});
    if rng.bool() {
        spec["selector"] = json!({"matchLabels": {"app": *pick(rng, &["a", "b"])}});
    }
    if rng.bool() {
        spec["portLevelMtls"] = json!({"8080": mode(rng), "9090": mode(rng)});
    }
    if rng.u8(..8) == 0 {
        spec["odd"] = json!(1);
    }
    let spec = spec.as_object().expect("made as one").clone().into_iter().collect();
    PeerAuthentication { metadata, spec }
}

/// Does it matter for who may speak to whom, and for nothing else? There are so many of these kinds that others would hardly change.
fn is_of_policies(key: &Key) -> bool {
    use CustomKind::{AuthorizationPolicy, Calico, ClusterNetworkPolicy, NetworkPolicy, RequestAuthentication};
    let Key::Object(kind, _) = key else { return false };
    let Kind::Custom(kind) = kind else { return *kind == Kind::ServiceAccount };
    matches!(kind, NetworkPolicy | ClusterNetworkPolicy | Calico(..) | AuthorizationPolicy | RequestAuthentication)
}

/// Do policies look at objects of this kind?
fn is_for_policies(kind: Kind) -> bool {
    matches!(kind, Kind::Namespace | Kind::Pod | Kind::Service | Kind::EndpointSlice)
}

/// What changes tell of.
#[derive(Clone, PartialEq, Eq)]
enum Key {
    Object(Kind, Name),
    Sandbox(String),
    File(String),
}

fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    let is_custom = |kind: &Kind| matches!(kind, Kind::Custom(kind) if kind.is_cluster_scoped());
    for kind in kinds().filter(is_custom) {
        keys.extend((0..2).map(|n| Key::Object(kind, Name::new("", format!("n{n}")))));
    }
    for namespace in NAMESPACES {
        keys.push(Key::Object(Kind::Namespace, Name::new("", namespace)));
        for kind in kinds().filter(|kind| !kind.is_cluster_scoped() && *kind != Kind::Secret) {
            keys.extend((0..3).map(|n| Key::Object(kind, Name::new(namespace, format!("n{n}")))));
        }
    }
    keys.extend((0..12).map(|n| Key::Sandbox(format!("c{n}"))));
    keys.extend((0..2).map(|n| Key::File(format!("f{n}.yaml"))));
    // Last, so that what is said of them changes no word of the others.
    for namespace in NAMESPACES {
        keys.extend((0..3).map(|n| Key::Object(Kind::Secret, Name::new(namespace, format!("n{n}")))));
    }
    keys
}

/// Something that may be true of `key`.
fn word(rng: &mut Rng, key: &Key) -> Change {
    match key {
        Key::Object(kind, name) => {
            let metadata = metadata(rng, name);
            Change::Upsert(Box::new(match kind {
                Kind::Pod => Object::Pod(pod(rng, metadata)),
                Kind::Service => Object::Service(service(rng, metadata)),
                Kind::EndpointSlice => Object::EndpointSlice(slice(rng, metadata)),
                Kind::Secret => Object::Secret(secret(rng, metadata)),
                Kind::PeerAuthentication => Object::PeerAuthentication(peer_authentication(rng, metadata)),
                Kind::Custom(kind) => Object::Custom(*kind, customs::custom(rng, *kind, metadata)),
                Kind::Namespace => Object::Namespace(Namespace { metadata }),
                Kind::ServiceAccount => Object::ServiceAccount(ServiceAccount { metadata }),
            }))
        }
        Key::Sandbox(container_id) => Change::Attach(Attachment {
            container_id: container_id.clone(),
            ifname: "eth0".to_owned(),
            netns: format!("/run/netns/{container_id}"),
            // Elsewhere few pods are in the mesh.
            pod_namespace: pick(rng, &["shop", "shop", "bank", "bank", "istio-system", "kube-system"]).to_string(),
            pod_name: format!("n{}", rng.u8(..3)),
            pod_uid: pick(rng, &[None, Some("u1")]).map(str::to_owned),
            addresses: some(rng, 2, |rng| [10, 0, 0, rng.u8(1..60)].into()),
        }),
        Key::File(path) => {
            let object = ObjectRef::new("File", Name::new("", path.as_str()));
            let issues = some(rng, 2, |rng| Issue::new(&object, format!("line {}", rng.u8(1..9)), "odd", "mend it"));
            Change::Faults { origin: path.clone(), issues }
        }
    }
}

/// That nothing is true of `key`.
fn silence(key: &Key) -> Change {
    match key {
        Key::Object(kind, name) => Change::Delete(*kind, name.clone()),
        Key::Sandbox(container_id) => Change::Detach { container_id: container_id.clone(), ifname: "eth0".to_owned() },
        Key::File(path) => Change::Faults { origin: path.clone(), issues: Vec::new() },
    }
}

/// A way to come to `last`, the last word on `key`, if there is one.
fn way(rng: &mut Rng, key: &Key, last: Option<&Change>) -> Vec<Change> {
    let mut way = some(rng, 3, |rng| if rng.bool() { word(rng, key) } else { silence(key) });
    let last = last.cloned().unwrap_or_else(|| silence(key));
    if rng.bool() {
        way.extend([last.clone(), silence(key)]);
    }
    way.extend(std::iter::repeat_n(last, rng.usize(1..3)));
    way
}

/// All changes at random, those of one key in their order.
fn interleave(rng: &mut Rng, mut ways: Vec<Vec<Change>>) -> Vec<Change> {
    ways.iter_mut().for_each(|way| way.reverse());
    let mut history = Vec::new();
    while !ways.is_empty() {
        let at = rng.usize(..ways.len());
        match ways[at].pop() {
            Some(change) => history.push(change),
            None => {
                ways.swap_remove(at);
            }
        }
    }
    history
}

fn arrive(changes: impl IntoIterator<Item = Change>) -> World {
    let mut world = World::default();
    for change in changes {
        world.apply(change);
    }
    world
}

#[test]
fn the_order_of_arrival_leaves_no_trace() {
    let keys = keys();
    let (mut pods, mut routed, mut streams, mut issues) = (0, 0, 0, 0);
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let last: Vec<_> = keys.iter().map(|key| (rng.u8(..3) > 0).then(|| word(&mut rng, key))).collect();
        let plain = arrive(last.iter().flatten().cloned().chain(SourceId::ALL.map(Change::Synced)));
        let expected = compiled(&plain);
        for _ in 0..3 {
            let mut ways: Vec<_> =
                keys.iter().zip(&last).map(|(key, last)| way(&mut rng, key, last.as_ref())).collect();
            ways.extend(SourceId::ALL.map(|source| vec![Change::Synced(source)]));
            let mut history = interleave(&mut rng, ways);
            let mut world = arrive(history.clone());
            assert_eq!(world, plain, "seed {seed}");
            assert_eq!(compiled(&world), expected, "seed {seed}");
            // A source that starts again tells everything once more, in another order.
            history.clear();
            history.extend(last.iter().flatten().cloned());
            rng.shuffle(&mut history);
            for change in history {
                assert!(!world.apply(change), "seed {seed}: what is known is not new");
            }
            assert_eq!(compiled(&world), expected, "seed {seed}");
        }
        pods += expected.pods.len();
        let services = || expected.directory.services.values().flat_map(|service| &service.ports);
        routed += services().filter(|port| port.routes.is_some()).count();
        streams += services().filter(|port| port.streams.is_some()).count();
        issues += expected.issues.len();
        assert!(expected.issues.is_sorted(), "seed {seed}");
    }
    // The worlds are about something.
    let told =
        format!("{pods} pods, {routed} ports with routes, {streams} with routes of connections, {issues} issues");
    assert!(pods > 40 && routed > 100 && streams > 30 && issues > 2_000, "{told}");
}

/// Asserts that two snapshots are equal; tells what differs, not all that there is.
fn assert_same(now: &NodeSnapshot, fresh: &NodeSnapshot, context: &str) {
    if now == fresh {
        return;
    }
    let lines = |snapshot: &NodeSnapshot| {
        let directory = &snapshot.directory;
        let issues = snapshot.issues.iter().map(ToString::to_string);
        let pods = snapshot.pods.values().map(|pod| format!("{pod:?}"));
        let workloads = directory.workloads.iter().map(|entry| format!("{entry:?}"));
        let services = directory.services.iter().map(|entry| format!("{entry:?}"));
        let endpoints = directory.endpoints.iter().map(|entry| format!("{entry:?}"));
        let hosts = directory.hosts.exact.iter().chain(&directory.hosts.wildcards).map(|entry| format!("{entry:?}"));
        let edge = snapshot.edge.iter().flat_map(|edge| &edge.ports).map(|port| format!("{port:?}"));
        let policies = snapshot.policies.iter().map(|entry| format!("{entry:?}"));
        let policies = policies.chain(snapshot.entrances.iter().map(|entry| format!("{entry:?}")));
        let all = issues.chain(pods).chain(workloads).chain(services).chain(endpoints).chain(hosts).chain(edge);
        let all = all.chain(policies);
        all.collect::<BTreeSet<String>>()
    };
    let (now, fresh) = (lines(now), lines(fresh));
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>().join("\n");
    panic!("{context}\nonly incremental:\n{}\nonly fresh:\n{}", only(&now, &fresh), only(&fresh, &now));
}

fn fresh(world: &World) -> Compiler {
    Compiler::of(world, translate::Settings::default(), settings())
}

/// Whatever happened before, and however much at once: what is compiled from what was touched is what is compiled from
/// nothing.
#[test]
fn each_step_of_a_history_compiles_to_what_its_world_does() {
    let (keys, kinds): (_, Vec<_>) = (keys(), kinds().collect());
    let is_common = |key: &&Key| !matches!(key, Key::Object(Kind::Custom(_) | Kind::Secret, _)) && !is_of_policies(key);
    let common: Vec<&Key> = keys.iter().filter(is_common).collect();
    let (of_policies, others): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| is_of_policies(key));
    let (mut steps, mut kept, mut pods, mut routed, mut hosts, mut judged) = (0, 0, 0, 0, 0, 0);
    for seed in 0..120 {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::default();
        let mut compiler = fresh(&world);
        let mut before = compiler.snapshot();
        for _ in 0..rng.usize(1..60) {
            let mut touched = Touched::default();
            let most = *pick(&mut rng, &[1, 1, 3, 40]);
            for _ in 0..rng.usize(1..=most) {
                // Pods, services and their slices meet everything else, so they change as often as all of it.
                let key = match rng.u8(..16) {
                    0..=7 => *pick(&mut rng, &common),
                    8..=14 => *pick(&mut rng, &others),
                    _ => *pick(&mut rng, &of_policies),
                };
                let change = match rng.u8(..20) {
                    0 => {
                        let kind = *pick(&mut rng, &kinds);
                        let names = keys.iter().filter_map(|key| match key {
                            Key::Object(of, name) if *of == kind => Some(name.clone()),
                            Key::Object(..) | Key::Sandbox(_) | Key::File(_) => None,
                        });
                        let names: Vec<_> = names.collect();
                        Change::Only(kind, names.into_iter().filter(|_| rng.u8(..4) > 0).collect())
                    }
                    1..=4 => silence(key),
                    _ => word(&mut rng, key),
                };
                touched.extend(world.learn(change));
            }
            compiler.learn(&world, touched);
            let (now, mut fresh) = (compiler.snapshot(), fresh(&world));
            assert_same(&now, &fresh.snapshot(), &format!("seed {seed}"));
            assert!(compiler.strangers().eq(fresh.strangers()), "seed {seed}");
            steps += 1;
            pods += now.pods.len();
            hosts += now.directory.hosts.exact.len();
            judged += now.policies.values().filter(|policies| !policies.inbound.is_empty()).count();
            let ports = now.directory.services.values().flat_map(|service| &service.ports);
            routed += ports.filter(|port| port.routes.is_some() || port.upstream.is_some()).count();
            let same = |address| now.directory.workloads.get(&address).zip(before.directory.workloads.get(&address));
            let same = now.directory.workloads.keys().filter_map(same);
            kept += same.filter(|(now, before)| std::sync::Arc::ptr_eq(now, before)).count();
            before = now;
        }
    }
    // The histories are about something, and what did not change was not made anew.
    let told = format!(
        "{steps} steps, {kept} kept, {pods} pods, {judged} of them with policies, {routed} ports with routes or policies, \
         {hosts} hosts"
    );
    assert!(steps > 2_000 && kept > steps * 2 && pods > 1_000 && routed > steps && hosts > steps, "{told}");
    assert!(judged > 200, "{told}");
}

/// Words of one kind again and again, so that its indexes meet every way in which its objects can change.
#[test]
fn no_kind_leaves_a_trace() {
    let keys = keys();
    for kind in kinds() {
        let of_kind: Vec<_> = keys.iter().filter(|key| matches!(key, Key::Object(of, _) if *of == kind)).collect();
        let mut rng = Rng::with_seed(1);
        // Nothing but policies looks at policies.
        let with_policies = is_for_policies(kind) || of_kind.iter().any(|key| is_of_policies(key));
        let there = keys.iter().filter(|key| with_policies || !is_of_policies(key));
        let mut world = arrive(there.map(|key| word(&mut rng, key)).collect::<Vec<_>>());
        let mut compiler = fresh(&world);
        let steps = if with_policies { 30 } else { 150 };
        for step in 0..steps {
            let key = *pick(&mut rng, &of_kind);
            let change = if rng.u8(..4) == 0 { silence(key) } else { word(&mut rng, key) };
            let touched = world.learn(change);
            compiler.learn(&world, touched);
            assert_same(&compiler.snapshot(), &compiled(&world), &format!("{} {step}", kind.name()));
        }
    }
}

//! Policies of the other APIs at random: ClusterNetworkPolicies, and Istio's AuthorizationPolicies.

use crate::random::{NAMESPACES, label_selector, pick, some};
use fastrand::Rng;
use serde_json::{Value, json};

/// Ranges of addresses: those of pods, of each node and family, and one of nobody.
const NETWORKS: [&str; 5] = ["10.244.1.0/24", "10.244.2.0/24", "fd00:244:1::/64", "fd00:244:2::/64", "192.0.2.0/24"];

/// Up to two ClusterNetworkPolicies.
pub(super) fn cluster(rng: &mut Rng) -> Vec<Value> {
    let make = |(at, rng): (usize, &mut Rng)| {
        let subject = peer(rng, false);
        let mut rules = |field: &str, networks: bool| {
            some(rng, 2, |rng| {
                let peers = vec![peer(rng, networks), peer(rng, networks)];
                let action = pick(rng, &["Accept", "Deny", "Pass"]);
                let ports = some(rng, 1, |rng| {
                    pick(
                        rng,
                        &[
                            json!({"tcp": {"destinationPort": {"number": 8080}}}),
                            json!({"tcp": {"destinationPort": {"range": {"start": 9000, "end": 9100}}}}),
                            json!({"destinationNamedPort": "admin"}),
                            json!({"udp": {}}),
                        ],
                    )
                });
                let mut rule = json!({"action": action, field: peers});
                if !ports.is_empty() {
                    rule["protocols"] = ports.into();
                }
                rule
            })
        };
        let (ingress, egress) = (rules("from", false), rules("to", true));
        let (tier, priority) = (pick(rng, &["Admin", "Baseline"]), rng.u16(..1000));
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("c{at}")},
            "spec": {"tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress},
        })
    };
    (0..rng.usize(..3)).map(|at| make((at, rng))).collect()
}

fn peer(rng: &mut Rng, networks: bool) -> Value {
    match rng.u8(..3) {
        0 => json!({"namespaces": label_selector(rng)}),
        1 if networks => json!({"networks": [pick(rng, &NETWORKS)]}),
        _ => json!({"pods": {"namespaceSelector": label_selector(rng), "podSelector": label_selector(rng)}}),
    }
}

/// Up to three AuthorizationPolicies.
pub(super) fn istio(rng: &mut Rng) -> Vec<Value> {
    let make = |(at, rng): (usize, &mut Rng)| {
        let namespace = pick(rng, &["shop", "bank", "istio-system"]);
        let rules = some(rng, 2, rule);
        let mut spec = json!({"action": pick(rng, &["ALLOW", "ALLOW", "DENY", "AUDIT"]), "rules": rules});
        match rng.u8(..3) {
            0 => spec["selector"] = json!({"matchLabels": {"app": "web"}}),
            1 => spec["selector"] = json!({"matchLabels": {"tier": pick(rng, &["front", "back"])}}),
            _ => {}
        }
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("a{at}"), "namespace": namespace},
            "spec": spec,
        })
    };
    (0..rng.usize(..4)).map(|at| make((at, rng))).collect()
}

fn rule(rng: &mut Rng) -> Value {
    let mut rule = json!({});
    if rng.bool() {
        rule["from"] = json!([{"source": source(rng)}, {"source": source(rng)}]);
    }
    if rng.bool() {
        rule["to"] = json!([{"operation": operation(rng)}]);
    }
    if rng.u8(..4) == 0 {
        rule["when"] = json!([pick(
            rng,
            &[
                json!({"key": "source.namespace", "values": ["shop"]}),
                json!({"key": "source.principal", "notValues": ["cluster.local/ns/shop/sa/two"]}),
                json!({"key": "destination.port", "values": ["8080"]}),
                json!({"key": "request.headers[x-team]", "notValues": ["red"]}),
            ]
        )]);
    }
    rule
}

fn source(rng: &mut Rng) -> Value {
    let namespace = pick(rng, &NAMESPACES);
    let near = pick(rng, &["10.244.1.0/24", "fd00:244:1::/64"]);
    let far = pick(rng, &["10.244.2.0/25", "fd00:244:2::/65"]);
    pick(
        rng,
        &[
            json!({"principals": [format!("cluster.local/ns/{namespace}/sa/one")]}),
            json!({"principals": ["*"]}),
            json!({"notPrincipals": ["cluster.local/ns/shop/*"]}),
            json!({"namespaces": [namespace]}),
            json!({"notNamespaces": ["lab"]}),
            json!({"ipBlocks": [near]}),
            json!({"notIpBlocks": [far]}),
        ],
    )
}

fn operation(rng: &mut Rng) -> Value {
    pick(
        rng,
        &[
            json!({"methods": ["GET"]}),
            json!({"notMethods": ["PUT"]}),
            json!({"paths": ["/a*"], "methods": ["GET", "PUT"]}),
            json!({"paths": ["/", "*/b"]}),
            json!({"notPaths": ["/b*"]}),
            json!({"ports": ["8080", "9050"]}),
            json!({"notPorts": ["7000"]}),
            json!({"hosts": ["web.shop"], "notPaths": ["/a"]}),
            json!({"hosts": ["*.example"]}),
        ],
    )
}

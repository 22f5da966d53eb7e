//! Network policies, tiers and sets of addresses at random: few enough names that they quarrel.

use super::{labels, pick, some};
use crate::api::custom::{CalicoKind, CalicoObject, CalicoStore};
use crate::api::meta::ObjectMeta;
use fastrand::Rng;
use serde_json::{Value, json};

fn label_selector(rng: &mut Rng) -> Value {
    match rng.u8(..4) {
        0 => json!({}),
        1 => json!({"matchExpressions": [{"key": "app", "operator": *pick(rng, &["Exists", "DoesNotExist", "In"])}]}),
        2 => json!({"matchLabels": {"kubernetes.io/metadata.name": *pick(rng, &["shop", "bank"])}}),
        _ => json!({"matchLabels": labels(rng)}),
    }
}

fn network(rng: &mut Rng) -> String {
    format!("10.0.0.{}/{}", rng.u8(1..60), *pick(rng, &["32", "28", "99"]))
}

fn protocol(rng: &mut Rng) -> &'static str {
    pick(rng, &["TCP", "TCP", "UDP", "ICMP"])
}

fn types(rng: &mut Rng) -> Value {
    some(rng, 2, |rng| *pick(rng, &["Ingress", "Egress"])).into()
}

/// What a NetworkPolicy of Kubernetes says.
pub(super) fn kubernetes(rng: &mut Rng) -> Value {
    let peers = |rng: &mut Rng| {
        some(rng, 2, |rng| match rng.u8(..3) {
            0 => json!({"podSelector": label_selector(rng)}),
            1 => json!({"namespaceSelector": label_selector(rng)}),
            _ => json!({"ipBlock": {"cidr": network(rng)}}),
        })
    };
    let ports = |rng: &mut Rng| some(rng, 2, |rng| json!({"port": rng.u16(8080..8082), "protocol": protocol(rng)}));
    let rules = |rng: &mut Rng, field: &str| some(rng, 2, |rng| json!({field: peers(rng), "ports": ports(rng)}));
    let (ingress, egress) = (rules(rng, "from"), rules(rng, "to"));
    json!({"podSelector": label_selector(rng), "ingress": ingress, "egress": egress, "policyTypes": types(rng)})
}

/// What a ClusterNetworkPolicy says.
pub(super) fn cluster(rng: &mut Rng) -> Value {
    let rules = |rng: &mut Rng, field: &str| {
        some(rng, 2, |rng| {
            let peers = some(rng, 2, |rng| json!({"namespaces": label_selector(rng)}));
            json!({"action": *pick(rng, &["Accept", "Deny", "Pass", "Odd"]), field: peers})
        })
    };
    let (ingress, egress) = (rules(rng, "from"), rules(rng, "to"));
    json!({
        "tier": *pick(rng, &["Admin", "Baseline"]),
        "priority": rng.u16(..3),
        "subject": {"namespaces": label_selector(rng)},
        "ingress": ingress,
        "egress": egress,
    })
}

fn selector(rng: &mut Rng) -> &'static str {
    pick(
        rng,
        &[
            "",
            "all()",
            "app == 'a'",
            "app != 'a'",
            "has(tier) && version == 'v1'",
            "app in {'a', 'b'}",
            "pcns.app == 'a'",
            "odd",
        ],
    )
}

fn entity(rng: &mut Rng) -> Value {
    match rng.u8(..6) {
        0 => json!({}),
        1 => json!({"nets": [network(rng)]}),
        2 => json!({"namespaceSelector": selector(rng)}),
        3 => json!({"notSelector": selector(rng)}),
        4 => json!({"services": {"name": format!("n{}", rng.u8(..3)), "namespace": *pick(rng, &["shop", "bank"])}}),
        _ => json!({"selector": selector(rng), "serviceAccounts": {"names": ["sa"]}}),
    }
}

fn rules(rng: &mut Rng) -> Vec<Value> {
    some(rng, 2, |rng| {
        let action = *pick(rng, &["Allow", "Allow", "Deny", "Pass", "Log"]);
        let (source, destination) = (entity(rng), entity(rng));
        let mut rule = json!({"action": action, "source": source, "destination": destination});
        if rng.bool() {
            rule["protocol"] = json!(protocol(rng));
            rule["destination"]["ports"] = json!([8080, "http"]);
        }
        if rng.u8(..4) == 0 {
            rule["http"] = json!({"methods": ["GET"], "paths": [{"prefix": "/a"}]});
        }
        rule
    })
}

fn policy(rng: &mut Rng) -> Value {
    let (ingress, egress) = (rules(rng), rules(rng));
    let mut spec = json!({"ingress": ingress, "egress": egress, "selector": selector(rng), "types": types(rng)});
    if rng.bool() {
        spec["tier"] = json!(*pick(rng, &["default", "n0", "n1"]));
    }
    if rng.bool() {
        spec["order"] = json!(rng.u8(..3));
    }
    spec
}

fn staged(rng: &mut Rng, mut spec: Value) -> Value {
    spec["stagedAction"] = json!(*pick(rng, &["Set", "Set", "Delete", "Ignore"]));
    spec
}

/// What an object of Calico's says.
pub(super) fn calico(rng: &mut Rng, kind: CalicoKind) -> Value {
    match kind {
        CalicoKind::NetworkPolicy => policy(rng),
        CalicoKind::GlobalNetworkPolicy => {
            let mut spec = policy(rng);
            spec["namespaceSelector"] = json!(selector(rng));
            if rng.u8(..6) == 0 {
                spec["doNotTrack"] = json!(true);
            }
            spec
        }
        CalicoKind::StagedNetworkPolicy | CalicoKind::StagedGlobalNetworkPolicy => {
            let spec = policy(rng);
            staged(rng, spec)
        }
        CalicoKind::StagedKubernetesNetworkPolicy => {
            let spec = kubernetes(rng);
            staged(rng, spec)
        }
        CalicoKind::Tier => json!({"order": rng.u8(..3), "defaultAction": *pick(rng, &["Deny", "Pass"])}),
        CalicoKind::NetworkSet | CalicoKind::GlobalNetworkSet => json!({"nets": some(rng, 2, network)}),
    }
}

/// Calico may have stored the object for its user under another name.
pub(super) fn annotate(rng: &mut Rng, store: CalicoStore, metadata: &mut ObjectMeta) {
    if store == CalicoStore::Crd && rng.bool() {
        let said = json!({"name": format!("n{}", rng.u8(..3)), "labels": labels(rng)});
        metadata.annotations.insert(CalicoObject::METADATA.to_owned(), said.to_string());
    }
}

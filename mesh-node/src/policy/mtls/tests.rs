use super::{MtlsPolicies, mtls_modes};
use crate::model::{Identity, Labels, MtlsMode, Name, PeerAuthentication, Scope, Text, Workload};
use expect_test::{Expect, expect};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

fn mode(text: &str) -> Option<MtlsMode> {
    match text {
        "STRICT" => Some(MtlsMode::Strict),
        "PERMISSIVE" => Some(MtlsMode::Permissive),
        "DISABLE" => Some(MtlsMode::Disable),
        "UNSET" => None,
        other => panic!("`{other}` is no mode"),
    }
}

/// Reads `<name> <mesh|namespace/NS|NS:key=value,...> <mode> [port=mode]... [@created]`.
fn policy(line: &str) -> PeerAuthentication {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, scope, default, rest @ ..] = words.as_slice() else { panic!("`{line}` is no policy") };
    let (namespace, scope) = match scope.split_once('/') {
        None if *scope == "mesh" => ("istio-system", Scope::Mesh),
        Some(("namespace", namespace)) => (namespace, Scope::Namespace),
        _ => {
            let (namespace, labels) = scope.split_once(':').expect("a scope");
            let labels = labels.split(',').map(|label| label.split_once('=').expect("key=value"));
            (namespace, Scope::Workloads(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()))
        }
    };
    let mut policy = PeerAuthentication {
        name: Name::new(namespace, *name),
        scope,
        mode: mode(default),
        ports: BTreeMap::new(),
        created: Text::default(),
    };
    for word in rest {
        if let Some(created) = word.strip_prefix('@') {
            policy.created = created.into();
        } else {
            let (port, of_port) = word.split_once('=').expect("port=mode");
            policy.ports.insert(port.parse().expect("a port"), mode(of_port));
        }
    }
    policy
}

/// The modes of pod `shop/a`, labelled `app=a,tier=web`.
fn check(policies: &str, expected: &Expect) {
    let labels: Labels = [("app", "a"), ("tier", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let workload = Workload {
        name: Name::new("shop", "a"),
        uid: String::new(),
        node: None,
        addresses: Vec::new(),
        container_id: None,
        identity: "spiffe://cluster.local/ns/shop/sa/a".parse::<Identity>().expect("valid"),
        labels: Arc::new(labels),
        controller: "a".to_owned(),
        enrolled: true,
        announced: crate::model::Announced::InForce,
        host_network: false,
        port_names: BTreeMap::new(),
        probe_ports: BTreeSet::new(),
    };
    let policies: Vec<_> = policies.lines().filter(|line| !line.trim().is_empty()).map(policy).collect();
    let modes = mtls_modes(&workload, &policies);
    assert_eq!(modes, mtls_modes(&workload, policies.iter().rev()), "the order of policies must not matter");
    let named = MtlsPolicies::new(&policies);
    for port in modes.ports.iter().map(|(port, _)| *port).chain([1, 8080]) {
        let of_port = modes.ports.iter().find(|(listed, _)| *listed == port).map_or(modes.default, |(_, mode)| *mode);
        let decider = named.decider(&workload, port);
        let said = decider.and_then(|policy| policy.ports.get(&port).copied().flatten().or(policy.mode));
        assert_eq!(said.unwrap_or(MtlsMode::Permissive), of_port, "who decides of port {port} does not say so");
    }
    let mut text = format!("{:?}", modes.default);
    for (port, mode) in modes.ports {
        write!(text, " {port}={mode:?}").expect("writing to a string");
    }
    expected.assert_eq(&text);
}

#[test]
fn without_policy_both_are_accepted() {
    check("", &expect!["Permissive"]);
}

#[test]
fn the_narrowest_scope_decides() {
    check("m mesh STRICT", &expect!["Strict"]);
    check("m mesh STRICT\nn namespace/shop DISABLE", &expect!["Disable"]);
    check("m mesh STRICT\nn namespace/shop DISABLE\nw shop:app=a PERMISSIVE", &expect!["Permissive"]);
    check(
        "m mesh STRICT\nn namespace/shop DISABLE\nw shop:app=a PERMISSIVE 8080=STRICT",
        &expect!["Permissive 8080=Strict"],
    );
}

#[test]
fn what_is_unset_inherits() {
    check("m mesh UNSET", &expect!["Permissive"]);
    check("m mesh STRICT\nn namespace/shop UNSET", &expect!["Strict"]);
    check("m mesh STRICT\nn namespace/shop UNSET\nw shop:app=a UNSET", &expect!["Strict"]);
    check("m mesh STRICT\nn namespace/shop DISABLE\nw shop:app=a UNSET", &expect!["Disable"]);
    check("m mesh STRICT\nw shop:app=a UNSET 8080=UNSET 9090=PERMISSIVE", &expect!["Strict 9090=Permissive"]);
    check("n namespace/shop STRICT\nw shop:app=a DISABLE 8080=UNSET", &expect!["Disable"]);
}

#[test]
fn other_namespaces_and_other_labels_do_not_matter() {
    check("n namespace/other STRICT\nw other:app=a STRICT\nx shop:app=b STRICT", &expect!["Permissive"]);
    check("w shop:app=a,tier=db STRICT", &expect!["Permissive"]);
    check("w shop:app=a,tier=web STRICT", &expect!["Strict"]);
}

#[test]
fn the_oldest_of_equals_decides_alone() {
    check("b mesh STRICT @2026-01-01T00:00:00Z\na mesh DISABLE @2026-01-02T00:00:00Z", &expect!["Strict"]);
    check("b mesh STRICT\na mesh DISABLE", &expect!["Disable"]);
    check(
        "b namespace/shop STRICT @2026-01-01T00:00:00Z\na namespace/shop DISABLE @2026-01-02T00:00:00Z",
        &expect!["Strict"],
    );
    // Not even the ports of the younger count, nor does its mode where the oldest has none.
    check(
        "b shop:app=a UNSET 1=STRICT @2026-01-01T00:00:00Z\na shop:tier=web DISABLE 2=STRICT @2026-01-02T00:00:00Z",
        &expect!["Permissive 1=Strict"],
    );
    check("b mesh UNSET @2026-01-01T00:00:00Z\na mesh STRICT @2026-01-02T00:00:00Z", &expect!["Permissive"]);
}

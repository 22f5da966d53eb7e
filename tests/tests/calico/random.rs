//! Worlds at random: namespaces, pods, sets of addresses, services, and policies that Calico's own validation accepts.

use fastrand::Rng;
use serde_json::{Value, json};

/// The API server gives such a UID; Calico's conversion wants one.
const UID: &str = "7f000000-0000-4000-8000-000000000001";
/// The version of Calico's API.
pub(crate) const CALICO: &str = "projectcalico.org/v3";
/// The namespaces.
pub(crate) const NAMESPACES: [&str; 3] = ["shop", "bank", "lab"];
/// The node on which all pods run.
pub(crate) const NODE: &str = "node";

/// Ranges of addresses, of IPv4 first.
const NETS: [&str; 8] = [
    "10.0.0.0/24",
    "10.0.1.0/30",
    "192.0.2.0/24",
    "10.0.0.2/32",
    "fd00::/112",
    "fd00::1:0/112",
    "2001:db8::/64",
    "fd00::2:2/128",
];
const LIVE_NETS: [&str; 8] = [
    "10.244.1.0/24",
    "10.244.2.0/30",
    "192.0.2.0/24",
    "10.244.1.3/32",
    "fd00:244:1::/64",
    "fd00:244:2::/64",
    "2001:db8::/64",
    "fd00:244:1::2/128",
];
const TYPES: [&[&str]; 3] = [&["Ingress"], &["Egress"], &["Ingress", "Egress"]];

/// What policies are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// All that felix enforces.
    Connections,
    /// What Dikastes of Calico 3.28 reads of rules, as every version of Calico understands it.
    Requests,
    /// All that is known before a connection is there, in the addresses of the tests' nodes.
    Everything,
}

impl About {
    /// Ranges of addresses, of IPv4 first.
    const fn nets(self) -> [&'static str; 8] {
        match self {
            Self::Connections | Self::Requests => NETS,
            Self::Everything => LIVE_NETS,
        }
    }

    /// May rules exclude something, and name services and versions of IP?
    fn is_whole(self) -> bool {
        self != Self::Requests
    }

    /// May rules say what a request must be?
    fn is_http(self) -> bool {
        self != Self::Connections
    }
}

/// One of these.
pub(crate) fn pick<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// Up to `most` of them.
pub(crate) fn some<T>(rng: &mut Rng, most: usize, mut make: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..rng.usize(..=most)).map(|_| make(rng)).collect()
}

fn labels(rng: &mut Rng) -> Value {
    let mut labels = serde_json::Map::new();
    for (key, values) in [("app", ["web", "db"]), ("tier", ["front", "back"]), ("team", ["red", "blue"])] {
        if rng.u8(..3) > 0 {
            labels.insert(key.to_owned(), pick(rng, &values).into());
        }
    }
    labels.into()
}

/// Namespaces, service accounts, pods, services and sets of addresses.
pub(crate) fn population(rng: &mut Rng) -> Vec<Value> {
    let mut objects = Vec::new();
    for (at, namespace) in NAMESPACES.into_iter().enumerate() {
        let mut of = labels(rng);
        of["kubernetes.io/metadata.name"] = namespace.into();
        of["istio.io/dataplane-mode"] = "ambient".into();
        let metadata = json!({"name": namespace, "labels": of, "uid": UID});
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        for account in ["one", "two"] {
            let metadata = json!({"name": account, "namespace": namespace, "labels": labels(rng), "uid": UID});
            objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}));
        }
        objects.extend((1..=3).map(|n| pod(rng, namespace, at, n)));
        objects.extend(service(rng, namespace, at));
        let metadata = json!({"name": "set", "namespace": namespace, "labels": labels(rng)});
        let nets = json!({"nets": [format!("192.0.2.{}/32", at + 1), "198.51.100.0/24"]});
        objects.push(json!({"apiVersion": CALICO, "kind": "NetworkSet", "metadata": metadata, "spec": nets}));
    }
    let metadata = json!({"name": "set", "labels": labels(rng)});
    let nets = json!({"nets": ["192.0.2.0/24", "10.0.2.0/24", "2001:db8::/64"]});
    objects.push(json!({"apiVersion": CALICO, "kind": "GlobalNetworkSet", "metadata": metadata, "spec": nets}));
    objects
}

/// A pod with an address of each family, and names for ports.
fn pod(rng: &mut Rng, namespace: &str, at: usize, n: usize) -> Value {
    let addresses = [format!("10.0.{at}.{n}"), format!("fd00::{at}:{n}")];
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let ports =
        json!([{"name": "http", "containerPort": pick(rng, &[8080, 9090])}, {"name": "admin", "containerPort": 7000}]);
    let containers = json!([{"name": "main", "image": "none", "ports": ports}]);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("p{n}"), "namespace": namespace, "labels": labels(rng)},
        "spec": {"nodeName": NODE, "serviceAccountName": pick(rng, &["one", "two"]), "containers": containers},
        "status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips},
    })
}

/// A service, and the slice of its endpoints, which are two pods of its namespace.
fn service(rng: &mut Rng, namespace: &str, at: usize) -> [Value; 2] {
    let port = pick(rng, &[8080, 9090]);
    let metadata = json!({"name": "web", "namespace": namespace});
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": format!("10.96.0.{}", at + 1), "ports": [{"name": "main", "port": 80, "protocol": "TCP"}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-a", "namespace": namespace, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "main", "port": port, "protocol": "TCP"}],
        "endpoints": (1..=2).map(|n| json!({"addresses": [format!("10.0.{at}.{n}")], "conditions": {"ready": true}})).collect::<Vec<_>>(),
    });
    [service, slice]
}

fn selector(rng: &mut Rng) -> &'static str {
    pick(
        rng,
        &[
            "all()",
            "app == 'web'",
            "app != 'web'",
            "app in {'web', 'db'} && tier == 'front'",
            "has(team) || tier == 'back'",
            "!has(app)",
            "!(app == 'web' && has(tier))",
            "team starts with 'r'",
            "tier contains 'on'",
            "tier not in {'front'}",
            "projectcalico.org/serviceaccount == 'one'",
            "projectcalico.org/orchestrator == 'k8s'",
            "pcns.team == 'red' || pcsa.team == 'red'",
        ],
    )
}

/// One end of a rule. Ranges of addresses are among `nets`, which are of one family.
fn entity(rng: &mut Rng, nets: &[&'static str], about: About) -> Value {
    let mut entity = json!({});
    if rng.u8(..3) == 0 {
        entity["nets"] = some(rng, 2, |rng| pick(rng, nets)).into();
    }
    if about.is_whole() && rng.u8(..6) == 0 {
        entity["notNets"] = some(rng, 2, |rng| pick(rng, nets)).into();
    }
    if rng.u8(..2) == 0 {
        entity["selector"] = selector(rng).into();
    }
    if rng.u8(..5) == 0 {
        entity["notSelector"] = selector(rng).into();
    }
    if rng.u8(..4) == 0 {
        let choices = ["all()", "global()", "team == 'red'", "projectcalico.org/name != 'lab'"];
        entity["namespaceSelector"] = pick(rng, &choices).into();
    }
    match rng.u8(..10) {
        0 => entity["serviceAccounts"] = json!({"names": ["one"]}),
        1 => entity["serviceAccounts"] = json!({"selector": selector(rng)}),
        2 => entity["serviceAccounts"] = json!({"names": ["one", "two"], "selector": selector(rng)}),
        _ => {}
    }
    entity
}

/// Ports by number and by name.
fn ports(rng: &mut Rng) -> Value {
    let choices = [json!(8080), json!("9000:9100"), json!(7000), json!("http"), json!("admin")];
    some(rng, 2, |rng| pick(rng, &choices)).into()
}

/// A rule of Calico's. Only those for HTTP say what a request must be.
fn rule(rng: &mut Rng, is_ingress: bool, about: About) -> Value {
    let all = about.nets();
    let (version, nets) = match rng.u8(..10) {
        0 => (rng.bool().then_some(6), &all[4..]),
        1 => (Some(4), &all[..4]),
        _ => (None, &all[..4]),
    };
    let (source, destination) = (entity(rng, nets, about), entity(rng, nets, about));
    let mut rule = json!({"source": source, "destination": destination});
    rule["action"] = pick(rng, &["Allow", "Allow", "Allow", "Deny", "Pass", "Log"]).into();
    match rng.u8(..6) {
        0 => {}
        1 => rule["protocol"] = pick(rng, &["UDP", "ICMP", "SCTP"]).into(),
        2 => rule["notProtocol"] = pick(rng, &[json!("UDP"), json!("TCP"), json!(6)]),
        3 => rule["protocol"] = 6.into(),
        _ => rule["protocol"] = "TCP".into(),
    }
    if rule["protocol"] == "TCP" {
        rule["destination"]["ports"] = ports(rng);
        if about.is_whole() && rng.u8(..4) == 0 {
            rule["destination"]["notPorts"] = ports(rng);
        }
        match rng.u8(..12) {
            0 if about != About::Everything => rule["source"]["ports"] = json!(["1024:40000"]),
            1 if about == About::Connections => rule["source"]["notPorts"] = json!(["1024:40000", 50000]),
            _ => {}
        }
    }
    if about.is_whole()
        && let Some(version) = version
    {
        rule["ipVersion"] = version.into();
    }
    if about.is_whole() && rng.u8(..8) == 0 {
        let end = if is_ingress { "source" } else { "destination" };
        rule[end] = json!({"services": {"name": "web", "namespace": pick(rng, &NAMESPACES)}});
    }
    if is_ingress && about.is_http() && rng.bool() {
        rule["action"] = "Allow".into();
        rule["protocol"] = "TCP".into();
        if let Some(rule) = rule.as_object_mut() {
            rule.remove("notProtocol");
        }
        let methods = some(rng, 2, |rng| pick(rng, &["GET", "PUT", "*"]));
        let paths = some(rng, 2, |rng| match rng.u8(..3) {
            0 => json!({"exact": pick(rng, &["/", "/a", "/a/b"])}),
            _ => json!({"prefix": pick(rng, &["/a", "/c/"])}),
        });
        rule["http"] = json!({"paths": paths});
        if !methods.is_empty() && methods.iter().all(|method| *method == methods[0]) {
            rule["http"]["methods"] = json!([methods[0]]);
        }
    }
    rule
}

/// What a policy of Calico's says.
fn spec(rng: &mut Rng, is_global: bool, order: Option<usize>, about: About) -> Value {
    let ingress = some(rng, 3, |rng| rule(rng, true, about));
    let egress = some(rng, 2, |rng| rule(rng, false, about));
    let mut spec = json!({"selector": selector(rng), "ingress": ingress, "egress": egress});
    if let Some(order) = order {
        spec["order"] = order.into();
    }
    // Calico 3.28 knows no tiers.
    if about == About::Everything && rng.u8(..4) == 0 {
        spec["tier"] = "own".into();
    }
    if rng.bool() {
        let types = pick(rng, &TYPES);
        spec["types"] = json!(types);
    }
    if rng.u8(..5) == 0 {
        spec["serviceAccountSelector"] = selector(rng).into();
    }
    if is_global && rng.bool() {
        spec["namespaceSelector"] =
            pick(rng, &["all()", "team == 'red'", "projectcalico.org/name in {'shop', 'lab'}"]).into();
    }
    spec
}

/// A selector as Kubernetes writes it.
pub(crate) fn label_selector(rng: &mut Rng) -> Value {
    match rng.u8(..5) {
        0 => json!({}),
        1 => json!({"matchExpressions": [{"key": "app", "operator": pick(rng, &["Exists", "DoesNotExist"])}]}),
        2 => {
            json!({"matchExpressions": [{"key": "tier", "operator": pick(rng, &["In", "NotIn"]), "values": ["front"]}]})
        }
        _ => json!({"matchLabels": labels(rng)}),
    }
}

fn kubernetes(rng: &mut Rng, about: About) -> Value {
    let rules = |rng: &mut Rng, field: &str| {
        some(rng, 2, |rng| {
            let peers = some(rng, 2, |rng| match rng.u8(..4) {
                0 => json!({"podSelector": label_selector(rng)}),
                1 => json!({"namespaceSelector": label_selector(rng)}),
                2 => json!({"namespaceSelector": label_selector(rng), "podSelector": label_selector(rng)}),
                _ if !about.is_whole() => json!({"ipBlock": {"cidr": "10.0.0.0/24"}}),
                _ if rng.u8(..4) == 0 => json!({"ipBlock": {"cidr": "fd00::/16", "except": [about.nets()[5]]}}),
                _ => {
                    let [_, one, _, other, ..] = about.nets();
                    json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [pick(rng, &[one, other])]}})
                }
            });
            let ports = some(rng, 2, |rng| match rng.u8(..5) {
                0 => json!({"port": "http"}),
                1 => json!({"port": 9000, "endPort": 9100, "protocol": "TCP"}),
                2 => json!({"port": 8080, "protocol": "UDP"}),
                3 => json!({"protocol": "TCP"}),
                _ => json!({"port": 8080}),
            });
            json!({field: peers, "ports": ports})
        })
    };
    let (ingress, egress) = (rules(rng, "from"), rules(rng, "to"));
    let types = pick(rng, &TYPES);
    json!({"podSelector": label_selector(rng), "ingress": ingress, "egress": egress, "policyTypes": types})
}

/// Policies of every kind that Calico 3.28 has. No two of Calico's have one order.
pub(crate) fn policies(rng: &mut Rng, about: About) -> Vec<Value> {
    let mut orders: Vec<Option<usize>> = (0..8).map(|n| Some(n * 300)).chain([None]).collect();
    rng.shuffle(&mut orders);
    let mut policies = Vec::new();
    for (at, order) in orders.into_iter().take(rng.usize(1..5)).enumerate() {
        let (kind, namespace) =
            if rng.bool() { ("GlobalNetworkPolicy", None) } else { ("NetworkPolicy", Some(pick(rng, &NAMESPACES))) };
        let mut metadata = json!({"name": format!("n{at}")});
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        let spec = spec(rng, namespace.is_none(), order, about);
        policies.push(json!({"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": spec}));
    }
    for at in 0..rng.usize(..3) {
        let metadata = json!({"name": format!("k{at}"), "namespace": pick(rng, &NAMESPACES), "uid": UID});
        policies.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": kubernetes(rng, about)}));
    }
    policies
}

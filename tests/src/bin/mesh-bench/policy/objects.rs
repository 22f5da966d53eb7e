//! The objects of a cluster with many policies.
//!
//! In:  a [`Size`].
//! Out: namespaces, pods, tiers and policies as users write them; what is changed.
//! Invariant: ten pods make an application. The first ten applications are this node's; the first of them is crowded: a policy of
//! every tier is about it.

use serde_json::{Value, json};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// The node that is measured.
pub(super) const NODE: &str = "one";
/// Pods of an application.
const OF_APP: usize = 10;
/// Applications of this node.
const LOCAL: usize = 10;
const NAMESPACES: usize = 50;
/// Teams, by a label of pods.
const TEAMS: usize = 20;
/// AuthorizationPolicies of each application of this node.
const OF_LOCAL: usize = 5;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) policies: usize,
    pub(crate) tiers: usize,
    pub(crate) pods: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} policies, {} tiers, {} pods", self.policies, self.tiers, self.pods)
    }
}

/// What is asked of pods of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Connections, where no policy speaks of requests.
    Connections,
    /// Requests, where policies do.
    Requests,
    /// Connections, at the crowded pods.
    Crowded,
}

/// The cluster.
pub(super) struct Cluster(Size);

/// A kind of change, and its object by number.
type Changing = (&'static str, fn(&Cluster, usize) -> Value);

/// What is changed.
pub(super) const CHANGES: [Changing; 9] = [
    ("a NetworkPolicy of pods here", |cluster, number| cluster.network_policy(number % LOCAL, 3 + number)),
    ("a NetworkPolicy of pods elsewhere", |cluster, number| cluster.network_policy(LOCAL + number, 3 + number)),
    ("a policy of Calico about the crowded pods", |cluster, number| cluster.crowding(number, 7 + number)),
    ("an AuthorizationPolicy of pods here", |_, number| authorization_policy(number % LOCAL, 2, 100_000 + number)),
    ("an AuthorizationPolicy of every pod", |_, number| mesh_wide(number)),
    ("a policy of Calico about every pod", |_, number| everyone(number)),
    ("a pod of a known template", |cluster, number| cluster.pod(200, OF_APP + number, 200)),
    ("a pod of a new template", |cluster, number| cluster.pod(300, OF_APP + number, 10_000_000 + number)),
    ("a tier's place among the others", |cluster, number| tier(number, cluster.0.tiers + number)),
];

fn namespace(app: usize) -> String {
    format!("team-{:02}", app % NAMESPACES)
}

fn pod_name(app: usize, number: usize) -> String {
    format!("app-{app}-5d8f9c7b6d-{number:05}")
}

fn address(app: usize, number: usize) -> Ipv4Addr {
    let at = u32::try_from(app * 64 + number).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(0x0a00_0001 + at)
}

impl Cluster {
    pub(super) fn new(size: Size) -> Self {
        Self(size)
    }

    fn apps(&self) -> usize {
        self.0.pods / OF_APP
    }

    /// Policies by kind: of Kubernetes, of Calico, of Istio. The crowding ones, one in each tier, are among Calico's.
    fn kinds(&self) -> [usize; 3] {
        let istio = self.0.policies / 10;
        let calico = (self.0.policies * 4 / 10).max(self.0.tiers);
        [self.0.policies - istio - calico, calico, istio]
    }

    /// Every object.
    pub(super) fn everything(&self) -> impl Iterator<Item = Value> {
        let [kubernetes, calico, istio] = self.kinds();
        let namespaces = (0..NAMESPACES).map(|number| {
            let labels =
                json!({"istio.io/dataplane-mode": "ambient", "color": if number < 5 { "red" } else { "blue" }});
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(number), "labels": labels}})
        });
        let pods = (0..self.apps()).flat_map(move |app| (0..OF_APP).map(move |number| self.pod(app, number, app)));
        let tiers = (0..self.0.tiers).map(|number| tier(number, number));
        let of_kubernetes = (0..kubernetes).map(|number| self.network_policy(number, 0));
        let crowding = (0..self.0.tiers).map(|number| self.crowding(number, 0));
        let of_calico = (self.0.tiers..calico).map(|number| self.calico(number));
        let of_istio = (0..istio).map(|number| authorization_policy(number / OF_LOCAL, number % OF_LOCAL, number));
        namespaces.chain(pods).chain(tiers).chain(of_kubernetes).chain(crowding).chain(of_calico).chain(of_istio)
    }

    /// The pods that have a sandbox here, with their namespaces.
    pub(super) fn sandboxes(&self) -> impl Iterator<Item = (String, String)> {
        (0..LOCAL).flat_map(|app| (0..OF_APP).map(move |number| (pod_name(app, number), namespace(app))))
    }

    /// A pod of this node, and the address of one that asks it: half of the time one that is let in.
    pub(super) fn pair(&self, at: At, number: usize) -> (String, IpAddr) {
        let app = match at {
            At::Connections => 2 + number * 2 % (LOCAL - 2),
            At::Requests => 1 + number * 2 % LOCAL,
            At::Crowded => 0,
        };
        let stranger = self.apps() / 2 + number * 37 % (self.apps() / 2);
        let client = if number.is_multiple_of(2) { self.friend(app, 0) } else { stranger };
        (pod_name(app, number % OF_APP), address(client, number % OF_APP).into())
    }

    /// The application that the first NetworkPolicy of another one lets in.
    fn friend(&self, app: usize, variant: usize) -> usize {
        (app * 7 + 11 + variant) % self.apps()
    }

    fn pod(&self, app: usize, number: usize, label: usize) -> Value {
        let node = if app < LOCAL { NODE } else { "elsewhere" };
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod_name(app, number),
                "namespace": namespace(app),
                "labels": {
                    "app": format!("app-{label}"), "team": format!("team-{}", app % TEAMS), "version": "v1",
                    "pod-template-hash": "5d8f9c7b6d",
                },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{app}-5d8f9c7b6d"),
                    "uid": "1", "controller": true,
                }],
            },
            "spec": {"nodeName": node, "serviceAccountName": format!("app-{app}"), "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": address(app, number).to_string()},
        })
    }

    /// Pods of one application take connections of another one, and speak to red namespaces.
    fn network_policy(&self, number: usize, variant: usize) -> Value {
        let app = number % self.apps();
        let from = json!({
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app": format!("app-{}", self.friend(app, variant))}},
        });
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{number}"), "namespace": namespace(app)},
            "spec": {
                "podSelector": {"matchLabels": {"app": format!("app-{app}")}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [from], "ports": [{"port": 8080}]}],
                "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"color": "red"}}}]}],
            },
        })
    }

    /// A policy of a tier that is about the crowded pods: it denies two applications and passes on the rest.
    fn crowding(&self, number: usize, variant: usize) -> Value {
        let denied = |place: usize| {
            let app = 20 + (number * 2 + place + variant) % (self.apps() - 20);
            json!({"action": "Deny", "source": {"selector": format!("app == 'app-{app}'")}})
        };
        let rules = json!([denied(0), denied(1), {"action": "Pass"}]);
        calico_policy(&format!("crowding-{number}"), (0, number % self.0.tiers), &rules)
    }

    /// A policy of a tier about one application.
    fn calico(&self, number: usize) -> Value {
        let app = 1 + number % (self.apps() - 1);
        let rules = json!([
            {"action": "Deny", "source": {"selector": format!("team == 'team-{}' && version != 'v1'", number % TEAMS)}},
            {"action": "Deny", "protocol": "TCP", "destination": {"ports": [22, "6000:6010"]}},
            {"action": "Deny", "source": {"nets": ["198.51.100.0/24", "203.0.113.0/24"]}},
            {"action": "Pass"},
        ]);
        calico_policy(&format!("policy-{number}"), (app, number % self.0.tiers), &rules)
    }
}

fn calico_policy(name: &str, (app, in_tier): (usize, usize), ingress: &Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": format!("tier-{in_tier:04}.{name}"), "namespace": namespace(app)},
        "spec": {
            "tier": format!("tier-{in_tier:04}"), "order": 100, "selector": format!("app == 'app-{app}'"),
            "types": ["Ingress"], "ingress": ingress,
        },
    })
}

/// A tier at a place among the others.
fn tier(number: usize, place: usize) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": format!("tier-{number:04}")},
        "spec": {"order": place},
    })
}

/// What may be asked of an application, and by whom. Policies of every other application speak of requests.
fn authorization_policy(app: usize, number: usize, variant: usize) -> Value {
    let from = (0..3).map(|place| format!("*/sa/app-{}", 100_000 + variant * 3 + place));
    let from = json!([{"source": {"principals": from.collect::<Vec<_>>()}}]);
    let rules = match (app % 2, number) {
        (0, 0) => json!([{}]),
        (0, _) => json!([{"from": from}]),
        (_, 0) => json!([{"to": [{"operation": {"methods": ["GET", "HEAD"], "paths": ["/api/*", "/health"]}}]}]),
        (_, 1) => {
            json!([{"to": [{"operation": {"paths": ["/admin/*", "*.bak"]}}]}, {"to": [{"operation": {"methods": ["TRACE"]}}]}])
        }
        _ => json!([{
            "from": from, "to": [{"operation": {"methods": ["POST"], "paths": ["/api/v1/*"]}}],
            "when": [{"key": "request.headers[x-team]", "values": ["blue"]}],
        }]),
    };
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": format!("policy-{app}-{number}"), "namespace": namespace(app)},
        "spec": {
            "selector": {"matchLabels": {"app": format!("app-{app}")}},
            "action": if number == 1 { "DENY" } else { "ALLOW" }, "rules": rules,
        },
    })
}

/// A policy of the mesh about everyone, against one account.
fn mesh_wide(number: usize) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": format!("wide-{number}"), "namespace": "istio-system"},
        "spec": {
            "action": "DENY",
            "rules": [{"from": [{"source": {"principals": [format!("cluster.local/ns/a/sa/app-{number}")]}}]}],
        },
    })
}

/// A policy of Calico about everyone.
fn everyone(number: usize) -> Value {
    let rules = json!([{"action": "Deny", "source": {"selector": format!("app == 'app-{}'", 500 + number)}}, {"action": "Pass"}]);
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": format!("tier-0000.everyone-{number}")},
        "spec": {"tier": "tier-0000", "selector": "all()", "types": ["Ingress"], "ingress": rules},
    })
}

//! Calico's verdict is the same for pods in the mesh as for pods outside.
//!
//! In:  a table: who may reach which server, by policies of Kubernetes and of Calico.
//! Invariant: every verdict is asked of the network, on both nodes and between them, before and after joining.

use crate::support::{MODE, Pod, Space, client, pod};
use anyhow::{Context, Result, ensure};
use mesh_tests::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long felix may take to follow all policies on a busy machine.
const SETTLED: Duration = Duration::from_secs(40);
const CLIENTS: [(&str, &str); 4] =
    [("friend", "node1"), ("enemy", "node2"), ("captive", "node1"), ("bystander", "node2")];
const SERVERS: [&str; 5] = ["open", "by-port", "by-label", "by-selector", "by-account"];
const NODES: [&str; 2] = ["node1", "node2"];
const PORTS: [u16; 2] = [8080, 9090];

/// May this client reach this server on this port? What the policies below say, in words.
fn allowed(client: &str, server: &str, port: u16) -> bool {
    if client == "captive" && (server, port) != ("open", 8080) {
        return false;
    }
    match server {
        "open" => true,
        "by-port" => port == 8080,
        "by-label" | "by-account" => client == "friend",
        "by-selector" => client != "enemy",
        _ => unreachable!("no such server"),
    }
}

/// NetworkPolicies of Kubernetes.
fn of_kubernetes() -> [Value; 3] {
    let policy = |name: &str, pods: Value, rest: Value| {
        let mut spec = rest;
        spec["podSelector"] = json!({"matchLabels": pods});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})
    };
    [
        policy(
            "by-port",
            json!({"case": "by-port"}),
            json!({"policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 8080}]}]}),
        ),
        policy(
            "by-label",
            json!({"case": "by-label"}),
            json!({
                "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}],
            }),
        ),
        policy(
            "captive",
            json!({"role": "captive"}),
            json!({
                "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"case": "open"}}}], "ports": [{"port": 8080}]}],
            }),
        ),
    ]
}

/// GlobalNetworkPolicies of Calico.
fn of_calico(namespace: &str) -> [Value; 2] {
    let policy = |name: &str, ingress: Value| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": name},
            "spec": {
                "selector": format!("case == '{name}' && projectcalico.org/namespace == '{namespace}'"),
                "types": ["Ingress"], "ingress": ingress,
            },
        })
    };
    [
        policy(
            "by-selector",
            json!([{"action": "Deny", "source": {"selector": "role == 'enemy'"}}, {"action": "Allow"}]),
        ),
        policy("by-account", json!([{"action": "Allow", "source": {"serviceAccounts": {"names": ["friend"]}}}])),
    ]
}

/// Deletes the policies that are in no namespace.
struct Global<'space>(&'space Space);

impl Drop for Global<'_> {
    fn drop(&mut self) {
        drop(self.0.cluster.calicoctl(["delete", "globalnetworkpolicy", "by-selector", "by-account"]));
    }
}

#[test]
fn every_verdict_is_the_same_before_and_after_joining() -> Result<()> {
    let space = Space::new("policy", false)?;
    let accounts =
        CLIENTS.map(|(name, _)| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}));
    space.apply(&accounts)?;
    let clients: [Pod; 4] = space.pods(CLIENTS.map(|(name, node)| {
        let mut pod = client(name, node);
        pod["metadata"]["labels"] = json!({"role": name});
        pod["spec"]["serviceAccountName"] = json!(name);
        pod
    }))?;
    let mut pods = Vec::new();
    for case in SERVERS {
        for node in NODES {
            let both = "httpd -p 8080 -h /www && exec httpd -f -p 9090 -h /www";
            let mut pod = pod(&format!("{case}-{node}"), node, &["sh", "-c", both]);
            pod["metadata"]["labels"] = json!({"case": case});
            pods.push(pod);
        }
    }
    let pods: [Value; 10] = pods.try_into().ok().context("ten servers")?;
    let servers = space.pods(pods)?;
    let names = servers.iter().zip(SERVERS.iter().flat_map(|case| [case; 2]));
    let expected: BTreeSet<String> = CLIENTS
        .iter()
        .flat_map(|(client, _)| {
            names.clone().flat_map(move |(server, case)| PORTS.map(|port| (client, server, case, port)))
        })
        .filter(|(client, _, case, port)| allowed(client, case, *port))
        .map(|(client, server, _, port)| reached(client, server, port))
        .collect();
    let all: usize = CLIENTS.len() * servers.len() * PORTS.len();
    ensure!(reachable(&space, &clients, &servers)?.len() == all, "without policies everything is reached");

    let _global = Global(&space);
    let file = space.file("policies.yaml")?;
    let documents = of_calico(&space.name).map(|policy| format!("---\n{policy:#}\n")).concat();
    std::fs::write(&file, documents).context("cannot write the policies")?;
    space.cluster.calicoctl(["apply", "-f", &file.display().to_string()])?;
    space.apply(&of_kubernetes())?;
    wait::until_true("the policies take effect outside the mesh", SETTLED, || {
        Ok(reachable(&space, &clients, &servers)? == expected)
    })?;

    space.cluster.kubectl(["label", "namespace", &space.name, &format!("{MODE}=ambient")])?;
    for pod in clients.iter().chain(&servers) {
        space.event(&pod.name, "MeshJoined")?;
    }
    let before = counted(&space)?;
    let found = reachable(&space, &clients, &servers)?;
    let wrong: Vec<_> = found.symmetric_difference(&expected).collect();
    ensure!(wrong.is_empty(), "in the mesh other verdicts than outside: {wrong:#?}");
    let after = counted(&space)?;
    // Each connection that a policy of its server allowed met the rule that allowed it.
    let judged = expected.iter().filter(|line| !line.contains(" open-")).count();
    ensure!(after - before >= judged as u64, "felix allowed {judged} connections with {} packets", after - before);
    explained(&space)
}

/// The plugin of kubectl says the same, and by which policy.
fn explained(space: &Space) -> Result<()> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests");
    for (client, _) in CLIENTS {
        for (case, node) in [("by-label", "node1"), ("by-account", "node2")] {
            let (source, destination) = (format!("{}/{client}", space.name), format!("{}/{case}-{node}", space.name));
            let said = space.cluster.kubectl_plugin(&plugins, ["mesh", "why", &source, &destination, "8080"])?;
            let is_allowed = !said.contains("DENIED");
            ensure!(is_allowed == allowed(client, case, 8080), "{client} {case}: {said}");
            let by = if client == "captive" { client } else { case };
            ensure!(is_allowed || said.contains(by), "{client} {case} is not denied by {by}: {said}");
        }
    }
    Ok(())
}

fn reached(client: &str, server: &Pod, port: u16) -> String {
    format!("{client} {} {port}", server.name)
}

/// What each client reaches. An answer counts, not a connection: a proxy may take that before the other end is known.
fn reachable(space: &Space, clients: &[Pod], servers: &[Pod]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for client in clients {
        let asked = servers.iter().flat_map(|server| PORTS.map(|port| (server, port)));
        let script = asked.fold(String::new(), |script, (server, port)| {
            let (address, line) = (server.address, reached(&client.name, server, port));
            script + &format!("(timeout 3 wget -q -O /dev/null http://{address}:{port}/cgi-bin/who && echo {line}) 2>/dev/null &\n")
        });
        let said = space.exec(&client.name, &["sh", "-c", &format!("{script} wait")])?;
        found.extend(said.lines().map(str::to_owned));
    }
    Ok(found)
}

/// How many packets the rules of policies have met, on both nodes.
fn counted(space: &Space) -> Result<u64> {
    let mut sum = 0;
    for node in space.cluster.nodes() {
        let save = format!("iptables-{}-save", space.cluster.packet_filter());
        let rules = node.exec(&save, ["--counters", "--table", "filter"])?.success()?;
        let of_policies = rules.lines().filter(|line| line.contains("-A cali-pi-") || line.contains("-A cali-po-"));
        for line in of_policies {
            let packets = line.trim_start_matches('[').split(':').next().unwrap_or_default();
            sum += packets.parse::<u64>().with_context(|| format!("no counter in {line}"))?;
        }
    }
    Ok(sum)
}

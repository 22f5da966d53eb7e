//! Who is not in the mesh notices nothing of it: processes of the node, pods of its network, pods of other namespaces.
//!
//! In:  sockets' marks as the kernel tells them, `ss --extended`; rules, routes and settings of network namespaces.
//! Invariant: what is looked at is looked at in a pod of the mesh too, where it must be seen.
//! Source: `sock_diag(7)`, `INET_DIAG_MARK`.

use crate::support::{Pod, Space, between, client, metrics, pod, target};
use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::ClusterNode;
use mesh_tests::wait;
use serde_json::json;

/// Settings that steering changes.
const SETTINGS: [&str; 4] = [
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.fwmark_reflect",
    "net.ipv4.conf.lo.accept_local",
    "net.ipv4.conf.lo.rp_filter",
];

/// A network namespace of a node: its own, or that of a pod.
struct Net<'cluster>(&'cluster ClusterNode, Option<String>);

impl<'cluster> Net<'cluster> {
    fn of(node: &'cluster ClusterNode, pod: &Pod) -> Result<Self> {
        let entries = std::fs::read_dir(node.path("/run/netns")).context("a node's network namespaces")?;
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let net = Self(node, Some(name));
            // One that has just ended is nobody's.
            let addresses = net.run("ip", &["-oneline", "address"]).unwrap_or_default();
            if addresses.contains(&format!(" {}/", pod.address)) {
                return Ok(net);
            }
        }
        anyhow::bail!("{} has no network namespace on {}", pod.name, node.name())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let Some(name) = &self.1 else { return self.0.exec(program, arguments)?.success() };
        let inside = ["netns", "exec", name, program];
        self.0.exec("ip", inside.iter().chain(arguments))?.success()
    }

    /// Rules, routes by hand of the mesh, and settings.
    fn state(&self) -> Result<String> {
        let rules = self.run("ip", &["rule"])?;
        let routes = self.run("ip", &["route", "show", "table", "all", "type", "local"])?;
        // Addresses of pods come and go beside.
        let routes = routes.lines().filter(|line| line.contains("default")).collect::<Vec<_>>().join("\n");
        let settings = self.run("sysctl", &SETTINGS)?;
        Ok(format!("{rules}{routes}\n{settings}"))
    }

    /// The open connections to an address and port, each as the kernel describes it.
    fn connections(&self, to: &Pod, port: u16) -> Result<Vec<String>> {
        let to = format!("{}:{port}", to.address);
        let found =
            self.run("ss", &["--no-header", "--tcp", "--numeric", "--extended", "state", "established", "dst", &to])?;
        Ok(found.lines().map(str::to_owned).collect())
    }
}

#[test]
fn processes_of_the_node_and_pods_outside_the_mesh_are_left_alone() -> Result<()> {
    let space = Space::new("untouched", true)?;
    let outside = Space::new("untouched-outside", false)?;
    let mut host = client("host", "node1");
    host["spec"]["hostNetwork"] = json!(true);
    let [host] = space.pods([host])?;
    let [plain, server] = outside.pods([client("plain", "node1"), target("server", "node2")])?;
    let node = space.cluster.node("node1")?;
    let nets = [Net(node, None), Net::of(node, &plain)?];
    let before: Vec<String> = nets.iter().map(Net::state).collect::<Result<_>>()?;
    let address = format!("{}:8080", server.address);
    let load = ["fixed", &address, "--connections", "4", "--rate", "40", "--seconds", "20"];
    let running = [space.load(&host.name, &load)?, outside.load(&plain.name, &load)?];

    // A pod of the mesh comes to the node, and others of it go on.
    let [meshed] = space.pods([pod("meshed", "node1", &["sleep", "1000000"])])?;
    space.event(&meshed.name, "MeshJoined")?;
    let meshed_load = space.load(&meshed.name, &load)?;
    let capture = space.capture(8080, Some(&plain))?;
    outside.exec(&plain.name, &["timeout", "5", "wget", "-q", "-O", "-", &format!("http://{address}/")])?;
    for flow in between(&capture.stop()?, &[&plain, &server], 8080)? {
        ensure!(!flow.is_tls(), "what a pod outside the mesh says is TLS");
    }
    let own = Net::of(node, &meshed)?;
    wait::until_true("a connection of the pod in the mesh is marked", wait::PATIENCE, || {
        let found = own.connections(&server, 8080)?;
        Ok(found.iter().any(|connection| connection.contains("fwmark:")))
    })?;
    for (net, before) in nets.iter().zip(&before) {
        let found = net.connections(&server, 8080)?;
        ensure!(!found.is_empty(), "the load has no connection, which proves nothing");
        ensure!(found.iter().all(|connection| !connection.contains("mark:")), "a socket is marked: {found:#?}");
        let after = net.state()?;
        ensure!(after == *before, "{before}\nhas become\n{after}");
    }
    ensure!(own.state()? != before[1], "the mesh changes nothing in a pod of it, so that nothing is proved");

    let beginning = ["closed", &address, "--close", "--connections", "2", "--requests", "200"];
    let beginning = outside.load(&plain.name, &beginning)?.figures()?;
    ensure!(beginning.failed() == 0 && beginning.answered >= 100, "{beginning:?}");
    for load in running {
        let figures = load.figures()?;
        ensure!(figures.failed() == 0 && figures.answered >= 700, "{figures:?}");
    }
    meshed_load.figures()?;
    // Nobody counts them: they never met the daemon.
    let seen = metrics(&space.cluster)?;
    let counted = seen.lines().find(|line| line.contains("source_workload_namespace=\"untouched-outside\""));
    ensure!(counted.is_none(), "a daemon has carried {counted:?}");
    Ok(())
}

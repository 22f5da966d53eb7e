//! What happens to a node's pods while the mesh, the network's plugin or the API server comes and goes.
//!
//! Invariant: each of these runs alone, and leaves a cluster with the mesh.

mod edge;
mod reboot;

use crate::support::{
    POLICIES, START, SYSTEM, Space, between, client, daemon, install, manifest, mutual_edges, rolled_out, server,
    target,
};
use crate::witness::until;
use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::{Cluster, ClusterNode};
use mesh_tests::load::Figures;
use mesh_tests::wait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where the network's plugins are listed on a node.
const LIST: &str = "/etc/cni/net.d/10-calico.conflist";

/// Nothing was refused and nothing lost.
fn flawless(figures: &Figures, least: u32) -> Result<()> {
    ensure!(figures.failed() == 0 && figures.answered >= least, "{figures:?}");
    Ok(())
}

#[test]
fn a_rolling_update_fails_no_connection() -> Result<()> {
    let space = Space::new("rolling", true)?;
    let [asker, busy] = space.pods([client("asker", "node1"), target("busy", "node2")])?;
    let address = format!("{}:8080", busy.address);
    let load = space.load(&asker.name, &["closed", &address, "--close", "--connections", "4", "--seconds", "25"])?;
    space.cluster.kubectl(["-n", SYSTEM, "rollout", "restart", "daemonset/mesh-node"])?;
    rolled_out(&space.cluster)?;
    ensure!(load.runs()?, "the load was over before the update, which proves nothing");
    flawless(&load.figures()?, 1000)
}

#[test]
fn daemons_that_are_deleted_come_back_and_new_connections_only_wait() -> Result<()> {
    let space = Space::new("restart", true)?;
    let [asker, busy] = space.pods([client("asker", "node1"), target("busy", "node2")])?;
    let address = format!("{}:8080", busy.address);
    let open = space.load(&asker.name, &["fixed", &address, "--connections", "8", "--rate", "50", "--seconds", "8"])?;
    until(&space.cluster, "daemons have gone", START, || {
        let delete = ["-n", SYSTEM, "delete", "pods", "--selector=app.kubernetes.io/name=mesh-node", "--wait=false"];
        space.cluster.kubectl(delete).map(|said| !said.is_empty())
    })?;
    // The open connections end before the drain's deadline.
    flawless(&open.figures()?, 350)?;
    let load = space.load(&asker.name, &["closed", &address, "--close", "--connections", "4", "--seconds", "15"])?;
    rolled_out(&space.cluster)?;
    flawless(&load.figures()?, 500)
}

#[test]
fn calico_may_rewrite_its_list_as_often_as_it_likes() -> Result<()> {
    let space = Space::new("rewritten", true)?;
    space.strict()?;
    let stop = AtomicBool::new(false);
    let [web] = space.pods([server("web", "node1")])?;
    let host = format!("{}:8080", web.address);
    let (rewritten, pods) = thread::scope(|scope| {
        let writer = scope.spawn(|| rewrite(&space.cluster, &stop));
        let pods = (0..3).try_fold(Vec::new(), |mut all, round| {
            let names: [String; 4] = std::array::from_fn(|index| format!("pod-{round}-{index}"));
            let pods: [_; 4] = std::array::from_fn(|index| client(&names[index], ["node1", "node2"][index % 2]));
            all.extend(space.pods(pods)?);
            Ok::<_, anyhow::Error>(all)
        });
        stop.store(true, Ordering::Relaxed);
        (writer.join(), pods)
    });
    let rewritten = rewritten.map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(rewritten >= 20, "the list was rewritten {rewritten} times, which proves little");
    for pod in pods? {
        space.event(&pod.name, "MeshJoined")?;
        ensure!(space.who(&pod.name, &host)?.1 == pod.address.to_string(), "{} is not in the mesh", pod.name);
    }
    Ok(())
}

/// Writes the nodes' lists anew, as the installer of Calico does, until told to stop; says how often.
fn rewrite(cluster: &Cluster, stop: &AtomicBool) -> Result<usize> {
    let lists: Vec<_> = cluster.nodes().iter().map(|node| node.path(LIST)).collect();
    let texts = lists.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>().context("the lists are not there")?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + Duration::from_millis(200);
        for (list, text) in lists.iter().zip(&texts) {
            std::fs::write(list, text).context("cannot write a list")?;
        }
        count += 1;
        wait::until_true("the next time to write", wait::PATIENCE, || Ok(Instant::now() >= next))?;
    }
    Ok(count)
}

#[test]
fn a_daemon_starts_without_the_api_server_and_serves_what_it_knew() -> Result<()> {
    let space = Space::new("outage", true)?;
    space.strict()?;
    let [asker, busy] = space.pods([client("asker", "node1"), target("busy", "node2")])?;
    let address = format!("{}:8080", busy.address);
    // The kubelet carries it, so it goes on while the API server stands still.
    let load = space.load(&asker.name, &["closed", &address, "--close", "--connections", "2", "--seconds", "90"])?;
    // Whoever is killed knows afterwards what it had saved.
    for node in space.cluster.nodes() {
        wait_saved(&space, node, &[&asker.name, &busy.name])?;
    }
    let before: Vec<String> = space.cluster.nodes().iter().map(daemon).collect::<Result<_>>()?;
    let outage = Outage::begin(&space.cluster)?;
    for (node, old) in space.cluster.nodes().iter().zip(&before) {
        node.exec("kill", ["-KILL", old])?.success()?;
    }
    for (node, old) in space.cluster.nodes().iter().zip(&before) {
        until(&space.cluster, &format!("a new daemon on {}", node.name()), START, || {
            Ok(daemon(node).is_ok_and(|new| new != *old))
        })?;
    }
    // They count from nothing: what they count came through them.
    until(&space.cluster, "the new daemons carry new connections", START, || {
        Ok(mutual_edges(&space.cluster, space.cluster.nodes(), &space.name).is_ok_and(|edges| edges > 0))
    })?;
    ensure!(load.runs()?, "the load was over too soon, which proves nothing");
    drop(outage);
    rolled_out(&space.cluster)
}

/// Waits until a node's daemon has on disk that the namespace is strict, and that these pods of it are in the mesh.
fn wait_saved(space: &Space, node: &ClusterNode, pods: &[&str]) -> Result<()> {
    let pods = pods.iter().map(|pod| ("Pod", *pod, "mesh.internal/steered-by"));
    for (kind, name, has) in pods.chain([("PeerAuthentication", "default", "STRICT")]) {
        let saved = node.path(&format!("/var/lib/mesh/node/world/{kind}.jsonl"));
        let is_it = |line: &str| {
            line.contains(&format!("\"{}\"", space.name)) && line.contains(&format!("\"{name}\"")) && line.contains(has)
        };
        until(&space.cluster, &format!("{} saves {kind} {name}", node.name()), START, || {
            Ok(std::fs::read_to_string(&saved).unwrap_or_default().lines().any(is_it))
        })?;
    }
    Ok(())
}

/// The API server stands still until this is dropped.
struct Outage(u32);

impl Outage {
    fn begin(cluster: &Cluster) -> Result<Self> {
        let server = cluster.control_process("kube-apiserver")?;
        signal(server, nix::sys::signal::Signal::SIGSTOP)?;
        Ok(Self(server))
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        drop(signal(self.0, nix::sys::signal::Signal::SIGCONT));
    }
}

fn signal(process: u32, signal: nix::sys::signal::Signal) -> Result<()> {
    let process = nix::unistd::Pid::from_raw(i32::try_from(process)?);
    nix::sys::signal::kill(process, signal).context("cannot signal the API server")
}

#[test]
fn the_mesh_goes_under_load_and_comes_back_to_pods_that_run() -> Result<()> {
    let space = Space::new("uninstall", true)?;
    let [asker, busy, idle, web] = space.pods([
        client("asker", "node1"),
        target("busy", "node2"),
        client("idle", "node2"),
        server("web", "node1"),
    ])?;
    let rules = space.exec(&idle.name, &["ip", "rule"])?;
    ensure!(rules.lines().count() > 3, "the mesh steers by rules: {rules}");
    let address = format!("{}:8080", busy.address);
    let load = space.load(&asker.name, &["closed", &address, "--close", "--connections", "4", "--seconds", "60"])?;
    space.cluster.kubectl(["delete", "-f", &manifest(), "--timeout=85s"])?;
    for pod in [&asker, &busy, &idle] {
        let rules = space.exec(&pod.name, &["ip", "rule"])?;
        ensure!(rules.lines().count() == 3, "{} has rules left: {rules}", pod.name);
    }
    for node in space.cluster.nodes() {
        for left in ["/sys/fs/bpf/mesh", "/etc/cni/net.d/k8s-pod-network"] {
            ensure!(!node.exec("test", ["-e", left])?.status.success(), "{} has {left}", node.name());
        }
    }
    // What the mesh added is deleted without it, and what comes now is plain.
    space.kubectl(&["delete", "pod", &idle.name, "--timeout=30s"])?;
    let [late] = space.pods([client("late", "node2")])?;
    let capture = space.capture(8080, Some(&late))?;
    space.who(&late.name, &format!("{}:8080", web.address))?;
    for flow in between(&capture.stop()?, &[&late, &web], 8080)? {
        ensure!(!flow.is_tls(), "a pod without the mesh speaks TLS");
    }

    install(&space.cluster)?;
    for pod in [&asker, &busy, &late, &web] {
        space.event(&pod.name, "MeshJoined")?;
    }
    let capture = space.capture(8080, Some(&late))?;
    space.who(&late.name, &format!("{}:8080", web.address))?;
    for flow in between(&capture.stop()?, &[&late, &web], 8080)? {
        ensure!(flow.is_tls(), "a pod that the mesh found running speaks no TLS");
    }
    ensure!(load.runs()?, "the load was over too soon, which proves nothing");
    // Nodes leave and come one after another, and no connection meets one that does not take what the other speaks.
    flawless(&load.figures()?, 2000)
}

#[test]
fn a_definition_that_goes_and_comes_back_is_noticed() -> Result<()> {
    let space = Space::new("defined", true)?;
    let outside = Space::new("defined-outside", false)?;
    space.strict()?;
    let [web] = space.pods([server("web", "node1")])?;
    let [stranger] = outside.pods([client("stranger", "node2")])?;
    let host = format!("{}:8080", web.address);
    let is_served = |expected: bool| {
        let what = format!("a pod outside the mesh is {}", if expected { "served" } else { "refused" });
        // Less than the pause between two looks for a kind that nobody has defined.
        let as_expected = || Ok(outside.who(&stranger.name, &host).is_ok() == expected);
        until(&space.cluster, &what, Duration::from_secs(20), as_expected)
    };
    is_served(false)?;
    space.cluster.kubectl(["delete", "customresourcedefinition", POLICIES, "--timeout=60s"])?;
    is_served(true)?;
    install(&space.cluster)?;
    space.strict()?;
    is_served(false)
}

//! Brings the cluster up, step by step, and says how long each took.
//!
//! In:  what the user chose.
//! Out: two ready nodes, with DNS and Calico, and a file that describes them.
//! Invariant: whatever fails or takes too long, the error names the component and its log.

use super::layout::{CONTROL, Layout, NODES};
use super::machine;
use super::status;
use super::{Choices, Felix, calico, control, images, network, node, pki, sweep, wait};
use crate::run;
use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// Brings it up, in the place of one that is there.
///
/// **Errors**: a step failed; what runs is left as it is, to be looked at.
pub(super) fn up(layout: &Layout, choices: &Choices) -> Result<()> {
    let started = Instant::now();
    if sweep::sweep(layout)? {
        println!("cluster: removed the one that was there ({})", run::duration(started.elapsed()));
    }
    step("keys and the machines' network", || {
        let logs = layout.dir().join("logs");
        if logs.exists() {
            fs::remove_dir_all(&logs).with_context(|| format!("cannot remove {}", logs.display()))?;
        }
        pki::make(layout)?;
        network::make(layout, choices.encapsulation)
    })?;
    step("etcd and the API server", || {
        control::write_files(layout)?;
        machine::start(layout, &control::machine(layout))?;
        wait(layout, "the API server", CONTROL, "kube-apiserver", || {
            Ok(succeeds(layout.kubectl().args(["get", "--raw", "/readyz"])))
        })
    })?;
    step("the nodes' machines", || {
        let archive = images::make(layout)?;
        for node in &NODES {
            node::write_files(layout, node, choices)?;
            machine::start(layout, &node::machine(layout, node, choices, &archive))?;
        }
        Ok(())
    })?;
    step("Calico's definitions and pools", || objects(layout, choices))?;
    for node in &NODES {
        step(node.name, || ready(layout, node.name))?;
    }
    step("DNS", || {
        let rollout = ["--namespace", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s"];
        wait::output(layout.kubectl().args(rollout), PATIENCE)
            .map(drop)
            .context("CoreDNS does not start: see `cargo xtask cluster kubectl -n kube-system describe pods`")
    })?;
    fs::write(layout.state(), format!("{:#}\n", describe(layout, choices)))
        .context("cannot write the cluster's state")?;
    println!("cluster: up after {}; try `cargo xtask cluster kubectl get pods -A`", run::duration(started.elapsed()));
    Ok(())
}

/// What tests read of the cluster.
fn describe(layout: &Layout, choices: &Choices) -> Value {
    let nodes = NODES.iter().map(|node| {
        json!({
            "name": node.name, "address": node.address, "pods": node.pods,
            "namespace": layout.namespace(node.name), "process": layout.first_process(node.name),
            "search_path": node::search_path(layout, choices.containerd),
            "logs": layout.dir().join("logs").join(node.name),
        })
    });
    json!({
        "kubeconfig": layout.kubeconfig(),
        "namespace": layout.namespace(CONTROL),
        "kubectl": layout.tool("kubectl"),
        "calicoctl": layout.tool("calicoctl"),
        "encapsulation": choices.encapsulation.to_possible_value().map(|value| value.get_name().to_owned()),
        "packet_filter": match choices.felix {
            Felix::Nft => "nft",
            Felix::Legacy => "legacy",
        },
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

/// Does one step, and says how long it took.
fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    work()
        .with_context(|| format!("the cluster's step `{name}` failed; `cargo xtask cluster down` removes the rest"))?;
    println!("       {name}: {}", run::duration(started.elapsed()));
    Ok(())
}

/// Applies what the cluster starts with.
fn objects(layout: &Layout, choices: &Choices) -> Result<()> {
    let definitions = calico::definitions()?;
    let dir = layout.dir().join("manifests");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    apply(layout, &[&definitions])?;
    wait::definitions(layout).context("the API server does not take Calico's definitions")?;
    let nodes = write("nodes.json", &calico::nodes(choices.encapsulation).to_string())?;
    let calico = write("calico.yaml", calico::MANIFEST)?;
    let coredns = write("coredns.yaml", include_str!("coredns.yaml"))?;
    apply(layout, &[&nodes, &calico])?;
    let pools = calico::pools(choices.encapsulation);
    // calicoctl knows no lists, but files of several documents.
    let pools = pools.iter().map(|object| format!("---\n{object:#}\n")).collect::<String>();
    let pools = write("pools.yaml", &pools)?;
    wait::output(layout.calicoctl().arg("apply").arg("-f").arg(&pools), PATIENCE)
        .context("calicoctl cannot make the pools")?;
    apply(layout, &[&coredns])
}

/// Applies manifests, whoever made the objects.
fn apply(layout: &Layout, manifests: &[&Path]) -> Result<()> {
    let mut apply = layout.kubectl();
    apply.args(["apply", "--server-side", "--force-conflicts"]);
    for manifest in manifests {
        apply.arg("-f").arg(manifest);
    }
    wait::output(&apply, PATIENCE).map(drop)
}

/// Waits until every component of a node works and Kubernetes says so.
///
/// **Errors**: one does not in time; the error names its log.
pub(super) fn ready(layout: &Layout, node: &str) -> Result<()> {
    for component in status::NODE_COMPONENTS {
        wait(layout, &format!("{} on {node}", component.name), node, component.name, || {
            Ok(component.is_healthy(layout, node))
        })?;
    }
    wait(layout, &format!("that the kubelet of {node} says it is ready"), node, "kubelet", || {
        Ok(status::is_node_ready(layout, node))
    })
}

/// Waits for something of a machine, as long as the machine lives.
fn wait(
    layout: &Layout,
    what: &str,
    machine: &str,
    component: &str,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let (own, log) = (layout.log(machine, "machine"), layout.log(machine, component));
    let born = Instant::now();
    wait::until(what, PATIENCE, || {
        if born.elapsed() > Duration::from_secs(5) && layout.first_process(machine).is_none() {
            bail!("the machine {machine} ended: {}", tail(&own));
        }
        condition()
    })
    .with_context(|| format!("see {} and {}", log.display(), own.display()))
}

/// The end of a log.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

//! How the components are.
//!
//! Out: a line for each, with its log; an error if one is not well.

use super::layout::{CONTROL, Layout, NODES};
use super::machine;
use anyhow::{Result, bail};
use std::process::Command;

/// How one sees that a component is well.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// This URL answers, asked in the machine's network.
    Http(&'static str),
    /// This, of the node's own programs, succeeds inside the machine.
    Inside(&'static [&'static str]),
}

/// A component of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    pub(super) name: &'static str,
    probe: Probe,
}

/// Those of the control machine.
const CONTROL_COMPONENTS: &[Component] = &[
    Component { name: "etcd", probe: Probe::Http("http://127.0.0.1:2379/health") },
    Component { name: "kube-apiserver", probe: Probe::Http("https://10.99.0.1:6443/livez") },
    Component { name: "kube-controller-manager", probe: Probe::Http("https://127.0.0.1:10257/healthz") },
    Component { name: "kube-scheduler", probe: Probe::Http("https://127.0.0.1:10259/healthz") },
];

/// Those of a node.
pub(super) const NODE_COMPONENTS: &[Component] = &[
    Component { name: "containerd", probe: Probe::Inside(&["ctr", "version"]) },
    Component { name: "kubelet", probe: Probe::Http("http://127.0.0.1:10248/healthz") },
    Component { name: "kube-proxy", probe: Probe::Http("http://127.0.0.1:10256/healthz") },
    Component { name: "felix", probe: Probe::Http("http://127.0.0.1:9099/readiness") },
];

impl Component {
    /// Is it well?
    pub(super) fn is_healthy(&self, layout: &Layout, name: &str) -> bool {
        let mut command = match self.probe {
            Probe::Http(url) => {
                // Some certificates are of the moment; whether they are the right ones is for their clients to see.
                let mut curl = layout.in_network(name, "curl");
                curl.args(["--silent", "--fail", "--insecure", "--max-time", "3", url]);
                curl
            }
            Probe::Inside(line) => {
                let Some((program, arguments)) = line.split_first() else { return false };
                let Ok(mut command) = machine::inside(layout, name, program) else { return false };
                command.args(arguments);
                command
            }
        };
        succeeds(&mut command)
    }
}

/// Does Kubernetes say that a node is ready?
pub(super) fn is_node_ready(layout: &Layout, node: &str) -> bool {
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let condition = layout.kubectl().args(["get", "node", node, "--output", path]).output();
    condition.is_ok_and(|output| output.stdout == b"True")
}

/// Prints how everything is.
///
/// **Errors**: something is not well, or nothing is up.
pub(super) fn print(layout: &Layout) -> Result<()> {
    if !layout.namespace(CONTROL).exists() {
        bail!("no cluster is up: run `cargo xtask cluster up`");
    }
    let mut ill = Vec::new();
    let mut line = |machine: &str, component: &str, well: bool| {
        let log = layout.log(machine, component);
        println!("{:<8} {component:<24} {machine:<8} {}", if well { "ok" } else { "FAILING" }, log.display());
        if !well {
            ill.push(format!("{component} on {machine}"));
        }
    };
    for component in CONTROL_COMPONENTS {
        line(CONTROL, component.name, component.is_healthy(layout, CONTROL));
    }
    for node in NODES {
        for component in NODE_COMPONENTS {
            line(node.name, component.name, component.is_healthy(layout, node.name));
        }
        line(node.name, "machine", layout.first_process(node.name).is_some() && is_node_ready(layout, node.name));
    }
    let dns = ["--namespace", "kube-system", "wait", "--for=condition=Available", "deployment/coredns", "--timeout=2s"];
    let dns = succeeds(layout.kubectl().args(dns));
    println!(
        "{:<8} {:<24} {:<8} `cargo xtask cluster kubectl -n kube-system logs deployment/coredns`",
        if dns { "ok" } else { "FAILING" },
        "coredns",
        "pods"
    );
    if !dns {
        ill.push("coredns".to_owned());
    }
    if !ill.is_empty() {
        bail!("not well: {}; see their logs, or begin anew with `cargo xtask cluster up`", ill.join(", "));
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

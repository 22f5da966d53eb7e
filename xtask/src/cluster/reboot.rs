//! Ends a node as a power cut would, and boots it.
//!
//! In:  a node of a cluster that is up.
//! Out: the same node: what it keeps on its disk, and nothing else.
//! Invariant: `/run`, pinned eBPF objects, cgroups, mounts, networks and processes are lost; `/var/lib`, `/var/log`,
//! `/etc/cni`, `/etc/kubernetes` and `/opt/cni` are as they were.

use super::layout::{Layout, Node};
use super::{Encapsulation, cgroups, machine, network, sweep, up, wait};
use crate::run;
use anyhow::{Context, Result};
use clap::ValueEnum as _;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// How long the first process may take.
const START: Duration = Duration::from_secs(20);

/// Ends it and boots it; with `patiently`, comes back when it works again.
///
/// **Errors**: something of it does not end, or it does not come back.
pub(super) fn reboot(layout: &Layout, node: &Node, patiently: bool) -> Result<()> {
    let started = Instant::now();
    let path = layout.state();
    let text = fs::read_to_string(&path).context("this cluster never was up: run `cargo xtask cluster up`")?;
    let mut state: Value = serde_json::from_str(&text).context("the state of the cluster is damaged")?;
    let encapsulation = state["encapsulation"].as_str().and_then(|name| Encapsulation::from_str(name, false).ok());
    let encapsulation = encapsulation.context("the state of the cluster does not say how packets are wrapped")?;

    network::part(layout, node)?;
    sweep::end(layout, node.name)?;
    cgroups::remove(&[layout.name(node.name)])?;
    network::join(layout, node, encapsulation)?;
    machine::boot(layout, node.name)?;
    wait::until(&format!("{} boots", node.name), START, || Ok(layout.first_process(node.name).is_some()))?;
    // Tests enter the node by it.
    let described =
        state["nodes"].as_array_mut().into_iter().flatten().find(|described| described["name"] == node.name);
    described.context("the state of the cluster lacks the node")?["process"] = json!(layout.first_process(node.name));
    fs::write(&path, format!("{state:#}\n")).context("cannot write the cluster's state")?;
    if patiently {
        up::ready(layout, node.name)?;
    }
    println!("cluster: {} has booted after {}", node.name, run::duration(started.elapsed()));
    Ok(())
}

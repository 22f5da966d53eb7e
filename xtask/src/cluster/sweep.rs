//! Removes a cluster, also one of which something died.
//!
//! In:  the names that everything of this work tree's cluster bears.
//! Out: no process, namespace, mount or cgroup of it is left; its logs and its images are.
//! Invariant: only processes in network namespaces of these names are ended.

use super::layout::{Layout, machines};
use super::{cgroups, wait};
use crate::run;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// How long the kernel may take to end what was killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Removes everything of the cluster; says whether there was something.
///
/// **Errors**: something cannot be removed; the error says what.
pub(super) fn sweep(layout: &Layout) -> Result<bool> {
    let mut found = false;
    for machine in machines().filter(|machine| layout.namespace(machine).exists()) {
        found = true;
        end(layout, machine)?;
    }
    let names: Vec<_> = machines().map(|machine| layout.name(machine)).collect();
    cgroups::remove(&names)?;
    for dir in ["machines", "pki", "manifests"] {
        let dir = layout.dir().join(dir);
        // What containers had mounted goes with their namespaces, which takes the kernel a moment.
        wait::until(&format!("{} can be removed", dir.display()), PATIENCE, || {
            Ok(fs::remove_dir_all(&dir).is_ok() || !dir.exists())
        })?;
    }
    match fs::remove_file(layout.state()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot remove the state"),
        Err(_) | Ok(()) => Ok(found),
    }
}

/// Ends a machine at once: its processes and those of its pods, and its network.
///
/// **Errors**: something of it does not go; the error says what.
pub(super) fn end(layout: &Layout, machine: &str) -> Result<()> {
    let name = layout.name(machine);
    wait::until(&format!("every process of {machine} ends"), PATIENCE, || {
        let processes = processes(&name)?;
        for process in &processes {
            // It may have ended by itself.
            let _ = kill(*process, Signal::SIGKILL);
        }
        Ok(processes.is_empty())
    })?;
    run::output(Command::new("ip").args(["netns", "del", &name]))
        .map(drop)
        .with_context(|| format!("the network namespace {name} is left behind"))
}

/// The processes in a network namespace. Pods have networks of their own, and end with their node's first process.
fn processes(namespace: &str) -> Result<Vec<Pid>> {
    let list = run::output(Command::new("ip").args(["netns", "pids", namespace]))?;
    Ok(list.split_whitespace().filter_map(|number| number.parse().ok()).map(Pid::from_raw).collect())
}

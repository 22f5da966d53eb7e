//! Waits for what happens in a cluster, and says of a wait in vain how the mesh was then.
//!
//! In:  what is waited for; of a wait in vain, the pods, and of each node the daemon's status and the end of its log.
//! Invariant: what cannot be told is told to be missing, and hides nothing else.

use anyhow::{Context, Result};
use mesh_tests::cluster::{Cluster, ClusterNode};
use mesh_tests::{env, wait};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Lines of a daemon's log that are shown.
const LINES: usize = 60;
/// Where the kubelet keeps the logs of pods.
const LOGS: &str = "/var/log/pods";

/// Looks until `condition` is true.
///
/// **Errors**: it gives an error, or is not true within `patience`; the error says how the mesh is.
pub(crate) fn until(
    cluster: &Cluster,
    what: &str,
    patience: Duration,
    condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait::until_true(what, patience, condition).with_context(|| state(cluster))
}

/// How the mesh is.
pub(crate) fn state(cluster: &Cluster) -> String {
    let mut text = String::new();
    // The API server may be what is away.
    let pods = ["get", "pods", "--all-namespaces", "--output=wide", "--request-timeout=5s"];
    tell(&mut text, "pods", cluster.kubectl(pods));
    for node in cluster.nodes() {
        tell(&mut text, &format!("the status of the daemon of {}", node.name()), status(node));
        tell(&mut text, &format!("the end of its log on {}", node.name()), log(node));
    }
    text
}

fn tell(text: &mut String, what: &str, told: Result<String>) {
    let told = told.unwrap_or_else(|error| format!("not told: {error:#}"));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "--- {what} ---\n{}", told.trim_end());
}

/// A node's target directory is where this machine has it.
fn status(node: &ClusterNode) -> Result<String> {
    node.exec(&env::built("mesh-node")?.display().to_string(), ["status"])?.success()
}

/// The end of the newest log of a node's daemon, also of one that is gone.
fn log(node: &ClusterNode) -> Result<String> {
    let entries = |dir: PathBuf| {
        let list = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()));
        Ok::<_, anyhow::Error>(list?.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
    };
    let mut newest = None;
    for pod in entries(node.path(LOGS))? {
        if pod.file_name().is_some_and(|name| name.to_string_lossy().contains("_mesh-node-")) {
            for file in entries(pod.join("mesh-node"))? {
                let changed = fs::metadata(&file).and_then(|file| file.modified()).context("a log")?;
                newest = newest.max(Some((changed, file)));
            }
        }
    }
    let (_, newest) = newest.context("it has written none")?;
    let text = fs::read_to_string(&newest).with_context(|| format!("cannot read {}", newest.display()))?;
    // Records of connections that went well are many: probes make one a second.
    let lines: Vec<_> = text.lines().filter(|line| !line.contains(r#""outcome":"closed""#)).collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

//! As many pods on one node as a kubelet allows by far: how long each waits to be enrolled, and what it costs.
//!
//! In:  the stage.
//! Out: one sample: the time of the plugin's ADD, which returns when the pod's traffic is steered, and memory.
//! Invariant: pods are added one after another, so that none waits for another; all are there when memory is read.

use crate::figures::{Measure, Sample, Way};
use crate::loads::Figures;
use crate::stage::Stage;
use crate::usage::{Window, settled_rss_kb};
use anyhow::{Context as _, ensure};
use mesh_tests::Node;
use std::time::Duration;

const NAMESPACE: &str = "many";
/// How long memory may take to stop moving.
const SETTLE: Duration = Duration::from_secs(8);

/// Adds `count` pods to node A, each with an identity of its own.
pub(crate) fn many(stage: &Stage, count: usize) -> anyhow::Result<Option<Sample>> {
    let Some(pair) = stage.pairs.iter().find(|pair| pair.way == Way::Mesh) else { return Ok(None) };
    let mesh = stage.mesh();
    mesh.kube().namespace(NAMESPACE, &[("istio.io/dataplane-mode", "ambient")])?;
    let daemon = mesh.daemon(Node::A)?;
    let before = settled_rss_kb(&[daemon.id()], SETTLE)?;
    let window = Window::open(&pair.processes)?;
    let mut pods = Vec::with_capacity(count);
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("pod-{number}");
        let pod = mesh.pod(&format!("{NAMESPACE}/{name}")).on(Node::A).account(&name).start()?;
        times.push(pod.added_in().context("the runtime does not tell how long ADD took")?);
        pods.push(pod);
    }
    let spent = window.close()?;
    let in_force = daemon.metric("mesh_control_pods_in_force", &[])?;
    ensure!(in_force >= number(count), "only {in_force} pods are steered");
    let after = settled_rss_kb(&[daemon.id()], SETTLE)?;
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).saturating_sub(1)].as_secs_f64() * 1e3;
    let figures = Figures::from([
        ("pods", number(pods.len())),
        ("p50_ms", at(50)),
        ("p99_ms", at(99)),
        ("max_ms", at(100)),
        ("kb_each", (after - before) / number(count)),
        ("rss_mb", after / 1024.0),
    ]);
    Ok(Some(Sample { measure: Measure::Pods, way: Way::Mesh, round: 0, foreign: spent.foreign, figures }))
}

#[expect(clippy::cast_precision_loss, reason = "counts of pods")]
const fn number(count: usize) -> f64 {
    count as f64
}

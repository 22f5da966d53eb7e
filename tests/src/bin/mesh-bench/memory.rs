//! Resident memory: idle, for each held connection, for each workload of the directory.
//!
//! In:  the stage.
//! Out: samples.
//! Invariant: memory is read when it has stopped moving, before and after.

use crate::crowd;
use crate::figures::{Measure, Sample, Way};
use crate::loads::{Figures, Pair};
use crate::stage::Stage;
use crate::usage::{Window, anonymous_kb_of, rest, settled_rss_kb};
use anyhow::Context as _;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What a proxy needs beside its connections.
const SPARE_DESCRIPTORS: u64 = 500;
/// How long memory may take to stop moving.
const SETTLE: Duration = Duration::from_secs(8);
/// How long daemons may take to read every pod.
const TAKE_IN: Duration = Duration::from_secs(60);

/// Resident memory of the proxies of each way that has any.
pub(crate) fn idle(pairs: &[Pair]) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for pair in pairs.iter().filter(|pair| !pair.processes.proxies.is_empty()) {
        let window = Window::open(&pair.processes)?;
        let kb = settled_rss_kb(&pair.processes.proxies, SETTLE)?;
        let spent = window.close()?;
        let figures = [
            ("rss_all_mb", kb / 1024.0),
            ("rss_each_mb", kb / 1024.0 / count(pair.processes.proxies.len())),
            (
                "anonymous_each_mb",
                anonymous_kb_of(&pair.processes.proxies)? / 1024.0 / count(pair.processes.proxies.len()),
            ),
            ("cpu_percent", spent.proxies / spent.wall * 100.0),
        ];
        samples.push(Sample {
            measure: Measure::Idle,
            way: pair.way,
            round: 0,
            foreign: spent.foreign,
            figures: figures.into(),
        });
    }
    Ok(samples)
}

/// Growth of the proxies' memory for each connection that is held open.
pub(crate) fn held(stage: &Stage, wanted: usize, notes: &mut Vec<String>) -> anyhow::Result<Vec<Sample>> {
    let (_soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    // A proxy has two descriptors for each connection, and some for itself.
    let room = usize::try_from(hard.saturating_sub(SPARE_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    let connections = wanted.min(room);
    if connections < wanted {
        notes.push(format!(
            "{connections} connections are held, not {wanted}: a process may have {hard} descriptors here, and a proxy \
             needs two for each connection"
        ));
    }
    let mut samples = Vec::new();
    for pair in stage.pairs.iter().filter(|pair| !pair.processes.proxies.is_empty()) {
        let sample = hold_one(stage, pair, connections).with_context(|| format!("holding by {}", pair.way.name()))?;
        if sample.figures["failed"] > 0.0 {
            let failed = sample.figures["failed"];
            notes.push(format!("{failed} of {connections} held connections failed by {}", pair.way.name()));
        }
        samples.push(sample);
    }
    Ok(samples)
}

fn hold_one(stage: &Stage, pair: &Pair, connections: usize) -> anyhow::Result<Sample> {
    let window = Window::open(&pair.processes)?;
    let before = settled_rss_kb(&pair.processes.proxies, SETTLE)?;
    let mut holder = pair
        .client(&stage.meshload.0.to_string_lossy())
        .args(["hold", &pair.http.to_string(), "--connections", &connections.to_string(), "--seconds", "60"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run meshload")?;
    let mut line = String::new();
    if let Some(output) = holder.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("cannot read what meshload says")?;
    }
    let after = settled_rss_kb(&pair.processes.proxies, SETTLE);
    // The end of its input ends it.
    drop(holder.stdin.take());
    holder.wait().context("cannot wait for meshload")?;
    let spent = window.close()?;
    let answer: Value = serde_json::from_str(&line).with_context(|| format!("meshload printed no JSON: {line:?}"))?;
    let held = answer["held"].as_f64().filter(|held| *held > 0.0).context("no connection could be held")?;
    let after = after?;
    let figures = [
        ("held", held),
        ("failed", answer["failed"].as_f64().unwrap_or(0.0)),
        ("kb_each", (after - before) / held),
        ("kb_daemon", (after - before) / held / count(pair.processes.proxies.len())),
        ("before_mb", before / 1024.0),
    ];
    let foreign = spent.foreign;
    Ok(Sample { measure: Measure::Held, way: pair.way, round: 0, foreign, figures: figures.into() })
}

/// Growth of one daemon's memory for each pod that is written into its directory.
pub(crate) fn workloads(stage: &Stage, pods: usize, notes: &mut Vec<String>) -> anyhow::Result<Vec<Sample>> {
    let Some(pair) = stage.pairs.iter().find(|pair| pair.way == Way::Mesh) else { return Ok(Vec::new()) };
    let proxies = &pair.processes.proxies;
    let window = Window::open(&pair.processes)?;
    let before = settled_rss_kb(proxies, SETTLE)?;
    let start = Instant::now();
    crowd::write(stage.objects(), pods)?;
    let rested = rest(proxies, TAKE_IN)?;
    let after = settled_rss_kb(proxies, SETTLE)?;
    crowd::remove(stage.objects(), pods)?;
    if rested.is_none() {
        notes.push(format!("{pods} pods: the daemons had not come to rest after {} s", TAKE_IN.as_secs()));
    }
    let spent = window.close()?;
    let daemons = count(proxies.len());
    let mut figures = Figures::from([
        ("pods", count(pods)),
        ("kb_each", (after - before) / daemons / count(pods)),
        ("rss_mb", after / daemons / 1024.0),
        ("cpu_s", spent.proxies / daemons),
    ]);
    if let Some(rested) = rested {
        figures.insert("seconds", (rested - start).as_secs_f64());
    }
    let (measure, foreign) = (Measure::Workloads, spent.foreign);
    Ok(vec![Sample { measure, way: Way::Mesh, round: 0, foreign, figures }])
}

#[expect(clippy::cast_precision_loss, reason = "numbers far below 2^52")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

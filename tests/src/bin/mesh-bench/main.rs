//! Measures the mesh beside a direct connection and haproxy, in one run.
//!
//! In:  programs built for speed, bounds.
//! Out: a table for each measure, the targets, and a report as JSON.
//! Invariant: the ways take turns within each round, so that a busy neighbour hits all of them alike; every load is
//! bounded in time and count.

mod crowd;
mod envoy;
mod figures;
mod haproxy;
mod loads;
mod memory;
mod pods;
mod policy;
mod report;
mod routes;
mod scale;
mod stage;
mod usage;

use anyhow::Context as _;
use clap::Parser;
use figures::{Measure, Sample, Way, summarize};
use loads::{Lengths, Meshload, Pair};
use stage::{Stage, Wanted};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Options {
    /// Where logs, keys and the report go.
    #[arg(long)]
    work: PathBuf,
    /// Short loads.
    #[arg(long)]
    quick: bool,
    /// Only these measures.
    #[arg(long)]
    only: Vec<Measure>,
    /// Only these ways.
    #[arg(long)]
    way: Vec<Way>,
    /// The pods of the large cluster of `scale`.
    #[arg(long)]
    pods: Option<usize>,
    /// The program of Envoy; without one it is not measured.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// What the mesh's daemons write of each connection: off, text (as by default) or json.
    #[arg(long, default_value = "text")]
    access_log: String,
}

/// How much is done.
struct Plan {
    rounds: usize,
    lengths: Lengths,
    held: usize,
    workloads: usize,
    routes: usize,
    scale: scale::Plan,
    policy: policy::Size,
    measures: Vec<Measure>,
    /// How long a quiet moment is waited for before each load.
    patience: Duration,
    /// No further round begins after this.
    end: Instant,
}

impl Plan {
    fn new(options: &Options, begun: Instant) -> Self {
        let seconds = Duration::from_secs;
        let measures = if options.only.is_empty() { Measure::usual() } else { options.only.clone() };
        if options.quick {
            let lengths = Lengths { load: seconds(1), latency: seconds(2) };
            return Self {
                rounds: 3,
                lengths,
                held: 2000,
                workloads: 2000,
                routes: 2000,
                scale: scale::Plan { pods: options.pods.unwrap_or(10_000), follow: seconds(20) },
                policy: policy::Size { policies: 1_000, tiers: 100, pods: 20_000 },
                measures,
                patience: Duration::ZERO,
                end: begun + seconds(150),
            };
        }
        let lengths = Lengths { load: seconds(4), latency: seconds(8) };
        Self {
            rounds: 3,
            lengths,
            held: 10_000,
            workloads: 10_000,
            routes: 10_000,
            scale: scale::Plan { pods: options.pods.unwrap_or(100_000), follow: seconds(30) },
            policy: policy::Size { policies: 10_000, tiers: 1_000, pods: 50_000 },
            measures,
            patience: seconds(5),
            end: begun + seconds(900),
        }
    }
}

/// What to know when reading haproxy's figures.
const HAPROXY: &str = "where connections are carried as they come, haproxy does so too: a TLS connection for each \
                       connection of a client, resumed by a ticket where it can be, which serves once; those of the \
                       mesh serve again. Where HTTP is understood, its requests share connections of HTTP/2 between \
                       nodes, by a static route";

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    std::fs::create_dir_all(&options.work).with_context(|| format!("cannot create {}", options.work.display()))?;
    let plan = Plan::new(options, started);
    let (mut samples, mut notes) = (Vec::new(), Vec::new());
    // These need nothing of the stage: scale has a cluster of its own, policy has none.
    for &measure in plan.measures.iter().filter(|measure| !measure.is_staged()) {
        samples.push(if measure == Measure::Scale { scale::run(&plan.scale)? } else { policy::run(plan.policy)? });
        show(measure, &samples);
    }
    let staged: Vec<_> = plan.measures.iter().copied().filter(|measure| measure.is_staged()).collect();
    if !staged.is_empty() {
        on_stage(options, &plan, &staged, &mut samples, &mut notes)?;
    }
    let summaries = summarize(&samples);
    print!("{}", report::verdicts(&summaries));
    for note in &notes {
        println!("  note: {note}");
    }
    let report = report::Report {
        quick: options.quick,
        machine: machine(),
        notes: &notes,
        summaries: &summaries,
        samples: &samples,
    };
    let path = options.work.join("report.json");
    report::save(&report, &path)?;
    println!("\nbench: {} s, report in {}", started.elapsed().as_secs(), path.display());
    Ok(())
}

/// Prints the table of one measure.
fn show(measure: Measure, samples: &[Sample]) {
    if let Some(summary) = summarize(samples).iter().find(|summary| summary.measure == measure) {
        print!("{}", report::table(summary));
    }
}

/// What is measured between pods of two nodes.
fn on_stage(
    options: &Options,
    plan: &Plan,
    measures: &[Measure],
    samples: &mut Vec<Sample>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let ways = if options.way.is_empty() { Way::ALL.to_vec() } else { options.way.clone() };
    let (is_known, http) = (options.envoy.is_some(), measures.iter().any(|measure| measure.is_http()));
    let ways: Vec<_> = ways.into_iter().filter(|way| *way != Way::Envoy || is_known && http).collect();
    if http && !is_known {
        notes.push("Envoy is not measured: there is no program of it".to_owned());
    }
    println!("bench: two nodes, a pair of pods for each of {}", names(&ways));
    let stage = Stage::up(
        &options.work,
        &Wanted {
            ways: &ways,
            tcp: measures.iter().any(|measure| !measure.is_http()),
            http,
            access_log: &options.access_log,
            envoy: options.envoy.clone(),
        },
    )?;
    notes.push(format!("access log: {} for the mesh, none for the others", options.access_log));
    if ways.contains(&Way::Haproxy) {
        notes.push(HAPROXY.to_owned());
    }
    for &measure in measures {
        measure_one(measure, plan, &stage, samples, notes)?;
        show(measure, samples);
    }
    Ok(())
}

fn measure_one(
    measure: Measure,
    plan: &Plan,
    stage: &Stage,
    samples: &mut Vec<Sample>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    match measure {
        Measure::Idle => samples.extend(memory::idle(&stage.pairs)?),
        Measure::Held => samples.extend(memory::held(stage, plan.held, notes)?),
        Measure::Workloads => samples.extend(memory::workloads(stage, plan.workloads, notes)?),
        // A node's range has 253 addresses here, and the stage has pods of its own.
        Measure::Pods => samples.extend(pods::many(stage, 245)?),
        Measure::Routes => samples.extend(routes::change(stage, plan.routes)?),
        // It is measured before there is a stage.
        Measure::Scale | Measure::Policy => {}
        Measure::Bulk
        | Measure::Keepalive
        | Measure::Connections
        | Measure::Latency
        | Measure::Http1
        | Measure::Http2
        | Measure::HttpLatency => {
            rounds(measure, plan, stage, samples, notes)?;
        }
    }
    Ok(())
}

/// Runs a load by each way in turn, for as many rounds as there is time.
fn rounds(
    measure: Measure,
    plan: &Plan,
    stage: &Stage,
    samples: &mut Vec<Sample>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    for round in 0..plan.rounds {
        if Instant::now() > plan.end {
            notes.push(format!("{measure:?}: only {round} of {} rounds, the time was up", plan.rounds));
            break;
        }
        for pair in if measure.is_http() { &stage.routed } else { &stage.pairs } {
            usage::quiet(0.15, plan.patience)?;
            match load(measure, round, pair, plan.lengths, &stage.meshload) {
                Ok(sample) => samples.push(sample),
                Err(error) => notes.push(format!("{measure:?}, round {round}, {}: {error:#}", pair.way.name())),
            }
        }
    }
    Ok(())
}

fn load(measure: Measure, round: usize, pair: &Pair, lengths: Lengths, tool: &Meshload) -> anyhow::Result<Sample> {
    let (figures, foreign) = loads::run(measure, pair, lengths, tool)?;
    Ok(Sample { measure, way: pair.way, round, foreign, figures })
}

fn names(ways: &[Way]) -> String {
    ways.iter().map(|way| way.name()).collect::<Vec<_>>().join(", ")
}

fn machine() -> report::Machine {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()))
        .unwrap_or_default();
    let haproxy = Command::new("haproxy").arg("-v").output().map(|output| output.stdout).unwrap_or_default();
    report::Machine {
        cpus: usage::cpus(),
        model,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        haproxy: String::from_utf8_lossy(&haproxy).lines().next().unwrap_or_default().to_owned(),
    }
}

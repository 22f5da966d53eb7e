//! One daemon in a large cluster: what it costs to know everything, and to follow it.
//!
//! In:  a number of pods.
//! Out: one sample: memory, CPU at a hundred changes a second, time from a change to its snapshot, requests of the API.
//! Invariant: the daemon reads from a real API server and serves the pods of a real node's number, each in a network
//! namespace of its own. Only the crowd is put into the API server's store directly; every change goes through it.

mod objects;

use crate::figures::{Measure, Sample, Way, percentile};
use crate::loads::Figures;
use crate::usage::{Processes, Window, settled_rss_kb};
use anyhow::{Context as _, Result, ensure};
use mesh_common::cni::{Attachment, Request, Response};
use mesh_tests::{ApiServer, Daemon, NetNs, Proxy, wait};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The pods of the cluster for which the target of memory holds.
const FULL: usize = 100_000;
/// Pods of the daemon's own node.
const LOCAL: usize = 30;
/// Changes per second.
const RATE: u32 = 100;
/// How many at once: each takes some milliseconds.
const WRITERS: usize = 6;
/// Changes whose way to a snapshot is timed, one after another.
const TIMED: usize = 40;
/// How long the daemon may take to read everything, and the API server before it.
const TAKE_IN: Duration = Duration::from_secs(300);
/// How long a change may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(10);
/// How long memory may take to stop moving.
const SETTLE: Duration = Duration::from_secs(20);

const MB: f64 = 1024.0 * 1024.0;

/// How much is done.
pub(crate) struct Plan {
    pub(crate) pods: usize,
    pub(crate) follow: Duration,
}

/// Measures one daemon beside `plan.pods` pods that are elsewhere.
pub(crate) fn run(plan: &Plan) -> Result<Sample> {
    let api = ApiServer::start("scale").context("the API server did not start")?;
    api.allow_as_installed()?;
    let begun = Instant::now();
    let stored = api.store(objects::namespaces().chain(objects::crowd(plan.pods)))?;
    println!("scale: {stored} objects in the store after {} s", begun.elapsed().as_secs());
    let proxy = api.proxy()?;
    let before = requests(&proxy)?;
    let begun = Instant::now();
    let daemon = api.daemon(&[])?;
    wait::until_true("the daemon is ready", TAKE_IN, || {
        ensure!(daemon.ended()?.is_none(), "the daemon ended:\n{}", daemon.log());
        Ok(daemon.get("/readyz").is_ok_and(|answer| answer.status == 200))
    })?;
    let ready = begun.elapsed();
    let peak = daemon.peak_memory()?;
    let _sandboxes = enrol(&api, &daemon)?;
    let rss = settled_rss_kb(&[daemon.id()], SETTLE)?;
    println!(
        "scale: ready after {:.1} s, {:.1} MB, at most {:.1} MB",
        ready.as_secs_f64(),
        rss / 1024.0,
        bytes(peak) / MB
    );

    let next = AtomicUsize::new(0);
    let mut times: Vec<f64> = (0..TIMED).map(|_| time(&daemon, &proxy, &next, plan.pods)).collect::<Result<_>>()?;
    times.sort_by(f64::total_cmp);

    let processes = Processes { proxies: vec![daemon.id()], servers: Vec::new() };
    let snapshots = daemon.metric("mesh_control_snapshots_total", &[])?;
    let window = Window::open(&processes)?;
    let done = follow(&proxy, &next, plan)?;
    let spent = window.close()?;
    let snapshots = daemon.metric("mesh_control_snapshots_total", &[])? - snapshots;
    let after = settled_rss_kb(&[daemon.id()], SETTLE)?;
    let mut figures = Figures::from([
        ("pods", number(plan.pods)),
        ("rss_mb", rss / 1024.0),
        ("peak_mb", bytes(peak) / MB),
        ("after_mb", after / 1024.0),
        ("ready_s", ready.as_secs_f64()),
        ("cpu_cores", spent.proxies / spent.wall),
        ("per_second", number(done) / spent.wall),
        ("snapshots", snapshots),
        ("p50_ms", percentile(&times, 50)),
        ("p99_ms", percentile(&times, 99)),
        ("compile_us", daemon.metric("mesh_control_compile_microseconds", &[])?),
        ("requests", requests(&proxy)? - before),
    ]);
    if plan.pods >= FULL {
        figures.insert("full_rss_mb", rss / 1024.0);
    }
    Ok(Sample { measure: Measure::Scale, way: Way::Mesh, round: 0, foreign: spent.foreign, figures })
}

/// Adds the pods of the daemon's node, as the container runtime does.
fn enrol(api: &ApiServer, daemon: &Daemon) -> Result<Vec<NetNs>> {
    let mut sandboxes = Vec::with_capacity(LOCAL);
    for number in 0..LOCAL {
        let (name, address) = (format!("local-{number}"), format!("10.244.1.{}", number + 2));
        let sandbox = api.namespace(&name)?;
        for line in [
            "link add eth0 type veth peer name peer0",
            &format!("address add {address}/32 dev eth0"),
            "link set eth0 up",
            "link set peer0 up",
            "route add default dev eth0",
        ] {
            sandbox.run("ip", line.split(' '))?;
        }
        api.store([objects::local(number, daemon.node().name(), &address)])?;
        let attachment = Attachment {
            container_id: format!("sandbox-of-{name}"),
            ifname: "eth0".to_owned(),
            netns: sandbox.path().to_string_lossy().into_owned(),
            pod_namespace: objects::LOCAL_NAMESPACE.to_owned(),
            pod_name: name,
            pod_uid: None,
            addresses: vec![address.parse()?],
        };
        add(api, attachment)?;
        sandboxes.push(sandbox);
    }
    let in_force = daemon.metric("mesh_control_pods_in_force", &[])?;
    ensure!(in_force >= number(LOCAL), "only {in_force} pods are steered");
    Ok(sandboxes)
}

fn add(api: &ApiServer, attachment: Attachment) -> Result<()> {
    let mut stream = UnixStream::connect(api.socket()).context("the CNI socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut line = serde_json::to_vec(&Request::Add(attachment))?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("no answer to ADD in time")?;
    let response: Response = serde_json::from_str(&answer).with_context(|| format!("the answer {answer:?}"))?;
    ensure!(matches!(response, Response::Ok), "ADD: {response:?}");
    Ok(())
}

/// Makes one change. Returns the milliseconds from its request until it is in force.
fn time(daemon: &Daemon, proxy: &Proxy, next: &AtomicUsize, pods: usize) -> Result<f64> {
    let snapshots = || daemon.metric("mesh_control_snapshots_total", &[]);
    let before = snapshots()?;
    let (path, patch) = objects::change(next.fetch_add(1, Ordering::Relaxed), pods);
    let start = Instant::now();
    proxy.patch(&path, &patch)?;
    while snapshots()? <= before {
        ensure!(start.elapsed() < IN_FORCE, "no snapshot after PATCH {path}");
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Makes changes at a steady rate. Returns how many.
fn follow(proxy: &Proxy, next: &AtomicUsize, plan: &Plan) -> Result<usize> {
    let first = next.load(Ordering::Relaxed);
    let start = Instant::now();
    let write = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let due = start + Duration::from_secs(1) / RATE * u32::try_from(number - first)?;
            if due >= start + plan.follow {
                next.fetch_sub(1, Ordering::Relaxed);
                return Ok(());
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Whoever is far behind gives up the rest: the rate that was reached is a figure.
            if start.elapsed() > plan.follow * 2 {
                return Ok(());
            }
            let (path, patch) = objects::change(number, plan.pods);
            proxy.patch(&path, &patch)?;
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(next.load(Ordering::Relaxed) - first)
}

/// Lists of the kinds that the daemon reads, and watches on them that are or were open.
fn requests(proxy: &Proxy) -> Result<f64> {
    let metrics = proxy.get("/metrics")?.body;
    let is_ours = |line: &&str| {
        let resources = ["namespaces", "pods", "services", "endpointslices"];
        resources.iter().any(|resource| line.contains(&format!("resource=\"{resource}\"")))
    };
    let of = |name: &str, verbs: &[&str]| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name)).filter(is_ours);
        let lines = lines.filter(|line| verbs.iter().any(|verb| line.contains(&format!("verb=\"{verb}\""))));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Ok(of("apiserver_request_total{", &["LIST", "WATCH", "GET"]) + of("apiserver_longrunning_requests{", &["WATCH"]))
}

#[expect(clippy::cast_precision_loss, reason = "numbers far below 2^52")]
const fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
const fn bytes(size: u64) -> f64 {
    size as f64
}

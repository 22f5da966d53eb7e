//! Policies of a large cluster, in this process: what it costs to follow them, and to decide by them.
//!
//! In:  how many policies, tiers and pods there are.
//! Out: one sample: the time of a change, the memory, the time of a decision for a connection and for a request.
//! Invariant: objects are read, translated and compiled as a daemon does it, and judged as the data plane does it: who asks is looked
//! up in the directory, and what holds for the pod in the snapshot.
//! Invariant: after all changes the snapshot equals the one that is made from nothing.

mod objects;

use crate::figures::{Measure, Sample, Way, median, percentile};
use crate::loads::Figures;
use crate::usage::{Processes, Window, settled_rss_kb};
use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, HeaderValue};
use mesh_node::compile::{Compiler, Settings};
use mesh_node::model::Identity;
use mesh_node::policy::flow::TCP;
use mesh_node::policy::{Flow, Party, Proof, Request, Sni, Spoken, judge};
use mesh_node::snapshot::{NodeSnapshot, PodKey};
use mesh_node::source::file::parse_documents;
use mesh_node::sys::memory;
use mesh_node::translate;
use mesh_node::world::{Attachment, Change, SourceId, World};
use objects::{At, Cluster};
use serde_json::Value;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(crate) use objects::Size;

/// How often each kind of change is made.
const TIMES: usize = 12;
/// Decisions that are timed together: one alone is shorter than reading the clock takes.
const TOGETHER: usize = 32;
/// How many such times there are of each kind.
const DECISIONS: usize = 4_000;
/// How long memory may take to stop moving.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures a node with a hundred pods in a cluster of this size.
pub(crate) fn run(size: Size) -> Result<Sample> {
    let own = [std::process::id()];
    let before = settled_rss_kb(&own, SETTLE)?;
    let cluster = Cluster::new(size);
    let mut world = World::default();
    cluster.everything().try_for_each(|object| upsert(&mut world, &object))?;
    cluster.sandboxes().for_each(|(pod, namespace)| drop(world.learn(attach(&pod, &namespace))));
    for source in [SourceId::Objects, SourceId::Attachments] {
        drop(world.learn(Change::Synced(source)));
    }
    memory::trim();
    let known = settled_rss_kb(&own, SETTLE)?;
    let processes = Processes::default();
    let window = Window::open(&processes)?;
    let started = Instant::now();
    let mut compiler = Compiler::of(&world, translate::Settings::default(), settings());
    let snapshot = compiler.snapshot();
    let whole = started.elapsed();
    memory::trim();
    let compiled = settled_rss_kb(&own, SETTLE)?;
    println!("policy: {size}; from nothing in {:.2} s", whole.as_secs_f64());
    ensure!(snapshot.issues.is_empty(), "something is wrong with the objects: {}", snapshot.issues[0]);
    let mut figures = Figures::from([
        ("whole_s", whole.as_secs_f64()),
        ("world_mb", (known - before) / 1024.0),
        ("compiled_mb", (compiled - known) / 1024.0),
    ]);
    decide(&cluster, &snapshot, &mut figures)?;
    drop(snapshot);
    change(&cluster, (&mut world, &mut compiler), &mut figures)?;
    let fresh = Compiler::of(&world, translate::Settings::default(), settings()).snapshot();
    ensure!(compiler.snapshot() == fresh, "the snapshot depends on how it came about");
    let foreign = window.close()?.foreign;
    Ok(Sample { measure: Measure::Policy, way: Way::Mesh, round: 0, foreign, figures })
}

fn settings() -> Settings {
    Settings { node: objects::NODE.to_owned(), ..Settings::default() }
}

fn upsert(world: &mut World, object: &Value) -> Result<()> {
    let (objects, issues) = parse_documents(object.to_string().as_bytes());
    ensure!(issues.is_empty() && objects.len() == 1, "{object} is not read: {issues:?}");
    objects.into_iter().for_each(|object| drop(world.learn(Change::Upsert(Box::new(object)))));
    Ok(())
}

fn attach(pod: &str, namespace: &str) -> Change {
    Change::Attach(Attachment {
        container_id: format!("sandbox-of-{pod}"),
        ifname: "eth0".to_owned(),
        netns: format!("/run/netns/{pod}"),
        pod_namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: None,
        addresses: Vec::new(),
    })
}

/// Makes changes of every kind, and measures how long each takes to become a snapshot.
fn change(cluster: &Cluster, (world, compiler): (&mut World, &mut Compiler), figures: &mut Figures) -> Result<()> {
    let mut all = Vec::new();
    for (what, make) in objects::CHANGES {
        let mut times = Vec::new();
        for number in 0..TIMES {
            let (objects, issues) = parse_documents(make(cluster, number).to_string().as_bytes());
            ensure!(issues.is_empty(), "{what} is not read: {issues:?}");
            let object = objects.into_iter().next().context("a change is an object")?;
            let touched = world.learn(Change::Upsert(Box::new(object)));
            ensure!(!touched.is_empty(), "{what} changes nothing");
            let started = Instant::now();
            compiler.learn(world, touched);
            let snapshot = compiler.snapshot();
            times.push(started.elapsed().as_secs_f64() * 1e3);
            drop(snapshot);
        }
        let worst = times.iter().copied().fold(0.0, f64::max);
        println!("policy: {what}: {:.2} ms, at most {worst:.2}", median(times.clone()).unwrap_or(worst));
        all.extend(times);
    }
    figures.insert("change_max_ms", all.iter().copied().fold(0.0, f64::max));
    figures.insert("change_p50_ms", median(all).unwrap_or(0.0));
    Ok(())
}

/// Who asks, and at what pod.
struct Asked {
    key: PodKey,
    local: IpAddr,
    source: IpAddr,
    identity: Identity,
    principal: String,
}

/// Measures decisions about connections and requests that arrive for this node's pods.
fn decide(cluster: &Cluster, snapshot: &NodeSnapshot, figures: &mut Figures) -> Result<()> {
    for (key, at) in [("l4_ns", At::Connections), ("http_ns", At::Requests), ("crowded_ns", At::Crowded)] {
        let asked: Vec<Asked> = (0..512).map(|number| asked(cluster, snapshot, at, number)).collect::<Result<_>>()?;
        let mut times = timed(snapshot, &asked, at == At::Requests).with_context(|| format!("{at:?}"))?;
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
        println!("policy: {key}: {p50:.0} ns, 99 of 100 within {p99:.0}");
        figures.insert(key, p50);
    }
    Ok(())
}

fn asked(cluster: &Cluster, snapshot: &NodeSnapshot, at: At, number: usize) -> Result<Asked> {
    let (pod, source) = cluster.pair(at, number);
    let key: PodKey = format!("sandbox-of-{pod}").into();
    let own = snapshot.pods.get(&key).with_context(|| format!("{pod} is not there"))?;
    let entry = snapshot.directory.workloads.get(&source).with_context(|| format!("{source} is not there"))?;
    let identity = Identity::clone(&entry.identity);
    Ok(Asked { key, local: own.addresses[0], source, principal: identity.principal(), identity })
}

/// The nanoseconds that decisions take, in which some are allowed and some are not.
fn timed(snapshot: &NodeSnapshot, asked: &[Asked], is_http: bool) -> Result<Vec<f64>> {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_static("blue"));
    let paths: Vec<String> = (0..64).map(|number| format!("/api/v1/items/{number}")).collect();
    let (mut times, mut allowed) = (Vec::with_capacity(DECISIONS), 0);
    for number in 0..DECISIONS {
        let asked = &asked[number * 7 % asked.len()];
        let started = Instant::now();
        for path in paths.iter().cycle().skip(number % paths.len()).take(TOGETHER) {
            let request = is_http.then(|| Request::new("GET", "shop.example", path, &headers));
            allowed += usize::from(is_allowed(snapshot, black_box(asked), request.as_ref()));
        }
        times.push(started.elapsed().as_secs_f64() * 1e9 / TOGETHER as f64);
    }
    let all = DECISIONS * TOGETHER;
    ensure!(allowed > all / 10 && allowed < all / 10 * 9, "{allowed} of {all} are allowed: that measures one verdict");
    Ok(times)
}

/// Judges as the data plane does.
fn is_allowed(snapshot: &NodeSnapshot, asked: &Asked, request: Option<&Request<'_>>) -> bool {
    let Some(policies) = snapshot.policies.get(&asked.key) else { return false };
    let subject = |address: &IpAddr| snapshot.directory.workloads.get(address).map(|entry| &entry.subject);
    let flow = Flow {
        source: Party { address: asked.source, port: None, subject: subject(&asked.source) },
        destination: Party { address: asked.local, port: Some(8080), subject: subject(&asked.local) },
        with_node: false,
        protocol: TCP,
        proof: Some(Proof { identity: &asked.identity, principal: &asked.principal }),
        sni: &Sni::Absent,
        spoken: request.map_or(Spoken::Opaque, Spoken::Http),
    };
    judge(&policies.inbound, &flow, |told| {
        black_box(told);
    })
    .is_allowed
}

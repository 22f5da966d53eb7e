//! The demo, step by step.
//!
//! In:  what the user wants.
//! Out: lines for people.
//! Invariant: each proof has its counter-proof: what is refused from outside works from inside.

use crate::edges::{self, Edge, Key};
use crate::stage::{self, PORT, Stage};
use crate::wire::{self, Port};
use crate::{Options, manifests};
use anyhow::{Context as _, Result, bail, ensure};
use mesh_tests::load::Figures;
use mesh_tests::table::aligned;
use mesh_tests::wait::{self, PATIENCE};
use mesh_tests::{Captured, Node, Pod, env};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

/// Who calls whom in Bookinfo.
const CALLS: [(&str, &str); 7] = [
    ("visitor", "productpage-v1"),
    ("productpage-v1", "details-v1"),
    ("productpage-v1", "reviews-v1"),
    ("productpage-v1", "reviews-v2"),
    ("productpage-v1", "reviews-v3"),
    ("reviews-v2", "ratings-v1"),
    ("reviews-v3", "ratings-v1"),
];

const STEPS: usize = 7;

/// Tells the whole story.
///
/// **Errors**: something did not work, or a proof failed.
pub(crate) fn tell(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let mut step = Steps::default();

    step.begin("two nodes, the daemon mesh-node on each");
    let mesh = stage::nodes(options)?;
    let mut stage = Stage::new(mesh, "bookinfo");
    let told = chapters(options, &mut stage, &mut step);
    if told.is_err() {
        stage.show_logs();
    }
    told?;
    println!("\ndemo: everything held ({:.0} s)", begun.elapsed().as_secs_f64());
    Ok(())
}

fn chapters(options: &Options, stage: &mut Stage, step: &mut Steps) -> Result<()> {
    step.begin("Bookinfo's objects, as files that both daemons watch");
    let mut application = manifests::read(&options.manifests)?;
    stage.apply(&mut application)?;
    println!("      {}", stage.mesh.kube().dir().display());

    step.begin(&format!("pods through the CNI chain ptp + host-local + mesh-cni, run by {}", stage::runtime().1));
    for workload in &application.pods {
        let pod = stage.start(workload).with_context(|| format!("the pod {} did not start", workload.name))?;
        println!("      {:<15} on node {}  {}", workload.name, pod.node().name(), pod.address(PORT).ip());
    }

    step.begin(&format!("{} requests for the page, by a visitor inside the mesh", options.requests));
    let captured = visit(stage, options.requests)?;

    step.begin("what the daemons saw (bytes are the bodies' of HTTP)");
    let edges = settled_edges(stage, options.requests)?;
    print!("{}", aligned(&edges::table(&edges), 5));
    identities(&edges);

    step.begin("what tcpdump saw between the nodes");
    on_the_wire(&captured, &edges)?;

    step.begin("a stranger outside the mesh, in plain text");
    refused(stage)?;

    if options.keep {
        kept(stage)?;
    }
    Ok(())
}

/// Counts steps.
#[derive(Default)]
struct Steps {
    number: usize,
}

impl Steps {
    fn begin(&mut self, what: &str) {
        self.number += 1;
        println!("\n[{}/{STEPS}] {what}", self.number);
    }
}

/// Asks for the page many times while the link is captured.
fn visit(stage: &Stage, requests: u32) -> Result<Captured> {
    let visitor = stage.pod("visitor")?;
    let target = stage.address("productpage")?;
    let capture = stage.mesh.capture("link")?;
    let page = visitor.curl(&format!("http://{target}/productpage")).context("the visitor got no page")?;
    ensure!(
        page.contains("Book details") && !page.contains("currently unavailable"),
        "the page lacks a part, so a service could not call another:\n{page}"
    );
    let meshload = env::built("meshload")?.display().to_string();
    let (target, count) = (target.to_string(), requests.to_string());
    let arguments = ["closed", &target, "--path", "/productpage", "--requests", &count, "--close"];
    let bounds = ["--connections", "4", "--seconds", "15"];
    let printed = visitor.run(&meshload, arguments.into_iter().chain(bounds))?.success()?;
    let figures = Figures::read(&printed)?;
    ensure!(figures.answered == requests && figures.failed() == 0, "not every request was answered: {figures:?}");
    println!(
        "      {} pages, none failed; half of them within {:.1} ms, 99 of 100 within {:.1} ms",
        requests,
        figures.p50_ms.unwrap_or_default(),
        figures.p99_ms.unwrap_or_default()
    );
    capture.stop()
}

/// The edges, once every call of Bookinfo was counted.
fn settled_edges(stage: &Stage, requests: u32) -> Result<BTreeMap<Key, Edge>> {
    let mut edges = BTreeMap::new();
    let complete = wait::until_true("every page is counted", PATIENCE, || {
        edges = edges::edges(&stage.metrics()?);
        Ok(count(&edges, CALLS[0]) > u64::from(requests))
    });
    complete.with_context(|| format!("the daemons report only these edges: {edges:?}"))?;
    for call in CALLS {
        ensure!(
            count(&edges, call) > 0,
            "no encrypted request from {} to {}; with few --requests a version of reviews may get none",
            call.0,
            call.1
        );
    }
    if let Some((key, _)) = edges.iter().find(|(key, edge)| edge.requests > 0 && !key.encrypted()) {
        bail!("{} spoke with {} unencrypted, which STRICT forbids", key.source, key.destination);
    }
    Ok(edges)
}

fn count(edges: &BTreeMap<Key, Edge>, (source, destination): (&str, &str)) -> u64 {
    let of_call = |key: &Key| key.source == source && key.destination == destination && key.encrypted();
    edges.iter().filter(|(key, _)| of_call(key)).map(|(_, edge)| edge.requests).sum()
}

fn identities(edges: &BTreeMap<Key, Edge>) {
    let names: BTreeSet<&str> = edges
        .keys()
        .flat_map(|key| [key.source_identity.as_str(), key.destination_identity.as_str()])
        .filter(|name| name.starts_with("spiffe://"))
        .collect();
    println!("      identities proved by certificate:");
    for name in names {
        println!("        {name}");
    }
}

fn on_the_wire(captured: &Captured, edges: &BTreeMap<Key, Edge>) -> Result<()> {
    let mut rows =
        vec![["TCP port", "connections", "marked as mesh", "TLS records", "bytes", "plain bytes"].map(str::to_owned)];
    for (number, port) in wire::ports(captured) {
        let Port { connections, records, bytes, plain_bytes, marked } = port;
        let figures = [connections, marked, records].map(|figure| figure.to_string());
        let [connections, marked, records] = figures;
        rows.push([number.to_string(), connections, marked, records, edges::bytes(bytes), plain_bytes.to_string()]);
    }
    print!("{}", aligned(&rows, 1));
    captured.only_tls_on(&[PORT]).context("the link carried something else than the applications' port and TLS")?;
    for text in ["GET /", "HTTP/1.1", "Shakespeare", "reviewer"] {
        ensure!(!captured.contains(text.as_bytes()), "`{text}` passed the link in plain text");
    }
    let requests: u64 = edges.values().map(|edge| edge.requests).sum();
    println!("      {requests} requests shared {} connections between the nodes", captured.flows.len());
    println!("      only the applications' own port, only TLS, and no word of any page");
    Ok(())
}

/// A pod outside the mesh is refused where STRICT holds, and only there.
fn refused(stage: &Stage) -> Result<()> {
    let stranger = stage.pod("stranger")?;
    let reviews = stage.pod("reviews-v1")?.address(PORT);
    let url = format!("http://{reviews}/reviews/0");
    let inside = stage.pod("visitor")?.curl(&url).context("the visitor inside the mesh got no review")?;
    ensure!(inside.contains("reviewer"), "the visitor got something else than reviews: {inside}");
    println!("      visitor  -> reviews-v1     answered (mutual TLS)");
    let Err(refusal) = stranger.curl(&url) else {
        bail!("reviews answered a stranger in plain text, which STRICT forbids");
    };
    let reason = reason(stage, stranger, reviews)?;
    println!("      stranger -> reviews-v1     refused: {reason}");
    println!("                                 curl saw: {}", last_line(&refusal));
    let page = stage.pod("productpage-v1")?.address(PORT);
    stranger
        .curl(&format!("http://{page}/productpage"))
        .context("the page did not answer a stranger, although PeerAuthentication says PERMISSIVE for its port")?;
    println!("      stranger -> productpage-v1 answered (its port is PERMISSIVE)");
    Ok(())
}

/// What the access log says of the refusal.
fn reason(stage: &Stage, stranger: &Pod, to: SocketAddr) -> Result<String> {
    let source = stranger.address(0).ip().to_string();
    let record = stage.mesh.daemon(Node::B)?.wait_access("the refusal of the stranger", |record| {
        let from = record["source_address"].as_str().unwrap_or_default();
        record["outcome"] == "refused" && from.starts_with(&source) && record["destination_address"] == to.to_string()
    })?;
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    Ok(format!("{} ({})", text("reason"), text("detail")))
}

fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().rev().find(|line| line.contains("curl:")).unwrap_or_default().trim().to_owned()
}

/// Tells where everything is that stays.
fn kept(stage: &Stage) -> Result<()> {
    let page = format!("http://{}/productpage", stage.pod("productpage-v1")?.address(PORT));
    let fetched =
        std::process::Command::new("curl").args(["-sS", "-f", "-m", "10", "-o", "/dev/null", &page]).output()?;
    ensure!(
        fetched.status.success(),
        "the page cannot be reached from this machine's own network: {}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    println!("\nThe page:      {page}");
    for node in Node::BOTH {
        let namespace = stage.mesh.node(node).ns().name();
        println!("Node {}:        ip netns exec {namespace} bash", node.name());
    }
    println!("Objects:       {} (edit them, the daemons watch)", stage.mesh.kube().dir().display());
    println!("Take it down:  cargo xtask demo --down");
    Ok(())
}

//! What a DestinationRule bounds, and what one pod may do to another.

use crate::support::{Shop, curl};
use anyhow::{Context as _, Result, anyhow, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Pod, ServiceSpec, env, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

fn policy(traffic: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"host": "web", "trafficPolicy": traffic},
    })
}

impl Shop {
    /// The statuses of so many requests that come at once and each take a second.
    fn at_once(&self, port: u16, requests: usize, version: &'static str) -> Result<Vec<u16>> {
        thread::scope(|scope| {
            let asking: Vec<_> =
                (0..requests).map(|_| scope.spawn(|| self.get(port, "/waits/1000", &[version]))).collect();
            let answers = asking.into_iter().map(|asked| asked.join().map_err(|_| anyhow!("a client panicked"))?);
            let mut statuses = answers.map(|seen| Ok(seen?.status)).collect::<Result<Vec<_>>>()?;
            statuses.sort_unstable();
            Ok(statuses)
        })
    }

    /// Applies limits, and waits until of six requests at once two are answered and four find no room.
    fn two_of_six(&self, limits: Value, port: u16, version: &'static str) -> Result<()> {
        self.mesh.kube().apply(policy(json!({"connectionPool": limits})))?;
        let mut seen = Vec::new();
        let waited = wait::until_true("two of six are served", wait::PATIENCE, || {
            seen = self.at_once(port, 6, version)?;
            Ok(seen == [200, 200, 503, 503, 503, 503])
        });
        waited.with_context(|| format!("{limits}: {seen:?}"))?;
        let record = self.mesh.daemon(B)?.wait_access("who found no room", |record| record["reason"] == "overflow")?;
        ensure!(record["response_flags"] == "UO" && record["response_code"] == 503, "{record}");
        ensure!(self.at_once(port, 2, version)? == [200, 200], "there is no room although all have left");
        Ok(())
    }
}

#[test]
fn no_more_is_under_way_than_a_policy_allows() -> Result<()> {
    let shop = Shop::open("http limits", &["web-v1"])?;
    shop.two_of_six(json!({"tcp": {"maxConnections": 2}}), 80, "--http1.1")?;
    shop.two_of_six(json!({"http": {"http2MaxRequests": 2}}), 81, "--http2-prior-knowledge")
}

#[test]
fn a_connection_idles_no_longer_than_a_policy_allows() -> Result<()> {
    let shop = Shop::open("http idle", &["web-v1"])?;
    let server = &shop.pods[0].0;
    shop.mesh.kube().apply(policy(json!({"connectionPool": {"http": {"idleTimeout": "1s"}}})))?;
    let mut clients = 0;
    // A connection has the bounds that held when it was made; who comes later makes one of its own.
    wait::until_true("a connection is kept for the next request, and then no longer", wait::PATIENCE, || {
        clients += 1;
        let client = shop.mesh.pod(&format!("shop/late-{clients}")).on(B).account("client").start()?;
        let peer = client.address(0).ip().to_string();
        let open = || -> Result<usize> {
            let listed = server.run("ss", ["-Htn", "state", "established", "dst", &peer])?.success()?;
            Ok(listed.lines().count())
        };
        ensure!(curl(&client, &shop.url(80, "/"), &[])?.status == 200 && open()? > 0, "none is kept");
        // Without the policy it would be a minute.
        Ok(wait::until_true("it is closed", Duration::from_secs(5), || Ok(open()? == 0)).is_ok())
    })
}

#[test]
fn an_endpoint_that_fails_is_left_out_and_tried_again_later() -> Result<()> {
    let mut shop = Shop::open("http outliers", &["web-v1"])?;
    shop.add_answering("web-v2", A, "web", 503)?;
    let spread = |requests: usize| -> Result<Vec<u16>> {
        // What is posted is not tried elsewhere.
        (0..requests).map(|_| Ok(shop.get(80, "/", &["--data", "once"])?.status)).collect()
    };
    let failed = |statuses: &[u16]| statuses.iter().filter(|status| **status == 503).count();
    wait::until_true("the one that fails is asked", wait::PATIENCE, || Ok(failed(&spread(4)?) > 0))?;
    ensure!(failed(&spread(30)?) >= 5, "it is left out without a policy");
    shop.mesh.kube().apply(policy(json!({"outlierDetection": {
        "consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "6s", "maxEjectionPercent": 50,
    }})))?;
    let daemon = shop.mesh.daemon(B)?;
    let told = || daemon.log().matches("an endpoint that fails is left out").count();
    wait::until_true("it is left out", wait::PATIENCE, || {
        spread(8)?;
        Ok(told() == 1)
    })?;
    let left_out = Instant::now();
    let statuses = spread(20)?;
    ensure!(left_out.elapsed() > Duration::from_secs(5) || failed(&statuses) == 0, "it is asked: {statuses:?}");
    wait::until_true("it is tried again, and left out again", wait::PATIENCE, || {
        spread(4)?;
        Ok(told() == 2)
    })?;
    ensure!(left_out.elapsed() > Duration::from_secs(4), "it came back after {:?}", left_out.elapsed());
    Ok(())
}

/// A steady load of a pod for so many seconds, and its figures.
fn steady(from: &Pod, to: SocketAddr, seconds: u32) -> Result<Value> {
    let mut load = from.command(env::built("meshload")?);
    load.args(["fixed", &to.to_string(), "--rate", "100", "--connections", "8", "--seconds", &seconds.to_string()]);
    let load = from.spawn(&mut load, "steady")?;
    load.wait(Duration::from_secs(u64::from(seconds) + 20))?;
    let told = load.log();
    serde_json::from_str(told.lines().last().context("the load says nothing")?).context("figures")
}

/// How a pod is served alone, and beside another pod of its node that floods a service with requests.
struct Beside {
    alone: Value,
    beside: Value,
    flood: Value,
}

impl Beside {
    fn measure((flooding, flooded): (&Pod, SocketAddr), (calm, asked): (&Pod, SocketAddr)) -> Result<Self> {
        wait::until_true("the other pod is served", wait::PATIENCE, || {
            Ok(curl(calm, &format!("http://{asked}/"), &[]).is_ok_and(|seen| seen.status == 200))
        })?;
        let alone = steady(calm, asked, 4)?;
        let mut flood = flooding.command(env::built("meshload")?);
        flood.args(["closed", &flooded.to_string(), "--connections", "64", "--seconds", "600"]);
        let flood = flooding.spawn(&mut flood, "flood")?;
        let beside = steady(calm, asked, 8)?;
        flood.signal(Signal::SIGTERM)?;
        flood.wait(Duration::from_secs(20))?;
        let told = flood.log();
        let flood: Value = serde_json::from_str(told.lines().last().context("the flood says nothing")?)?;
        ensure!(flood["answered"].as_u64().is_some_and(|answered| answered > 500), "no flood: {flood}");
        ensure!(beside["errors"] == 0 && beside["unanswered"] == 0, "another pod's requests fail: {beside}");
        Ok(Self { alone, beside, flood })
    }

    fn p99(figures: &Value) -> f64 {
        figures["p99_ms"].as_f64().unwrap_or(f64::INFINITY)
    }

    fn told(&self) -> String {
        let (alone, beside) = (Self::p99(&self.alone), Self::p99(&self.beside));
        let requests = &self.flood["answered"];
        format!("{alone:.1} ms alone, {beside:.1} ms beside {requests} requests, {:.2} times", beside / alone)
    }
}

#[test]
fn a_pod_that_floods_fails_no_request_of_another() -> Result<()> {
    let mut shop = Shop::open("http flood", &["web-v1"])?;
    shop.add("calm", A, "calm")?;
    let calm = ServiceSpec::new("shop/calm").selector("app", "calm").named("http", 80, 8080);
    let calm = shop.mesh.kube().service(calm)?.address(80);
    let neighbour = shop.mesh.pod("shop/neighbour").on(B).account("client").start()?;
    let meshed = Beside::measure((&shop.client, shop.web.address(80)), (&neighbour, calm))?;
    // The same without a mesh between: clients, servers and daemons share two processors, which alone makes a pod wait.
    shop.mesh.kube().namespace("open", &[])?;
    let start = |name: &str, node| shop.mesh.pod(&format!("open/{name}")).on(node).start();
    let (flooding, steady) = (start("flooding", B)?, start("steady", B)?);
    let (flooded, asked) = (start("flooded", A)?, start("asked", A)?);
    let serve = |pod: &Pod| {
        let mut command = pod.command(env::built("httpecho")?);
        command.args(["--name", "open", "--listen", "[::]:8080"]);
        pod.spawn(&mut command, "httpecho")
    };
    let _servers = (serve(&flooded)?, serve(&asked)?);
    let direct = Beside::measure((&flooding, flooded.address(8080)), (&steady, asked.address(8080)))?;
    println!("p99 of another pod: {}; without a mesh {}", meshed.told(), direct.told());
    // Builds without optimization: the bound is that of a pod that is starved.
    ensure!(Beside::p99(&meshed.beside) < 500.0, "another pod is starved: {}", meshed.told());
    Ok(())
}

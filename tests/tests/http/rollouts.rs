//! Pods that are replaced while requests come at a steady rate.

use crate::support::Shop;
use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::load::Figures;
use mesh_tests::{env, wait};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

/// How often a pod is replaced, and how many requests come in a second meanwhile: what a build without optimization bears
/// beside other tests, or what users ask for.
fn scale() -> Result<(usize, &'static str)> {
    Ok(if env::programs()?.ends_with("release") { (100, "1000") } else { (12, "150") })
}

#[test]
fn rollouts_under_load_lose_no_request() -> Result<()> {
    let (rollouts, rate) = scale()?;
    let mut shop = Shop::open("http rollouts", &["web-a", "web-b"])?;
    let target = shop.web.address(80).to_string();
    let mut load = shop.client.command(env::built("meshload")?);
    load.args(["fixed", &target, "--rate", rate, "--connections", "32", "--seconds", "600"]);
    let load = shop.client.spawn(&mut load, "load")?;
    for number in 0..rollouts {
        shop.add(&format!("web-{number}"), if number % 3 == 0 { B } else { A }, "web")?;
        // As a kubelet ends a pod: it is said to be ending and told so at the same time, and then it is gone.
        let (pod, process) = shop.pods.remove(0);
        pod.set_terminating()?;
        process.signal(Signal::SIGTERM)?;
        process.wait(wait::PATIENCE)?;
        pod.delete()?;
        ensure!(load.ended()?.is_none(), "the load has ended early: {}", load.log());
    }
    load.signal(Signal::SIGTERM)?;
    load.wait(Duration::from_secs(10))?;
    let figures = Figures::read(&load.log())?;
    println!("{rollouts} rollouts at {rate} requests a second: {figures:?}");
    let mut failed = Vec::new();
    for node in [A, B] {
        let records = shop.mesh.daemon(node)?.access_log()?;
        let is_bad = |record: &Value| record["response_code"].as_u64().is_some_and(|code| code != 200);
        failed.extend(records.into_iter().filter(is_bad).take(5).map(|record| format!("{}: {record}", node.name())));
    }
    ensure!(figures.failed() == 0 && figures.answered > 100, "{figures:?}\n{}", failed.join("\n"));
    Ok(())
}

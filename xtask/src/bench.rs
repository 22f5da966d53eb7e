//! `cargo xtask bench`: builds for speed and measures against a direct connection, haproxy and Envoy.
//!
//! In:  what the user wants measured.
//! Out: tables, and `target/bench/report.json`.
//! Invariant: this crate stays small: the bench itself is the program `mesh-bench` of the package `mesh-tests`.

use crate::setup::{self, Group};
use crate::{demo, env, run};
use anyhow::Result;

/// What the user wants.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Short loads: under two minutes, and less steady figures.
    #[arg(long)]
    quick: bool,
    /// Only these measures: idle, bulk, keepalive, connections, latency, http1, http2, httplatency, routes, held, workloads, pods,
    /// scale, policy.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The pods of the large cluster of `scale`, 100,000 unless told; it is measured only when it is asked for.
    #[arg(long)]
    pods: Option<usize>,
    /// What the mesh's daemons write of each connection: off, text or json.
    #[arg(long, default_value = "text")]
    access_log: String,
}

/// Runs the bench.
///
/// **Errors**: something could not be installed or built, or the bench failed and said why. A missed target is no error.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let needs_no_stage = |name: &String| matches!(name.as_str(), "scale" | "policy");
    if arguments.only.iter().any(|name| name == "scale") {
        setup::ensure(Group::Build)?;
        setup::ensure(Group::Api)?;
    }
    if arguments.only.is_empty() || !arguments.only.iter().all(needs_no_stage) {
        setup::ensure(Group::Bench)?;
    }
    let envoy = setup::envoy();
    demo::build(true)?;
    let mut bench = demo::as_root(&env::target_dir().join("release/mesh-bench"))?;
    bench.arg("--work").arg(env::target_dir().join("bench"));
    bench.args(["--access-log", &arguments.access_log]);
    match envoy {
        Ok(envoy) => drop(bench.arg("--envoy").arg(envoy)),
        Err(error) => eprintln!("bench: Envoy is left out: {error:#}"),
    }
    if arguments.quick {
        bench.arg("--quick");
    }
    if let Some(pods) = arguments.pods {
        bench.args(["--pods", &pods.to_string()]);
    }
    for name in &arguments.only {
        bench.arg("--only").arg(name);
    }
    run::open(&mut bench)
}

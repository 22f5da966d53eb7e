//! `cargo xtask bench`: builds for speed and measures against a direct connection and haproxy.
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
    /// Only these measures: idle, bulk, keepalive, connections, latency, held, workloads, pods.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// What the mesh's daemons write of each connection: off, text or json.
    #[arg(long, default_value = "text")]
    access_log: String,
}

/// Runs the bench.
///
/// **Errors**: something could not be installed or built, or the bench failed and said why. A missed target is no error.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Group::Bench)?;
    demo::build(true)?;
    let mut bench = demo::as_root(&env::target_dir().join("release/mesh-bench"))?;
    bench.arg("--work").arg(env::target_dir().join("bench"));
    bench.args(["--access-log", &arguments.access_log]);
    if arguments.quick {
        bench.arg("--quick");
    }
    for name in &arguments.only {
        bench.arg("--only").arg(name);
    }
    run::open(&mut bench)
}

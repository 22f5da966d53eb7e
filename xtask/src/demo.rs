//! `cargo xtask demo`: builds what the demo needs and runs it.
//!
//! In:  what the user wants of the demo.
//! Out: the demo's own outcome.
//! Invariant: this crate stays small: the demo itself is the program `mesh-demo` of the package `mesh-tests`.

use crate::setup::{self, Group};
use crate::{env, run};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// What the demo can show instead of the mesh itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What Istio's and the Gateway API's routes, faults and gateways do to Bookinfo, step by step, each one checked.
    Tour,
    /// What Calico's policies with rules for HTTP do for a bank of three services, step by step, each one checked.
    Bank,
}

/// What the user wants.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to show; without it, identity and encryption.
    part: Option<Part>,
    /// Leave everything running, with the page reachable from this machine.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove what a demo left, also after a crash.
    #[arg(long)]
    down: bool,
    /// How often the page is asked for.
    #[arg(long, default_value_t = 60)]
    requests: u32,
}

/// Runs the demo.
///
/// **Errors**: something could not be installed or built, or the demo failed and said why.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.down {
        setup::ensure(if arguments.part == Some(Part::Tour) { Group::Tour } else { Group::Demo })?;
        build(false)?;
    }
    let program = env::target_dir().join("debug/mesh-demo");
    if !program.is_file() {
        bail!("no demo was ever built in this work tree, so there is none to remove");
    }
    let mut demo = as_root(&program)?;
    let application = if arguments.part == Some(Part::Bank) { "bank" } else { "bookinfo" };
    demo.arg("--manifests").arg(env::root().join("manifests").join(application));
    demo.arg("--requests").arg(arguments.requests.to_string());
    match arguments.part {
        None => {}
        Some(Part::Tour) => drop(demo.arg("--tour").arg(setup::module("istio.io/istio")?.join("samples/bookinfo"))),
        Some(Part::Bank) => drop(demo.arg("--bank")),
    }
    if arguments.keep {
        demo.arg("--keep");
    }
    if arguments.down {
        demo.arg("--down");
    }
    run::open(&mut demo)
}

/// Builds the daemon, the plugin, and the programs of the demo and the bench.
///
/// **Errors**: the build failed.
pub(crate) fn build(release: bool) -> Result<()> {
    println!("build: the daemon, the plugin and the services (some minutes the first time)");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--package", "mesh-node", "--package", "mesh-cni", "--package", "mesh-tests", "--bins"]);
    if release {
        cargo.arg("--release");
    }
    run::open(cargo.current_dir(env::root()))
}

/// A command that runs `program` as root.
///
/// **Errors**: this is not root and there is no sudo.
pub(crate) fn as_root(program: &Path) -> Result<Command> {
    let Some(sudo) = env::as_root().context("network namespaces and eBPF need root")? else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

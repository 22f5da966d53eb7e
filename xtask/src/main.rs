//! All automation of the mesh. `cargo xtask --help` lists it.
//!
//! In:  the command line, the work tree.
//! Out: exit code 0 if everything that was asked for holds.
//! Invariant: builds with Rust alone, for it installs what everything else needs.

mod bench;
mod ci;
mod cluster;
mod conformance;
mod demo;
mod env;
mod image;
mod manifests;
mod oci;
mod run;
mod setup;
mod tidy;

use clap::{Parser, Subcommand};
use setup::Group;
use std::process::ExitCode;

/// Builds, checks, tests and demonstrates the mesh.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Install what a command needs; quick if nothing is missing.
    Setup {
        /// For which command.
        #[arg(value_enum, default_value_t = Group::All)]
        group: Group,
        /// Only list what is missing; fails if something is.
        #[arg(long)]
        check: bool,
    },
    /// Check what the compiler cannot: layers, module heads, sizes, purity, unsafe code, words.
    Tidy,
    /// Install what is missing, build, check and run every suite.
    Test {
        /// Run only the tests whose name contains one of these, and no other check.
        filters: Vec<String>,
    },
    /// Show the mesh at work on this machine: two nodes, Bookinfo, and what was seen on the wire.
    Demo(demo::Arguments),
    /// Measure the mesh beside a direct connection and haproxy.
    Bench(bench::Arguments),
    /// Run a real Kubernetes of two nodes, with Calico, on this machine.
    Cluster {
        /// What to do with it.
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Run the Gateway API's conformance suite against the mesh, in a real cluster.
    Conformance(conformance::Arguments),
    /// Make the images of the mesh and of Bookinfo, as archives in `target/images`.
    Image(image::Arguments),
    /// Render the chart to `manifests/mesh.yaml`.
    Manifests(manifests::Arguments),
    /// What a change must pass: `test`, and documentation, licences, bans, advisories, spelling.
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup { group, check: false } => setup::ensure(group),
        Command::Setup { group, check: true } => setup::check(group),
        Command::Tidy => tidy::run(),
        Command::Test { filters } => ci::test(&filters),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Cluster { action } => cluster::run(&action),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Manifests(arguments) => manifests::run(&arguments),
        Command::Ci => ci::ci(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! Shows the mesh at work: two nodes, Bookinfo over both, and what was seen on the wire.
//!
//! In:  built programs, the manifests.
//! Out: a story in steps with tables; on request everything left running.
//! Invariant: what is shown as proved was checked in this run; otherwise the demo fails and says what to do.

mod edges;
mod manifests;
mod stage;
mod story;
mod tour;
mod wire;

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// The name of the run, which namespaces are named after.
const NAME: &str = "demo";
/// The same of the tour.
const TOUR: &str = "tour";

#[derive(Parser)]
struct Options {
    /// The directory of the manifests.
    #[arg(long)]
    manifests: PathBuf,
    /// How often the page is asked for.
    #[arg(long, default_value_t = 60)]
    requests: u32,
    /// Leave everything running.
    #[arg(long)]
    keep: bool,
    /// Remove what a demo left.
    #[arg(long)]
    down: bool,
    /// Take the tour of what routes and policies do, with the samples in this directory of Istio's.
    #[arg(long)]
    tour: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.tour {
        _ if options.down => down(),
        Some(samples) => tour::take(&options, samples),
        None => story::tell(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            eprintln!("what to do: if the error does not say, `cargo xtask demo --down` and run it again");
            ExitCode::FAILURE
        }
    }
}

fn down() -> Result<()> {
    match mesh_tests::down(NAME)? + mesh_tests::down(TOUR)? {
        0 => println!("demo: nothing was left, nothing to remove"),
        runs => println!("demo: removed {runs} run(s) with namespaces, programs, pinned objects and files"),
    }
    Ok(())
}

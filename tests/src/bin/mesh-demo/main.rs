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
use tour::Place;

/// The name of the run, which namespaces are named after.
const NAME: &str = "demo";
/// The same of the tour of Bookinfo.
const TOUR: &str = "tour";
/// The same of the tour of the bank.
const BANK: &str = "bank";

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
    /// Take the tour of what policies of Calico do for a bank.
    #[arg(long, conflicts_with = "tour")]
    bank: bool,
}

impl Options {
    /// What is toured, if anything is.
    fn place(&self) -> Option<Place> {
        if self.bank { Some(Place::Bank) } else { self.tour.as_ref().map(|_| Place::Bookinfo) }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match options.place() {
        _ if options.down => down(),
        Some(place) => tour::take(&options, place, options.tour.as_deref().unwrap_or(&options.manifests)),
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
    match mesh_tests::down(NAME)? + mesh_tests::down(TOUR)? + mesh_tests::down(BANK)? {
        0 => println!("demo: nothing was left, nothing to remove"),
        runs => println!("demo: removed {runs} run(s) with namespaces, programs, pinned objects and files"),
    }
    Ok(())
}

//! The mesh's one daemon per node.

use anyhow::Error;
use clap::Parser;
use mesh_node::{app, config::Cli};
use std::process::ExitCode;

/// Its heap does not grow with the number of threads, as glibc's does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match app::main(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-node: {:#}", Error::from(error));
            ExitCode::FAILURE
        }
    }
}

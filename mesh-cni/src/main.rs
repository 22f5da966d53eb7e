//! The plugin's process: environment and configuration in, one JSON document and an exit code out.
//!
//! **Source**: CNI 1.1.0, sections 2 and 5.

use mesh_cni::env::Environment;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = mesh_cni::run(&Environment::read(), io::stdin().lock());
    let (document, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(refusal) => (refusal.to_json(), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(document.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        // The runtime would take a pod without a result for an attached one.
        Err(_) => ExitCode::FAILURE,
    }
}

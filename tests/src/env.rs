//! What the environment says, and where programs are; read here and nowhere else in this crate.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Prefix of the names of everything a run makes; `MESH_TEST_PREFIX` sets another.
#[must_use]
pub fn prefix() -> String {
    variable("MESH_TEST_PREFIX").unwrap_or_else(|| "mt".to_owned())
}

/// The directory of the programs under test: beside this one, or of the profile that `MESH_PROFILE` names.
///
/// **Errors**: this program is not where Cargo puts programs.
pub fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let profile = own
        .ancestors()
        .skip(1)
        .find(|dir| dir.file_name().is_some_and(|name| name != "deps" && name != "examples"))
        .context("this program is in no directory")?;
    match variable("MESH_PROFILE") {
        None => Ok(profile.to_owned()),
        Some(name) => Ok(profile.with_file_name(name)),
    }
}

/// A program that this work tree builds, such as `mesh-node`.
///
/// **Errors**: it is not built.
pub fn built(name: &str) -> Result<PathBuf> {
    let path = programs()?.join(name);
    if !path.is_file() {
        let release = if path.parent().is_some_and(|dir| dir.ends_with("release")) { " --release" } else { "" };
        bail!("{} is missing: build it with `cargo build{release} -p {name}`", path.display());
    }
    Ok(path)
}

/// A tool that `cargo xtask setup` builds, such as `cnitool`.
///
/// **Errors**: it is not built.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = programs()?.parent().context("programs are in no directory")?.join("tools").join(name);
    if !path.is_file() {
        bail!("{} is missing: build it with `cargo xtask setup test`", path.display());
    }
    Ok(path)
}

/// A program of the system.
///
/// **Errors**: it is not installed.
pub fn system(name: &str) -> Result<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/cni", "/opt/cni/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed: run `cargo xtask setup test`"))
}

/// Fails unless this process may make namespaces.
///
/// **Errors**: this is not root.
pub fn need_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("network namespaces need root: run `sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask test`")
}

/// The directories in which CNI plugins are, those under test first.
///
/// **Errors**: the reference plugins are not installed.
pub fn cni_path() -> Result<Vec<PathBuf>> {
    let reference = system("ptp")?;
    let reference = reference.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(vec![programs()?, reference])
}

/// How many times as many random cases as usual are tried: `MESH_RANDOM`.
///
/// **Errors**: it is no number.
pub fn thoroughness() -> Result<u64> {
    let times = variable("MESH_RANDOM").map(|text| text.parse().context("MESH_RANDOM is a number, such as 20"));
    times.unwrap_or(Ok(1))
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

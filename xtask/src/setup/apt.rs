//! Installs Debian packages without starting the services in them.

use super::needs::Package;
use crate::{env, run};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A script that Debian asks whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs `packages`.
///
/// **Errors**: there is no apt-get, no right to use it, or it fails.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    if env::program("apt-get").is_none() {
        bail!("this is no Debian: install what provides {} by hand, then run it again", names.join(", "));
    }
    std::fs::create_dir_all(env::target_dir()).context("cannot create Cargo's target directory")?;
    let log = env::target_dir().join("setup-apt.log");
    let _policy = NoServices::declare()?;
    if let Err(error) = run::quiet(apt()?.arg("update"), &log) {
        // One of the machine's sources may be away, and the packages come from another.
        println!("       apt-get update failed, going on with the lists at hand: {error}");
    }
    // Rather fail than replace, say, the mail server of the machine.
    run::quiet(apt()?.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(&names), &log)
        .with_context(|| format!("try `apt-get install {}` by hand", names.join(" ")))?;
    for service in packages.iter().flat_map(|package| package.services) {
        keep_off(service)?;
    }
    Ok(())
}

fn apt() -> Result<Command> {
    let mut command = as_root("apt-get")?;
    command.args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120"]);
    Ok(command)
}

/// A command that runs as root, and asks no questions.
fn as_root(program: &str) -> Result<Command> {
    Ok(match env::as_root()? {
        Some(sudo) => {
            let mut command = Command::new(sudo);
            command.args(["DEBIAN_FRONTEND=noninteractive", program]);
            command
        }
        None => {
            let mut command = Command::new(program);
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        }
    })
}

/// Keeps a service that came along with its program from starting with the machine.
fn keep_off(service: &str) -> Result<()> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    run::open(as_root("systemctl")?.args(["--quiet", "disable", "--now", service]))
}

/// While it lives, packages start no services, unless the machine has its own rule about that.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn declare() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut child = as_root("sh")?
            .args(["-c", &format!("cat > {POLICY} && chmod 755 {POLICY}")])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run sh")?;
        let mut script = child.stdin.take().context("sh has no standard input")?;
        script.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        drop(script);
        if !child.wait().context("cannot wait for sh")?.success() {
            bail!("cannot write {POLICY}, which keeps Debian from starting services");
        }
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let removed = as_root("rm").and_then(|mut rm| run::open(rm.args(["-f", POLICY])));
            if let Err(error) = removed {
                eprintln!("warning: remove {POLICY} by hand, or Debian starts no services: {error:#}");
            }
        }
    }
}

//! A network namespace with a name: made, entered, removed.
//!
//! Invariant: a thread that enters a namespace ends there, so that no other work finds itself inside. Programs
//! enter by `nsenter`, not `ip netns exec`, which would hide the cgroup mounts from them.

use crate::exec::checked;
use crate::leftovers;
use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Where `ip netns` keeps namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// A network namespace; removed, with every process in it, when this is dropped.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// A new namespace, with its loopback up.
    ///
    /// **Errors**: it exists, or this is not root.
    pub fn create(name: &str) -> Result<Self> {
        checked(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned() };
        // Kubernetes wants dual stack; detecting duplicates of addresses that are ours takes a second each.
        for interface in ["all", "default"] {
            namespace.set_sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")?;
        }
        namespace.run("ip", ["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a program inside, and gives what it prints.
    ///
    /// **Errors**: it cannot be started, is too slow, or fails.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        checked(self.command(program).args(arguments))
    }

    /// Runs `work` on a thread inside; the sockets it makes stay inside.
    ///
    /// **Errors**: the namespace is gone, or `work` fails.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        enter(&self.path(), work)
    }

    /// Sets a kernel parameter inside, such as `net/ipv4/ip_forward`.
    ///
    /// **Errors**: there is none of that name.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{name}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("cannot write {path}")))
    }

    /// A kernel parameter inside.
    ///
    /// **Errors**: there is none of that name.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = format!("/proc/sys/{name}");
        self.enter(|| {
            Ok(std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?.trim().to_owned())
        })
    }
}

/// Runs `work` on a thread inside a namespace.
#[expect(clippy::disallowed_methods, reason = "the thread ends in the namespace, and nothing else runs on it")]
pub(crate) fn enter<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(namespace).with_context(|| format!("no namespace {}", namespace.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            work()
        });
        inside.join().map_err(|_| anyhow!("the work in {} panicked", namespace.display()))?
    })
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if !leftovers::kept() {
            leftovers::remove_namespace(&self.name);
        }
    }
}

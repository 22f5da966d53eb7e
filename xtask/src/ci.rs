//! What a change must pass, step by step.
//!
//! In:  the work tree.
//! Out: each step's name, time and result; at the end how many passed.
//! Invariant: nothing is left out silently: what could not be checked is said.

use crate::setup::{self, Group};
use crate::{env, run, tidy};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// Everything but the eBPF programs, which only build for their own target.
const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "mesh-ebpf"];

/// The steps that ran.
#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    /// Runs one step; the next ones run even if it fails.
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("\n==> {name}");
        let started = Instant::now();
        let result = work();
        if let Err(error) = &result {
            eprintln!("error: {name}: {error:#}");
        }
        self.done.push((name, started.elapsed(), result.is_ok()));
    }

    /// Prints the results; the last line counts them.
    fn finish(self) -> Result<()> {
        println!();
        for (name, time, passed) in &self.done {
            println!("{} {name} ({})", if *passed { "passed" } else { "FAILED" }, run::duration(*time));
        }
        let passed = self.done.iter().filter(|(_, _, passed)| *passed).count();
        let failed = self.done.len() - passed;
        println!("steps: {passed} passed, {failed} failed");
        if failed > 0 {
            bail!("{failed} of {} steps failed, see above", self.done.len());
        }
        Ok(())
    }
}

/// `cargo xtask test`.
///
/// **Errors**: a step failed.
pub(crate) fn test(filters: &[String]) -> Result<()> {
    need_root("test")?;
    setup::ensure(Group::Test)?;
    let mut steps = Steps::default();
    if filters.is_empty() {
        checks(&mut steps);
    }
    suites(&mut steps, filters);
    steps.finish()
}

/// `cargo xtask ci`.
///
/// **Errors**: a step failed.
pub(crate) fn ci() -> Result<()> {
    need_root("ci")?;
    setup::ensure(Group::Ci)?;
    let mut steps = Steps::default();
    steps.step("spelling", || run::open(Command::new("typos").current_dir(env::root())));
    steps.step("licences, bans, sources", || {
        run::open(&mut cargo(&[
            "deny",
            "--all-features",
            "check",
            "--hide-inclusion-graph",
            "licenses",
            "bans",
            "sources",
        ]))
    });
    steps.step("advisories", advisories);
    checks(&mut steps);
    steps.step("documentation", || {
        let mut doc = cargo(&["doc", "--no-deps", "--document-private-items", "--quiet"]);
        run::open(doc.args(WORKSPACE).env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.step("examples in the documentation", || run::open(cargo(&["test", "--doc", "--quiet"]).args(WORKSPACE)));
    suites(&mut steps, &[]);
    steps.finish()
}

/// What needs no tests to run.
fn checks(steps: &mut Steps) {
    steps.step("formatting", || run::open(&mut cargo(&["fmt", "--all", "--check"])));
    steps.step("tidy", tidy::run);
    steps.step("lints", || {
        let mut clippy = cargo(&["clippy", "--all-targets", "--quiet"]);
        run::open(clippy.args(WORKSPACE).args(["--", "--deny", "warnings"]))
    });
}

/// Builds everything, and runs the tests that `filters` select.
fn suites(steps: &mut Steps, filters: &[String]) {
    steps.step("build", || run::open(cargo(&["build"]).args(WORKSPACE)));
    steps.step("tests", || run::open(cargo(&["nextest", "run"]).args(WORKSPACE).args(filters)));
}

/// Known vulnerabilities, as far as their database can be had.
fn advisories() -> Result<()> {
    let fetched = run::output(&mut cargo(&["deny", "fetch", "db"]));
    if let Err(error) = fetched {
        println!("NOT CHECKED: the database of advisories cannot be fetched from here");
        println!("{}", error.to_string().lines().take(3).collect::<Vec<_>>().join("\n"));
        return Ok(());
    }
    run::open(&mut cargo(&["deny", "--all-features", "check", "--disable-fetch", "advisories"]))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(env::root());
    command
}

/// Namespaces and eBPF programs need root; better said before the build than after it.
fn need_root(command: &str) -> Result<()> {
    if env::is_root() {
        return Ok(());
    }
    bail!(
        "the tests make network namespaces and load eBPF programs, which needs root: \
         run `sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {command}`"
    )
}

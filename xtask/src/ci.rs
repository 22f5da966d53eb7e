//! What a change must pass, step by step.
//!
//! In:  the work tree.
//! Out: each step's name, time and result; at the end how many passed.
//! Invariant: nothing is left out silently: what could not be checked is said.

use crate::setup::{self, Group};
use crate::{cluster, conformance, env, image, manifests, run, tidy};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// Everything but the eBPF programs, which only build for their own target.
const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "mesh-ebpf"];

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It could not be checked here, and said why.
    Unchecked,
}

/// The steps that ran.
#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration, Outcome)>,
}

impl Steps {
    /// Runs one step; the next ones run even if it fails.
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        self.step_if_possible(name, || work().map(|()| Outcome::Passed));
    }

    /// Runs one step that may turn out to be impossible here.
    fn step_if_possible(&mut self, name: &'static str, work: impl FnOnce() -> Result<Outcome>) {
        println!("\n==> {name}");
        let started = Instant::now();
        let outcome = work().unwrap_or_else(|error| {
            eprintln!("error: {name}: {error:#}");
            Outcome::Failed
        });
        self.done.push((name, started.elapsed(), outcome));
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.done.iter().filter(|(_, _, done)| *done == outcome).count()
    }

    /// Prints the results; the last line counts them.
    fn finish(self) -> Result<()> {
        println!();
        for (name, time, outcome) in &self.done {
            let outcome = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed => "FAILED",
                Outcome::Unchecked => "NOT CHECKED",
            };
            println!("{outcome} {name} ({})", run::duration(*time));
        }
        let [passed, failed, unchecked] =
            [Outcome::Passed, Outcome::Failed, Outcome::Unchecked].map(|outcome| self.count(outcome));
        let unchecked = if unchecked == 0 { String::new() } else { format!(", {unchecked} skipped") };
        println!("steps: {passed} passed, {failed} failed{unchecked}");
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
    steps.step_if_possible("advisories", advisories);
    steps.step("manifests", || manifests::run(&manifests::Arguments { check: true }));
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
    // A cluster is not brought up for nothing; without any test to run, the first step says so.
    let in_cluster = filters.is_empty() || has_tests(IN_CLUSTER, filters);
    if !in_cluster || filters.is_empty() || has_tests(ELSEWHERE, filters) {
        steps.step("tests", || tests(ELSEWHERE, filters));
    }
    if in_cluster {
        steps.step("images for the cluster", || image::run(&image::Arguments::of_suites()));
        steps.step("a cluster", || bring_up(cluster::Choices::default()));
        steps.step("tests in a cluster", || tests(IN_CLUSTER, filters));
        if filters.is_empty() {
            steps.step("conformance", || conformance::in_cluster(&conformance::Arguments::default()));
        }
        steps.step("removal of the cluster", || cluster::run(&cluster::Action::Down));
    }
}

/// Tests that one real cluster serves, and all others.
const IN_CLUSTER: &str = "binary(cluster)";
const ELSEWHERE: &str = "not binary(cluster)";

fn tests(part: &str, filters: &[String]) -> Result<()> {
    let mut nextest = cargo(&["nextest", "run", "--filterset", part]);
    // An error says what was attempted; where in the runtime it was made would bury that.
    run::open(nextest.args(WORKSPACE).args(filters).env("RUST_LIB_BACKTRACE", "0"))
}

/// Do `filters` select any test of this part? What cannot be listed, cannot be run, which the run will say.
fn has_tests(part: &str, filters: &[String]) -> bool {
    let mut list = cargo(&["nextest", "list", "--message-format", "oneline", "--cargo-quiet", "--filterset", part]);
    run::output(list.args(WORKSPACE).args(filters)).map_or(true, |text| !text.trim().is_empty())
}

/// `cargo xtask cluster test`: the tests in a cluster alone, with what they need.
///
/// **Errors**: something could not be built or brought up, or a test failed.
pub(crate) fn cluster_test(filters: &[String], choices: cluster::Choices) -> Result<()> {
    need_root("cluster test")?;
    setup::ensure(Group::Test)?;
    run::open(cargo(&["build"]).args(WORKSPACE))?;
    image::run(&image::Arguments::of_suites())?;
    tests_in_cluster(filters, choices)
}

/// Brings a cluster up with the mesh's images.
fn bring_up(choices: cluster::Choices) -> Result<()> {
    cluster::run(&cluster::Action::Up(choices))?;
    for archive in ["mesh.tar", "bookinfo.tar", "suites.tar"] {
        let file = env::target_dir().join("images").join(archive);
        cluster::run(&cluster::Action::LoadImage { file })?;
    }
    Ok(())
}

/// Brings a cluster up, runs its tests, and takes it down, whatever came of them.
fn tests_in_cluster(filters: &[String], choices: cluster::Choices) -> Result<()> {
    let outcome = bring_up(choices).and_then(|()| tests(IN_CLUSTER, filters));
    let removed = cluster::run(&cluster::Action::Down);
    outcome.and(removed)
}

/// Known vulnerabilities, as far as their database can be had.
fn advisories() -> Result<Outcome> {
    if let Err(error) = run::output(&mut cargo(&["deny", "fetch", "db"])) {
        println!("the database of advisories cannot be fetched from here:");
        println!("{}", error.to_string().lines().skip(1).take(1).collect::<String>());
        return Ok(Outcome::Unchecked);
    }
    run::open(&mut cargo(&["deny", "--all-features", "check", "--disable-fetch", "advisories"]))?;
    Ok(Outcome::Passed)
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

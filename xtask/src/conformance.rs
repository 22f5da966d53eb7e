//! `cargo xtask conformance`: the Gateway API's own suite, run against the mesh in a real cluster.
//!
//! In:  the pinned module of the Gateway API with its suite; the mesh's images; a cluster of its own, or one that is up.
//! Out: a line for each test of meshes; the suite's report and log in `target/conformance`.
//! Invariant: every test of meshes that the suite has must have run and passed; one that was skipped is a failure.
//! Invariant: without the mesh the same run fails, and that is checked: else its success would say nothing.
//! Source: Gateway API GEP-1709, GEP-1686, "conformance profiles".

mod echo;
mod results;

use crate::cluster::{self, Action, Choices};
use crate::setup::{self, Group};
use crate::{env, image, run};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use results::Results;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What the mesh claims beyond the cores of the profiles: every extended feature of meshes, and what those tests need which
/// the suite counts for no profile.
const FEATURES: &[&str] = &[
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
];

/// What any cluster can do without a mesh, so that these tests prove nothing alone.
const WITHOUT_MESH: &[&str] = &["MeshBasic", "MeshHTTPRouteSimpleSameNamespace", "MeshTrafficSplit"];

/// How long `kubectl` may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Leave the mesh out: the run must fail, which proves that the suite can.
    #[arg(long, conflicts_with_all = ["keep", "only"])]
    without_mesh: bool,
    /// Run one test alone, by its name.
    #[arg(long)]
    only: Option<String>,
    /// Use the cluster that is up, if one is, and leave it up.
    #[arg(long)]
    keep: bool,
}

/// `cargo xtask conformance`.
///
/// **Errors**: something could not be built or brought up, or a test failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Group::Conformance)?;
    image::run(&image::Arguments::of_suites())?;
    if !(arguments.keep && cluster::is_up()) {
        cluster::run(&Action::Up(Choices::default()))?;
    }
    let outcome = in_cluster(arguments);
    if arguments.keep {
        return outcome;
    }
    let removed = cluster::run(&Action::Down);
    outcome.and(removed)
}

/// The same in a cluster that is up, with images that are made.
///
/// **Errors**: as for [`run`].
pub(crate) fn in_cluster(arguments: &Arguments) -> Result<()> {
    let expected = results::tests_of_meshes(&run::output(Command::new(tool("gateway-conformance")).arg("mesh"))?);
    ensure!(!expected.is_empty(), "the suite lists no tests of meshes");
    if let Some(only) = arguments.only.as_ref().filter(|only| !expected.contains(*only)) {
        bail!("the suite has no test of meshes `{only}`, only {}", expected.join(", "));
    }
    let dir = env::target_dir().join("conformance");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let echo = echo::image(&dir)?;
    cluster::run(&Action::LoadImage { file: echo })?;
    define()?;
    if !arguments.without_mesh {
        install()?;
    }
    let found = suite(arguments, &dir)?;
    judge(arguments, &expected, &found)
}

/// Defines the kinds of the Gateway API, as the module of its suite has them.
fn define() -> Result<()> {
    let definitions = setup::module(setup::GATEWAY_API)?.join("config/crd/standard").display().to_string();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", &definitions];
    cluster::kubectl_output(&apply, PATIENCE).context("the API server does not take the Gateway API's definitions")?;
    cluster::definitions_hold()
}

/// Installs the mesh as users do, from the images of this work tree.
fn install() -> Result<()> {
    cluster::run(&Action::LoadImage { file: env::target_dir().join("images/mesh.tar") })?;
    let manifest = env::root().join("manifests/mesh.yaml").display().to_string();
    cluster::kubectl_output(&["apply", "--server-side", "--force-conflicts", "-f", &manifest], PATIENCE)?;
    for what in ["daemonset/mesh-node", "deployment/mesh-signer", "deployment/mesh-reporter"] {
        let status = ["--namespace", "mesh-system", "rollout", "status", what, "--timeout=100s"];
        cluster::kubectl_output(&status, PATIENCE).with_context(|| format!("{what} does not come up"))?;
    }
    Ok(())
}

/// Runs the suite, and reads what came of it.
fn suite(arguments: &Arguments, dir: &std::path::Path) -> Result<Results> {
    let name = if arguments.without_mesh { "without-mesh" } else { "report" };
    let (report, log) = (dir.join(format!("{name}.yaml")), dir.join(format!("{name}.log")));
    if report.exists() {
        fs::remove_file(&report).with_context(|| format!("cannot remove {}", report.display()))?;
    }
    let mut suite = cluster::client("gateway-conformance")?;
    suite.args(["-test.v", "-test.timeout=20m", "-conformance-profiles=MESH-HTTP,MESH-GRPC"]);
    suite.arg(format!("-supported-features={}", FEATURES.join(",")));
    suite.arg("-namespace-labels=istio.io/dataplane-mode=ambient");
    suite.arg(format!("-report-output={}", report.display()));
    suite.args(["-organization=mesh", "-project=mesh-node", "-url=https://mesh.internal", "-contact=@mesh"]);
    suite.arg(format!("-version={}", env!("CARGO_PKG_VERSION")));
    if let Some(only) = &arguments.only {
        suite.arg(format!("-run-test={only}"));
    }
    if arguments.without_mesh {
        // What cannot succeed need not be tried for half a minute.
        suite.arg("-timeout-config-overrides=MaxTimeToConsistency:2");
    }
    println!("conformance: the suite runs; its log is {}", log.display());
    // How it ended is read from the log: a test that fails is named there.
    let ended = run::quiet(&mut suite, &log);
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let found = Results::of(&text);
    if found.is_empty() {
        ended.context("the suite ran no test")?;
    }
    ensure!(report.exists(), "the suite wrote no report: see {}", log.display());
    println!("conformance: the report is {}", report.display());
    Ok(found)
}

/// Says what came of each test.
///
/// **Errors**: it is not what it must be, with the mesh or without.
fn judge(arguments: &Arguments, expected: &[String], found: &Results) -> Result<()> {
    let chosen = |name: &&String| arguments.only.as_ref().is_none_or(|only| *name == only);
    let expected: Vec<_> = expected.iter().filter(chosen).map(String::as_str).collect();
    expected.iter().for_each(|name| println!("{} {name}", found.word(name)));
    let failed: Vec<_> = expected.iter().copied().filter(|name| !found.passed(name)).collect();
    println!("conformance: {} of {} passed", expected.len() - failed.len(), expected.len());
    if !arguments.without_mesh {
        ensure!(failed.is_empty(), "not passed: {}", failed.join(", "));
        return Ok(());
    }
    let passed = expected.iter().filter(|name| found.passed(name) && !WITHOUT_MESH.contains(name));
    let passed: Vec<_> = passed.copied().collect();
    ensure!(passed.is_empty(), "passed without the mesh, so that they prove nothing: {}", passed.join(", "));
    // What did not run at all has not failed for want of a mesh.
    let idle: Vec<_> = failed.iter().copied().filter(|name| found.word(name) != "FAIL").collect();
    ensure!(idle.is_empty(), "did not run without the mesh: {}", idle.join(", "));
    ensure!(
        found.passed(WITHOUT_MESH[0]),
        "{} needs no mesh, and failed: the suite's pods do not work",
        WITHOUT_MESH[0]
    );
    println!("conformance: without the mesh {} tests fail, as they must", failed.len());
    Ok(())
}

fn tool(name: &str) -> PathBuf {
    env::target_dir().join("tools").join(name)
}

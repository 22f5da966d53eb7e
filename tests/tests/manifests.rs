//! The manifests as users apply them: a real API server takes every object, and finds nothing new when it is given them again.
//!
//! In:  `manifests/mesh.yaml`, and the chart with Helm itself.
//! Invariant: a warning of the API server is an error.

use anyhow::{Context, Result, ensure};
use mesh_tests::{ADMIN, ApiServer, env, execute, feed};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As long as Helm takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SYSTEM: &str = "mesh-system";

/// Values beside the defaults that users may choose.
const CHOICES: &[&[&str]] = &[
    &["chain.mode=conflist", "metricsPort=0", "accessLog=off", "image.pullPolicy=Always"],
    &["edge.certificates[0].namespace=default", "edge.certificates[0].name=page"],
    &["imagePullSecrets[0].name=registry", "signer.replicas=3", "otlpEndpoint=http://192.0.2.1:4318"],
];

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Helm as the admin beside the API server.
fn helm(api: &ApiServer, arguments: &[&str], values: &[&str]) -> Result<String> {
    let mut helm = api.command(env::tool("helm")?);
    helm.args(arguments).args(["--namespace", SYSTEM]).env("KUBECONFIG", api.kubeconfig(ADMIN));
    helm.args(values.iter().flat_map(|value| ["--set", value]));
    // It keeps what it learns of the API server's kinds.
    helm.env("HELM_CACHE_HOME", api.dir().join("helm"));
    execute(&mut helm, PATIENCE)?.success()
}

/// `kubectl` with a manifest, where a warning fails it.
fn kubectl(api: &ApiServer, arguments: &[&str], manifest: &str) -> Result<String> {
    let mut kubectl = api.kubectl_command();
    kubectl.args(arguments).args(["--warnings-as-errors", "-f", "-"]);
    feed(&mut kubectl, manifest.as_bytes(), PATIENCE)?.success()
}

/// The namespace that the objects are in, with the label that they need.
fn namespace() -> String {
    let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM, "labels": labels}}).to_string()
}

/// Every object of the mesh, with the number of its revision.
fn revisions(api: &ApiServer) -> Result<Vec<String>> {
    let kinds = "daemonsets,deployments,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings,\
        validatingadmissionpolicies,validatingadmissionpolicybindings";
    let label = "--selector=app.kubernetes.io/name=mesh-node";
    let all = api.kubectl(["get", kinds, "--all-namespaces", label, "--output=json"])?.success()?;
    let all: Value = serde_json::from_str(&all).context("kubectl prints no JSON")?;
    let objects = all["items"].as_array().context("kubectl prints no list")?.iter();
    Ok(objects
        .map(|object| {
            format!("{} {} {}", object["kind"], object["metadata"]["name"], object["metadata"]["resourceVersion"])
        })
        .collect())
}

#[test]
fn what_is_applied_again_changes_nothing() -> Result<()> {
    let api = ApiServer::start("manifests")?;
    let manifest = std::fs::read_to_string(manifests().join("mesh.yaml")).context("the manifest")?;
    kubectl(&api, &["apply"], &namespace())?;
    kubectl(&api, &["apply", "--dry-run=server"], &manifest)?;
    kubectl(&api, &["apply", "--dry-run=server", "--server-side"], &manifest)?;
    ensure!(revisions(&api)?.is_empty(), "a dry run leaves something");

    // As the manual has it.
    kubectl(&api, &["apply"], &manifest)?;
    let first = revisions(&api)?;
    ensure!(first.len() > 20, "only {first:#?}");
    let again = kubectl(&api, &["apply"], &manifest)?;
    ensure!(again.lines().all(|line| line.ends_with(" unchanged")), "applied again: {again}");
    ensure!(revisions(&api)? == first, "applied again, objects are others");
    kubectl(&api, &["diff"], &manifest).context("what is there is not what was applied")?;

    // As those do who let the API server decide; what the first way had is taken over.
    let server_side = ["apply", "--server-side", "--force-conflicts"];
    kubectl(&api, &server_side, &manifest)?;
    let first = revisions(&api)?;
    kubectl(&api, &server_side, &manifest)?;
    ensure!(revisions(&api)? == first, "applied again by the server, objects are others");
    kubectl(&api, &["diff", "--server-side"], &manifest).context("the API server has something else")?;

    // A negative control: a difference is one.
    let other = manifest.replace("maxSurge: 1", "maxSurge: 2");
    ensure!(kubectl(&api, &["diff"], &other).is_err(), "no difference is found where there is one");
    Ok(())
}

#[test]
fn the_chart_is_installed_upgraded_and_removed_by_helm() -> Result<()> {
    let api = ApiServer::start("chart")?;
    let chart = manifests().join("mesh").display().to_string();
    helm(&api, &["install", "mesh", &chart, "--create-namespace"], &[])?;
    let first = revisions(&api)?;
    ensure!(first.len() > 20, "only {first:#?}");
    helm(&api, &["upgrade", "mesh", &chart], &[])?;
    ensure!(revisions(&api)? == first, "an upgrade to the same changes objects");
    kubectl(&api, &["apply"], &namespace())?;
    for values in CHOICES {
        let rendered = helm(&api, &["template", "mesh", &chart, "--kube-version", "1.30.0"], values)?;
        kubectl(&api, &["apply", "--server-side", "--force-conflicts", "--dry-run=server"], &rendered)
            .with_context(|| format!("with {values:?}"))?;
        helm(&api, &["upgrade", "mesh", &chart], values).with_context(|| format!("with {values:?}"))?;
    }
    ensure!(revisions(&api)? != first, "other values change nothing");
    helm(&api, &["uninstall", "mesh"], &[])?;
    let left = revisions(&api)?;
    ensure!(left.is_empty(), "Helm leaves {left:#?}");
    Ok(())
}

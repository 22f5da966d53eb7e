//! Renders the chart to plain manifests, and checks it.
//!
//! In:  `manifests/mesh`, Helm as `cargo xtask setup test` builds it.
//! Out: `manifests/mesh.yaml`; whether it is what the chart says.
//! Invariant: the chart is the one source; the rendered file is never edited.

use crate::{env, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use std::process::Command;

/// What to do.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only check that the rendered file is current, and that the chart renders with other values.
    #[arg(long)]
    pub(crate) check: bool,
}

/// The oldest Kubernetes that the chart is for.
const KUBERNETES: &str = "1.30.0";
const NAMESPACE: &str = "mesh-system";
const RENDERED: &str = "manifests/mesh.yaml";

/// What stands before the rendered chart.
const HEAD: &str = "\
# Rendered from the chart in manifests/mesh by `cargo xtask manifests`: change the chart, not this file.
---
apiVersion: v1
kind: Namespace
metadata:
  name: mesh-system
  labels:
    # The daemon needs the host's network and files.
    pod-security.kubernetes.io/enforce: privileged
    pod-security.kubernetes.io/warn: privileged
";

/// A certificate for gateways.
const PAGE: &[&str] = &["edge.certificates[0].namespace=shop", "edge.certificates[0].name=page"];

/// Values that the chart must take, each with something that must then be rendered.
const ACCEPTED: &[(&[&str], &str)] = &[
    (&["chain.mode=conflist"], "value: \"conflist\""),
    (&["metricsPort=0"], "value: \"127.0.0.1:15000\""),
    (&["image.repository=registry.example/mesh", "image.tag=edge"], "image: \"registry.example/mesh:edge\""),
    (&["exemptNamespaces={kube-system,calico-system}"], "value: \"kube-system,calico-system,mesh-system\""),
    (&["signer.replicas=3"], "replicas: 3"),
    (&["drainDeadlineSeconds=600"], "terminationGracePeriodSeconds: 630"),
    (&["edge.idleTimeoutSeconds=75"], "value: \"75s\""),
    (&["imagePullSecrets[0].name=registry"], "- name: registry"),
    (&["chain.confDir=/var/lib/rancher/k3s/agent/etc/cni/net.d"], "path: /var/lib/rancher/k3s/agent/etc/cni/net.d"),
    (&["edge.gatewayClass=mesh"], "controllerName: mesh.internal/controller"),
    (PAGE, "value: \"shop/page\""),
    (PAGE, "resourceNames:\n      - page\n    verbs: [list, watch]"),
    (&["otlpEndpoint=http://192.0.2.1:4318", "traceSampling=0.5"], "value: \"0.5\""),
];

/// Values that the chart must refuse, each with the word that the refusal names.
const REFUSED: &[(&str, &str)] = &[
    ("chain.mode=sometimes", "mode"),
    ("chain.confDir=etc/cni", "confDir"),
    ("metricsPort=70000", "metricsPort"),
    ("signer.replicas=0", "replicas"),
    ("edge.connections=0", "connections"),
    ("trustDomains=cluster.local", "trustDomains"),
    ("edge.certificates[0].name=page", "certificates"),
    ("edge.gatewayClass=Mesh", "gatewayClass"),
    ("otlpEndpoint=collector:4317", "otlpEndpoint"),
    ("traceSampling=101", "traceSampling"),
    ("exemptNamespaces={Kube_System}", "exemptNamespaces"),
];

/// `cargo xtask manifests`.
///
/// **Errors**: Helm is missing, refuses the chart, or the rendered file is not current.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let path = env::root().join(RENDERED);
    let text = render()?;
    if !arguments.check {
        return std::fs::write(&path, text).with_context(|| format!("cannot write {RENDERED}"));
    }
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
        bail!("{RENDERED} is not what the chart says: run `cargo xtask manifests`");
    }
    run::output(helm()?.args(["lint", "--strict", "--quiet", "--kube-version", KUBERNETES, "manifests/mesh"]))?;
    for (values, expected) in ACCEPTED {
        let text = template(values)?;
        if !text.contains(expected) {
            bail!("the chart with {values:?} does not render `{expected}`");
        }
    }
    for (value, named) in REFUSED {
        match template(&[*value]) {
            Ok(_) => bail!("the chart accepts {value}: values.schema.json should refuse it"),
            Err(error) if format!("{error:#}").contains(named) => {}
            Err(error) => return Err(error.context(format!("{value} is refused, but not by its name"))),
        }
    }
    Ok(())
}

/// The plain manifests.
fn render() -> Result<String> {
    let text = template(&[])?;
    // Nobody's release: whoever applies the file manages it.
    let kept = text.lines().filter(|line| !line.contains("app.kubernetes.io/managed-by:"));
    Ok(kept.fold(HEAD.to_owned(), |text, line| text + line.trim_end() + "\n"))
}

fn template(values: &[&str]) -> Result<String> {
    let mut helm = helm()?;
    helm.args(["template", "mesh", "manifests/mesh", "--namespace", NAMESPACE, "--kube-version", KUBERNETES]);
    for value in values {
        helm.args(["--set", value]);
    }
    run::output(&mut helm)
}

fn helm() -> Result<Command> {
    let path: PathBuf = env::target_dir().join("tools/helm");
    if !path.is_file() {
        bail!("Helm is not built: run `cargo xtask setup test`");
    }
    let mut command = Command::new(path);
    command.current_dir(env::root());
    Ok(command)
}

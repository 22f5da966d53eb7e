//! What enters from outside: Bookinfo by the gateways of its sample, for which the chart gives the mesh a class and a certificate.
//!
//! In:  Istio's sample, in both APIs; the chart, since its defaults make no class and read no Secret.

use crate::support::{SYSTEM, Space, arrived_by_mutual_tls, bookinfo, manifest, rolled_out, root};
use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::{Cluster, ClusterNode};
use mesh_tests::{Certificate, env, execute, tools, wait};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name in the certificate.
const HOST: &str = "bookinfo.example";

/// The mesh with what its edge needs; as it was when this is dropped.
struct WithEdge<'cluster>(&'cluster Cluster);

impl<'cluster> WithEdge<'cluster> {
    /// With the class of the sample's Gateway, and a certificate in a namespace.
    fn install(cluster: &'cluster Cluster, namespace: &str) -> Result<Self> {
        let mut helm = Command::new(env::tool("helm")?);
        helm.args(["template", "mesh"]).arg(root().join("manifests/mesh")).args([
            "--namespace",
            SYSTEM,
            "--kube-version",
            "1.30.0",
        ]);
        let certificate = format!("edge.certificates[0].namespace={namespace},edge.certificates[0].name=page");
        helm.args(["--set", "edge.gatewayClass=istio", "--set", &certificate]);
        let rendered = execute(&mut helm, wait::PATIENCE)?.success()?;
        let own = Self(cluster);
        cluster.apply(&rendered)?;
        rolled_out(cluster)?;
        Ok(own)
    }

    fn restore(&self) -> Result<()> {
        self.0.kubectl(["delete", "gatewayclass", "istio", "--ignore-not-found", "--wait=false"])?;
        self.0.kubectl(["apply", "--server-side", "--force-conflicts", "-f", &manifest()])?;
        rolled_out(self.0)
    }
}

impl Drop for WithEdge<'_> {
    fn drop(&mut self) {
        // A test that succeeds has done it, and knows that it succeeded.
        drop(self.restore());
    }
}

/// A certificate of [`HOST`] that vouches for itself, and the arguments of kubectl for its files.
fn certificate(space: &Space, name: &str) -> Result<(PathBuf, [String; 2])> {
    let Certificate { certificate, key } =
        Certificate::alone(&space.dir()?, name, &format!("subjectAltName=DNS:{HOST}"))?;
    let files = [format!("--cert={}", certificate.display()), format!("--key={}", key.display())];
    Ok((certificate, files))
}

/// What whoever is outside gets at a port of a node: by TLS if there is a certificate that proves it.
fn enter(cluster: &Cluster, node: &ClusterNode, port: u16, proof: Option<&Path>) -> Result<String> {
    let mut curl = cluster.command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "5"]);
    curl.args(["--resolve", &format!("{HOST}:{port}:{}", node.address())]);
    let scheme = if proof.is_some() { "https" } else { "http" };
    curl.args(proof.into_iter().flat_map(|chain| [Path::new("--cacert"), chain]));
    execute(curl.arg(format!("{scheme}://{HOST}:{port}/productpage")), wait::PATIENCE)?.success()
}

/// Waits until the page comes from every node at a port, with whatever it says of other services.
fn served(cluster: &Cluster, port: u16, proof: Option<&Path>) -> Result<()> {
    for node in cluster.nodes() {
        let what = format!("{} serves the page at port {port}", node.name());
        wait::until_true(&what, wait::PATIENCE, || {
            let page = enter(cluster, node, port, proof);
            Ok(page.is_ok_and(|page| page.contains("The Comedy of Errors") && !page.contains("class=\"missing\"")))
        })
        .with_context(|| format!("{:?}", enter(cluster, node, port, proof)))?;
    }
    Ok(())
}

#[test]
fn the_gateways_of_bookinfo_serve_the_page_at_every_node() -> Result<()> {
    let space = Space::new("edge", true)?;
    space.strict()?;
    let mesh = WithEdge::install(&space.cluster, &space.name)?;
    let sample = tools::istio()?.join("samples/bookinfo");
    bookinfo(&space)?;
    let (chain, [cert, key]) = certificate(&space, "first")?;
    for name in ["page", "unnamed"] {
        space.kubectl(&["create", "secret", "tls", name, &cert, &key])?;
    }

    // The Gateway API's, and a listener beside the sample's with the certificate.
    space.kubectl(&["apply", "-f", &sample.join("gateway-api/bookinfo-gateway.yaml").display().to_string()])?;
    served(&space.cluster, 80, None)?;
    let listener = |port: u16, secret: &str| {
        json!({
            "name": format!("https-{port}"), "port": port, "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": secret}]},
        })
    };
    let listeners = [listener(443, "page"), listener(444, "unnamed")];
    let patch = json!(listeners.map(|of| json!({"op": "add", "path": "/spec/listeners/-", "value": of})));
    space.kubectl(&[
        "patch",
        "gateway.gateway.networking.k8s.io",
        "bookinfo-gateway",
        "--type=json",
        "--patch",
        &patch.to_string(),
    ])?;
    served(&space.cluster, 443, Some(&chain))?;

    // A Secret that nobody named to the daemons is none that they can read, and they may not.
    for node in space.cluster.nodes() {
        ensure!(enter(&space.cluster, node, 444, Some(&chain)).is_err(), "{} shows what it may not read", node.name());
    }
    for (name, expected) in [("secret/page", true), ("secret/unnamed", false), ("secrets", false)] {
        let daemon = format!("--as=system:serviceaccount:{SYSTEM}:mesh-node");
        let output = space.cluster.kubectl_tried(["-n", &space.name, "auth", "can-i", "watch", name, &daemon])?;
        ensure!(output.status.success() == expected, "a daemon may watch {name}: {output:?}");
    }

    // Istio's, whose Gateway selects its ingress gateway.
    for kind in ["gateways.networking.istio.io", "virtualservices.networking.istio.io"] {
        crate::support::define(&space.cluster, kind)?;
    }
    space.kubectl(&["apply", "-f", &sample.join("networking/bookinfo-gateway.yaml").display().to_string()])?;
    served(&space.cluster, 8080, None)?;
    let server = json!({
        "port": {"number": 8443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"],
        "tls": {"mode": "SIMPLE", "credentialName": "page"},
    });
    let patch = json!([{"op": "add", "path": "/spec/servers/-", "value": server}]);
    space.kubectl(&[
        "patch",
        "gateway.networking.istio.io",
        "bookinfo-gateway",
        "--type=json",
        "--patch",
        &patch.to_string(),
    ])?;
    served(&space.cluster, 8443, Some(&chain))?;

    // A certificate that is renewed is shown.
    let (renewed, [cert, key]) = certificate(&space, "renewed")?;
    let secret = ["create", "secret", "tls", "page", "--dry-run=client", "--output=yaml", &cert, &key];
    let secret = space.kubectl(&secret)?;
    space.cluster.apply_tried(&secret, ["--namespace", &space.name])?.success()?;
    for port in [443, 8443] {
        served(&space.cluster, port, Some(&renewed))?;
    }

    // The pods are strict: whoever enters comes as the mesh, by a certificate that the daemon asked for as its own pod.
    let own = format!("source_principal=\"spiffe://cluster.local/ns/{SYSTEM}/sa/mesh-node\"");
    arrived_by_mutual_tls(&space.cluster, &[own, "destination_workload=\"productpage".to_owned()])?;
    mesh.restore()
}

//! A node that the mesh leaves.

use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, env, wait};
use serde_json::json;
use std::fs;
use std::process::Command;

#[test]
fn a_node_without_the_mesh_is_as_it_was_before() -> Result<()> {
    let mesh = Mesh::builder("uninstall").build()?;
    mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    let web = mesh.pod("shop/web").on(A).start()?;
    let client = mesh.pod("shop/client").on(B).start()?;
    let outsider = mesh.pod("default/outsider").on(B).start()?;
    let _echo = web.echo(8080)?;
    let served = |by: &mesh_tests::Pod| by.exchange(web.address(8080), b"hello").is_ok_and(|answer| answer == b"hello");
    wait::until_true("the client is served", wait::PATIENCE, || Ok(served(&client)))?;
    ensure!(!served(&outsider), "plain text got through while the mesh was there");

    for node in [A, B] {
        mesh.daemon(node)?.kill()?;
    }
    ensure!(!served(&client), "a pod without its daemon is open");

    for node in [A, B] {
        let dir = mesh.state_dir(node).join("host");
        let network = dir.join("net.d/pods");
        fs::create_dir_all(&network)?;
        fs::write(
            dir.join("net.d/10-pods.conflist"),
            r#"{"name":"pods","cniVersion":"1.0.0","plugins":[{"type":"ptp"}]}"#,
        )?;
        fs::write(network.join("50-mesh.conf"), r#"{"name":"pods","cniVersion":"1.0.0","type":"mesh-cni"}"#)?;
        // A second time there is nothing to do.
        for _ in 0..2 {
            let output = Command::new(env::built("mesh-node")?)
                .arg("uninstall")
                .arg("--state-dir")
                .arg(mesh.state_dir(node))
                .arg("--bpf-dir")
                .arg(mesh.bpf_dir(node))
                .arg("--cni-conf-dir")
                .arg(dir.join("net.d"))
                .arg("--cni-bin-dir")
                .arg(dir.join("bin"))
                .output()?;
            ensure!(output.status.success(), "{output:?}");
        }
        ensure!(!network.exists(), "the plugin is still in the chain");
        ensure!(!mesh.bpf_dir(node).exists(), "something is still pinned");
    }
    for pod in [&web, &client] {
        let rules = pod.run("ip", ["rule"])?.success()?;
        ensure!(!rules.contains("fwmark"), "{} still has {rules}", pod.name());
        let setting = pod.run("sysctl", ["-n", "net.ipv4.tcp_fwmark_accept"])?.success()?;
        ensure!(setting.trim() == "0", "{} still has tcp_fwmark_accept", pod.name());
    }
    for pod in [&client, &outsider] {
        wait::until_true("plain text gets through", wait::PATIENCE, || Ok(served(pod)))?;
    }
    // Their chain still names the plugin, and nobody answers it.
    client.delete()?;
    outsider.delete()
}

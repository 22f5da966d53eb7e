//! Pods that join the mesh in other ways than by being created in it.

use anyhow::{Context, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, traffic, wait};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

#[test]
fn a_pod_that_ran_before_the_plugin_joins_and_keeps_its_connections() -> Result<()> {
    let mesh = Mesh::builder("ran before").build()?;
    mesh.kube().namespace("old", &[])?;
    let web = mesh.pod("old/web").on(A).account("web").before_the_mesh().start()?;
    let client = mesh.pod("old/client").on(B).account("client").before_the_mesh().start()?;
    let _echo = web.echo(8080)?;
    let mut open = client.connect(web.address(8080))?;
    open.write_all(b"before")?;
    open.read_exact(&mut [0; 6])?;

    mesh.kube().namespace("old", &[("istio.io/dataplane-mode", "ambient")])?;
    let enrolled = |node| -> Result<bool> { Ok(mesh.daemon(node)?.metric("mesh_control_pods_in_force", &[])? >= 1.0) };
    for node in [A, B] {
        wait::until_true("the pod is found", wait::PATIENCE, || enrolled(node))?;
    }
    mesh.kube().peer_authentication("old/default", json!({"mtls": {"mode": "STRICT"}}))?;
    wait::until_true("the client is served", wait::PATIENCE, || {
        Ok(client.exchange(web.address(8080), b"hello").is_ok_and(|answer| answer == b"hello"))
    })?;
    let record = mesh.daemon(A)?.wait_access("the stream that arrived", |record| {
        record["side"] == "inbound" && record["connection_security_policy"] == "mutual_tls"
    })?;
    ensure!(record["source_principal"].as_str().is_some_and(|principal| principal.ends_with("/sa/client")), "{record}");

    open.write_all(b"after!")?;
    let mut answer = [0; 6];
    open.read_exact(&mut answer)?;
    ensure!(&answer == b"after!", "the connection from before says {answer:?}");
    Ok(())
}

#[test]
fn a_pod_cannot_pass_for_another_by_taking_its_address() -> Result<()> {
    let mesh = Mesh::builder("impostor").build()?;
    mesh.kube().namespace("old", &[])?;
    let victim = mesh.pod("old/victim").on(A).account("victim").before_the_mesh().start()?;
    let impostor = mesh.pod("old/impostor").on(A).account("impostor").before_the_mesh().start()?;
    for address in victim.addresses() {
        impostor.ns().run("ip", ["address", "add", &address.to_string(), "dev", "eth0"])?;
    }
    mesh.kube().namespace("old", &[("istio.io/dataplane-mode", "ambient")])?;
    let daemon = mesh.daemon(A)?;
    wait::until_true("both pods are found", wait::PATIENCE, || {
        Ok(daemon.metric("mesh_control_pods_in_force", &[])? >= 2.0)
    })?;
    let snapshot = daemon.debug("snapshot")?;
    let pods = snapshot["pods"].as_array().into_iter().flatten();
    let netns: BTreeMap<_, _> =
        pods.filter_map(|pod| Some((pod["name"].as_str()?, Path::new(pod["netns"].as_str()?).file_name()?))).collect();
    for pod in [&victim, &impostor] {
        let found = netns.get(format!("old/{}", pod.name()).as_str());
        ensure!(found.is_some_and(|name| *name == pod.ns().name()), "{} is taken to be in {found:?}", pod.name());
    }
    Ok(())
}

/// As a node is after a boot: what is known of a pod is its address of before, which a pod outside the mesh has now.
#[test]
fn a_pod_is_not_looked_for_where_its_address_is_anothers() -> Result<()> {
    let mesh = Mesh::builder("heir").build()?;
    let dns = mesh.pod("kube-system/dns").on(A).before_the_mesh().start()?;
    let address = dns.address(53).ip();
    mesh.kube().change("Pod", "kube-system", "dns", |pod| pod["status"] = json!({"phase": "Running"}))?;
    // As Calico names it.
    let node = mesh.node(A).ns();
    let route = node.run("ip", ["-oneline", "route", "get", &address.to_string()])?;
    let device = route.split_whitespace().skip_while(|word| *word != "dev").nth(1).context("no device")?;
    node.run("ip", ["link", "set", device, "name", "cali8d2712636fb"])?;
    // One that leads nowhere, as Calico has it for addresses that no pod has.
    node.run("ip", ["route", "add", "blackhole", "192.0.2.9"])?;

    mesh.kube().namespace("old", &[("istio.io/dataplane-mode", "ambient")])?;
    for (name, address) in [("heirless", "192.0.2.9"), ("gone", &address.to_string())] {
        mesh.kube().apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "old", "name": name, "uid": name},
            "spec": {"nodeName": A.name(), "serviceAccountName": "default", "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }))?;
    }
    let daemon = mesh.daemon(A)?;
    for why in ["through cali8d2712636fb, which is another pod's", "no route to 192.0.2.9"] {
        wait::until_true(&format!("the daemon says `{why}`"), wait::PATIENCE, || Ok(daemon.log().contains(why)))?;
    }
    ensure!(daemon.metric("mesh_control_pods_in_force", &[])? == 0.0, "{}", daemon.debug("snapshot")?);

    // A negative control: without its name it would be taken for the pod.
    node.run("ip", ["link", "set", "cali8d2712636fb", "name", "veth-of-gone"])?;
    wait::until_true(
        "the pod is found",
        wait::PATIENCE,
        || Ok(daemon.metric("mesh_control_pods_in_force", &[])? == 1.0),
    )
}

#[test]
fn the_kubelet_reaches_the_ports_of_probes_in_a_strict_pod_and_nobody_else_does() -> Result<()> {
    let mesh = Mesh::builder("probes").build()?;
    mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    let web = mesh.pod("shop/web").on(A).probe_port(8080).start()?;
    let stranger = mesh.pod("default/stranger").on(A).start()?;
    let _servers = [web.echo(8080)?, web.echo(9090)?];
    let (own, other) = (mesh.node(A).ns(), mesh.node(B).ns());
    let asks =
        |ns, port| traffic::exchange(traffic::connect(ns, web.address(port), Duration::from_secs(2))?, b"alive?");
    wait::until_true("the node's kubelet is served", wait::PATIENCE, || {
        Ok(asks(own, 8080).is_ok_and(|answer| answer == b"alive?"))
    })?;
    ensure!(asks(own, 9090).is_err(), "the node reaches a port that no probe names");
    ensure!(asks(other, 8080).is_err(), "another node reaches the port of a probe");
    ensure!(stranger.exchange(web.address(8080), b"alive?").is_err(), "a pod reaches the port of a probe");
    // Policies do not come between either, whatever they deny and whatever the mode.
    mesh.kube().authorization_policy("shop/allow-nothing", json!({}))?;
    mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    wait::until_true("the policy is in force", wait::PATIENCE, || {
        let denied = mesh.daemon(A)?.metric("mesh_proxy_refused_total", &[("reason", "policy_denied")])?;
        Ok(stranger.exchange(web.address(8080), b"alive?").is_err() && denied >= 1.0)
    })?;
    ensure!(asks(own, 8080)? == b"alive?", "a policy came between the kubelet and a probe");
    ensure!(asks(own, 9090).is_err(), "a policy does not hold for the node");
    Ok(())
}

#[test]
fn what_a_port_of_the_node_forwards_is_not_taken_for_the_kubelet() -> Result<()> {
    let mesh = Mesh::builder("forwarded").build()?;
    mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    let web = mesh.pod("shop/web").on(A).probe_port(8080).start()?;
    let stranger = mesh.pod("default/stranger").on(A).start()?;
    let _server = web.whoami(8080)?;
    // As kube-proxy does with what enters at a port of the node.
    let [address, _] = A.addresses();
    let from = stranger.address(0).ip();
    let rules = format!(
        "table ip nodeport {{ chain out {{ type nat hook postrouting priority srcnat; ip saddr {from} snat to {address}; }}; }}"
    );
    mesh.node(A).ns().run("nft", [rules])?;
    let seen = String::from_utf8(stranger.exchange(web.address(8080), b"")?)?;
    ensure!(seen.contains(&address.to_string()), "the stranger is seen as {seen}");
    mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    wait::until_true("whoever has the node's address is refused", wait::PATIENCE, || {
        Ok(stranger.exchange(web.address(8080), b"").is_err())
    })?;
    let own = traffic::connect(mesh.node(A).ns(), web.address(8080), Duration::from_secs(2))?;
    ensure!(!traffic::exchange(own, b"")?.is_empty(), "the kubelet is not served");
    Ok(())
}

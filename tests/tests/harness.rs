//! The harness by itself, without the mesh: a negative control for every suite that stands on it.

use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, NetNs, Runtime, ServiceSpec, wait};
use std::path::Path;

/// Two pods on different nodes talk over both families, and the wire shows what they say.
fn pods_talk_in_plain_text(name: &str, runtime: Runtime) -> Result<()> {
    let mesh = Mesh::builder(name).without_mesh().cni_runtime(runtime).build()?;
    mesh.kube().namespace("shop", &[])?;
    let web = mesh.pod("shop/web").on(A).label("app", "web").start()?;
    let client = mesh.pod("shop/client").on(B).start()?;
    let _web = web.page(8080, "hello from the shop")?;
    let _echo = web.echo(7)?;
    let _who = web.whoami(9)?;

    let wire = mesh.capture("plain")?;
    for address in [web.address(8080), web.address6(8080)] {
        let page = client.curl(&format!("http://{address}/"))?;
        ensure!(page == "hello from the shop", "the page is {page:?}");
    }
    let bytes = vec![b'x'; 1 << 17];
    ensure!(client.exchange(web.address(7), &bytes)? == bytes, "the echo is another");
    for address in [web.address(9), web.address6(9)] {
        let seen = String::from_utf8(client.exchange(address, b"")?)?;
        let own = client
            .addresses()
            .iter()
            .any(|own| seen.starts_with(&own.to_string()) || seen.starts_with(&format!("[{own}]")));
        ensure!(own, "the server sees {seen}");
    }

    let captured = wire.stop()?;
    ensure!(captured.contains(b"hello from the shop"), "the capture lacks what was said");
    ensure!(captured.to_port(8080).any(|flow| flow.server.is_ipv6()), "no IPv6 in the capture");
    ensure!(captured.to_port(7).any(|flow| flow.received == bytes), "the capture lacks the echo");
    let judged = captured.only_tls_on(&[7, 9, 8080]);
    ensure!(judged.is_err_and(|error| error.to_string().contains("plain text")), "plain text passed for TLS");

    let dir = mesh.node(A).dir().to_owned();
    let namespaces = [mesh.node(A).ns().path(), mesh.node(B).ns().path(), web.ns().path(), client.ns().path()];
    client.delete()?;
    web.delete()?;
    drop((_web, mesh));
    for path in namespaces.iter().chain([&dir]) {
        ensure!(!path.exists(), "{} is left behind", path.display());
    }
    Ok(())
}

#[test]
fn pods_talk_through_the_reference_runtime() -> Result<()> {
    pods_talk_in_plain_text("harness reference", Runtime::Reference)
}

#[test]
fn pods_talk_through_the_direct_runtime() -> Result<()> {
    pods_talk_in_plain_text("harness direct", Runtime::Direct)
}

#[test]
fn endpoints_follow_pods() -> Result<()> {
    let mesh = Mesh::builder("harness endpoints").without_mesh().cni_runtime(Runtime::Direct).build()?;
    mesh.kube().namespace("shop", &[])?;
    let service = mesh.kube().service(ServiceSpec::new("shop/web").selector("app", "web").port(80, 8080))?;
    let slice = |family: &str| mesh.kube().object("EndpointSlice", "shop", &format!("web-{family}"));
    let endpoints = |family: &str| slice(family).map_or(0, |slice| slice["endpoints"].as_array().map_or(0, Vec::len));
    ensure!(endpoints("ipv4") == 0, "endpoints without pods");

    let web = mesh.pod("shop/web").on(B).label("app", "web").account("web").start()?;
    ensure!(endpoints("ipv4") == 1 && endpoints("ipv6") == 1, "no endpoint in each family");
    let first = |family: &str| slice(family).map(|slice| slice["endpoints"][0].clone()).unwrap_or_default();
    ensure!(first("ipv4")["addresses"][0] == web.addresses()[0].to_string(), "{}", first("ipv4"));
    ensure!(first("ipv4")["conditions"]["ready"] == true, "{}", first("ipv4"));
    web.set_ready(false)?;
    ensure!(first("ipv6")["conditions"]["ready"] == false, "{}", first("ipv6"));
    ensure!(mesh.kube().object("ServiceAccount", "shop", "web").is_some(), "no service account");

    let file = mesh.kube().dir().join("service.shop.web.yaml");
    let yaml = std::fs::read_to_string(&file)?;
    ensure!(yaml.contains("kind: Service\n"), "no YAML: {yaml}");
    web.delete()?;
    ensure!(endpoints("ipv4") == 0, "an endpoint without its pod");
    mesh.kube().delete("Service", &service.namespace, &service.name)?;
    ensure!(!file.exists() && slice("ipv4").is_none(), "a service that was deleted");
    Ok(())
}

#[test]
fn pods_are_reachable_from_the_host_when_asked() -> Result<()> {
    let mesh =
        Mesh::builder("harness host").without_mesh().cni_runtime(Runtime::Direct).reachable_from_host().build()?;
    mesh.kube().namespace("shop", &[])?;
    for node in [A, B] {
        let pod = mesh.pod(&format!("shop/on-{}", node.name())).on(node).start()?;
        let _who = pod.whoami(80)?;
        for address in [pod.address(80), pod.address6(80)] {
            let output = std::process::Command::new("curl")
                .args(["--http0.9", "-gsS", "-m", "10"])
                .arg(format!("http://{address}/"))
                .output()?;
            let seen = String::from_utf8(output.stdout)?;
            ensure!(seen.starts_with("10.246.0.1:") || seen.starts_with("[fd00:246::1]:"), "{address} sees `{seen}`");
        }
    }
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_swept() -> Result<()> {
    // A run whose process is gone: its lock can be had, and its namespace has a process in it. Until all of it is there
    // the lock is held, for other runs sweep too.
    let id = format!("{}-harness_killed-0000", mesh_tests::env::prefix());
    let runs = Path::new("/run/mesh-tests");
    std::fs::create_dir_all(runs.join(&id))?;
    let lock = std::fs::File::create(runs.join(format!("{id}.lock")))?;
    lock.lock()?;
    let ns = NetNs::create(&format!("{id}-a"))?;
    let path = ns.path();
    let mut sleeper = ns.command("sleep").arg("600").spawn()?;
    std::mem::forget(ns);
    drop(lock);

    let mesh = Mesh::builder("harness sweep").without_mesh().build()?;
    wait::until_true("the namespace is gone", wait::PATIENCE, || Ok(!path.exists()))?;
    wait::until_true("the files are gone", wait::PATIENCE, || {
        Ok(!runs.join(&id).exists() && !runs.join(format!("{id}.lock")).exists())
    })?;
    wait::until_true("the process in it has ended", wait::PATIENCE, || Ok(sleeper.try_wait()?.is_some()))?;
    drop(mesh);
    Ok(())
}

#[test]
fn the_same_scenario_does_not_run_twice_at_once() -> Result<()> {
    let mesh = Mesh::builder("harness twice").without_mesh().build()?;
    let second = Mesh::builder("harness twice").without_mesh().build();
    ensure!(second.is_err_and(|error| error.to_string().contains("already runs")), "it runs twice");
    ensure!(mesh.node(A).ns().path().exists(), "the second took the first away");
    Ok(())
}

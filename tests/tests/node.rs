//! The mesh on two nodes, as a user meets it first.

use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Pod, Server, Service, ServiceSpec, wait};
use serde_json::json;
use std::net::SocketAddr;

/// A strict namespace with a service on one node and a client on the other.
struct Shop {
    service: Service,
    web: Pod,
    client: Pod,
    _echo: Server,
    mesh: Mesh,
}

impl Shop {
    fn open(name: &str) -> Result<Self> {
        let mesh = Mesh::builder(name).build()?;
        mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
        mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
        let service = mesh.kube().service(ServiceSpec::new("shop/web").selector("app", "web").port(80, 8080))?;
        let web = mesh.pod("shop/web").on(A).account("web").label("app", "web").start()?;
        let client = mesh.pod("shop/client").on(B).account("client").start()?;
        let echo = web.echo(8080)?;
        Ok(Self { service, web, client, _echo: echo, mesh })
    }

    /// Waits until the client is served at `to`: the daemons learn of services and endpoints in their own time.
    fn served(&self, to: SocketAddr) -> Result<()> {
        wait::until_true(&format!("{to} serves"), wait::PATIENCE, || {
            Ok(self
                .client
                .exchange(to, b"hello from the client")
                .is_ok_and(|answer| answer == b"hello from the client"))
        })
    }
}

#[test]
fn strict_pods_talk_by_tls_on_their_own_port() -> Result<()> {
    let shop = Shop::open("node strict")?;
    let _who = shop.web.whoami(8081)?;
    let wire = shop.mesh.capture("strict")?;
    for to in [shop.service.address(80), shop.service.address6(80), shop.web.address(8080), shop.web.address6(8080)] {
        shop.served(to)?;
    }
    let seen = String::from_utf8(shop.client.exchange(shop.web.address(8081), b"")?)?;
    ensure!(seen.starts_with(&format!("{}:", shop.client.addresses()[0])), "the application sees {seen}");

    let captured = wire.stop()?;
    captured.only_tls_on(&[8080, 8081])?;
    ensure!(!captured.contains(b"hello from the client"), "what was said is on the wire");
    let record = shop.mesh.daemon(A)?.wait_access("the stream that arrived", |record| record["side"] == "inbound")?;
    ensure!(record["connection_security_policy"] == "mutual_tls", "{record}");
    ensure!(record["source_principal"] == "spiffe://cluster.local/ns/shop/sa/client", "{record}");
    Ok(())
}

#[test]
fn a_pod_outside_the_mesh_is_refused_by_strict_ones() -> Result<()> {
    let shop = Shop::open("node outsider")?;
    shop.served(shop.web.address(8080))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let answer = outsider.exchange(shop.web.address(8080), b"let me in");
    ensure!(!answer.is_ok_and(|answer| answer == b"let me in"), "plain text got through");
    shop.mesh.daemon(A)?.wait_access("the refusal, with a reason", |record| {
        record["outcome"] == "refused" && record["reason"].is_string()
    })?;
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_pods_closed_and_the_next_serves_them() -> Result<()> {
    let shop = Shop::open("node killed")?;
    shop.served(shop.web.address(8080))?;
    shop.mesh.daemon(B)?.kill()?;
    let wire = shop.mesh.capture("closed")?;
    let without = shop.client.connect_within(shop.web.address(8080), std::time::Duration::from_millis(500));
    ensure!(without.is_err(), "a connection without a daemon");
    ensure!(wire.stop()?.flows.is_empty(), "something left the pod without a daemon");

    let next = shop.mesh.start_daemon(B)?;
    next.ready()?;
    shop.mesh.set_daemon(next);
    shop.served(shop.web.address(8080))
}

//! The mesh on two nodes, as a user meets it first.

use anyhow::{Result, anyhow, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Pod, Server, Service, ServiceSpec, wait};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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

#[test]
fn a_new_daemon_takes_over_and_no_new_connection_fails() -> Result<()> {
    let shop = Shop::open("node takeover")?;
    let to = shop.web.address(8080);
    shop.served(to)?;
    let stop = AtomicBool::new(false);
    let served = AtomicU32::new(0);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match shop.client.exchange(to, b"short") {
                    Ok(answer) if answer == b"short" => drop(served.fetch_add(1, Ordering::Relaxed)),
                    other => failed.push(format!("{other:?}")),
                }
            }
            failed
        });
        let taken = (|| {
            for node in [A, B, A, B, A, B] {
                shop.mesh.replace_daemon(node)?.wait(wait::PATIENCE)?;
                let before = served.load(Ordering::Relaxed);
                wait::until_true("the new daemon serves", wait::PATIENCE, || {
                    Ok(served.load(Ordering::Relaxed) >= before + 20)
                })?;
            }
            Ok::<_, anyhow::Error>(())
        })();
        stop.store(true, Ordering::Relaxed);
        let failed = traffic.join().map_err(|_| anyhow!("the traffic stopped by a panic"))?;
        taken?;
        ensure!(failed.is_empty(), "{} failed beside {served:?}: {:?}", failed.len(), failed.first());
        Ok(())
    })
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once_in_every_mode() -> Result<()> {
    let shop = Shop::open("node banner")?;
    let _banner = shop.web.banner(3306, "server speaks first\n")?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let heard = |from: &Pod| -> Result<bool> {
        let started = Instant::now();
        let mut stream = from.connect(shop.web.address(3306))?;
        let mut text = [0; 19];
        stream.read_exact(&mut text)?;
        // A guess at the protocol would have to wait for the client, which says nothing.
        Ok(&text == b"server speaks first" && started.elapsed() < Duration::from_secs(1))
    };
    ensure!(heard(&shop.client)?, "strict: the client waited");
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    wait::until_true("an outsider is heard", wait::PATIENCE, || Ok(heard(&outsider).unwrap_or(false)))?;
    ensure!(heard(&shop.client)?, "permissive: the client waited");
    Ok(())
}

#[test]
fn what_breaks_off_and_what_refuses_looks_as_without_the_mesh() -> Result<()> {
    let shop = Shop::open("node breaks")?;
    shop.served(shop.web.address(8080))?;

    // Nobody listens: the connection is reset at once, not after a timeout.
    let started = Instant::now();
    let answer = shop.client.exchange(shop.web.address(9999), b"anyone?");
    ensure!(answer.is_err() || answer.is_ok_and(|answer| answer.is_empty()), "someone answered on a closed port");
    ensure!(started.elapsed() < Duration::from_secs(2), "a refusal took {:?}", started.elapsed());

    // A client that has sent all still hears the answer.
    let mut half = shop.client.connect(shop.web.address(8080))?;
    half.write_all(b"all of it")?;
    half.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    half.read_to_end(&mut answer)?;
    ensure!(answer == b"all of it", "half-closed: {answer:?}");

    // A large exchange arrives whole, both ways at once.
    let large: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_be_bytes()[3]).collect();
    ensure!(shop.client.exchange(shop.web.address(8080), &large)? == large, "8 MB did not come back whole");
    Ok(())
}

#[test]
fn open_plain_connections_are_judged_again_when_the_mode_changes() -> Result<()> {
    let shop = Shop::open("node judged")?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let to = shop.web.address(8080);
    wait::until_true("plain text is served", wait::PATIENCE, || {
        Ok(outsider.exchange(to, b"plain").is_ok_and(|answer| answer == b"plain"))
    })?;
    let mut open = outsider.connect(to)?;
    open.write_all(b"x")?;
    open.read_exact(&mut [0; 1])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    // The end of the connection, within the deadline of reads.
    let ended = open.read(&mut [0; 1]);
    ensure!(
        ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "the open connection went on: {ended:?}"
    );
    shop.mesh.daemon(A)?.wait_access("the reason", |record| record["reason"] == "mtls_required")?;
    Ok(())
}

#[test]
fn certificates_are_renewed_under_traffic() -> Result<()> {
    let mesh = Mesh::builder("node rotate").daemon_argument("--svid-ttl=4s").build()?;
    mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    let web = mesh.pod("shop/web").on(A).account("web").start()?;
    let client = mesh.pod("shop/client").on(B).account("client").start()?;
    let _echo = web.echo(8080)?;
    let works = || client.exchange(web.address(8080), b"hi").is_ok_and(|answer| answer == b"hi");
    wait::until_true("served", wait::PATIENCE, || Ok(works()))?;
    let until = Instant::now() + Duration::from_secs(9);
    let mut served = 0_u32;
    while Instant::now() < until {
        ensure!(works(), "a connection failed after {served}, while certificates were renewed");
        served += 1;
    }
    ensure!(served > 100, "only {served} connections were made");
    Ok(())
}

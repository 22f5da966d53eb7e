//! How connections end, and what does not end them.

use crate::support::{Shop, both_ways, is_reset, open};
use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Server, traffic, wait};
use socket2::SockRef;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn a_long_connection_outlives_its_daemon_until_the_deadline() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live drain").daemon_argument("--drain-deadline=3s"), "STRICT")?;
    for node in [A, B] {
        let mut long = open(&shop.client, shop.at())?;
        let old = shop.mesh.replace_daemon(node)?;
        let told = Instant::now();
        wait::until_true("most of the time has passed", wait::PATIENCE, || {
            both_ways(&mut long, "while the old daemon drains")?;
            Ok(told.elapsed() > Duration::from_secs(2))
        })?;
        shop.served(&shop.client, shop.at())?;
        is_reset(&mut long)?;
        ensure!(told.elapsed() >= Duration::from_secs(3), "cut after {:?}", told.elapsed());
        let record = old.wait_access("the end, with a reason", |record| record["reason"] == "drained")?;
        ensure!(record["bytes_received"].as_u64() > Some(0), "{record}");
        ensure!(old.wait(wait::PATIENCE)?.success(), "the daemon failed: {}", old.log());
    }
    Ok(())
}

/// Ends a connection as an application does that breaks off.
fn break_off(stream: TcpStream) -> std::io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

#[test]
fn a_reset_reaches_the_other_side_as_a_reset() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live reset"), "PERMISSIVE")?;
    let outsider = shop.outsider()?;
    let (seen, sees) = std::sync::mpsc::channel();
    let _breaks = Server::start(shop.web.ns(), 8081, |mut stream, _| {
        stream.read_exact(&mut [0; 3])?;
        break_off(stream)
    })?;
    let _watches = Server::start(shop.web.ns(), 8082, move |mut stream, _| {
        stream.read_exact(&mut [0; 3])?;
        let _the_test_has_failed = seen.send(stream.read(&mut [0; 1]).map_err(|error| error.kind()));
        Ok(())
    })?;
    for client in [&shop.client, &outsider] {
        let mut stream = client.connect(shop.web.address(8081))?;
        std::io::Write::write_all(&mut stream, b"hey")?;
        is_reset(&mut stream)?;

        let mut stream = client.connect(shop.web.address(8082))?;
        std::io::Write::write_all(&mut stream, b"hey")?;
        break_off(stream)?;
        let end = sees.recv_timeout(wait::PATIENCE)?;
        ensure!(end == Err(std::io::ErrorKind::ConnectionReset), "{}: the server sees {end:?}", client.name());
    }
    Ok(())
}

#[test]
fn an_idle_connection_stays() -> Result<()> {
    let mesh = Mesh::builder("live idle").daemon_argument("--connect-timeout=1s");
    let shop = Shop::open(mesh.daemon_argument("--handshake-timeout=1s"), "PERMISSIVE")?;
    let outsider = shop.outsider()?;
    let _speaks = Server::start(shop.web.ns(), 8081, |stream, _| traffic::banner(stream, "hello"))?;
    let mut connections = [
        open(&shop.client, shop.at())?,
        open(&outsider, shop.at())?,
        // Nobody has spoken on these.
        shop.client.connect(shop.at())?,
        outsider.connect(shop.at())?,
    ];
    let since = Instant::now();
    // Longer than each time-out above, than a hello may take, and than a look at idle wires.
    wait::until_true("seven seconds pass", wait::PATIENCE, || Ok(since.elapsed() > Duration::from_secs(7)))?;
    connections.iter_mut().try_for_each(|stream| both_ways(stream, "after a long rest"))
}

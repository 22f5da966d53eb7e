//! Pods that mean harm.

use crate::support::{Guise, Shop, answers, connect_as, disguised, is_reset_at_once, refused, under_traffic};
use anyhow::{Context, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Pod, wait};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const MARKED: Guise = Guise { marked: true, uncaptured: false, send_buffer: None };

/// As many descriptors as the system allows.
fn raise_limit() -> Result<()> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot have more open files")
}

/// Connections that a thread of the flood holds.
const HELD: usize = 8000;

/// Opens connections that announce the mesh and then say nothing, from `threads` threads; holds the last of each.
fn flood(from: &Pod, to: SocketAddr, count: usize, threads: usize) -> Result<usize> {
    thread::scope(|scope| {
        let floods: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(move || {
                    from.ns().enter(|| {
                        let mut held: Vec<Option<TcpStream>> = (0..HELD).map(|_| None).collect();
                        let mut made = 0;
                        for number in 0..count / threads {
                            let stream = disguised(to, MARKED).ok();
                            made += usize::from(stream.is_some());
                            held[number % HELD] = stream;
                        }
                        Ok(made)
                    })
                })
            })
            .collect();
        floods.into_iter().map(|flood| flood.join().unwrap_or(Ok(0))).sum()
    })
}

#[test]
fn fifty_thousand_silent_connections_harm_nobody_else() -> Result<()> {
    raise_limit()?;
    let shop = Shop::open(Mesh::builder("live flood"), "STRICT")?;
    let other = shop.mesh.pod("shop/other").on(A).account("other").start()?;
    let _echo = other.echo(8080)?;
    shop.served(&shop.client, other.address(8080))?;
    let outsider = shop.outsider()?;
    let a = shop.mesh.daemon(A)?;
    let before = a.memory()?;
    // The pod under attack serves others, too.
    let made = under_traffic(&[(&shop.client, other.address(8080)), (&shop.client, shop.at())], || {
        flood(&outsider, shop.at(), 50_000, 2)
    })?;
    ensure!(made > 40_000, "only {made} connections came about");
    let refused = a.metric("mesh_proxy_refused_total", &[("reason", "handshake_limit")])?;
    ensure!(refused > 20_000.0, "only {refused} were refused");
    let grown = a.memory()?.saturating_sub(before);
    println!("{made} connections, {refused} refused, the daemon grew by {} KiB", grown / 1024);
    ensure!(grown < 64 * MIB, "the daemon grew by {grown} bytes");
    Ok(())
}

#[test]
fn a_hello_byte_by_byte_is_cut_off() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live slow").daemon_argument("--handshake-timeout=2s"), "STRICT")?;
    let outsider = shop.outsider()?;
    // The beginning of a long ClientHello.
    let hello: Vec<u8> = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain([7; 500]).collect();
    let mut slow = connect_as(&outsider, shop.at(), MARKED)?;
    let started = Instant::now();
    let mut bytes = hello.chunks(1);
    wait::until_true("the connection is cut", wait::PATIENCE, || {
        Ok(bytes.next().is_none_or(|byte| slow.write_all(byte).is_err()))
    })?;
    ensure!(started.elapsed() < Duration::from_secs(4), "cut after {:?}", started.elapsed());
    ensure!(started.elapsed() > Duration::from_secs(1), "cut after {:?} already", started.elapsed());
    refused(&*shop.mesh.daemon(A)?, "inbound", "handshake_timeout").map(drop)
}

/// A server that takes connections and never reads, in `pod`.
fn deaf(pod: &Pod, port: u16) -> Result<TcpListener> {
    pod.ns().enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // The less the kernel holds, the sooner the sender is held up.
        socket.set_recv_buffer_size(8 * 1024)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        socket.listen(4096)?;
        Ok(socket.into())
    })
}

/// Sends until every connection is held up; how many bytes went into the fullest.
fn fill(connections: &mut [TcpStream]) -> Result<usize> {
    const LIMIT: usize = 2 * 1024 * 1024;
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = vec![0_usize; connections.len()];
    connections.iter().try_for_each(|stream| stream.set_nonblocking(true))?;
    let mut last = Instant::now();
    wait::until_true("every sender is held up", Duration::from_secs(60), || {
        for (stream, sent) in connections.iter_mut().zip(&mut sent) {
            match stream.write(&chunk) {
                Ok(length) => {
                    *sent += length;
                    last = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("a sender was cut off"),
            }
            ensure!(*sent < LIMIT, "a sender whose reader does not read sent {sent} bytes");
        }
        Ok(last.elapsed() > Duration::from_millis(700))
    })?;
    Ok(sent.into_iter().max().unwrap_or(0))
}

#[test]
fn a_thousand_readers_that_do_not_read_hold_up_their_senders_alone() -> Result<()> {
    const STUCK: usize = 1000;
    raise_limit()?;
    let shop = Shop::open(Mesh::builder("live stuck"), "STRICT")?;
    let other = shop.mesh.pod("shop/other").on(A).account("other").start()?;
    let other_client = shop.mesh.pod("shop/other-client").on(B).account("other").start()?;
    let _echo = other.echo(8080)?;
    let _deaf = deaf(&shop.web, 9000)?;
    // What the kernel may hold for each connection; without a bound it is megabytes.
    for pod in [&shop.web, &shop.client] {
        pod.ns().set_sysctl("net/ipv4/tcp_rmem", "4096 65536 131072")?;
        pod.ns().set_sysctl("net/ipv4/tcp_wmem", "4096 16384 131072")?;
    }
    shop.served(&other_client, other.address(8080))?;
    let daemons = [shop.mesh.daemon(A)?, shop.mesh.daemon(B)?];
    let before = [daemons[0].memory()?, daemons[1].memory()?];
    let guise = Guise { send_buffer: Some(8 * 1024), ..Guise::default() };
    let to = shop.web.address(9000);
    let (fullest, connections) = under_traffic(&[(&other_client, other.address(8080))], || {
        let mut connections = shop
            .client
            .ns()
            .enter(|| Ok((0..STUCK).map(|_| disguised(to, guise)).collect::<Result<Vec<_>, _>>()?))?;
        Ok((fill(&mut connections)?, connections))
    })?;
    for (daemon, before) in daemons.iter().zip(before) {
        let grown = daemon.memory()?.saturating_sub(before);
        println!("the fullest sent {fullest} bytes; the daemon on {:?} grew by {} KiB", daemon.node(), grown / 1024);
        ensure!(grown < 64 * MIB, "the daemon on {:?} grew by {grown} bytes", daemon.node());
    }
    // The very pods that have them are served, too.
    ensure!(answers(&shop.client, shop.at()), "the pod with stuck connections is not served");
    let mut large = vec![0; 1_000_000];
    large.fill(7);
    ensure!(shop.client.exchange(shop.at(), &large)? == large, "a large exchange failed beside stuck ones");
    drop(connections);
    Ok(())
}

#[test]
fn a_stranger_that_floods_a_strict_pod_costs_nothing() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live strangers"), "STRICT")?;
    let outsider = shop.outsider()?;
    // More than the limit of unfinished handshakes: none of these begins one.
    let flood: Vec<_> = (0..700).map(|_| outsider.connect(shop.at())).collect();
    flood.into_iter().try_for_each(is_reset_at_once)?;
    let limited = shop.mesh.daemon(A)?.metric("mesh_proxy_refused_total", &[("reason", "handshake_limit")])?;
    ensure!(limited == 0.0, "{limited} refused for the limit");
    shop.served(&shop.client, shop.at())
}

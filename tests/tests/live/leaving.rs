//! Joining and leaving the mesh while connections are open.

use crate::support::{both_ways, open};
use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Daemon, Mesh, Pod, wait};

const SETTINGS: [&str; 7] = [
    "net/ipv4/tcp_fwmark_accept",
    "net/ipv4/fwmark_reflect",
    "net/ipv6/fwmark_reflect",
    "net/ipv4/conf/lo/accept_local",
    "net/ipv4/conf/lo/rp_filter",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/eth0/rp_filter",
];

/// Rules, routes and settings of a pod, as text.
fn namespace(pod: &Pod) -> Result<String> {
    let mut text = String::new();
    for arguments in ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "address"] {
        text += &pod.ns().run("ip", arguments.split(' '))?;
    }
    for name in SETTINGS {
        text += &format!("{name} = {}\n", pod.ns().sysctl(name)?);
    }
    Ok(text)
}

/// How many of a node's pods are steered.
fn steered(daemon: &Daemon) -> Result<u64> {
    // Counts are small.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    Ok(daemon.metric("mesh_control_pods_in_force", &[])? as u64)
}

fn is_plain(mesh: &Mesh, from: &Pod, to: &Pod, text: &str) -> Result<bool> {
    let wire = mesh.capture(&text.replace(' ', "-"))?;
    let answer = from.exchange(to.address(8080), text.as_bytes());
    let captured = wire.stop()?;
    let plain = answer.as_ref().is_ok_and(|answer| answer == text.as_bytes()) && captured.contains(text.as_bytes());
    if !plain {
        let flows: Vec<_> =
            captured.flows.iter().map(|flow| (flow.client, flow.server, flow.is_tls(), flow.sent.len())).collect();
        println!("{text}: {answer:?}, {flows:?}");
    }
    Ok(plain)
}

#[test]
fn pods_join_and_leave_and_no_open_connection_notices() -> Result<()> {
    let mesh = Mesh::builder("live leaving").build()?;
    mesh.kube().namespace("shop", &[])?;
    let web = mesh.pod("shop/web").on(A).account("web").start()?;
    let client = mesh.pod("shop/client").on(B).account("client").start()?;
    let outsider = mesh.pod("default/outsider").on(B).start()?;
    let _echo = web.echo(8080)?;
    let before = [namespace(&web)?, namespace(&client)?];
    let (a, b) = (mesh.daemon(A)?, mesh.daemon(B)?);
    ensure!(steered(&a)? == 0 && is_plain(&mesh, &client, &web, "plain before")?, "in the mesh unasked");

    // Joining.
    let mut old = open(&client, web.address(8080))?;
    mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    wait::until_true("both pods are steered", wait::PATIENCE, || Ok(steered(&a)? == 1 && steered(&b)? == 1))?;
    both_ways(&mut old, "a connection from before joining")?;
    wait::until_true("new connections are in the mesh", wait::PATIENCE, || {
        drop(open(&client, web.address(8080))?);
        Ok(a.metric("mesh_proxy_connections_total", &[("side", "inbound"), ("security", "mutual_tls")])? >= 1.0)
    })?;
    let mut meshed = open(&client, web.address(8080))?;
    let mut through = open(&outsider, web.address(8080))?;
    ensure!(namespace(&web)? != before[0], "the namespace of a pod in the mesh is as before");

    // The server leaves, the client stays.
    web.set_label("istio.io/dataplane-mode", "none")?;
    wait::until_true("the server has left", wait::PATIENCE, || Ok(steered(&a)? == 0))?;
    wait::until_true("new connections are plain", wait::PATIENCE, || is_plain(&mesh, &client, &web, "plain to it"))?;
    ensure!(is_plain(&mesh, &outsider, &web, "plain from outside")?, "an outsider is not served");
    // The client leaves.
    mesh.kube().namespace("shop", &[])?;
    wait::until_true("the client has left", wait::PATIENCE, || Ok(steered(&b)? == 0))?;
    ensure!(is_plain(&mesh, &client, &web, "plain again")?, "not plain again");
    for (stream, what) in [(&mut old, "from before"), (&mut meshed, "over the mesh"), (&mut through, "from outside")] {
        both_ways(stream, what)?;
    }
    drop((meshed, through));
    for (pod, before) in [(&web, &before[0]), (&client, &before[1])] {
        let mut now = String::new();
        let restored = wait::until_true("the namespace is as before", wait::PATIENCE, || {
            now = namespace(pod)?;
            Ok(now == *before)
        });
        ensure!(restored.is_ok(), "{} was\n{before}\nand is\n{now}", pod.name());
    }
    both_ways(&mut old, "a connection that was there all the time")?;
    for daemon in [a, b] {
        let records = daemon.access_log()?;
        let refused: Vec<_> = records.iter().filter(|record| record["outcome"] == "refused").collect();
        ensure!(refused.iter().all(|record| record["side"] == "outbound"), "{refused:?}");
    }
    Ok(())
}

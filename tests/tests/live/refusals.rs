//! Peers that are refused, each with its reason, by two daemons that are at odds.

use crate::support::{Guise, Shop, Stolen, answers, connect_as, is_reset, is_reset_at_once, open, refused};
use anyhow::{Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Builder, Mesh, wait};
use std::io::Write;
use std::time::{Duration, Instant};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const MARKED: Guise = Guise { marked: true, uncaptured: false, send_buffer: None };

#[test]
fn a_stolen_certificate_is_worth_nothing_elsewhere() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live stolen"), "STRICT")?;
    let stolen = Stolen::take(&shop.mesh, B, CLIENT)?;
    stolen.use_from(&shop.client, shop.at())?;
    let outsider = shop.outsider()?;
    ensure!(stolen.use_from(&outsider, shop.at()).is_err(), "another pod used it");
    let record = refused(&*shop.mesh.daemon(A)?, "inbound", "source_identity")?;
    let detail = record["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains(CLIENT) && detail.contains("ns/default/sa/default"), "{record}");
    Ok(())
}

#[test]
fn an_expired_certificate_is_refused() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live expired").daemon_argument("--svid-ttl=3s"), "STRICT")?;
    let stolen = Stolen::take(&shop.mesh, B, CLIENT)?;
    stolen.use_from(&shop.client, shop.at())?;
    wait::until_true("the certificate expires", wait::PATIENCE, || stolen.has_expired())?;
    ensure!(stolen.use_from(&shop.client, shop.at()).is_err(), "an expired certificate was accepted");
    refused(&*shop.mesh.daemon(A)?, "inbound", "expired_certificate")?;
    shop.served(&shop.client, shop.at())
}

/// Both daemons refuse each other: as the dialler, and as the one that is dialled.
fn strangers(mesh: Builder, domain: &str, reason: &str, alert: &str) -> Result<()> {
    let shop = Shop::begin(mesh.foreign_authority(B), "STRICT")?;
    let (a, b) = (shop.mesh.daemon(A)?, shop.mesh.daemon(B)?);
    wait::until_true("the daemon that dials refuses", wait::PATIENCE, || {
        ensure!(!answers(&shop.client, shop.at()), "a foreign peer was served");
        Ok(b.access_log()?.iter().any(|record| record["reason"] == reason))
    })?;
    refused(&b, "outbound", reason)?;
    refused(&a, "inbound", alert)?;
    let foreign = Stolen::take(&shop.mesh, B, &format!("spiffe://{domain}/ns/shop/sa/client"))?;
    ensure!(foreign.use_from(&shop.client, shop.at()).is_err(), "a foreign certificate was accepted");
    refused(&a, "inbound", reason)?;
    Ok(())
}

#[test]
fn a_foreign_trust_domain_is_refused() -> Result<()> {
    let mesh = Mesh::builder("live domain").daemon_argument_on(B, "--trust-domain=other.example");
    strangers(mesh, "other.example", "foreign_trust_domain", "peer_says_bad_certificate")
}

#[test]
fn a_foreign_authority_of_the_same_name_is_refused() -> Result<()> {
    strangers(Mesh::builder("live authority"), "cluster.local", "untrusted_root", "peer_says_untrusted_root")
}

#[test]
fn a_stranger_is_reset_at_once_and_a_forged_mark_helps_nobody() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live stranger"), "STRICT")?;
    let outsider = shop.outsider()?;
    let a = shop.mesh.daemon(A)?;
    let count = || a.metric("mesh_proxy_refused_total", &[("side", "inbound"), ("reason", "mtls_required")]);

    // A client that says nothing, as that of a server that speaks first, is not kept waiting.
    let started = Instant::now();
    is_reset_at_once(outsider.connect(shop.at()))?;
    ensure!(started.elapsed() < Duration::from_secs(2), "refused after {:?}", started.elapsed());
    refused(&a, "inbound", "mtls_required")?;
    for mode in ["STRICT", "PERMISSIVE"] {
        shop.set_mode(mode)?;
        if mode == "PERMISSIVE" {
            shop.served(&outsider, shop.at())?;
        }
        let before = count()?;
        let mut forged = connect_as(&outsider, shop.at(), MARKED)?;
        forged.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
        // A reset, and no alert before it, which the client could take for an answer.
        is_reset(&mut forged)?;
        wait::until_true("the refusal is counted", wait::PATIENCE, || Ok(count()? > before))?;
    }
    shop.served(&shop.client, shop.at())
}

#[test]
fn a_network_that_removes_the_mark_is_noticed_once_and_harms_nobody() -> Result<()> {
    let shop = Shop::begin(Mesh::builder("live bleached"), "PERMISSIVE")?;
    let rules = "table inet bleach { chain forward { type filter hook forward priority -150; \
                 ip dscp != 0 ip dscp set cs0; ip6 dscp != 0 ip6 dscp set cs0; }; }";
    shop.mesh.node(B).ns().run("nft", [rules])?;
    shop.served(&shop.client, shop.at())?;
    let a = shop.mesh.daemon(A)?;
    let tls = || a.metric("mesh_proxy_connections_total", &[("side", "inbound"), ("security", "mutual_tls")]);
    // Daemons learn of pods in their own time; until then connections are plain.
    wait::until_true("mutual TLS", wait::PATIENCE, || Ok(answers(&shop.client, shop.at()) && tls()? >= 1.0))?;
    for mode in ["PERMISSIVE", "STRICT"] {
        shop.set_mode(mode)?;
        let (wire, before) = (shop.mesh.capture(mode)?, a.metric("mesh_proxy_unmarked_total", &[])?);
        // Connections that are open at once, each of which needs a wire of its own.
        let held: Vec<_> = (0..4).map(|_| open(&shop.client, shop.at())).collect::<Result<_>>()?;
        let captured = wire.stop()?;
        captured.only_tls_on(&[8080])?;
        ensure!(captured.to_port(8080).all(|flow| flow.syn_dscp.is_none_or(|dscp| dscp == 0)), "the mark is there");
        ensure!(a.metric("mesh_proxy_unmarked_total", &[])? >= before + 3.0, "{mode}: unmarked, but not counted");
        drop(held);
        // The wires that are idle now would serve the next mode, too: another daemon has none.
        shop.mesh.replace_daemon(B)?.wait(wait::PATIENCE)?;
    }
    let reports = a.log().lines().filter(|line| line.contains("lacks the mesh's DSCP")).count();
    ensure!(reports == 1, "{reports} reports of one peer");
    Ok(())
}

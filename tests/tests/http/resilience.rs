//! What is done when endpoints fail, come and go.

use crate::support::{Shop, curl};
use anyhow::{Result, ensure};
use mesh_tests::Node::A;
use mesh_tests::{ServiceSpec, wait};
use std::collections::BTreeMap;

#[test]
fn requests_are_spread_and_an_endpoint_that_refuses_is_passed_over() -> Result<()> {
    let shop = Shop::open("http retries", &["web-v1", "web-v2"])?;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..60 {
        *counts.entry(shop.get(80, "/", &[])?.server()?).or_default() += 1;
    }
    ensure!(counts.len() == 2 && counts.values().all(|&count| count > 10), "{counts:?}");
    // A pod whose application does not listen, and which is said to be ready nevertheless.
    let dead = shop.mesh.pod("shop/web-v3").on(A).account("web").label("app", "web").start()?;
    shop.served("/")?;
    for _ in 0..40 {
        let seen = shop.get(80, "/", &[])?;
        ensure!(seen.status == 200, "{seen:?}");
    }
    dead.delete()?;
    // 503 is tried again elsewhere by default, and a body goes along; not what must not be done twice.
    let seen = shop.get(80, "/fails/1/x", &["--request", "PUT", "--data", "kept"])?;
    ensure!(seen.status == 200 && seen.told()?["body"] == "kept", "{seen:?}");
    let seen = shop.get(80, "/fails/1/y", &["--data", "once"])?;
    ensure!(seen.status == 503, "{seen:?}");
    Ok(())
}

#[test]
fn without_endpoints_the_answer_is_503_at_once() -> Result<()> {
    let shop = Shop::open("http nobody", &["web-v1"])?;
    shop.pods[0].0.set_ready(false)?;
    wait::until_true("the answer is 503", wait::PATIENCE, || Ok(shop.get(80, "/", &[])?.status == 503))?;
    let grpc = shop.get(81, "/", &["--http2-prior-knowledge", "-H", "content-type: application/grpc", "--data", ""])?;
    ensure!(grpc.status == 200 && grpc.headers.get("grpc-status").is_some_and(|status| status == "14"), "{grpc:?}");
    Ok(())
}

#[test]
fn a_client_keeps_to_its_endpoint_where_the_service_says_so() -> Result<()> {
    let shop = Shop::open("http affinity", &["web-v1", "web-v2", "web-v3"])?;
    let service = ServiceSpec::new("shop/sticky").selector("app", "web").named("http", 80, 8080).client_affinity();
    let url = format!("http://{}/", shop.mesh.kube().service(service)?.address(80));
    wait::until_true("the service is served", wait::PATIENCE, || {
        Ok(curl(&shop.client, &url, &[]).is_ok_and(|seen| seen.status == 200))
    })?;
    let first = curl(&shop.client, &url, &[])?.server()?;
    for _ in 0..20 {
        let server = curl(&shop.client, &url, &[])?.server()?;
        ensure!(server == first, "{first}, then {server}");
    }
    Ok(())
}

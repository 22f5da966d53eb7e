//! A node that says of a stream what is not so.

use crate::support::{Guise, Shop, Stolen, connect_as};
use anyhow::{Result, ensure};
use mesh_node::proxy::frame::{Control, DATA};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, ServiceSpec, wait};
use serde_json::json;
use std::io::{Read, Write};
use std::net::SocketAddr;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

/// What comes back when a client says that it dialled `original`, and asks for a path.
fn ask(shop: &Shop, stolen: &Stolen, original: SocketAddr, path: &str) -> Result<String> {
    let disguise = Guise { marked: true, uncaptured: true, ..Guise::default() };
    let mut stream = connect_as(&shop.client, shop.web.address(8081), disguise)?;
    let mut tls = stolen.session(shop.web.address(8081).ip())?;
    let mut tls = rustls::Stream::new(&mut tls, &mut stream);
    tls.write_all(&Control::Open(original.into()).encode())?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    tls.write_all(&[&[DATA], request.as_bytes()].concat())?;
    let (mut said, mut bytes) = (String::new(), [0; 4096]);
    // An answer, or an end in whatever way the other node likes.
    while !said.contains("the page") && !said.contains("denied") {
        let Ok(length @ 1..) = tls.read(&mut bytes) else { break };
        said.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    Ok(said)
}

#[test]
fn what_a_client_says_that_it_dialled_gets_it_past_no_policy() -> Result<()> {
    let shop = Shop::open(Mesh::builder("live claims"), "STRICT")?;
    let _page = shop.web.page(8081, "the page")?;
    let kube = shop.mesh.kube();
    let http = kube.service(ServiceSpec::new("shop/http").selector("app", "web").named("http", 80, 8081))?;
    let opaque = kube.service(ServiceSpec::new("shop/opaque").selector("app", "web").named("tcp", 81, 8081))?;
    shop.web.set_label("app", "web")?;
    let stolen = Stolen::take(&shop.mesh, B, CLIENT)?;
    let claims = [http.address(80), opaque.address(81), shop.web.address(8081), "192.0.2.1:1".parse()?];
    wait::until_true("the page is served", wait::PATIENCE, || {
        Ok(ask(&shop, &stolen, opaque.address(81), "/admin")?.contains("the page"))
    })?;
    let paths = json!([{"to": [{"operation": {"paths": ["/admin"]}}]}]);
    kube.authorization_policy("shop/no-admin", json!({"action": "DENY", "rules": paths}))?;
    wait::until_true("the path is denied", wait::PATIENCE, || {
        Ok(!ask(&shop, &stolen, http.address(80), "/admin")?.contains("the page"))
    })?;
    for original in claims {
        let denied = ask(&shop, &stolen, original, "/admin")?;
        ensure!(!denied.contains("the page"), "who said {original} was let in: {denied}");
        let allowed = ask(&shop, &stolen, original, "/public")?;
        ensure!(allowed.contains("the page"), "who said {original} was not let in: {allowed}");
    }
    let detail = shop.mesh.daemon(A)?.wait_access("the denial", |record| record["reason"] == "policy_denied")?;
    ensure!(detail["detail"].to_string().contains("AuthorizationPolicy shop/no-admin"), "{detail}");
    Ok(())
}

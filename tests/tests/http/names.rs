//! Server names that applications ask for in TLS of their own, and what policies make of them.

use crate::policy::{answers, is_reset};
use crate::support::{Shop, curl};
use anyhow::{Context, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Certificate, Mesh, Pod, Process, Server, ServiceSpec, env, feed, traffic, wait};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A server of TLS on port 8443 of the pod, which tells each client its name and what was asked for.
pub(crate) fn secure(pod: &Pod, mesh: &Mesh, name: &str) -> Result<Process> {
    let certificate = Certificate::alone(mesh.node(A).dir(), name, "subjectAltName=DNS:*.example")?;
    let mut command = pod.command(env::built("httpecho")?);
    command.args(["--name", name, "--listen", "[::]:8443"]);
    command.arg("--certificate").arg(certificate.certificate).arg("--key").arg(certificate.key);
    let server = pod.spawn(&mut command, name)?;
    wait::until_true("the server listens", wait::PATIENCE, || Ok(pod.connect(pod.address(8443)).is_ok()))?;
    Ok(server)
}

/// What a server of TLS tells, asked by curl for `name` at `to`; `None` if the connection fails.
pub(crate) fn seen(from: &Pod, name: &str, to: SocketAddr) -> Option<Value> {
    let resolve = format!("{name}:{}:{}", to.port(), to.ip());
    let url = format!("https://{name}:{}/", to.port());
    curl(from, &url, &["--insecure", "--resolve", &resolve]).ok()?.told().ok()
}

/// Does openssl's client agree with a server of TLS, with such arguments?
pub(crate) fn agrees(from: &Pod, to: SocketAddr, arguments: &[&str]) -> Result<bool> {
    let mut openssl = from.command("openssl");
    openssl.args(["s_client", "-brief", "-connect", &to.to_string()]).args(arguments);
    Ok(feed(&mut openssl, b"", wait::PATIENCE)?.status.success())
}

/// With what a client begins that asks for `name`.
fn hello(name: &str) -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut client = rustls::ClientConnection::new(config.into(), name.to_owned().try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// A rule about names.
fn named(names: Value) -> Value {
    json!({"when": [{"key": "connection.sni", "values": names}]})
}

#[test]
fn clients_are_told_apart_by_the_server_name_that_they_ask_for() -> Result<()> {
    let shop = Shop::open("names allowed", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let web = &shop.pods[0].0;
    let _secure = secure(web, &shop.mesh, "secure")?;
    let spec = ServiceSpec::new("shop/secure").selector("app", "web").named("https", 443, 8443);
    let service = shop.mesh.kube().service(spec)?.address(443);
    let near = shop.mesh.pod("shop/near").on(A).start()?;
    let stranger = shop.mesh.pod("default/stranger").on(B).start()?;
    let pages = json!({"to": [{"operation": {"ports": ["8080"]}}]});
    shop.policy("names", json!({"rules": [named(json!(["*.example", "Shop.test"])), pages]}))?;
    wait::until_true("another name is refused", wait::PATIENCE, || {
        Ok(seen(&shop.client, "a.example", service).is_some() && seen(&shop.client, "other.test", service).is_none())
    })?;
    for (from, to) in [
        (&shop.client, service),
        (&shop.client, web.address(8443)),
        (&near, service),
        (&stranger, web.address(8443)),
        (&stranger, web.address6(8443)),
    ] {
        let who = format!("{} to {to}", from.name());
        for (name, is_allowed) in [("a.example", true), ("shop.test", true), ("example", false), ("b.test", false)] {
            let told = seen(from, name, to).map(|told| told["sni"].clone());
            ensure!(told == is_allowed.then(|| json!(name)), "{who} asks for {name}: {told:?}");
        }
        ensure!(agrees(from, to, &["-servername", "B.example"])?, "{who}: openssl asks for a name in capitals");
        ensure!(!agrees(from, to, &["-servername", "b.test"])?, "{who}: openssl asks for another name");
        ensure!(!agrees(from, to, &["-noservername"])?, "{who}: openssl asks for none");
        ensure!(agrees(from, to, &["-tls1_2", "-servername", "b.example"])?, "{who}: by TLS 1.2");
        ensure!(!answers(from, to), "{who} speaks no TLS");
    }
    let record = shop.mesh.daemon(A)?.wait_access("the denial is recorded", |record| {
        record["side"] == "inbound" && record["reason"] == "policy_denied"
    })?;
    ensure!(
        record["detail"].as_str().is_some_and(|detail| detail.contains("AuthorizationPolicy shop/names")),
        "{record}"
    );
    // Another port of the pod is not asked for names.
    shop.served("/")
}

#[test]
fn nothing_reaches_an_application_before_the_server_name_is_known() -> Result<()> {
    let shop = Shop::open("names first", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let (web, stranger) = (&shop.pods[0].0, shop.mesh.pod("default/stranger").on(B).start()?);
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&heard);
    let _listening = Server::start(web.ns(), 9000, move |mut stream, _| {
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            counter.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&byte)?;
        }
        Ok(())
    })?;
    let _greeting = web.banner(9001, "220 ready\n")?;
    shop.policy("names", json!({"action": "DENY", "rules": [named(json!(["secret.example"]))]}))?;
    let (secret, open) = (hello("secret.example")?, hello("open.example")?);
    let to = web.address(9000);
    wait::until_true("a name is denied", wait::PATIENCE, || Ok(shop.client.exchange(to, &secret).is_err()))?;
    for from in [&shop.client, &stranger] {
        let who = from.name();
        heard.store(0, Ordering::SeqCst);
        let mut denied = from.connect(to)?;
        for part in secret.chunks(60) {
            // Another connection takes its time, so that the parts arrive one by one.
            denied.write_all(part)?;
            let text = from.exchange(web.address(9001), b"hello")?;
            ensure!(text == b"220 ready\nhello", "{who}: {}", String::from_utf8_lossy(&text));
            ensure!(heard.load(Ordering::SeqCst) == 0, "{who}: something passed before the name was known");
        }
        is_reset(&mut denied).with_context(|| format!("{who}: a name that is denied, in parts"))?;
        ensure!(heard.load(Ordering::SeqCst) == 0, "{who}: something passed");

        let mut allowed = from.connect(to)?;
        for part in open.chunks(60) {
            allowed.write_all(part)?;
            from.exchange(web.address(9001), b"hello")?;
        }
        let back = traffic::read_exactly(&mut allowed, open.len())?;
        ensure!(back == open, "{who}: it came in another form");
        ensure!(answers(from, to), "{who}: what is no TLS asks for no name");

        // Whoever does not finish has a name that nobody knows, in time.
        let mut silent = from.connect(to)?;
        let since = Instant::now();
        silent.write_all(&open[..40])?;
        is_reset(&mut silent).with_context(|| format!("{who}: half a ClientHello"))?;
        ensure!(since.elapsed() < wait::PATIENCE, "{who}: after {:?}", since.elapsed());
    }
    Ok(())
}

#[test]
fn an_open_connection_is_judged_again_by_the_name_that_it_asked_for() -> Result<()> {
    let shop = Shop::open("names again", &["web-v1"])?;
    let (web, to) = (&shop.pods[0].0, shop.pods[0].0.address(9000));
    let _echo = web.echo(9000)?;
    let deny = |names: Value| shop.policy("names", json!({"action": "DENY", "rules": [named(names)]}));
    deny(json!(["a.example"]))?;
    let of = |name: &str| hello(name);
    wait::until_true("a name is denied", wait::PATIENCE, || Ok(shop.client.exchange(to, &of("a.example")?).is_err()))?;
    let open = |name: &str| -> Result<_> {
        let mut stream = shop.client.connect(to)?;
        stream.write_all(&of(name)?)?;
        traffic::read_exactly(&mut stream, of(name)?.len())?;
        Ok(stream)
    };
    let (mut denied, mut allowed) = (open("b.example")?, open("c.example")?);
    deny(json!(["a.example", "b.example"]))?;
    is_reset(&mut denied).context("its name is denied now")?;
    allowed.write_all(b"ping")?;
    ensure!(traffic::read_exactly(&mut allowed, 4)? == b"ping", "another name");
    Ok(())
}

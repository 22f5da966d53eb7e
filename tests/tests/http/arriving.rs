//! What the server's node sees of requests, and what it leaves as it was.

use crate::support::{Shop, curl};
use anyhow::{Result, anyhow, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::wait;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

impl Shop {
    /// Requests that the server's node counted with these labels.
    fn arrived(&self, labels: &[(&str, &str)]) -> Result<f64> {
        let labels = [&[("reporter", "destination")], labels].concat();
        self.mesh.daemon(A)?.metric("istio_requests_total", &labels)
    }
}

#[test]
fn requests_are_counted_and_recorded_where_they_arrive() -> Result<()> {
    let shop = Shop::open("http arriving", &["web-v1"])?;
    let seen = shop.get(80, "/status/418", &[])?;
    ensure!(seen.status == 418, "{seen:?}");
    let mesh = [
        ("response_code", "418"),
        ("source_workload", "client"),
        ("destination_workload", "web-v1"),
        ("destination_service", "web.shop.svc.cluster.local"),
        ("connection_security_policy", "mutual_tls"),
    ];
    ensure!(shop.arrived(&mesh)? == 1.0, "{}", shop.mesh.daemon(A)?.metrics()?);
    let recorded = shop.mesh.daemon(A)?.wait_access("the request is recorded", |record| {
        record["side"] == "inbound" && record["response_code"] == 418
    })?;
    ensure!(recorded["path"] == "/status/418" && recorded["method"] == "GET", "{recorded}");

    // A pod's own address is looked at as well, and so is plain text where it is taken.
    let direct = format!("http://{}/status/419", shop.pods[0].0.address(8080));
    ensure!(curl(&shop.client, &direct, &[])?.status == 419, "by the pod's address");
    ensure!(shop.arrived(&[("response_code", "419")])? == 1.0, "a pod's address: not counted");
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let plain = format!("http://{}/status/420", shop.pods[0].0.address(8080));
    wait::until_true("an outsider is answered", wait::PATIENCE, || {
        Ok(curl(&outsider, &plain, &[]).is_ok_and(|seen| seen.status == 420))
    })?;
    let labels = [("response_code", "420"), ("connection_security_policy", "none")];
    ensure!(shop.arrived(&labels)? >= 1.0, "plain text: not counted");
    Ok(())
}

#[test]
fn a_client_of_http_1_0_names_no_host_and_is_answered() -> Result<()> {
    let shop = Shop::open("http old", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    wait::until_true("an old client is answered", wait::PATIENCE, || {
        let asked = || -> Result<String> {
            let mut stream = outsider.connect(shop.pods[0].0.address(8080))?;
            stream.write_all(b"GET /old HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        Ok(asked().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200") && answer.contains("\"/old\"")))
    })
}

#[test]
fn a_daemon_that_goes_fails_no_request_on_kept_connections() -> Result<()> {
    let shop = Shop::open("http takeover", &["web-v1", "web-v2"])?;
    let (stop, served) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let client = |version: &'static str, port: u16| {
            let (shop, stop, served) = (&shop, &stop, &served);
            scope.spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match shop.get(port, "/", &[version, "--data", "once"]) {
                        Ok(seen) if seen.status == 200 => drop(served.fetch_add(1, Ordering::Relaxed)),
                        other => failed.push(format!("{version} {other:?}")),
                    }
                }
                failed
            })
        };
        let clients = [client("--http1.1", 80), client("--http2-prior-knowledge", 81)];
        let taken = (|| {
            for _ in 0..3 {
                let old = shop.mesh.daemon(A)?;
                let next = shop.mesh.start_daemon(A)?;
                next.ready()?;
                shop.mesh.set_daemon(next);
                old.terminate()?;
                old.wait(wait::PATIENCE)?;
                let before = served.load(Ordering::Relaxed);
                wait::until_true("the new daemon serves", wait::PATIENCE, || {
                    Ok(served.load(Ordering::Relaxed) >= before + 40)
                })?;
            }
            Ok::<_, anyhow::Error>(())
        })();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let failed = client.join().map_err(|_| anyhow!("a client stopped by a panic"))?;
            ensure!(failed.is_empty(), "{} failed beside {served:?}: {:?}", failed.len(), failed.first());
        }
        taken
    })
}

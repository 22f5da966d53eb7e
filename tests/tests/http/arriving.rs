//! What the server's node sees of requests, and what it leaves as it was.

use crate::support::{Shop, answer, curl, multiplexed};
use anyhow::{Context as _, Result, anyhow, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::wait;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

/// So often is the daemon of the server's node replaced: what meets its end must come at the very moment.
const REPLACEMENTS: usize = 15;

impl Shop {
    /// Waits until the server's node has counted a request with these labels; how many it has by then.
    fn arrived(&self, labels: &[(&str, &str)]) -> Result<f64> {
        let labels = [&[("reporter", "destination")], labels].concat();
        self.mesh.daemon(A)?.wait_metric("istio_requests_total", &labels, 1.0)
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
    shop.arrived(&mesh)?;
    let recorded = shop.mesh.daemon(A)?.wait_access("the request is recorded", |record| {
        record["side"] == "inbound" && record["response_code"] == 418
    })?;
    ensure!(recorded["path"] == "/status/418" && recorded["method"] == "GET", "{recorded}");
    ensure!(shop.arrived(&mesh)? == 1.0, "counted more than once");

    // A pod's own address is looked at as well, and so is plain text where it is taken.
    let direct = format!("http://{}/status/419", shop.pods[0].0.address(8080));
    ensure!(curl(&shop.client, &direct, &[])?.status == 419, "by the pod's address");
    shop.arrived(&[("response_code", "419")])?;
    shop.mesh.daemon(A)?.wait_access("the request to a pod's address is recorded", |record| {
        record["side"] == "inbound" && record["response_code"] == 419
    })?;
    ensure!(shop.arrived(&[("response_code", "419")])? == 1.0, "a pod's address: counted more than once");
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let plain = format!("http://{}/status/420", shop.pods[0].0.address(8080));
    wait::until_true("an outsider is answered", wait::PATIENCE, || {
        Ok(curl(&outsider, &plain, &[]).is_ok_and(|seen| seen.status == 420))
    })?;
    shop.arrived(&[("response_code", "420"), ("connection_security_policy", "none")]).map(drop)
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
fn requests_that_come_at_once_share_one_connection_to_the_application() -> Result<()> {
    let shop = Shop::open("http at once", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let outsider = shop.mesh.pod("default/outsider").on(B).start()?;
    let address = shop.pods[0].0.address(8080);
    wait::until_true("an outsider is answered", wait::PATIENCE, || {
        Ok(curl(&outsider, &format!("http://{address}/"), &[]).is_ok_and(|seen| seen.status == 200))
    })?;
    for _ in 0..10 {
        // The last goes alone: whoever makes two connections closes one, and the client's with it.
        let statuses = multiplexed(outsider.connect(address)?, &[8, 1])?;
        ensure!(statuses == [200; 9], "{statuses:?}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_goes_fails_no_request_on_kept_connections() -> Result<()> {
    let shop = Shop::open("http takeover", &["web-v1", "web-v2"])?;
    let (stop, served) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let kept = |number: usize| {
            let (shop, stop, served) = (&shop, &stop, &served);
            scope.spawn(move || -> Result<()> {
                let mut stream = shop.client.connect(shop.web.address(80))?;
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nonce")?;
                    let seen = answer(&mut stream).with_context(|| format!("client {number}"))?;
                    ensure!(seen.status == 200, "client {number}: {seen:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let anew = |version: &'static str, port: u16| {
            let (shop, stop, served) = (&shop, &stop, &served);
            scope.spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    let seen = shop.get(port, "/", &[version, "--data", "once"]).context(version)?;
                    ensure!(seen.status == 200, "{version}: {seen:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let mut clients: Vec<_> = (0..4).map(kept).collect();
        clients.extend([anew("--http1.1", 80), anew("--http2-prior-knowledge", 81)]);
        let taken = (|| {
            for _ in 0..REPLACEMENTS {
                shop.mesh.replace_daemon(A)?.wait(wait::PATIENCE)?;
                let before = served.load(Ordering::Relaxed);
                wait::until_true("the new daemon serves", wait::PATIENCE, || {
                    Ok(served.load(Ordering::Relaxed) >= before + 40)
                })?;
            }
            Ok::<_, anyhow::Error>(())
        })();
        stop.store(true, Ordering::Relaxed);
        let failed: Vec<_> = clients
            .into_iter()
            .filter_map(|client| client.join().unwrap_or_else(|_| Err(anyhow!("a client stopped by a panic"))).err())
            .collect();
        ensure!(failed.is_empty(), "{} clients failed beside {served:?} requests: {failed:?}", failed.len());
        taken
    })
}

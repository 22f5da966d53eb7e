//! Hosts outside the cluster: requests and connections to them, and the TLS that the mesh speaks for applications.

use crate::support::{Seen, curl};
use anyhow::{Result, ensure};
use mesh_tests::Node::B;
use mesh_tests::{Mesh, Outside, Pod, Process, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;

const HOST: &str = "www.googleapis.com";

/// A client in the mesh, and a world outside.
struct Abroad {
    client: Pod,
    outside: Outside,
    mesh: Mesh,
}

impl Abroad {
    /// Daemons trust the authority `public` beside the system's.
    fn open(name: &str) -> Result<Self> {
        // The file is there once the world outside is; daemons read it when they need it first.
        let roots = std::env::temp_dir().join(format!("mesh-outside-{}.pem", std::process::id()));
        let mesh =
            Mesh::builder(name).own_names().daemon_argument(&format!("--outside-roots={}", roots.display())).build()?;
        let outside = mesh.outside()?;
        std::fs::copy(outside.authority("public")?, &roots)?;
        mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
        let client = mesh.pod("shop/client").on(B).account("client").start()?;
        Ok(Self { client, outside, mesh })
    }

    /// What the client's curl gets from `host` if that name leads to `number` for it.
    fn get(&self, host: &str, (number, port): (u8, u16), arguments: &[&str]) -> Result<Seen> {
        let address = Outside::address(number, port).ip();
        let connect = format!("{host}:{port}:{address}");
        curl(&self.client, &format!("http://{host}:{port}/"), &[&["--resolve", &connect], arguments].concat())
    }

    /// Waits until the client's request to `host` is answered with `status`.
    fn answered(&self, host: &str, to: (u8, u16), status: u16) -> Result<Seen> {
        wait::until(&format!("{host} answers {status}"), wait::PATIENCE, || {
            Ok(self.get(host, to, &[]).ok().filter(|seen| seen.status == status))
        })
    }

    /// Waits for a request's record that names this reason for its refusal.
    fn refused(&self, reason: &str) -> Result<Value> {
        self.mesh.daemon(B)?.wait_access(reason, |record| record["reason"] == reason)
    }
}

fn istio(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
}

/// A host with endpoints at these numbers of the world outside, on port 80, which lead to port 8080 there.
fn fixed(host: &str, numbers: &[u8]) -> Value {
    let endpoints: Vec<_> =
        numbers.iter().map(|number| json!({"address": Outside::address(*number, 0).ip().to_string()})).collect();
    istio(
        "ServiceEntry",
        "fixed",
        json!({
            "hosts": [host],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}],
            "endpoints": endpoints,
        }),
    )
}

#[test]
fn requests_go_to_the_endpoints_of_a_host_outside_and_follow_its_routes() -> Result<()> {
    let abroad = Abroad::open("http outside static")?;
    let _one = abroad.outside.http("one", Outside::address(10, 8080), None)?;
    let _two = abroad.outside.http("two", Outside::address(11, 8080), None)?;
    let kube = abroad.mesh.kube();
    kube.apply(fixed("api.example.com", &[10, 11]))?;
    // The address that the client finds for the name is of no matter: there is nobody.
    abroad.answered("api.example.com", (12, 80), 200)?;
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..40 {
        *servers.entry(abroad.get("api.example.com", (12, 80), &[])?.server()?).or_default() += 1;
    }
    ensure!(servers.len() == 2 && servers.values().all(|count| *count >= 5), "{servers:?}");
    let labels =
        [("destination_service", "api.example.com"), ("reporter", "source"), ("connection_security_policy", "none")];
    abroad.mesh.daemon(B)?.wait_metric("istio_requests_total", &labels, 41.0)?;

    let rules = json!([
        {"match": [{"uri": {"prefix": "/moved"}}], "redirect": {"uri": "/there"}},
        {"headers": {"request": {"set": {"x-egress": "1"}}}, "timeout": "5s", "route": [{"destination": {"host": "api.example.com"}}]},
    ]);
    kube.apply(istio("VirtualService", "api", json!({"hosts": ["api.example.com"], "http": rules})))?;
    wait::until_true("the route holds", wait::PATIENCE, || {
        Ok(abroad.get("api.example.com", (12, 80), &[])?.told()?["headers"]["x-egress"] == json!(["1"]))
    })?;
    // Other hosts go where the client dials.
    let other = abroad.get("other.example.com", (10, 8080), &[])?;
    ensure!(other.server()? == "one", "{other:?}");
    Ok(())
}

#[test]
fn names_of_hosts_outside_are_looked_up_by_the_daemon() -> Result<()> {
    let abroad = Abroad::open("http outside dns")?;
    let _one = abroad.outside.http("one", Outside::address(10, 80), None)?;
    let _two = abroad.outside.http("two", Outside::address(11, 80), None)?;
    let _echo = mesh_tests::Server::start_on(abroad.outside.ns(), Outside::address(11, 7000), |stream, _| {
        mesh_tests::traffic::banner(stream, "outside\n")
    })?;
    abroad.mesh.name(&[("api.example.com", Outside::address(10, 0).ip())])?;
    let ports = json!([
        {"number": 80, "name": "http", "protocol": "HTTP"},
        {"number": 7000, "name": "tcp", "protocol": "TCP"},
    ]);
    let spec = json!({"hosts": ["api.example.com"], "addresses": ["240.0.0.9"], "resolution": "DNS", "ports": ports});
    abroad.mesh.kube().apply(istio("ServiceEntry", "api", spec))?;
    ensure!(abroad.answered("api.example.com", (12, 80), 200)?.server()? == "one", "where the name leads");
    // A name that leads elsewhere is followed; one that leads nowhere for a while stays.
    abroad.mesh.name(&[("api.example.com", Outside::address(11, 0).ip())])?;
    wait::until_true("the name is followed", wait::PATIENCE, || {
        Ok(abroad.get("api.example.com", (12, 80), &[])?.server()? == "two")
    })?;
    // So are connections to the address that the host has for the mesh alone.
    let text = abroad.client.exchange("240.0.0.9:7000".parse()?, b"hello")?;
    ensure!(text == b"outside\nhello", "{}", String::from_utf8_lossy(&text));
    Ok(())
}

#[test]
fn the_mesh_speaks_tls_for_an_application_that_asks_for_plain_text() -> Result<()> {
    let abroad = Abroad::open("http outside tls")?;
    let kube = abroad.mesh.kube();
    let certificate = abroad.outside.certificate("public", "google", &format!("DNS:{HOST}"))?;
    let _server = abroad.outside.http("google", Outside::address(10, 443), Some(&certificate))?;
    abroad.mesh.name(&[(HOST, Outside::address(10, 0).ip())])?;
    // Istio's own example, `samples/bookinfo/networking/egress-rule-google-apis.yaml`.
    let ports = json!([
        {"number": 80, "name": "http", "protocol": "HTTP"},
        {"number": 443, "name": "https", "protocol": "HTTPS"},
    ]);
    kube.apply(istio("ServiceEntry", "googleapis", json!({"hosts": [HOST], "ports": ports, "resolution": "DNS"})))?;
    let route = json!([{"match": [{"port": 80}], "route": [{"destination": {"host": HOST, "port": {"number": 443}}}]}]);
    kube.apply(istio("VirtualService", "rewrite-port", json!({"hosts": [HOST], "http": route})))?;
    let originate = |tls: Value| {
        istio(
            "DestinationRule",
            "originate-tls",
            json!({"host": HOST, "trafficPolicy": {
                "loadBalancer": {"simple": "ROUND_ROBIN"},
                "portLevelSettings": [{"port": {"number": 443}, "tls": tls}],
            }}),
        )
    };
    kube.apply(originate(json!({"mode": "SIMPLE"})))?;
    let seen = abroad.answered(HOST, (12, 80), 200)?.told()?;
    ensure!(seen["sni"] == HOST && seen["host"] == HOST && seen["version"] == "HTTP/1.1", "{seen}");
    let second = abroad.get(HOST, (12, 80), &["--http2-prior-knowledge"])?.told()?;
    ensure!(second["version"] == "HTTP/2.0" && second["sni"] == HOST, "{second}");
    let labels = [("destination_service", HOST), ("connection_security_policy", "tls")];
    abroad.mesh.daemon(B)?.wait_metric("istio_requests_total", &labels, 2.0)?;

    // Another name is asked for, and the certificate does not prove it.
    kube.apply(originate(json!({"mode": "SIMPLE", "sni": "other.example.com"})))?;
    abroad.answered(HOST, (12, 80), 503)?;
    let record = abroad.refused("upstream_certificate")?;
    ensure!(record.to_string().contains("other.example.com"), "{record}");
    // It need not, if the policy says which names will do.
    kube.apply(originate(
        json!({"mode": "SIMPLE", "sni": "other.example.com", "subjectAltNames": ["a.example", HOST]}),
    ))?;
    ensure!(abroad.answered(HOST, (12, 80), 200)?.told()?["sni"] == "other.example.com", "the name to ask for");
    kube.apply(originate(json!({"mode": "SIMPLE", "subjectAltNames": ["a.example"]})))?;
    abroad.answered(HOST, (12, 80), 503)?;

    // Other roots, in a file that is another later on.
    let roots = abroad.outside.dir().join("roots.pem");
    std::fs::copy(abroad.outside.authority("private")?, &roots)?;
    let with_roots = json!({"mode": "SIMPLE", "caCertificates": roots, "subjectAltNames": [HOST]});
    kube.apply(originate(with_roots.clone()))?;
    wait::until_true("the certificate of another authority is refused", wait::PATIENCE, || {
        let log = abroad.mesh.daemon(B)?.access_log()?;
        Ok(abroad.get(HOST, (12, 80), &[])?.status == 503
            && log.iter().any(|record| record.to_string().contains("UnknownIssuer")))
    })?;
    std::fs::copy(abroad.outside.dir().join("public.pem"), &roots)?;
    abroad.answered(HOST, (12, 80), 200)?;
    std::fs::remove_file(&roots)?;
    kube.apply(originate(json!({"mode": "SIMPLE", "caCertificates": roots, "sni": "anything.example"})))?;
    abroad.answered(HOST, (12, 80), 503)?;
    ensure!(abroad.refused("no_roots")?.to_string().contains("roots.pem"), "the file is named");
    kube.apply(originate(json!({"mode": "SIMPLE", "sni": "anything.example", "insecureSkipVerify": true})))?;
    abroad.answered(HOST, (12, 80), 200)?;

    // A server that speaks no TLS is told nothing in plain text.
    kube.apply(originate(json!({"mode": "SIMPLE", "sni": "plain.example"})))?;
    let _plain = abroad.outside.http("plain", Outside::address(11, 443), None)?;
    abroad.mesh.name(&[(HOST, Outside::address(11, 0).ip())])?;
    wait::until_true("a server without TLS is refused", wait::PATIENCE, || {
        let status = abroad.get(HOST, (12, 80), &[])?.status;
        let log = abroad.mesh.daemon(B)?.access_log()?;
        Ok(status == 503 && log.iter().any(|record| record["reason"] == "upstream_tls"))
    })?;
    Ok(())
}

#[test]
fn connections_that_are_no_http_are_put_under_tls_too() -> Result<()> {
    let abroad = Abroad::open("http outside tls tcp")?;
    let certificate = abroad.outside.certificate("public", "db", "DNS:db.example.com")?;
    let mut servers = Vec::new();
    for (port, version) in [("5000", "-tls1_2"), ("5001", "-tls1_3")] {
        let mut openssl = abroad.outside.ns().command("openssl");
        openssl.args(["s_server", "-quiet", "-rev", "-accept", port, version]);
        openssl.arg("-cert").arg(&certificate.certificate).arg("-key").arg(&certificate.key);
        servers.push(Process::start(&mut openssl, &abroad.outside.dir().join(format!("openssl{version}.log")))?);
    }
    let ports = json!([
        {"number": 5000, "name": "tcp-a", "protocol": "TCP"},
        {"number": 5001, "name": "tcp-b", "protocol": "TCP"},
    ]);
    abroad.mesh.kube().apply(istio(
        "ServiceEntry",
        "db",
        json!({
            "hosts": ["db.example.com"],
            "addresses": ["240.0.0.9"],
            "resolution": "STATIC",
            "ports": ports,
            "endpoints": [{"address": Outside::address(10, 0).ip().to_string()}],
        }),
    ))?;
    let rule =
        |tls: Value| istio("DestinationRule", "db", json!({"host": "db.example.com", "trafficPolicy": {"tls": tls}}));
    abroad.mesh.kube().apply(rule(json!({"mode": "SIMPLE"})))?;
    let ask = |port: u16| -> Result<String> {
        let mut stream = abroad.client.connect(SocketAddr::new("240.0.0.9".parse()?, port))?;
        stream.write_all(b"drawer\n")?;
        Ok(String::from_utf8(mesh_tests::traffic::read_exactly(&mut stream, 7)?)?)
    };
    for port in [5000, 5001] {
        wait::until_true(&format!("port {port} answers under TLS"), wait::PATIENCE, || {
            Ok(ask(port).is_ok_and(|answer| answer == "reward\n"))
        })?;
    }
    let record = abroad.mesh.daemon(B)?.wait_access("a connection that was served", |record| {
        record["upstream_address"] == "203.0.113.10:5000" && record["outcome"] == "closed"
    })?;
    ensure!(record["connection_security_policy"] == "tls", "{record}");
    // What a server proves that is not asked for ends the connection: the application sees a reset, and no byte of it leaves.
    abroad.mesh.kube().apply(rule(json!({"mode": "SIMPLE", "sni": "other.example.com"})))?;
    wait::until_true("another name is refused", wait::PATIENCE, || Ok(ask(5000).is_err()))?;
    abroad.refused("upstream_certificate")?;
    Ok(())
}

//! What enters through gateways, at every node's address.

use crate::support::{Seen, Shop, answer};
use anyhow::{Result, ensure};
use mesh_tests::Node::{self, A, B};
use mesh_tests::{Certificate, Mesh, traffic, wait};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

impl Shop {
    /// What curl on one node gets at a port of the other's address.
    fn enter(&self, at: Node, port: u16, arguments: &[&str]) -> Result<Seen> {
        let scheme = if arguments.contains(&"--insecure") { "https" } else { "http" };
        let url = format!("{scheme}://{}:{port}/page", at.addresses()[0]);
        self.enter_by(at, &url, arguments)
    }

    fn enter_by(&self, at: Node, url: &str, arguments: &[&str]) -> Result<Seen> {
        self.mesh.node(at.other()).ns().ask(url, arguments)
    }

    /// A connection from one node to a port of the other's address.
    fn dial(&self, at: Node, port: u16) -> Result<TcpStream> {
        let to = SocketAddr::new(at.addresses()[0], port);
        traffic::connect(self.mesh.node(at.other()).ns(), to, wait::PATIENCE)
    }

    fn entered(&self, at: Node, port: u16, arguments: &[&str]) -> Result<()> {
        wait::until_true(&format!("port {port} is entered"), wait::PATIENCE, || {
            Ok(self.enter(at, port, arguments).is_ok_and(|seen| seen.status == 200))
        })
    }
}

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "istio"},
        "spec": {"controllerName": "mesh.internal/controller"},
    })
}

fn gateway(listeners: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "front", "namespace": "shop"},
        "spec": {"gatewayClassName": "istio", "listeners": listeners},
    })
}

fn route(hostnames: &[&str]) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "page", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": "front"}],
            "hostnames": hostnames,
            "rules": [{
                "matches": [{"path": {"type": "Exact", "value": "/page"}}],
                "backendRefs": [{"name": "web", "port": 80}],
            }],
        },
    })
}

#[test]
fn a_gateway_of_either_api_serves_at_every_node_over_mutual_tls() -> Result<()> {
    let shop = Shop::open("http edge", &["web-v1"])?;
    let kube = shop.mesh.kube();
    kube.apply(class())?;
    kube.apply(gateway(&json!([{"name": "http", "port": 8081, "protocol": "HTTP"}])))?;
    kube.apply(route(&[]))?;
    for node in [A, B] {
        shop.entered(node, 8081, &[])?;
        let told = shop.enter(node, 8081, &["-H", "x-forwarded-for: 192.0.2.7"])?.told()?;
        let client = node.other().addresses()[0].to_string();
        let [forwarded] = &told["headers"]["x-forwarded-for"].as_array().cloned().unwrap_or_default()[..] else {
            anyhow::bail!("{told}");
        };
        ensure!(*forwarded == json!(format!("192.0.2.7, {client}")), "{told}");
        ensure!(told["headers"]["x-forwarded-proto"] == json!(["http"]), "{told}");
        ensure!(
            shop.enter_by(node, &format!("http://{}:8081/other", node.addresses()[0]), &[])?.status == 404,
            "other"
        );
    }
    // The pods are strict, so that whoever enters comes as the mesh.
    let arrived =
        [("reporter", "destination"), ("source_workload", "mesh-node"), ("connection_security_policy", "mutual_tls")];
    shop.mesh.daemon(A)?.wait_metric("istio_requests_total", &arrived, 2.0)?;

    let istio = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    kube.apply(istio(
        "Gateway",
        "door",
        json!({
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 8082, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
        }),
    ))?;
    kube.apply(istio("VirtualService", "web", json!({
        "hosts": ["*"], "gateways": ["door"],
        "http": [{"match": [{"uri": {"exact": "/page"}}], "route": [{"destination": {"host": "web", "port": {"number": 80}}}]}],
    })))?;
    shop.entered(A, 8082, &[])?;
    ensure!(shop.get(80, "/elsewhere", &[])?.status == 200, "pods are not routed by what is the gateway's");

    // A policy about the one gateway holds for what enters there, and for nothing else.
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}]);
    let rules = json!([{"to": [{"operation": {"hosts": ["page.example"]}}]}]);
    kube.authorization_policy("shop/front", json!({"targetRefs": target, "rules": rules}))?;
    wait::until_true("another host is denied", wait::PATIENCE, || {
        Ok(shop.enter(A, 8081, &[]).is_ok_and(|seen| seen.status == 403 && seen.body == "RBAC: access denied"))
    })?;
    ensure!(shop.enter(A, 8081, &["-H", "host: page.example"])?.status == 200, "the host that is allowed");
    ensure!(shop.enter(A, 8082, &[])?.status == 200, "a policy about a gateway holds for another");
    ensure!(shop.get(80, "/page", &[])?.status == 200, "a policy about a gateway holds for a pod");

    // One that selects the ingress by its labels holds for all gateways, and for no pod.
    let ingress = json!({
        "selector": {"matchLabels": {"istio": "ingressgateway"}}, "action": "DENY",
        "rules": [{"when": [{"key": "request.headers[x-denied]", "values": ["yes"]}]}],
    });
    kube.authorization_policy("istio-system/ingress", ingress)?;
    for port in [8081, 8082] {
        wait::until_true(&format!("port {port} denies"), wait::PATIENCE, || {
            Ok(shop
                .enter(A, port, &["-H", "host: page.example", "-H", "x-denied: yes"])
                .is_ok_and(|seen| seen.status == 403))
        })?;
        ensure!(shop.enter(A, port, &["-H", "host: page.example"])?.status == 200, "port {port}");
    }
    ensure!(shop.get(80, "/page", &["-H", "x-denied: yes"])?.status == 200, "what selects the ingress holds for a pod");

    // What is no longer a gateway's is nobody's.
    kube.delete("Gateway", "shop", "front")?;
    wait::until_true("the port is closed", wait::PATIENCE, || Ok(shop.enter(A, 8081, &[]).is_err()))?;
    ensure!(shop.enter(A, 8082, &[])?.status == 200, "the other gateway stays");
    Ok(())
}

#[test]
fn tls_ends_at_the_edge_with_the_certificate_of_the_name() -> Result<()> {
    let shop = Shop::open("http edge tls", &["web-v1"])?;
    let kube = shop.mesh.kube();
    for name in ["one", "two"] {
        kube.apply(secret(&shop, name)?)?;
    }
    kube.apply(class())?;
    let listener = |name: &str, hostname: &str| {
        json!({
            "name": name, "port": 8443, "protocol": "HTTPS", "hostname": hostname,
            "tls": {"certificateRefs": [{"name": name}]},
        })
    };
    kube.apply(gateway(&json!([listener("one", "one.example"), listener("two", "*.two.example")])))?;
    kube.apply(route(&["one.example", "a.two.example"]))?;
    let address = A.addresses()[0];
    for (host, certificate) in [("one.example", "one"), ("a.two.example", "two")] {
        let resolve = format!("{host}:8443:{address}");
        let trusted = shop.mesh.node(A).dir().join(format!("{certificate}.pem"));
        let trusted = trusted.to_string_lossy();
        let fixed = ["--resolve", &resolve, "--cacert", &trusted];
        for version in ["--http1.1", "--http2"] {
            let arguments = [&fixed[..], &[version]].concat();
            let url = format!("https://{host}:8443/page");
            wait::until_true(&format!("{host} is entered"), wait::PATIENCE, || {
                Ok(shop.enter_by(A, &url, &arguments).is_ok_and(|seen| seen.status == 200))
            })?;
            let told = shop.enter_by(A, &url, &arguments)?.told()?;
            ensure!(told["headers"]["x-forwarded-proto"] == json!(["https"]), "{told}");
            // Whatever the client speaks, applications behind the edge are spoken to as their port says.
            ensure!(told["version"] == "HTTP/1.1", "{told}");
        }
        let grpc = [&fixed[..], &["--http2", "-H", "content-type: application/grpc"]].concat();
        let told = shop.enter_by(A, &format!("https://{host}:8443/page"), &grpc)?.told()?;
        ensure!(told["version"] == "HTTP/2.0", "{told}");
    }
    // Policies tell clients apart by the name that they ask for in the TLS that ends here, whatever their requests name.
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}]);
    let rules = json!([{"when": [{"key": "connection.sni", "values": ["*.two.example"]}]}]);
    kube.authorization_policy("shop/front", json!({"targetRefs": target, "rules": rules}))?;
    let status = |host: &str| {
        let resolve = format!("{host}:8443:{address}");
        let arguments = ["--insecure", "--resolve", &resolve, "-H", "host: a.two.example"];
        shop.enter_by(A, &format!("https://{host}:8443/page"), &arguments).map_or(0, |seen| seen.status)
    };
    wait::until_true("another name is denied", wait::PATIENCE, || Ok(status("one.example") == 403))?;
    ensure!(status("a.two.example") == 200, "the name that is allowed");
    // Of no name that is known there is no certificate.
    ensure!(shop.enter(A, 8443, &["--insecure"]).is_err(), "a nameless client was served");
    Ok(())
}

/// A Secret with a certificate that vouches for itself, which is left in a file, too.
fn secret(shop: &Shop, name: &str) -> Result<Value> {
    let names = format!("subjectAltName=DNS:{name}.example,DNS:*.{name}.example");
    let Certificate { certificate, key } = Certificate::alone(shop.mesh.node(A).dir(), name, &names)?;
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": std::fs::read_to_string(certificate)?, "tls.key": std::fs::read_to_string(key)?},
    }))
}

#[test]
fn a_port_that_another_program_has_is_told_and_taken_once_it_is_free() -> Result<()> {
    let shop = Shop::open("http edge taken", &["web-v1"])?;
    let other = shop.mesh.node(A).ns().enter(|| Ok(TcpListener::bind("0.0.0.0:8083")?))?;
    shop.mesh.kube().apply(class())?;
    shop.mesh.kube().apply(gateway(&json!([{"name": "http", "port": 8083, "protocol": "HTTP"}])))?;
    shop.mesh.kube().apply(route(&[]))?;
    shop.entered(B, 8083, &[])?;
    wait::until_true("the port is listened on where it is free", wait::PATIENCE, || {
        let listening = |node| shop.mesh.daemon(node)?.metric("mesh_edge_listening", &[("port", "8083")]);
        Ok(listening(B)? == 1.0 && listening(A)? == 0.0)
    })?;
    drop(other);
    shop.entered(A, 8083, &[])?;
    // By then it was tried again, by each worker.
    let told = |what: &str| shop.mesh.daemon(A).map(|daemon| daemon.log().matches(what).count());
    ensure!(told("cannot be listened on")? == 1, "{}", shop.mesh.daemon(A)?.log());
    wait::until_true(
        "it is told that all is well",
        wait::PATIENCE,
        || Ok(told("a gateway's port is listened on")? == 1),
    )
}

/// A shop with a gateway of HTTP at `port` that leads to it whatever is asked for, in a mesh whose daemons have these arguments.
fn behind_gateway(name: &str, port: u16, arguments: &[&str]) -> Result<Shop> {
    let builder = arguments.iter().fold(Mesh::builder(name), |builder, argument| builder.daemon_argument(argument));
    let shop = Shop::open_in(builder.build()?, &["web-v1"])?;
    shop.mesh.kube().apply(class())?;
    shop.mesh.kube().apply(gateway(&json!([{"name": "http", "port": port, "protocol": "HTTP"}])))?;
    let mut route = route(&[]);
    route["spec"]["rules"][0]["matches"] = json!([]);
    shop.mesh.kube().apply(route)?;
    shop.entered(A, port, &[])?;
    Ok(shop)
}

#[test]
fn what_is_under_way_at_a_gateway_is_judged_again() -> Result<()> {
    let shop = behind_gateway("http edge again", 8087, &[])?;
    let policy = |path: &str| {
        let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}]);
        let rules = json!([{"to": [{"operation": {"paths": [path]}}]}]);
        let spec = json!({"targetRefs": target, "action": "DENY", "rules": rules});
        shop.mesh.kube().authorization_policy("shop/front", spec)
    };
    policy("/page")?;
    wait::until_true("a path is denied", wait::PATIENCE, || {
        Ok(shop.enter(A, 8087, &[]).is_ok_and(|seen| seen.status == 403))
    })?;
    let url = format!("http://{}:8087/waits/9000", A.addresses()[0]);
    std::thread::scope(|scope| {
        let started = Instant::now();
        let waiting = scope.spawn(|| shop.enter_by(A, &url, &["--max-time", "30"]));
        let (web, path) = (&shop.pods[0].0, "http://127.0.0.1:8080/seen");
        wait::until_true("the request is under way", wait::PATIENCE, || Ok(web.curl(path)?.contains("waits")))?;
        policy("/w*")?;
        let seen = waiting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        let is_denied = seen.status == 403 && started.elapsed() < Duration::from_secs(8);
        ensure!(is_denied, "{seen:?} after {:?}", started.elapsed());
        Ok(())
    })
}

#[test]
fn a_gateways_port_has_only_so_many_connections() -> Result<()> {
    let shop = behind_gateway("http edge many", 8084, &["--workers=1", "--edge-connections=3"])?;
    let enter = || -> Result<TcpStream> {
        let mut stream = shop.dial(A, 8084)?;
        stream.write_all(b"GET /page HTTP/1.1\r\nhost: a\r\n\r\n")?;
        ensure!(answer(&mut stream)?.status == 200, "not served");
        Ok(stream)
    };
    let mut held = Vec::new();
    wait::until_true("as many are served as may be", wait::PATIENCE, || {
        held.extend(enter().ok());
        Ok(held.len() == 3)
    })?;
    ensure!(enter().is_err(), "one more was served");
    shop.mesh.daemon(A)?.wait_metric("mesh_proxy_refused_total", &[("reason", "edge_limit")], 1.0)?;
    held.pop();
    wait::until_true("another takes the place of one that went", wait::PATIENCE, || Ok(enter().is_ok()))
}

#[test]
fn a_connection_on_which_nothing_is_asked_does_not_stay_at_the_edge() -> Result<()> {
    let idle = Duration::from_secs(1);
    let shop = behind_gateway("http edge idle", 8085, &["--edge-idle-timeout=1s"])?;
    // A request may take longer than that.
    let begun = Instant::now();
    let mut stream = shop.dial(A, 8085)?;
    stream.write_all(b"GET /waits/2500 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    ensure!(answer(&mut stream)?.status == 200, "a slow request was not served");
    ensure!(stream.read(&mut [0; 64])? == 0 && begun.elapsed() >= Duration::from_millis(3500), "{:?}", begun.elapsed());
    for slow in [&b""[..], b"GET /page HTTP/1.1\r\nhost:", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let begun = Instant::now();
        let mut stream = shop.dial(A, 8085)?;
        stream.write_all(slow)?;
        let mut said = Vec::new();
        // Of HTTP/2, that it ends.
        let _reset = stream.read_to_end(&mut said);
        ensure!(begun.elapsed() >= idle && !said.starts_with(b"HTTP/1.1 200"), "{slow:?}: {said:?}");
    }
    shop.mesh.daemon(A)?.wait_metric("mesh_proxy_refused_total", &[("reason", "no_request")], 3.0)?;
    Ok(())
}

#[test]
fn whoever_does_not_take_its_answer_does_not_stay_at_the_edge() -> Result<()> {
    let shop = behind_gateway("http edge stalls", 8086, &["--edge-idle-timeout=1s"])?;
    let mut stream = shop.dial(A, 8086)?;
    // More than what sockets hold, and a client that reads on only once it is ended.
    stream.write_all(b"GET /bytes/64000000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let labels = [("side", "outbound"), ("reason", "stalled")];
    shop.mesh.daemon(A)?.wait_metric("mesh_proxy_bad_http_total", &labels, 1.0)?;
    let record = shop.mesh.daemon(A)?.wait_access("the request", |record| record["reason"] == "stalled")?;
    ensure!(record["response_flags"] == "DC", "{record}");
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest);
    ensure!(rest.len() < 64_000_000, "all of it came");
    ensure!(shop.enter(A, 8086, &[])?.status == 200, "others are not served");
    Ok(())
}

#[test]
fn a_connection_that_went_over_and_rests_does_not_stay_at_the_edge() -> Result<()> {
    let idle = Duration::from_secs(2);
    let shop = behind_gateway("http edge upgraded", 8087, &["--edge-upgraded-idle-timeout=2s"])?;
    let mut stream = shop.dial(A, 8087)?;
    stream.write_all(b"GET /ws HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")?;
    ensure!(answer(&mut stream)?.status == 101, "it did not go over");
    // Whoever says something stays, for longer than it may rest.
    let begun = Instant::now();
    wait::until_true("it was used for longer than it may rest", wait::PATIENCE, || {
        stream.write_all(b"word")?;
        ensure!(traffic::read_exactly(&mut stream, 4)? == b"word", "no echo");
        Ok(begun.elapsed() >= idle * 2)
    })?;
    let rested = Instant::now();
    ensure!(stream.read(&mut [0; 8]).is_ok_and(|length| length == 0), "it is not ended in an orderly way");
    ensure!(rested.elapsed() >= idle - Duration::from_millis(500), "{:?}", rested.elapsed());
    let record = shop.mesh.daemon(A)?.wait_access("its end", |record| record["reason"] == "idle")?;
    ensure!(record["bytes_received"].as_u64().is_some_and(|sent| sent >= 8), "{record}");
    Ok(())
}

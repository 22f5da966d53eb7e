//! Envoy as a peer to be measured against: HTTP understood, mutual TLS 1.3 with HTTP/2 between, one process beside each pod.
//!
//! In:  the server pod's address, a directory with certificates.
//! Out: the two configuration files.
//! Invariant: the same cipher as the mesh (AES-128-GCM), certificates verified on both sides; nothing recorded, one static route.
//! Source: Envoy 1.40, "API reference".

use crate::haproxy::Files;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Where Envoy takes HTTP/1.1 and HTTP/2 in the client pod, and where TLS in the server pod.
pub(crate) const PORTS: [u16; 2] = [19080, 19081];
const TLS_PORTS: [u16; 2] = [19443, 19444];

const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// Writes both configurations into the directory with the certificates. `apps` are the ports of the applications, for HTTP/1.1
/// and for HTTP/2.
pub(crate) fn prepare(dir: &Path, server: IpAddr, apps: [u16; 2]) -> anyhow::Result<Files> {
    let files = Files { client: dir.join("envoy-client.json"), server: dir.join("envoy-server.json") };
    let server = server.to_string();
    let (mut client_side, mut server_side) = (Vec::new(), Vec::new());
    for ((plain, tls), (app, http2)) in PORTS.into_iter().zip(TLS_PORTS).zip(apps.into_iter().zip([false, true])) {
        let of = |name| transport(dir, name);
        client_side.push(Hop { from: ("127.0.0.1", plain, None), to: (&server, tls, true, Some(of("client"))) });
        server_side.push(Hop { from: ("0.0.0.0", tls, Some(of("server"))), to: ("127.0.0.1", app, http2, None) });
    }
    write(&files.client, &client_side)?;
    write(&files.server, &server_side)?;
    Ok(files)
}

/// A listener, and the only cluster that it leads to.
struct Hop<'a> {
    /// Address, port, TLS.
    from: (&'a str, u16, Option<Value>),
    /// Address, port, whether HTTP/2 is spoken, TLS.
    to: (&'a str, u16, bool, Option<Value>),
}

fn write(path: &Path, hops: &[Hop<'_>]) -> anyhow::Result<()> {
    let listeners: Vec<_> = hops.iter().map(listener).collect();
    let clusters: Vec<_> = hops.iter().map(cluster).collect();
    let text = json!({"static_resources": {"listeners": listeners, "clusters": clusters}}).to_string();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn listener(Hop { from: (address, port, tls), .. }: &Hop<'_>) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": name(*port)}});
    let connection = json!({
        "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{TYPE}.filters.http.router.v3.Router")},
        }],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": connection});
    let mut chain = json!({"filters": [filter]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls.clone();
    }
    json!({"name": name(*port), "address": socket(address, *port), "filter_chains": [chain]})
}

fn cluster(Hop { from: (_, name_of, _), to: (address, port, http2, tls) }: &Hop<'_>) -> Value {
    let name = name(*name_of);
    let most = json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    let endpoint = json!({"endpoint": {"address": socket(address, *port)}});
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "3s", "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if *http2 {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        cluster["typed_extension_protocol_options"] = json!({options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }});
    }
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls.clone();
    }
    cluster
}

/// TLS of one side: `client` or `server`.
fn transport(dir: &Path, side: &str) -> Value {
    let file = |name: &str| json!({"filename": dir.join(name)});
    let version = "TLSv1_3";
    let common = json!({
        "tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version},
        "tls_certificates": [{"certificate_chain": file(&format!("{side}.pem")), "private_key": file(&format!("{side}.key"))}],
        "validation_context": {"trusted_ca": file("ca.pem")},
        "alpn_protocols": ["h2"],
    });
    let own = match side {
        "server" => json!({"require_client_certificate": true, "@type": tls_type("Downstream")}),
        _ => json!({"sni": "server.bench", "@type": tls_type("Upstream")}),
    };
    let mut config = own;
    config["common_tls_context"] = common;
    json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}

fn tls_type(way: &str) -> String {
    format!("{TYPE}.transport_sockets.tls.v3.{way}TlsContext")
}

fn socket(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn name(port: u16) -> String {
    format!("port-{port}")
}

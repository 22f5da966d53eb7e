//! haproxy as the peer to be measured against: mutual TLS 1.3, over TCP or with HTTP understood, one process beside each pod.
//!
//! In:  the server pod's address, a directory for certificates and configuration.
//! Out: certificates; the configuration files of both sides.
//! Invariant: the same cipher as the mesh (AES-128-GCM), certificates verified on both sides. Over TCP nothing above it is looked
//! at, so that both do the same work. With HTTP, requests share connections between the two, which speak HTTP/2: that is cheapest.
//! Source: haproxy 2.6 configuration manual.

use anyhow::Context as _;
use mesh_tests::Certificate;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where haproxy takes plain connections in the client pod, for HTTP/1.1 and for iperf3.
pub(crate) const CLIENT_PORTS: [u16; 2] = [18080, 15201];
/// Where it takes TLS in the server pod, for each of the servers.
const TLS_PORTS: [u16; 2] = [18443, 15443];
/// Where it takes HTTP/1.1 and HTTP/2 in the client pod, and where TLS in the server pod.
pub(crate) const HTTP_PORTS: [u16; 2] = [19080, 19081];
const HTTP_TLS_PORTS: [u16; 2] = [19443, 19444];

const CIPHER: &str = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

/// The authority of both sides.
const AUTHORITY: &str = "ca";

/// The configuration files for the client's and the server's side.
pub(crate) struct Files {
    pub(crate) client: PathBuf,
    pub(crate) server: PathBuf,
}

/// Writes both configurations over TCP into the directory with the [`certificates`]. `apps` are the ports of the applications.
pub(crate) fn prepare(dir: &Path, server: IpAddr, apps: [u16; 2]) -> anyhow::Result<Files> {
    let hops = [0, 1].map(|of| Hop { plain: CLIENT_PORTS[of], tls: TLS_PORTS[of], app: apps[of], protocol: "" });
    write(dir, server, &Mode { name: "tcp", reuse: "", alpn: "" }, hops)
}

/// The same for HTTP, of which `apps` are the ports for HTTP/1.1 and for HTTP/2.
pub(crate) fn prepare_http(dir: &Path, server: IpAddr, apps: [u16; 2]) -> anyhow::Result<Files> {
    let hop = |of: usize, protocol| Hop { plain: HTTP_PORTS[of], tls: HTTP_TLS_PORTS[of], app: apps[of], protocol };
    let mode = Mode { name: "http", reuse: "  http-reuse always\n", alpn: " alpn h2" };
    write(dir, server, &mode, [hop(0, ""), hop(1, " proto h2")])
}

/// The way from a port in the client pod, by TLS to a port in the server pod, to an application.
struct Hop {
    plain: u16,
    tls: u16,
    app: u16,
    /// What is spoken with the client and with the application, if it is said.
    protocol: &'static str,
}

/// What is the same for all hops.
struct Mode {
    name: &'static str,
    reuse: &'static str,
    /// What is spoken between the two, if it is said.
    alpn: &'static str,
}

fn write(dir: &Path, server: IpAddr, mode: &Mode, hops: [Hop; 2]) -> anyhow::Result<Files> {
    let Mode { name, reuse, alpn } = mode;
    let (mut client_side, mut server_side) = (common(name), common(name));
    let keys = dir.display();
    for Hop { plain, tls, app, protocol } in hops {
        client_side += &format!(
            "listen from_{plain}
{reuse}  bind 127.0.0.1:{plain} backlog 8192{protocol}
  server peer {server}:{tls} ssl crt {keys}/client.both ca-file {keys}/ca.pem verify required sni str(server.bench) verifyhost server.bench{alpn} {CIPHER}
"
        );
        server_side += &format!(
            "listen to_{app}
{reuse}  bind 0.0.0.0:{tls} backlog 8192 ssl crt {keys}/server.both ca-file {keys}/ca.pem verify required{alpn} {CIPHER}
  server app 127.0.0.1:{app}{protocol}
"
        );
    }
    let file = |side: &str, text: &str| {
        let path = dir.join(format!("haproxy-{name}-{side}.cfg"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    Ok(Files { client: file("client", &client_side)?, server: file("server", &server_side)? })
}

/// Two threads as the mesh has two workers; 9,800 connections are what 20,000 descriptors allow.
fn common(mode: &str) -> String {
    format!(
        "global
  nbthread 2
  maxconn 9800
  tune.ssl.default-dh-param 2048
defaults
  mode {mode}
  timeout connect 3s
  timeout client 600s
  timeout server 600s
"
    )
}

/// Makes a root, and a certificate for each side, with chain and key in one file as well. Once for all that are measured: a
/// proxy may read them at any time after its start.
pub(crate) fn certificates(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Certificate::authority(dir, AUTHORITY)?;
    for name in ["client", "server"] {
        let own = Certificate::signed(dir, AUTHORITY, name, &format!("DNS:{name}.bench"))?;
        let mut both = fs::read(own.certificate).context("openssl wrote no certificate")?;
        both.extend(fs::read(own.key).context("openssl wrote no key")?);
        fs::write(dir.join(format!("{name}.both")), both).context("cannot write a certificate")?;
    }
    Ok(())
}

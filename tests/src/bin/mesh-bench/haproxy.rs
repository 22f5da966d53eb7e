//! haproxy as the peer to be measured against: mutual TLS 1.3 over TCP, one process beside each pod.
//!
//! In:  the server pod's address, a directory for certificates and configuration.
//! Out: the two configuration files.
//! Invariant: the same cipher as the mesh (AES-128-GCM), certificates verified on both sides, nothing looked at
//! above TCP, so that both do the same work.
//! Source: haproxy 2.6 configuration manual; openssl-req(1).

use anyhow::{Context as _, bail};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where haproxy takes plain connections in the client pod, for HTTP and for bulk.
pub(crate) const CLIENT_PORTS: [u16; 2] = [18080, 15201];
/// Where haproxy takes TLS in the server pod, for HTTP and for bulk.
const TLS_PORTS: [u16; 2] = [18443, 15443];

/// The configuration files for the client's and the server's side.
pub(crate) struct Files {
    pub(crate) client: PathBuf,
    pub(crate) server: PathBuf,
}

/// Makes certificates and writes both configurations. `apps` are the ports of the applications.
pub(crate) fn prepare(dir: &Path, server: IpAddr, apps: [u16; 2]) -> anyhow::Result<Files> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    certificates(dir)?;
    let files = Files { client: dir.join("client.cfg"), server: dir.join("server.cfg") };
    write(&files.client, &client(dir, server))?;
    write(&files.server, &server_side(dir, apps))?;
    Ok(files)
}

/// Two threads as the mesh has two workers; 9,800 connections are what 20,000 descriptors allow.
const COMMON: &str = "global
  nbthread 2
  maxconn 9800
  tune.ssl.default-dh-param 2048
defaults
  mode tcp
  timeout connect 3s
  timeout client 600s
  timeout server 600s
";

const CIPHER: &str = "ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

fn client(dir: &Path, server: IpAddr) -> String {
    let dir = dir.display();
    let mut text = COMMON.to_owned();
    for (plain, tls) in CLIENT_PORTS.into_iter().zip(TLS_PORTS) {
        text += &format!(
            "listen from_{plain}
  bind 127.0.0.1:{plain} backlog 8192
  server peer {server}:{tls} ssl crt {dir}/client.pem ca-file {dir}/ca.pem verify required sni str(server.bench) verifyhost server.bench {CIPHER}
"
        );
    }
    text
}

fn server_side(dir: &Path, apps: [u16; 2]) -> String {
    let dir = dir.display();
    let mut text = COMMON.to_owned();
    for (tls, app) in TLS_PORTS.into_iter().zip(apps) {
        text += &format!(
            "listen to_{app}
  bind 0.0.0.0:{tls} backlog 8192 ssl crt {dir}/server.pem ca-file {dir}/ca.pem verify required {CIPHER}
  server app 127.0.0.1:{app}
"
        );
    }
    text
}

/// A root, and a P-256 certificate for each side as the mesh uses them.
fn certificates(dir: &Path) -> anyhow::Result<()> {
    let request = |name: &str, more: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
        command.args(["-subj", &format!("/CN={name}.bench")]).args(more);
        run(&mut command)
    };
    request("ca", &["-addext", "keyUsage=critical,keyCertSign,cRLSign"])?;
    fs::copy(dir.join("ca.crt"), dir.join("ca.pem")).context("cannot copy the root certificate")?;
    for name in ["client", "server"] {
        let names = format!("subjectAltName=DNS:{name}.bench");
        let extensions = ["-addext", &names, "-addext", "basicConstraints=critical,CA:FALSE"];
        let usage = ["-addext", "extendedKeyUsage=serverAuth,clientAuth", "-CA", "ca.crt", "-CAkey", "ca.key"];
        request(name, &[extensions.as_slice(), &usage].concat())?;
        let mut both = fs::read(dir.join(format!("{name}.crt"))).context("openssl wrote no certificate")?;
        both.extend(fs::read(dir.join(format!("{name}.key"))).context("openssl wrote no key")?);
        fs::write(dir.join(format!("{name}.pem")), both).context("cannot write a certificate")?;
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output =
        command.stdin(Stdio::null()).output().context("cannot run openssl; `cargo xtask setup bench` installs it")?;
    if !output.status.success() {
        bail!("openssl failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

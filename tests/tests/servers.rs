//! Real servers and their own clients, in a strict namespace.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Directory, Mesh, Pod, wait};
use serde_json::json;

/// A strict namespace with a server on one node and a client on the other.
fn strict(name: &str) -> Result<(Mesh, Pod, Pod)> {
    let mesh = Mesh::builder(name).build()?;
    mesh.kube().namespace("data", &[("istio.io/dataplane-mode", "ambient")])?;
    mesh.kube().peer_authentication("data/default", json!({"mtls": {"mode": "STRICT"}}))?;
    let server = mesh.pod("data/server").on(A).account("server").start()?;
    let client = mesh.pod("data/client").on(B).account("client").start()?;
    Ok((mesh, server, client))
}

#[test]
fn mariadb_which_speaks_first_is_used_by_its_own_client() -> Result<()> {
    let (mesh, server, client) = strict("servers mariadb")?;
    let directory = Directory::new("mariadb")?;
    let data = format!("--datadir={}", directory.join("data"));
    server.run("mariadb-install-db", ["--no-defaults", "--user=root", "--skip-test-db", &data])?.success()?;
    let socket = format!("--socket={}", directory.join("socket"));
    let pid = format!("--pid-file={}", directory.join("pid"));
    let mut command = server.command("mariadbd");
    command.args(["--no-defaults", "--user=root", "--port=3306", "--bind-address=*", "--skip-name-resolve"]);
    command.args(["--skip-grant-tables", &data, &socket, &pid]);
    let _mariadb = server.spawn(&mut command, "mariadb")?;

    let wire = mesh.capture("mariadb")?;
    let host = format!("--host={}", server.address(3306).ip());
    let query = ["--no-defaults", &host, "--port=3306", "--batch", "--skip-column-names", "--execute=select 6*7"];
    wait::until_true("MariaDB answers its client", wait::PATIENCE, || {
        Ok(client.run("mariadb", query).is_ok_and(|output| output.stdout.trim() == "42"))
    })?;
    wire.stop()?.only_tls_on(&[3306])
}

#[test]
fn opensmtpd_which_speaks_first_takes_a_mail() -> Result<()> {
    let (mesh, server, client) = strict("servers smtp")?;
    let directory = Directory::new("smtp")?;
    let (configuration, mail, resolver) = (directory.join("conf"), directory.join("mail"), directory.join("resolver"));
    let rules = format!(
        "listen on 0.0.0.0 port 25 hostname mail.example\n\
         action keep maildir \"{}\"\n\
         match from any for domain mail.example action keep\n",
        directory.join("inbox")
    );
    std::fs::write(&configuration, rules)?;
    std::fs::write(&mail, "Subject: through the mesh\r\n\r\nhello\r\n")?;
    std::fs::write(&resolver, "")?;
    // Its queue and its control socket have fixed places, and it asks for the name of each client: in a mount
    // namespace these are its own.
    let own = "mount -t tmpfs -o mode=711 none /var/spool && mkdir -m 711 /var/spool/smtpd && \
               mount -t tmpfs none /run && mount --bind \"$1\" /etc/resolv.conf && exec smtpd -d -f \"$0\"";
    let mut command = server.command("unshare");
    command.args(["--mount", "sh", "-c", own, &configuration, &resolver]);
    let smtpd = server.spawn(&mut command, "smtpd")?;

    let wire = mesh.capture("smtp")?;
    let url = format!("smtp://{}", server.address(25));
    let sending = ["--silent", "--show-error", "--max-time", "10", "--mail-from", "visitor@shop.example"];
    let to = ["--mail-rcpt", "root@mail.example", "--upload-file", &mail, &url];
    wait::until_true("the mail is taken", wait::PATIENCE, || {
        ensure!(smtpd.ended()?.is_none(), "OpenSMTPD ended: {}", smtpd.log());
        Ok(client.run("curl", sending.iter().chain(&to))?.status.success())
    })
    .with_context(|| smtpd.log())?;
    wire.stop()?.only_tls_on(&[25])?;
    let (log, address) = (smtpd.log(), format!("address={}", client.addresses()[0]));
    ensure!(log.contains("from=<visitor@shop.example>") && log.contains(&address), "{log}");
    Ok(())
}

#[test]
fn redis_is_used_by_its_own_client() -> Result<()> {
    let (mesh, server, client) = strict("servers redis")?;
    let mut command = server.command("redis-server");
    command.args(["--port", "6379", "--bind", "*", "--protected-mode", "no", "--save", "", "--dir", "/tmp"]);
    let _redis = server.spawn(&mut command, "redis")?;

    let wire = mesh.capture("redis")?;
    let host = server.address(6379).ip().to_string();
    wait::until_true("Redis answers its client", wait::PATIENCE, || {
        let output = client.run("redis-cli", ["-h", &host, "set", "key", "value"])?;
        Ok(output.stdout.trim() == "OK")
    })?;
    let value = client.run("redis-cli", ["-h", &host, "get", "key"])?;
    ensure!(value.stdout.trim() == "value", "{}{}", value.stdout, value.stderr);
    wire.stop()?.only_tls_on(&[6379])
}

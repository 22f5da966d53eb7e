//! Who may ask what of a server, and what becomes of the others.

use crate::support::{Seen, Shop, answer, curl};
use anyhow::{Context, Result, bail, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Node, Pod, Server, traffic, wait};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const DENIED: &str = "RBAC: access denied";
const CLIENT: &str = "cluster.local/ns/shop/sa/client";

impl Shop {
    /// Creates or replaces the AuthorizationPolicy `shop/name`.
    pub(crate) fn policy(&self, name: &str, spec: Value) -> Result<()> {
        self.mesh.kube().authorization_policy(&format!("shop/{name}"), spec)
    }

    /// A pod under this account.
    fn pod(&self, account: &str, node: Node) -> Result<Pod> {
        self.mesh.pod(&format!("shop/{account}-of-{}", node.name())).on(node).account(account).start()
    }

    /// The server's own address.
    fn own(&self, port: u16) -> SocketAddr {
        self.pods[0].0.address(port)
    }

    /// A server on port 9000 of the same pod that echoes, and is no service's.
    fn echo(&self) -> Result<Server> {
        self.pods[0].0.echo(9000)
    }

    /// Verdicts that the server's node counted with these labels.
    fn verdicts(&self, labels: &[(&str, &str)]) -> Result<f64> {
        self.mesh.daemon(A)?.metric("mesh_policy_verdicts_total", labels)
    }
}

fn is_denied(seen: &Seen) -> bool {
    seen.status == 403 && seen.body == DENIED
}

/// Waits until a pod is answered like this.
fn until(what: &str, from: &Pod, url: &str, is_so: impl Fn(&Seen) -> bool) -> Result<()> {
    wait::until_true(what, wait::PATIENCE, || Ok(curl(from, url, &[]).is_ok_and(|seen| is_so(&seen))))
}

/// Does an echo answer?
pub(crate) fn answers(from: &Pod, to: SocketAddr) -> bool {
    from.exchange(to, b"hello").is_ok_and(|answer| answer == b"hello")
}

/// The connection is reset, and nothing comes before.
pub(crate) fn is_reset(stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0; 64]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("no reset, but {other:?}"),
    }
}

#[test]
fn requests_are_allowed_by_identity_method_and_path_whatever_was_dialled() -> Result<()> {
    let shop = Shop::open("http allowed", &["web-v1"])?;
    let (near, thief, near_thief) = (shop.pod("client", A)?, shop.pod("thief", B)?, shop.pod("thief", A)?);
    let rule = json!({
        "from": [{"source": {"principals": [CLIENT]}}],
        "to": [{"operation": {"methods": ["GET"], "paths": ["/", "/public/*"]}}],
    });
    shop.policy("web", json!({"selector": {"matchLabels": {"app": "web"}}, "rules": [rule]}))?;
    until("whoever is not named is denied", &thief, &shop.url(80, "/"), is_denied)?;
    let web = &shop.pods[0].0;
    let hosts = [shop.web.address(80).to_string(), shop.own(8080).to_string(), web.address6(8080).to_string()];
    for host in &hosts {
        let url = |path: &str| format!("http://{host}{path}");
        for client in [&shop.client, &near] {
            let from = client.name();
            for path in ["/", "/public/a"] {
                let seen = curl(client, &url(path), &[])?;
                ensure!(seen.status == 200, "{from} asks {host}{path}: {seen:?}");
            }
            for (path, arguments) in [
                ("/secret", &[][..]),
                ("/public/../secret", &["--path-as-is"]),
                ("/public/%2e%2e/secret", &["--path-as-is"]),
                ("/", &["--data", "x"]),
            ] {
                let seen = curl(client, &url(path), arguments)?;
                ensure!(is_denied(&seen), "{from} asks {host}{path} {arguments:?}: {seen:?}");
            }
        }
        for thief in [&thief, &near_thief] {
            ensure!(is_denied(&curl(thief, &url("/"), &[])?), "{} asks {host}", thief.name());
        }
    }
    // HTTP/2 is read as well.
    let seen = curl(&thief, &shop.url(81, "/"), &["--http2-prior-knowledge"])?;
    ensure!(is_denied(&seen), "by HTTP/2: {seen:?}");
    ensure!(curl(&shop.client, &shop.url(81, "/"), &["--http2-prior-knowledge"])?.status == 200, "by HTTP/2");
    // A port that says nothing is looked at.
    ensure!(curl(&shop.client, &shop.url(82, "/"), &[])?.status == 200, "on a port that says nothing");
    ensure!(is_denied(&curl(&thief, &shop.url(82, "/"), &[])?), "on a port that says nothing");

    let record = shop.mesh.daemon(A)?.wait_access("the denial is recorded", |record| {
        record["side"] == "inbound" && record["response_code"] == 403 && record["path"] == "/secret"
    })?;
    let detail = record["detail"].as_str().unwrap_or_default();
    ensure!(record["reason"] == "policy_denied" && detail.contains("AuthorizationPolicy shop/web"), "{record}");
    let labels = [("policy", "AuthorizationPolicy shop/web"), ("verdict", "denied"), ("side", "inbound")];
    ensure!(shop.verdicts(&labels)? >= 10.0, "{}", shop.mesh.daemon(A)?.metrics()?);
    Ok(())
}

#[test]
fn requests_are_denied_by_path_and_all_others_pass() -> Result<()> {
    let shop = Shop::open("http denied", &["web-v1"])?;
    let paths = json!([{"to": [{"operation": {"paths": ["/admin*", "/v1/{*}/delete"]}}]}]);
    shop.policy("no-admin", json!({"action": "DENY", "rules": paths}))?;
    until("a path is denied", &shop.client, &shop.url(80, "/admin"), is_denied)?;
    for path in ["/admin/x", "//admin", "/x/../admin", "/%61dmin", "/v1/thing/delete"] {
        let seen = curl(&shop.client, &shop.url(80, path), &["--path-as-is"])?;
        ensure!(is_denied(&seen), "{path}: {seen:?}");
    }
    for path in ["/", "/other", "/v1/thing/deleted", "/v1/a/b/delete"] {
        let seen = curl(&shop.client, &shop.url(80, path), &[])?;
        ensure!(seen.status == 200, "{path}: {seen:?}");
    }
    // A rule about paths cannot be asked where no HTTP is spoken: that denies.
    let _echo = shop.echo()?;
    ensure!(!answers(&shop.client, shop.own(9000)), "what nobody can read passed a rule that denies paths");
    Ok(())
}

#[test]
fn a_stream_that_is_denied_is_reset_also_one_that_is_open() -> Result<()> {
    let shop = Shop::open("http stream", &["web-v1"])?;
    let (thief, _echo) = (shop.pod("thief", B)?, shop.echo()?);
    let allow = |principals: Value| json!({"rules": [{"from": [{"source": {"principals": principals}}]}]});
    shop.policy("web", allow(json!([CLIENT])))?;
    wait::until_true("whoever is not named is denied", wait::PATIENCE, || Ok(!answers(&thief, shop.own(9000))))?;
    is_reset(&mut thief.connect(shop.own(9000))?)?;
    let record = shop.mesh.daemon(A)?.wait_access("the denial is recorded", |record| {
        record["side"] == "inbound" && record["reason"] == "policy_denied"
    })?;
    let detail = record["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("AuthorizationPolicy shop/web"), "{record}");

    let mut open = shop.client.connect(shop.own(9000))?;
    let mut both_ways = |word: &[u8; 4]| -> Result<()> {
        open.write_all(word)?;
        let mut back = [0; 4];
        open.read_exact(&mut back)?;
        ensure!(back == *word, "{back:?}");
        Ok(())
    };
    both_ways(b"ping")?;
    let snapshots = || shop.mesh.daemon(A)?.metric("mesh_control_snapshots_total", &[]);
    let before = snapshots()?;
    shop.policy("web", allow(json!([CLIENT, "cluster.local/ns/shop/sa/other"])))?;
    wait::until_true("the policy is another", wait::PATIENCE, || Ok(snapshots()? > before))?;
    both_ways(b"pong")?;
    shop.policy("web", allow(json!(["cluster.local/ns/shop/sa/other"])))?;
    open.set_read_timeout(Some(wait::PATIENCE))?;
    is_reset(&mut open).context("an open connection that is denied now")?;
    Ok(())
}

#[test]
fn nothing_is_allowed_until_something_is() -> Result<()> {
    let shop = Shop::open("http nothing", &["web-v1"])?;
    let _echo = shop.echo()?;
    ensure!(answers(&shop.client, shop.own(9000)), "without a policy");
    shop.policy("allow-nothing", json!({}))?;
    until("nothing is allowed", &shop.client, &shop.url(80, "/"), is_denied)?;
    ensure!(!answers(&shop.client, shop.own(9000)), "a stream passed");
    shop.policy("allow-client", json!({"rules": [{"from": [{"source": {"serviceAccounts": ["client"]}}]}]}))?;
    shop.served("/")?;
    ensure!(answers(&shop.client, shop.own(9000)), "a stream of an account that is allowed");
    shop.mesh.kube().delete("AuthorizationPolicy", "shop", "allow-client")?;
    until("nothing is allowed again", &shop.client, &shop.url(80, "/"), is_denied)?;
    shop.mesh.kube().delete("AuthorizationPolicy", "shop", "allow-nothing")?;
    shop.served("/")
}

#[test]
fn requests_under_way_and_what_came_of_them_end_when_they_are_denied() -> Result<()> {
    let shop = Shop::open("http under way", &["web-v1"])?;
    let all = json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]});
    shop.policy("paths", all)?;
    until("a path is denied", &shop.client, &shop.url(80, "/admin"), is_denied)?;
    let mut upgraded = shop.client.connect(shop.web.address(80))?;
    upgraded.write_all(b"GET /ws HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")?;
    let switched = answer(&mut upgraded)?;
    ensure!(switched.status == 101, "{switched:?}");
    thread::scope(|scope| {
        let started = Instant::now();
        let waiting = scope.spawn(|| shop.get(80, "/waits/9000", &["--max-time", "30"]));
        let (web, path) = (&shop.pods[0].0, "http://127.0.0.1:8080/seen");
        wait::until_true("the request is under way", wait::PATIENCE, || Ok(web.curl(path)?.contains("waits")))?;
        shop.policy("paths", json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/w*"]}}]}]}))?;
        let seen = waiting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        ensure!(
            is_denied(&seen) && started.elapsed() < Duration::from_secs(8),
            "{seen:?} after {:?}",
            started.elapsed()
        );
        Ok(())
    })?;
    upgraded.set_read_timeout(Some(wait::PATIENCE))?;
    match upgraded.read(&mut [0; 8]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("the upgraded connection is open: {other:?}"),
    }
}

#[test]
fn a_policy_on_trial_counts_and_changes_nothing() -> Result<()> {
    let shop = Shop::open("http trial", &["web-v1"])?;
    let spec = json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/a"]}}]}]});
    let metadata = json!({"namespace": "shop", "name": "tried", "annotations": {"istio.io/dry-run": "true"}});
    shop.mesh.kube().apply(json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec,
    }))?;
    let audit = json!({"action": "AUDIT", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}]}]});
    shop.policy("audit", audit)?;
    let tried = [("policy", "AuthorizationPolicy shop/tried"), ("rule", "rules[0]"), ("verdict", "would_deny")];
    wait::until_true("what would be denied is counted", wait::PATIENCE, || {
        let seen = shop.get(80, "/a", &[])?;
        ensure!(seen.status == 200, "{seen:?}");
        Ok(shop.verdicts(&tried)? > 0.0)
    })?;
    let audited = [("policy", "AuthorizationPolicy shop/audit"), ("verdict", "told")];
    wait::until_true("what is audited is counted", wait::PATIENCE, || {
        let seen = shop.get(80, "/b", &["--request", "PUT"])?;
        ensure!(seen.status == 200, "{seen:?}");
        Ok(shop.verdicts(&audited)? > 0.0)
    })?;
    wait::until_true("both are logged", wait::PATIENCE, || {
        let log = shop.mesh.daemon(A)?.log();
        Ok(log.contains("a policy on trial would decide") && log.contains("a rule tells of traffic"))
    })?;
    let before = shop.verdicts(&tried)?;
    ensure!(shop.get(80, "/b", &[])?.status == 200 && shop.verdicts(&tried)? == before, "another path is counted");
    shop.policy("tried", spec)?;
    until("it is in force", &shop.client, &shop.url(80, "/a"), is_denied)
}

#[test]
fn whoever_speaks_plain_text_has_no_identity() -> Result<()> {
    let shop = Shop::open("http plain peer", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let (outsider, _echo) = (shop.mesh.pod("default/outsider").on(B).start()?, shop.echo()?);
    let own = format!("http://{}/", shop.own(8080));
    until("plain text is taken", &outsider, &own, |seen| seen.status == 200)?;
    shop.policy("web", json!({"rules": [{"from": [{"source": {"principals": ["*"]}}]}]}))?;
    until("whoever proves nothing is denied", &outsider, &own, is_denied)?;
    wait::until_true("and is reset", wait::PATIENCE, || Ok(!answers(&outsider, shop.own(9000))))?;
    shop.served("/")?;
    let blocks: Vec<_> = outsider.addresses().iter().map(ToString::to_string).collect();
    shop.policy("web", json!({"rules": [{"from": [{"source": {"ipBlocks": blocks}}]}]}))?;
    until("its address is allowed", &outsider, &own, |seen| seen.status == 200)?;
    ensure!(answers(&outsider, shop.own(9000)), "a stream from an address that is allowed");
    until("another address is not", &shop.client, &shop.url(80, "/"), is_denied)
}

#[test]
fn what_nobody_understands_is_denied_and_named() -> Result<()> {
    let shop = Shop::open("http unclear", &["web-v1"])?;
    shop.policy("tokens", json!({"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]}))?;
    until("a rule that is not understood allows nothing", &shop.client, &shop.url(80, "/"), is_denied)?;
    let issues = shop.mesh.daemon(A)?.debug("snapshot")?["issues"].to_string();
    ensure!(issues.contains("requestPrincipals"), "{issues}");
    Ok(())
}

#[test]
fn policies_of_the_network_hold_where_traffic_leaves_and_where_it_arrives() -> Result<()> {
    let shop = Shop::open("http network", &["web-v1"])?;
    shop.mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "PERMISSIVE"}}))?;
    let (thief, _echo) = (shop.pod("thief", B)?, shop.echo()?);
    let policy = |name: &str, spec: Value| {
        shop.mesh.kube().apply(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": name},
            "spec": spec,
        }))
    };
    let (web, client) = (json!({"matchLabels": {"app": "web"}}), json!({"matchLabels": {"app": "client"}}));
    policy("web", json!({"podSelector": web, "ingress": [{"from": [{"podSelector": client}]}]}))?;
    wait::until_true("whoever is not selected is denied", wait::PATIENCE, || Ok(!answers(&thief, shop.own(9000))))?;
    ensure!(is_denied(&curl(&thief, &shop.url(80, "/"), &[])?), "a request of a pod that is not selected");
    ensure!(answers(&shop.client, shop.own(9000)), "a stream of a pod that is selected");
    shop.served("/")?;
    let node =
        || traffic::exchange(traffic::connect(shop.mesh.node(A).ns(), shop.own(9000), wait::PATIENCE)?, b"hello");
    ensure!(node()? == b"hello", "a policy of the network came between a pod and its node");

    let ports = json!([{"protocol": "TCP", "port": 8080}]);
    let spec = json!({"podSelector": client, "policyTypes": ["Egress"], "egress": [{"ports": ports}]});
    policy("client", spec)?;
    wait::until_true("another port is denied", wait::PATIENCE, || Ok(!answers(&shop.client, shop.own(9000))))?;
    shop.mesh.daemon(B)?.wait_access("the denial where it leaves", |record| {
        record["side"] == "outbound" && record["reason"] == "policy_denied"
    })?;
    ensure!(shop.get(80, "/", &[])?.status == 200, "the port that is allowed");
    policy("client", json!({"podSelector": client, "policyTypes": ["Egress"]}))?;
    until("nothing may leave", &shop.client, &shop.url(80, "/"), is_denied)
}

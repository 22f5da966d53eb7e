//! What `mesh-node why` says, and what then happens.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Pod, ServiceSpec, env, wait};
use serde_json::{Value, json};

/// What the daemon of a node answers.
fn why(mesh: &Mesh, arguments: &[&str]) -> Result<Value> {
    let admin = mesh.daemon(A)?.admin().to_string();
    let mut command = mesh.node(A).ns().command(env::built("mesh-node")?);
    let output = command.args(["why", "--json", "--admin-addr", &admin]).args(arguments).output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "why {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&told).with_context(|| told)
}

/// Is it allowed, and who says so last?
fn verdict(answer: &Value) -> (bool, String) {
    let steps: Vec<&Value> = answer["ways"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|way| way["steps"].as_array().into_iter().flatten())
        .collect();
    let denied = steps.iter().find(|step| step["is_allowed"] == false);
    let last = denied.or(steps.last()).map(|step| step["by"].as_str().unwrap_or_default().to_owned());
    (denied.is_none() && !steps.is_empty(), last.unwrap_or_default())
}

/// The status that curl sees; 0 if the connection fails.
fn status(from: &Pod, method: &str, url: &str) -> u16 {
    from.ask(url, &["--request", method]).map_or(0, |seen| seen.status)
}

#[test]
fn the_answer_is_what_then_happens() -> Result<()> {
    let mesh = Mesh::builder("why").build()?;
    mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    let web = mesh.kube().service(ServiceSpec::new("shop/web").selector("app", "web").named("http", 80, 8080))?;
    let server = mesh.pod("shop/web-v1").on(A).account("web").label("app", "web").start()?;
    let mut echo = server.command(env::built("httpecho")?);
    let _echo = server.spawn(echo.args(["--name", "web-v1", "--listen", "[::]:8080"]), "httpecho")?;
    let client = mesh.pod("shop/client").on(B).account("client").start()?;
    let other = mesh.pod("shop/other").on(B).account("other").start()?;
    let stranger = mesh.pod("default/stranger").on(B).start()?;
    let readers = json!({
        "selector": {"matchLabels": {"app": "web"}}, "action": "ALLOW",
        "rules": [{
            "from": [{"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/read/*"]}}],
        }],
    });
    mesh.kube().authorization_policy("shop/readers", readers)?;
    let url = |path: &str| format!("http://{}{path}", web.address(80));
    wait::until_true("the policy is in force", wait::PATIENCE, || {
        Ok(status(&client, "GET", &url("/read/1")) == 200 && status(&client, "GET", &url("/")) == 403)
    })?;
    for (pod, name, method, path, seen, by) in [
        (&client, "shop/client", "GET", "/read/1", 200, "AuthorizationPolicy shop/readers, rules[0]"),
        (&client, "shop/client", "POST", "/read/1", 403, "no rule of the tier allow: AuthorizationPolicy shop/readers"),
        (&client, "shop/client", "GET", "/", 403, "no rule of the tier allow: AuthorizationPolicy shop/readers"),
        (&other, "shop/other", "GET", "/read/1", 403, "no rule of the tier allow: AuthorizationPolicy shop/readers"),
        (
            &stranger,
            "default/stranger",
            "GET",
            "/read/1",
            0,
            "plain text, where PeerAuthentication shop/default says STRICT; the source must be in the mesh",
        ),
    ] {
        let (is_allowed, told) = verdict(&why(&mesh, &[name, "shop/web", "80", method, path])?);
        let status = status(pod, method, &url(path));
        ensure!(
            status == seen && is_allowed == (seen == 200) && told == by,
            "{name} {method} {path}: {status}; {told}"
        );
    }
    let unclear = why(&mesh, &["shop/nobody", "shop/web", "80"]).expect_err("nobody is there");
    ensure!(format!("{unclear:#}").contains("there is no pod shop/nobody with an address"), "{unclear:#}");
    Ok(())
}

//! What `mesh-node why` says, and what then happens; and what it says of files, of which nothing runs.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Directory, Mesh, Pod, ServiceSpec, env, execute, wait};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

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
    let ways = answer["ways"].as_array().into_iter().flatten();
    let places = [&answer["entered"]].into_iter().chain(ways);
    let steps: Vec<&Value> = places.flat_map(|place| place["steps"].as_array().into_iter().flatten()).collect();
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

#[test]
fn what_becomes_of_a_request_that_enters_is_told() -> Result<()> {
    const PORT: u16 = 8081;
    let mesh = Mesh::builder("why edge").build()?;
    let kube = mesh.kube();
    kube.namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
    kube.peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
    let _web = kube.service(ServiceSpec::new("shop/web").selector("app", "web").named("http", 80, 8080))?;
    let server = mesh.pod("shop/web-v1").on(A).account("web").label("app", "web").start()?;
    let mut echo = server.command(env::built("httpecho")?);
    let _echo = server.spawn(echo.args(["--name", "web-v1", "--listen", "[::]:8080"]), "httpecho")?;
    let object = |kind: &str, name: &str, spec: Value| {
        let metadata = json!({"namespace": "shop", "name": name});
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    kube.apply(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "mesh"},
        "spec": {"controllerName": "mesh.internal/controller"},
    }))?;
    let listeners = json!([{"name": "web", "port": PORT, "protocol": "HTTP"}]);
    kube.apply(object("Gateway", "front", json!({"gatewayClassName": "mesh", "listeners": listeners})))?;
    let rewrite = json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}});
    kube.apply(object(
        "HTTPRoute",
        "web",
        json!({
            "parentRefs": [{"name": "front"}],
            "hostnames": ["shop.example"],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
                "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
                "backendRefs": [{"name": "web", "port": 80}],
            }],
        }),
    ))?;
    // Of the namespace, so also of its gateway; the pod is asked for the path that the route makes.
    let private = json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/shop/admin"]}}]}]});
    kube.authorization_policy("shop/private", private)?;
    let readers = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "rules": [{
            "from": [{"source": {"principals": ["*/sa/mesh-node"]}}],
            "to": [{"operation": {"paths": ["/ok"]}}],
        }],
    });
    kube.authorization_policy("shop/readers", readers)?;
    let status = |path: &str| {
        let url = format!("http://{}:{PORT}{path}", A.addresses()[0]);
        mesh.node(B).ns().ask(&url, &["-H", "Host: shop.example"]).map_or(0, |seen| seen.status)
    };
    wait::until_true("the gateway and the policies are in force", wait::PATIENCE, || {
        Ok((status("/shop/ok"), status("/shop/admin"), status("/shop/other")) == (200, 403, 403))
    })?;
    for (path, seen, by) in [
        ("/shop/ok", 200, "AuthorizationPolicy shop/readers, rules[0]"),
        ("/shop/admin", 403, "AuthorizationPolicy shop/private, rules[0]"),
        ("/shop/other", 403, "no rule of the tier allow: AuthorizationPolicy shop/readers"),
        ("/elsewhere", 404, ""),
    ] {
        let port = PORT.to_string();
        let answer = why(&mesh, &["outside", "gateway/shop/front", &port, "GET", path])?;
        let (is_allowed, told) = verdict(&answer);
        let answered = answer["route"]["answered"].as_str().unwrap_or_default();
        let is_allowed = is_allowed && answered.is_empty();
        ensure!(status(path) == seen && is_allowed == (seen == 200), "{path}: {} and {answer:#}", status(path));
        ensure!(if seen == 404 { answered.starts_with("404") } else { told == by }, "{path}: {answer:#}");
    }
    Ok(())
}

/// Two Deployments, a Service before the second, and who may do what.
const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: a}
spec: {template: {metadata: {labels: {app: a}}, spec: {serviceAccountName: a}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {namespace: shop, name: b}
spec: {template: {metadata: {labels: {app: b}}, spec: {containers: [{name: main, ports: [{name: http, containerPort: 8080}]}]}}}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: b}
spec: {selector: {app: b}, ports: [{name: http, port: 80, targetPort: http}]}
";
const POLICY: &str = r#"{
  "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"namespace": "shop", "name": "readers"},
  "spec": {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
}"#;

#[test]
fn manifests_are_asked_about_before_anything_runs_by_the_program_and_by_the_plugin() -> Result<()> {
    let scratch = Directory::new("why")?;
    let objects = scratch.path().join("objects");
    std::fs::create_dir_all(objects.join("policies"))?;
    std::fs::write(objects.join("shop.yaml"), MANIFESTS)?;
    std::fs::write(objects.join("policies/readers.json"), POLICY)?;
    std::fs::write(objects.join(".hidden.yaml"), "kind: [")?;
    // A kubectl that runs here what it is to run in a container.
    let kubectl = scratch.path().join("kubectl");
    std::fs::write(&kubectl, "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n")?;
    std::fs::set_permissions(&kubectl, Permissions::from_mode(0o755))?;
    let program = env::built("mesh-node")?;
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests").join("kubectl-mesh");
    let programs = program.parent().context("a directory of programs")?;
    let path = format!("{}:{}:/usr/bin:/bin", scratch.path().display(), programs.display());
    for (method, is_allowed) in [("GET", true), ("POST", false)] {
        let question = ["deploy/shop/a", "svc/shop/b", "80", method, "/"];
        let said = |command: &mut Command| {
            let command = command.arg("why").args(["--objects".as_ref(), objects.as_os_str()]).args(question);
            execute(command, wait::PATIENCE)?.success()
        };
        let here = said(&mut Command::new(&program))?;
        ensure!(here.contains("to a pod of Deployment shop/b at 198.18.0.2:8080"), "{here}");
        ensure!(here.ends_with(if is_allowed { "\nALLOWED\n" } else { "\nDENIED\n" }), "{method}: {here}");
        let there = said(Command::new(&plugin).env("PATH", &path))?;
        ensure!(here == there, "{here} is not what the plugin says: {there}");
    }
    let missing = execute(
        Command::new(&plugin).env("PATH", &path).args(["why", "--objects", "/none", "a", "b"]),
        wait::PATIENCE,
    )?;
    ensure!(missing.status.code() == Some(1) && missing.stderr.contains("/none is no directory"), "{missing:?}");
    Ok(())
}

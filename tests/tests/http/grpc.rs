//! gRPC by its own library, through the mesh: every kind of call, statuses, trailers, deadlines, and how messages are counted.

use crate::support::Shop;
use anyhow::{Context as _, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{ServiceSpec, env, wait};
use serde_json::{Value, json};

/// Calls `greeter` from the shop's client: which method, with what, how often, and how long it may take.
fn call(shop: &Shop, to: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = shop.client.command(env::tool("grpc-echo")?);
    let output = command.args(["call", to]).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what came of a call")
}

#[test]
fn every_kind_of_call_of_grpc_passes_with_its_status_trailers_and_deadline() -> Result<()> {
    let shop = Shop::open("http grpc", &["web-v1"])?;
    let pod = shop.mesh.pod("shop/greeter").on(A).account("greeter").label("app", "greeter").start()?;
    let mut serve = pod.command(env::tool("grpc-echo")?);
    let _server = pod.spawn(serve.args(["serve", "[::]:9000"]), "greeter")?;
    let service = ServiceSpec::new("shop/greeter").selector("app", "greeter").named("grpc", 90, 9000);
    let to = shop.mesh.kube().service(service)?.address(90).to_string();
    let method = |method: &str| json!({"method": {"service": "mesh.test.Echo", "method": method}});
    let matches = ["Unary", "Collect", "Spread", "Chat"].map(method);
    shop.mesh.kube().apply(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"namespace": "shop", "name": "greeter"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "greeter", "port": 90}],
            "rules": [{
                "matches": matches,
                "backendRefs": [{"name": "greeter", "port": 90}],
            }],
        },
    }))?;
    wait::until_true("a call is routed and answered", wait::PATIENCE, || {
        let answered = call(&shop, &to, &["unary", "begin"]).is_ok_and(|came| came["answers"] == json!(["begin"]));
        let routed = |record: &Value| record["route"].as_str().is_some_and(|route| route.contains("GRPCRoute"));
        Ok(answered && shop.mesh.daemon(B)?.access_log()?.iter().any(routed))
    })?;

    let daemon = shop.mesh.daemon(B)?;
    let of = |status: &'static str| {
        [
            ("reporter", "source"),
            ("destination_workload", "greeter"),
            ("request_protocol", "grpc"),
            ("grpc_response_status", status),
        ]
    };
    let messages = |which: &str| daemon.metric(&format!("istio_{which}_messages_total"), &of("0"));
    let collected = ["a"; 30].join(",");
    for (arguments, answers, (asked, answered)) in [
        (["unary", "hello", "1"], json!(["hello"]), (1.0, 1.0)),
        (["collect", "a", "30"], json!([collected]), (30.0, 1.0)),
        (["spread", "x*200", "1"], json!((vec!["x"; 200])), (1.0, 200.0)),
        // Each message is answered before the next is sent, and grpc-go measures the way with a PING for each.
        (["chat", "c", "2000"], json!((vec!["c"; 2000])), (2000.0, 2000.0)),
    ] {
        let before = (messages("request")?, messages("response")?);
        let came = call(&shop, &to, &arguments)?;
        ensure!(came["code"] == 0 && came["answers"] == answers, "{arguments:?}: {came}");
        ensure!(
            came["trailers"]["x-served-by"] == json!(["mesh.test.Echo"]),
            "{arguments:?}: trailers are lost: {came}"
        );
        daemon.wait_metric("istio_request_messages_total", &of("0"), before.0 + asked)?;
        daemon.wait_metric("istio_response_messages_total", &of("0"), before.1 + answered)?;
        let passed = (messages("request")? - before.0, messages("response")? - before.1);
        ensure!(passed == (asked, answered), "{arguments:?}: {passed:?} messages were counted");
    }

    let denied = call(&shop, &to, &["unary", "fail 7"])?;
    ensure!(denied["code"] == 7 && denied["message"] == "as it was asked for", "{denied}");
    daemon.wait_metric("istio_requests_total", &of("7"), 1.0)?;
    let amid = call(&shop, &to, &["chat", "fail 9", "3"])?;
    ensure!(amid["code"] == 9 && amid["answers"] == json!([]), "{amid}");
    let late = call(&shop, &to, &["unary", "wait", "1", "300ms"])?;
    ensure!(late["code"] == 4, "no deadline: {late}");
    let bad = daemon.metric("mesh_proxy_bad_http_total", &[])?;
    ensure!(bad == 0.0, "{bad} times what gRPC's own library did counts as abuse");

    pod.set_ready(false)?;
    wait::until_true("nobody is there", wait::PATIENCE, || Ok(call(&shop, &to, &["unary", "x"])?["code"] == 14))
}

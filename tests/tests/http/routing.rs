//! Where requests go when users say so, in either API.

use crate::support::{Shop, curl};
use anyhow::{Result, ensure};
use mesh_tests::wait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn virtual_service(http: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"hosts": ["web"], "http": http},
    })
}

fn subsets() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"host": "web", "subsets": [
            {"name": "v1", "labels": {"version": "v1"}},
            {"name": "v2", "labels": {"version": "v2"}},
        ]},
    })
}

fn to(subset: &str) -> Value {
    json!([{"destination": {"host": "web", "subset": subset}}])
}

fn http_route(rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}], "rules": rules},
    })
}

impl Shop {
    /// Which servers answer so many requests.
    fn spread(&self, requests: u32, arguments: &[&str]) -> Result<BTreeMap<String, u32>> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            *counts.entry(self.get(80, "/", arguments)?.server()?).or_default() += 1;
        }
        Ok(counts)
    }

    /// Applies `object` and waits until `path` is answered with `status` and this header.
    fn apply(&self, object: Value, (path, status): (&str, u16)) -> Result<()> {
        self.mesh.kube().apply(object)?;
        wait::until_true(&format!("{path} is answered {status}"), wait::PATIENCE, || {
            Ok(self.get(80, path, &[])?.status == status)
        })
    }
}

#[test]
fn istio_routes_by_version_header_and_weight() -> Result<()> {
    let shop = Shop::open("http istio", &["web-v1", "web-v2"])?;
    shop.mesh.kube().apply(subsets())?;
    // A marker path tells when a version of the object is in force.
    let with = |marker: &str, rules: Value| {
        let mut http = vec![json!({"match": [{"uri": {"exact": marker}}], "directResponse": {"status": 299}})];
        http.extend(rules.as_array().cloned().unwrap_or_default());
        virtual_service(json!(http))
    };
    shop.apply(with("/one", json!([{"route": to("v1")}])), ("/one", 299))?;
    ensure!(shop.spread(20, &[])? == BTreeMap::from([("web-v1".into(), 20)]), "not all to v1");

    let jason = json!([
        {"match": [{"headers": {"end-user": {"exact": "jason"}}}], "route": to("v2")},
        {"route": to("v1")},
    ]);
    shop.apply(with("/two", jason), ("/two", 299))?;
    ensure!(shop.spread(10, &["-H", "end-user: jason"])? == BTreeMap::from([("web-v2".into(), 10)]), "jason");
    ensure!(shop.spread(10, &["-H", "end-user: other"])? == BTreeMap::from([("web-v1".into(), 10)]), "others");

    let split = json!([{"route": [
        {"destination": {"host": "web", "subset": "v1"}, "weight": 90},
        {"destination": {"host": "web", "subset": "v2"}, "weight": 10},
    ]}]);
    shop.apply(with("/three", split), ("/three", 299))?;
    let counts = shop.spread(200, &[])?;
    let second = counts.get("web-v2").copied().unwrap_or(0);
    // Of 200 at one tenth, fewer than 5 or more than 40 come once in some hundred thousand runs.
    ensure!((5..=40).contains(&second), "{counts:?}");
    Ok(())
}

#[test]
fn istio_injects_faults_rewrites_and_mirrors() -> Result<()> {
    let shop = Shop::open("http faults", &["web-v1", "web-v2"])?;
    shop.mesh.kube().apply(subsets())?;
    let rules = json!([
        {"match": [{"uri": {"prefix": "/abort"}}],
         "fault": {"abort": {"httpStatus": 555, "percentage": {"value": 100}}}, "route": to("v1")},
        {"match": [{"uri": {"prefix": "/delay"}}],
         "fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 100}}}, "route": to("v1")},
        {"match": [{"uri": {"prefix": "/old"}}], "rewrite": {"uri": "/new", "authority": "other"},
         "headers": {"request": {"set": {"x-set": "1"}, "remove": ["user-agent"]}, "response": {"add": {"x-added": "2"}}},
         "route": to("v1")},
        {"match": [{"uri": {"prefix": "/copied"}}], "route": to("v1"),
         "mirror": {"host": "web", "subset": "v2"}, "mirrorPercentage": {"value": 100}},
        {"match": [{"uri": {"prefix": "/waits"}}], "route": to("v1"), "timeout": "0.3s"},
        {"match": [{"uri": {"prefix": "/moved"}}], "redirect": {"uri": "/there", "redirectCode": 302}},
        {"route": to("v1")},
    ]);
    shop.apply(virtual_service(rules), ("/abort", 555))?;
    let started = Instant::now();
    ensure!(shop.get(80, "/delay", &[])?.status == 200 && started.elapsed() >= Duration::from_secs(1), "no delay");
    let seen = shop.get(80, "/old/path?q", &[])?;
    let told = seen.told()?;
    ensure!(told["path"] == "/new/path?q" && told["host"] == "other", "{told}");
    ensure!(told["headers"]["x-set"] == json!(["1"]) && told["headers"]["user-agent"].is_null(), "{told}");
    ensure!(seen.headers.get("x-added").is_some_and(|value| value == "2"), "{seen:?}");
    let late = shop.get(80, "/waits/2000", &[])?;
    ensure!(late.status == 504, "{late:?}");
    let moved = shop.get(80, "/moved", &[])?;
    ensure!(moved.status == 302 && moved.headers.get("location").is_some_and(|to| to.ends_with("/there")), "{moved:?}");

    ensure!(shop.get(80, "/copied", &["--data", "body"])?.server()? == "web-v1", "the copy answered");
    let (second, _) = &shop.pods[1];
    wait::until_true("the copy arrives at v2", wait::PATIENCE, || {
        let url = format!("http://{}/seen", second.address(8080));
        Ok(serde_json::from_str::<Value>(&second.curl(&url)?)?["/copied"] == 1)
    })
}

#[test]
fn gateway_api_routes_match_filter_and_refuse() -> Result<()> {
    let shop = Shop::open("http gateway", &["web-v1"])?;
    let rules = json!([
        {"matches": [{"path": {"type": "Exact", "value": "/exact"}, "headers": [{"name": "x-kind", "value": "a"}]}],
         "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-rule", "value": "exact"}]}}],
         "backendRefs": [{"name": "web", "port": 80}]},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/prefix"}}],
         "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/p"}}}],
         "backendRefs": [{"name": "web", "port": 80}]},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/gone"}}], "backendRefs": [{"name": "nobody", "port": 80}]},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/to"}}],
         "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "example.org", "statusCode": 301}}]},
    ]);
    shop.apply(http_route(rules), ("/gone", 500))?;
    let exact = shop.get(80, "/exact", &["-H", "x-kind: a"])?;
    ensure!(exact.headers.get("x-rule").is_some_and(|rule| rule == "exact"), "{exact:?}");
    ensure!(shop.get(80, "/exact", &[])?.status == 404, "a header that must match was not asked for");
    ensure!(shop.get(80, "/prefix/x", &[])?.told()?["path"] == "/p/x", "not rewritten");
    ensure!(shop.get(80, "/prefixed", &[])?.status == 404, "a prefix is one of elements");
    let moved = shop.get(80, "/to/x", &[])?;
    let location = moved.headers.get("location").cloned().unwrap_or_default();
    ensure!(moved.status == 301 && location == "http://example.org/to/x", "{moved:?}");
    // Another port of the service has no routes.
    ensure!(shop.get(82, "/anything", &[])?.status == 200, "the route holds for a port that it does not name");
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    let shop = Shop::open("itself", &["web-v1"])?;
    let (pod, _) = &shop.pods[0];
    let raw = mesh_tests::ServiceSpec::new("shop/raw").selector("app", "web").named("tcp", 90, 8080);
    let raw = shop.mesh.kube().service(raw)?.address(90);
    // Requests that are routed, requests that are told by their first bytes, and bytes that nobody looks at.
    for url in [shop.url(80, "/"), shop.url(82, "/"), format!("http://{raw}/")] {
        let what = format!("the pod reaches itself by {url}");
        wait::until_true(&what, wait::PATIENCE, || Ok(curl(pod, &url, &[]).is_ok_and(|seen| seen.status == 200)))?;
        ensure!(curl(pod, &url, &[])?.server()? == "web-v1", "{url}");
    }
    Ok(())
}

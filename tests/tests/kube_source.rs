//! The daemon and a real API server: what is applied arrives, and nothing is forgotten when either goes away.

use anyhow::{Context, Result, bail, ensure};
use mesh_common::cni::{Attachment, Request, Response};
use mesh_tests::{ApiServer, DAEMON, Daemon, NetNs, execute, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

/// How long a thing may take that needs a start of the API server or a pause between tries.
const PATIENCE: Duration = Duration::from_secs(60);
/// The address of the pod that is enrolled.
const WEB: &str = "10.244.1.7";
/// The address of the pod that comes while the API server is away.
const NEW: &str = "10.244.1.9";

/// An API server with a namespace in the mesh.
fn api_server(name: &str, flags: &[&str]) -> Result<ApiServer> {
    let api = ApiServer::start_with(name, flags)?;
    api.allow_as_installed()?;
    let metadata = json!({"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}});
    api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))?;
    Ok(api)
}

fn resume(api: &ApiServer) -> Result<()> {
    api.resume()?;
    wait::until_true("the API server is ready", PATIENCE, || api.is_ready())
}

fn restart(api: &ApiServer) -> Result<()> {
    api.stop();
    resume(api)
}

/// A pod on the daemon's node, as it is before the kubelet reports its address.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"nodeName": "a", "containers": [{"name": "main", "image": "none"}]},
    })
}

/// A definition of namespaced objects, of which none is refused.
fn definition(group: &str, kind: &str, plural: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // The API server wants that of groups of Kubernetes.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn strict(name: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"mtls": {"mode": "STRICT"}},
    })
}

/// The workload of a pod as the daemon understands it.
fn workload(daemon: &Daemon, name: &str) -> Result<Option<Value>> {
    let model = daemon.debug("model")?;
    let workloads = model["workloads"].as_array().context("no workloads")?;
    Ok(workloads.iter().find(|workload| workload["name"] == name).cloned())
}

fn wait_workload(daemon: &Daemon, name: &str, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Result<()> {
    wait::until_true(&format!("{name} {what}"), PATIENCE, || Ok(workload(daemon, name)?.is_some_and(|w| holds(&w))))
}

/// What `mesh-node status` says beside the daemon.
fn status(api: &ApiServer, daemon: &Daemon) -> Result<String> {
    let mut command = api.command(mesh_tests::env::built("mesh-node")?);
    execute(command.args(["status", "--admin-addr", &daemon.admin().to_string()]), PATIENCE)?.success()
}

/// A sandbox as the container runtime makes it.
fn sandbox(api: &ApiServer, pod: &str, address: &str) -> Result<NetNs> {
    let ns = api.namespace(pod)?;
    for line in [
        "link add eth0 type veth peer name peer0",
        &format!("address add {address}/32 dev eth0"),
        "link set eth0 up",
        "link set peer0 up",
        "route add default dev eth0",
    ] {
        ns.run("ip", line.split(' '))?;
    }
    Ok(ns)
}

fn attachment(ns: &NetNs, pod: &str, address: &str) -> Result<Attachment> {
    Ok(Attachment {
        container_id: format!("sandbox-of-{pod}"),
        ifname: "eth0".to_owned(),
        netns: ns.path().to_string_lossy().into_owned(),
        pod_namespace: "shop".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: None,
        addresses: vec![address.parse()?],
    })
}

/// Begins a request at the daemon's socket.
fn ask(api: &ApiServer, request: &Request) -> Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(api.socket()).context("the CNI socket")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(BufReader::new(stream))
}

fn answer(mut stream: BufReader<UnixStream>) -> Result<Response> {
    let mut line = String::new();
    stream.read_line(&mut line).context("no answer in time")?;
    serde_json::from_str(&line).with_context(|| format!("the answer {line:?}"))
}

#[test]
fn what_is_applied_arrives_and_what_is_deleted_goes() -> Result<()> {
    let api = api_server("kube-objects", &[])?;
    api.apply(&pod("early"))?;
    let daemon = api.ready_daemon(&[])?;
    ensure!(daemon.knows("Pod", "shop/early")?, "it is ready without a pod that was there before");
    ensure!(daemon.metric("mesh_source_relists_total", &[("kind", "Pod")])? < 1.5, "pods are listed once");

    // Calico's annotation gives the address until the status has one.
    let mut web = pod("web");
    web["metadata"]["annotations"] = json!({"cni.projectcalico.org/podIP": format!("{WEB}/32"), "other": "dropped"});
    api.apply(&web)?;
    wait_workload(&daemon, "shop/web", "has the annotated address", |web| web["addresses"] == json!([WEB]))?;
    web["status"] = json!({"phase": "Running", "podIP": "10.244.1.8", "podIPs": [{"ip": "10.244.1.8"}]});
    api.apply(&web)?;
    wait_workload(&daemon, "shop/web", "has the address of its status", |web| {
        web["addresses"] == json!(["10.244.1.8"])
    })?;

    // A pod that has ended is nobody.
    let mut job = pod("job");
    api.apply(&job)?;
    daemon.wait_known("Pod", "shop/job", true)?;
    job["status"] = json!({"phase": "Succeeded"});
    api.apply(&job)?;
    daemon.wait_known("Pod", "shop/job", false)?;
    api.delete(["pod", "early", "--namespace", "shop"])?;
    daemon.wait_known("Pod", "shop/early", false)?;

    let metadata = json!({"namespace": "shop", "name": "web"});
    let ports = json!([{"name": "http", "port": 80}]);
    api.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}))?;
    daemon.wait_known("Service", "shop/web", true)?;
    let labels = json!({"kubernetes.io/service-name": "web"});
    api.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.244.1.8"]}],
    }))?;
    daemon.wait_known("EndpointSlice", "shop/web-1", true)?;

    // A kind that nobody has defined is no obstacle, and is watched as soon as somebody does.
    for _ in 0..2 {
        api.apply(&definition("security.istio.io", "PeerAuthentication", "peerauthentications"))?;
        wait::until_true("the definition is served", PATIENCE, || Ok(api.apply(&strict("default")).is_ok()))?;
        daemon.wait_known("PeerAuthentication", "shop/default", true)?;
        api.apply(&strict("other"))?;
        daemon.wait_known("PeerAuthentication", "shop/other", true)?;
        // An object that cannot be read is an issue, and no other is held up by it.
        let mut odd = strict("other");
        odd["spec"] = json!(5);
        api.apply(&odd)?;
        wait::until_true("the odd object is an issue", PATIENCE, || {
            let issues = daemon.debug("snapshot")?["issues"].to_string();
            Ok(issues.contains("PeerAuthentication shop/other") && issues.contains("it cannot be read"))
        })?;
        ensure!(daemon.knows("PeerAuthentication", "shop/other")?, "what was read of it before holds");
        api.delete(["peerauthentication", "other", "--namespace", "shop"])?;
        daemon.wait_known("PeerAuthentication", "shop/other", false)?;
        api.delete(["customresourcedefinition", "peerauthentications.security.istio.io"])?;
        daemon.wait_known("PeerAuthentication", "shop/default", false)?;
    }

    let pods = daemon.metric("mesh_source_objects", &[("kind", "Pod")])?;
    ensure!((pods - 1.0).abs() < f64::EPSILON, "one pod is left, and {pods} are counted");
    ensure!(daemon.metric("mesh_source_last_event_timestamp_seconds", &[("kind", "Pod")])? > 1e9, "no time");
    let page = status(&api, &daemon)?;
    ensure!(page.contains("Kubernetes API\n"), "the API server is not in\n{page}");
    Ok(())
}

#[test]
fn a_deletion_that_nobody_told_of_is_not_missed() -> Result<()> {
    let api = api_server("kube-outages", &[])?;
    for name in ["stays", "goes"] {
        api.apply(&pod(name))?;
    }
    let daemon = api.ready_daemon(&[])?;

    // An API server that restarts is connected again, from where the watches were.
    api.stop();
    wait::until_true("the outage is counted", PATIENCE, || {
        Ok(daemon.metric("mesh_source_connected", &[("kind", "Pod")])? < 0.5)
    })?;
    wait::until_true("the outage is an issue", PATIENCE, || {
        Ok(daemon.debug("snapshot")?["issues"].to_string().contains("it does not answer"))
    })?;
    ensure!(daemon.get("/readyz")?.status == 200, "what was known stays in force");
    ensure!(daemon.knows("Pod", "shop/goes")?, "what was known is known");
    resume(&api)?;
    api.apply(&pod("later"))?;
    daemon.wait_known("Pod", "shop/later", true)?;
    wait::until_true("the outage is over", PATIENCE, || {
        Ok(!daemon.debug("snapshot")?["issues"].to_string().contains("it does not answer"))
    })?;
    let relists = daemon.metric("mesh_source_relists_total", &[("kind", "Pod")])?;
    ensure!((relists - 1.0).abs() < f64::EPSILON, "pods were listed {relists} times: the watch did not go on");

    // A daemon that slept while the history was forgotten lists again.
    daemon.signal(Signal::SIGSTOP)?;
    // Its watches end, and what happens afterwards is not told to it.
    restart(&api)?;
    api.delete(["pod", "goes", "--namespace", "shop"])?;
    api.apply(&pod("came"))?;
    api.compact()?;
    // Nor does the API server remember.
    restart(&api)?;
    daemon.signal(Signal::SIGCONT)?;
    daemon.wait_known("Pod", "shop/came", true)?;
    daemon.wait_known("Pod", "shop/goes", false)?;
    ensure!(daemon.knows("Pod", "shop/stays")?, "a pod that stays is known");
    let relists = daemon.metric("mesh_source_relists_total", &[("kind", "Pod")])?;
    ensure!(relists > 1.5, "the history was not forgotten, so the test proves nothing");
    Ok(())
}

#[test]
fn a_missing_permission_is_named_with_its_cure() -> Result<()> {
    let api = api_server("kube-forbidden", &[])?;
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let rules = [rule("", &["namespaces", "services"]), rule("discovery.k8s.io", &["endpointslices"])];
    api.allow(None, DAEMON, &json!(rules))?;
    let daemon = api.daemon(&[])?;
    let cure = "let the daemon's ClusterRole give the verbs `list` and `watch` on `pods`";
    wait::until_true("the cure is in /readyz", PATIENCE, || {
        let Ok(answer) = daemon.get("/readyz") else { return Ok(false) };
        ensure!(answer.status == 503, "it is ready without pods");
        Ok(answer.body.contains(cure) && answer.body.contains("cannot watch resource"))
    })?;
    ensure!(daemon.metric("mesh_source_watch_errors_total", &[("kind", "Pod")])? >= 1.0, "it is not counted");
    api.allow_as_installed()?;
    daemon.ready()
}

#[test]
fn a_daemon_starts_with_what_it_knew_while_the_api_server_is_away() -> Result<()> {
    let api = api_server("kube-saved", &[])?;
    // An earlier daemon has told the other nodes of it.
    let mut announced = pod("web");
    announced["metadata"]["annotations"] = json!({"mesh.internal/steered-by": "kubeconfig"});
    for pod in [&announced, &pod("gone")] {
        api.apply(pod)?;
    }
    let daemon = api.ready_daemon(&[])?;
    for name in ["web", "gone"] {
        wait_saved(&api, name)?;
    }
    daemon.terminate()?;
    daemon.wait(PATIENCE)?;
    drop(daemon);

    // It is deleted while nobody looks, and the API server goes away.
    api.delete(["pod", "gone", "--namespace", "shop"])?;
    api.apply(&pod("new"))?;
    api.stop();
    let daemon = api.ready_daemon(&[])?;
    ensure!(daemon.knows("Pod", "shop/gone")?, "the saved world is in force");
    ensure!((daemon.metric("mesh_source_stale", &[])? - 1.0).abs() < f64::EPSILON, "it is not said to be stale");
    let page = status(&api, &daemon)?;
    ensure!(page.contains("NOT HEARD YET, objects of an earlier run are in force"), "it is not said in\n{page}");
    ensure!(daemon.log().contains("WARN"), "nobody is warned");

    // A pod that was in the mesh can start anew; one that is not known waits.
    let web_ns = sandbox(&api, "web", WEB)?;
    let web = attachment(&web_ns, "web", WEB)?;
    let response = answer(ask(&api, &Request::Add(web.clone()))?)?;
    ensure!(response == Response::Ok, "a pod that is known: {response:?}");
    let new_ns = sandbox(&api, "new", NEW)?;
    let new = attachment(&new_ns, "new", NEW)?;
    let waiting = ask(&api, &Request::Add(new.clone()))?;
    let check = answer(ask(&api, &Request::Check(new))?)?;
    ensure!(matches!(check, Response::Error { retriable: true, .. }), "a pod that is not known: {check:?}");

    resume(&api)?;
    daemon.wait_known("Pod", "shop/gone", false)?;
    wait::until_true("what is known is of now", PATIENCE, || Ok(daemon.metric("mesh_source_stale", &[])? < 0.5))?;
    ensure!(daemon.knows("Pod", "shop/web")? && daemon.knows("Pod", "shop/new")?, "what is there is known");
    let response = answer(waiting)?;
    ensure!(response == Response::Ok, "a pod that was not known: {response:?}");
    let check = answer(ask(&api, &Request::Check(web))?)?;
    ensure!(check == Response::Ok, "the pod is as it was: {check:?}");
    Ok(())
}

/// Waits until a pod is on disk.
fn wait_saved(api: &ApiServer, name: &str) -> Result<()> {
    let saved = api.dir().join("state/world/Pod.jsonl");
    wait::until_true(&format!("{name} is saved"), PATIENCE, || {
        Ok(std::fs::read_to_string(&saved).is_ok_and(|text| text.contains(&format!("\"name\":\"{name}\""))))
    })
}

#[test]
fn what_a_daemon_learned_last_is_known_to_the_next_one_however_it_ends() -> Result<()> {
    let api = api_server("kube-last", &[])?;
    api.apply(&pod("first"))?;
    let daemon = api.ready_daemon(&[])?;
    // The world is saved as soon as it is whole. Until it is saved again some seconds pass, in which a daemon is told to stop.
    wait_saved(&api, "first")?;
    api.apply(&pod("second"))?;
    daemon.wait_known("Pod", "shop/second", true)?;
    daemon.terminate()?;
    daemon.wait(PATIENCE)?;
    drop(daemon);
    api.stop();
    let daemon = api.ready_daemon(&[])?;
    ensure!(daemon.knows("Pod", "shop/second")?, "what was learned last before SIGTERM is forgotten");

    // A daemon whose knowledge is of an earlier run saves what it hears, and is killed.
    resume(&api)?;
    api.apply(&pod("third"))?;
    wait_saved(&api, "third")?;
    api.stop();
    daemon.kill()?;
    drop(daemon);
    let daemon = api.ready_daemon(&[])?;
    for name in ["shop/first", "shop/second", "shop/third"] {
        ensure!(daemon.knows("Pod", name)?, "{name} is forgotten");
    }
    Ok(())
}

/// Lets the daemon read these Secrets, as the chart does.
fn allow_secrets(api: &ApiServer, names: &[&str]) -> Result<()> {
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["list", "watch"]});
    api.allow(Some("shop"), "mesh-edge", &json!([rule]))
}

#[test]
fn secrets_are_read_one_by_one_and_are_on_no_disk() -> Result<()> {
    let api = api_server("kube-secrets", &[])?;
    allow_secrets(&api, &["page"])?;
    let secret = |name: &str| {
        let metadata = json!({"namespace": "shop", "name": name});
        let data = json!({"tls.crt": "no certificate", "tls.key": "unmistakable"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
    };
    for name in ["page", "other", "unnamed"] {
        api.apply(&secret(name))?;
    }
    let daemon = api.ready_daemon(&["--edge-certificate", "shop/page,shop/other,shop/page"])?;
    let known = |name: &str| daemon.knows("Secret", &format!("shop/{name}"));
    ensure!(known("page")? && !known("other")? && !known("unnamed")?, "{}", daemon.debug("world")?);
    wait::until_true("what may not be read is an issue", PATIENCE, || {
        let issues = daemon.debug("snapshot")?["issues"].to_string();
        Ok(issues.contains("Secret shop/other") && issues.contains("may not be listed and watched"))
    })?;
    api.delete(["secret", "page", "--namespace", "shop"])?;
    daemon.wait_known("Secret", "shop/page", false)?;
    allow_secrets(&api, &["page", "other"])?;
    api.apply(&secret("page"))?;
    for name in ["shop/page", "shop/other"] {
        daemon.wait_known("Secret", name, true)?;
    }

    api.apply(&pod("last"))?;
    wait_saved(&api, "last")?;
    let kept = execute(
        Command::new("grep").args(["-rl", "-e", "dW5taXN0YWthYmxl", "-e", "unmistakable"]).arg(api.dir().join("state")),
        PATIENCE,
    )?;
    ensure!(kept.status.code() == Some(1), "a key is on the disk: {kept:?}");
    Ok(())
}

#[test]
fn an_api_server_that_cannot_stream_is_listed_in_pages() -> Result<()> {
    /// More than two pages.
    const MANY: u32 = 1100;

    let api = api_server("kube-pages", &["--feature-gates=WatchList=false"])?;
    let slices: Vec<Value> = (0..MANY)
        .map(|number| {
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"namespace": "shop", "name": format!("slice-{number}")},
                "addressType": "IPv4",
                "endpoints": [],
            })
        })
        .collect();
    api.apply(&json!({"apiVersion": "v1", "kind": "List", "items": slices}))?;
    let daemon = api.ready_daemon(&[])?;
    let counted = daemon.metric("mesh_source_objects", &[("kind", "EndpointSlice")])?;
    ensure!((counted - f64::from(MANY)).abs() < 0.5, "it is ready with {counted} of {MANY}");
    let last = format!("slice-{}", MANY - 1);
    api.delete(["endpointslice", &last, "--namespace", "shop"])?;
    daemon.wait_known("EndpointSlice", &format!("shop/{last}"), false)?;
    ensure!(daemon.knows("EndpointSlice", "shop/slice-0")?, "the others are known");
    Ok(())
}

/// Connects from a sandbox to where a policy denies it.
fn is_denied(ns: &NetNs) -> Result<()> {
    let to = "10.244.1.77:8080".parse()?;
    // The reset may come before the connection is known to be made.
    let Ok(mut stream) = ns.enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?)) else { return Ok(()) };
    stream.set_read_timeout(Some(PATIENCE))?;
    ensure!(stream.read(&mut [0]).is_err(), "what is denied is not reset");
    Ok(())
}

/// The Events that tell of denials.
fn denials(api: &ApiServer) -> Result<Vec<Value>> {
    let told = "get events.events.k8s.io --namespace shop --field-selector reason=MeshDenied --output json";
    let list: Value = serde_json::from_str(&api.kubectl(told.split(' '))?.success()?)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

#[test]
fn a_pod_gets_an_event_for_what_a_policy_denies_it_and_not_one_for_each_time() -> Result<()> {
    let api = api_server("kube-denials", &[])?;
    api.apply(&pod("web"))?;
    api.apply(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "captive"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }))?;
    let daemon = api.ready_daemon(&[])?;
    let ns = sandbox(&api, "web", WEB)?;
    let response = answer(ask(&api, &Request::Add(attachment(&ns, "web", WEB)?))?)?;
    ensure!(response == Response::Ok, "{response:?}");

    for _ in 0..5 {
        is_denied(&ns)?;
    }
    wait::until_true("the pod gets an Event", PATIENCE, || Ok(!denials(&api)?.is_empty()))?;
    wait::until_true("the others are counted", PATIENCE, || {
        Ok(daemon.metric("mesh_status_denials_untold_total", &[("why", "told_already")])? > 3.5)
    })?;
    let events = denials(&api)?;
    let [event] = &events[..] else { bail!("{} Events for five denials: {events:#?}", events.len()) };
    ensure!(event["type"] == "Warning" && event["regarding"]["name"] == "web", "{event:#}");
    ensure!(event["related"]["kind"] == "NetworkPolicy" && event["related"]["name"] == "captive", "{event:#}");
    // The log, the metric and the Event say the same.
    let record = daemon.wait_access("the denial", |record| record["reason"] == "policy_denied")?;
    let (detail, note) = (record["detail"].as_str().context("a detail")?, event["note"].as_str().context("a note")?);
    ensure!(note == format!("To 10.244.1.77:8080: {detail} (policy_denied)"), "{note:?} and {detail:?}");
    let rule = event["related"]["fieldPath"].as_str().context("a rule")?;
    let labels = [("policy", "NetworkPolicy shop/captive"), ("rule", rule), ("verdict", "denied")];
    ensure!(daemon.metric("mesh_policy_verdicts_total", &labels)? > 4.5, "{rule} is not counted");
    Ok(())
}

/// Asks for a host at a port of gateways; the head of the answer.
#[expect(clippy::disallowed_methods, reason = "it is a client, not the daemon")]
fn ask_edge(api: &ApiServer, port: u16, host: &str) -> Result<String> {
    api.enter(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

#[test]
fn a_gateway_gets_an_event_for_what_a_policy_denies_at_it() -> Result<()> {
    const GATEWAY_API: &str = "gateway.networking.k8s.io";
    const ISTIO: &str = "networking.istio.io";
    const PORT: u16 = 8088;

    let api = api_server("kube-edge", &[])?;
    for (group, kind, plural) in [
        (GATEWAY_API, "Gateway", "gateways"),
        (GATEWAY_API, "HTTPRoute", "httproutes"),
        (ISTIO, "Gateway", "gateways"),
        (ISTIO, "VirtualService", "virtualservices"),
        ("security.istio.io", "AuthorizationPolicy", "authorizationpolicies"),
    ] {
        api.apply(&definition(group, kind, plural))?;
    }
    let mut classes = definition(GATEWAY_API, "GatewayClass", "gatewayclasses");
    classes["spec"]["scope"] = "Cluster".into();
    api.apply(&classes)?;
    let daemon = api.ready_daemon(&[])?;
    let object = |group: &str, kind: &str, name: &str, spec: Value| {
        let metadata = json!({"namespace": "shop", "name": name});
        json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": metadata, "spec": spec})
    };
    let listener = json!({"name": "web", "port": PORT, "protocol": "HTTP"});
    let route = json!({"parentRefs": [{"name": "front"}], "hostnames": ["front.example"], "rules": [{}]});
    let servers = json!([{"port": {"number": PORT, "name": "web", "protocol": "HTTP"}, "hosts": ["door.example"]}]);
    let http = json!([{"directResponse": {"status": 200}}]);
    let service = json!({"hosts": ["door.example"], "gateways": ["door"], "http": http});
    let ingress = json!({"selector": {"matchLabels": {"istio": "ingressgateway"}}});
    let mut root = object("security.istio.io", "AuthorizationPolicy", "ingress", ingress);
    root["metadata"]["namespace"] = "istio-system".into();
    let mut class = object(GATEWAY_API, "GatewayClass", "mesh", json!({"controllerName": "mesh.internal/controller"}));
    class["metadata"] = json!({"name": "mesh"});
    api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}))?;
    for object in [
        class,
        object(GATEWAY_API, "Gateway", "front", json!({"gatewayClassName": "mesh", "listeners": [listener]})),
        object(GATEWAY_API, "HTTPRoute", "front", route),
        object(ISTIO, "Gateway", "door", json!({"selector": {"istio": "ingressgateway"}, "servers": servers})),
        object(ISTIO, "VirtualService", "door", service),
        // Nothing enters by the gateway of this namespace.
        object("security.istio.io", "AuthorizationPolicy", "nothing", json!({"action": "DENY", "rules": [{}]})),
        // After that one, which so has the first word on its gateway.
        root,
    ] {
        wait::until_true("the definition is served", PATIENCE, || Ok(api.apply(&object).is_ok()))?;
    }
    let is_denied = |host: &str| ask_edge(&api, PORT, host).is_ok_and(|answer| answer.starts_with("HTTP/1.1 403 "));
    for host in ["front.example", "door.example"] {
        wait::until_true(&format!("{host} is denied"), PATIENCE, || Ok(is_denied(host)))?;
        ensure!((0..3).all(|_| is_denied(host)), "{host} is served again");
    }
    wait::until_true("both gateways get an Event", PATIENCE, || Ok(denials(&api)?.len() > 1))?;
    let events = denials(&api)?;
    for (group, name, policy) in [(GATEWAY_API, "front", "nothing"), (ISTIO, "door", "ingress")] {
        let resource = format!("gateways.{group}");
        let uid = ["get", &resource, name, "--namespace", "shop", "--output", "jsonpath={.metadata.uid}"];
        let uid = api.kubectl(uid)?.success()?;
        let of: Vec<_> = events.iter().filter(|event| event["regarding"]["uid"] == uid.trim()).collect();
        let [event] = &of[..] else { bail!("{} Events for four denials at {name}: {events:#?}", of.len()) };
        let regarding = &event["regarding"];
        ensure!(regarding["apiVersion"] == format!("{group}/v1") && regarding["kind"] == "Gateway", "{event:#}");
        ensure!(event["type"] == "Warning" && event["related"]["name"] == policy, "{event:#}");
        let note = event["note"].as_str().context("a note")?;
        let words = format!("From 127.0.0.1 to port {PORT} for {name}.example: denied by ");
        ensure!(note.starts_with(&words) && note.ends_with(" (policy_denied)"), "{note}");
    }
    ensure!(
        daemon.metric("mesh_status_denials_untold_total", &[("why", "told_already")])? > 5.5,
        "the others are counted"
    );
    Ok(())
}

#[test]
fn the_suite_says_what_is_missing() -> Result<()> {
    // A negative control: the programs are there, and they are what they are called.
    let tools = mesh_tests::tools::kube()?;
    let version = execute(Command::new(&tools.apiserver).arg("--version"), PATIENCE)?.success()?;
    ensure!(version.starts_with("Kubernetes v1."), "the API server says {version}");
    Ok(())
}

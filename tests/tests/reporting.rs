//! What users are told of their gateways, from a daemon that listens to a status: a real API server, the daemon, and the reporter
//! with the rights that it is installed with.
//!
//! Source: Gateway API `GatewayStatus`, `ListenerStatus`.

use anyhow::{Context, Result, ensure};
use mesh_tests::{ADMIN, ApiServer, Process, env, execute, tools, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a condition may take: an election, and pauses between tries to open a port.
const PATIENCE: Duration = Duration::from_secs(60);
const SYSTEM: &str = "mesh-system";
const API: &str = "gateway.networking.k8s.io/v1";
/// The daemon's own pod, and the address of its node.
const DAEMON_POD: &str = "mesh-node-x";
const ADDRESS: &str = "192.0.2.7";

/// An API server with the Gateway API, what the reporter may do, and the pod of a daemon.
struct Stage {
    api: ApiServer,
}

impl Stage {
    fn start(name: &str) -> Result<Self> {
        let own = Self { api: ApiServer::start(name)? };
        let definitions = tools::gateway_api()?.display().to_string();
        own.kubectl(&["create", "--filename", &definitions])?;
        wait::until_established("--all", |arguments| own.api.kubectl(arguments.iter().copied()))?;
        own.api.allow_as_installed()?;
        for namespace in [SYSTEM, "shop"] {
            own.api.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
        }
        for object in installed("mesh-reporter")? {
            own.api.apply(&object)?;
        }
        own.api.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": SYSTEM, "name": DAEMON_POD, "labels": {"app.kubernetes.io/name": "mesh-node"}},
            "spec": {"nodeName": "a", "hostNetwork": true, "containers": [{"name": "main", "image": "none"}]},
        }))?;
        own.ready(true)?;
        own.api.apply(&json!({
            "apiVersion": API, "kind": "GatewayClass", "metadata": {"name": "mesh"},
            "spec": {"controllerName": "mesh.internal/controller"},
        }))?;
        Ok(own)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.api.kubectl(arguments.iter().copied())?.success()
    }

    /// What the kubelet says of the daemon's pod.
    fn ready(&self, ready: bool) -> Result<()> {
        let conditions = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
        let status = json!({"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "conditions": conditions});
        let patch = json!({"status": status}).to_string();
        let pod = ["patch", "pod", DAEMON_POD, "--namespace", SYSTEM];
        self.kubectl(&[&pod[..], &["--subresource=status", "--patch", &patch]].concat()).map(drop)
    }

    fn gateway(&self, listeners: &Value) -> Result<()> {
        self.api.apply(&json!({
            "apiVersion": API, "kind": "Gateway", "metadata": {"namespace": "shop", "name": "front"},
            "spec": {"gatewayClassName": "mesh", "listeners": listeners},
        }))
    }

    /// The reporter, with a token of its service account.
    fn reporter(&self) -> Result<Process> {
        let token = self.kubectl(&["create", "token", "mesh-reporter", "--namespace", SYSTEM])?;
        let mut config: Value = serde_json::from_str(&fs::read_to_string(self.api.kubeconfig(ADMIN))?)?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path: PathBuf = self.api.dir().join("reporter.kubeconfig");
        fs::write(&path, config.to_string())?;
        let mut command = self.api.command(env::built("mesh-node")?);
        command.args(["report", "--name", "one", "--namespace", SYSTEM, "--admin-addr", "127.0.0.1:15900"]);
        command.arg("--kubeconfig").arg(path);
        Process::start(&mut command, &self.api.dir().join("reporter.log"))
    }

    fn status(&self) -> Result<Value> {
        let gateway = self.kubectl(&["get", "gateway", "front", "--namespace", "shop", "--output=json"])?;
        let gateway: Value = serde_json::from_str(&gateway).context("kubectl prints no JSON")?;
        let mut status = gateway["status"].clone();
        let generation = &gateway["metadata"]["generation"];
        let all = conditions(&status).chain(listeners(&status).flat_map(conditions));
        let is_of_now = all.map(|of| &of["observedGeneration"]).all(|of| of == generation);
        status["is_of_now"] = json!(is_of_now);
        Ok(status)
    }

    /// Waits until this is said of the gateway itself, under no name, and of its listeners by their names.
    fn told(&self, expected: &[(&str, &[&str])]) -> Result<Value> {
        let expected: BTreeMap<String, Vec<String>> = expected
            .iter()
            .map(|(name, words)| ((*name).to_owned(), words.iter().map(|word| (*word).to_owned()).collect()))
            .collect();
        let look = || {
            let status = self.status()?;
            Ok((status["is_of_now"] == true && said(&status) == expected).then_some(status))
        };
        wait::until(&format!("it is told {expected:?}"), PATIENCE, look)
            .with_context(|| format!("{:#}", self.status().unwrap_or_default()))
    }
}

fn conditions(of: &Value) -> impl Iterator<Item = &Value> {
    of["conditions"].as_array().into_iter().flatten()
}

fn listeners(status: &Value) -> impl Iterator<Item = &Value> {
    status["listeners"].as_array().into_iter().flatten()
}

/// Conditions as `Type=Status/Reason`, by the listener.
fn said(status: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |of: &Value| -> Vec<String> {
        let word = |of: &Value| format!("{}={}/{}", text(&of["type"]), text(&of["status"]), text(&of["reason"]));
        conditions(of).map(word).collect()
    };
    let of_listeners = listeners(status).map(|listener| (text(&listener["name"]), words(listener)));
    std::iter::once((String::new(), words(status))).chain(of_listeners).collect()
}

/// The objects of this name that users install, but for what runs.
fn installed(name: &str) -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/mesh.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found = Vec::new();
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).context("the manifest")?;
        if object["metadata"]["name"] == name && object["kind"] != "Deployment" {
            found.push(object);
        }
    }
    ensure!(found.len() >= 5, "{name} has no rights in the manifest: {found:?}");
    Ok(found)
}

const ACCEPTED: &str = "Accepted=True/Accepted";
const RESOLVED: &str = "ResolvedRefs=True/ResolvedRefs";
const OPEN: &str = "Programmed=True/Programmed";
const SHUT: &str = "Programmed=False/Invalid";
const FREE: &str = "Conflicted=False/NoConflicts";
const FINE: &[&str] = &[ACCEPTED, RESOLVED, OPEN, FREE];

#[test]
fn a_gateway_is_programmed_once_the_daemons_listen_and_no_longer() -> Result<()> {
    let stage = Stage::start("reporting")?;
    let http = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    stage.gateway(&json!([
        http("http", 18080),
        {"name": "tcp", "port": 18081, "protocol": "TCP"},
        {"name": "https", "port": 18443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "page"}]}},
    ]))?;
    // The reporter alone does not know.
    let _reporter = stage.reporter()?;
    let pending = "Programmed=False/Pending";
    let unsupported: &[&str] = &["Accepted=False/UnsupportedProtocol", RESOLVED, SHUT, FREE];
    let silent: &[&str] = &[ACCEPTED, RESOLVED, pending, FREE];
    let partly = "Accepted=True/ListenersNotValid";
    stage.told(&[("", &[partly, pending]), ("http", silent), ("tcp", unsupported), ("https", silent)])?;

    // The daemon listens where it can, and says that it has no certificate.
    let daemon = stage.api.ready_daemon(&["--pod-name", DAEMON_POD, "--namespace", SYSTEM])?;
    let uncertified: &[&str] = &[ACCEPTED, "ResolvedRefs=False/InvalidCertificateRef", SHUT, FREE];
    stage.told(&[("", &[partly, SHUT]), ("http", FINE), ("tcp", unsupported), ("https", uncertified)])?;
    let mut curl = stage.api.command("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "http://127.0.0.1:18080/"]);
    let code = execute(&mut curl, PATIENCE)?.success()?;
    ensure!(code == "404", "without routes a request is answered {code}");

    // Without what cannot be, all of it is open, at the address of the daemon's node.
    stage.gateway(&json!([http("http", 18080)]))?;
    let status = stage.told(&[("", &[ACCEPTED, OPEN]), ("http", FINE)])?;
    ensure!(status["addresses"] == json!([{"type": "IPAddress", "value": ADDRESS}]), "{status:#}");

    // A port that another program has, until it has it no more.
    let taken = stage.api.enter(|| Ok(TcpListener::bind(("0.0.0.0", 18082))?))?;
    stage.gateway(&json!([http("http", 18080), http("busy", 18082)]))?;
    let busy: &[&str] = &["Accepted=False/PortUnavailable", RESOLVED, SHUT, FREE];
    stage.told(&[("", &[ACCEPTED, SHUT]), ("http", FINE), ("busy", busy)])?;
    drop(taken);
    stage.told(&[("", &[ACCEPTED, OPEN]), ("http", FINE), ("busy", FINE)])?;

    // What a daemon told that is away does not hold.
    drop(daemon);
    stage.ready(false)?;
    let status = stage.told(&[("", &[ACCEPTED, pending]), ("http", silent), ("busy", silent)])?;
    ensure!(status["addresses"] == json!([]), "{status:#}");
    Ok(())
}

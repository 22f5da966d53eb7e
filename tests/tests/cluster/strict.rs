//! What Kubernetes does with pods that take nothing but mutual TLS.

use crate::support::{Pod, START, Space, client, container, mutual_edges, pod, server};
use crate::witness::until;
use anyhow::{Context, Result, ensure};
use mesh_tests::wait;
use serde_json::{Value, json};
use std::time::Duration;

/// As long as the kubelet takes to give a probe up: three times a second, and a reserve.
const PROBED: &str = "--timeout=30s";

/// A server on port 8080 with a probe of a kind, asked every second.
fn probed(mut pod: Value, probe: Value) -> Value {
    let main = &mut pod["spec"]["containers"][0];
    for kind in ["readinessProbe", "livenessProbe", "startupProbe"] {
        main[kind] = probe.clone();
        main[kind]["periodSeconds"] = json!(1);
        main[kind]["failureThreshold"] = json!(3);
    }
    pod
}

/// The kubelet is content with a pod, and always was.
fn undisturbed(space: &Space, pod: &Pod) -> Result<()> {
    let path = "--output=jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
    let state = space.kubectl(&["get", "pod", &pod.name, path])?;
    ensure!(state == "0 true", "{} with probes: {state}", pod.name);
    Ok(())
}

#[test]
fn probes_of_the_kubelet_pass_and_nobody_else_does() -> Result<()> {
    let space = Space::new("strict", true)?;
    space.strict()?;
    let outside = Space::new("strict-outside", false)?;
    let [stranger] = outside.pods([client("stranger", "node2")])?;
    let pods = space.pods([
        probed(server("by-http", "node1"), json!({"httpGet": {"path": "/cgi-bin/who", "port": 8080}})),
        probed(server("by-tcp", "node2"), json!({"tcpSocket": {"port": 8080}})),
        probed(
            server("by-exec", "node1"),
            json!({"exec": {"command": ["wget", "-q", "-O", "-", "http://127.0.0.1:8080/cgi-bin/who"]}}),
        ),
        client("asker", "node2"),
    ])?;
    let [by_http, by_tcp, by_exec, asker] = &pods;
    for server in [by_http, by_tcp, by_exec] {
        let host = format!("{}:8080", server.address);
        ensure!(space.who(&asker.name, &host)?.0 == server.name, "{host} is another");
        until(&space.cluster, "a pod outside the mesh is refused", wait::PATIENCE, || {
            Ok(outside.who(&stranger.name, &host).is_err())
        })?;
        space.event(&server.name, "MeshDenied")?;
    }
    for pod in [by_http, by_tcp, by_exec] {
        undisturbed(&space, pod)?;
    }
    Ok(())
}

#[test]
fn probes_by_grpc_pass_and_are_heard_to_the_end() -> Result<()> {
    let space = Space::new("strict-grpc", true)?;
    space.strict()?;
    let outside = Space::new("strict-grpc-outside", false)?;
    let [stranger] = outside.pods([client("stranger", "node1")])?;
    let asked = |name: &str, node: &str, service: &str| {
        let health = pod(name, node, &["httpecho", "--name", name]);
        probed(health, json!({"grpc": {"port": 8080, "service": service}}))
    };
    // What it is asked for it does not know, and says so.
    space.apply(&[asked("ill", "node1", "another")])?;
    let pods =
        space.pods([asked("first", "node1", "first"), asked("second", "node2", ""), client("asker", "node2")])?;
    let [first, second, asker] = &pods;
    for server in [first, second] {
        let url = format!("http://{}:8080/", server.address);
        let ask = ["timeout", "5", "wget", "-q", "-O", "-", &url];
        let said = space.exec(&asker.name, &ask)?;
        ensure!(said.contains(&format!("\"server\":\"{}\"", server.name)), "{url} says {said}");
        ensure!(outside.exec(&stranger.name, &ask).is_err(), "a pod outside the mesh is served by {url}");
        undisturbed(&space, server)?;
    }
    let events = ["get", "events", "--field-selector=involvedObject.name=ill", "--output=jsonpath={.items[*].message}"];
    until(&space.cluster, "the kubelet hears that a service is not known", START, || {
        Ok(space.kubectl(&events)?.contains("code = NotFound"))
    })
}

#[test]
fn the_first_packet_of_an_init_container_is_in_the_mesh() -> Result<()> {
    let space = Space::new("init", true)?;
    space.strict()?;
    let [web] = space.pods([server("web", "node1")])?;
    let host = format!("http://{}:8080/cgi-bin/who", web.address);
    let ask = ["wget", "-q", "-O", "-", &host];
    let mut early = pod("early", "node2", &["sleep", "1000000"]);
    early["spec"]["initContainers"] = json!([container("first", &ask)]);
    // One attempt: whoever came before the mesh would be refused, and the pod would fail.
    early["spec"]["restartPolicy"] = json!("Never");
    let [early] = space.pods([early])?;
    let said = space.kubectl(&["logs", &early.name, "--container=first"])?;
    ensure!(said.contains(&early.address.to_string()), "the init container was served as {said:?}");
    until(&space.cluster, "the init container spoke mutual TLS", wait::PATIENCE, || {
        Ok(mutual_edges(&space.cluster, space.cluster.nodes(), &space.name)? == 1)
    })
}

#[test]
fn jobs_end_and_sidecars_of_kubernetes_run_before_and_after() -> Result<()> {
    let space = Space::new("jobs", true)?;
    space.strict()?;
    let [web] = space.pods([server("web", "node1")])?;
    let host = format!("http://{}:8080/cgi-bin/who", web.address);
    let mut sidecar = container("sidecar", &["httpd", "-f", "-p", "8081", "-h", "/www"]);
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({"tcpSocket": {"port": 8081}, "periodSeconds": 1});
    let work = ["sh", "-c", &format!("wget -q -O - {host} && wget -q -O - http://127.0.0.1:8081/cgi-bin/who")];
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "nodeName": "node2", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "initContainers": [sidecar], "containers": [container("main", &work)],
        }}},
    });
    space.apply(&[job])?;
    space
        .kubectl(&["wait", "--for=condition=Complete", "job/work", PROBED])
        .with_context(|| space.kubectl(&["describe", "pods"]).unwrap_or_default())?;
    until(&space.cluster, "the Job's pod has ended", Duration::from_secs(30), || {
        let phase = space.kubectl(&[
            "get",
            "pods",
            "--selector=job-name=work",
            "--output=jsonpath={.items[*].status.phase}",
        ])?;
        Ok(phase == "Succeeded")
    })
}

#[test]
fn pods_of_a_stateful_set_and_of_the_hosts_network_are_reached_by_name() -> Result<()> {
    let space = Space::new("stateful", true)?;
    space.strict()?;
    let template = server("db", "node1");
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(null);
    let objects = [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 8080}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {
                "serviceName": "db", "replicas": 2, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": spec},
            },
        }),
    ];
    space.apply(&objects)?;
    let mut host = pod("host", "node1", &["httpd", "-f", "-p", "18080", "-h", "/www"]);
    host["spec"]["hostNetwork"] = json!(true);
    let [asker, host] = space.pods([client("asker", "node2"), host])?;
    space.kubectl(&["rollout", "status", "statefulset/db", PROBED])?;
    for name in ["db-0", "db-1"] {
        let (server, client) = space.who(&asker.name, &format!("{name}.db.stateful.svc.cluster.local:8080"))?;
        ensure!((server.as_str(), client) == (name, asker.address.to_string()), "{name} answers as {server}");
    }
    let (server, _) = space.who(&asker.name, &format!("{}:18080", host.address))?;
    ensure!(server == host.node, "a pod of the host's network answers as {server}");
    let system =
        space.cluster.kubectl(["-n", "kube-system", "get", "events", "--output=jsonpath={.items[*].reason}"])?;
    ensure!(!system.contains("Mesh"), "a pod of kube-system was touched: {system}");
    Ok(())
}

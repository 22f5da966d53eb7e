//! The mesh may do what it does, and nothing else.
//!
//! In:  the roles that its manifest makes; the API server's audit log, which has every request of its service accounts; what the
//!      kernel lets a daemon do.
//! Source: Kubernetes `audit.k8s.io/v1`, "Event"; RBAC, "Referring to resources"; `proc_pid_status(5)`, `capabilities(7)`.

use crate::support::{START, SYSTEM, Space, client, daemon, server};
use anyhow::{Context, Result, ensure};
use mesh_tests::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is allowed for what does not happen in this cluster, or not every time.
const RARELY: &[&str] = &[
    // The API server streams lists; older ones are asked for them.
    " list ",
    // Asking for certificates, and publishing roots, where the kinds for that are not served.
    " certificatesigningrequests",
    " configmaps",
    // An authority that rotates.
    "mesh-signer update clustertrustbundles.",
    "mesh-signer update secrets",
    // A kind that nobody has defined.
    " customresourcedefinitions.",
    // A daemon's end; an Event that happens again.
    "mesh-node get daemonsets.",
    "mesh-node patch events.",
    // Asked of signers by admission, not by requests.
    " signers.",
];

/// Every request of the mesh so far: who, what, and whether it was refused.
fn requests(space: &Space) -> Result<(BTreeSet<String>, Vec<String>)> {
    let logs = space.cluster.nodes()[0].logs().parent().context("logs are in no directory")?;
    let log = logs.join("control/audit.log");
    let text = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let (mut made, mut refused) = (BTreeSet::new(), Vec::new());
    // Whoever uninstalls the mesh takes its rights first; what counts is asked by those that are there now.
    let born = ["-n", SYSTEM, "get", "daemonset", "mesh-node", "--output=jsonpath={.metadata.creationTimestamp}"];
    let born = space.cluster.kubectl(born)?;
    // The last line may be half written.
    for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let (user, object) = (event["user"]["username"].as_str().unwrap_or_default(), &event["objectRef"]);
        let Some(account) = user.strip_prefix("system:serviceaccount:mesh-system:") else { continue };
        let field = |name: &str| object[name].as_str().unwrap_or_default();
        let Some(verb) = event["verb"].as_str().filter(|_| object.is_object()) else { continue };
        let request = right(account, field("apiGroup"), &slashed(field("resource"), field("subresource")), verb);
        // A namespace that ends refuses too, and says so with the same code.
        let since = event["requestReceivedTimestamp"].as_str().is_some_and(|time| time >= born.as_str());
        if since && event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            refused.push(format!("{request}: {}", event["responseStatus"]["message"]));
        }
        made.insert(request);
    }
    Ok((made, refused))
}

fn slashed(resource: &str, part: &str) -> String {
    if part.is_empty() { resource.to_owned() } else { format!("{resource}/{part}") }
}

fn right(account: &str, group: &str, resource: &str, verb: &str) -> String {
    format!("{account} {verb} {resource}.{group}").trim_end_matches('.').to_owned()
}

/// Every right that the roles give.
fn granted(space: &Space) -> Result<BTreeSet<String>> {
    let mut granted = BTreeSet::new();
    for kind in ["clusterroles", "roles"] {
        let text = space.cluster.kubectl(["-n", SYSTEM, "get", kind, "--output=json"])?;
        let roles: Value = serde_json::from_str(&text).context("kubectl prints no JSON")?;
        for role in roles["items"].as_array().into_iter().flatten() {
            let name = role["metadata"]["name"].as_str().unwrap_or_default();
            if !name.starts_with("mesh-") {
                continue;
            }
            let own = ["mesh-signer", "mesh-reporter"].into_iter().find(|own| *own == name);
            let account = own.unwrap_or("mesh-node");
            for rule in role["rules"].as_array().into_iter().flatten() {
                let words = |field: &str| rule[field].as_array().cloned().unwrap_or_default();
                for (group, resource) in words("apiGroups")
                    .iter()
                    .flat_map(|group| words("resources").into_iter().map(move |resource| (group.clone(), resource)))
                {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let (group, resource) = (text(&group), text(&resource));
                    granted.extend(words("verbs").iter().map(|verb| right(account, &group, &resource, &text(verb))));
                }
            }
        }
    }
    Ok(granted)
}

#[test]
fn the_mesh_may_do_what_it_does_and_nothing_else() -> Result<()> {
    let space = Space::new("rights", true)?;
    space.strict()?;
    let [web, asker] = space.pods([server("web", "node1"), client("asker", "node2")])?;
    space.event(&web.name, "MeshJoined")?;
    let _class = crate::standing::routed(&space)?;
    space.who(&asker.name, &format!("{}:8080", web.address))?;
    let granted = granted(&space)?;
    ensure!(granted.len() > 20, "the roles are not there: {granted:?}");
    let rare = |right: &String| RARELY.iter().any(|part| right.contains(part));
    wait::until_true("every right is used", START, || {
        let (made, refused) = requests(&space)?;
        ensure!(refused.is_empty(), "refused: {refused:#?}");
        let idle: Vec<_> = granted.difference(&made).filter(|right| !rare(right)).collect();
        Ok(idle.is_empty())
    })
    .with_context(|| {
        let made = requests(&space).map(|(made, _)| made).unwrap_or_default();
        format!("never used: {:#?}", granted.difference(&made).filter(|right| !rare(right)).collect::<Vec<_>>())
    })
}

/// The annotation by which a node says that a pod is in the mesh.
const ANNOUNCED: &str = "mesh.internal/steered-by";

#[test]
fn a_daemon_may_announce_its_own_nodes_pods_and_change_nothing_else_of_pods() -> Result<()> {
    let space = Space::new("announced", true)?;
    let [ours, theirs] = space.pods([client("ours", "node1"), client("theirs", "node2")])?;
    let announced = || {
        let path = format!("--output=jsonpath={{.metadata.annotations.{}}}", ANNOUNCED.replace('.', "\\."));
        space.kubectl(&["get", "pod", &ours.name, &path])
    };
    let installation = announced()?;
    let account = ["-n", SYSTEM, "get", "serviceaccount", "mesh-node", "--output=jsonpath={.metadata.uid}"];
    ensure!(installation == space.cluster.kubectl(account)?, "a pod that runs is announced as {installation:?}");

    let patch = |pod: &str, subresource: &[&str], patch: Value| {
        let daemon = [
            "--as=system:serviceaccount:mesh-system:mesh-node",
            "--as-user-extra=authentication.kubernetes.io/node-name=node1",
            "--validate=ignore",
        ];
        let mut object = patch;
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["metadata"]["name"] = json!(pod);
        object["metadata"]["namespace"] = json!(space.name);
        space.cluster.apply_tried(&object.to_string(), daemon.iter().chain(subresource))
    };
    let status = ["--subresource=status"];
    let annotations = |key: &str| json!({"metadata": {"annotations": {key: "something"}}});
    for (pod, subresource, what, why) in [
        (&theirs, &status[..], annotations(ANNOUNCED), "a daemon may announce pods of its own node only"),
        (&ours, &status, annotations("some.other/annotation"), "a daemon may change no annotation but"),
        (&ours, &status, annotations("mesh.internal/listening"), "and mesh.internal/listening of daemons"),
        (&ours, &status, json!({"metadata": {"labels": {"some": "label"}}}), "a daemon may change no label"),
        (&ours, &status, json!({"status": {"reason": "Evicted"}}), "a daemon may change no label, finalizer or status"),
        (&ours, &[], annotations(ANNOUNCED), "cannot patch resource \"pods\""),
    ] {
        let output = patch(&pod.name, subresource, what.clone())?;
        ensure!(!output.status.success() && output.stderr.contains(why), "{what} of {}: {output:?}", pod.name);
    }
    // What somebody else wrote into it does not last.
    let output = patch(&ours.name, &status, annotations(ANNOUNCED))?;
    ensure!(output.status.success(), "{output:?}");
    wait::until_true("the daemon says again that the pod is in the mesh", START, || Ok(announced()? == installation))
}

/// `CAP_NET_BIND_SERVICE`, `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`.
const CAPABILITIES: u64 = 1 << 10 | 1 << 12 | 1 << 21;

#[test]
fn a_daemon_is_not_privileged() -> Result<()> {
    let space = Space::new("unprivileged", false)?;
    for node in space.cluster.nodes() {
        let daemon = daemon(node)?;
        let file = |name: &str| node.exec("cat", [format!("/proc/{daemon}/{name}")])?.success();
        let status = file("status")?;
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            let has = u64::from_str_radix(line(set).unwrap_or_default(), 16).context("capabilities")?;
            ensure!(has == CAPABILITIES, "{set} {has:x} on {}, not {CAPABILITIES:x}", node.name());
        }
        ensure!(line("NoNewPrivs:") == Some("1") && line("Seccomp:") == Some("2"), "{status}");
        let mounts = file("mountinfo")?;
        let is_read_only = |at: &str| {
            let mount = mounts.lines().rev().find(|line| line.split(' ').nth(4) == Some(at));
            mount
                .and_then(|mount| mount.split(' ').nth(5))
                .is_some_and(|options| options.split(',').any(|of| of == "ro"))
        };
        for path in ["/", "/proc/sys", "/sys", "/host/cgroup"] {
            ensure!(is_read_only(path), "{path} can be written on {}: {mounts}", node.name());
        }
    }
    Ok(())
}

//! Proves that the cluster does what the suites build on.
//!
//! In:  a cluster that is up.
//! Out: a line for each thing that holds; the first that does not is the error.
//! Invariant: every policy's denial is seen beside the same request allowed, before and after.

use super::layout::{Layout, NODES, Node};
use super::wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::fs;
use std::time::Duration;

const NAMESPACE: &str = "bench-check";
/// How long Calico or kube-proxy may take to follow a change.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long any command may take.
const SLOWEST: Duration = Duration::from_secs(90);

/// A pod of the check.
struct Pod {
    node: &'static Node,
    name: String,
    address: String,
}

/// Runs the check.
///
/// **Errors**: something does not hold.
pub(super) fn run(layout: &Layout) -> Result<()> {
    let check = Check { layout };
    check.remove()?;
    let outcome = check.everything();
    let removed = check.remove();
    outcome.and(removed)
}

struct Check<'layout> {
    layout: &'layout Layout,
}

impl Check<'_> {
    fn everything(&self) -> Result<()> {
        self.apply(include_str!("check.yaml"))?;
        self.kubectl(&["rollout", "status", "daemonset/web", "--timeout=60s"])?;
        let pods = NODES.iter().map(|node| self.pod(node)).collect::<Result<Vec<_>>>()?;
        let [first, second] = &pods[..] else {
            bail!("there are {} pods, one on each of two nodes wanted", pods.len())
        };
        for (from, to) in [(first, second), (second, first)] {
            self.inside(from, &["ping", "-c", "1", "-W", "3", &to.address])?;
            self.answers(from, &to.address, 8080, to.node.name)?;
            say(&format!("the pod on {} reaches the one on {}", from.node.name, to.node.name));
        }
        let service = self.kubectl(&["get", "service", "web", "--output", "jsonpath={.spec.clusterIP}"])?;
        for pod in &pods {
            self.reaches_both(pod, &service)?;
            self.reaches_both(pod, "web.bench-check.svc.cluster.local")?;
            self.cgroup(pod)?;
        }
        say("both pods reach both, by the Service's address and by its name");
        say("every pod is below its node's cgroup v2");
        self.policy(first, second)
    }

    /// A denial takes effect, and is over when it is taken away.
    fn policy(&self, client: &Pod, server: &Pod) -> Result<()> {
        let policy = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
            "metadata": {"name": "nobody", "namespace": NAMESPACE},
            "spec": {"selector": "app == 'web'", "types": ["Ingress"], "ingress": [{"action": "Deny"}]},
        });
        self.answers(client, &server.address, 8080, server.node.name)?;
        let file = self.layout.dir().join("manifests/check-policy.json");
        fs::write(&file, policy.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        wait::output(self.layout.calicoctl().arg("apply").arg("-f").arg(&file), SLOWEST)?;
        wait::until("Calico's denial takes effect", PATIENCE, || Ok(self.ask(client, &server.address, 8080).is_err()))?;
        wait::output(self.layout.calicoctl().arg("delete").arg("-f").arg(&file), SLOWEST)?;
        wait::until("Calico's denial ends with its policy", PATIENCE, || {
            Ok(self.ask(client, &server.address, 8080).is_ok())
        })?;
        say("a policy of Calico denies, until it is deleted");
        Ok(())
    }

    /// Programs that the mesh attaches to its node's cgroup see the pod's connections.
    fn cgroup(&self, pod: &Pod) -> Result<()> {
        let cgroups = self.inside(pod, &["cat", "/proc/1/cgroup"])?;
        let below = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
        let below = below.with_context(|| format!("{} is in no cgroup v2", pod.name))?;
        ensure!(!below.starts_with("/.."), "{} is in the cgroup {below}, which is not below its node's", pod.name);
        Ok(())
    }

    /// Both servers of the Service answer, each now and then.
    fn reaches_both(&self, pod: &Pod, service: &str) -> Result<()> {
        let mut missing: Vec<_> = NODES.iter().map(|node| node.name).collect();
        wait::until(&format!("the pod on {} reaches both by {service}", pod.node.name), PATIENCE, || {
            let answer = self.ask(pod, service, 80).unwrap_or_default();
            missing.retain(|node| *node != answer);
            Ok(missing.is_empty())
        })
    }

    fn answers(&self, from: &Pod, host: &str, port: u16, expected: &str) -> Result<()> {
        let answer = self.ask(from, host, port)?;
        ensure!(answer == expected, "{host}:{port} answers {answer:?} to the pod on {}", from.node.name);
        Ok(())
    }

    fn ask(&self, from: &Pod, host: &str, port: u16) -> Result<String> {
        // Debian's `wget -T` of busybox ends by a signal.
        self.inside(from, &["timeout", "2", "wget", "-q", "-O", "-", &format!("http://{host}:{port}/")])
    }

    fn pod(&self, node: &'static Node) -> Result<Pod> {
        let on = format!("--field-selector=spec.nodeName={}", node.name);
        let path = "--output=jsonpath={.items[0].metadata.name} {.items[0].status.podIP}";
        let found = self.kubectl(&["get", "pods", "--selector=app=web", &on, path])?;
        let (name, address) = found.split_once(' ').with_context(|| format!("no pod on {}", node.name))?;
        Ok(Pod { node, name: name.to_owned(), address: address.to_owned() })
    }

    fn inside(&self, pod: &Pod, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["exec", &pod.name, "--"];
        arguments.extend(command);
        self.kubectl(&arguments)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = wait::output(self.layout.kubectl().args(["--namespace", NAMESPACE]).args(arguments), SLOWEST)?;
        Ok(output.trim().to_owned())
    }

    fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.layout.dir().join("manifests/check.yaml");
        fs::write(&file, manifest).with_context(|| format!("cannot write {}: is the cluster up?", file.display()))?;
        wait::output(self.layout.kubectl().arg("apply").arg("-f").arg(&file), SLOWEST).map(drop)
    }

    fn remove(&self) -> Result<()> {
        let delete = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"];
        wait::output(self.layout.kubectl().args(delete), SLOWEST).map(drop)
    }
}

fn say(what: &str) {
    println!("ok       {what}");
}

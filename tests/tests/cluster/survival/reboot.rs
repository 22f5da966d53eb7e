//! What becomes of a node's pods when the node loses power and boots, alone or with parts missing.
//!
//! In:  `cargo xtask cluster reboot`, by which a node keeps its disk and nothing else.
//! Source: `mesh-node/ARCHITECTURE.md`, "Restart". Pods of kube-system pass without the daemon, all others wait.

use super::{Outage, wait_saved};
use crate::support::{Pod, START, Space, client, mutual_edges, page, pod, rolled_out, server};
use crate::witness::until;
use anyhow::{Context, Result, ensure};
use mesh_tests::cluster::{Cluster, ClusterNode};
use mesh_tests::{env, execute, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a node may take to boot.
const BOOT: Duration = Duration::from_secs(180);
/// The node that loses power.
const LOST: &str = "node1";
/// The namespace whose pods a node needs to boot.
const EXEMPT: &str = "kube-system";

/// A file of the cluster, or of what was built for it.
fn built(path: &str) -> Result<PathBuf> {
    Ok(env::programs()?.parent().context("programs are in no directory")?.join(path))
}

/// `cargo xtask cluster`.
fn cluster(arguments: &[&str]) -> Result<String> {
    execute(Command::new(env::built("xtask")?).arg("cluster").args(arguments), BOOT)?.success()
}

/// The container that a pod runs and whether it is ready, or nothing.
fn container(cluster: &Cluster, namespace: &str, pod: &str) -> Result<String> {
    let path = "--output=jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].ready}";
    cluster.kubectl(["-n", namespace, "get", "pod", pod, path])
}

/// Waits until a pod runs something else than before.
fn runs(cluster: &Cluster, namespace: &str, pod: &str, before: &str) -> Result<()> {
    until(cluster, &format!("{pod} runs"), BOOT, || {
        let now = container(cluster, namespace, pod)?;
        Ok(now != before && now.ends_with(" true"))
    })
    .with_context(|| cluster.kubectl(["-n", namespace, "describe", "pod", pod]).unwrap_or_default())
}

/// Pods on the node that loses power, and on the other; the first one demands mutual TLS.
struct Scene {
    space: Space,
    outside: Space,
    web: Pod,
    back: Pod,
    asker: Pod,
    other: Pod,
    /// What each pod of the node ran before.
    before: Vec<String>,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let space = Space::new(name, true)?;
        space.strict()?;
        let outside = Space::beside(Cluster::attach()?, &format!("{name}-outside"), false)?;
        outside.pods([client("stranger", "node2")])?;
        let [web, back, asker, other] = space.pods([
            server("web", LOST),
            client("back", LOST),
            client("asker", "node2"),
            server("other", "node2"),
        ])?;
        let mut own = Self { space, outside, web, back, asker, other, before: Vec::new() };
        let ran = [&own.web, &own.back].map(|pod| container(&own.space.cluster, name, &pod.name));
        own.before = ran.into_iter().collect::<Result<_>>()?;
        own.is_as_it_should()?;
        Ok(own)
    }

    fn reboot(&mut self, how: &[&str]) -> Result<()> {
        cluster(&[&["reboot", LOST], how].concat())?;
        self.space.cluster = Cluster::attach()?;
        self.outside.cluster = Cluster::attach()?;
        Ok(())
    }

    /// Waits until the node's pods run again.
    fn pods_are_back(&mut self) -> Result<()> {
        for (pod, before) in [&self.web, &self.back].into_iter().zip(&self.before) {
            runs(&self.space.cluster, &self.space.name, &pod.name, before)?;
        }
        self.web = self.space.pod("web")?;
        self.back = self.space.pod("back")?;
        Ok(())
    }

    /// Pods of the mesh reach each other across nodes and are seen as who they are; nobody else is served.
    fn is_as_it_should(&self) -> Result<()> {
        for (from, to) in [(&self.asker, &self.web), (&self.back, &self.other)] {
            let host = format!("{}:8080", to.address);
            let expected = (to.name.clone(), from.address.to_string());
            let mut said = None;
            until(&self.space.cluster, &format!("{} is served by {}", from.name, to.name), START, || {
                let now = said.insert(self.space.who(&from.name, &host));
                Ok(now.as_ref().is_ok_and(|said| *said == expected))
            })
            .with_context(|| format!("{said:?} instead of {expected:?}"))?;
        }
        let host = format!("{}:8080", self.web.address);
        ensure!(self.outside.who("stranger", &host).is_err(), "a pod outside the mesh is served by {}", self.web.name);
        // The daemon of the node that boots counts from nothing.
        let lost = [self.space.cluster.node(LOST)?];
        until(&self.space.cluster, "somebody came by mutual TLS", wait::PATIENCE, || {
            Ok(mutual_edges(&self.space.cluster, lost, &self.space.name)? > 0)
        })
    }

    /// A gauge of the node's daemon.
    fn gauge(&self, name: &str) -> Result<String> {
        let text = page(&self.space.cluster, self.space.cluster.node(LOST)?)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.with_context(|| format!("the daemon of {LOST} has no {name}"))
    }
}

#[test]
fn a_node_that_loses_power_comes_back_and_so_do_its_pods_into_the_mesh() -> Result<()> {
    let mut scene = Scene::new("reboot")?;
    let steered = |scene: &Scene| {
        let node = scene.space.cluster.node(LOST)?;
        let records = fs::read_dir(node.path("/var/lib/mesh/node/attachments")).context("attachments")?.count();
        Ok::<_, anyhow::Error>((records, scene.gauge("mesh_control_pods_in_force")?))
    };
    // No others: pods of other tests may still be ending.
    let alone = |scene: &Scene| {
        let own = (scene.before.len(), scene.before.len().to_string());
        until(&scene.space.cluster, "the node's pods, and no others, are attached and steered", BOOT, || {
            Ok(steered(scene)? == own)
        })
        .with_context(|| format!("{:?} instead of {own:?}", steered(scene)))
    };
    alone(&scene)?;
    scene.reboot(&[])?;
    scene.pods_are_back()?;
    scene.is_as_it_should()?;
    rolled_out(&scene.space.cluster)?;
    // Nothing is left of the sandboxes that the power cut ended.
    alone(&scene)
}

/// A pod of a namespace that is exempt; deleted when this is dropped.
struct Exempt<'scene>(&'scene Cluster);

impl<'scene> Exempt<'scene> {
    const NAME: &'static str = "needed";

    fn start(cluster: &'scene Cluster) -> Result<Self> {
        let own = Self(cluster);
        let mut pod = server(Self::NAME, LOST);
        pod["metadata"]["namespace"] = json!(EXEMPT);
        cluster.apply(&pod.to_string())?;
        own.wait("")?;
        Ok(own)
    }

    fn container(&self) -> Result<String> {
        container(self.0, EXEMPT, Self::NAME)
    }

    fn wait(&self, before: &str) -> Result<()> {
        runs(self.0, EXEMPT, Self::NAME, before)
    }
}

impl Drop for Exempt<'_> {
    fn drop(&mut self) {
        drop(self.0.kubectl(["-n", EXEMPT, "delete", "pod", Self::NAME, "--wait=false", "--ignore-not-found"]));
    }
}

/// The node lacks the mesh's image, and there is nowhere to pull it from, until this is dropped.
struct Imageless {
    restored: bool,
}

impl Imageless {
    fn make(node: &ClusterNode) -> Result<Self> {
        let images = node.exec("ctr", ["--namespace", "k8s.io", "images", "list", "--quiet"])?.success()?;
        let own: Vec<_> = images.lines().filter(|name| name.contains("/mesh-node:")).collect();
        ensure!(!own.is_empty(), "the mesh's image is not among {images}");
        let guard = Self { restored: false };
        node.exec("ctr", ["--namespace", "k8s.io", "images", "remove"].iter().chain(&own))?.success()?;
        Ok(guard)
    }

    fn restore(mut self) -> Result<()> {
        self.restored = true;
        Self::load()
    }

    fn load() -> Result<()> {
        cluster(&["load-image", &built("images/mesh.tar")?.display().to_string()]).map(drop)
    }
}

impl Drop for Imageless {
    fn drop(&mut self) {
        if !self.restored {
            drop(Self::load());
        }
    }
}

#[test]
fn without_its_daemon_a_node_boots_and_pods_of_the_mesh_wait_for_it() -> Result<()> {
    let mut scene = Scene::new("reboot-alone")?;
    let before = Cluster::attach()?;
    let needed = Exempt::start(&before)?;
    let ran = needed.container()?;
    let imageless = Imageless::make(scene.space.cluster.node(LOST)?)?;

    scene.reboot(&[])?;
    needed.wait(&ran)?;
    scene.space.event(&scene.web.name, "FailedCreatePodSandBox")?;
    let events = format!("--field-selector=involvedObject.name={},reason=FailedCreatePodSandBox", scene.web.name);
    let said = scene.space.kubectl(&["get", "events", &events, "--output=jsonpath={.items[*].message}"])?;
    ensure!(said.contains("mesh"), "the kubelet does not say who is missing: {said}");
    for (pod, before) in [&scene.web, &scene.back].into_iter().zip(&scene.before) {
        let now = container(&scene.space.cluster, &scene.space.name, &pod.name)?;
        ensure!(now == *before || !now.ends_with(" true"), "{} runs without the mesh: {now}", pod.name);
    }

    imageless.restore()?;
    scene.pods_are_back()?;
    scene.is_as_it_should()?;
    rolled_out(&scene.space.cluster)
}

/// A pod that the node runs by itself, on the host's network; gone when this is dropped.
struct Static(PathBuf);

impl Static {
    const PORT: u16 = 18081;

    fn write(cluster: &Cluster) -> Result<Self> {
        let mut pod = pod("static", LOST, &["httpd", "-f", "-p", &Self::PORT.to_string(), "-h", "/www"]);
        pod["metadata"]["namespace"] = json!(EXEMPT);
        pod["spec"]["hostNetwork"] = json!(true);
        pod["spec"]["nodeName"] = Value::Null;
        let path = cluster.node(LOST)?.path("/etc/kubernetes/manifests/static.json");
        fs::write(&path, pod.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        // By the path of this machine, which outlives the node's first process.
        let own = Self(built(&format!("cluster/machines/{LOST}/static-pods/static.json"))?);
        own.wait(cluster)?;
        Ok(own)
    }

    fn wait(&self, cluster: &Cluster) -> Result<()> {
        let address = SocketAddr::from((cluster.node(LOST)?.address(), Self::PORT));
        until(cluster, "a pod that the node runs by itself answers", BOOT, || {
            cluster.enter(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()))
        })
    }
}

impl Drop for Static {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// The node's daemon reaches no API server, and its kubelet does, until this is dropped.
struct Cut<'cluster>(&'cluster ClusterNode);

impl<'cluster> Cut<'cluster> {
    fn make(cluster: &'cluster Cluster) -> Result<Self> {
        let own = Self(cluster.node(LOST)?);
        for rule in [
            "add table ip outage",
            "add chain ip outage output { type filter hook output priority raw; }",
            "add rule ip outage output ip daddr 10.96.0.1 drop",
        ] {
            own.0.exec("nft", [rule])?.success()?;
        }
        Ok(own)
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        drop(self.0.exec("nft", ["delete table ip outage"]));
    }
}

#[test]
fn a_node_boots_while_the_api_server_is_away_and_the_daemon_goes_by_what_it_knew() -> Result<()> {
    let mut scene = Scene::new("reboot-outage")?;
    let own = Static::write(&scene.space.cluster)?;
    // Those of the other node as well: who asks must be known to be served.
    let everyone = [&scene.web, &scene.back, &scene.asker, &scene.other].map(|pod| &*pod.name);
    wait_saved(&scene.space, scene.space.cluster.node(LOST)?, &everyone)?;
    let outage = Outage::begin(&scene.space.cluster)?;
    scene.reboot(&["--no-wait"])?;
    own.wait(&scene.space.cluster)?;
    // The kubelet hears of its pods again, and the daemon reaches nobody: to pods' service accounts the API server is the
    // address of a Service.
    let lonely = Cluster::attach()?;
    let cut = Cut::make(&lonely)?;
    drop(outage);
    scene.pods_are_back()?;
    ensure!(scene.gauge("mesh_source_stale")? == "1", "what is known is not said to be of an earlier run");
    scene.is_as_it_should()?;
    // What nobody knew before waits.
    scene.space.apply(&[client("late", LOST)])?;
    scene.space.event("late", "FailedCreatePodSandBox")?;

    drop(cut);
    let is_of_now = || Ok(scene.gauge("mesh_source_stale")? == "0");
    until(&scene.space.cluster, "what is known is of now", START, is_of_now)?;
    scene.space.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"])?;
    scene.is_as_it_should()?;
    rolled_out(&scene.space.cluster)
}

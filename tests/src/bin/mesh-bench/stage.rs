//! Two nodes, and a client and a server for each way.
//!
//! In:  the ways to be measured.
//! Out: [`Stage`], with one [`Pair`] for each way.
//! Invariant: every pair has a client pod on node A and a server pod on node B, made by the same CNI chain; they
//! differ in nothing but their way.

use crate::figures::Way;
use crate::haproxy;
use crate::loads::{Meshload, Pair};
use crate::usage::Processes;
use anyhow::{Context as _, Result, bail};
use mesh_tests::wait::{self, PATIENCE};
use mesh_tests::{Mesh, Node, Pod, Process, Runtime, env};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

/// The ports of the servers: HTTP and iperf3.
const PORTS: [u16; 2] = [8080, 5201];

/// The ceiling of one pod's connections: all that are held belong to one. By default a pod gets three quarters of
/// what the descriptors allow.
const MOST_HELD: usize = 10_000;

/// Everything that runs. Programs end before their pods, pods before the mesh.
pub(crate) struct Stage {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) meshload: Meshload,
    programs: Vec<Process>,
    pods: Vec<Arc<Pod>>,
    mesh: Mesh,
}

impl Stage {
    /// Sets everything up, and waits until every server answers its client.
    ///
    /// **Errors**: something is missing, does not start, or does not answer.
    pub(crate) fn up(work: &Path, ways: &[Way], access_log: &str) -> Result<Self> {
        let mut builder = Mesh::builder("bench")
            .cni_runtime(Runtime::Direct)
            .quiet()
            .daemon_argument(&format!("--access-log={access_log}"))
            .daemon_argument(&format!("--connections-per-pod={MOST_HELD}"));
        if !ways.contains(&Way::Mesh) {
            builder = builder.without_mesh();
        }
        let mesh = builder.build().context("the two nodes did not start")?;
        let meshload = Meshload(env::built("meshload")?);
        let mut stage = Self { pairs: Vec::new(), meshload, programs: Vec::new(), pods: Vec::new(), mesh };
        for &way in ways {
            let pair = stage.pair(way, work).with_context(|| format!("setting up {}", way.name()))?;
            stage.await_answers(&pair).with_context(|| format!("the server does not answer by {}", way.name()))?;
            stage.pairs.push(pair);
        }
        Ok(stage)
    }

    /// The two nodes.
    pub(crate) const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The directory that daemons watch.
    pub(crate) fn objects(&self) -> &Path {
        self.mesh.kube().dir()
    }

    fn pair(&mut self, way: Way, work: &Path) -> Result<Pair> {
        let namespace = format!("by-{}", way.name());
        match way {
            Way::Mesh => {
                self.mesh.kube().namespace(&namespace, &[("istio.io/dataplane-mode", "ambient")])?;
                let spec = json!({"mtls": {"mode": "STRICT"}});
                self.mesh.kube().peer_authentication(&format!("{namespace}/default"), spec)?;
            }
            Way::Direct | Way::Haproxy => self.mesh.kube().namespace(&namespace, &[])?,
        }
        let server = Arc::new(self.mesh.pod(&format!("{namespace}/server")).on(Node::B).account("server").start()?);
        let client = Arc::new(self.mesh.pod(&format!("{namespace}/client")).on(Node::A).account("client").start()?);
        self.pods.extend([Arc::clone(&server), Arc::clone(&client)]);
        let servers = self.servers(&server)?;
        let mut targets = PORTS.map(|port| server.address(port));
        let proxies = match way {
            Way::Direct => Vec::new(),
            Way::Mesh => Node::BOTH
                .map(|node| self.mesh.daemon(node).map(|daemon| daemon.id()))
                .into_iter()
                .collect::<Result<_>>()?,
            Way::Haproxy => {
                targets = haproxy::CLIENT_PORTS.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
                let files = haproxy::prepare(&work.join("haproxy"), server.address(0).ip(), PORTS)?;
                vec![self.haproxy(&client, &files.client)?, self.haproxy(&server, &files.server)?]
            }
        };
        Ok(Pair {
            way,
            client: Box::new(move |program| client.command(program)),
            http: targets[0],
            bulk: targets[1],
            processes: Processes { proxies, servers },
        })
    }

    fn servers(&mut self, pod: &Pod) -> Result<Vec<u32>> {
        let [http, bulk] = PORTS;
        let mut web = pod.command(&self.meshload.0);
        web.args(["serve", "--listen", &format!("0.0.0.0:{http}")]);
        let mut sink = pod.command(env::system("iperf3")?);
        sink.args(["-s", "-p", &bulk.to_string()]);
        Ok(vec![self.spawn(pod, &mut web, "web")?, self.spawn(pod, &mut sink, "iperf3")?])
    }

    fn haproxy(&mut self, pod: &Pod, configuration: &Path) -> Result<u32> {
        let mut command = pod.command(env::system("haproxy").context("`cargo xtask setup bench` installs it")?);
        command.arg("-db").arg("-f").arg(configuration);
        self.spawn(pod, &mut command, "haproxy")
    }

    fn spawn(&mut self, pod: &Pod, command: &mut std::process::Command, name: &str) -> Result<u32> {
        let process = pod.spawn(command, name)?;
        let id = process.id();
        self.programs.push(process);
        Ok(id)
    }

    /// Waits until both servers answer; the mesh or haproxy may need a moment.
    fn await_answers(&self, pair: &Pair) -> Result<()> {
        wait::until_true("an answer to one request", PATIENCE, || {
            for program in &self.programs {
                if let Some(status) = program.ended()? {
                    bail!("a program ended ({status}): {}", program.log());
                }
            }
            let mut once = (pair.client)(&self.meshload.0.to_string_lossy());
            once.args(["closed", &pair.http.to_string(), "--requests", "1", "--connections", "1", "--seconds", "2"]);
            let output = once.stdin(Stdio::null()).output().context("cannot run meshload")?;
            Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"answered\":1"))
        })
    }
}

//! Two nodes, and a client and a server for each way.
//!
//! In:  the ways to be measured.
//! Out: [`Stage`], with one [`Pair`] for each way.
//! Invariant: every pair has a client pod on node A and a server pod on node B, made by the same CNI chain; they
//! differ in nothing but their way.

use crate::figures::Way;
use crate::loads::{Meshload, Pair, h2load};
use crate::usage::Processes;
use crate::{envoy, haproxy};
use anyhow::{Context as _, Result, bail};
use mesh_tests::wait::{self, PATIENCE};
use mesh_tests::{Mesh, Node, Pod, Process, Runtime, ServiceSpec, env};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

/// The ports of the servers: HTTP/1.1, iperf3, and HTTP/2.
const PORTS: [u16; 3] = [8080, 5201, 8081];
/// The ports of the service that leads to them, for HTTP/1.1 and HTTP/2.
const SERVICE_PORTS: [u16; 2] = [80, 81];
/// The service, and the route that leads to it.
pub(crate) const SERVICE: &str = "web";
/// The header that answers carry by that route.
pub(crate) const MARK: &str = "x-mark";

/// The ceiling of one pod's connections: all that are held belong to one. By default a pod gets three quarters of
/// what the descriptors allow.
const MOST_HELD: usize = 10_000;

/// What is set up.
pub(crate) struct Wanted<'a> {
    pub(crate) ways: &'a [Way],
    /// Are connections carried as they come?
    pub(crate) tcp: bool,
    /// Are requests understood and routed?
    pub(crate) http: bool,
    pub(crate) access_log: &'a str,
    /// The program, if there is one.
    pub(crate) envoy: Option<PathBuf>,
}

/// Everything that runs. Programs end before their pods, pods before the mesh.
pub(crate) struct Stage {
    /// Between these, connections are carried as they come.
    pub(crate) pairs: Vec<Pair>,
    /// Between these, requests are understood and routed.
    pub(crate) routed: Vec<Pair>,
    pub(crate) meshload: Meshload,
    programs: Vec<Process>,
    pods: Vec<Arc<Pod>>,
    mesh: Mesh,
    /// Certificates and configurations of the others.
    peers: PathBuf,
}

impl Stage {
    /// Sets everything up, and waits until every server answers its client.
    ///
    /// **Errors**: something is missing, does not start, or does not answer.
    pub(crate) fn up(work: &Path, wanted: &Wanted<'_>) -> Result<Self> {
        let mut builder = Mesh::builder("bench")
            .cni_runtime(Runtime::Direct)
            .quiet()
            .daemon_argument(&format!("--access-log={}", wanted.access_log))
            .daemon_argument(&format!("--connections-per-pod={MOST_HELD}"));
        if !wanted.ways.contains(&Way::Mesh) {
            builder = builder.without_mesh();
        }
        let mesh = builder.build().context("the two nodes did not start")?;
        let meshload = Meshload(env::built("meshload")?);
        let (pairs, routed, peers) = (Vec::new(), Vec::new(), work.join("peers"));
        if wanted.ways.iter().any(|way| matches!(way, Way::Haproxy | Way::Envoy)) {
            haproxy::certificates(&peers)?;
        }
        let mut stage = Self { pairs, routed, meshload, programs: Vec::new(), pods: Vec::new(), mesh, peers };
        for &way in wanted.ways {
            stage.add(way, wanted).with_context(|| format!("setting up {}", way.name()))?;
        }
        for pair in stage.pairs.iter().chain(&stage.routed) {
            stage.await_answers(pair).with_context(|| format!("the server does not answer by {}", pair.way.name()))?;
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

    fn add(&mut self, way: Way, wanted: &Wanted<'_>) -> Result<()> {
        let namespace = namespace(way);
        let labels: &[_] = if way == Way::Mesh { &[("istio.io/dataplane-mode", "ambient")] } else { &[] };
        self.mesh.kube().namespace(&namespace, labels)?;
        if way == Way::Mesh {
            let spec = json!({"mtls": {"mode": "STRICT"}});
            self.mesh.kube().peer_authentication(&format!("{namespace}/default"), spec)?;
        }
        let pod = |name: &str| self.mesh.pod(&format!("{namespace}/{name}")).account(name).label("app", name);
        let server = Arc::new(pod("server").on(Node::B).start()?);
        let client = Arc::new(pod("client").on(Node::A).start()?);
        self.pods.extend([Arc::clone(&server), Arc::clone(&client)]);
        let servers = self.servers(&server)?;
        let [http, bulk, http2] = PORTS.map(|port| server.address(port));
        if wanted.tcp && way != Way::Envoy {
            let ([http, bulk], proxies) = match way {
                Way::Direct | Way::Envoy => ([http, bulk], Vec::new()),
                Way::Mesh => ([http, bulk], self.daemons()?),
                Way::Haproxy => {
                    let files = haproxy::prepare(&self.peers, http.ip(), [PORTS[0], PORTS[1]])?;
                    (haproxy::CLIENT_PORTS.map(local), self.haproxies([&client, &server], &files)?)
                }
            };
            let processes = Processes { proxies, servers: servers.clone() };
            self.pairs.push(Pair { way, pod: Arc::clone(&client), http, bulk: Some(bulk), http2: None, processes });
        }
        if wanted.http {
            let apps = [PORTS[0], PORTS[2]];
            let ([http, http2], proxies) = match way {
                Way::Direct => ([http, http2], Vec::new()),
                Way::Mesh => (self.route(&namespace)?, self.daemons()?),
                Way::Haproxy => {
                    let files = haproxy::prepare_http(&self.peers, http.ip(), apps)?;
                    (haproxy::HTTP_PORTS.map(local), self.haproxies([&client, &server], &files)?)
                }
                Way::Envoy => {
                    let program = wanted.envoy.as_deref().context("no program is given: --envoy")?;
                    let files = envoy::prepare(&self.peers, http.ip(), apps)?;
                    let sides =
                        [self.envoy(&client, program, &files.client)?, self.envoy(&server, program, &files.server)?];
                    (envoy::PORTS.map(local), sides.into())
                }
            };
            let processes = Processes { proxies, servers };
            self.routed.push(Pair { way, pod: client, http, bulk: None, http2: Some(http2), processes });
        }
        Ok(())
    }

    fn daemons(&self) -> Result<Vec<u32>> {
        Node::BOTH.map(|node| self.mesh.daemon(node).map(|daemon| daemon.id())).into_iter().collect()
    }

    /// A service whose requests are routed; where it takes HTTP/1.1 and HTTP/2.
    fn route(&self, namespace: &str) -> Result<[SocketAddr; 2]> {
        let [http1, http2] = SERVICE_PORTS;
        let spec = ServiceSpec::new(&format!("{namespace}/{SERVICE}")).selector("app", "server");
        let spec = spec.named("http", http1, PORTS[0]).named("http2", http2, PORTS[2]);
        let service = self.mesh.kube().service(spec)?;
        self.mesh.kube().apply(route(0))?;
        Ok(SERVICE_PORTS.map(|port| service.address(port)))
    }

    fn servers(&mut self, pod: &Pod) -> Result<Vec<u32>> {
        let [http, bulk, http2] = PORTS;
        let mut web = pod.command(&self.meshload.0);
        web.args(["serve", "--listen", &format!("0.0.0.0:{http}")]);
        let mut web2 = pod.command(&self.meshload.0);
        web2.args(["serve", "--http2", "--listen", &format!("0.0.0.0:{http2}")]);
        let mut sink = pod.command(env::system("iperf3")?);
        sink.args(["-s", "-p", &bulk.to_string()]);
        let servers = [(&mut web, "web"), (&mut web2, "web2"), (&mut sink, "iperf3")];
        servers.into_iter().map(|(command, name)| self.spawn(pod, command, name)).collect()
    }

    fn haproxies(&mut self, [client, server]: [&Pod; 2], files: &haproxy::Files) -> Result<Vec<u32>> {
        let program = env::system("haproxy").context("`cargo xtask setup bench` installs it")?;
        let sides = [(client, &files.client, "client"), (server, &files.server, "server")];
        let start = |(pod, file, _): (&Pod, &PathBuf, &str)| {
            let mut command = pod.command(&program);
            command.arg("-db").arg("-f").arg(file);
            self.spawn(pod, &mut command, "haproxy")
        };
        sides.into_iter().map(start).collect()
    }

    fn envoy(&mut self, pod: &Pod, program: &Path, configuration: &Path) -> Result<u32> {
        let mut command = pod.command(program);
        // Two threads as the mesh has two workers.
        command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning", "--config-path"]);
        self.spawn(pod, command.arg(configuration), "envoy")
    }

    fn spawn(&mut self, pod: &Pod, command: &mut std::process::Command, name: &str) -> Result<u32> {
        let process = pod.spawn(command, name)?;
        let id = process.id();
        self.programs.push(process);
        Ok(id)
    }

    /// Waits until both servers of HTTP answer; the mesh or haproxy may need a moment.
    fn await_answers(&self, pair: &Pair) -> Result<()> {
        wait::until_true("an answer to one request", PATIENCE, || {
            for program in &self.programs {
                if let Some(status) = program.ended()? {
                    bail!("a program ended ({status}): {}", program.log());
                }
            }
            let mut once = pair.client(&self.meshload.0.to_string_lossy());
            once.args(["closed", &pair.http.to_string(), "--requests", "1", "--connections", "1", "--seconds", "2"]);
            let output = once.stdin(Stdio::null()).output().context("cannot run meshload")?;
            Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"answered\":1"))
        })?;
        let Some(http2) = pair.http2 else { return Ok(()) };
        wait::until_true("an answer to one request of HTTP/2", PATIENCE, || {
            let mut once = pair.client("h2load");
            once.args(["-n1", "-c1", "-T2s", "-N2s", &format!("http://{http2}/")]);
            let output = once.stdin(Stdio::null()).output().context("cannot run h2load")?;
            let figures = h2load(&String::from_utf8_lossy(&output.stdout));
            Ok(figures.is_some_and(|figures| figures["requests"] >= 1.0))
        })
    }
}

/// The namespace of one way's pods.
pub(crate) fn namespace(way: Way) -> String {
    format!("by-{}", way.name())
}

/// The route of the mesh's service, whose answers carry `mark`.
pub(crate) fn route(mark: usize) -> Value {
    let headers = json!({"set": [{"name": MARK, "value": mark.to_string()}]});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": SERVICE, "namespace": namespace(Way::Mesh)},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": SERVICE, "port": SERVICE_PORTS[0]}],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers}],
                "backendRefs": [{"name": SERVICE, "port": SERVICE_PORTS[0]}],
            }],
        },
    })
}

/// A port on the client's own loopback.
fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

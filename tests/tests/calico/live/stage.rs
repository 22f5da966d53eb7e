//! The pods between which flows go, and the flows.

use crate::random::CALICO;
use anyhow::{Context, Result, bail, ensure};
use mesh_node::source::file;
use mesh_node::world::World;
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Node, Pod, Process, Server, ServiceSpec, env, wait};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;

/// The host that every request names.
pub(super) const HOST: &str = "web.shop";
const HTTP: u16 = 8080;
/// Ports on which bytes come back; the second has the name `admin`.
const ECHOES: [u16; 2] = [9050, 7000];

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Bytes that are no HTTP.
    Tcp,
    /// A request.
    Http { method: &'static str, path: &'static str },
}

/// Something that a pod sends somewhere.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) source: String,
    pub(super) to: SocketAddr,
    pub(super) kind: Kind,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, to, kind } = self;
        write!(f, "{source} to {to}")?;
        if let Kind::Http { method, path } = kind { write!(f, " {method} {path}") } else { Ok(()) }
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server answered.
    Passed,
    /// It was answered 403, or the connection ended: so.
    Refused(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("it passed"),
            Self::Refused(how) => write!(f, "it was refused: {how}"),
        }
    }
}

/// A client with the connections that it keeps.
pub(super) struct Client<'s> {
    pod: &'s Pod,
    kept: BTreeMap<SocketAddr, TcpStream>,
}

impl Client<'_> {
    /// Sends it. **Errors**: it neither passed nor was refused.
    fn send(&mut self, flow: &Flow) -> Result<Outcome> {
        const ENDS: [ErrorKind; 5] = [
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionAborted,
            ErrorKind::BrokenPipe,
            ErrorKind::UnexpectedEof,
        ];
        let result = match flow.kind {
            Kind::Tcp => self.exchange(flow.to),
            Kind::Http { method, path } => self.request(flow.to, method, path),
        };
        result.or_else(|error| {
            let cause = error.root_cause().downcast_ref::<std::io::Error>();
            let is_end = cause.is_some_and(|cause| ENDS.contains(&cause.kind()));
            if is_end { Ok(Outcome::Refused(format!("{error:#}"))) } else { Err(error.context(flow.to_string())) }
        })
    }

    fn exchange(&self, to: SocketAddr) -> Result<Outcome> {
        let mut stream = self.pod.connect(to)?;
        stream.write_all(b"hello\n")?;
        let mut back = [0; 6];
        stream.read_exact(&mut back)?;
        ensure!(back == *b"hello\n", "it came back as {}", back.escape_ascii());
        Ok(Outcome::Passed)
    }

    /// Asks on the connection that is kept; on a new one if that has ended.
    fn request(&mut self, to: SocketAddr, method: &str, path: &str) -> Result<Outcome> {
        if let Some(mut kept) = self.kept.remove(&to)
            && let Ok(answer) = ask(&mut kept, method, path)
        {
            return self.answered(to, kept, &answer);
        }
        let mut stream = self.pod.connect(to)?;
        let answer = ask(&mut stream, method, path)?;
        self.answered(to, stream, &answer)
    }

    fn answered(&mut self, to: SocketAddr, stream: TcpStream, answer: &Answer) -> Result<Outcome> {
        if answer.is_kept {
            self.kept.insert(to, stream);
        }
        match answer.status {
            200 => Ok(Outcome::Passed),
            403 => Ok(Outcome::Refused("answered 403".to_owned())),
            status => bail!("it was answered {status}"),
        }
    }
}

struct Answer {
    status: u16,
    is_kept: bool,
}

/// Sends a request of HTTP/1.1 without a body, and reads the answer with its body.
fn ask(stream: &mut TcpStream, method: &str, path: &str) -> Result<Answer> {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n")?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let length: usize =
        field("content-length").with_context(|| format!("an answer without length: {head}"))?.parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Answer { status, is_kept: field("connection") != Some("close") })
}

/// A pod: its name, node, account and labels.
type Who = (&'static str, Node, &'static str, &'static [(&'static str, &'static str)]);

const PODS: [Who; 5] = [
    ("shop/web", A, "one", &[("app", "web"), ("tier", "front"), ("team", "red")]),
    ("shop/client", B, "two", &[("app", "db"), ("team", "red")]),
    ("bank/web", B, "one", &[("app", "web"), ("tier", "back")]),
    ("bank/client", A, "two", &[("tier", "front"), ("team", "blue")]),
    ("lab/client", A, "one", &[("app", "db"), ("tier", "back")]),
];

/// A port of a pod at its addresses, one of each family.
fn both(pod: &Pod, port: u16) -> [SocketAddr; 2] {
    [pod.address(port), pod.address6(port)]
}

/// Pods, services and sets that stay, and policies that come and go. Fields are dropped in their order.
pub(super) struct Stage {
    _servers: Vec<Process>,
    _echoes: Vec<Server>,
    pods: BTreeMap<String, Pod>,
    services: BTreeMap<String, [SocketAddr; 2]>,
    /// The policies in force: kind, namespace, name.
    policies: Mutex<BTreeSet<(String, String, String)>>,
    mesh: Mesh,
}

impl Stage {
    /// Two namespaces in the mesh, one of them strict, and one that is not.
    pub(super) fn build() -> Result<Self> {
        let mesh = Mesh::builder("flows").quiet().build()?;
        let kube = mesh.kube();
        for (name, team, mode) in [("shop", "red", "ambient"), ("bank", "blue", "ambient"), ("lab", "red", "none")] {
            kube.namespace(name, &[("istio.io/dataplane-mode", mode), ("team", team)])?;
        }
        kube.peer_authentication("bank/default", json!({"mtls": {"mode": "STRICT"}}))?;
        let (mut pods, mut servers, mut echoes, mut services) =
            (BTreeMap::new(), Vec::new(), Vec::new(), BTreeMap::new());
        for (name, node, account, labels) in PODS {
            let pod = mesh.pod(name).on(node).account(account).port("http", HTTP).port("admin", ECHOES[1]);
            let pod = labels.iter().fold(pod, |pod, (label, value)| pod.label(label, value)).start()?;
            if name.ends_with("/web") {
                let service = ServiceSpec::new(name).selector("app", "web").named("http", 80, HTTP);
                let service = kube.service(service)?;
                services.insert(name.to_owned(), [service.address(80), service.address6(80)]);
                let mut server = pod.command(env::built("httpecho")?);
                servers.push(pod.spawn(server.args(["--name", "web", "--listen", "[::]:8080"]), "httpecho")?);
                for port in ECHOES {
                    echoes.push(pod.echo(port)?);
                }
            }
            pods.insert(name.to_owned(), pod);
        }
        for (kind, namespace, nets) in [
            ("NetworkSet", Some("shop"), vec!["10.244.2.0/24", "fd00:244:1::/64", "192.0.2.0/24"]),
            ("NetworkSet", Some("bank"), vec!["198.51.100.0/24"]),
            ("GlobalNetworkSet", None, vec!["10.244.1.0/24", "fd00:244:2::/64"]),
        ] {
            let mut metadata = json!({"name": "set", "labels": {"app": "web", "team": "red"}});
            if let Some(namespace) = namespace {
                metadata["namespace"] = namespace.into();
            }
            let spec = json!({"nets": nets});
            kube.apply(json!({"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": spec}))?;
        }
        let policies = Mutex::default();
        let stage = Self { _servers: servers, _echoes: echoes, pods, services, policies, mesh };
        stage.wait_until_served()?;
        Ok(stage)
    }

    /// Without policies everybody in the mesh is served.
    fn wait_until_served(&self) -> Result<()> {
        for source in ["shop/web", "shop/client", "bank/web", "bank/client"] {
            let targets = self.servers(source).into_iter().map(|to| (to, Kind::Http { method: "GET", path: "/" }));
            for (to, kind) in targets.chain(self.sockets(source).into_iter().map(|to| (to, Kind::Tcp))) {
                let flow = Flow { source: source.to_owned(), to, kind };
                wait::until_true(&format!("{flow} passes"), wait::PATIENCE, || {
                    Ok(matches!(self.client(source)?.send(&flow)?, Outcome::Passed))
                })?;
            }
        }
        Ok(())
    }

    fn client(&self, source: &str) -> Result<Client<'_>> {
        let pod = self.pods.get(source).with_context(|| format!("no pod {source}"))?;
        Ok(Client { pod, kept: BTreeMap::new() })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    fn others(&self, source: &str) -> impl Iterator<Item = &Pod> {
        let servers = self.pods.iter().filter(move |(name, _)| name.ends_with("/web") && *name != source);
        servers.map(|(_, pod)| pod)
    }

    /// Where a source finds servers of bytes.
    pub(super) fn sockets(&self, source: &str) -> Vec<SocketAddr> {
        self.others(source).flat_map(|pod| ECHOES.map(|port| both(pod, port))).flatten().collect()
    }

    /// Where a source finds servers of HTTP: at pods, and behind services if it is in the mesh, without which nobody resolves those here.
    /// Its own service is none.
    pub(super) fn servers(&self, source: &str) -> Vec<SocketAddr> {
        let services = self.services.iter().filter(|(name, _)| *name != source && !source.starts_with("lab/"));
        self.others(source).flat_map(|pod| both(pod, HTTP)).chain(services.flat_map(|(_, to)| *to)).collect()
    }

    /// Puts these policies in force, in place of those before; returns when both daemons have them.
    pub(super) fn enforce(&self, number: u64, objects: &[Value]) -> Result<()> {
        let kube = self.mesh.kube();
        let mut policies = self.policies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = |object: &Value| {
            (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
        };
        let now: BTreeSet<_> = objects.iter().map(key).collect();
        ensure!(now.len() == objects.len(), "two policies have one name");
        for (kind, namespace, name) in policies.difference(&now) {
            kube.delete(kind, namespace, name)?;
        }
        for object in objects {
            kube.apply(object.clone())?;
        }
        *policies = now;
        // Whoever tells of this one has read what was written before it.
        let service = format!("set-{number}");
        kube.apply(json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"namespace": "default", "name": "mark"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": service}]},
        }))?;
        for node in Node::BOTH {
            let daemon = self.mesh.daemon(node)?;
            wait::until_true(&format!("{service} is in force on {node:?}"), wait::PATIENCE, || {
                let snapshot = daemon.debug("snapshot")?;
                let issues = snapshot["issues"].as_array().cloned().unwrap_or_default();
                let problem = format!("there is no Service default/{service};");
                Ok(issues.iter().any(|issue| issue["problem"].as_str().is_some_and(|text| text.starts_with(&problem))))
            })?;
        }
        Ok(())
    }

    /// The objects, as `mesh-node why --objects` reads them.
    pub(super) fn world(&self) -> Result<World> {
        let mut world = World::default();
        for change in file::read_once(self.mesh.kube().dir().to_owned())?.changes {
            world.apply(change);
        }
        Ok(world)
    }

    /// Sends flows, those of each source one after the other.
    pub(super) fn send(&self, flows: &[Flow]) -> Result<Vec<Outcome>> {
        let sources: BTreeSet<&str> = flows.iter().map(|flow| flow.source.as_str()).collect();
        let mut outcomes: BTreeMap<usize, Result<Outcome>> = BTreeMap::new();
        thread::scope(|scope| -> Result<()> {
            let mut clients = Vec::new();
            for source in sources {
                let mut client = self.client(source)?;
                let own = flows.iter().enumerate().filter(move |(_, flow)| flow.source == source);
                clients.push(scope.spawn(move || own.map(|(at, flow)| (at, client.send(flow))).collect::<Vec<_>>()));
            }
            for client in clients {
                let Ok(seen) = client.join() else { bail!("a client panicked") };
                outcomes.extend(seen);
            }
            Ok(())
        })?;
        outcomes.into_values().collect()
    }
}

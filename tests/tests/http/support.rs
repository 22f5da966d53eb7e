//! A namespace with an HTTP service on one node and a client on the other.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, Node, Pod, Process, Service, ServiceSpec, env, traffic, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::TcpStream;

/// A strict namespace with a client on node B and a service `web` whose pods are on node A.
pub(crate) struct Shop {
    pub(crate) web: Service,
    pub(crate) client: Pod,
    pub(crate) pods: Vec<(Pod, Process)>,
    pub(crate) mesh: Mesh,
}

/// What curl saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    /// The body as what the server understood.
    pub(crate) fn told(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{self:?}"))
    }

    /// Which server answered.
    pub(crate) fn server(&self) -> Result<String> {
        Ok(self.told()?["server"].as_str().unwrap_or_default().to_owned())
    }
}

impl Shop {
    /// Opens a shop with these pods behind `web`: port 80 is named `http`, 81 `grpc`, 82 says nothing.
    pub(crate) fn open(name: &str, pods: &[&str]) -> Result<Self> {
        Self::open_in(Mesh::builder(name).build()?, pods)
    }

    /// The same, in this mesh.
    pub(crate) fn open_in(mesh: Mesh, pods: &[&str]) -> Result<Self> {
        mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
        mesh.kube().peer_authentication("shop/default", json!({"mtls": {"mode": "STRICT"}}))?;
        let ports = ServiceSpec::new("shop/web").selector("app", "web");
        let ports = ports.named("http", 80, 8080).named("grpc", 81, 8080).named("other", 82, 8080);
        let web = mesh.kube().service(ports)?;
        let client = mesh.pod("shop/client").on(B).account("client").label("app", "client").start()?;
        let mut shop = Self { web, client, pods: Vec::new(), mesh };
        for pod in pods {
            shop.add(pod, A, "web")?;
        }
        shop.served("/")?;
        Ok(shop)
    }

    /// Adds a pod with label `app`, whose label `version` is the part of its name after the first hyphen.
    pub(crate) fn add(&mut self, name: &str, node: Node, app: &str) -> Result<()> {
        let version = name.split_once('-').map_or("v1", |(_, version)| version);
        let pod = self
            .mesh
            .pod(&format!("shop/{name}"))
            .on(node)
            .account(app)
            .label("app", app)
            .label("version", version)
            .start()?;
        let mut command = pod.command(env::built("httpecho")?);
        command.args(["--name", name, "--listen", "[::]:8080"]);
        let process = pod.spawn(&mut command, "httpecho")?;
        let address = pod.address(8080);
        wait::until_true(&format!("{name} listens"), wait::PATIENCE, || {
            Ok(pod.run("curl", ["--silent", "--max-time", "1", &format!("http://{address}/")])?.success().is_ok())
        })?;
        self.pods.push((pod, process));
        Ok(())
    }

    /// The address of a path on a port of the service.
    pub(crate) fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}{path}", self.web.address(port))
    }

    /// Waits until the client is answered on port 80.
    pub(crate) fn served(&self, path: &str) -> Result<()> {
        wait::until_true(&format!("{path} is served"), wait::PATIENCE, || {
            Ok(self.get(80, path, &[]).is_ok_and(|seen| seen.status == 200))
        })
    }

    /// What the client's curl gets, with further arguments.
    pub(crate) fn get(&self, port: u16, path: &str, arguments: &[&str]) -> Result<Seen> {
        curl(&self.client, &self.url(port, path), arguments)
    }
}

/// What curl in a pod gets.
pub(crate) fn curl(from: &Pod, url: &str, arguments: &[&str]) -> Result<Seen> {
    let fixed = ["--silent", "--show-error", "--globoff", "--max-time", "10", "--dump-header", "/dev/stderr"];
    let output = from.run("curl", fixed.iter().chain(arguments).chain(&[url]))?;
    let headers = output.stderr.clone();
    ensure!(output.status.success(), "curl {url}: {headers}");
    read(&headers, output.stdout)
}

/// The statuses of requests of HTTP/2 on one connection: so many at once, once they are answered so many more, and so on.
pub(crate) fn multiplexed(stream: TcpStream, at_once: &[usize]) -> Result<Vec<u16>> {
    stream.set_nonblocking(true)?;
    let host = stream.peer_addr()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        let asking = async {
            let mut statuses = Vec::new();
            for &count in at_once {
                let answers = (0..count).map(|_| {
                    let mut sender = sender.clone();
                    async move {
                        let request = Request::get(format!("http://{host}/")).body(Empty::<Bytes>::new())?;
                        let response = sender.send_request(request).await?;
                        let status = response.status().as_u16();
                        response.into_body().collect().await?;
                        Ok::<_, anyhow::Error>(status)
                    }
                });
                statuses.extend(try_join_all(answers).await?);
            }
            Ok(statuses)
        };
        let asking = tokio::time::timeout(wait::PATIENCE, asking);
        tokio::select! {
            statuses = asking => statuses?,
            ended = connection => bail!("the connection ended: {ended:?}"),
        }
    })
}

/// The next response on a connection of HTTP/1.1, which has a length.
pub(crate) fn answer(stream: &mut TcpStream) -> Result<Seen> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let mut seen = read(&String::from_utf8(head)?, String::new())?;
    let length = seen.headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    seen.body = String::from_utf8(traffic::read_exactly(stream, length)?)?;
    Ok(seen)
}

/// What curl saw, from the heads that it wrote and the body.
pub(crate) fn read(heads: &str, body: String) -> Result<Seen> {
    // Of several heads, such as 100 and 200, the last counts.
    let last = heads.trim_end().split("\r\n\r\n").last().unwrap_or_default();
    let mut lines = last.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Seen { status: status.with_context(|| format!("no head: {last}"))?, headers, body })
}

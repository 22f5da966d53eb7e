//! A namespace with an HTTP service on one node and a client on the other.

use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_tests::Node::{A, B};
pub(crate) use mesh_tests::http::{Seen, answer};
use mesh_tests::{Mesh, Node, Pod, Process, Service, ServiceSpec, env, wait};
use serde_json::json;
use std::net::TcpStream;

/// A strict namespace with a client on node B and a service `web` whose pods are on node A.
pub(crate) struct Shop {
    pub(crate) web: Service,
    pub(crate) client: Pod,
    pub(crate) pods: Vec<(Pod, Process)>,
    pub(crate) mesh: Mesh,
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
        self.add_answering(name, node, app, 200)
    }

    /// The same, which answers with this status.
    pub(crate) fn add_answering(&mut self, name: &str, node: Node, app: &str, status: u16) -> Result<()> {
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
        command.args(["--name", name, "--listen", "[::]:8080", "--status", &status.to_string()]);
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
    from.ask(url, arguments)
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

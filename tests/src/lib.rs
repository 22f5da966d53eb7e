//! Two nodes on one machine, real pods, and a Kubernetes played by files.
//!
//! In:  a scenario, told through [`Mesh::builder`].
//! Out: network namespaces as nodes and pods, joined by a CNI chain; the mesh's daemons on the nodes; clients,
//!      servers and packet captures.
//! Invariant: everything is named after the scenario and goes away with it; what a run that was killed left behind,
//! the next one sweeps. Nothing waits without a deadline. What is missing on the machine fails with the cure.
//!
//! ```no_run
//! use mesh_tests::{Mesh, Node::{A, B}, ServiceSpec};
//! # fn main() -> anyhow::Result<()> {
//! let mesh = Mesh::builder("web").build()?;
//! mesh.kube().namespace("shop", &[("istio.io/dataplane-mode", "ambient")])?;
//! let web = mesh.pod("shop/web").on(A).label("app", "web").start()?;
//! let client = mesh.pod("shop/client").on(B).start()?;
//! let service = mesh.kube().service(ServiceSpec::new("shop/web").selector("app", "web").port(80, 8080))?;
//! let _echo = web.echo(8080)?;
//! let wire = mesh.capture("web")?;
//! assert_eq!(client.exchange(service.address(80), b"hello")?, b"hello");
//! wire.stop()?.only_tls_on(&[8080])?;
//! # Ok(())
//! # }
//! ```

mod apiserver;
pub mod bank;
pub mod bookinfo;
mod capture;
mod certificates;
pub mod cluster;
mod cni;
mod daemon;
mod directory;
pub mod env;
mod exec;
pub mod http;
pub mod kube;
mod leftovers;
pub mod load;
mod mesh;
mod netns;
mod node;
mod outside;
mod pod;
pub mod table;
pub mod tools;
pub mod traffic;
pub mod wait;

pub use apiserver::{ADMIN, ApiServer, DAEMON, Proxy};
pub use capture::{Capture, Captured, Flow, tls_records};
pub use certificates::Certificate;
pub use cni::Runtime;
pub use daemon::{Answer, Daemon};
pub use directory::Directory;
pub use exec::{Output, Process, execute, feed};
pub use kube::{Kube, Service, ServiceSpec};
pub use leftovers::down;
pub use mesh::{Builder, Mesh};
pub use netns::NetNs;
pub use node::{Node, NodeNet};
pub use outside::Outside;
pub use pod::{Pod, PodBuilder};
pub use traffic::Server;

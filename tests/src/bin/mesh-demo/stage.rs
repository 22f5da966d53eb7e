//! Sets the demo up: nodes, daemons, objects, pods, programs.
//!
//! In:  the application as its manifests give it.
//! Out: a running [`Stage`].
//! Invariant: this plays the parts of a cluster that one machine lacks (scheduler, kubelet), and nothing of the mesh.

use crate::manifests::{Application, Service, Workload};
use crate::tour::Place;
use crate::{BANK, NAME, Options, TOUR};
use anyhow::{Context as _, Result};
use mesh_tests::wait::{self, PATIENCE};
use mesh_tests::{Mesh, Node, Pod, Process, Runtime, ServiceSpec, env};
use std::collections::BTreeMap;

/// Everything that runs. Programs end before their pods, pods before the mesh.
pub(crate) struct Stage {
    pub(crate) programs: Vec<Process>,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) services: BTreeMap<String, mesh_tests::Service>,
    pub(crate) mesh: Mesh,
    /// What pods run, by the name of the program.
    program: &'static str,
}

/// The port of every service.
pub(crate) const PORT: u16 = 9080;

/// How much of a daemon's log is shown when the demo fails.
const LOG_TAIL: usize = 20;

/// Pods on node A; the others are on B. Every call between services crosses the link this way.
const ON_A: [&str; 4] = ["productpage-v1", "ratings-v1", "stranger", "summary"];

/// The runtime that drives the CNI chain, and how to call it.
pub(crate) fn runtime() -> (Runtime, &'static str) {
    match env::tool("cnitool") {
        Ok(_) => (Runtime::Reference, "cnitool, the reference runtime"),
        Err(_) => (Runtime::Direct, "this program, as a container runtime does"),
    }
}

/// Two nodes with daemons, and nothing else.
pub(crate) fn nodes(options: &Options) -> Result<Mesh> {
    let name = match options.place() {
        None => NAME,
        Some(Place::Bookinfo) => TOUR,
        Some(Place::Bank) => BANK,
    };
    let mut builder = Mesh::builder(name).cni_runtime(runtime().0).quiet();
    if options.keep {
        builder = builder.reachable_from_host();
    }
    let mesh = builder.build().context("the mesh did not start")?;
    if options.keep {
        mesh.keep()?;
    }
    Ok(mesh)
}

impl Stage {
    pub(crate) fn new(mesh: Mesh, program: &'static str) -> Self {
        Self { programs: Vec::new(), pods: BTreeMap::new(), services: BTreeMap::new(), mesh, program }
    }

    /// Applies every object but pods.
    pub(crate) fn apply(&mut self, application: &mut Application) -> Result<()> {
        for object in application.others.drain(..) {
            self.mesh.kube().apply(object)?;
        }
        for Service { namespace, name, selector, ports } in &application.services {
            let mut spec = ServiceSpec::new(&format!("{namespace}/{name}"));
            for (label, value) in selector {
                spec = spec.selector(label, value);
            }
            for (name, port) in ports {
                spec = spec.named(name, *port, *port);
            }
            self.services.insert(name.clone(), self.mesh.kube().service(spec)?);
        }
        Ok(())
    }

    /// Creates a pod through the CNI chain and starts its program.
    pub(crate) fn start(&mut self, workload: &Workload) -> Result<&Pod> {
        let Workload { namespace, name, account, labels, arguments, .. } = workload;
        let node = if ON_A.contains(&name.as_str()) { Node::A } else { Node::B };
        let mut builder = self.mesh.pod(&format!("{namespace}/{name}")).on(node).account(account);
        for (label, value) in labels {
            builder = builder.label(label, value);
        }
        let pod = builder.start()?;
        if !arguments.is_empty() {
            let mut command = pod.command(env::built(self.program)?);
            command.args(arguments).arg("--pod").arg(name).envs(workload.environment(&self.service_variables()));
            self.programs.push(pod.spawn(&mut command, "main")?);
            wait::until_true(&format!("{name} serves"), PATIENCE, || {
                // By loopback, which the mesh leaves alone, so that this is no edge.
                Ok(pod.curl(&format!("http://127.0.0.1:{PORT}/health")).is_ok())
            })?;
        }
        Ok(self.pods.entry(name.clone()).or_insert(pod))
    }

    /// What Kubernetes tells every container of the services there are.
    fn service_variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (name, service) in &self.services {
            let prefix = name.to_uppercase().replace('-', "_");
            variables.insert(format!("{prefix}_SERVICE_HOST"), service.addresses[0].to_string());
            variables.insert(format!("{prefix}_SERVICE_PORT"), PORT.to_string());
        }
        variables
    }

    pub(crate) fn pod(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).with_context(|| format!("the manifests have no pod {name}"))
    }

    /// Where a service is dialled.
    pub(crate) fn address(&self, service: &str) -> Result<std::net::SocketAddr> {
        let service = self.services.get(service).with_context(|| format!("the manifests have no service {service}"))?;
        Ok(service.address(PORT))
    }

    /// Shows the end of both daemons' logs.
    pub(crate) fn show_logs(&self) {
        for node in Node::BOTH {
            let Ok(daemon) = self.mesh.daemon(node) else { continue };
            let log = daemon.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("\nthe end of the log of the daemon on node {}:", node.name());
            for line in &lines[lines.len().saturating_sub(LOG_TAIL)..] {
                eprintln!("  {line}");
            }
        }
    }

    /// The metrics of both daemons.
    pub(crate) fn metrics(&self) -> Result<Vec<String>> {
        Node::BOTH.into_iter().map(|node| self.mesh.daemon(node)?.metrics()).collect()
    }
}

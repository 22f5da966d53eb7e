//! Puts pods on a node's network, as a container runtime does: by a chain of CNI plugins.
//!
//! In:  a node, a pod's namespace and its names in Kubernetes.
//! Out: the addresses that the chain gave the pod.
//! Source: CNI specification 1.0.0, "Section 2: Execution Protocol"; `host-local` and `ptp` of the reference plugins.

mod direct;

use crate::env;
use crate::exec::{Output, execute};
use crate::node::NodeNet;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the network, which is what Calico calls its own.
pub(crate) const NETWORK: &str = "k8s-pod-network";
/// The device in a pod.
pub(crate) const DEVICE: &str = "eth0";
/// How long the chain may take; ADD waits until the mesh has the pod.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which program runs the plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// `cnitool`, the reference runtime; a Go program.
    Reference,
    /// This program, so that no Go is needed.
    Direct,
}

/// A pod's sandbox, as a container runtime knows it.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) container_id: String,
    pub(crate) netns: PathBuf,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Sandbox {
    /// The value of `CNI_ARGS`.
    fn arguments(&self) -> String {
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.namespace, self.name, self.container_id, self.uid
        )
    }
}

/// The chain of plugins of one node.
#[derive(Debug)]
pub(crate) struct Chain {
    runtime: Runtime,
    dir: PathBuf,
    plugins: Vec<Value>,
}

impl Chain {
    /// Writes the node's configuration: `ptp` with `host-local`, then the mesh's plugin if it has a `socket`.
    pub(crate) fn install(node: &NodeNet, socket: Option<&Path>, runtime: Runtime) -> Result<Self> {
        let [subnet4, subnet6] = node.node().pod_subnets();
        let mut plugins = vec![json!({
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": node.dir().join("leases"),
                "ranges": [[{"subnet": subnet4}], [{"subnet": subnet6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        })];
        if let Some(socket) = socket {
            env::built("mesh-cni")?;
            plugins.push(json!({"type": "mesh-cni", "socket": socket}));
        }
        let dir = node.dir().join("net.d");
        fs::create_dir(&dir).context("cannot create the CNI configuration directory")?;
        let list = json!({"cniVersion": "1.0.0", "name": NETWORK, "plugins": plugins});
        let text = serde_json::to_string_pretty(&list).context("cannot write JSON")?;
        fs::write(dir.join("10-pods.conflist"), text).context("cannot write the CNI configuration")?;
        Ok(Self { runtime, dir, plugins })
    }

    /// The same chain before the mesh came to it.
    pub(crate) fn without_mesh(&self) -> Self {
        let plugins = self.plugins.iter().filter(|plugin| plugin["type"] != "mesh-cni").cloned().collect();
        Self { runtime: Runtime::Direct, dir: self.dir.clone(), plugins }
    }

    /// Adds a pod; gives its addresses, and how long the last plugin took, if the runtime can tell.
    pub(crate) fn add(&self, node: &NodeNet, sandbox: &Sandbox) -> Result<(Vec<IpAddr>, Option<Duration>)> {
        let (result, took) = match self.runtime {
            Runtime::Reference => (self.cnitool("add", node, sandbox)?.success()?, None),
            Runtime::Direct => {
                let (result, took) = direct::add(&self.plugins, node, sandbox)?;
                (result, Some(took))
            }
        };
        let addresses = addresses(&result).with_context(|| format!("the result of CNI ADD: {result}"))?;
        Ok((addresses, took))
    }

    /// Deletes a pod.
    pub(crate) fn delete(&self, node: &NodeNet, sandbox: &Sandbox) -> Result<()> {
        match self.runtime {
            Runtime::Reference => drop(self.cnitool("del", node, sandbox)?.success()?),
            Runtime::Direct => direct::delete(&self.plugins, node, sandbox)?,
        }
        Ok(())
    }

    /// Asks whether a pod is as ADD left it.
    pub(crate) fn check(&self, node: &NodeNet, sandbox: &Sandbox) -> Result<()> {
        match self.runtime {
            Runtime::Reference => drop(self.cnitool("check", node, sandbox)?.success()?),
            Runtime::Direct => direct::check(&self.plugins, node, sandbox)?,
        }
        Ok(())
    }

    fn cnitool(&self, verb: &str, node: &NodeNet, sandbox: &Sandbox) -> Result<Output> {
        // The reference runtime keeps results in one directory of the machine; this gives it one of the node's.
        let own = "mkdir -p /var/lib/cni && mount --bind \"$0\" /var/lib/cni && exec \"$@\"";
        let mut command = node.ns().command("unshare");
        command
            .args(["--mount", "sh", "-c", own])
            .arg(node.dir())
            .arg(env::tool("cnitool")?)
            .args([verb, NETWORK])
            .arg(&sandbox.netns)
            .env("NETCONFPATH", &self.dir)
            .env("CNI_PATH", cni_path()?)
            .env("CNI_IFNAME", DEVICE)
            .env("CNI_ARGS", sandbox.arguments());
        execute(&mut command, PATIENCE)
    }
}

/// The value of `CNI_PATH`.
fn cni_path() -> Result<String> {
    let dirs = env::cni_path()?;
    Ok(dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":"))
}

/// The addresses in a CNI result, IPv4 first.
fn addresses(result: &str) -> Result<Vec<IpAddr>> {
    let result: Value = serde_json::from_str(result).context("no JSON")?;
    let ips = result["ips"].as_array().context("no `ips`")?;
    let mut addresses = Vec::new();
    for ip in ips {
        let text = ip["address"].as_str().context("an entry of `ips` without `address`")?;
        let (address, _) = text.split_once('/').context("an address without prefix length")?;
        addresses.push(address.parse().context("an address that is none")?);
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
}

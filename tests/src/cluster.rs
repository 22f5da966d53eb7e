//! The real Kubernetes that `cargo xtask cluster up` brought up.
//!
//! In:  `target/cluster/state.json`, which `xtask/src/cluster/layout.rs` writes.
//! Out: its API, its nodes, commands inside both.
//! Invariant: nothing here brings it up or down: one cluster serves many tests, each in Kubernetes namespaces of its own.

use crate::exec::{Output, Process, execute, feed};
use crate::{env, netns};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a command against the cluster may take.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster.
#[derive(Debug, Deserialize)]
pub struct Cluster {
    kubeconfig: PathBuf,
    namespace: PathBuf,
    kubectl: PathBuf,
    calicoctl: PathBuf,
    packet_filter: String,
    nodes: Vec<ClusterNode>,
}

/// A node of it.
#[derive(Debug, Deserialize)]
pub struct ClusterNode {
    name: String,
    address: Ipv4Addr,
    namespace: PathBuf,
    process: u32,
    search_path: String,
    logs: PathBuf,
}

impl Cluster {
    /// The cluster of this work tree.
    ///
    /// **Errors**: none is up, or not wholly.
    pub fn attach() -> Result<Self> {
        env::need_root()?;
        let target = env::programs()?.parent().context("programs are in no directory")?.to_owned();
        let state = target.join("cluster/state.json");
        let Ok(text) = std::fs::read_to_string(&state) else {
            bail!("{} is missing: run `cargo xtask cluster up`", state.display());
        };
        let cluster: Self = serde_json::from_str(&text).with_context(|| format!("cannot read {}", state.display()))?;
        for node in &cluster.nodes {
            let alive = Path::new("/proc").join(node.process.to_string()).exists() && node.namespace.exists();
            ensure!(alive, "{} is down: run `cargo xtask cluster up`", node.name);
        }
        Ok(cluster)
    }

    /// The kubeconfig of who may do anything; its server is reached inside [`Cluster::enter`].
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The network namespace in which the API server, nodes and pods are reached; the addresses of Services are not.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// Runs `work` on a thread in that namespace; the sockets it makes stay there.
    ///
    /// **Errors**: the cluster is gone, or `work` fails.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::enter(&self.namespace, work)
    }

    /// Which of the kernel's packet filters Calico uses, `nft` or `legacy`, as the names of iptables' programs have it.
    #[must_use]
    pub fn packet_filter(&self) -> &str {
        &self.packet_filter
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// The node of a name.
    ///
    /// **Errors**: there is none.
    pub fn node(&self, name: &str) -> Result<&ClusterNode> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// The number of a process of the control machine, such as `kube-apiserver`.
    ///
    /// **Errors**: it does not run.
    pub fn control_process(&self, program: &str) -> Result<u32> {
        let network = std::fs::metadata(&self.namespace).context("the cluster is gone")?.ino();
        let processes = std::fs::read_dir("/proc").context("cannot read /proc")?.flatten();
        let found = processes.map(|entry| entry.path()).find(|process| {
            let inside = std::fs::metadata(process.join("ns/net")).is_ok_and(|own| own.ino() == network);
            inside
                && std::fs::read(process.join("cmdline")).is_ok_and(|line| {
                    let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
                    Path::new(OsStr::from_bytes(name)).file_name() == Some(OsStr::new(program))
                })
        });
        let number = found.and_then(|process| process.file_name()?.to_str()?.parse().ok());
        number.with_context(|| format!("{program} does not run: see `cargo xtask cluster status`"))
    }

    /// Runs `kubectl`, and gives what it prints.
    ///
    /// **Errors**: it fails or is too slow.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        execute(self.kubectl_command().args(arguments), PATIENCE)?.success()
    }

    /// Runs `kubectl`, and gives how it ended.
    ///
    /// **Errors**: it cannot be started, or is too slow. That it fails is in its output.
    pub fn kubectl_tried<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
        execute(self.kubectl_command().args(arguments), PATIENCE)
    }

    /// Runs `kubectl` with a plugin from the directory `plugins`, and gives what it prints.
    ///
    /// **Errors**: it fails or is too slow.
    pub fn kubectl_plugin<A: AsRef<OsStr>>(
        &self,
        plugins: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        let own = self.kubectl.parent().context("kubectl is in no directory")?;
        let paths = [plugins, own, Path::new("/usr/bin"), Path::new("/bin")];
        let mut command = self.command(&self.kubectl);
        command.env("PATH", std::env::join_paths(paths)?).env("KUBECONFIG", &self.kubeconfig);
        execute(command.args(arguments), PATIENCE)?.success()
    }

    /// Runs `calicoctl`, and gives what it prints.
    ///
    /// **Errors**: it fails or is too slow.
    pub fn calicoctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command(&self.calicoctl);
        command.arg("--allow-version-mismatch").args(arguments);
        command.env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", &self.kubeconfig);
        execute(&mut command, PATIENCE)?.success()
    }

    /// Applies a manifest, of one or more objects, and gives what `kubectl` prints.
    ///
    /// **Errors**: the API server refuses one.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.apply_tried(manifest, [""; 0])?.success()
    }

    /// Applies a manifest with further arguments, and gives how that ended.
    ///
    /// **Errors**: `kubectl` cannot be started, or is too slow. That it fails is in its output.
    pub fn apply_tried<A: AsRef<OsStr>>(
        &self,
        manifest: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        feed(applying(&mut self.kubectl_command()).args(arguments), manifest.as_bytes(), PATIENCE)
    }

    /// `kubectl` in the background, with what it prints in the file `log`.
    ///
    /// **Errors**: it cannot be started.
    pub fn kubectl_started<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Result<Process> {
        let mut command = self.command(&self.kubectl);
        Process::start(command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments), log)
    }

    fn kubectl_command(&self) -> Command {
        let mut command = self.command(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--request-timeout=60s");
        command
    }

    /// A program where the API server, nodes and pods are reached.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display())).arg("--").arg(program);
        command
    }
}

/// Has `kubectl` apply what it reads, whoever made the objects.
pub(crate) fn applying(kubectl: &mut Command) -> &mut Command {
    kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
}

impl ClusterNode {
    /// Its name, in Kubernetes and as its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// The directory with a log of each of its components.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// A file of the node, such as `/etc/cni/net.d`, by the path at which this process reaches it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(self.process.to_string()).join("root").join(inside.trim_start_matches('/'))
    }

    /// Runs a program inside the node: its network, files, processes and names.
    ///
    /// **Errors**: it cannot be started, or is too slow. That it fails is in its output.
    pub fn exec<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.process.to_string()]);
        command.args(["--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--", program]).args(arguments);
        command.env("PATH", &self.search_path);
        execute(&mut command, PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xtask_writes_is_understood() {
        let state = r#"{
            "kubeconfig": "/t/cluster/pki/admin.kubeconfig", "namespace": "/run/netns/mesh-1-control",
            "kubectl": "/t/tools/kubectl", "calicoctl": "/t/tools/calicoctl",
            "packet_filter": "nft",
            "nodes": [{
                "name": "node1", "address": "10.99.0.11", "pods": "10.244.1.0/24",
                "namespace": "/run/netns/mesh-1-node1", "process": 7, "search_path": "/bin", "logs": "/t/cluster/logs/node1"
            }]
        }"#;
        let cluster: Cluster = serde_json::from_str(state).unwrap();
        let node = &cluster.nodes()[0];
        assert_eq!((node.name(), node.address()), ("node1", Ipv4Addr::new(10, 99, 0, 11)));
        assert_eq!(node.path("/etc/cni/net.d"), Path::new("/proc/7/root").join("etc/cni/net.d"));
        assert_eq!(cluster.namespace(), Path::new("/run/netns/mesh-1-control"));
    }
}

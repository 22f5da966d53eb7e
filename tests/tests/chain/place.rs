//! The daemon's part in the runtime's chain, with CNI's reference runtime and the real plugin. A script plays the primary
//! plugin, for what matters is who is called after it, and the test plays Calico's installer, which writes its list anew.
#![expect(clippy::unwrap_used, reason = "a test ends where a step of it fails")]

use crate::scripted::Scripted;
use mesh_common::cni::Response;
use mesh_node::chain::{Chain, Config, Entry, Method, State};
use mesh_node::telemetry::Metrics;
use mesh_tests::{env, wait};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const NETWORK: &str = "k8s-pod-network";

/// What the primary plugin does: it has given the pod an address.
const PRIMARY: &str = r#"#!/bin/sh
cat >/dev/null
case "$CNI_COMMAND" in
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.65.0.9/32"}]}' ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}' ;;
esac
"#;

/// A node's directories.
struct Host {
    root: PathBuf,
}

impl Host {
    fn new(test: &str) -> Self {
        env::need_root().unwrap();
        let root = std::env::temp_dir().join(format!("{}-chain-{test}-{}", env::prefix(), std::process::id()));
        let host = Self { root };
        for directory in ["net.d", "bin", "cache"] {
            fs::create_dir_all(host.root.join(directory)).unwrap();
        }
        let primary = host.root.join("bin/calico");
        fs::write(&primary, PRIMARY).unwrap();
        fs::set_permissions(primary, Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn socket(&self) -> PathBuf {
        self.root.join("cni.sock")
    }

    fn list(&self) -> PathBuf {
        self.root.join("net.d/10-calico.conflist")
    }

    /// Writes the list as Calico's installer does: in place.
    fn calico_writes(&self, mtu: usize) {
        let list = serde_json::json!({"name": NETWORK, "cniVersion": "1.0.0", "plugins": [
            {"type": "calico", "mtu": mtu, "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}}]});
        let mut file = fs::File::create(self.list()).unwrap();
        file.write_all(serde_json::to_string_pretty(&list).unwrap().as_bytes()).unwrap();
    }

    fn chain(&self, method: Method) -> Chain {
        let config = Config {
            conf_dir: self.root.join("net.d"),
            bin_dir: self.root.join("bin"),
            plugin: env::built("mesh-cni").unwrap(),
            state_dir: self.root.join("state"),
            entry: Entry { socket: self.socket(), exempt: vec!["kube-system".to_owned(), "mesh-system".to_owned()] },
        };
        let chain = Chain::start(config, &Metrics::default()).unwrap();
        chain.install(method, true);
        let installed = State::Installed { method, network: NETWORK.to_owned() };
        wait::until("the plugin is in the chain", PATIENCE, || Ok((chain.state() == installed).then_some(()))).unwrap();
        chain
    }

    fn cni(&self, verb: &str, namespace: &str) -> Output {
        // The reference runtime keeps results in one directory of the machine; this gives it one of the node's.
        let own = "mkdir -p /var/lib/cni && mount --bind \"$0\" /var/lib/cni && exec \"$@\"";
        Command::new("unshare")
            .args(["--mount", "sh", "-c", own])
            .arg(self.root.join("cache"))
            .arg(env::tool("cnitool").unwrap())
            .args([verb, NETWORK, "/proc/self/ns/net"])
            .env("NETCONFPATH", self.root.join("net.d"))
            .env("CNI_PATH", self.root.join("bin"))
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-0"))
            .output()
            .unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Adds pods while Calico writes its list `writes` times. Returns how many were added, and how many of them without the plugin.
/// What could not be read is an error for the runtime, which tries again: no pod starts by it.
fn add_while_calico_writes(host: &Host, daemon: &Scripted, writes: usize) -> (usize, usize) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for mtu in 0..writes {
                host.calico_writes(1000 + mtu);
                // As long as an installer takes at least between two starts, less than one ADD.
                thread::park_timeout(Duration::from_millis(20));
            }
            done.store(true, Ordering::SeqCst);
        });
        let (mut added, mut missed) = (0, 0);
        while !done.load(Ordering::SeqCst) {
            let before = daemon.added();
            let output = host.cni("add", "shop");
            let asked = daemon.added() - before;
            if output.status.success() {
                added += 1;
                missed += usize::from(asked == 0);
            } else {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(said.contains("error parsing configuration") || said.contains("no net"), "{said}");
            }
        }
        (added, missed)
    })
}

#[test]
fn no_pod_misses_the_plugin_while_calico_writes_its_list() {
    let host = Host::new("drop-in");
    host.calico_writes(0);
    let daemon = Scripted::answering(&host.socket(), Response::Ok).unwrap();
    // The control: without the chain, the plugin is not called.
    assert!(host.cni("add", "shop").status.success());
    assert_eq!(daemon.added(), 0);
    let chain = host.chain(Method::DropIn);
    let (added, missed) = add_while_calico_writes(&host, &daemon, 100);
    assert!(added > 0, "no pod was added at all");
    assert_eq!(missed, 0, "of {added} pods");
    let list = fs::read_to_string(host.list()).unwrap();
    assert!(list.contains("1099") && !list.contains("mesh"), "{list}");
    chain.let_go();
}

#[test]
fn the_entry_in_the_list_is_back_within_milliseconds() {
    let host = Host::new("conflist");
    host.calico_writes(0);
    let daemon = Scripted::answering(&host.socket(), Response::Ok).unwrap();
    let chain = host.chain(Method::Conflist);
    let mut windows = Vec::new();
    for mtu in 1..=100 {
        host.calico_writes(mtu);
        let written = Instant::now();
        let mtu = format!("\"mtu\": {mtu}");
        wait::until("the new list has the entry", PATIENCE, || {
            let list = fs::read_to_string(host.list())?;
            Ok((list.contains("mesh-cni") && list.contains(&mtu)).then_some(()))
        })
        .unwrap();
        windows.push(written.elapsed());
    }
    windows.sort();
    println!(
        "the entry was missing for {:?} (median), {:?} (longest)",
        windows[windows.len() / 2],
        windows[windows.len() - 1]
    );
    assert!(windows[windows.len() / 2] < Duration::from_millis(250), "{windows:?}");
    let (added, missed) = add_while_calico_writes(&host, &daemon, 100);
    println!("of {added} pods added while the list was written 100 times, {missed} missed the plugin");
    wait::until("the last list has the entry", PATIENCE, || {
        let list = fs::read_to_string(host.list())?;
        Ok((list.contains("mesh-cni") && list.contains("1099")).then_some(()))
    })
    .unwrap();
    let before = daemon.added();
    assert!(host.cni("add", "shop").status.success());
    assert_eq!(daemon.added(), before + 1);
    chain.let_go();
}

#[test]
fn without_the_daemon_only_exempt_pods_start_and_after_removal_all_do() {
    for method in [Method::DropIn, Method::Conflist] {
        let host = Host::new(method.name());
        host.calico_writes(1400);
        let before = fs::read(host.list()).unwrap();
        let chain = host.chain(method);
        for exempt in ["kube-system", "mesh-system"] {
            assert!(host.cni("add", exempt).status.success(), "{exempt}");
        }
        let refused = host.cni("add", "shop");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("is mesh-node running on this node?"), "{said}");
        assert!(host.cni("del", "shop").status.success());

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(chain.remove()).unwrap();
        assert!(host.cni("add", "shop").status.success());
        assert_eq!(fs::read(host.list()).unwrap(), before);
        // Pods that the plugin added are deleted by a chain that still names it.
        let named = host.root.join("bin/mesh-cni");
        assert!(named.is_file(), "the program stays");
        chain.let_go();
    }
}

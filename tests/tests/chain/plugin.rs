//! The plugin in a real chain: CNI's reference runtime, the reference plugins `ptp` and `host-local`, and the daemon's
//! socket with a scripted daemon behind it.
#![expect(clippy::unwrap_used, reason = "a test ends where a step of it fails")]

use crate::scripted::Scripted;
use mesh_common::cni::{Attachment, Request, Response};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Where Debian and others install the reference plugins.
const REFERENCE_PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ARGS: &str =
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=6c1f;K8S_POD_INFRA_CONTAINER_ID=x";

/// A network namespace for a node, one for a pod, and a directory, named after the test.
struct Node {
    name: String,
    directory: PathBuf,
}

impl Node {
    fn new(test: &str) -> Self {
        let own = fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(own, 0, "network namespaces need root: run this suite with sudo");
        sweep(test);
        let name = format!("cn-{test}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        let node = Self { name, directory };
        fs::create_dir_all(node.directory.join("net.d")).unwrap();
        for namespace in [node.namespace(), node.pod()] {
            run(Command::new("ip").args(["netns", "add", &namespace]));
            run(Command::new("ip").args(["-n", &namespace, "link", "set", "lo", "up"]));
        }
        node
    }

    fn namespace(&self) -> String {
        format!("{}-node", self.name)
    }

    fn pod(&self) -> String {
        format!("{}-pod", self.name)
    }

    fn pod_path(&self) -> String {
        format!("/run/netns/{}", self.pod())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/cni.sock")
    }

    /// A chain of `plugins`, with `host-local` at its beginning.
    fn configure(&self, version: &str, plugins: &[Value]) {
        let directory = self.directory.join("net.d");
        let list = json!({"cniVersion": version, "name": self.name, "plugins": plugins});
        fs::write(directory.join("10-list.conflist"), list.to_string()).unwrap();
        let _ = fs::remove_dir_all(self.directory.join("host-local"));
        let _ = fs::remove_dir_all(directory.join(&self.name));
    }

    fn ptp(&self) -> Value {
        json!({"type": "ptp", "ipMasq": false, "mtu": 1400, "dns": {"nameservers": ["10.96.0.10"]}, "ipam": {
            "type": "host-local", "dataDir": self.directory.join("host-local"),
            "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})
    }

    fn mesh(&self) -> Value {
        json!({"type": "mesh-cni", "socket": self.socket(), "timeout": 30})
    }

    fn command(&self, verb: &str, args: &str) -> Command {
        let reference = REFERENCE_PLUGINS.iter().find(|path| Path::new(path).join("ptp").is_file());
        let reference = reference.expect("the reference CNI plugins are missing: run `cargo xtask setup`");
        let path = format!("{}:{reference}", programs().display());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace()))
            .arg("--")
            .arg(cnitool())
            .args([verb, &self.name, &self.pod_path()])
            .env("NETCONFPATH", self.directory.join("net.d"))
            .env("CNI_PATH", path)
            .env("CNI_ARGS", args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn cni(&self, verb: &str) -> Output {
        self.command(verb, ARGS).output().unwrap()
    }

    /// The result of a successful ADD.
    fn add(&self) -> Value {
        serde_json::from_slice(&succeeds(&self.cni("add")).stdout).unwrap()
    }

    fn del(&self) {
        succeeds(&self.cni("del"));
    }

    fn attachment(&self, container_id: String) -> Attachment {
        Attachment {
            container_id,
            ifname: "eth0".to_owned(),
            netns: self.pod_path(),
            pod_namespace: "shop".to_owned(),
            pod_name: "web-0".to_owned(),
            pod_uid: Some("6c1f".to_owned()),
            addresses: ["10.77.0.2", "fd77::2"].iter().map(|text| text.parse::<IpAddr>().unwrap()).collect(),
        }
    }

    fn clean(&self) {
        for namespace in [self.namespace(), self.pod()] {
            if Path::new("/run/netns").join(&namespace).exists() {
                run(Command::new("ip").args(["netns", "del", &namespace]));
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The runtime keeps a record of the attachment, which only DEL removes.
        let ended = self.cni("del");
        self.clean();
        if !thread::panicking() {
            succeeds(&ended);
        }
    }
}

/// The directory in which Cargo puts this work tree's programs.
fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let directory = own.ancestors().nth(2).unwrap().to_owned();
    assert!(
        directory.join("mesh-cni").is_file(),
        "{} has no mesh-cni: run `cargo build -p mesh-cni`",
        directory.display()
    );
    directory
}

#[expect(clippy::disallowed_methods, reason = "the one variable that this suite reads")]
fn cnitool() -> PathBuf {
    let built = || programs().with_file_name("tools").join("cnitool");
    let path = std::env::var_os("MESH_CNITOOL").map_or_else(built, PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// Removes the namespaces of earlier runs of a test that were killed; a run that is under way keeps its own.
fn sweep(test: &str) {
    let prefix = format!("cn-{test}-");
    for entry in fs::read_dir("/run/netns").into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let process = name.strip_prefix(&prefix).and_then(|rest| rest.split_once('-'));
        if process.is_some_and(|(process, _)| !Path::new("/proc").join(process).exists()) {
            // Another run may sweep at the same time.
            drop(Command::new("ip").args(["netns", "del", &name]).output());
        }
    }
}

fn run(command: &mut Command) {
    succeeds(&command.output().unwrap());
}

fn succeeds(output: &Output) -> &Output {
    assert!(output.status.success(), "{output:?}");
    output
}

/// What a failed call says.
fn fails(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The result without what is random in it: MAC addresses, and names of interfaces on the host.
fn settled(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().unwrap() {
        interface["mac"] = json!("mac");
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface["name"] = json!("veth");
        }
    }
    result
}

#[test]
fn the_chains_result_is_the_same_with_and_without_the_mesh() {
    let node = Node::new("same");
    let daemon = Scripted::answering(&node.socket(), Response::Ok).unwrap();
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        node.configure(version, &[node.ptp()]);
        let without = node.add();
        node.del();
        assert_eq!(daemon.requests(), []);

        node.configure(version, &[node.ptp(), node.mesh()]);
        let with = node.add();
        assert_eq!(with["cniVersion"], version);
        assert_eq!(settled(with), settled(without), "{version}");
        let requests = daemon.requests();
        let [Request::Add(added)] = &requests[..] else { panic!("one ADD, not {requests:?}") };
        assert_eq!(*added, node.attachment(added.container_id.clone()));

        // `ptp` compares the interfaces with the result, which it must find as it made it.
        if version != "0.3.1" {
            succeeds(&node.cni("check"));
            assert_eq!(daemon.requests(), [Request::Check(added.clone())]);
        }
        for _ in 0..2 {
            node.del();
            let del = Request::Del { container_id: added.container_id.clone(), ifname: "eth0".to_owned() };
            assert_eq!(daemon.requests(), [del], "{version}");
        }
    }
}

#[test]
fn a_plugin_dropped_in_beside_the_list_is_chained_too() {
    let node = Node::new("dropin");
    let daemon = Scripted::answering(&node.socket(), Response::Ok).unwrap();
    node.configure("1.0.0", &[node.ptp()]);
    let drop_ins = node.directory.join("net.d").join(&node.name);
    fs::create_dir(&drop_ins).unwrap();
    let mut mesh = node.mesh();
    mesh["cniVersion"] = json!("1.0.0");
    mesh["name"] = json!(node.name);
    fs::write(drop_ins.join("50-mesh.conf"), mesh.to_string()).unwrap();
    node.add();
    let requests = daemon.requests();
    assert!(matches!(&requests[..], [Request::Add(added)] if added.pod_name == "web-0"), "{requests:?}");
}

#[test]
fn without_the_daemon_pods_fail_to_start_and_never_fail_to_end() {
    let node = Node::new("absent");
    node.configure("1.0.0", &[node.ptp(), node.mesh()]);
    let said = fails(&node.cni("add"));
    assert!(said.contains("no mesh daemon at") && said.contains("is mesh-node running on this node?"), "{said}");
    for _ in 0..2 {
        node.del();
    }
    // The same pod starts as soon as the daemon is there.
    let _daemon = Scripted::answering(&node.socket(), Response::Ok).unwrap();
    node.add();
}

#[test]
fn the_daemons_refusal_reaches_the_user() {
    let node = Node::new("refuse");
    node.configure("1.0.0", &[node.ptp(), node.mesh()]);
    let message = "no certificate for spiffe://cluster.local/ns/shop/sa/web yet".to_owned();
    let daemon =
        Scripted::answering(&node.socket(), Response::Error { retriable: true, message: message.clone() }).unwrap();
    assert!(fails(&node.cni("add")).contains(&message));
    node.del();
    let requests = daemon.requests();
    assert!(matches!(&requests[..], [Request::Add(_), Request::Del { .. }]), "{requests:?}");
}

#[test]
fn pods_of_the_system_start_without_the_daemon() {
    let node = Node::new("system");
    node.configure("1.0.0", &[node.ptp(), node.mesh()]);
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=kube-proxy-x";
    succeeds(&node.command("add", args).output().unwrap());
}

#[test]
fn add_returns_when_the_daemon_says_so() {
    let node = Node::new("wait");
    node.configure("1.0.0", &[node.ptp(), node.mesh()]);
    let go = Arc::new(Semaphore::new(0));
    let (asked, is_asked) = mpsc::channel();
    let _daemon = Scripted::start(&node.socket(), {
        let go = Arc::clone(&go);
        move |_| {
            asked.send(()).unwrap();
            let go = Arc::clone(&go);
            Box::pin(async move {
                go.acquire().await.unwrap().forget();
                Response::Ok
            })
        }
    })
    .unwrap();
    let mut add: Child = node.command("add", ARGS).spawn().unwrap();
    is_asked.recv_timeout(PATIENCE).expect("the daemon is asked");
    assert!(add.try_wait().unwrap().is_none(), "ADD did not wait");
    go.add_permits(10);
    succeeds(&add.wait_with_output().unwrap());
}

#[test]
fn status_and_gc_of_the_newest_version() {
    let node = Node::new("status");
    node.configure("1.1.0", &[node.mesh()]);
    let said = fails(&node.cni("status"));
    assert!(said.contains("the mesh daemon is not available"), "{said}");

    let daemon = Scripted::answering(&node.socket(), Response::Ok).unwrap();
    succeeds(&node.cni("status"));
    assert_eq!(daemon.requests(), [Request::Status]);
    // The tool sends no list of attachments, and none is not an empty one.
    let said = fails(&node.cni("gc"));
    assert!(said.contains("nothing was forgotten"), "{said}");
    assert_eq!(daemon.requests(), []);
}

#[test]
fn only_root_may_ask() {
    let node = Node::new("nobody");
    node.configure("1.1.0", &[node.mesh()]);
    let daemon = Scripted::answering(&node.socket(), Response::Ok).unwrap();
    let ask = || {
        let stdin = node.directory.join("stdin");
        let config = json!({"cniVersion": "1.1.0", "name": "n", "type": "mesh-cni", "socket": node.socket()});
        fs::write(&stdin, config.to_string()).unwrap();
        // As root it may be started from where nobody may look.
        let program = node.directory.join("mesh-cni");
        fs::copy(programs().join("mesh-cni"), &program).unwrap();
        Command::new(program)
            .uid(65534)
            .gid(65534)
            .env_clear()
            .env("CNI_COMMAND", "STATUS")
            .stdin(fs::File::open(&stdin).unwrap())
            .output()
            .unwrap()
    };
    fs::set_permissions(&node.directory, Permissions::from_mode(0o755)).unwrap();
    let said = String::from_utf8(ask().stdout).unwrap();
    assert!(said.contains("\"code\":51") && said.contains("Permission denied"), "{said}");
    // Even where the file's mode has been loosened.
    fs::set_permissions(node.socket(), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(node.socket().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let said = String::from_utf8(ask().stdout).unwrap();
    assert!(said.contains("\"code\":50") && said.contains("user 65534 may not ask"), "{said}");
    assert_eq!(daemon.requests(), []);
}

//! The machine that rules the others: etcd, the API server, the controllers, the scheduler.
//!
//! Source: the `--help` of each.

use super::layout::{CONTROL, CONTROL_ADDRESS, Layout, PODS, SERVICES};
use super::machine::{Component, Machine};
use anyhow::{Context, Result};

/// The file that says which requests are logged.
const AUDIT: &str = "audit.yaml";

/// Writes the files of the machine.
///
/// **Errors**: a file cannot be written.
pub(super) fn write_files(layout: &Layout) -> Result<()> {
    let dir = layout.machine(CONTROL);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    std::fs::write(dir.join(AUDIT), include_str!("audit.yaml")).context("cannot write what is to be logged")
}

/// The machine.
pub(super) fn machine(layout: &Layout) -> Machine {
    let mut server = component(layout, "kube-apiserver", api_server(layout));
    let probe = ["--kubeconfig".to_owned(), layout.kubeconfig().display().to_string()];
    server.ready.push(layout.tool("kubectl").display().to_string());
    server.ready.extend(probe);
    server.ready.extend(["get", "--raw", "/readyz"].map(str::to_owned));
    let signing = [
        format!("--cluster-signing-cert-file={}", layout.pki("ca.crt").display()),
        format!("--cluster-signing-key-file={}", layout.pki("ca.key").display()),
        format!("--root-ca-file={}", layout.pki("ca.crt").display()),
        format!("--service-account-private-key-file={}", layout.pki("service-accounts.key").display()),
        "--use-service-account-credentials=true".to_owned(),
        // It makes this directory, which by default is one of the whole machine.
        format!("--flex-volume-plugin-dir={}", layout.machine(CONTROL).join("volume-plugins").display()),
        "--allocate-node-cidrs=false".to_owned(),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
    ];
    let controllers = client(layout, "controllers").into_iter().chain(signing).collect();
    Machine {
        name: CONTROL.to_owned(),
        target: layout.target().to_owned(),
        node: false,
        binds: Vec::new(),
        search_path: "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        components: vec![
            component(layout, "etcd", etcd(layout)),
            server,
            component(layout, "kube-controller-manager", controllers),
            component(layout, "kube-scheduler", client(layout, "scheduler")),
        ],
    }
}

fn component(layout: &Layout, name: &str, arguments: Vec<String>) -> Component {
    Component::new(name, &layout.tool(name), &arguments)
}

fn etcd(layout: &Layout) -> Vec<String> {
    let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    vec![
        "--name=control".to_owned(),
        format!("--data-dir={}", layout.machine(CONTROL).join("etcd").display()),
        // Nothing in it outlives the cluster.
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=control={peers}"),
    ]
}

fn api_server(layout: &Layout) -> Vec<String> {
    let file = |option: &str, file: &str| format!("--{option}={}", layout.pki(file).display());
    let files = [
        ("tls-cert-file", "api-server.crt"),
        ("tls-private-key-file", "api-server.key"),
        ("client-ca-file", "ca.crt"),
        ("kubelet-client-certificate", "api-to-kubelet.crt"),
        ("kubelet-client-key", "api-to-kubelet.key"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("service-account-key-file", "service-accounts.pub"),
        ("service-account-signing-key-file", "service-accounts.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy.crt"),
        ("proxy-client-key-file", "front-proxy.key"),
    ];
    let rest = [
        format!("--bind-address={CONTROL_ADDRESS}"),
        format!("--advertise-address={CONTROL_ADDRESS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--audit-policy-file={}", layout.machine(CONTROL).join(AUDIT).display()),
        format!("--audit-log-path={}", layout.log(CONTROL, "audit").display()),
    ];
    let settings = [
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        // It has no Service addresses, so it calls webhooks where their pods are.
        "--enable-aggregator-routing=true",
    ];
    files.iter().map(|(option, name)| file(option, name)).chain(rest).chain(settings.map(str::to_owned)).collect()
}

/// How a controller reaches the API server, and who it is.
fn client(layout: &Layout, name: &str) -> Vec<String> {
    let kubeconfig = layout.pki(&format!("{name}.kubeconfig"));
    let options = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
    let files = options.map(|option| format!("--{option}={}", kubeconfig.display()));
    files.into_iter().chain(["--bind-address=127.0.0.1", "--leader-elect=false"].map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_may_only_change_their_own() {
        let machine = machine(&Layout::of_work_tree());
        let server = &machine.components[1].command;
        assert!(server.iter().any(|option| option == "--authorization-mode=Node,RBAC"));
        assert!(server.iter().any(|option| option == "--enable-admission-plugins=NodeRestriction"));
    }
}

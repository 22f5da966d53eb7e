//! A node: containerd, the kubelet, kube-proxy and Calico's felix.
//!
//! In:  a node, and what the user chose.
//! Out: a [`Machine`], and the files that its components read.
//! Source: Calico, "Configuring Felix"; kubelet `--help`.

use super::config;
use super::layout::{Layout, Node};
use super::machine::{Component, Machine};
use super::{Choices, Containerd, Felix};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Debian's programs.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where Debian has the reference plugins.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// A node's directories, and where they are inside.
const DIRECTORIES: &[(&str, &str)] = &[
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("calico", "/var/lib/calico"),
    ("kubernetes", config::KUBERNETES),
    ("static-pods", config::STATIC_PODS),
    ("cni", "/etc/cni/net.d"),
    ("cni-bin", "/opt/cni/bin"),
    ("mesh", "/var/lib/mesh"),
    ("log", "/var/log"),
];

/// Writes the files of a node.
///
/// **Errors**: a file cannot be written or copied.
pub(super) fn write_files(layout: &Layout, node: &Node, choices: &Choices) -> Result<()> {
    let dir = layout.machine(node.name);
    for (name, _) in DIRECTORIES {
        fs::create_dir_all(dir.join(name)).with_context(|| format!("cannot create {}", dir.join(name).display()))?;
    }
    fs::create_dir_all(dir.join("log/calico/cni")).context("cannot create the directory of Calico's log")?;
    let json = |value: &serde_json::Value| format!("{value:#}\n");
    let own = fs::read_to_string(layout.pki("calico.kubeconfig")).context("cannot read Calico's kubeconfig")?;
    let files = [
        ("kubernetes/kubelet.yaml", json(&config::kubelet(layout, node))),
        ("kubernetes/proxy.yaml", json(&config::proxy(layout, node, choices.proxy))),
        ("kubernetes/containerd.toml", config::containerd(choices.containerd)),
        ("kubernetes/resolv.conf", String::new()),
        ("calico/nodename", node.name.to_owned()),
        ("cni/calico-kubeconfig", own),
        ("cni/10-calico.conflist", json(&config::network(node))),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text).with_context(|| format!("cannot write {}", dir.join(name).display()))?;
    }
    let kubeconfig = fs::Permissions::from_mode(0o600);
    fs::set_permissions(dir.join("cni/calico-kubeconfig"), kubeconfig).context("cannot protect Calico's kubeconfig")?;
    let plugins = dir.join("cni-bin");
    for name in ["portmap", "bandwidth", "loopback"] {
        copy(&Path::new(REFERENCE_PLUGINS).join(name), &plugins.join(name))?;
    }
    for name in ["calico", "calico-ipam"] {
        copy(&layout.tool("calico"), &plugins.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The machine.
pub(super) fn machine(layout: &Layout, node: &Node, choices: &Choices, images: &Path) -> Machine {
    let dir = layout.machine(node.name);
    let file = |name: &str| Path::new(config::KUBERNETES).join(name).display().to_string();
    let daemon = match choices.containerd {
        Containerd::V2 => layout.tool("containerd"),
        Containerd::V1_6 => PathBuf::from("/usr/bin/containerd"),
    };
    let mut containerd = Component::new("containerd", &daemon, &["--config".to_owned(), file("containerd.toml")]);
    containerd.ready = ["ctr", "version"].map(str::to_owned).to_vec();
    let import = ["ctr", "--namespace", "k8s.io", "images", "import"].map(str::to_owned);
    containerd.then = vec![import.into_iter().chain([images.display().to_string()]).collect()];
    let kubelet = [
        format!("--config={}", file("kubelet.yaml")),
        format!("--kubeconfig={}", layout.pki(&format!("{}.kubeconfig", node.name)).display()),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.address),
    ];
    let proxy = [format!("--config={}", file("proxy.yaml"))];
    Machine {
        name: node.name.to_owned(),
        target: layout.target().to_owned(),
        node: true,
        binds: DIRECTORIES.iter().map(|(name, inside)| (dir.join(name), PathBuf::from(inside))).collect(),
        search_path: search_path(layout, choices.containerd),
        components: vec![
            containerd,
            Component::new("kubelet", &layout.tool("kubelet"), &kubelet),
            Component::new("kube-proxy", &layout.tool("kube-proxy"), &proxy),
            felix(layout, node, choices.felix),
        ],
    }
}

/// Where a node's programs are. Each containerd finds its own shim and client first.
pub(super) fn search_path(layout: &Layout, version: Containerd) -> String {
    match version {
        Containerd::V2 => format!("{}:{SYSTEM}", layout.target().join("tools").display()),
        Containerd::V1_6 => SYSTEM.to_owned(),
    }
}

/// Felix, which ends itself whenever its configuration changes, and expects to be started again.
fn felix(layout: &Layout, node: &Node, backend: Felix) -> Component {
    let mut felix = Component::new("felix", &layout.tool("calico-felix"), &[]);
    let kubeconfig = layout.pki("calico.kubeconfig").display().to_string();
    let settings = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("FELIX_DATASTORETYPE", "kubernetes"),
        ("FELIX_FELIXHOSTNAME", node.name),
        (
            "FELIX_IPTABLESBACKEND",
            match backend {
                Felix::Nft => "NFT",
                Felix::Legacy => "Legacy",
            },
        ),
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
        ("FELIX_HEALTHENABLED", "true"),
        ("FELIX_IPV6SUPPORT", "false"),
        ("FELIX_LOGFILEPATH", "none"),
        ("FELIX_LOGSEVERITYSCREEN", "Info"),
        ("FELIX_TYPHAK8SSERVICENAME", "none"),
        ("FELIX_USAGEREPORTINGENABLED", "false"),
        // Its programs for XDP come with its image, and each update of the dataplane would wait for them in vain.
        ("FELIX_XDPENABLED", "false"),
    ];
    felix.environment = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    felix
}

#[cfg(test)]
mod tests {
    use super::super::layout::NODES;
    use super::*;
    use crate::cluster::{Encapsulation, Proxy};

    fn choices(containerd: Containerd, felix: Felix) -> Choices {
        Choices { containerd, felix, proxy: Proxy::Nftables, encapsulation: Encapsulation::Vxlan }
    }

    #[test]
    fn debians_containerd_does_not_meet_the_shim_of_ours() {
        let layout = Layout::of_work_tree();
        let tools = layout.target().join("tools").display().to_string();
        let node = |version| machine(&layout, &NODES[0], &choices(version, Felix::Nft), Path::new("/images"));
        assert!(node(Containerd::V2).search_path.starts_with(&tools));
        assert!(!node(Containerd::V1_6).search_path.contains(&tools));
        assert_eq!(node(Containerd::V1_6).components[0].command[0], "/usr/bin/containerd");
    }

    #[test]
    fn felix_uses_the_chosen_backend() {
        for (backend, name) in [(Felix::Nft, "NFT"), (Felix::Legacy, "Legacy")] {
            let felix = felix(&Layout::of_work_tree(), &NODES[0], backend);
            assert!(felix.environment.contains(&("FELIX_IPTABLESBACKEND".to_owned(), name.to_owned())));
        }
    }
}

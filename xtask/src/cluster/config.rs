//! What the components of a node are told.
//!
//! In:  a node, and what the user chose.
//! Out: configuration files, as text.
//! Source: `kubelet.config.k8s.io/v1beta1`, `kubeproxy.config.k8s.io/v1alpha1`; containerd, "CRI Plugin Config Guide";
//!         Calico, "Configure the Calico CNI plugins"; CNI specification 1.0.0, "Network configuration format".

use super::images::PAUSE;
use super::layout::{DNS, Layout, Node, PODS};
use super::{Containerd, Proxy};
use serde_json::{Value, json};

/// Where the node keeps what it was given.
pub(super) const KUBERNETES: &str = "/etc/kubernetes";

/// Where the kubelet finds pods by itself.
pub(super) const STATIC_PODS: &str = "/etc/kubernetes/manifests";

/// The kubelet's configuration, which is YAML as every JSON is.
pub(super) fn kubelet(layout: &Layout, node: &Node) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "address": node.address,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.pki(&format!("{}.crt", node.name)),
        "tlsPrivateKeyFile": layout.pki(&format!("{}.key", node.name)),
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": format!("{KUBERNETES}/resolv.conf"),
        // Pods that the node runs whatever becomes of the API server.
        "staticPodPath": STATIC_PODS,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "failSwapOn": false,
        // The disk is the whole machine's: that it is nearly full is no reason to end pods or forget images.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
        "syncFrequency": "10s",
    })
}

/// kube-proxy's configuration.
pub(super) fn proxy(layout: &Layout, node: &Node, mode: Proxy) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": match mode { Proxy::Nftables => "nftables", Proxy::Iptables => "iptables" },
        "clientConnection": {"kubeconfig": layout.pki("proxy.kubeconfig")},
        "clusterCIDR": PODS,
        "hostnameOverride": node.name,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // Parameters of the whole kernel, which it leaves alone then.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// containerd's configuration.
pub(super) fn containerd(version: Containerd) -> String {
    // Neither may runc lower the OOM score of containers, where root lacks CAP_SYS_RESOURCE, nor is that needed here.
    match version {
        Containerd::V2 => format!(
            r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
        ),
        Containerd::V1_6 => format!(
            r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
        ),
    }
}

/// The network of the pods, with the names that Calico's own installer gives it.
pub(super) fn network(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "k8s-pod-network",
        "plugins": [
            {
                "type": "calico",
                "log_level": "info", "log_file_path": "/var/log/calico/cni/cni.log",
                "datastore_type": "kubernetes", "nodename": node.name, "mtu": 0,
                "ipam": {"type": "calico-ipam"},
                "policy": {"type": "k8s"},
                "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
            },
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::super::layout::NODES;
    use super::*;

    #[test]
    fn calico_is_the_first_plugin_of_a_version_it_knows() {
        let network = network(&NODES[1]);
        assert_eq!(network["plugins"][0]["type"], "calico");
        assert_eq!(network["plugins"][0]["nodename"], "node2");
        assert_eq!(network["cniVersion"], "1.0.0");
    }

    #[test]
    fn both_versions_of_containerd_use_our_pause_and_the_nodes_plugins() {
        for version in [Containerd::V2, Containerd::V1_6] {
            let text = containerd(version);
            for part in [PAUSE, "\"/opt/cni/bin\"", "conf_dir = \"/etc/cni/net.d\"", "restrict_oom_score_adj = true"] {
                assert!(text.contains(part), "{part} is not in\n{text}");
            }
        }
    }

    #[test]
    fn a_kubelet_is_its_nodes() {
        let kubelet = kubelet(&Layout::of_work_tree(), &NODES[0]);
        assert_eq!(kubelet["address"], "10.99.0.11");
        assert!(kubelet["tlsCertFile"].as_str().unwrap().ends_with("/pki/node1.crt"));
        assert_eq!(kubelet["authentication"]["anonymous"]["enabled"], false);
    }
}

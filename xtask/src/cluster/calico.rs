//! Calico's definitions, its pools of addresses, and what it keeps at the nodes.
//!
//! In:  the resource definitions of the pinned Calico module, in Go's cache of modules.
//! Out: manifests, for kubectl and calicoctl.
//! Source: Calico, "IP pool", "IP reservation"; its `libcalico-go/lib/backend/k8s/conversion` for a node's annotations.

use super::Encapsulation;
use super::layout::NODES;
use crate::{env, run};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Its rights, and that its store is ready.
pub(super) const MANIFEST: &str = include_str!("calico.yaml");

/// The directory of its resource definitions.
///
/// **Errors**: Go does not have the module.
pub(super) fn definitions() -> Result<PathBuf> {
    let go = env::program("go").context("Go is not on PATH")?;
    let mut list = Command::new(go);
    list.args(["list", "-m", "-f", "{{.Dir}}", "github.com/projectcalico/calico"]);
    let dir = run::output(list.current_dir(env::root().join("tests/tools/calico")))?;
    let definitions = PathBuf::from(dir.trim()).join("libcalico-go/config/crd");
    if dir.trim().is_empty() || !definitions.is_dir() {
        bail!(
            "Go's cache lacks the sources of Calico: run `go mod download github.com/projectcalico/calico` in tests/tools/calico"
        );
    }
    Ok(definitions)
}

/// A pool of addresses for each node, so that a route leads to its pods from wherever nothing is wrapped.
pub(super) fn pools(encapsulation: Encapsulation) -> Vec<Value> {
    let pools = NODES.iter().map(|node| {
        json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": node.name},
            "spec": {
                "cidr": node.pods, "blockSize": 26, "natOutgoing": true,
                "ipipMode": "Never",
                "vxlanMode": match encapsulation { Encapsulation::Vxlan => "Always", Encapsulation::None => "Never" },
                "nodeSelector": format!("kubernetes.io/hostname == '{}'", node.name),
            },
        })
    });
    let tunnels: Vec<_> = NODES.iter().map(|node| format!("{}/32", node.tunnel)).collect();
    let reservation = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPReservation", "metadata": {"name": "tunnels"},
        "spec": {"reservedCIDRs": tunnels},
    });
    pools.chain(std::iter::once(reservation)).collect()
}

/// The nodes with what calico/node would note at them: where they are, and from where they wrap packets.
pub(super) fn nodes(encapsulation: Encapsulation) -> Value {
    let nodes = NODES.iter().map(|node| {
        let mut annotations = json!({"projectcalico.org/IPv4Address": format!("{}/24", node.address)});
        if encapsulation == Encapsulation::Vxlan {
            annotations["projectcalico.org/IPv4VXLANTunnelAddr"] = json!(node.tunnel);
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}, "annotations": annotations},
        })
    });
    json!({"apiVersion": "v1", "kind": "List", "items": nodes.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_pool_and_its_tunnels_address_is_nobody_elses() {
        let pools = pools(Encapsulation::Vxlan);
        assert_eq!(pools.len(), NODES.len() + 1);
        assert_eq!(pools[0]["spec"]["nodeSelector"], "kubernetes.io/hostname == 'node1'");
        assert_eq!(pools[0]["spec"]["vxlanMode"], "Always");
        assert_eq!(pools[2]["spec"]["reservedCIDRs"], json!(["10.244.1.0/32", "10.244.2.0/32"]));
    }

    #[test]
    fn without_encapsulation_no_node_has_a_tunnel() {
        assert_eq!(super::pools(Encapsulation::None)[1]["spec"]["vxlanMode"], "Never");
        let nodes = nodes(Encapsulation::None);
        assert_eq!(
            nodes["items"][1]["metadata"]["annotations"],
            json!({"projectcalico.org/IPv4Address": "10.99.0.12/24"})
        );
    }
}

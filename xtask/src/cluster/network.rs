//! The network of the machines: a namespace for each, joined by a bridge in the control machine's.
//!
//! Invariant: nothing is added to this machine's own network.

use super::Encapsulation;
use super::layout::{CONTROL, CONTROL_ADDRESS, CONTROL_NETWORK, Layout, NODES, Node};
use crate::run;
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use std::process::Command;

/// Makes the namespaces and joins them.
///
/// **Errors**: this is not root, or the kernel refuses.
pub(super) fn make(layout: &Layout, encapsulation: Encapsulation) -> Result<()> {
    namespace(layout, CONTROL)?;
    ip(layout, CONTROL, &["link", "add", "machines", "type", "bridge"])?;
    ip(layout, CONTROL, &["address", "add", CONTROL_NETWORK, "dev", "machines"])?;
    ip(layout, CONTROL, &["link", "set", "machines", "up"])?;
    NODES.iter().try_for_each(|node| join(layout, node, encapsulation))
}

/// Makes the namespace of a node, which has none, and joins it to the others.
///
/// **Errors**: this is not root, or the kernel refuses.
pub(super) fn join(layout: &Layout, node: &Node, encapsulation: Encapsulation) -> Result<()> {
    namespace(layout, node.name)?;
    let (own, control) = (layout.name(node.name), layout.name(CONTROL));
    let mut device = Command::new("ip");
    device.args(["link", "add", "eth0", "address", &hardware_address(node)?, "netns", &own, "type", "veth"]);
    run::output(device.args(["peer", "name", node.name, "netns", &control]))?;
    ip(layout, CONTROL, &["link", "set", node.name, "master", "machines", "up"])?;
    ip(layout, node.name, &["address", "add", &format!("{}/24", node.address), "dev", "eth0"])?;
    ip(layout, node.name, &["link", "set", "eth0", "up"])?;
    // Calico's answers to ARP from pods depend on there being one.
    ip(layout, node.name, &["route", "add", "default", "via", CONTROL_ADDRESS])?;
    // Tests, and the API server that calls webhooks, reach pods from here.
    ip(layout, CONTROL, &["route", "replace", node.pods, "via", node.address])?;
    if encapsulation == Encapsulation::None {
        for other in NODES.iter().filter(|other| other.name != node.name) {
            ip(layout, node.name, &["route", "add", other.pods, "via", other.address])?;
        }
    }
    Ok(())
}

/// The address of a node's card, which a boot does not change: the other node sends to the one that it knows for up to a minute.
fn hardware_address(node: &Node) -> Result<String> {
    let address: Ipv4Addr = node.address.parse().context("a node's address is none")?;
    let [a, b, c, d] = address.octets();
    // One that is given out locally.
    Ok(format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
}

/// Pulls a node's cable.
///
/// **Errors**: the node has none.
pub(super) fn part(layout: &Layout, node: &Node) -> Result<()> {
    ip(layout, CONTROL, &["link", "delete", node.name])
}

fn namespace(layout: &Layout, machine: &str) -> Result<()> {
    run::output(Command::new("ip").args(["netns", "add", &layout.name(machine)]))
        .context("network namespaces need root and iproute2")?;
    ip(layout, machine, &["link", "set", "lo", "up"])?;
    let forward = ["-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"];
    run::output(layout.in_network(machine, "sysctl").args(forward)).map(drop)
}

fn ip(layout: &Layout, machine: &str, arguments: &[&str]) -> Result<()> {
    run::output(layout.in_network(machine, "ip").args(arguments)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_card_of_its_own() {
        assert_eq!(
            NODES.each_ref().map(|node| hardware_address(node).ok()),
            [Some("02:00:0a:63:00:0b".to_owned()), Some("02:00:0a:63:00:0c".to_owned()),]
        );
    }
}

//! Sandboxes of pods that ran before the plugin was in the chain.
//!
//! In:  pods of this node that no ADD told of, with their addresses; the directory of network namespaces.
//! Out: the attachment that ADD would have brought, for each that is found.
//! Invariant: nothing that a pod can write is believed. The node's own route to the address names a device; the
//! kernel says which namespace holds that device's other end.
//! Invariant: a device that is named after another pod leads to that one. After a boot, pods are still said to have the addresses of
//! before, and others may have got them.
//! Source: `rtnetlink(7)`, `IFLA_LINK_NETNSID`; `RTM_GETNSID` in the kernel's `net_namespace.c`; containerd and CRI-O keep
//! a sandbox's namespace as a file of `/var/run/netns`; Calico's `VethNameForWorkload` for the names of devices, by which felix
//! finds them whoever made them.

use crate::model::Name;
use crate::sys::netlink::{Peer, Routing};
use crate::sys::netns::NetNs;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use mesh_common::cni::{Attachment, is_container_id, is_ifname};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A pod of this node whose sandbox is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Namespace and name.
    pub name: Name,
    /// Its UID.
    pub uid: String,
    /// The runtime's id of its sandbox, where the network plugin tells.
    pub container_id: Option<String>,
    /// Its addresses, primary first.
    pub addresses: Vec<IpAddr>,
}

/// Why a pod's sandbox is not found.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// The kernel does not answer.
    #[error("the kernel does not tell")]
    Kernel(#[from] io::Error),
    /// There is no route to the pod.
    #[error("the node has no route to {0}")]
    NoRoute(IpAddr),
    /// The route leads to no pair of devices.
    #[error("the node's route to {address} goes through {device}, which does not lead into a pod")]
    NoPair {
        /// The pod's address.
        address: IpAddr,
        /// The device.
        device: String,
    },
    /// The address was the pod's, and is another's now.
    #[error("the node's route to {address} goes through {device}, which is another pod's")]
    Another {
        /// The pod's address.
        address: IpAddr,
        /// The device.
        device: String,
    },
    /// No file leads to the namespace.
    #[error("no file of {} is the namespace behind {device}", directory.display())]
    NoNamespace {
        /// The directory of namespaces.
        directory: PathBuf,
        /// The node's device that leads to the pod.
        device: String,
    },
}

/// The attachment of each pod, or why there is none, in the pods' order.
///
/// **Errors**: the directory of namespaces cannot be read.
pub fn find(directory: &Path, strangers: &[Stranger]) -> io::Result<Vec<Result<Attachment, RunningError>>> {
    let routing = Routing::here()?;
    let ends: Vec<_> = strangers.iter().map(|stranger| end(&routing, stranger)).collect();
    // After the devices: asking for a device gives the namespace of its other end a number.
    let namespaces = namespaces(&routing, directory)?;
    let attachments = strangers.iter().zip(ends).map(|(stranger, end)| {
        let (device, peer) = end?;
        let (path, ns) = namespaces
            .get(&peer.namespace)
            .ok_or_else(|| RunningError::NoNamespace { directory: directory.to_owned(), device: device.clone() })?;
        attachment(stranger, path, ns, peer)
    });
    Ok(attachments.collect())
}

/// The node's device that leads to a pod, and the pod's end of it.
fn end(routing: &Routing, stranger: &Stranger) -> Result<(String, Peer), RunningError> {
    let address = *stranger.addresses.first().ok_or_else(|| io::Error::other("the pod has no address"))?;
    let device = routing.device_to(address)?.ok_or(RunningError::NoRoute(address))?;
    let link = routing.link(device)?.ok_or(RunningError::NoRoute(address))?;
    if is_of_another(&link.name, &stranger.name) {
        return Err(RunningError::Another { address, device: link.name });
    }
    let peer = link.peer.ok_or_else(|| RunningError::NoPair { address, device: link.name.clone() })?;
    Ok((link.name, peer))
}

/// How devices begin that are named as felix wants it, whoever makes them: Calico, and the clouds' plugins beside which it runs.
const NAMED: [&str; 4] = ["cali", "eni", "gke", "azv"];

/// Is a device named after another pod, as felix wants it: a known beginning, then the first digits of a digest of the pod's name?
fn is_of_another(device: &str, pod: &Name) -> bool {
    const DIGITS: usize = 11;
    let Some(digits) = NAMED.iter().find_map(|beginning| device.strip_prefix(beginning)) else { return false };
    let is_named = digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let of_pod = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{}.{}", pod.namespace, pod.name).as_bytes());
    let of_pod: String = of_pod.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    is_named && !of_pod.starts_with(digits)
}

/// The namespaces of a directory, by the number this one knows them by.
fn namespaces(routing: &Routing, directory: &Path) -> io::Result<BTreeMap<i32, (PathBuf, NetNs)>> {
    let mut namespaces = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // A namespace that is being made or removed is an ordinary file for a moment.
        let Ok(ns) = NetNs::open(&path) else { continue };
        if let Some(id) = routing.id_of(&ns)? {
            namespaces.insert(id, (path, ns));
        }
    }
    Ok(namespaces)
}

fn attachment(stranger: &Stranger, path: &Path, ns: &NetNs, peer: Peer) -> Result<Attachment, RunningError> {
    let inside = Routing::open(ns)?;
    let link = inside.link(peer.ifindex)?.ok_or_else(|| io::Error::other("the pod's device is gone"))?;
    let told = stranger.container_id.as_deref().filter(|id| is_container_id(id));
    // Without the runtime's own id its DEL will name nothing known; the namespace's end is noticed all the same.
    let container_id = told.map_or_else(|| format!("running-{}", stranger.uid), str::to_owned);
    let netns = path.to_str().filter(|_| is_container_id(&container_id) && is_ifname(&link.name));
    let netns = netns.ok_or_else(|| io::Error::other("the pod's UID, device or namespace has no usable name"))?;
    Ok(Attachment {
        container_id,
        ifname: link.name,
        netns: netns.to_owned(),
        pod_namespace: stranger.name.namespace.to_string(),
        pod_name: stranger.name.name.to_string(),
        pod_uid: Some(stranger.uid.clone()).filter(|uid| !uid.is_empty()),
        addresses: stranger.addresses.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_named_after_another_pod_leads_to_that_one() {
        let pod = Name::new("default", "client-b6989bf87-2bgtc");
        assert!(!is_of_another("calic95a4947e07", &pod), "it is the pod's own");
        assert!(!is_of_another("enic95a4947e07", &pod), "whoever made it");
        let others = [Name::new("default", "client-b6989bf87-2bgtd"), Name::new("other", "client-b6989bf87-2bgtc")];
        for other in others {
            assert!(is_of_another("calic95a4947e07", &other), "{other} has the address no longer");
        }
    }

    #[test]
    fn a_device_that_is_named_otherwise_says_nothing() {
        let pod = Name::new("default", "web");
        for device in [
            "",
            "eth0",
            "veth1a2b3c4d",
            "cali",
            "c95a4947e07",
            "vxlan.calico",
            "calic95a4947e0g",
            "äc95a4947e07",
            "lxcac95a4947e07",
        ] {
            assert!(!is_of_another(device, &pod), "{device}");
        }
    }
}

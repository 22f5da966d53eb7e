//! Rules, routes and settings inside a pod's namespace.
//!
//! In:  a pod's addresses and the mode of capture.
//! Out: captured packets loop through `lo` with the pod's source address, and answers come back to the daemon.
//! Invariant: what is made carries the mesh's routing protocol number; what is changed was saved before.
//! Source: `ip-rule(8)`, `ip-route(8)`; `tcp_fwmark_accept`, `fwmark_reflect` and `accept_local` in the kernel's
//! `ip-sysctl`.

use super::{Hook, Repair, SteerError};
use crate::sys::netlink::{Entry, Routing, TABLE_MAIN};
use crate::sys::netns::NetNs;
use crate::sys::sysctl;
use mesh_common::route::{MARK_CAPTURE, MARK_PROXY, TABLE};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

/// A setting and the value it must have.
type Setting = (&'static str, &'static str);

/// Accepted connections take over the mark of the packet that opened them.
const ACCEPT: Setting = ("net/ipv4/tcp_fwmark_accept", "1");
/// Answers that belong to no connection, such as resets, carry the mark of what they answer.
const REFLECT4: Setting = ("net/ipv4/fwmark_reflect", "1");
const REFLECT6: Setting = ("net/ipv6/fwmark_reflect", "1");
/// Redirected packets are routed as if they arrived, with one of the pod's own addresses as their source.
const ACCEPT_LOCAL: Setting = ("net/ipv4/conf/lo/accept_local", "1");
/// The larger of a device's and the general value counts: this one keeps a strict general value from dropping them.
const LOOSE: Setting = ("net/ipv4/conf/lo/rp_filter", "2");

/// The settings a pod needs.
pub(super) fn settings(hook: &Hook, addresses: &[IpAddr]) -> Vec<Setting> {
    let mut settings = vec![ACCEPT];
    if addresses.iter().any(IpAddr::is_ipv4) {
        settings.push(REFLECT4);
        match hook {
            Hook::Cgroup(_) => {}
            Hook::Tcx => settings.extend([ACCEPT_LOCAL, LOOSE]),
        }
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        settings.push(REFLECT6);
    }
    settings
}

/// The routes and rules a pod needs: the table is filled before a rule leads to it.
pub(super) fn entries(addresses: &[IpAddr]) -> impl Iterator<Item = Entry> {
    addresses.iter().flat_map(|&source| {
        let v6 = source.is_ipv6();
        [
            Entry::Local { source },
            Entry::Rule { v6, mark: MARK_CAPTURE, table: TABLE },
            Entry::Rule { v6, mark: MARK_PROXY, table: TABLE_MAIN },
        ]
    })
}

/// Reads the values of these settings.
pub(super) fn read(ns: &NetNs, settings: &[Setting]) -> Result<BTreeMap<String, String>, SteerError> {
    let read = |&(name, _): &Setting| {
        let value = sysctl::read(ns, name).map_err(|source| SteerError::Sysctl { name: name.to_owned(), source })?;
        Ok((name.to_owned(), value))
    };
    settings.iter().map(read).collect()
}

/// A namespace, and where its settings are written.
type Writable<'of> = (&'of NetNs, &'of Path);

/// Makes what is missing; what that was.
pub(super) fn ensure((ns, below): Writable<'_>, hook: &Hook, addresses: &[IpAddr]) -> Result<Vec<Repair>, SteerError> {
    let mut repairs = Vec::new();
    for (name, value) in settings(hook, addresses) {
        let refused = |source| SteerError::Sysctl { name: name.to_owned(), source };
        if sysctl::read(ns, name).map_err(refused)? != value {
            sysctl::write(below, ns, (name, value)).map_err(refused)?;
            repairs.push(Repair::Sysctl);
        }
    }
    let routing = open(ns)?;
    for entry in entries(addresses) {
        if routing.add(entry).map_err(|source| SteerError::Routing { what: format!("{entry:?}"), source })? {
            repairs.push(match entry {
                Entry::Local { .. } => Repair::Route,
                Entry::Rule { .. } => Repair::Rule,
            });
        }
    }
    Ok(repairs)
}

/// Takes away what [`ensure`] made, and writes the old values back. Everything is tried; the first error is told.
pub(super) fn restore(
    (ns, below): Writable<'_>,
    addresses: &[IpAddr],
    sysctls: &BTreeMap<String, String>,
) -> Result<(), SteerError> {
    let routing = open(ns)?;
    let mut entries: Vec<Entry> = entries(addresses).collect();
    entries.reverse();
    let routes = entries.into_iter().map(|entry| {
        routing.remove(entry).map(drop).map_err(|source| SteerError::Routing { what: format!("{entry:?}"), source })
    });
    let values = sysctls.iter().map(|(name, value)| {
        sysctl::write(below, ns, (name, value)).map_err(|source| SteerError::Sysctl { name: name.clone(), source })
    });
    let results: Vec<_> = routes.chain(values).collect();
    results.into_iter().collect()
}

/// The addresses the namespace holds.
pub(super) fn addresses(ns: &NetNs) -> Result<Vec<IpAddr>, SteerError> {
    let read = |routing: Routing| {
        routing.addresses().map_err(|source| SteerError::Routing { what: "addresses".to_owned(), source })
    };
    open(ns).and_then(read)
}

fn open(ns: &NetNs) -> Result<Routing, SteerError> {
    Routing::open(ns).map_err(|source| SteerError::Routing { what: "socket".to_owned(), source })
}

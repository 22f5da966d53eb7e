//! Kubernetes: pods, services and network policies.
//!
//! In:  the `World`.
//! Out: workloads, services, and the policies that NetworkPolicies are.
//! Source: the Kubernetes API reference; kube-proxy for which endpoints take traffic.

pub(super) mod label_selector;
pub(super) mod network_policy;
pub mod pod;
pub(super) mod protocol;
pub mod service;

use crate::model::Issue;
use crate::model::ObjectRef;
use std::net::IpAddr;

/// The address that `text` is, if traffic between pods may use it; an IPv4-mapped address counts as IPv4.
fn address(text: &str, object: &ObjectRef, field: &str, issues: &mut Vec<Issue>) -> Option<IpAddr> {
    let problem = match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Err(_) => "is no IP address",
        Ok(address) if address.is_loopback() => "is a loopback address",
        Ok(address) if address.is_unspecified() => "is the unspecified address",
        Ok(address) if address.is_multicast() => "is a multicast address",
        Ok(address) => return Some(address),
    };
    issues.push(Issue::new(
        object,
        field,
        format!("`{text}` {problem}; it is not used"),
        "give the address by which other pods reach it",
    ));
    None
}

//! Which mutual-TLS mode each port of a workload has.
//!
//! In:  peer-authentication policies and one workload.
//! Out: [`Modes`].
//! Invariant: port before workload before namespace before mesh before PERMISSIVE; of equal scope only the oldest
//! policy counts, and an unset mode inherits.
//! Source: Istio `PeerAuthentication`.

use crate::model::{MtlsMode, PeerAuthentication, Scope, Workload};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// The mutual-TLS modes of a workload's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    /// The mode of ports that are not listed.
    pub default: MtlsMode,
    /// The ports whose mode differs, ordered by port.
    pub ports: Vec<(u16, MtlsMode)>,
}

/// Policies, ready to be asked about many workloads.
#[derive(Clone, Debug, Default)]
pub struct MtlsPolicies<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespaces: BTreeMap<&'a str, &'a PeerAuthentication>,
    /// Oldest first.
    workloads: BTreeMap<&'a str, Vec<&'a PeerAuthentication>>,
}

impl<'a> MtlsPolicies<'a> {
    /// The policies in force among `policies`.
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = &'a PeerAuthentication>) -> Self {
        let mut by_age: Vec<_> = policies.into_iter().collect();
        by_age.sort_by_key(|policy| policy.seniority());
        let mut chosen = Self::default();
        for policy in by_age {
            let namespace = &*policy.name.namespace;
            match policy.scope {
                Scope::Mesh => {
                    chosen.mesh.get_or_insert(policy);
                }
                Scope::Namespace => {
                    chosen.namespaces.entry(namespace).or_insert(policy);
                }
                Scope::Workloads(_) => chosen.workloads.entry(namespace).or_default().push(policy),
            }
        }
        chosen
    }

    /// The modes of `workload`.
    #[must_use]
    pub fn modes(&self, workload: &Workload) -> Modes {
        let namespace = &*workload.name.namespace;
        let selecting = self.workloads.get(namespace).map_or(&[][..], Vec::as_slice);
        let own = selecting.iter().find(|policy| policy.covers(workload)).copied();
        let narrowest_first = [own, self.namespaces.get(namespace).copied(), self.mesh];
        let default =
            narrowest_first.into_iter().flatten().find_map(|policy| policy.mode).unwrap_or(MtlsMode::Permissive);
        let ports = own
            .into_iter()
            .flat_map(|policy| &policy.ports)
            .filter_map(|(&port, &mode)| Some((port, mode?)))
            .filter(|&(_, mode)| mode != default)
            .collect();
        Modes { default, ports }
    }
}

/// The modes of `workload` under `policies`.
#[must_use]
pub fn mtls_modes<'a>(workload: &Workload, policies: impl IntoIterator<Item = &'a PeerAuthentication>) -> Modes {
    MtlsPolicies::new(policies).modes(workload)
}

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
        let narrowest_first = self.narrowest_first(workload);
        let default =
            narrowest_first.into_iter().flatten().find_map(|policy| policy.mode).unwrap_or(MtlsMode::Permissive);
        let ports = narrowest_first[0]
            .into_iter()
            .flat_map(|policy| &policy.ports)
            .filter_map(|(&port, &mode)| Some((port, mode?)))
            .filter(|&(_, mode)| mode != default)
            .collect();
        Modes { default, ports }
    }

    /// The policy that says the mode of a port of `workload`; `None` where none does.
    #[must_use]
    pub fn decider(&self, workload: &Workload, port: u16) -> Option<&'a PeerAuthentication> {
        let narrowest_first = self.narrowest_first(workload);
        let says_of_port = |own: &&PeerAuthentication| own.ports.get(&port).is_some_and(Option::is_some);
        let of_port = narrowest_first[0].filter(says_of_port);
        of_port.or_else(|| narrowest_first.into_iter().flatten().find(|policy| policy.mode.is_some()))
    }

    /// The policies that may say something of `workload`: the one that selects it, that of its namespace, that of the mesh.
    fn narrowest_first(&self, workload: &Workload) -> [Option<&'a PeerAuthentication>; 3] {
        let namespace = &*workload.name.namespace;
        let selecting = self.workloads.get(namespace).map_or(&[][..], Vec::as_slice);
        let own = selecting.iter().find(|policy| policy.covers(workload)).copied();
        [own, self.namespaces.get(namespace).copied(), self.mesh]
    }
}

/// The modes of `workload` under `policies`.
#[must_use]
pub fn mtls_modes<'a>(workload: &Workload, policies: impl IntoIterator<Item = &'a PeerAuthentication>) -> Modes {
    MtlsPolicies::new(policies).modes(workload)
}

//! Turns foreign APIs into the mesh's one vocabulary.
//!
//! In:  the `World`, and the names that the operator chose.
//! Out: the `Model`, and an `Issue` for everything that could not be taken as written.
//! Invariant: the result depends on the world alone, not on how it came about.
//! Invariant: each field of a foreign API is enforced, reported or refused.
//! Source: each translator names its own.

pub mod istio;
pub mod kube;

use crate::model::{Issue, Model, TrustDomain};
use crate::world::World;

#[cfg(test)]
mod tests;

/// The names that the operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who vouches for identities, as in `cluster.local`.
    pub trust_domain: TrustDomain,
    /// The namespace whose policies without a selector hold for the whole mesh.
    pub root_namespace: String,
}

impl Default for Settings {
    /// Istio's defaults.
    fn default() -> Self {
        Self { trust_domain: "cluster.local".into(), root_namespace: "istio-system".to_owned() }
    }
}

/// The world in the mesh's own words. Issues are ordered and without duplicates.
#[must_use]
pub fn translate(world: &World, settings: &Settings) -> (Model, Vec<Issue>) {
    let mut issues = Vec::new();
    let workloads = kube::pod::workloads(world, &settings.trust_domain, &mut issues);
    let services = kube::service::services(world, &mut issues);
    let peer_authentications = istio::peer_authentications(world, &settings.root_namespace, &workloads, &mut issues);
    issues.sort();
    issues.dedup();
    (Model { workloads, services, peer_authentications }, issues)
}

//! Calico's kinds, and the two places where an object of them may be.
//!
//! Out: [`CalicoKind`], [`CalicoStore`]; [`CalicoObject`], the name and labels that an object has for its user.
//! Invariant: an object is told apart by the name that `calicoctl` shows, wherever it is stored.
//! Source: Calico `projectcalico.org/v3`; how it is stored: `crd.projectcalico.org/v1`, where a policy's name may have the prefix
//! `default.`, and the annotation `projectcalico.org/metadata` has the name and the labels that the user gave.

use super::Custom;
use crate::model::{Labels, Name};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// A kind of Calico's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalicoKind {
    /// `NetworkPolicy`.
    NetworkPolicy,
    /// `GlobalNetworkPolicy`.
    GlobalNetworkPolicy,
    /// `StagedNetworkPolicy`.
    StagedNetworkPolicy,
    /// `StagedGlobalNetworkPolicy`.
    StagedGlobalNetworkPolicy,
    /// `StagedKubernetesNetworkPolicy`.
    StagedKubernetesNetworkPolicy,
    /// `Tier`.
    Tier,
    /// `NetworkSet`.
    NetworkSet,
    /// `GlobalNetworkSet`.
    GlobalNetworkSet,
}

/// Where an object is. If it is in both places, the first counts, as for Calico.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalicoStore {
    /// In the form in which Calico stores it beneath its own API.
    Crd,
    /// In the form of its API.
    Native,
}

impl CalicoStore {
    /// The API group.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Crd => "crd.projectcalico.org",
            Self::Native => "projectcalico.org",
        }
    }

    /// The versions that can be read.
    pub(super) const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Crd => &["v1"],
            Self::Native => &["v3"],
        }
    }
}

/// What an object of a kind means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalicoFamily {
    /// A policy.
    Policy,
    /// A tier.
    Tier,
    /// A set of addresses.
    Set,
}

impl CalicoKind {
    /// What its objects mean.
    #[must_use]
    pub const fn family(self) -> CalicoFamily {
        match self {
            Self::NetworkPolicy
            | Self::GlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedGlobalNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy => CalicoFamily::Policy,
            Self::Tier => CalicoFamily::Tier,
            Self::NetworkSet | Self::GlobalNetworkSet => CalicoFamily::Set,
        }
    }

    /// The kind as users write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::Tier => "Tier",
            Self::NetworkSet => "NetworkSet",
            Self::GlobalNetworkSet => "GlobalNetworkSet",
        }
    }

    /// The kind as it is told apart from every other.
    pub(super) const fn full_name(self, store: CalicoStore) -> &'static str {
        match (store, self) {
            (CalicoStore::Native, Self::NetworkPolicy) => "NetworkPolicy.projectcalico.org",
            (CalicoStore::Native, _) => self.name(),
            (CalicoStore::Crd, Self::NetworkPolicy) => "NetworkPolicy.crd.projectcalico.org",
            (CalicoStore::Crd, Self::GlobalNetworkPolicy) => "GlobalNetworkPolicy.crd.projectcalico.org",
            (CalicoStore::Crd, Self::StagedNetworkPolicy) => "StagedNetworkPolicy.crd.projectcalico.org",
            (CalicoStore::Crd, Self::StagedGlobalNetworkPolicy) => "StagedGlobalNetworkPolicy.crd.projectcalico.org",
            (CalicoStore::Crd, Self::StagedKubernetesNetworkPolicy) => {
                "StagedKubernetesNetworkPolicy.crd.projectcalico.org"
            }
            (CalicoStore::Crd, Self::Tier) => "Tier.crd.projectcalico.org",
            (CalicoStore::Crd, Self::NetworkSet) => "NetworkSet.crd.projectcalico.org",
            (CalicoStore::Crd, Self::GlobalNetworkSet) => "GlobalNetworkSet.crd.projectcalico.org",
        }
    }

    /// Its name in paths and in rules of RBAC.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "networkpolicies",
            Self::GlobalNetworkPolicy => "globalnetworkpolicies",
            Self::StagedNetworkPolicy => "stagednetworkpolicies",
            Self::StagedGlobalNetworkPolicy => "stagedglobalnetworkpolicies",
            Self::StagedKubernetesNetworkPolicy => "stagedkubernetesnetworkpolicies",
            Self::Tier => "tiers",
            Self::NetworkSet => "networksets",
            Self::GlobalNetworkSet => "globalnetworksets",
        }
    }

    /// Do its objects live outside namespaces?
    pub(super) const fn is_cluster_scoped(self) -> bool {
        match self {
            Self::GlobalNetworkPolicy | Self::StagedGlobalNetworkPolicy | Self::Tier | Self::GlobalNetworkSet => true,
            Self::NetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedKubernetesNetworkPolicy
            | Self::NetworkSet => false,
        }
    }

    /// Are its objects parts of tiers? Then their names have had the prefix of the tier.
    const fn has_tier(self) -> bool {
        match self {
            Self::NetworkPolicy
            | Self::GlobalNetworkPolicy
            | Self::StagedNetworkPolicy
            | Self::StagedGlobalNetworkPolicy => true,
            Self::StagedKubernetesNetworkPolicy | Self::Tier | Self::NetworkSet | Self::GlobalNetworkSet => false,
        }
    }
}

/// What an object of Calico's is for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoObject {
    /// Namespace and name.
    pub name: Name,
    /// Its labels.
    pub labels: Arc<Labels>,
}

impl CalicoObject {
    /// The annotation in which Calico keeps what the user said of an object.
    pub const METADATA: &'static str = "projectcalico.org/metadata";

    /// What an object of this kind is, that is stored there.
    ///
    /// **Errors**: what Calico keeps of it in the annotation has another form.
    pub fn of(kind: CalicoKind, store: CalicoStore, object: &Custom) -> Result<Self, serde_json::Error> {
        #[derive(Default, Deserialize)]
        struct Said {
            #[serde(default)]
            name: String,
            #[serde(default, deserialize_with = "super::nullable")]
            labels: Labels,
        }

        let stored = Self::stored(kind, store, object);
        let Some(said) = object.metadata.annotations.get(Self::METADATA).filter(|_| store == CalicoStore::Crd) else {
            return Ok(stored);
        };
        let said: Said = serde_json::from_str(said)?;
        let name =
            if said.name.is_empty() { stored.name } else { Name::new(stored.name.namespace, said.name.as_str()) };
        let labels = if said.labels.is_empty() {
            stored.labels
        } else {
            let mut labels = Labels::clone(&stored.labels);
            labels.extend(said.labels);
            labels.into()
        };
        Ok(Self { name, labels })
    }

    /// The same without the annotation.
    #[must_use]
    pub fn stored(kind: CalicoKind, store: CalicoStore, object: &Custom) -> Self {
        let mut name = object.metadata.full_name();
        let tier = object.spec.get("tier").and_then(Value::as_str).unwrap_or_default();
        if store == CalicoStore::Crd
            && kind.has_tier()
            && matches!(tier, "" | "default")
            && let Some(rest) = name.name.strip_prefix("default.").filter(|rest| !rest.is_empty())
        {
            name = Name::new(name.namespace.clone(), rest);
        }
        Self { name, labels: Arc::clone(&object.metadata.labels) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(metadata: &Value, tier: &str) -> Custom {
        serde_json::from_value(json!({"metadata": metadata, "spec": {"tier": tier}})).expect("an object")
    }

    #[test]
    fn a_policy_has_the_name_that_its_user_gave_it() {
        use CalicoKind::{NetworkPolicy, NetworkSet};
        use CalicoStore::{Crd, Native};
        for (kind, store, name, tier, expected) in [
            (NetworkPolicy, Crd, "default.a", "", "shop/a"),
            (NetworkPolicy, Crd, "default.a", "default", "shop/a"),
            (NetworkPolicy, Crd, "default.a", "security", "shop/default.a"),
            (NetworkPolicy, Crd, "security.a", "security", "shop/security.a"),
            (NetworkPolicy, Crd, "a", "", "shop/a"),
            (NetworkPolicy, Crd, "default.", "", "shop/default."),
            (NetworkPolicy, Native, "default.a", "", "shop/default.a"),
            (NetworkSet, Crd, "default.a", "", "shop/default.a"),
        ] {
            let object = object(&json!({"namespace": "shop", "name": name}), tier);
            let read = CalicoObject::of(kind, store, &object).expect("it has no annotation");
            assert_eq!(read.name.to_string(), expected, "{kind:?} {store:?} {name} {tier}");
        }
    }

    #[test]
    fn what_its_user_said_is_in_an_annotation() {
        let said = json!({"name": "b", "labels": {"role": "db"}, "creationTimestamp": null}).to_string();
        let metadata = json!({
            "namespace": "shop",
            "name": "a",
            "labels": {"kept": "yes", "role": "old"},
            "annotations": {CalicoObject::METADATA: said},
        });
        let read = CalicoObject::of(CalicoKind::NetworkSet, CalicoStore::Crd, &object(&metadata, "")).expect("JSON");
        assert_eq!(read.name.to_string(), "shop/b");
        let labels = [("kept", "yes"), ("role", "db")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(*read.labels, Labels::from(labels));

        let native = CalicoObject::of(CalicoKind::NetworkSet, CalicoStore::Native, &object(&metadata, ""));
        assert_eq!(native.expect("the annotation is nobody's there").name.to_string(), "shop/a");
        let broken = json!({"name": "a", "annotations": {CalicoObject::METADATA: "{"}});
        assert!(CalicoObject::of(CalicoKind::NetworkSet, CalicoStore::Crd, &object(&broken, "")).is_err());
    }
}

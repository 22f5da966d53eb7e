//! Which of several forms of an object counts.
//!
//! In:  what each stored form means, and that one is gone.
//! Out: for each object the meaning that counts, and an issue if another one says something else.
//! Invariant: the result depends on what is stored, not on its order of arrival.
//! Source: Calico, "native CRDs": its own store is used as long as it is there.

use crate::model::policy::{AddressSet, Policy, Tier};
use crate::model::{Issue, Name, ObjectRef};
use crate::world::{CalicoKind, CalicoStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an object means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::translate) enum Meaning {
    /// A policy; `None` if it is about no pod.
    Policy(Option<Arc<Policy>>),
    /// A tier.
    Tier(Arc<Tier>),
    /// A set of addresses.
    Set(Arc<AddressSet>),
}

impl Meaning {
    /// The policy that it is.
    pub(in crate::translate) fn into_policy(self) -> Option<Arc<Policy>> {
        if let Self::Policy(policy) = self { policy } else { None }
    }

    /// The tier that it is.
    pub(in crate::translate) fn into_tier(self) -> Option<Arc<Tier>> {
        if let Self::Tier(tier) = self { Some(tier) } else { None }
    }

    /// The set that it is.
    pub(in crate::translate) fn into_set(self) -> Option<Arc<AddressSet>> {
        if let Self::Set(set) = self { Some(set) } else { None }
    }
}

/// Every stored form of Calico's objects.
#[derive(Clone, Debug, Default)]
pub(in crate::translate) struct Stored {
    /// What the object stored in a place is called by its user.
    names: BTreeMap<(CalicoKind, CalicoStore, Name), ObjectRef>,
    /// What is stored of an object, in the order in which it counts.
    forms: BTreeMap<ObjectRef, BTreeMap<(CalicoStore, Name), Meaning>>,
}

impl Stored {
    /// What is stored in a place is this, or nothing. Returns the objects for which another form may count now.
    pub(in crate::translate) fn set(
        &mut self,
        (kind, store, name): (CalicoKind, CalicoStore, &Name),
        form: Option<(ObjectRef, Meaning)>,
    ) -> BTreeSet<ObjectRef> {
        let place = (kind, store, name.clone());
        let key = (store, name.clone());
        let mut touched = BTreeSet::new();
        if let Some(before) = self.names.remove(&place) {
            if let Some(forms) = self.forms.get_mut(&before) {
                forms.remove(&key);
                if forms.is_empty() {
                    self.forms.remove(&before);
                }
            }
            touched.insert(before);
        }
        if let Some((object, meaning)) = form {
            self.names.insert(place, object.clone());
            self.forms.entry(object.clone()).or_default().insert(key, meaning);
            touched.insert(object);
        }
        touched
    }

    /// The meaning that counts.
    pub(in crate::translate) fn meaning(&self, object: &ObjectRef) -> Option<&Meaning> {
        self.forms.get(object)?.values().next()
    }

    /// That an object is stored more than once and does not say the same everywhere.
    pub(in crate::translate) fn contradiction(&self, object: &ObjectRef) -> Option<Issue> {
        let forms = self.forms.get(object)?;
        let ((_, first), meaning) = forms.first_key_value()?;
        let ((store, other), _) = forms.iter().find(|(_, other)| *other != meaning)?;
        let group = match store {
            CalicoStore::Crd => "crd.projectcalico.org/v1",
            CalicoStore::Native => "projectcalico.org/v3",
        };
        let problem = format!("{other} of {group} says something else than {first}, which counts");
        Some(Issue::new(object, "", problem, "delete one of them"))
    }
}

//! Calico: network policies, tiers, sets of addresses.
//!
//! In:  an object of a kind of Calico's as written, in either of the forms in which it is stored.
//! Out: the model's word for it.
//! Invariant: what is not understood is met in rules that deny and in no other.
//! Source: Calico `projectcalico.org/v3`; felix' `FilterRuleToIPVersion`; `app-policy` for HTTP.

mod entity;
mod http;
mod label;
mod policy;
mod rule;
mod selector;
mod set;
mod stored;
mod tier;

use super::read::Log;
use crate::api::custom::{CalicoObject, Custom};
use crate::model::{Issue, Labels, ObjectRef};
use crate::world::{CalicoFamily, CalicoKind, CalicoStore, CustomKind};
pub use label::Whose;
pub use selector::{SelectorError, parse as selector};
use std::sync::Arc;
pub(super) use stored::{Meaning, Stored};

/// What an object that is stored there is called by its user, and what it means.
pub(super) fn form(kind: CalicoKind, store: CalicoStore, object: &Custom) -> ((ObjectRef, Meaning), Vec<Issue>) {
    let full_name = CustomKind::Calico(kind, CalicoStore::Native).full_name();
    let read = CalicoObject::of(kind, store, object);
    let problem = read.as_ref().err().map(|error| format!("it is not understood: {error}"));
    let CalicoObject { name, labels } = read.unwrap_or_else(|_| CalicoObject::stored(kind, store, object));
    let reference = ObjectRef::new(full_name, name);
    let log = Log::new(reference.clone());
    if let Some(problem) = problem {
        let field = format!("metadata.annotations.{}", CalicoObject::METADATA);
        log.note(&field, problem, "store the object by calicoctl");
    }
    let meaning = meaning(&log, kind, object, labels);
    ((reference, meaning), log.into_issues())
}

fn meaning(log: &Log, kind: CalicoKind, object: &Custom, labels: Arc<Labels>) -> Meaning {
    match kind.family() {
        CalicoFamily::Policy => Meaning::Policy(policy::policy(log, kind, object).map(Arc::new)),
        CalicoFamily::Tier => Meaning::Tier(Arc::new(tier::tier(log, object))),
        CalicoFamily::Set => Meaning::Set(Arc::new(set::set(log, object, labels))),
    }
}

/// Reads an object of this kind, if it is of this API, for what it says of its fields alone.
pub(super) fn survey(log: &Log, kind: CustomKind) {
    if let CustomKind::Calico(kind, _) = kind {
        meaning(log, kind, &Custom::default(), Arc::default());
    }
}

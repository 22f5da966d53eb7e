//! Kubernetes' selectors.
//!
//! In:  a `LabelSelector` as written.
//! Out: a [`Selector`]; what is not understood is refused.
//! Source: Kubernetes `meta/v1.LabelSelector`: an absent label is not among any values, and so meets `NotIn`.

use crate::model::{Key, Selector};
use crate::translate::read::Place;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The label that Kubernetes gives each namespace: its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What a label of a pod is called.
pub(in crate::translate) fn of_pod(name: &str) -> Key {
    Key::Label(name.into())
}

/// What a label of a namespace is called.
pub(in crate::translate) fn of_namespace(name: &str) -> Key {
    if name == NAMESPACE_NAME { Key::Namespace } else { Key::NamespaceLabel(name.into()) }
}

/// Every pod, and nothing else: pods alone have a service account.
pub(in crate::translate) fn pods() -> Selector {
    Selector::Has(Key::Account)
}

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}
use Operator::{DoesNotExist, Exists, In, NotIn};

const OPERATORS: [(&str, Operator); 4] =
    [("In", In), ("NotIn", NotIn), ("Exists", Exists), ("DoesNotExist", DoesNotExist)];

/// The selector; one that asks for nothing selects everything. `key` says whose labels it is about.
pub(in crate::translate) fn selector(place: &Place<'_>, key: fn(&str) -> Key) -> Selector {
    let Some(mut fields) = place.fields() else { return Selector::everything() };
    let is = |(name, value): (String, String)| Selector::Is(key(&name), value.into());
    let mut all: Vec<Selector> = fields.take("matchLabels").labels().into_iter().map(is).collect();
    all.extend(fields.take("matchExpressions").items().iter().filter_map(|place| requirement(place, key)));
    Selector::All(all)
}

fn requirement(place: &Place<'_>, key: fn(&str) -> Key) -> Option<Selector> {
    let mut fields = place.fields()?;
    let name = fields.take("key");
    if !name.is_there() {
        place.refuse("it names no label", "give the label's name as `key`");
    }
    let (name, operator) = (name.text(), fields.take("operator").choice(&OPERATORS));
    let values = fields.take("values");
    let texts: BTreeSet<Arc<str>> = values.texts().into_iter().map(Arc::from).collect();
    let Some(operator) = operator else {
        place.refuse("it says nothing of the label", "give an `operator`");
        return None;
    };
    if matches!(operator, In | NotIn) == texts.is_empty() {
        values.refuse("In and NotIn need values, and others have none", "correct the values or the operator");
    }
    let key = key(name?);
    Some(match operator {
        In => Selector::In(key, texts),
        NotIn => Selector::Not(Box::new(Selector::In(key, texts))),
        Exists => Selector::Has(key),
        DoesNotExist => Selector::Not(Box::new(Selector::Has(key))),
    })
}

//! What the labels in Calico's selectors stand for.
//!
//! In:  the name of a label, and [`Whose`] it is.
//! Out: the [`Term`] that is looked at.
//! Source: Calico "Labels that are set by Calico": `projectcalico.org/namespace`, `/serviceaccount`, `/orchestrator`; the labels of a
//! pod's namespace and service account, which it has under `pcns.` and `pcsa.`, with `projectcalico.org/name` for their names.

use crate::model::{Key, Labels, Selector, Subject};
use crate::translate::kube::label_selector;

const NAME: &str = "projectcalico.org/name";

/// Whose labels an expression is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of pods and sets of addresses.
    Endpoint,
    /// Those of the namespaces they are in: `namespaceSelector` of a rule, in which `global()` is what is in no namespace.
    Namespace,
    /// The same of a policy, in which it means nothing.
    PolicyNamespace,
    /// Those of pods' service accounts.
    Account,
}

impl Whose {
    /// What `all()` selects.
    pub(super) fn all(self) -> Selector {
        match self {
            Self::Endpoint | Self::Account => Selector::everything(),
            Self::Namespace | Self::PolicyNamespace => Selector::Has(Key::Namespace),
        }
    }

    /// What `global()` selects.
    pub(super) fn global(self) -> Option<Selector> {
        (self == Self::Namespace).then(|| Selector::Not(Box::new(Selector::Has(Key::Namespace))))
    }

    /// What a label of this name stands for.
    pub(super) fn term(self, name: &str) -> Term {
        match self {
            Self::Endpoint => of_endpoint(name),
            Self::Namespace | Self::PolicyNamespace => of_namespace(name),
            Self::Account => of_account(name),
        }
    }
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// What is found under the key.
    Key(Key),
    /// A text that every pod has, and nothing else.
    OfPods(&'static str),
}

impl Term {
    /// The selector that `compare` makes of it.
    pub(super) fn selector(&self, compare: impl Fn(Key) -> Selector) -> Selector {
        match self {
            Self::Key(key) => compare(key.clone()),
            Self::OfPods(text) => {
                let labels = Labels::from([("it".to_owned(), (*text).to_owned())]);
                let has_it = Subject { labels: (&labels).into(), ..Subject::default() };
                let is_met = compare(Key::Label("it".into())).matches(&has_it);
                if is_met { label_selector::pods() } else { Selector::nothing() }
            }
        }
    }
}

fn of_endpoint(name: &str) -> Term {
    match name {
        "projectcalico.org/namespace" => Term::Key(Key::Namespace),
        "projectcalico.org/serviceaccount" => Term::Key(Key::Account),
        "projectcalico.org/orchestrator" => Term::OfPods("k8s"),
        _ => {
            if let Some(name) = name.strip_prefix("pcns.") {
                of_namespace(name)
            } else if let Some(name) = name.strip_prefix("pcsa.") {
                of_account(name)
            } else {
                Term::Key(Key::Label(name.into()))
            }
        }
    }
}

fn of_namespace(name: &str) -> Term {
    Term::Key(if name == NAME { Key::Namespace } else { label_selector::of_namespace(name) })
}

fn of_account(name: &str) -> Term {
    Term::Key(if name == NAME { Key::Account } else { Key::AccountLabel(name.into()) })
}

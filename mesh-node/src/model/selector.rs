//! Which workloads are meant: an expression over what is written on them.
//!
//! In:  a [`Subject`].
//! Out: [`Selector`], of which each API's selectors are a notation.
//! Invariant: what has no such label meets neither an equality nor a membership; `Not` turns that round, as Calico's `!=` and
//! `not in` do. Absence is never an error.
//! Source: Calico's selectors; Kubernetes `LabelSelector`; Istio `WorkloadSelector`.

use super::{Labels, Text};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Labels in little room, ordered by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackedLabels(Box<[(Text, Text)]>);

impl PackedLabels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        Some(self.0[at].1.as_str())
    }
}

impl FromIterator<(Text, Text)> for PackedLabels {
    fn from_iter<I: IntoIterator<Item = (Text, Text)>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_unstable();
        labels.dedup_by(|(one, _), (other, _)| one == other);
        Self(labels.into())
    }
}

impl From<&Labels> for PackedLabels {
    fn from(labels: &Labels) -> Self {
        labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
    }
}

/// What selectors see of a workload, or of a set of addresses. Equal for the pods of one template, and so held once.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The namespace it is in; `None` for what is in none.
    pub namespace: Option<Arc<str>>,
    /// Its service account; `None` for what is no pod.
    pub account: Option<Arc<str>>,
    /// Its own labels.
    pub labels: PackedLabels,
    /// Labels of its namespace.
    pub namespace_labels: Arc<Labels>,
    /// Labels of its service account.
    pub account_labels: Arc<Labels>,
    /// The names of its containers' ports. No selector looks at them, but who is meant by a name is the same question.
    pub ports: Box<[(Text, u16)]>,
}

/// What of a [`Subject`] is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A label of its own.
    Label(Arc<str>),
    /// A label of its namespace: Calico's `pcns.`.
    NamespaceLabel(Arc<str>),
    /// A label of its service account: Calico's `pcsa.`.
    AccountLabel(Arc<str>),
    /// The name of its namespace: Calico's `projectcalico.org/namespace`, Kubernetes' `kubernetes.io/metadata.name` on the
    /// namespace. What is in no namespace has none, which is Calico's `global()`.
    Namespace,
    /// The name of its service account: Calico's `projectcalico.org/serviceaccount`. Pods alone have one.
    Account,
}

/// An expression that a [`Subject`] meets or does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// All of these; met by everything where there are none.
    All(Vec<Selector>),
    /// Any of these; met by nothing where there are none.
    Any(Vec<Selector>),
    /// Whatever does not meet this.
    Not(Box<Selector>),
    /// It is there.
    Has(Key),
    /// It is there and is this text.
    Is(Key, Arc<str>),
    /// It is there and one of these texts.
    In(Key, BTreeSet<Arc<str>>),
    /// It is there and contains this text.
    Contains(Key, Arc<str>),
    /// It is there and starts with this text.
    StartsWith(Key, Arc<str>),
    /// It is there and ends with this text.
    EndsWith(Key, Arc<str>),
}

impl Subject {
    /// What is written there.
    #[must_use]
    pub fn value(&self, key: &Key) -> Option<&str> {
        match key {
            Key::Label(name) => self.labels.get(name),
            Key::NamespaceLabel(name) => self.namespace_labels.get(&**name).map(String::as_str),
            Key::AccountLabel(name) => self.account_labels.get(&**name).map(String::as_str),
            Key::Namespace => self.namespace.as_deref(),
            Key::Account => self.account.as_deref(),
        }
    }
}

impl Selector {
    /// Everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self::Any(Vec::new())
    }

    /// What is in this namespace.
    #[must_use]
    pub const fn in_namespace(namespace: Arc<str>) -> Self {
        Self::Is(Key::Namespace, namespace)
    }

    /// What has all these labels, as Istio's `matchLabels` has it.
    #[must_use]
    pub fn labelled(labels: &Labels) -> Self {
        let is = |(key, value): (&String, &String)| Self::Is(Key::Label(key.as_str().into()), value.as_str().into());
        Self::All(labels.iter().map(is).collect())
    }

    /// What meets this and that.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All(mut all), Self::All(more)) => {
                all.extend(more);
                Self::All(all)
            }
            (Self::All(mut all), one) => {
                all.push(one);
                Self::All(all)
            }
            (one, Self::All(mut more)) => {
                more.insert(0, one);
                Self::All(more)
            }
            (one, other) => Self::All(vec![one, other]),
        }
    }

    /// Does the subject meet it?
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        let is_like = |key: &Key, is: &dyn Fn(&str) -> bool| subject.value(key).is_some_and(is);
        match self {
            Self::All(all) => all.iter().all(|one| one.matches(subject)),
            Self::Any(any) => any.iter().any(|one| one.matches(subject)),
            Self::Not(one) => !one.matches(subject),
            Self::Has(key) => subject.value(key).is_some(),
            Self::Is(key, text) => is_like(key, &|value| value == &**text),
            Self::In(key, texts) => is_like(key, &|value| texts.contains(value)),
            Self::Contains(key, text) => is_like(key, &|value| value.contains(&**text)),
            Self::StartsWith(key, text) => is_like(key, &|value| value.starts_with(&**text)),
            Self::EndsWith(key, text) => is_like(key, &|value| value.ends_with(&**text)),
        }
    }

    /// Shows every key that is looked at.
    pub fn each_key(&self, show: &mut impl FnMut(&Key)) {
        match self {
            Self::All(several) | Self::Any(several) => several.iter().for_each(|one| one.each_key(show)),
            Self::Not(one) => one.each_key(show),
            Self::Has(key)
            | Self::Is(key, _)
            | Self::In(key, _)
            | Self::Contains(key, _)
            | Self::StartsWith(key, _)
            | Self::EndsWith(key, _) => show(key),
        }
    }

    /// The one namespace that everything it selects is in, where the expression says so plainly. Others need not be looked at.
    #[must_use]
    pub fn namespace(&self) -> Option<&Arc<str>> {
        match self {
            Self::Is(Key::Namespace, namespace) => Some(namespace),
            Self::All(all) => all.iter().find_map(Self::namespace),
            Self::Any(_)
            | Self::Not(_)
            | Self::Has(_)
            | Self::Is(..)
            | Self::In(..)
            | Self::Contains(..)
            | Self::StartsWith(..)
            | Self::EndsWith(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let labels = |pairs: &[(&str, &str)]| {
            Arc::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Labels>())
        };
        let own = labels(&[("app", "web"), ("version", "v1")]);
        Subject {
            namespace: Some("shop".into()),
            account: Some("web".into()),
            labels: (&*own).into(),
            namespace_labels: labels(&[("team", "red")]),
            account_labels: labels(&[("tier", "front")]),
            ports: Box::default(),
        }
    }

    #[test]
    fn each_form_is_met_by_what_it_says_and_by_nothing_that_is_absent() {
        let label = |name: &str| Key::Label(name.into());
        let (app, none) = (label("app"), label("none"));
        let of = |text: &str| BTreeSet::from([Arc::from(text), Arc::from("other")]);
        for (met, selector) in [
            (true, Selector::everything()),
            (false, Selector::nothing()),
            (true, Selector::Has(app.clone())),
            (false, Selector::Has(none.clone())),
            (true, Selector::Is(app.clone(), "web".into())),
            (false, Selector::Is(app.clone(), "we".into())),
            (false, Selector::Is(none.clone(), "".into())),
            (true, Selector::Not(Box::new(Selector::Is(none.clone(), "web".into())))),
            (true, Selector::In(app.clone(), of("web"))),
            (false, Selector::In(app.clone(), of("db"))),
            (false, Selector::In(app.clone(), BTreeSet::new())),
            (true, Selector::Contains(app.clone(), "e".into())),
            (true, Selector::StartsWith(app.clone(), "we".into())),
            (true, Selector::EndsWith(app.clone(), "eb".into())),
            (false, Selector::EndsWith(none, "".into())),
            (true, Selector::Is(Key::NamespaceLabel("team".into()), "red".into())),
            (true, Selector::Is(Key::AccountLabel("tier".into()), "front".into())),
            (true, Selector::in_namespace("shop".into()).and(Selector::Is(Key::Account, "web".into()))),
            (true, Selector::labelled(&Labels::from([("app".into(), "web".into()), ("version".into(), "v1".into())]))),
            (false, Selector::labelled(&Labels::from([("app".into(), "web".into()), ("x".into(), "y".into())]))),
        ] {
            assert_eq!(selector.matches(&subject()), met, "{selector:?}");
        }
        assert!(!Selector::Has(Key::Namespace).matches(&Subject::default()), "what is global has no namespace");
    }

    #[test]
    fn a_namespace_is_seen_where_everything_must_be_in_it() {
        let shop = Selector::in_namespace("shop".into());
        assert_eq!(shop.clone().and(Selector::nothing()).namespace().map(|name| &**name), Some("shop"));
        assert_eq!(Selector::Any(vec![shop.clone()]).namespace(), None);
        assert_eq!(Selector::Not(Box::new(shop)).namespace(), None);
    }
}

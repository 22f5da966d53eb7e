//! Who may refer to objects of another namespace.
//!
//! In:  a ReferenceGrant as written.
//! Out: the [`Grant`] that it is; [`Grants`], which are all of them.
//! Invariant: an entry that is not understood grants nothing.
//! Source: Gateway API `ReferenceGrant`.

use crate::api::custom::Custom;
use crate::model::Name;
use crate::translate::read::Log;
use crate::world::CustomKind;
use std::collections::BTreeMap;

/// Every grant, by the object that gives it, which speaks for its namespace.
#[derive(Clone, Debug, Default)]
pub(in crate::translate) struct Grants(BTreeMap<Name, Grant>);

/// Objects that may refer, and what they may refer to.
#[derive(Clone, Debug, Default)]
pub(in crate::translate) struct Grant {
    /// Group, kind and namespace.
    from: Vec<(String, String, String)>,
    /// Group, kind and name; without a name all of the kind.
    to: Vec<(String, String, Option<String>)>,
}

impl Grants {
    /// An object grants this, or nothing.
    pub(in crate::translate) fn set(&mut self, name: &Name, grant: Option<Grant>) {
        self.0.remove(name);
        self.0.extend(grant.map(|grant| (name.clone(), grant)));
    }

    /// May a route of this kind and namespace send to a service?
    pub(super) fn allow(&self, kind: CustomKind, namespace: &str, service: &Name) -> bool {
        self.say((kind, namespace), ("Service", service))
    }

    /// May a gateway of this namespace show the certificate in a Secret?
    pub(in crate::translate) fn allow_certificate(&self, namespace: &str, secret: &Name) -> bool {
        self.say((CustomKind::Gateway, namespace), ("Secret", secret))
    }

    /// May objects of a kind and namespace refer to an object of the core?
    fn say(&self, (kind, namespace): (CustomKind, &str), (of, to): (&str, &Name)) -> bool {
        let from = self.0.range(Name::new(to.namespace.clone(), "")..);
        from.take_while(|(name, _)| name.namespace == to.namespace).any(|(_, grant)| {
            let from = |(group, by, at): &(String, String, String)| {
                group == kind.group() && by == kind.name() && at == namespace
            };
            let to = |(group, what, name): &(String, String, Option<String>)| {
                group.is_empty() && what == of && name.as_ref().is_none_or(|name| **name == *to.name)
            };
            grant.from.iter().any(from) && grant.to.iter().any(to)
        })
    }
}

/// What one object grants.
pub(in crate::translate) fn grant(log: &Log, object: &Custom) -> Grant {
    let (grant, is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let mut grant = Grant::default();
        for place in fields.take("from").items() {
            let Some(mut fields) = place.fields() else { continue };
            let (group, kind) = (fields.take("group").text(), fields.take("kind").text());
            let namespace = fields.take("namespace").text();
            if let (Some(kind), Some(namespace)) = (kind, namespace) {
                grant.from.push((group.unwrap_or_default().to_owned(), kind.to_owned(), namespace.to_owned()));
            }
        }
        for place in fields.take("to").items() {
            let Some(mut fields) = place.fields() else { continue };
            let (group, kind) = (fields.take("group").text(), fields.take("kind").text());
            let name = fields.take("name").text().filter(|name| !name.is_empty());
            if let Some(kind) = kind {
                grant.to.push((group.unwrap_or_default().to_owned(), kind.to_owned(), name.map(str::to_owned)));
            }
        }
        grant
    });
    if is_clear { grant } else { Grant::default() }
}

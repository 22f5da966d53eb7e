//! The workloads that Istio's security policies are about.
//!
//! In:  `selector`, `targetRef` and `targetRefs`.
//! Out: [`PolicyScope`].
//! Invariant: a scope that is not understood is the whole namespace; of the root namespace, the whole mesh.
//! Source: Istio `WorkloadSelector`, `PolicyTargetReference`; scope by the root namespace.

use crate::model::policy::PolicyScope;
use crate::model::{Name, Selector};
use crate::translate::read::{Fields, Place};
use std::collections::BTreeSet;

/// The workloads that the spec with these fields is about.
pub(super) fn scope(fields: &mut Fields<'_>, root_namespace: &str) -> PolicyScope {
    let log = fields.log();
    let namespace = &log.object().name.namespace;
    let everyone = if **namespace == *root_namespace {
        Selector::everything()
    } else {
        Selector::in_namespace(namespace.as_str().into())
    };
    let (selector, one, many) = (fields.take("selector"), fields.take("targetRef"), fields.take("targetRefs"));
    let (scope, is_clear) = log.part(|| {
        let labels = selector.fields().map(|mut fields| fields.take("matchLabels").labels()).unwrap_or_default();
        let mut targets: Vec<Option<Name>> = many.items().iter().map(|place| target(place, namespace)).collect();
        if one.is_there() {
            targets.push(target(&one, namespace));
        }
        if !targets.is_empty() && selector.is_there() {
            selector.refuse("a policy is about workloads or about targets", "keep one of them");
        }
        if targets.is_empty() {
            return PolicyScope::Selected(everyone.clone().and(Selector::labelled(&labels)));
        }
        PolicyScope::Services(targets.into_iter().flatten().collect::<BTreeSet<_>>())
    });
    if is_clear {
        return scope;
    }
    log.refuse(
        "spec",
        "whom it is about is not understood, so it is about everyone in its namespace",
        "correct its selector or its targets",
    );
    PolicyScope::Selected(everyone)
}

/// The service that a reference is to.
fn target(place: &Place<'_>, own: &str) -> Option<Name> {
    let mut fields = place.fields()?;
    let (group, kind) = (fields.take("group"), fields.take("kind"));
    let (name, namespace) = (fields.take("name"), fields.take("namespace"));
    let is_core = group.choice(&[("", true), ("core", true)]).unwrap_or(true);
    let is_service = kind.choice_except(&[("Service", true)], &["Gateway", "GatewayClass", "ServiceEntry"]);
    if let Some(other) = namespace.text().filter(|other| !other.is_empty() && *other != own) {
        namespace.refuse(format!("`{other}` is another namespace"), "move the policy there");
    }
    let Some(name) = name.text().filter(|name| !name.is_empty()) else {
        place.refuse("it names nothing", "give a name");
        return None;
    };
    (is_core && is_service.is_some()).then(|| Name::new(own, name))
}

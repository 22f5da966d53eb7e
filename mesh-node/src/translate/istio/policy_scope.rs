//! The workloads that Istio's security policies are about.
//!
//! In:  `selector`, `targetRef` and `targetRefs`.
//! Out: [`PolicyScope`].
//! Invariant: a scope that is not understood is the whole namespace; of the root namespace, the whole mesh.
//! Source: Istio `WorkloadSelector`, `PolicyTargetReference`; scope by the root namespace.

use crate::api::custom::CustomKind;
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
        let mut targets: Vec<_> = many.items().iter().map(|place| target(place, namespace)).collect();
        if one.is_there() {
            targets.push(target(&one, namespace));
        }
        if !targets.is_empty() && selector.is_there() {
            selector.refuse("a policy is about workloads or about targets", "keep one of them");
        }
        if targets.is_empty() {
            return PolicyScope::Selected(everyone.clone().and(Selector::labelled(&labels)));
        }
        let (services, gateways): (Vec<_>, Vec<_>) =
            targets.into_iter().flatten().partition(|(kind, _)| *kind == Target::Service);
        let names = |targets: Vec<(Target, Name)>| targets.into_iter().map(|(_, name)| name).collect::<BTreeSet<_>>();
        PolicyScope::Targets { services: names(services), gateways: names(gateways) }
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

/// What a reference may be to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Service,
    Gateway,
}

/// What a reference is to.
fn target(place: &Place<'_>, own: &str) -> Option<(Target, Name)> {
    let mut fields = place.fields()?;
    let (group, kind) = (fields.take("group"), fields.take("kind"));
    let (name, namespace) = (fields.take("name"), fields.take("namespace"));
    if !kind.is_there() {
        kind.refuse("it is missing", "give Service or Gateway");
    }
    let words = [("Service", Target::Service), ("Gateway", Target::Gateway)];
    let kind = kind.choice_except(&words, &["GatewayClass", "ServiceEntry"]);
    let groups = [("core", Target::Service), ("", Target::Service), (CustomKind::Gateway.group(), Target::Gateway)];
    let of_group = if group.is_there() { group.choice(&groups) } else { Some(Target::Service) };
    if let (Some(_), Some(_), true) = (kind, of_group, kind != of_group) {
        place.refuse("there is no such kind in this group", "let the group be that of the kind");
    }
    if let Some(other) = namespace.text().filter(|other| !other.is_empty() && *other != own) {
        namespace.refuse(format!("`{other}` is another namespace"), "move the policy there");
    }
    let Some(name) = name.text().filter(|name| !name.is_empty()) else {
        place.refuse("it names nothing", "give a name");
        return None;
    };
    kind.map(|kind| (kind, Name::new(own, name)))
}

//! Which listener of a gateway takes which route.
//!
//! In:  a listener of a gateway that is the mesh's, a route that names the gateway.
//! Out: the hosts for which the listener takes the route, or why it does not.
//! Invariant: what enters and what users are told are both asked here.
//! Source: Gateway API, `ParentReference`, `AllowedRoutes`, "hostname" of `Listener`; Istio `Gateway`, `servers.hosts`.

use super::upstream::has_all;
use crate::model::http::HttpRoute;
use crate::model::{AllowedRoutes, Gateway, Listener, Name, Reason, Text};
use crate::translate::Translator;
use crate::world::World;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Is a class of gateways there, and this controller's?
pub(super) fn is_class_of(translator: &Translator, class: &str, controller: &str) -> bool {
    let known = translator.customs.classes.get(&Name::new("", class));
    known.is_some_and(|of| of.as_str() == controller)
}

/// The hosts for which a listener takes a route that means the listener of this name, at this port, where it says so.
///
/// **Errors**: why it takes it for none: [`Reason::NoMatchingParent`], [`Reason::NotAllowed`] or [`Reason::NoMatchingHost`].
pub(super) fn admit(
    world: &World,
    (gateway, listener): (&Gateway, &Listener),
    (name, port): (Option<&str>, Option<u16>),
    route: &HttpRoute,
) -> Result<BTreeSet<Arc<str>>, Reason> {
    if name.is_some_and(|name| name != listener.name) || port.is_some_and(|port| port != listener.port) {
        return Err(Reason::NoMatchingParent);
    }
    let namespace = &route.object.name.namespace;
    if !listener.kinds.contains(&&*route.object.kind) || !allows(world, gateway, listener, namespace) {
        return Err(Reason::NotAllowed);
    }
    let own = hosts(listener).into_iter().filter(|(of, _)| of.as_ref().is_none_or(|of| of == namespace));
    let met: BTreeSet<_> = own.flat_map(|(_, host)| meet(&host, &route.hostnames)).collect();
    if met.is_empty() { Err(Reason::NoMatchingHost) } else { Ok(met) }
}

/// May routes of a namespace attach?
fn allows(world: &World, gateway: &Gateway, listener: &Listener, namespace: &Text) -> bool {
    match &listener.routes {
        AllowedRoutes::All => true,
        AllowedRoutes::Same => *namespace == gateway.object.name.namespace,
        AllowedRoutes::Selected(labels) => {
            let of = world.namespace(namespace);
            of.is_some_and(|of| has_all(&of.metadata.labels, labels))
        }
    }
}

/// The hosts of a listener, `*` for all, each with the namespace whose routes alone are taken for it, if it names one.
pub(super) fn hosts(listener: &Listener) -> Vec<(Option<Text>, Arc<str>)> {
    if listener.hostnames.is_empty() {
        return vec![(None, "*".into())];
    }
    let host = |host: &Arc<str>| match host.split_once('/') {
        None => (None, host.to_ascii_lowercase().into()),
        Some(("*", host)) => (None, host.to_ascii_lowercase().into()),
        Some((namespace, host)) => (Some(namespace.into()), host.to_ascii_lowercase().into()),
    };
    listener.hostnames.iter().map(host).collect()
}

/// The hosts that both a listener's host and a route's hosts cover. A route without hosts takes the listener's.
fn meet(listener: &Arc<str>, route: &[String]) -> Vec<Arc<str>> {
    if route.is_empty() {
        return vec![Arc::clone(listener)];
    }
    let covers = |wide: &str, host: &str| {
        wide == host || wide.strip_prefix('*').is_some_and(|end| host.len() > end.len() && host.ends_with(end))
    };
    let narrower = |host: &String| -> Option<Arc<str>> {
        if covers(listener, host) {
            Some(host.as_str().into())
        } else {
            covers(host, listener).then(|| Arc::clone(listener))
        }
    };
    route.iter().filter_map(narrower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_meet_where_both_cover() {
        for (listener, route, expected) in [
            ("*", &[][..], &["*"][..]),
            ("a.example", &[], &["a.example"]),
            ("*", &["a.example", "*.example"], &["a.example", "*.example"]),
            ("*.example", &["a.example", "example", "*.b.example", "*"], &["a.example", "*.b.example", "*.example"]),
            ("a.example", &["b.example"], &[]),
        ] {
            let route: Vec<String> = route.iter().map(|host| (*host).to_owned()).collect();
            let met = meet(&listener.into(), &route);
            assert_eq!(met.iter().map(|host| &**host).collect::<Vec<_>>(), expected, "{listener} {route:?}");
        }
    }
}

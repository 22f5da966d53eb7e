//! What routes attach to.
//!
//! In:  `parentRefs`.
//! Out: [`Parent`]s; none for a reference that is not understood, which an issue says.
//! Source: Gateway API `ParentReference`; GEP-1294: a route of the service's namespace holds for all clients, one of
//! another namespace for that namespace's own.

use super::{Reader, full_name};
use crate::model::http::Parent;
use crate::translate::read::Place;

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// The parents of a route.
pub(super) fn parents(list: &Place<'_>, reader: &Reader<'_>) -> Vec<Parent> {
    let mut parents: Vec<_> = list
        .items()
        .iter()
        .filter_map(|place| {
            // It is known only of the others what they are, so nothing but the one is affected.
            let (parent, is_clear) = place.log().part(|| parent(place, reader));
            parent.filter(|_| is_clear)
        })
        .collect();
    parents.sort();
    parents.dedup();
    if parents.is_empty() {
        list.note("the route attaches to nothing", "name a Service or a Gateway");
    }
    parents
}

fn parent(place: &Place<'_>, reader: &Reader<'_>) -> Option<Parent> {
    let mut fields = place.fields()?;
    let group = fields.take("group").text().unwrap_or(GATEWAY_API);
    let kind = fields.take("kind").text().unwrap_or("Gateway");
    let (namespace, name) = (fields.take("namespace").text(), fields.take("name").text());
    let section = fields.take("sectionName").text();
    let port = fields.take("port").port();
    let Some(name) = name else {
        place.refuse("the reference has no name; the route does not attach to it", "give a name");
        return None;
    };
    let name = full_name(namespace, reader.namespace, name);
    match (group, kind) {
        ("", "Service") => {
            let clients = (name.namespace != *reader.namespace).then(|| reader.namespace.clone());
            Some(Parent::Service { name, port, section: section.map(Into::into), clients })
        }
        (GATEWAY_API, "Gateway") => Some(Parent::Gateway { name, listener: section.map(str::to_owned), port }),
        _ => {
            let group = if group.is_empty() { "the core group" } else { group };
            place.refuse(
                format!("a route does not attach to {kind} of {group}"),
                format!("name a Service (group \"\") or a Gateway (group {GATEWAY_API})"),
            );
            None
        }
    }
}

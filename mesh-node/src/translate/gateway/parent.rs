//! What routes attach to.
//!
//! In:  `parentRefs`.
//! Out: a [`Parent`] for each; none for a reference that is not understood, which an issue says.
//! Source: Gateway API `ParentReference`; GEP-1294: a route of the service's namespace holds for all clients, one of
//! another namespace for that namespace's own.

use super::{GATEWAY_API, Reader, full_name};
use crate::model::Name;
use crate::model::http::Parent;
use crate::translate::read::Place;

/// What each reference of a route is, in the order written.
pub(super) fn parents(list: &Place<'_>, reader: &Reader<'_>) -> Vec<Option<Parent>> {
    let read = |place: &Place<'_>| {
        // It is known only of the others what they are, so nothing but the one is affected.
        let (parent, is_clear) = place.log().part(|| parent(place, reader));
        parent.filter(|_| is_clear)
    };
    let parents: Vec<_> = list.items().iter().map(read).collect();
    if parents.iter().all(Option::is_none) {
        list.note("the route attaches to nothing", "name a Service or a Gateway");
    }
    parents
}

/// The services that whoever meets the route has asked for: its parents, unless it attaches to a gateway too, whose clients
/// have asked for none.
pub(super) fn asked(references: &[Option<Parent>]) -> Vec<Name> {
    let service = |parent: &Parent| match parent {
        Parent::Service { name, .. } => Some(name.clone()),
        Parent::Host { .. } | Parent::Gateway { .. } => None,
    };
    references.iter().flatten().map(service).collect::<Option<_>>().unwrap_or_default()
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

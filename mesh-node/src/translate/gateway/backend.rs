//! Where a route's requests go.
//!
//! In:  `backendRefs`, and the references of mirrors.
//! Out: [`Backend`]s; one that cannot be used answers 500 for its share.
//! Source: Gateway API `HTTPBackendRef`, `ReferenceGrant`.

use super::{Reader, filter, full_name};
use crate::model::Reason;
use crate::model::http::{Backend, BackendTarget};
use crate::translate::read::{Fields, Place};

const INVALID: BackendTarget = BackendTarget::Invalid { status: 500 };
const EFFECT: &str = "requests that fall to it are answered 500";

/// The backends of a rule.
pub(super) fn backends(list: &Place<'_>, reader: &Reader<'_>) -> Vec<Backend> {
    list.items().iter().map(|place| backend(place, reader)).collect()
}

fn backend(place: &Place<'_>, reader: &Reader<'_>) -> Backend {
    let ((target, weight, filters), is_clear) = place.log().part(|| {
        let Some(mut fields) = place.fields() else { return (INVALID, 1, filter::Filters::default()) };
        let weight = fields.take("weight").number(0, 1_000_000).unwrap_or(1);
        let filters = filter::filters(&fields.take("filters"), filter::Owner::Backend, reader);
        (target(&mut fields, reader), weight, filters)
    });
    Backend {
        weight,
        target: if is_clear { target } else { INVALID },
        request_headers: filters.filters.request_headers,
        response_headers: filters.filters.response_headers,
    }
}

/// The service that a reference of five fields names.
pub(super) fn target(fields: &mut Fields<'_>, reader: &Reader<'_>) -> BackendTarget {
    let group = fields.take("group").text().unwrap_or_default();
    let kind = fields.take("kind").text().unwrap_or("Service");
    let (namespace, name) = (fields.take("namespace").text(), fields.take("name").text());
    let port = fields.take("port").port();
    let log = fields.log();
    let invalid = |reason: Reason, field: &str, problem: String, cure: &str| {
        log.tell(reason, &format!("{}.{field}", fields.path()), format!("{problem}; {EFFECT}"), cure);
        INVALID
    };
    if (group, kind) != ("", "Service") {
        let problem = format!("{kind} of group `{group}` is no backend that is supported");
        return invalid(Reason::InvalidKind, "kind", problem, "name a Service");
    }
    let (Some(name), Some(port)) = (name, port) else {
        return invalid(Reason::NotFound, "port", "a Service needs a name and a port".to_owned(), "give both");
    };
    let name = full_name(namespace, reader.namespace, name);
    // A consumer's route that sends requests to the service that they were for refers to nothing that its clients did not.
    let is_own = name.namespace == *reader.namespace || reader.asked.contains(&name);
    if !is_own && !reader.grants.allow(reader.kind, reader.namespace, &name) {
        let problem = format!("no ReferenceGrant allows to refer to Service {name}");
        return invalid(Reason::NotPermitted, "namespace", problem, "create a ReferenceGrant in its namespace");
    }
    BackendTarget::Service { name, port: Some(port), subset: None }
}

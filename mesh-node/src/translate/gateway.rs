//! Gateway API: routes, gateways and grants.
//!
//! In:  an HTTPRoute, GRPCRoute, Gateway, GatewayClass or ReferenceGrant as written; for routes all grants.
//! Out: the `HttpRoute`, `Gateway` or grant that it is.
//! Invariant: a rule that is not understood answers 500 to whatever its matches, as far as they are understood, cover.
//! Source: Gateway API v1; GEP-1294 and GEP-1426 for routes of services, GEP-1731 for retries.

mod backend;
mod filter;
mod grants;
mod listener;
mod matches;
mod parent;
mod rule;

use super::read::Log;
use crate::api::custom::Custom;
use crate::model::http::{HttpRoute, RouteApi};
use crate::model::{Name, Text};
use crate::world::CustomKind;
pub(super) use grants::{Grants, grant};
pub(super) use listener::{class, gateway};
use std::sync::Arc;

/// The group of its kinds.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// The route that an object is.
pub(super) fn route(log: &Log, kind: CustomKind, object: &Custom, grants: &Grants) -> HttpRoute {
    let name = &log.object().name;
    let mut reader = Reader { kind, namespace: &name.namespace, grants, asked: Vec::new() };
    let ((references, hostnames, mut rules), is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let references = parent::parents(&fields.take("parentRefs"), &reader);
        reader.asked = parent::asked(&references);
        let hostnames: Vec<String> =
            fields.take("hostnames").texts().into_iter().map(str::to_ascii_lowercase).collect();
        fields.take("useDefaultGateways").ignored("no gateway of the mesh is a default");
        let rules = fields.take("rules");
        let rules = if rules.is_there() {
            rules.items().iter().map(|place| rule::rule(place, &reader)).collect()
        } else {
            vec![rule::default()]
        };
        (references, hostnames, rules)
    });
    if !is_clear {
        rules.iter_mut().for_each(|rule| rule.action = rule::refusal());
    }
    let mut parents: Vec<_> = references.iter().flatten().cloned().collect();
    parents.sort();
    parents.dedup();
    HttpRoute {
        object: log.object().clone(),
        api: RouteApi::Gateway,
        created: object.metadata.creation_timestamp.clone(),
        parents,
        references,
        hostnames,
        rules: rules.into_iter().map(Arc::new).collect(),
        tcp: Vec::new(),
        tls: Vec::new(),
    }
}

/// What is read in its sense.
struct Reader<'a> {
    kind: CustomKind,
    /// The route's namespace.
    namespace: &'a Text,
    grants: &'a Grants,
    /// Services that clients have asked for themselves when the route meets their requests.
    asked: Vec<Name>,
}

/// Reads an object of this kind, if it is of this API, for what it says of its fields alone.
pub(super) fn survey(log: &Log, kind: CustomKind) {
    let object = Custom::default();
    match kind {
        CustomKind::Gateway => drop(gateway(log, &object)),
        CustomKind::GatewayClass => drop(class(log, &object)),
        CustomKind::ReferenceGrant => drop(grant(log, &object)),
        CustomKind::HttpRoute | CustomKind::GrpcRoute => drop(route(log, kind, &object, &Grants::default())),
        CustomKind::VirtualService
        | CustomKind::DestinationRule
        | CustomKind::ServiceEntry
        | CustomKind::WorkloadEntry
        | CustomKind::IstioGateway
        | CustomKind::Sidecar
        | CustomKind::NetworkPolicy
        | CustomKind::ClusterNetworkPolicy
        | CustomKind::Calico(..)
        | CustomKind::AuthorizationPolicy
        | CustomKind::RequestAuthentication => {}
    }
}

/// The namespace and name that a reference gives, where the namespace may be left to the object's own.
fn full_name(namespace: Option<&str>, own: &Text, name: &str) -> Name {
    Name::new(namespace.filter(|namespace| !namespace.is_empty()).map_or_else(|| own.clone(), Text::from), name)
}

//! The routes of a port, in the order in which they are tried.
//!
//! In:  the routes that hold for a client.
//! Out: a [`RouteTable`].
//! Invariant: every backend is there, with the status that says what is wrong with one that cannot be used.
//! Source: Gateway API `HTTPRouteRule.matches` and `GRPCRouteRule.matches` for precedence; Istio: the order written.

use super::upstream::{Absent, Part};
use super::{Client, Place, Port, Traffic};
use crate::compile::directory::service_name;
use crate::model::http::{
    BackendTarget, HttpAction, HttpMatch, HttpRoute, HttpRule, HttpTarget, MatchScope, PathKind, RequestMatch,
    RouteApi, RuleList,
};
use crate::model::{Issue, Name, ObjectRef};
use crate::snapshot::ServiceName;
use crate::snapshot::http::{Backend, Destination, Route, RouteAction, RouteOrigin, RouteTable, Target};
use http::StatusCode;
use std::cmp::Reverse;
use std::sync::Arc;

/// How the path of a call by its method alone begins.
const ANY_SERVICE: &str = "/[^/]+/";

/// Of two matches of the Gateway API the one with the smaller rank is tried first; equal ones in the order of age.
type Rank = (Reverse<u8>, Reverse<usize>, Reverse<bool>, Reverse<usize>, Reverse<usize>);

fn rank(request: &RequestMatch) -> Rank {
    let (kind, length) = match &request.path.kind {
        PathKind::Exact(path) => (3, path.len()),
        // A call by its method alone says less than one by its service.
        PathKind::Regex(pattern) if pattern.to_string().starts_with(ANY_SERVICE) => (0, pattern.to_string().len()),
        PathKind::Regex(pattern) => (2, pattern.to_string().len()),
        PathKind::Elements(path) | PathKind::Prefix(path) => (1, path.len()),
        PathKind::Any => (0, 0),
    };
    let headers = request.headers.len() + request.without_headers.len();
    (Reverse(kind), Reverse(length), Reverse(request.method.is_some()), Reverse(headers), Reverse(request.query.len()))
}

impl<'m> Traffic<'m> {
    /// The table of a client for these routes. Without any, requests go to the port's own endpoints, at its place if it has one.
    pub(super) fn table(
        &self,
        port: Port<'_>,
        place: Option<&Place>,
        (client, routes): (&Client, &[&'m HttpRoute]),
        issues: &mut Vec<Issue>,
    ) -> RouteTable {
        if routes.is_empty() {
            return RouteTable { routes: place.map(|place| self.implicit(port, place, client)).into_iter().collect() };
        }
        let mut found: Vec<(Rank, Route)> = Vec::new();
        for route in routes {
            let list = RuleList::Http;
            let mut at = At { port, place, route, client, list, field: String::new(), issues: &mut *issues };
            for (index, rule) in route.rules.iter().enumerate() {
                let list = if route.api == RouteApi::Gateway { "rules" } else { "http" };
                let everything = [HttpMatch::default()];
                let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
                let mut applying = matches.iter().filter(|found| applies(&found.scope, port, client)).peekable();
                if applying.peek().is_none() {
                    continue;
                }
                at.field = format!("spec.{list}[{index}]");
                let name = if rule.name.is_empty() { format!("{list}[{index}]") } else { rule.name.clone() };
                let action = Arc::new(self.action(rule, name, &mut at));
                found.extend(applying.map(|of| {
                    let rank =
                        if route.api == RouteApi::Gateway { rank(&of.request) } else { rank(&RequestMatch::default()) };
                    (rank, Route { condition: of.request.clone(), action: Arc::clone(&action) })
                }));
            }
        }
        // Stable: equals stay in the order of routes, which is that of age, and of rules.
        found.sort_by_key(|(rank, _)| *rank);
        RouteTable { routes: found.into_iter().map(|(_, route)| route).collect() }
    }

    /// What holds without a route.
    fn implicit(&self, port: Port<'_>, place: &Place, client: &Client) -> Route {
        let object = match place {
            Place::Service(service) => ObjectRef::new("Service", service.name.clone()),
            Place::External(external) => external.object.clone(),
        };
        let destination = self.upstream(place, port.name, Part::whole(port.port), client);
        let destination =
            destination.map_or(Destination::Invalid(StatusCode::SERVICE_UNAVAILABLE), Destination::Upstream);
        let action = RouteAction {
            origin: Arc::new(RouteOrigin { object, rule: String::new() }),
            filters: Arc::default(),
            mirrors: Box::default(),
            target: Target::Backends(Box::new([whole(destination)])),
        };
        Route { condition: RequestMatch::default(), action: Arc::new(action) }
    }

    fn action(&self, rule: &HttpRule, name: String, at: &mut At<'_, 'm>) -> RouteAction {
        let HttpAction { filters, mirrors, target } = &rule.action;
        let target = match target {
            HttpTarget::Backends(backends) => {
                let backend = |backend: &crate::model::http::Backend| Backend {
                    weight: backend.weight,
                    destination: self.destination(&backend.target, at),
                    request_headers: backend.request_headers.clone(),
                    response_headers: backend.response_headers.clone(),
                };
                Target::Backends(backends.iter().map(backend).collect())
            }
            HttpTarget::Original => {
                let own =
                    at.place.map(|place| self.upstream(place, at.port.name, Part::whole(at.port.port), at.client));
                let own = match own {
                    Some(Ok(upstream)) => Destination::Upstream(upstream),
                    Some(Err(_)) => Destination::Invalid(StatusCode::SERVICE_UNAVAILABLE),
                    // Whoever enters from outside asked for no service.
                    None => Destination::Invalid(StatusCode::NOT_FOUND),
                };
                Target::Backends(Box::new([whole(own)]))
            }
            HttpTarget::Redirect(redirect) => Target::Redirect(redirect.clone()),
            HttpTarget::Respond { status, body } => Target::Respond { status: *status, body: body.clone() },
        };
        let mirrors = mirrors.iter().map(|mirror| (self.destination(&mirror.target, at), mirror.share)).collect();
        RouteAction {
            origin: Arc::new(RouteOrigin { object: at.route.object.clone(), rule: name }),
            filters: Arc::clone(filters),
            mirrors,
            target,
        }
    }

    /// What a backend is, with an issue for one that cannot be used.
    pub(super) fn destination(&self, target: &BackendTarget, at: &mut At<'_, 'm>) -> Destination {
        let (place, name, port, subset) = match target {
            BackendTarget::Invalid { status } => {
                return Destination::Invalid(
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                );
            }
            BackendTarget::Service { name, port, subset } => {
                let Some(service) = self.service(name) else {
                    return at.absent(&format!("Service {name}"), &Absent::Host);
                };
                let single = <&[_; 1]>::try_from(&*service.ports).ok().map(|[only]| only.port);
                let full = Arc::new(service_name(&service.name, &self.settings.cluster_domain));
                (Place::Service(service), full, port.or(single), subset)
            }
            BackendTarget::Host { host, port, subset } => {
                let Some(external) = self.external(host, at.client) else {
                    return at.absent(&format!("host {host}"), &Absent::Host);
                };
                let single = <&[_; 1]>::try_from(&*external.ports).ok().map(|[only]| only.port);
                let namespace = external.object.name.namespace.clone();
                let full = Arc::new(ServiceName { host: host.as_str().into(), name: host.as_str().into(), namespace });
                (Place::External(Arc::clone(external)), full, port.or(single), subset)
            }
        };
        let port = port.unwrap_or(at.port.port);
        match self.upstream(&place, &name, Part { port, subset: subset.as_deref() }, at.client) {
            Ok(upstream) => Destination::Upstream(upstream),
            Err(absent) => at.absent(&name.host, &absent),
        }
    }
}

/// Does a match hold for what a client sends to a port?
pub(super) fn applies(found: &MatchScope, port: Port<'_>, client: &Client) -> bool {
    found.port.is_none_or(|number| number == port.port)
        && (found.gateways.is_empty() || found.gateways.iter().any(|gateway| is_through(gateway.as_ref(), client)))
        && found.clients.namespace.as_ref().is_none_or(|namespace| **namespace == *client.namespace)
        && found.clients.labels.iter().all(|(key, value)| client.labels.get(key) == Some(value))
}

/// Do a client's requests come through this gateway, or, for `None`, from a pod of the mesh?
fn is_through(gateway: Option<&Name>, client: &Client) -> bool {
    gateway.map_or(client.gateways.is_empty(), |gateway| client.gateways.contains(gateway))
}

fn whole(destination: Destination) -> Backend {
    Backend {
        weight: 1,
        destination,
        request_headers: crate::model::http::HeaderChanges::default(),
        response_headers: crate::model::http::HeaderChanges::default(),
    }
}

/// Where in which route, and for whom.
pub(super) struct At<'a, 'm> {
    pub(super) port: Port<'a>,
    pub(super) place: Option<&'a Place>,
    pub(super) route: &'m HttpRoute,
    pub(super) client: &'a Client,
    pub(super) list: RuleList,
    pub(super) field: String,
    pub(super) issues: &'a mut Vec<Issue>,
}

impl At<'_, '_> {
    fn absent(&mut self, host: &str, absent: &Absent) -> Destination {
        let status = match self.route.api {
            RouteApi::Gateway => StatusCode::INTERNAL_SERVER_ERROR,
            RouteApi::Istio => StatusCode::SERVICE_UNAVAILABLE,
        };
        let (problem, cure) = absent.say(host);
        let problem = match self.list {
            RuleList::Http => format!("{problem}; requests that fall to it are answered {}", status.as_u16()),
            RuleList::Tcp | RuleList::Tls => format!("{problem}; connections that fall to it are refused"),
        };
        self.issues.push(Issue::new(&self.route.object, self.field.clone(), problem, cure));
        Destination::Invalid(status)
    }
}

//! Which routes hold for a port.
//!
//! In:  the parents of routes.
//! Out: routes in their order of precedence, all of one API.
//! Invariant: routes of the Gateway API come before Istio's, which speak of whole hosts; of the Gateway API GRPCRoutes
//! before HTTPRoutes, and a consumer's before the producer's. Of Istio's one object alone routes a host: a namespace's
//! own before those for everyone, an exact host before wildcards, the oldest first.
//! Source: GEP-1294, "Route types"; GEP-1426; Istio "VirtualService", hosts and `exportTo`.

use super::index::{Indexes, covering};
use super::{Client, Port, Taken, Traffic};
use crate::model::http::{HttpRoute, Parent, RouteApi, RuleList};
use crate::model::{Issue, Name, Reason, Service, Text};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where a route stands for a client: for its namespace alone, or for everyone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Own,
    Everyone,
}

fn reach(clients: Option<&Text>, client: &Client) -> Option<Reach> {
    match clients {
        None => Some(Reach::Everyone),
        Some(namespace) => (**namespace == *client.namespace).then_some(Reach::Own),
    }
}

impl<'m> Traffic<'m> {
    /// Might any route speak of the port? Most ports have none, for which nothing need be done.
    pub(super) fn may_have_routes(&self, port: Port<'_>) -> bool {
        port.service.is_some_and(|name| self.indexes.of_service.contains_key(name))
            || (!self.indexes.of_host.is_empty()
                && covering(&port.name.host).any(|host| self.indexes.of_host.contains_key(&*host)))
    }

    /// The routes that hold for a client's requests to the port.
    pub(super) fn attached(&self, port: Port<'_>, client: &Client, issues: &mut Vec<Issue>) -> Vec<&'m HttpRoute> {
        let gateway = self.of_gateway_api(port, client, issues);
        let istio = self.of_istio(port, client, RuleList::Http);
        if port.protocol.is_opaque() {
            return Vec::new();
        }
        let mut taken = self.taken.borrow_mut();
        if let Some(winner) = gateway.first() {
            for route in istio {
                taken.insert((route.object.clone(), RuleList::Http));
                issues.push(overruled(route, winner, port));
            }
            return gateway;
        }
        let Some((winner, others)) = istio.split_first() else { return Vec::new() };
        taken.insert((winner.object.clone(), RuleList::Http));
        for route in others {
            taken.insert((route.object.clone(), RuleList::Http));
            issues.push(overruled(route, winner, port));
        }
        vec![winner]
    }

    fn of_gateway_api(&self, port: Port<'_>, client: &Client, issues: &mut Vec<Issue>) -> Vec<&'m HttpRoute> {
        let Some(service) = port.service else { return Vec::new() };
        let routes = self.indexes.of_service.get(service).into_iter().flatten().map(|route| &**route);
        let mut found: Vec<(Reach, &HttpRoute)> = routes
            .filter(|route| route.api == RouteApi::Gateway)
            .filter_map(|route| {
                let reach = route.parents.iter().filter_map(|parent| match parent {
                    Parent::Service { name, port: number, section, clients } if name == service => {
                        let is_port = parent.names(port.port, port.port_name);
                        let reach = reach(clients.as_ref(), client).filter(|_| is_port)?;
                        if port.protocol.is_opaque() && (number.is_some() || section.is_some()) {
                            issues.push(opaque(route, port));
                        }
                        Some(reach)
                    }
                    Parent::Service { .. } | Parent::Host { .. } | Parent::Gateway { .. } => None,
                });
                Some((reach.min()?, route))
            })
            .collect();
        if port.protocol.is_opaque() {
            return Vec::new();
        }
        self.taken.borrow_mut().extend(found.iter().map(|(_, route)| (route.object.clone(), RuleList::Http)));
        let nearest = found.iter().map(|(reach, _)| *reach).min();
        found.retain(|(reach, _)| Some(*reach) == nearest);
        let grpc = found.iter().find(|(_, route)| &*route.object.kind == "GRPCRoute").map(|(_, route)| *route);
        if let Some(winner) = grpc {
            let (of_grpc, others): (Vec<_>, _) =
                found.into_iter().partition(|(_, route)| route.object.kind == "GRPCRoute");
            issues.extend(others.iter().map(|(_, route)| overruled(route, winner, port)));
            found = of_grpc;
        }
        found.into_iter().map(|(_, route)| route).collect()
    }

    /// Those that have rules in the list. The first decides; the others are told so.
    pub(super) fn of_istio(&self, port: Port<'_>, client: &Client, list: RuleList) -> Vec<&'m HttpRoute> {
        let mut found: Vec<(usize, Reach, &HttpRoute)> = Vec::new();
        let mut look = |exactness: usize, route: &'m HttpRoute, is_it: &dyn Fn(&Parent) -> Option<Option<Text>>| {
            if route.api != RouteApi::Istio || !route.has(list) {
                return;
            }
            let reaches = route.parents.iter().filter_map(is_it);
            let reach = reaches.filter_map(|clients| reach(clients.as_ref(), client)).min();
            found.extend(reach.map(|reach| (exactness, reach, route)));
        };
        for route in port.service.and_then(|service| self.indexes.of_service.get(service)).into_iter().flatten() {
            look(0, route, &|parent| match parent {
                Parent::Service { name, clients, .. } if Some(name) == port.service => Some(clients.clone()),
                Parent::Service { .. } | Parent::Host { .. } | Parent::Gateway { .. } => None,
            });
        }
        for (exactness, host) in covering(&port.name.host).enumerate() {
            for route in self.indexes.of_host.get(&*host).into_iter().flatten() {
                look(exactness, route, &|parent| match parent {
                    Parent::Host { host: of, clients } if *of == host => Some(clients.clone()),
                    Parent::Service { .. } | Parent::Host { .. } | Parent::Gateway { .. } => None,
                });
            }
        }
        // Ages are in order within each list, and stay so.
        found.sort_by_key(|(exactness, reach, _)| (*exactness, *reach));
        let mut routes: Vec<&HttpRoute> = Vec::new();
        for (exactness, reach, route) in &found {
            // A wildcard is meant for what nobody else names, and a namespace's own for itself: that is no quarrel.
            let is_rival = (*exactness, *reach) == (found[0].0, found[0].1);
            if is_rival && routes.iter().all(|known| known.object != route.object) {
                routes.push(route);
            }
        }
        routes
    }

    /// Reports routes of a service that has no requests to tell, because it is not there or has no address.
    pub(in crate::compile) fn unattached(&self, name: &Name, service: Option<&Service>, issues: &mut Vec<Issue>) {
        let Some((reason, problem, cure)) = unreachable(name, service) else { return };
        let issue =
            |route: &Arc<HttpRoute>| Issue::new(&route.object, field(route), problem.clone(), cure).because(reason);
        issues.extend(self.indexes.of_service.get(name).into_iter().flatten().map(issue));
    }
}

impl Indexes {
    /// Reports routes that hold for no port although what they name is there, and policies that others overrule.
    /// `taken` are the routes that some port takes; `is_there` says whether a service has addresses.
    pub(in crate::compile) fn idle(&self, taken: &BTreeSet<&Taken>, is_there: impl Fn(&Name) -> bool) -> Vec<Issue> {
        let mut issues = self.policies.issues.clone();
        for (name, routes) in self.of_service.iter().filter(|(name, _)| is_there(name)) {
            for route in routes.iter().filter(|route| !is_private(route)) {
                let has_idle = |list: &RuleList| route.has(*list) && !taken.contains(&(route.object.clone(), *list));
                issues.extend(
                    RuleList::ALL
                        .into_iter()
                        .filter(has_idle)
                        .map(|list| idle(route, &format!("Service {name}"), list)),
                );
            }
        }
        for (host, routes) in &self.of_host {
            let is_there = host.starts_with('*') || self.externals.contains_key(host);
            let has_idle = |route: &HttpRoute, list: RuleList| {
                let is_taken = taken.contains(&(route.object.clone(), list));
                !host.starts_with('*') && is_there && route.has(list) && !is_taken && !is_private(route)
            };
            for route in routes {
                let lists = RuleList::ALL.into_iter().filter(|list| has_idle(route, *list));
                issues.extend(lists.map(|list| idle(route, host, list)));
            }
            for route in routes.iter().filter(|_| !is_there) {
                let problem = format!("nobody knows the host {host}; the route does not hold for it");
                issues.push(Issue::new(&route.object, field(route), problem, "describe it by a ServiceEntry"));
            }
        }
        issues
    }
}

/// Says that no port of a service or host takes rules.
fn idle(route: &HttpRoute, of: &str, list: RuleList) -> Issue {
    let (field, speaks, takes, cure) = match list {
        RuleList::Http => {
            (field(route), "HTTP", "the route", "name a port of it, and let its name or appProtocol say `http`")
        }
        RuleList::Tcp => (
            "spec.tcp",
            "anything but HTTP and TLS",
            "the rules",
            "let a port's name or appProtocol say `tcp`, or nothing",
        ),
        RuleList::Tls => ("spec.tls", "TLS", "the rules", "let a port's name or appProtocol say `tls` or `https`"),
    };
    let problem = format!("no port of {of} that speaks {speaks} takes {takes}");
    Issue::new(&route.object, field, problem, cure)
}

/// Why something does not attach: the kind of reason, the problem, the cure.
pub(super) type Refusal = (Reason, String, &'static str);

/// Why a service has no requests that could be told.
fn unreachable(name: &Name, service: Option<&Service>) -> Option<Refusal> {
    let problem = match service {
        None => format!("there is no Service {name}; the route does not hold for it"),
        Some(service) if service.addresses.is_empty() => {
            format!("Service {name} has no virtual address, by which its requests would be told")
        }
        Some(_) => return None,
    };
    Some((Reason::NoMatchingParent, problem, "name a service that has a virtual address"))
}

/// Why a route does not attach to a service by this reference of it.
pub(super) fn refusal(parent: &Parent, name: &Name, service: Option<&Service>) -> Option<Refusal> {
    let refusal = unreachable(name, service);
    let Some(service) = service.filter(|_| refusal.is_none()) else { return refusal };
    let mut named = service.ports.iter().filter(|port| parent.names(port.port, &port.name)).peekable();
    let (problem, cure) = if named.peek().is_none() {
        (format!("Service {name} has no port that is the one meant"), "name one of its ports, or none")
    } else if named.all(|port| port.protocol.is_opaque()) {
        (
            format!("no port of Service {name} that is meant speaks HTTP by its own word"),
            "let a port's name or appProtocol say `http`",
        )
    } else {
        return None;
    };
    Some((Reason::NoMatchingParent, problem, cure))
}

/// Does it hold for single namespaces only, none of which need have a pod here?
fn is_private(route: &HttpRoute) -> bool {
    route.parents.iter().all(|parent| match parent {
        Parent::Service { clients, .. } | Parent::Host { clients, .. } => clients.is_some(),
        Parent::Gateway { .. } => true,
    })
}

fn field(route: &HttpRoute) -> &'static str {
    match route.api {
        RouteApi::Gateway => "spec.parentRefs",
        RouteApi::Istio => "spec.hosts",
    }
}

pub(super) fn overruled(route: &HttpRoute, winner: &HttpRoute, port: Port<'_>) -> Issue {
    let problem =
        format!("{} routes {} port {}, where this one has no effect", winner.object, port.name.host, port.port);
    Issue::new(&route.object, field(route), problem, "put the rules into one object")
}

fn opaque(route: &HttpRoute, port: Port<'_>) -> Issue {
    let problem = format!(
        "port {} of {} does not speak HTTP by its own word, so that requests are not seen; the route is not enforced",
        port.port, port.name.host
    );
    Issue::new(&route.object, field(route), problem, "let the port's name or appProtocol say `http`")
}

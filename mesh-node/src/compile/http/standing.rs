//! How routes and gateways stand: what their users are told of them.
//!
//! In:  routes and gateways as they were read; the services that are there.
//! Out: `model::RouteStanding`, `model::GatewayStanding`.
//! Invariant: what is told is what holds: whether a port takes a route, and whether a backend is there, is asked of the same
//! functions by which ports are compiled.
//! Source: Gateway API `RouteConditionReason`, "ParentReference"; GEP-1294.

use super::listeners::{self, Judged};
use super::upstream::{Absent, port_of};
use super::{admission, attach};
use crate::model::http::{BackendTarget, HttpRoute, HttpTarget, Parent};
use crate::model::{
    Attachment, Daemon, Gateway, GatewayClass, GatewayStanding, Heard, Issue, Listener, ListenerStanding, Name,
    ObjectRef, Reason, RouteStanding, Service,
};
use crate::translate::{Translator, Unit};
use crate::world::{CustomKind, Kind, World};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Where standings are looked up.
pub struct Standings<'w> {
    world: &'w World,
    translator: &'w Translator,
    /// Whose gateways are the mesh's own.
    controller: &'w str,
    /// The daemons that are ready, if that is known.
    daemons: Option<&'w [Daemon]>,
    judged: OnceCell<Vec<Judged<'w>>>,
}

impl<'w> Standings<'w> {
    /// Of what `translator` has learnt of `world`. Gateways of classes that `controller` controls are the mesh's.
    #[must_use]
    pub fn new(world: &'w World, translator: &'w Translator, controller: &'w str) -> Self {
        Self { world, translator, controller, daemons: None, judged: OnceCell::new() }
    }

    /// The same, with what these daemons say, which are ready.
    #[must_use]
    pub fn hearing(self, daemons: Option<&'w [Daemon]>) -> Self {
        Self { daemons, ..self }
    }

    /// Is the class of this name the mesh's?
    #[must_use]
    pub fn is_own_class(&self, class: &str) -> bool {
        admission::is_class_of(self.translator, class, self.controller)
    }

    /// How a route of the Gateway API stands; `None` if there is no such route.
    #[must_use]
    pub fn route(&self, kind: CustomKind, name: &Name) -> Option<RouteStanding> {
        let object = ObjectRef::new(kind.full_name(), name.clone());
        let route = self.translator.customs.routes.get(&object)?;
        let mut issues = self.issues(kind, name);
        // A reference that is not understood is another controller's, and says nothing of the rest.
        issues.retain(|issue| !issue.field.starts_with("spec.parentRefs"));
        issues.extend(self.unresolved(route));
        let attachment = |(at, parent): (usize, &Option<Parent>)| self.attachment(route, at, parent.as_ref());
        let parents = route.references.iter().enumerate().map(attachment).collect();
        Some(RouteStanding { parents, rules: route.rules.len(), issues })
    }

    /// How a gateway stands; `None` if there is none of this name that is the mesh's.
    #[must_use]
    pub fn gateway(&self, name: &Name) -> Option<GatewayStanding> {
        let gateway = self.own_gateway(name)?;
        let judged = self.judged.get_or_init(|| self.judged());
        let own = judged.iter().filter(|judged| judged.gateway.object == gateway.object);
        let listeners: Vec<_> = own.map(|judged| self.listener(judged)).collect();
        let addresses = self.addresses(gateway, &listeners);
        Some(GatewayStanding { listeners, addresses, issues: self.issues(CustomKind::Gateway, name) })
    }

    /// The addresses of nodes at which all listeners of a gateway are listened on that can be.
    fn addresses(&self, gateway: &Gateway, listeners: &[ListenerStanding]) -> Vec<IpAddr> {
        let allowed = |listener: &&Listener| {
            listeners.iter().any(|standing| standing.at == listener.at && standing.refusal.is_none())
        };
        let allowed: Vec<&Listener> = gateway.listeners.iter().filter(allowed).collect();
        let is_open = |daemon: &&Daemon, listener: &Listener| {
            Heard::of(std::slice::from_ref(*daemon), generation(gateway), &listener.name).is_open()
        };
        let daemons = self.daemons.unwrap_or_default().iter();
        let open = daemons.filter(|daemon| !allowed.is_empty() && allowed.iter().all(|of| is_open(daemon, of)));
        let addresses: BTreeSet<IpAddr> = open.flat_map(|daemon| daemon.addresses.iter().copied()).collect();
        addresses.into_iter().collect()
    }

    /// The listeners of all gateways that are the mesh's.
    fn judged(&self) -> Vec<Judged<'w>> {
        let customs = &self.translator.customs;
        let gateways = customs.gateways.values().filter(|gateway| self.is_own(gateway));
        listeners::judge(customs, gateways.map(|gateway| &**gateway).collect())
    }

    fn listener(&self, Judged { gateway, listener, refusal }: &Judged<'_>) -> ListenerStanding {
        let refusal = refusal.as_ref().map(|(reason, problem, cure)| {
            Issue::new(&gateway.object, listeners::path(gateway, listener), problem, *cure).because(*reason)
        });
        let routes = self.translator.customs.routes.values();
        let attached = routes.filter(|route| self.is_attached(route, (gateway, listener))).count();
        let heard = self.daemons.map(|daemons| Heard::of(daemons, generation(gateway), &listener.name));
        ListenerStanding { at: listener.at, kinds: listener.kinds.clone(), attached, refusal, heard }
    }

    /// Is a route accepted by a listener?
    fn is_attached(&self, route: &HttpRoute, (gateway, of): (&Gateway, &Listener)) -> bool {
        let is_taken = |parent: &Parent| match parent {
            Parent::Gateway { name, listener, port } => {
                let meant = (listener.as_deref(), *port);
                *name == gateway.object.name && admission::admit(self.world, (gateway, of), meant, route).is_ok()
            }
            Parent::Service { .. } | Parent::Host { .. } => false,
        };
        // What is not the Gateway API's has another kind than listeners take.
        let kinds = [CustomKind::HttpRoute, CustomKind::GrpcRoute];
        let kind = kinds.into_iter().find(|kind| *kind.full_name() == *route.object.kind);
        route.parents.iter().any(is_taken)
            && kind.and_then(|kind| self.route(kind, &route.object.name)).is_some_and(|route| !route.is_closed())
    }

    fn own_gateway(&self, name: &Name) -> Option<&Gateway> {
        let object = ObjectRef::new(CustomKind::Gateway.full_name(), name.clone());
        let gateway = self.translator.customs.gateways.get(&object)?;
        self.is_own(gateway).then_some(gateway)
    }

    fn is_own(&self, gateway: &Gateway) -> bool {
        matches!(&gateway.class, GatewayClass::Named(class) if self.is_own_class(class))
    }

    fn issues(&self, kind: CustomKind, name: &Name) -> Vec<Issue> {
        let unit = Unit::Object(Kind::Custom(kind), name.clone());
        self.translator.issues.of(&unit).map(Issue::clone).collect()
    }

    fn service(&self, name: &Name) -> Option<Service> {
        self.translator.read_service(self.world, name).0
    }

    fn attachment(&self, route: &HttpRoute, at: usize, parent: Option<&Parent>) -> Attachment {
        let refusal = match parent {
            Some(Parent::Service { name, .. }) => {
                let service = self.service(name);
                parent.and_then(|parent| attach::refusal(parent, name, service.as_ref()))
            }
            Some(Parent::Gateway { name, listener, port }) => match self.own_gateway(name) {
                None => return Attachment::Others,
                Some(gateway) => self.refused_by(gateway, route, (listener.as_deref(), *port)),
            },
            Some(Parent::Host { .. }) | None => return Attachment::Others,
        };
        match refusal {
            None => Attachment::Attached,
            Some((reason, problem, cure)) => {
                let field = format!("spec.parentRefs[{at}]");
                Attachment::Refused(Issue::new(&route.object, field, problem, cure).because(reason))
            }
        }
    }

    /// Why no listener of a gateway takes a route.
    fn refused_by(
        &self,
        gateway: &Gateway,
        route: &HttpRoute,
        (listener, port): (Option<&str>, Option<u16>),
    ) -> Option<attach::Refusal> {
        let admit = |of: &Listener| admission::admit(self.world, (gateway, of), (listener, port), route);
        let refusals: Result<Vec<_>, _> = gateway.listeners.iter().map(|of| admit(of).map_or_else(Ok, Err)).collect();
        // The listener that came closest tells what to change.
        let reasons = [
            (Reason::NoMatchingHost, "serves a host of the route", "let hostnames of both overlap"),
            (Reason::NotAllowed, "takes routes of this namespace", "let `allowedRoutes` of a listener allow it"),
            (Reason::NoMatchingParent, "is the one that is meant", "name one of its listeners, or none"),
        ];
        let refusals = refusals.ok()?;
        let closest = reasons.into_iter().find(|(reason, ..)| refusals.contains(reason)).unwrap_or(reasons[2]);
        let (reason, lacking, cure) = closest;
        Some((reason, format!("no listener of {} {lacking}", gateway.object), cure))
    }

    /// Backends and mirrors that are not there.
    fn unresolved(&self, route: &HttpRoute) -> Vec<Issue> {
        let mut issues = Vec::new();
        for (at, rule) in route.rules.iter().enumerate() {
            let backends = match &rule.action.target {
                HttpTarget::Backends(backends) => backends.as_slice(),
                HttpTarget::Original | HttpTarget::Redirect(_) | HttpTarget::Respond { .. } => &[],
            };
            let targets = backends.iter().map(|backend| &backend.target);
            let targets = targets.chain(rule.action.mirrors.iter().map(|mirror| &mirror.target));
            for target in targets {
                let Some((host, absent)) = self.absent(target) else { continue };
                let (problem, cure) = absent.say(&host);
                let issue = Issue::new(&route.object, format!("spec.rules[{at}]"), problem, cure);
                issues.push(issue.because(Reason::NotFound));
            }
        }
        issues
    }

    /// What a backend lacks that translation took as it was written.
    fn absent(&self, target: &BackendTarget) -> Option<(String, Absent)> {
        let BackendTarget::Service { name, port, .. } = target else { return None };
        let host = format!("Service {name}");
        let Some(service) = self.service(name) else { return Some((host, Absent::Host)) };
        let absent = (*port).and_then(|port| port_of(&service, port).err())?;
        Some((host, absent))
    }
}

/// By what daemons tell a gateway apart, and its specification.
fn generation(gateway: &Gateway) -> (&str, i64) {
    (&gateway.uid, gateway.generation)
}

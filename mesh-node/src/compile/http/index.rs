//! Routes, policies and hosts by what they speak of.
//!
//! In:  routes, traffic policies and external services.
//! Out: [`Indexes`]; which services they concern.
//! Invariant: a service that nothing here concerns is compiled as if there were no routing at all.

use super::policy::Policies;
use crate::model::http::{HttpRoute, Parent};
use crate::model::{ExternalService, Name, ObjectRef};
use crate::translate::Customs;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Routes, policies and hosts by what they speak of, the oldest first.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct Indexes {
    /// Routes by the service that they attach to.
    pub(super) of_service: BTreeMap<Name, Vec<Arc<HttpRoute>>>,
    /// Routes by the host that they attach to, wildcards included.
    pub(super) of_host: BTreeMap<Arc<str>, Vec<Arc<HttpRoute>>>,
    /// Routes that attach to gateways.
    pub(super) of_gateway: Vec<Arc<HttpRoute>>,
    pub(super) policies: Policies,
    /// External services by host.
    pub(super) externals: BTreeMap<Arc<str>, Vec<Arc<ExternalService>>>,
    /// Are there external services, be it of no host?
    has_externals: bool,
}

impl Indexes {
    pub(in crate::compile) fn new(customs: &Customs, root_namespace: &str) -> Self {
        let mut found = Self {
            policies: Policies::new(customs.traffic_policies.values(), root_namespace),
            has_externals: !customs.external_services.is_empty(),
            ..Self::default()
        };
        let mut by_age: Vec<&Arc<HttpRoute>> = customs.routes.values().collect();
        by_age.sort_by_key(|route| age(route));
        by_age.into_iter().for_each(|route| found.put_route(route));
        let mut by_age: Vec<&Arc<ExternalService>> = customs.external_services.values().collect();
        by_age.sort_by_key(|external| (&external.created, &external.object));
        for external in by_age {
            for host in &external.hosts {
                let same = found.externals.entry(Arc::clone(host)).or_default();
                if same.last().is_none_or(|last| last.object != external.object) {
                    same.push(Arc::clone(external));
                }
            }
        }
        found
    }

    /// Takes in a route, if it is not there.
    pub(super) fn put_route(&mut self, route: &Arc<HttpRoute>) {
        for parent in &route.parents {
            let routes = match parent {
                Parent::Service { name, .. } => self.of_service.entry(name.clone()).or_default(),
                Parent::Host { host, .. } => self.of_host.entry(host.as_str().into()).or_default(),
                Parent::Gateway { .. } => &mut self.of_gateway,
            };
            // Most come in the order of their age.
            let is_last = routes.last().is_none_or(|last| age(last) < age(route));
            let place =
                if is_last { Err(routes.len()) } else { routes.binary_search_by_key(&age(route), |of| age(of)) };
            if let Err(place) = place {
                routes.insert(place, Arc::clone(route));
            }
        }
    }

    /// Takes out a route.
    pub(super) fn remove_route(&mut self, route: &HttpRoute) {
        let keep = |routes: &mut Vec<Arc<HttpRoute>>| {
            routes.retain(|of| of.object != route.object);
            !routes.is_empty()
        };
        for parent in &route.parents {
            match parent {
                Parent::Service { name, .. } => {
                    if self.of_service.get_mut(name).is_some_and(|routes| !keep(routes)) {
                        self.of_service.remove(name);
                    }
                }
                Parent::Host { host, .. } => {
                    if self.of_host.get_mut(&**host).is_some_and(|routes| !keep(routes)) {
                        self.of_host.remove(&**host);
                    }
                }
                Parent::Gateway { .. } => drop(keep(&mut self.of_gateway)),
            }
        }
    }

    /// Are there external services?
    pub(in crate::compile) fn has_externals(&self) -> bool {
        self.has_externals
    }

    /// Does an external service list one of these addresses?
    pub(in crate::compile) fn list_any(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let mut listed = self.externals.values().flatten().flat_map(|external| &external.addresses);
        !addresses.is_empty() && listed.any(|address| addresses.contains(address))
    }

    /// Might a route or a policy speak of the service of this name?
    pub(in crate::compile) fn concern(&self, service: &Name, domain: &str) -> bool {
        if self.of_service.contains_key(service) {
            return true;
        }
        if self.of_host.is_empty() && self.policies.hosts().next().is_none() {
            return false;
        }
        let host = format!("{}.{}.svc.{domain}", service.name, service.namespace);
        covering(&host).any(|host| self.of_host.contains_key(&*host)) || self.policies.speak_of(&host)
    }

    /// Every service of which a route or a policy might speak, and maybe others.
    pub(in crate::compile) fn concerned(&self, world: &World, domain: &str) -> BTreeSet<Name> {
        let hosts = || self.of_host.keys().map(|host| &**host).chain(self.policies.hosts());
        let mut found: BTreeSet<Name> = self.of_service.keys().cloned().collect();
        if hosts().any(|host| host.starts_with('*')) {
            found.extend(world.service_names().filter(|name| self.concern(name, domain)).cloned());
        } else {
            found.extend(hosts().filter_map(|host| service(host, domain)));
        }
        found
    }
}

/// By what the oldest is found, of which two objects never share all.
fn age(route: &HttpRoute) -> (&str, &ObjectRef) {
    (&route.created, &route.object)
}

/// The hosts under which an object may speak of `host`, the most exact first.
pub(super) fn covering(host: &str) -> impl Iterator<Item = String> {
    let wildcards: Vec<String> = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..])).collect();
    std::iter::once(host.to_owned()).chain(wildcards).chain(std::iter::once("*".to_owned()))
}

/// The service of the cluster that a host is, if it is one.
pub(super) fn service(host: &str, domain: &str) -> Option<Name> {
    let (name, namespace) = host.strip_suffix(domain)?.strip_suffix(".svc.")?.split_once('.')?;
    Some(Name::new(namespace, name))
}

//! Routes, policies and hosts by what they speak of.
//!
//! In:  routes, traffic policies and external services.
//! Out: [`Indexes`]; which services they concern.
//! Invariant: a service that nothing here concerns is compiled as if there were no routing at all.

use super::policy::Policies;
use crate::model::http::{HttpRoute, Parent};
use crate::model::{ExternalService, Name};
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
        by_age.sort_by_key(|route| (&route.created, &route.object));
        for route in by_age {
            for parent in &route.parents {
                let routes = match parent {
                    Parent::Service { name, .. } => found.of_service.entry(name.clone()).or_default(),
                    Parent::Host { host, .. } => found.of_host.entry(host.as_str().into()).or_default(),
                    Parent::Gateway { .. } => &mut found.of_gateway,
                };
                if routes.last().is_none_or(|last| last.object != route.object) {
                    routes.push(Arc::clone(route));
                }
            }
        }
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

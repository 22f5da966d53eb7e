//! Routing that changes with the world.
//!
//! In:  what may be another now, of the translator; the directory.
//! Out: the directory's services and hosts with their routes and policies; what is wrong.
//! Invariant: a service that no route, policy or preference concerns costs a look at it and nothing else.
//! Invariant: what depends on a service, a pod or a namespace is found by what it looked up when it was compiled last, and what
//! depends on a route by what the route attaches to and attached to before. If a traffic policy or an external host, a route for
//! hosts with a wildcard, this node's zone or its pods are others, everything that routing concerns is compiled again.

use super::index;
use super::reads::{Readers, Reads};
use super::{Client, Indexes, PortTraffic, Taken, Traffic};
use crate::compile::directory::{Builder, service_name};
use crate::compile::{Settings, hosts};
use crate::model::http::{LocalityPreference, Parent};
use crate::model::{Issue, Name, ObjectRef, Service};
use crate::snapshot::edge::{EdgePort, ListenerHere};
use crate::snapshot::http::Upstream;
use crate::translate::{self, Stale, TrafficUnit as Unit, Translator};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What routing concerns, as it was compiled last.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct Live {
    indexes: Indexes,
    clients: Vec<Client>,
    /// The least zone of each service's endpoints on this node, where they tell one.
    zones: BTreeMap<Name, String>,
    by_zone: BTreeSet<(String, Name)>,
    records: BTreeMap<Unit, Record>,
    readers: Readers,
    upstreams: HashMap<Arc<str>, Arc<Upstream>>,
    edge: EdgeParts,
    /// What must be compiled again because of its routes.
    rerouted: BTreeSet<Unit>,
    /// Must all of it be compiled again?
    is_stale: bool,
    /// And may that be more than it was?
    has_new_indexes: bool,
}

/// What becomes of gateways.
#[derive(Clone, Debug, Default)]
struct EdgeParts {
    ports: Vec<Arc<EdgePort>>,
    listeners: Arc<[ListenerHere]>,
}

/// What is known of something that was compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    reads: Reads,
    /// What its ports take.
    taken: BTreeSet<Taken>,
    /// Has the service an address?
    is_there: bool,
}

impl Live {
    /// The pods of this node are these.
    pub(in crate::compile) fn set_clients(&mut self, clients: Vec<Client>) {
        self.is_stale |= self.clients != clients;
        self.clients = clients;
    }

    /// Brings the indexes up to date.
    pub(in crate::compile) fn learn(&mut self, translator: &Translator, stale: &Stale, settings: &Settings) {
        let now = |object: &ObjectRef| translator.customs.routes.get(object);
        let routes = || stale.routes.iter().flat_map(|(object, before)| before.as_ref().into_iter().chain(now(object)));
        let is_wild = |parent: &Parent| matches!(parent, Parent::Host { host, .. } if host.starts_with('*'));
        if stale.routing || routes().flat_map(|route| &route.parents).any(is_wild) {
            self.indexes = Indexes::new(&translator.customs, &settings.root_namespace);
            (self.is_stale, self.has_new_indexes) = (true, true);
            return;
        }
        for (object, before) in &stale.routes {
            before.iter().for_each(|before| self.indexes.remove_route(before));
            now(object).into_iter().for_each(|now| self.indexes.put_route(now));
        }
        for parent in routes().flat_map(|route| &route.parents) {
            match parent {
                Parent::Service { name, .. } => drop(self.rerouted.insert(Unit::Service(name.clone()))),
                Parent::Host { host, .. } => {
                    let service = index::service(host, &settings.cluster_domain);
                    self.rerouted.extend(service.map(Unit::Service));
                    self.rerouted.extend(self.indexes.has_externals().then_some(Unit::Hosts));
                }
                Parent::Gateway { .. } => drop(self.rerouted.insert(Unit::Edge)),
            }
        }
    }

    /// The service is this, or there is none. Returns whether routing concerns it, or did.
    pub(in crate::compile) fn note(&mut self, name: &Name, service: Option<&Service>, settings: &Settings) -> bool {
        let endpoints = service.iter().flat_map(|service| &service.ports).flat_map(|port| &port.endpoints);
        let here = endpoints.filter(|endpoint| endpoint.node.as_deref() == Some(&settings.node));
        let zone = here.filter_map(|endpoint| endpoint.zone.as_ref()).min();
        if self.zones.get(name) != zone {
            let before = self.zone().map(str::to_owned);
            if let Some(zone) = self.zones.remove(name) {
                self.by_zone.remove(&(zone, name.clone()));
            }
            if let Some(zone) = zone {
                self.zones.insert(name.clone(), zone.clone());
                self.by_zone.insert((zone.clone(), name.clone()));
            }
            self.is_stale |= self.zone() != before.as_deref();
        }
        concerns(&self.indexes, name, service, settings) || self.records.contains_key(&Unit::Service(name.clone()))
    }

    fn zone(&self) -> Option<&str> {
        self.by_zone.first().map(|(zone, _)| zone.as_str())
    }

    /// What must be compiled again besides services that are stale themselves.
    fn stale(&self, world: &World, translator: &Translator, stale: &Stale, settings: &Settings) -> BTreeSet<Unit> {
        let mut units = self.rerouted.clone();
        if self.is_stale {
            units.extend(self.records.keys().cloned());
            if self.has_new_indexes {
                units.extend(self.indexes.concerned(world, &settings.cluster_domain).into_iter().map(Unit::Service));
                units.extend(self.indexes.has_externals().then_some(Unit::Hosts));
            }
            units.insert(Unit::Edge);
            return units;
        }
        for name in &stale.services {
            units.extend(self.readers.of_service(name).cloned());
        }
        if self.readers.know_pods() {
            let mut addresses = stale.pod_addresses.clone();
            for name in &stale.workloads {
                addresses.extend(translator.claims(world, name));
                units.extend(self.readers.of_namespace(&name.namespace).cloned());
            }
            units.extend(addresses.into_iter().flat_map(|address| self.readers.of_address(address)).cloned());
        }
        units.extend(self.indexes.list_any(&stale.service_addresses).then_some(Unit::Hosts));
        units.extend(stale.gateways.then_some(Unit::Edge));
        units
    }

    /// Compiles what must be. `services` are those for which [`Live::note`] said so, as they are now.
    pub(in crate::compile) fn compile(
        &mut self,
        (world, stale): (&World, &Stale),
        services: HashMap<Name, Option<Arc<Service>>>,
        (translator, directory): (&mut Translator, &mut Builder),
        settings: &Settings,
    ) {
        let mut units = self.stale(world, translator, stale, settings);
        units.extend(services.keys().cloned().map(Unit::Service));
        if units.is_empty() && !self.is_stale {
            return;
        }
        let mut is_summary_stale = stale.routing || !stale.routes.is_empty();
        self.rerouted.clear();
        (self.is_stale, self.has_new_indexes) = (false, false);
        let zone = self.by_zone.first().map(|(zone, _)| zone.as_str());
        let traffic = Traffic {
            world,
            translator,
            settings,
            indexes: &self.indexes,
            clients: &self.clients,
            zone,
            workloads: directory.workloads().clone(),
            known: &self.upstreams,
            upstreams: std::cell::RefCell::default(),
            services: services.into(),
            reads: std::cell::RefCell::default(),
            taken: std::cell::RefCell::default(),
        };
        let mut found: Vec<(Unit, Vec<Issue>)> = Vec::new();
        // Hosts come last: an address that a service has stays with it.
        let hosts = units.take(&Unit::Hosts);
        let mut edge = std::mem::take(&mut self.edge);
        for unit in units.into_iter().chain(hosts) {
            let mut issues = Vec::new();
            let record = match &unit {
                Unit::Service(name) => compile_service(&traffic, name, directory, &mut issues),
                Unit::Hosts => compile_hosts(&traffic, directory, &mut issues),
                Unit::Edge => compile_edge(&traffic, &mut edge, &mut issues),
            };
            let before = self.records.remove(&unit);
            let summary = |record: &Option<Record>| record.as_ref().map(|of| (of.taken.clone(), of.is_there));
            is_summary_stale |= summary(&before) != summary(&record);
            before.iter().for_each(|before| self.readers.remove(&unit, &before.reads));
            record.iter().for_each(|record| self.readers.add(&unit, &record.reads));
            self.records.extend(record.map(|record| (unit.clone(), record)));
            found.push((unit, issues));
        }
        let upstreams: Vec<_> = traffic.into_upstreams().collect();
        self.edge = edge;
        self.upstreams.extend(upstreams);
        self.upstreams.retain(|_, upstream| Arc::strong_count(upstream) > 1);
        for (unit, issues) in found {
            translator.issues.set(translate::Unit::Traffic(unit), issues);
        }
        if is_summary_stale {
            translator.issues.set(translate::Unit::Routing, self.idle());
        }
    }

    /// The ports of the edge.
    pub(in crate::compile) fn edge(&self) -> &[Arc<EdgePort>] {
        &self.edge.ports
    }

    /// What became of the listeners of gateways.
    pub(in crate::compile) fn listeners(&self) -> Arc<[ListenerHere]> {
        Arc::clone(&self.edge.listeners)
    }

    fn idle(&self) -> Vec<Issue> {
        let taken = self.records.values().flat_map(|record| &record.taken).collect();
        let is_there =
            |name: &Name| self.records.get(&Unit::Service(name.clone())).is_some_and(|record| record.is_there);
        self.indexes.idle(&taken, is_there)
    }
}

/// Has routing anything to say of a service?
fn concerns(indexes: &Indexes, name: &Name, service: Option<&Service>, settings: &Settings) -> bool {
    service.is_some_and(|service| service.locality != LocalityPreference::None)
        || indexes.concern(name, &settings.cluster_domain)
}

/// Puts a service into the directory. Returns what routing has to know of it.
fn compile_service(
    traffic: &Traffic<'_>,
    name: &Name,
    directory: &mut Builder,
    issues: &mut Vec<Issue>,
) -> Option<Record> {
    let settings = traffic.settings;
    let service = traffic.service(name);
    let service = service.as_ref();
    if !concerns(traffic.indexes, name, service.map(|service| &**service), settings) {
        traffic.take();
        directory.put_service(name, service.map(|service| &**service), &BTreeMap::new(), settings);
        return None;
    }
    traffic.unattached(name, service.map(|service| &**service), issues);
    let mut ports: BTreeMap<u16, PortTraffic> = BTreeMap::new();
    let addressed = service.filter(|service| !service.addresses.is_empty());
    if let Some(service) = addressed {
        let full = directory.service_name(name);
        let full = full.unwrap_or_else(|| Arc::new(service_name(name, &settings.cluster_domain)));
        for port in &service.ports {
            ports.insert(port.port, traffic.port(service, &full, port, issues));
        }
    }
    directory.put_service(name, service.map(|service| &**service), &ports, settings);
    let (reads, taken) = traffic.take();
    Some(Record { reads, taken, is_there: addressed.is_some() })
}

/// Makes the ports of the edge. Returns what routing has to know of them, if there are gateways.
fn compile_edge(traffic: &Traffic<'_>, edge: &mut EdgeParts, issues: &mut Vec<Issue>) -> Option<Record> {
    let (mut ports, listeners) = traffic.edge(issues);
    for port in &mut ports {
        let known = edge.ports.iter().find(|known| **known == *port);
        known.into_iter().for_each(|known| *port = Arc::clone(known));
    }
    edge.ports = ports;
    if *edge.listeners != *listeners {
        edge.listeners = listeners.into();
    }
    let (reads, taken) = traffic.take();
    (!edge.ports.is_empty()).then_some(Record { reads, taken, is_there: true })
}

/// Puts the external hosts into the directory. Returns what routing has to know of them, if there are any.
fn compile_hosts(traffic: &Traffic<'_>, directory: &mut Builder, issues: &mut Vec<Issue>) -> Option<Record> {
    directory.clear_hosts();
    let (hosts, addresses) = hosts::hosts(traffic, directory.services(), issues);
    directory.put_hosts(hosts, addresses);
    let (reads, taken) = traffic.take();
    traffic.indexes.has_externals().then_some(Record { reads, taken, is_there: true })
}

//! Who is where: workloads and services by address.
//!
//! In:  workloads and services, one at a time; the policies that may hold for each.
//! Out: the `Directory`, kept up to date.
//! Invariant: it depends on what is in it, not on how that came about; what is the same before and after stays one `Arc`.
//! Invariant: what is equal of workloads is held once, for there are many.
//! Source: Istio's standard metrics and canonical service; kube-proxy for `internalTrafficPolicy`.

use super::Settings;
use super::http::PortTraffic;
use super::policy::{self, Asked, Population};
use crate::model::http::AppProtocol;
use crate::model::{Announced, Endpoint, Identity, Name, Service, ServicePort, Subject, Text, Workload};
use crate::policy::Modes;
use crate::share::{AddressMap, Claims, Interner, Map};
use crate::snapshot::{
    AddressList, Directory, EndpointOf, Hosts, InboundModes, ServiceEntry, ServiceName, ServicePortEntry,
    WorkloadEntry, WorkloadLabels,
};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What Istio says where it knows no better.
const UNKNOWN: &str = "unknown";

/// The directory, with what it takes to change it.
#[derive(Clone, Debug, Default)]
pub(super) struct Builder {
    directory: Directory,
    entries: Interner<Arc<WorkloadEntry>>,
    identities: Interner<Arc<Identity>>,
    labels: Interner<Arc<WorkloadLabels>>,
    subjects: Interner<Arc<Subject>>,
    /// The subjects that addresses lead to.
    population: Population,
    texts: Interner<Text>,
    services: Map<Name, Compiled>,
    /// The services that an endpoint belongs to.
    endpoints: Claims<SocketAddr, Arc<EndpointOf>>,
    /// External hosts by the addresses that they have in the directory.
    host_addresses: BTreeMap<IpAddr, Arc<ServiceEntry>>,
}

/// A service as it was compiled last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Compiled {
    name: Arc<ServiceName>,
    /// For clients that dial an IPv4 address, and for those that dial an IPv6 one; `None` without addresses and endpoints.
    entries: [Option<Arc<ServiceEntry>>; 2],
    /// What its endpoints speak, each once.
    owners: Box<[Arc<EndpointOf>]>,
    /// Endpoints that clients of this node do not use, and what they speak.
    elsewhere: Box<[(SocketAddr, AppProtocol)]>,
}

impl Compiled {
    /// Its endpoints. One that several ports share speaks what the first of them says.
    fn endpoints(&self) -> BTreeMap<SocketAddr, &Arc<EndpointOf>> {
        let ports = self.entries.iter().flatten().flat_map(|entry| &entry.ports);
        let used = ports.flat_map(|port| port.endpoints.iter().map(|endpoint| (endpoint, port.protocol)));
        let mut endpoints = BTreeMap::new();
        for (endpoint, protocol) in used.chain(self.elsewhere.iter().copied()) {
            let owner = self.owners.iter().find(|owner| owner.protocol == protocol);
            endpoints.entry(endpoint).or_insert(owner);
        }
        endpoints.into_iter().filter_map(|(endpoint, owner)| Some((endpoint, owner?))).collect()
    }
}

impl Builder {
    /// The directory as it is now.
    pub(super) fn directory(&self) -> Directory {
        Directory { endpoints: self.endpoints.firsts().clone(), ..self.directory.clone() }
    }

    /// Lets it take no more room than it must, once it has grown to its size.
    pub(super) fn compact(&mut self) {
        self.directory.workloads.compact();
        self.directory.services.compact();
        self.services.compact();
        self.endpoints.compact();
    }

    /// Workloads by each of their addresses.
    pub(super) fn workloads(&self) -> &AddressMap<IpAddr, Arc<WorkloadEntry>> {
        &self.directory.workloads
    }

    /// Services by each of their addresses.
    pub(super) fn services(&self) -> &AddressMap<IpAddr, Arc<ServiceEntry>> {
        &self.directory.services
    }

    /// What telemetry says of a service that was put.
    pub(super) fn service_name(&self, name: &Name) -> Option<Arc<ServiceName>> {
        self.services.get(name).map(|service| Arc::clone(&service.name))
    }

    /// There are no external hosts, until they are put.
    pub(super) fn clear_hosts(&mut self) {
        for (address, host) in std::mem::take(&mut self.host_addresses) {
            if self.directory.services.get(&address).is_some_and(|known| Arc::ptr_eq(known, &host)) {
                self.directory.services.remove(&address);
            }
        }
    }

    /// The external hosts are these, some of them with addresses that no service has. Others were cleared.
    pub(super) fn put_hosts(&mut self, hosts: Hosts, addresses: BTreeMap<IpAddr, Arc<ServiceEntry>>) {
        if *self.directory.hosts != hosts {
            self.directory.hosts = Arc::new(hosts);
        }
        self.directory.services.extend(addresses.iter().map(|(address, host)| (*address, Arc::clone(host))));
        self.host_addresses = addresses;
    }

    /// The workload that has an address.
    pub(super) fn at(&self, address: &IpAddr) -> Option<&Arc<WorkloadEntry>> {
        self.directory.workloads.get(address)
    }

    /// Nobody has this address, until a workload that has it is put.
    pub(super) fn clear_workload(&mut self, address: &IpAddr) {
        if let Some(known) = self.directory.workloads.get(address) {
            self.population.remove(&known.subject);
            self.directory.workloads.remove(address);
        }
    }

    /// The subjects that addresses lead to.
    pub(super) fn population(&mut self) -> &mut Population {
        &mut self.population
    }

    /// No service has this address, until a service that has it is put.
    pub(super) fn clear_service(&mut self, address: &IpAddr) {
        self.directory.services.remove(address);
    }

    /// The workload is this. Addresses that it no longer has were cleared. `asked` says which labels are part of its subject.
    pub(super) fn put_workload(
        &mut self,
        (world, workload): (&World, &Workload),
        asked: &Asked,
        modes: impl FnOnce() -> Modes,
    ) {
        // An address of the node is not one pod's; nobody there has an identity to prove.
        if workload.host_network || workload.addresses.is_empty() {
            return;
        }
        let in_mesh = workload.enrolled || workload.announced != Announced::Nothing;
        let inbound = in_mesh.then(|| {
            let modes = modes();
            InboundModes { default: modes.default, ports: modes.ports.into() }
        });
        let labels = self.workload_labels(workload);
        let subject = policy::subject(world, workload, asked, |text| self.texts.share(text));
        let entry = self.entries.share(WorkloadEntry {
            identity: self.identities.share(workload.identity.clone()),
            inbound,
            takes_mutual_tls: workload.announced.takes_mutual_tls(),
            labels: self.labels.share(labels),
            subject: self.subjects.share(subject),
        });
        for address in &workload.addresses {
            if self.at(address).is_some_and(|known| Arc::ptr_eq(known, &entry)) {
                continue;
            }
            self.clear_workload(address);
            self.population.add(&entry.subject);
            self.directory.workloads.insert(*address, Arc::clone(&entry));
        }
    }

    /// The service of this name is this, or there is none. Addresses that it no longer has were cleared. `traffic` says of
    /// some of its ports more than the service.
    pub(super) fn put_service(
        &mut self,
        name: &Name,
        service: Option<&Service>,
        traffic: &BTreeMap<u16, PortTraffic>,
        settings: &Settings,
    ) {
        let before = self.services.get(name).cloned();
        let now = service.map(|service| compiled(service, before.as_ref(), traffic, settings));
        let (former, present) = (before.iter().flat_map(Compiled::endpoints), now.iter().flat_map(Compiled::endpoints));
        let (former, present): (BTreeMap<_, _>, BTreeMap<_, _>) = (former.collect(), present.collect());
        for (endpoint, owner) in &former {
            if present.get(endpoint) != Some(owner) {
                self.endpoints.withdraw(endpoint, owner);
            }
        }
        for (endpoint, owner) in &present {
            if former.get(endpoint) != Some(owner) {
                self.endpoints.add(endpoint, Arc::clone(owner));
            }
        }
        if let (Some(service), Some(now)) = (service, &now) {
            for address in &service.addresses {
                let Some(entry) = &now.entries[usize::from(address.is_ipv6())] else { continue };
                if self.directory.services.get(address).is_none_or(|known| !Arc::ptr_eq(known, entry)) {
                    self.directory.services.insert(*address, Arc::clone(entry));
                }
            }
        }
        match now {
            Some(now) => self.services.insert(name.clone(), now),
            None => _ = self.services.remove(name),
        }
    }

    /// What Istio's standard metrics say of a workload.
    fn workload_labels(&mut self, workload: &Workload) -> WorkloadLabels {
        let label = |keys: &[&str]| {
            let value = keys.iter().find_map(|&key| workload.labels.get(key));
            value.map(String::as_str).filter(|value| !value.is_empty())
        };
        let canonical_service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
            .unwrap_or(workload.controller.as_str());
        let canonical_revision =
            label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]).unwrap_or("latest");
        let mut share = |text: &str| self.texts.share(text);
        WorkloadLabels {
            workload: share(&workload.controller),
            namespace: share(&workload.name.namespace),
            app: share(label(&["app"]).unwrap_or(canonical_service)),
            version: share(label(&["version"]).unwrap_or(UNKNOWN)),
            canonical_service: share(canonical_service),
            canonical_revision: share(canonical_revision),
            principal: share(&workload.identity.principal()),
        }
    }
}

/// What telemetry says of a service.
pub(super) fn service_name(name: &Name, cluster_domain: &str) -> ServiceName {
    let Name { namespace, name } = name.clone();
    ServiceName { host: format!("{name}.{namespace}.svc.{cluster_domain}").into(), name, namespace }
}

/// The service, compiled; what is as it was `before` stays where it was.
fn compiled(
    service: &Service,
    before: Option<&Compiled>,
    traffic: &BTreeMap<u16, PortTraffic>,
    settings: &Settings,
) -> Compiled {
    let name = before.map_or_else(
        || Arc::new(service_name(&service.name, &settings.cluster_domain)),
        |before| Arc::clone(&before.name),
    );
    let is_here = |endpoint: &&Endpoint| !service.local_only || endpoint.node.as_deref() == Some(&settings.node);
    let entries = [false, true].map(|is_ipv6| {
        let entry = service_entry(service, Arc::clone(&name), traffic, |endpoint| {
            endpoint.address.is_ipv6() == is_ipv6 && is_here(&endpoint)
        });
        let is_idle = service.addresses.iter().all(|address| address.is_ipv6() != is_ipv6)
            && entry.ports.iter().all(|port| port.endpoints.is_empty());
        let known = before.and_then(|before| before.entries[usize::from(is_ipv6)].as_ref());
        let known = known.filter(|known| ***known == entry).cloned();
        (!is_idle).then(|| known.unwrap_or_else(|| Arc::new(entry)))
    });
    let elsewhere = service.ports.iter().flat_map(|port| {
        let is_closed = traffic.get(&port.port).is_some_and(PortTraffic::is_closed);
        let protocol = protocol(port, traffic);
        let elsewhere = port.endpoints.iter().filter(move |endpoint| is_closed || !is_here(endpoint));
        elsewhere.map(move |endpoint| (SocketAddr::new(endpoint.address, endpoint.port), protocol))
    });
    let elsewhere: BTreeSet<_> = elsewhere.collect();
    let protocols: BTreeSet<_> = service.ports.iter().map(|port| protocol(port, traffic)).collect();
    let owners = protocols.into_iter().map(|protocol| EndpointOf { service: Arc::clone(&name), protocol });
    let known = |owner: EndpointOf| {
        let known = before.and_then(|before| before.owners.iter().find(|known| ***known == owner));
        known.cloned().unwrap_or_else(|| Arc::new(owner))
    };
    let owners = owners.map(known).collect();
    Compiled { name, entries, owners, elsewhere: elsewhere.into_iter().collect() }
}

/// What one of its ports speaks.
fn protocol(port: &ServicePort, traffic: &BTreeMap<u16, PortTraffic>) -> AppProtocol {
    traffic.get(&port.port).map_or(port.protocol, |traffic| traffic.protocol(port.protocol))
}

/// The service as clients see it that may use the endpoints for which `is_usable`.
fn service_entry(
    service: &Service,
    name: Arc<ServiceName>,
    traffic: &BTreeMap<u16, PortTraffic>,
    is_usable: impl Fn(&Endpoint) -> bool,
) -> ServiceEntry {
    let port = |port: &ServicePort| {
        let traffic = traffic.get(&port.port).cloned().unwrap_or_default();
        let is_usable = |endpoint: &&Endpoint| !traffic.is_closed() && is_usable(endpoint);
        ServicePortEntry {
            port: port.port,
            protocol: traffic.protocol(port.protocol),
            endpoints: addresses(port.endpoints.iter().filter(is_usable)),
            upstream: traffic.upstream,
            upstream_by_pod: traffic.upstream_by_pod,
            routes: traffic.routes,
            streams: traffic.streams,
        }
    };
    let mut ports: Vec<_> = service.ports.iter().map(port).collect();
    ports.sort_by_key(|port| port.port);
    ServiceEntry { name, client_affinity: service.client_affinity, ports: ports.into() }
}

fn addresses<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> AddressList {
    endpoints.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port)).collect()
}

//! How traffic to each port of a service is routed, and under which traffic policy.
//!
//! In:  the world, the indexes of its routing, the node's name, the pods of this node.
//! Out: [`PortTraffic`] for one port at a time.
//! Invariant: pure; a port's traffic depends on its service, on the routes that attach to it, on the services and
//! external services which those send to, on the traffic policies of all these, on the labels of workloads among their
//! endpoints, and on the namespaces and labels of this node's pods; on nothing else.
//! Invariant: where objects of several APIs or ages quarrel, one wins whatever the order of arrival, and an issue tells
//! the others.
//! Source: Gateway API "route precedence", GEP-1294; Istio `VirtualService`, `DestinationRule`.

mod admission;
mod attach;
mod edge;
mod index;
mod listeners;
mod live;
mod policy;
mod reads;
mod standing;
mod streams;
mod table;
mod upstream;

use super::Settings;
use crate::model::http::{AppProtocol, RuleList};
use crate::model::{ExternalService, Issue, Labels, Name, ObjectRef, Service, ServicePort, Text, Workload};
use crate::share::AddressMap;
use crate::snapshot::http::{Endpoints, HttpPort, PerPod, StreamPort, Upstream};
use crate::snapshot::{LocalPod, PodKey, ServiceName, WorkloadEntry};
use crate::translate::Translator;
use crate::world::World;
pub(super) use index::Indexes;
pub(super) use live::Live;
use reads::Reads;
pub use standing::Standings;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
pub(super) use upstream::Place;

/// Pods of this node for which the same holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) namespace: String,
    pub(super) labels: Labels,
    pub(super) pods: Vec<PodKey>,
    /// The gateways through which it enters; none for pods.
    pub(super) gateways: Vec<Name>,
}

/// Nobody in particular: what holds for everyone holds for it.
static ANYONE: Client =
    Client { namespace: String::new(), labels: Labels::new(), pods: Vec::new(), gateways: Vec::new() };

/// The pods of this node by namespace and labels.
pub(super) fn clients(
    pods: &BTreeMap<PodKey, Arc<LocalPod>>,
    workloads: &BTreeMap<Name, Arc<Workload>>,
) -> Vec<Client> {
    let mut clients: BTreeMap<(&str, &Labels), Vec<PodKey>> = BTreeMap::new();
    for pod in pods.values() {
        let Some(workload) = workloads.get(&pod.name) else { continue };
        clients.entry((&pod.name.namespace, &workload.labels)).or_default().push(Arc::clone(&pod.key));
    }
    let client = |((namespace, labels), pods): ((&str, &Labels), _)| Client {
        namespace: namespace.to_owned(),
        labels: labels.clone(),
        pods,
        gateways: Vec::new(),
    };
    clients.into_iter().map(client).collect()
}

/// What becomes of traffic to one port. The default is that it goes to the port's endpoints.
#[derive(Clone, Default)]
pub(super) struct PortTraffic {
    pub(super) upstream: Option<Arc<Upstream>>,
    pub(super) upstream_by_pod: Box<[(PodKey, Option<Arc<Upstream>>)]>,
    pub(super) routes: Option<Arc<HttpPort>>,
    pub(super) streams: Option<Arc<StreamPort>>,
}

impl PortTraffic {
    /// What the port speaks if it declares this: where there are routes for requests and for nothing else, a client that speaks late
    /// is waited for.
    pub(super) fn protocol(&self, declared: AppProtocol) -> AppProtocol {
        let is_awaited = declared == AppProtocol::Undeclared && self.routes.is_some() && self.streams.is_none();
        if is_awaited { AppProtocol::Http } else { declared }
    }

    /// Does a traffic policy leave nothing to go to?
    pub(super) fn is_closed(&self) -> bool {
        let endpoints = self.upstream.as_ref().map(|upstream| &upstream.endpoints);
        matches!(endpoints, Some(Endpoints::Static(endpoints)) if endpoints.is_empty())
    }
}

/// A port of a service or an external host, as routes attach to it.
#[derive(Clone, Copy)]
pub(super) struct Port<'p> {
    /// The service of the cluster, if it is one.
    pub(super) service: Option<&'p Name>,
    pub(super) name: &'p Arc<ServiceName>,
    pub(super) port: u16,
    pub(super) port_name: &'p str,
    pub(super) protocol: AppProtocol,
}

/// A list of rules that some port takes, of this object.
pub(super) type Taken = (ObjectRef, RuleList);

/// Upstreams by key, with what each depends on.
type Upstreams = HashMap<Arc<str>, (Arc<Upstream>, Reads)>;

/// What is looked up while ports are compiled. Who does so can ask what was looked up, and so what the result depends on.
pub(super) struct Traffic<'m> {
    world: &'m World,
    translator: &'m Translator,
    settings: &'m Settings,
    indexes: &'m Indexes,
    clients: &'m [Client],
    /// The zone that this node is in, if any endpoint tells.
    zone: Option<&'m str>,
    workloads: AddressMap<IpAddr, Arc<WorkloadEntry>>,
    /// Upstreams as they were compiled before.
    known: &'m HashMap<Arc<str>, Arc<Upstream>>,
    /// Upstreams as they are, with what each depends on.
    upstreams: RefCell<Upstreams>,
    services: RefCell<HashMap<Name, Option<Arc<Service>>>>,
    reads: RefCell<Reads>,
    /// What some port takes.
    taken: RefCell<BTreeSet<Taken>>,
}

impl<'m> Traffic<'m> {
    /// What was looked up since this was asked last, and which routes were taken.
    fn take(&self) -> (Reads, BTreeSet<Taken>) {
        (self.reads.take(), self.taken.take())
    }

    /// The upstreams that were compiled.
    fn into_upstreams(self) -> impl Iterator<Item = (Arc<str>, Arc<Upstream>)> {
        self.upstreams.into_inner().into_iter().map(|(key, (upstream, _))| (key, upstream))
    }

    /// Every external service.
    pub(super) fn external_services(&self) -> impl Iterator<Item = &'m Arc<ExternalService>> + use<'m> {
        self.translator.customs.external_services.values()
    }

    /// The service of this name. What is wrong with it was told when it was learnt.
    pub(super) fn service(&self, name: &Name) -> Option<Arc<Service>> {
        self.reads.borrow_mut().services.insert(name.clone());
        if let Some(known) = self.services.borrow().get(name) {
            return known.clone();
        }
        let service = self.translator.read_service(self.world, name).0.map(Arc::new);
        self.services.borrow_mut().insert(name.clone(), service.clone());
        service
    }

    /// The labels of the pod that has an address.
    fn labels(&self, address: IpAddr) -> Option<Arc<Labels>> {
        self.reads.borrow_mut().addresses.insert(address);
        let name = self.translator.pod_at(&address).filter(|_| self.workloads.contains_key(&address))?;
        Some(self.world.pod(name)?.metadata.labels)
    }

    /// The primary addresses of the pods of a namespace that have these labels.
    fn pods(&self, namespace: &Text, labels: &Labels) -> Vec<IpAddr> {
        self.reads.borrow_mut().namespaces.insert(namespace.clone());
        let names = self.world.pods_in(namespace);
        let workloads = names.filter_map(|name| self.translator.read_workload(self.world, name).0);
        let found = workloads.filter(|workload| upstream::has_all(&workload.labels, labels));
        found.filter_map(|workload| workload.addresses.first().copied()).collect()
    }

    /// What becomes of traffic to a port of a service.
    pub(super) fn port(
        &self,
        service: &Arc<Service>,
        name: &Arc<ServiceName>,
        port: &ServicePort,
        issues: &mut Vec<Issue>,
    ) -> PortTraffic {
        let port = Port {
            service: Some(&service.name),
            name,
            port: port.port,
            port_name: &port.name,
            protocol: port.protocol,
        };
        self.traffic(port, &Place::Service(Arc::clone(service)), issues)
    }

    /// What becomes of traffic to a port.
    pub(super) fn traffic(&self, port: Port<'_>, place: &Place, issues: &mut Vec<Issue>) -> PortTraffic {
        let upstream = |client: &Client| self.own_upstream(port, place, client);
        let default = upstream(&ANYONE);
        let mut upstream_by_pod = Vec::new();
        for client in self.clients {
            let own = upstream(client);
            if own != default {
                upstream_by_pod.extend(client.pods.iter().map(|pod| (Arc::clone(pod), own.clone())));
            }
        }
        upstream_by_pod.sort_by(|(a, _), (b, _)| a.cmp(b));
        let routes = self.routes(port, place, issues);
        let streams = self.streams(port, place, issues);
        PortTraffic { upstream: default, upstream_by_pod: upstream_by_pod.into(), routes, streams }
    }

    /// The routes of a port, for everyone and for pods to which others apply.
    fn routes(&self, port: Port<'_>, place: &Place, issues: &mut Vec<Issue>) -> Option<Arc<HttpPort>> {
        if !self.may_have_routes(port) {
            return None;
        }
        let default = self.attached(port, &ANYONE, issues);
        let own: Vec<_> = self.clients.iter().map(|client| (client, self.attached(port, client, issues))).collect();
        if default.is_empty() && own.iter().all(|(_, routes)| routes.is_empty()) {
            return None;
        }
        let table = self.table(port, Some(place), (&ANYONE, &default), issues);
        let own =
            own.into_iter().map(|(client, routes)| (client, self.table(port, Some(place), (client, &routes), issues)));
        Some(Arc::new(per_client(table, own.collect())))
    }
}

/// What holds for everyone and for some clients; clients for which the same holds share it.
fn per_client<T: PartialEq>(default: T, own: Vec<(&Client, T)>) -> PerPod<T> {
    let table = Arc::new(default);
    let mut tables = vec![Arc::clone(&table)];
    let mut by_pod = Vec::new();
    for (client, own) in own {
        let shared = tables.iter().find(|known| ***known == own).cloned().unwrap_or_else(|| {
            tables.push(Arc::new(own));
            Arc::clone(&tables[tables.len() - 1])
        });
        if !Arc::ptr_eq(&shared, &table) {
            by_pod.extend(client.pods.iter().map(|pod| (Arc::clone(pod), Arc::clone(&shared))));
        }
    }
    by_pod.sort_by(|(a, _), (b, _)| a.cmp(b));
    PerPod { table, by_pod: by_pod.into() }
}

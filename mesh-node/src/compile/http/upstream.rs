//! Where requests to a host, or to a subset of it, go.
//!
//! In:  services, external services, traffic policies.
//! Out: an [`Upstream`], or why there is none.
//! Invariant: one key, one upstream.
//! Source: Istio `DestinationRule`, `ServiceEntry`; Kubernetes `trafficDistribution`.

use super::{ANYONE, Client, Port, Traffic, index, policy};
use crate::model::http::{
    AppProtocol, Balance, LocalityPreference, Subset, TrafficPolicies, TrafficPolicy, UpstreamTls,
};
use crate::model::{
    EndpointAddress, ExternalEndpoint, ExternalPort, ExternalService, Labels, Resolution, Service, ServicePort,
    Visibility,
};
use crate::snapshot::ServiceName;
use crate::snapshot::http::{Endpoints, Upstream, UpstreamEndpoint};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a host is.
#[derive(Clone)]
pub(in crate::compile) enum Place {
    Service(Arc<Service>),
    External(Arc<ExternalService>),
}

/// What of a host is asked for.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) port: u16,
    pub(super) subset: Option<&'a str>,
}

impl Part<'_> {
    /// All that answers for a port.
    pub(super) fn whole(port: u16) -> Self {
        Self { port, subset: None }
    }
}

/// Why there is no upstream.
pub(super) enum Absent {
    Host,
    Port(u16),
    Subset(String),
}

impl Absent {
    /// What is wrong, and the cure. `host` is whatever was looked for.
    pub(super) fn say(&self, host: &str) -> (String, String) {
        match self {
            Self::Host => (format!("there is no {host}"), "create it, or correct the name".to_owned()),
            Self::Port(port) => (format!("{host} has no port {port}"), "name one of its ports".to_owned()),
            Self::Subset(subset) => {
                (format!("no DestinationRule for {host} has a subset {subset}"), "create one".to_owned())
            }
        }
    }
}

/// A port of a service.
///
/// **Errors**: it has none of this number.
pub(super) fn port_of(service: &Service, port: u16) -> Result<&ServicePort, Absent> {
    service.ports.iter().find(|of| of.port == port).ok_or(Absent::Port(port))
}

/// An endpoint before it is known how far it is.
struct Candidate<'a> {
    address: SocketAddr,
    node: Option<&'a str>,
    zone: Option<&'a str>,
    weight: u32,
    /// Has it the labels of the subset that is asked for?
    fits: bool,
}

impl<'m> Traffic<'m> {
    /// Where connections to the port itself go, if anything but the port's endpoints is said.
    pub(super) fn own_upstream(&self, port: Port<'_>, place: &Place, client: &Client) -> Option<Arc<Upstream>> {
        let policies = self.indexes.policies.find(&port.name.host, &port.name.namespace, &client.namespace);
        let says_nothing = policies.is_none_or(|policies| {
            !policies.closed && policy::effective(policies, port.port, None) == TrafficPolicy::default()
        });
        let is_plain = match place {
            Place::Service(service) => service.locality == LocalityPreference::None,
            Place::External(_) => false,
        };
        if says_nothing && is_plain {
            return None;
        }
        self.upstream(place, port.name, Part::whole(port.port), client).ok()
    }

    /// The host that pods of a namespace know by this name.
    pub(super) fn external(&self, host: &str, client: &Client) -> Option<&'m Arc<ExternalService>> {
        let wildcards = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
        let mut names = std::iter::once(host.to_owned()).chain(wildcards);
        names.find_map(|name| {
            let same = self.indexes.externals.get(&*name)?;
            same.iter().find(|external| external.clients.covers(&client.namespace))
        })
    }

    /// The upstream of a host's port, as a client uses it.
    pub(super) fn upstream(
        &self,
        place: &Place,
        name: &Arc<ServiceName>,
        Part { port, subset }: Part<'_>,
        client: &Client,
    ) -> Result<Arc<Upstream>, Absent> {
        let find = |client: &Client| self.indexes.policies.find(&name.host, &name.namespace, &client.namespace);
        let policies = find(client);
        let is_common = policies.map(|policies| &policies.object) == find(&ANYONE).map(|policies| &policies.object);
        let of_subset = match subset {
            None => None,
            Some(subset) => {
                let found = policies.and_then(|policies| policies.subsets.get(subset));
                Some(found.ok_or_else(|| Absent::Subset(subset.to_owned()))?)
            }
        };
        let subset_part = subset.map(|subset| format!("/{subset}")).unwrap_or_default();
        let client_part = if is_common { String::new() } else { format!("@{}", client.namespace) };
        let object_part = match place {
            Place::External(external)
                if external.clients != Visibility::Everyone
                    || index::service(&name.host, &self.settings.cluster_domain).is_some() =>
            {
                format!("@{}", external.object.name)
            }
            Place::External(_) | Place::Service(_) => String::new(),
        };
        let key: Arc<str> = format!("{}:{port}{subset_part}{object_part}{client_part}", name.host).into();
        if let Some((known, reads)) = self.upstreams.borrow().get(&key) {
            self.reads.borrow_mut().extend(reads);
            return Ok(Arc::clone(known));
        }
        let policy = policies.map(|policies| policy::effective(policies, port, subset)).unwrap_or_default();
        let closed = policies.is_some_and(|policies: &TrafficPolicies| policies.closed);
        let around = self.reads.take();
        let built = self.build(place, port, &policy, of_subset);
        let reads = self.reads.replace(around);
        self.reads.borrow_mut().extend(&reads);
        let built = built?;
        let endpoints = match &policy.balance {
            _ if closed => Endpoints::Static(Box::default()),
            Some(Balance::Passthrough) => Endpoints::Original,
            _ => built.endpoints,
        };
        let balance = match policy.balance {
            Some(Balance::Passthrough) if closed => Balance::LeastRequest,
            Some(balance) => balance,
            None => Balance::unless_said(built.client_affinity),
        };
        let upstream = Upstream {
            key: Arc::clone(&key),
            service: Arc::clone(name),
            port,
            protocol: if built.protocol.is_opaque() { AppProtocol::Http } else { built.protocol },
            endpoints,
            balance,
            limits: policy.limits.unwrap_or_default(),
            outliers: policy.outliers,
            tls: own_names(policy.tls.unwrap_or(UpstreamTls::Mesh), place),
        };
        let known = self.known.get(&key).filter(|known| ***known == upstream).cloned();
        let upstream = known.unwrap_or_else(|| Arc::new(upstream));
        self.upstreams.borrow_mut().insert(key, (Arc::clone(&upstream), reads));
        Ok(upstream)
    }

    fn build(
        &self,
        place: &Place,
        port: u16,
        policy: &TrafficPolicy,
        subset: Option<&Subset>,
    ) -> Result<Built, Absent> {
        match place {
            Place::Service(service) => {
                let of = port_of(service, port)?;
                let usable = of
                    .endpoints
                    .iter()
                    .filter(|endpoint| !service.local_only || endpoint.node.as_deref() == Some(&self.settings.node));
                let primary = service.addresses.first().map(IpAddr::is_ipv6);
                let has_primary = of.endpoints.iter().any(|endpoint| Some(endpoint.address.is_ipv6()) == primary);
                let candidates = usable
                    .filter(|endpoint| !has_primary || Some(endpoint.address.is_ipv6()) == primary)
                    .map(|endpoint| Candidate {
                        address: SocketAddr::new(endpoint.address, endpoint.port),
                        node: endpoint.node.as_deref(),
                        zone: endpoint.zone.as_deref(),
                        weight: 1,
                        fits: self.fits(endpoint.address, subset),
                    });
                let locality = policy.locality.unwrap_or(service.locality);
                let endpoints = Endpoints::Static(self.endpoints(candidates, locality));
                Ok(Built { endpoints, protocol: of.protocol, client_affinity: service.client_affinity })
            }
            Place::External(external) => {
                let of = external.ports.iter().find(|of| of.port == port).ok_or(Absent::Port(port))?;
                let locality = policy.locality.unwrap_or_default();
                let endpoints = self.external_endpoints(external, of, locality, subset);
                Ok(Built { endpoints, protocol: of.protocol, client_affinity: false })
            }
        }
    }

    fn external_endpoints(
        &self,
        external: &ExternalService,
        port: &ExternalPort,
        locality: LocalityPreference,
        subset: Option<&Subset>,
    ) -> Endpoints {
        if external.closed {
            return Endpoints::Static(Box::default());
        }
        let selected = external.selector.as_ref().map(|labels| self.selected(external, labels));
        let (entries, pods) = selected.unwrap_or_default();
        let listed: Vec<&ExternalEndpoint> = external.endpoints.iter().chain(entries).collect();
        let has_subset =
            |endpoint: &ExternalEndpoint| subset.is_none_or(|subset| has_all(&endpoint.labels, &subset.labels));
        match external.resolution {
            Resolution::Original => Endpoints::Original,
            Resolution::Dns => {
                let fitting = listed.iter().filter(|endpoint| has_subset(endpoint));
                let named = fitting.map(|endpoint| (text(&endpoint.address), target(endpoint, port)));
                let mut names: Vec<(String, u16)> = named.collect();
                if listed.is_empty() {
                    names = external.hosts.iter().map(|host| (host.to_string(), port.target)).collect();
                }
                names.sort();
                names.dedup();
                Endpoints::Dns(names.into())
            }
            Resolution::Static => {
                let candidates = listed.into_iter().filter_map(|endpoint| {
                    let EndpointAddress::Ip(address) = endpoint.address else { return None };
                    Some(Candidate {
                        address: SocketAddr::new(address, target(endpoint, port)),
                        node: None,
                        zone: endpoint.zone.as_deref(),
                        weight: endpoint.weight,
                        fits: has_subset(endpoint),
                    })
                });
                let pods = pods.into_iter().map(|address| Candidate {
                    address: SocketAddr::new(address, port.target),
                    node: None,
                    zone: None,
                    weight: 1,
                    fits: self.fits(address, subset),
                });
                Endpoints::Static(self.endpoints(candidates.chain(pods), locality))
            }
        }
    }

    /// The workload entries and the addresses of pods that have these labels, of the external service's namespace.
    fn selected(&self, external: &ExternalService, labels: &Labels) -> (Vec<&'m ExternalEndpoint>, Vec<IpAddr>) {
        let namespace = &external.object.name.namespace;
        let entries = self.translator.customs.workload_entries.values();
        let entries = entries
            .filter(|entry| {
                entry.name.namespace == *namespace && !entry.closed && has_all(&entry.endpoint.labels, labels)
            })
            .map(|entry| &entry.endpoint)
            .collect();
        (entries, self.pods(namespace, labels))
    }

    /// Has a pod at this address the labels of a subset?
    fn fits(&self, address: IpAddr, subset: Option<&Subset>) -> bool {
        let Some(wanted) = subset.map(|subset| &subset.labels).filter(|labels| !labels.is_empty()) else { return true };
        self.labels(address).is_some_and(|labels| has_all(&labels, wanted))
    }

    fn endpoints<'c>(
        &self,
        candidates: impl Iterator<Item = Candidate<'c>>,
        locality: LocalityPreference,
    ) -> Box<[UpstreamEndpoint]> {
        let mut found: BTreeMap<SocketAddr, UpstreamEndpoint> = BTreeMap::new();
        for candidate in candidates.filter(|candidate| candidate.fits) {
            let is_here = candidate.node == Some(&self.settings.node);
            let in_zone = is_here || (self.zone.is_some() && candidate.zone == self.zone);
            let distance = match locality {
                LocalityPreference::None => 0,
                LocalityPreference::SameZone => u8::from(!in_zone),
                LocalityPreference::SameNode => u8::from(!is_here) + u8::from(!in_zone),
            };
            let endpoint = UpstreamEndpoint { address: candidate.address, weight: candidate.weight, distance };
            found.entry(candidate.address).or_insert(endpoint);
        }
        found.into_values().collect()
    }
}

struct Built {
    endpoints: Endpoints,
    protocol: AppProtocol,
    client_affinity: bool,
}

pub(super) fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn target(endpoint: &ExternalEndpoint, port: &ExternalPort) -> u16 {
    endpoint.ports.get(&port.name).copied().unwrap_or(port.target)
}

fn text(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Ip(address) => address.to_string(),
        EndpointAddress::Name(name) => name.clone(),
    }
}

/// Where TLS is originated without saying which names prove the server, the external service may say it.
fn own_names(tls: UpstreamTls, place: &Place) -> UpstreamTls {
    match (tls, place) {
        (UpstreamTls::Originate(mut tls), Place::External(external)) if tls.names.is_empty() => {
            tls.names.clone_from(&external.names);
            UpstreamTls::Originate(tls)
        }
        (tls, _) => tls,
    }
}

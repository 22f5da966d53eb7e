//! Services and their endpoint slices become services with endpoints.
//!
//! In:  a service, its endpoint slices, and who else claims its addresses.
//! Out: the `Service`, unless it is an `ExternalName`, which has no endpoints of its own.
//! Invariant: an address belongs to one service, the oldest that claims it.
//! Source: Kubernetes `core/v1.Service`, `discovery.k8s.io/v1.EndpointSlice`; kube-proxy, which falls back to
//! terminating endpoints for each address family, and for each node where only the node's own are used.

use super::{address, protocol};
use crate::api;
use crate::api::discovery::{EndpointSlice, SERVICE_NAME_LABEL};
use crate::model::http::LocalityPreference;
use crate::model::{Endpoint, Issue, Name, ObjectRef, Service, ServicePort, Text};
use crate::share::Claims;
use crate::world::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What decides between services that claim one address: the least wins, which is the oldest.
pub(in crate::translate) type Seniority = (Text, Name);

/// A slice whose addresses are understood.
pub(in crate::translate) struct Slice<'a> {
    ports: &'a [api::discovery::EndpointPort],
    endpoints: Vec<(IpAddr, &'a api::discovery::Endpoint)>,
}

/// The service, with the endpoints behind it; `None` if it is only another name.
pub(in crate::translate) fn service(
    name: &Name,
    object: &api::core::Service,
    slices: &[Slice<'_>],
    claims: &Claims<IpAddr, Seniority>,
    issues: &mut Vec<Issue>,
) -> Option<Service> {
    if is_external_name(object) {
        return None;
    }
    let mut reader = Reader { object: ObjectRef::new(Kind::Service.name(), name.clone()), issues };
    let local_only = reader.local_only(&object.spec);
    let client_affinity = reader.client_affinity(&object.spec);
    let addresses = reader.addresses(object, claims);
    let ports = reader.ports(&object.spec, slices, local_only);
    let locality = reader.locality(&object.spec);
    Some(Service { name: name.clone(), addresses, ports, client_affinity, local_only, locality })
}

/// What decides whether this service has an address that others claim too.
pub(in crate::translate) fn seniority(name: &Name, object: &api::core::Service) -> Seniority {
    (object.metadata.creation_timestamp.clone(), name.clone())
}

/// The addresses that the service claims, whoever has them in the end.
pub(in crate::translate) fn claims(name: &Name, object: &api::core::Service) -> BTreeSet<IpAddr> {
    if is_external_name(object) {
        return BTreeSet::new();
    }
    // What is wrong with them is told of the service.
    let mut reader = Reader { object: ObjectRef::new(Kind::Service.name(), name.clone()), issues: &mut Vec::new() };
    reader.claimed(object).into_iter().map(|(_, address)| address).collect()
}

fn is_external_name(service: &api::core::Service) -> bool {
    service.spec.kind == "ExternalName"
}

/// The service that a slice belongs to. A slice without the label serves something other than services.
pub(in crate::translate) fn service_of(name: &Name, slice: &EndpointSlice) -> Option<Name> {
    let service = slice.metadata.labels.get(SERVICE_NAME_LABEL)?;
    Some(Name::new(name.namespace.clone(), service.as_str()))
}

/// That a slice belongs to no service.
pub(in crate::translate) fn orphan(name: &Name, service: &Name) -> Issue {
    Issue::new(
        &ObjectRef::new(Kind::EndpointSlice.name(), name.clone()),
        format!("metadata.labels[{SERVICE_NAME_LABEL}]"),
        format!("there is no Service {service}; its endpoints answer for nothing"),
        "create the service or correct the label",
    )
}

/// The slice, understood; `None` if it lists no addresses.
pub(in crate::translate) fn slice<'a>(
    name: &Name,
    slice: &'a EndpointSlice,
    issues: &mut Vec<Issue>,
) -> Option<Slice<'a>> {
    let object = ObjectRef::new(Kind::EndpointSlice.name(), name.clone());
    let is_ipv6 = match slice.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        other => {
            issues.push(Issue::new(
                &object,
                "addressType",
                format!("`{other}` is not supported; its endpoints are not used"),
                "use IPv4 or IPv6",
            ));
            return None;
        }
    };
    Some(Slice { ports: &slice.ports, endpoints: usable_endpoints(slice, is_ipv6, &object, issues) })
}

/// The endpoints whose first address, the one that clients use, is of the slice's type.
fn usable_endpoints<'a>(
    slice: &'a EndpointSlice,
    is_ipv6: bool,
    object: &ObjectRef,
    issues: &mut Vec<Issue>,
) -> Vec<(IpAddr, &'a api::discovery::Endpoint)> {
    const FIELD: &str = "endpoints.addresses";
    let mut usable = Vec::with_capacity(slice.endpoints.len());
    for endpoint in &slice.endpoints {
        let Some(text) = endpoint.addresses.first() else { continue };
        let Some(address) = address(text, object, FIELD, issues) else { continue };
        if address.is_ipv6() == is_ipv6 {
            usable.push((address, endpoint));
        } else {
            let problem = format!("`{text}` is not of the slice's type, {}; it is not used", slice.address_type);
            issues.push(Issue::new(object, FIELD, problem, "put it into a slice of its own type"));
        }
    }
    usable
}

/// Reads one service; what it cannot take as written becomes an issue.
struct Reader<'a> {
    object: ObjectRef,
    issues: &'a mut Vec<Issue>,
}

impl Reader<'_> {
    fn report(&mut self, field: &str, problem: String, cure: &str) {
        self.issues.push(Issue::new(&self.object, field, problem, cure));
    }

    fn local_only(&mut self, spec: &api::core::ServiceSpec) -> bool {
        match spec.internal_traffic_policy.as_str() {
            "" | "Cluster" => false,
            "Local" => true,
            other => {
                let problem = format!("`{other}` is no policy; only endpoints on the client's node are used");
                self.report("spec.internalTrafficPolicy", problem, "use `Cluster` or `Local`");
                true
            }
        }
    }

    fn client_affinity(&mut self, spec: &api::core::ServiceSpec) -> bool {
        match spec.session_affinity.as_str() {
            "" | "None" => false,
            "ClientIP" => true,
            other => {
                let problem = format!("`{other}` is no affinity; one client keeps to one endpoint");
                self.report("spec.sessionAffinity", problem, "use `None` or `ClientIP`");
                true
            }
        }
    }

    fn locality(&mut self, spec: &api::core::ServiceSpec) -> LocalityPreference {
        match spec.traffic_distribution.as_str() {
            "" => LocalityPreference::None,
            "PreferSameZone" | "PreferClose" => LocalityPreference::SameZone,
            "PreferSameNode" => LocalityPreference::SameNode,
            other => {
                let problem = format!("`{other}` is no preference; all endpoints are alike");
                self.report("spec.trafficDistribution", problem, "use PreferSameZone or PreferSameNode");
                LocalityPreference::None
            }
        }
    }

    /// The addresses that clients dial, primary first; those that an older service has are left to it.
    fn addresses(&mut self, service: &api::core::Service, claims: &Claims<IpAddr, Seniority>) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for (field, address) in self.claimed(service) {
            let owner = claims.firsts().get(&address).map(|(_, name)| name);
            if let Some(owner) = owner.filter(|owner| **owner != self.object.name) {
                let problem = format!("{address} belongs to Service {owner}, which is older and keeps it");
                self.report(field, problem, "give each service an address of its own");
            } else if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// The addresses that the service gives as its own, primary first, each with its field.
    fn claimed(&mut self, service: &api::core::Service) -> Vec<(&'static str, IpAddr)> {
        let spec = &service.spec;
        let cluster_ips = if spec.cluster_ips.is_empty() {
            ("spec.clusterIP", std::slice::from_ref(&spec.cluster_ip))
        } else {
            ("spec.clusterIPs", spec.cluster_ips.as_slice())
        };
        // A balancer in proxy mode does something to the traffic and must see it.
        let ingress = service.status.load_balancer.ingress.iter().filter(|ingress| ingress.ip_mode != "Proxy");
        let ingress: Vec<String> = ingress.map(|ingress| ingress.ip.clone()).collect();
        let lists = [cluster_ips, ("spec.externalIPs", &spec.external_ips), ("status.loadBalancer.ingress", &ingress)];
        let mut claimed = Vec::new();
        for (field, texts) in lists {
            for text in texts.iter().filter(|text| !matches!(text.as_str(), "" | "None")) {
                claimed.extend(address(text, &self.object, field, self.issues).map(|address| (field, address)));
            }
        }
        claimed
    }

    /// The TCP ports; others are no business of the mesh.
    fn ports(&mut self, spec: &api::core::ServiceSpec, slices: &[Slice<'_>], local_only: bool) -> Vec<ServicePort> {
        let mut ports: BTreeMap<u16, ServicePort> = BTreeMap::new();
        for port in &spec.ports {
            match port.protocol.as_str() {
                "" | "TCP" => {}
                "UDP" | "SCTP" => continue,
                other => {
                    let problem = format!("`{other}` is no protocol; the port {} is refused", port.port);
                    self.report("spec.ports.protocol", problem, "use TCP, UDP or SCTP");
                    continue;
                }
            }
            if let Some(first) = ports.get(&port.port) {
                let problem = format!("port {} is listed twice; `{}`, the first, is used", port.port, first.name);
                self.report("spec.ports.port", problem, "remove one");
                continue;
            }
            let endpoints = endpoints(slices, &port.name, local_only);
            let protocol = protocol::of_port(&port.app_protocol, &port.name);
            ports.insert(port.port, ServicePort { name: port.name.clone(), port: port.port, protocol, endpoints });
        }
        ports.into_values().collect()
    }
}

/// What is known of one endpoint, which several slices may list while it moves from one to another.
#[derive(Default)]
struct State {
    node: Option<String>,
    zone: Option<String>,
    ready: bool,
    leaving_but_serving: bool,
}

/// The endpoints that take traffic for a port of this name.
fn endpoints(slices: &[Slice<'_>], port_name: &str, local_only: bool) -> Vec<Endpoint> {
    let mut states: BTreeMap<(IpAddr, u16), State> = BTreeMap::new();
    for slice in slices {
        let ports =
            slice.ports.iter().filter(|port| matches!(port.protocol.as_str(), "" | "TCP") && port.name == port_name);
        for port in ports.filter_map(|port| port.port.filter(|&port| port != 0)) {
            for &(address, endpoint) in &slice.endpoints {
                let state = states.entry((address, port)).or_default();
                let conditions = endpoint.conditions;
                let ready = conditions.ready.unwrap_or(true);
                let serving = conditions.serving.unwrap_or(ready);
                state.ready |= ready;
                state.leaving_but_serving |= serving && conditions.terminating.unwrap_or(false);
                state.node = std::mem::take(&mut state.node).max(endpoint.node_name.clone());
                state.zone = std::mem::take(&mut state.zone).max(endpoint.zone.clone());
            }
        }
    }
    // Where one of these has a ready endpoint, terminating ones are not used.
    let group = |address: &IpAddr, state: &State| (address.is_ipv6(), state.node.clone().filter(|_| local_only));
    let ready: BTreeSet<_> =
        states.iter().filter(|(_, state)| state.ready).map(|((address, _), state)| group(address, state)).collect();
    states
        .into_iter()
        .filter(|((address, _), state)| {
            state.ready || (state.leaving_but_serving && !ready.contains(&group(address, state)))
        })
        .map(|((address, port), state)| Endpoint { address, port, node: state.node, zone: state.zone })
        .collect()
}

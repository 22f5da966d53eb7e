//! Pods, services and endpoint slices in little room, since a cluster has many.
//!
//! In:  objects as `api` has them.
//! Out: the same objects as long as somebody looks at them; [`PackedPod`], [`PackedService`] and [`PackedSlice`] while nobody
//!      does.
//! Invariant: what is unpacked equals what was packed, field by field; equal objects are equal packed.
//! **Shape**: what pods of one template have in common is held once, as is what services have, and places, names of nodes and
//! namespaces; addresses are numbers where their text is the usual one.

use crate::api::announcement::ANNOUNCEMENT;
use crate::api::core::{Container, Pod, PodIp, PodSpec, PodStatus, Service, ServiceSpec, ServiceStatus};
use crate::api::discovery::{Conditions, Endpoint, EndpointPort, EndpointSlice};
use crate::api::meta::{ObjectMeta, OwnerReference};
use crate::model::{Labels, Name, Text};
use crate::share::Interner;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Where what objects have in common is held.
#[derive(Clone, Debug, Default)]
pub(super) struct Packer {
    texts: Interner<Text>,
    templates: Interner<Arc<Template>>,
    containers: Interner<Arc<[Container]>>,
    shapes: Interner<Arc<Shape>>,
    ports: Interner<Arc<[EndpointPort]>>,
    places: Interner<Arc<Place>>,
}

/// What they share is no part of what is known.
impl PartialEq for Packer {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Packer {}

/// A pod in little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedPod {
    template: Arc<Template>,
    node: Option<Text>,
    own: Own,
}

/// What pods of one template have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Template {
    labels: PackedLabels,
    owner_references: Box<[OwnerReference]>,
    /// What their nodes announce of them.
    announcement: Option<Text>,
    service_account_name: Text,
    host_network: bool,
    /// Of pods elsewhere only their named ports are left, which are the same for many templates.
    containers: Arc<[Container]>,
    init_containers: Arc<[Container]>,
    phase: Text,
    /// Addresses of the status that [`Addresses`] does not hold.
    odd_addresses: Option<Box<(String, Vec<PodIp>)>>,
}

/// A service in little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedService {
    shape: Arc<Shape>,
    /// One word wide; nothing without labels.
    selector: Option<Box<PackedLabels>>,
    creation_timestamp: Text,
    /// With its cluster IPs.
    own: Own,
}

/// What services have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    labels: PackedLabels,
    /// Without the addresses that [`Addresses`] holds, and without the selector, which each service has for itself.
    spec: ServiceSpec,
    status: ServiceStatus,
}

/// What an object alone has: mostly nothing but an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Own {
    Addresses(Addresses),
    More(Box<(Addresses, Rest)>),
}

/// Ordered by key.
type PackedLabels = Box<[(Text, Text)]>;

/// A primary address and all of them, of which it is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Addresses {
    /// None, or such as are not written as usual or not in this order.
    None,
    V4(Ipv4Addr),
    Other(Box<Others>),
}

/// One of IPv6, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Others(Box<[IpAddr]>);

/// What objects have that was not left out of them where they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rest {
    uid: String,
    creation_timestamp: Text,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<OwnerReference>,
}

/// An endpoint slice in little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedSlice {
    labels: PackedLabels,
    address_type: Text,
    ports: Arc<[EndpointPort]>,
    endpoints: PackedEndpoints,
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PackedEndpoints {
    /// Each has one address, and that of IPv4.
    V4(Box<[PackedEndpoint<Ipv4Addr>]>),
    Any(Box<[PackedEndpoint<Texts>]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PackedEndpoint<A> {
    address: A,
    place: Option<Arc<Place>>,
    conditions: Conditions,
}

/// Where endpoints are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    node: Option<String>,
    zone: Option<String>,
}

/// Texts that are mostly one address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Texts {
    One(IpAddr),
    Odd(Box<[String]>),
}

/// The address that `text` is, if that is how addresses are written.
fn usual(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|address: &IpAddr| address.to_string() == text)
}

impl Packer {
    /// The name, its namespace shared with others.
    fn name(&mut self, metadata: &mut ObjectMeta) -> Name {
        let namespace = self.texts.share(metadata.namespace.clone());
        Name::new(namespace, metadata.name.clone())
    }

    fn labels(&mut self, labels: &Labels) -> PackedLabels {
        let texts = &mut self.texts;
        labels.iter().map(|(key, value)| (texts.share(key.as_str()), texts.share(value.as_str()))).collect()
    }

    fn place(&mut self, node: Option<String>, zone: Option<String>) -> Option<Arc<Place>> {
        let place = Place { node, zone };
        (place != Place::default()).then(|| self.places.share(place))
    }

    pub(super) fn pod(&mut self, pod: Pod) -> (Name, PackedPod) {
        let Pod { mut metadata, spec, mut status } = pod;
        let name = self.name(&mut metadata);
        let all: Vec<_> = status.pod_ips.iter().map(|entry| entry.ip.as_str()).collect();
        let addresses = Addresses::of(&status.pod_ip, &all);
        if addresses != Addresses::None {
            (status.pod_ip, status.pod_ips) = Default::default();
        }
        let odd_addresses = (status.pod_ip, status.pod_ips);
        let template = Template {
            labels: self.labels(&metadata.labels),
            owner_references: std::mem::take(&mut metadata.owner_references).into(),
            announcement: metadata.annotations.remove(ANNOUNCEMENT).map(|text| self.texts.share(text)),
            service_account_name: self.texts.share(spec.service_account_name),
            host_network: spec.host_network,
            containers: self.containers.share(spec.containers),
            init_containers: self.containers.share(spec.init_containers),
            phase: self.texts.share(status.phase),
            odd_addresses: (odd_addresses != Default::default()).then(|| Box::new(odd_addresses)),
        };
        let packed = PackedPod {
            template: self.templates.share(template),
            node: spec.node_name.map(|node| self.texts.share(node)),
            own: Own::of(addresses, metadata),
        };
        (name, packed)
    }

    pub(super) fn service(&mut self, service: Service) -> (Name, PackedService) {
        let Service { mut metadata, mut spec, status } = service;
        let name = self.name(&mut metadata);
        let all: Vec<_> = spec.cluster_ips.iter().map(String::as_str).collect();
        let cluster_ips = Addresses::of(&spec.cluster_ip, &all);
        if cluster_ips != Addresses::None {
            (spec.cluster_ip, spec.cluster_ips) = Default::default();
        }
        let selector = std::mem::take(&mut spec.selector);
        let selector = (!selector.is_empty()).then(|| Box::new(self.labels(&selector)));
        let shape = Shape { labels: self.labels(&metadata.labels), spec, status };
        let packed = PackedService {
            shape: self.shapes.share(shape),
            selector,
            creation_timestamp: self.texts.share(std::mem::take(&mut metadata.creation_timestamp)),
            own: Own::of(cluster_ips, metadata),
        };
        (name, packed)
    }

    pub(super) fn slice(&mut self, slice: EndpointSlice) -> (Name, PackedSlice) {
        let EndpointSlice { mut metadata, address_type, ports, endpoints } = slice;
        let name = self.name(&mut metadata);
        let packed = PackedSlice {
            labels: self.labels(&metadata.labels),
            address_type: self.texts.share(address_type),
            ports: self.ports.share(ports),
            endpoints: self.endpoints(endpoints),
            rest: Rest::of(metadata),
        };
        (name, packed)
    }

    fn endpoints(&mut self, endpoints: Vec<Endpoint>) -> PackedEndpoints {
        let address = |endpoint: &Endpoint| match endpoint.addresses.as_slice() {
            [address] => usual(address),
            _ => None,
        };
        let v4 = |endpoint: &Endpoint| match address(endpoint) {
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(_)) | None => None,
        };
        let all_v4: Option<Vec<Ipv4Addr>> = endpoints.iter().map(v4).collect();
        if let Some(addresses) = all_v4 {
            let each = addresses.into_iter().zip(endpoints);
            return PackedEndpoints::V4(each.map(|(address, endpoint)| self.endpoint(address, endpoint)).collect());
        }
        let each = endpoints.into_iter().map(|mut endpoint| {
            let one = address(&endpoint).map(Texts::One);
            let address = one.unwrap_or_else(|| Texts::Odd(std::mem::take(&mut endpoint.addresses).into()));
            self.endpoint(address, endpoint)
        });
        PackedEndpoints::Any(each.collect())
    }

    fn endpoint<A>(&mut self, address: A, endpoint: Endpoint) -> PackedEndpoint<A> {
        let place = self.place(endpoint.node_name, endpoint.zone);
        PackedEndpoint { address, place, conditions: endpoint.conditions }
    }
}

impl PackedPod {
    pub(super) fn unpack(&self, name: &Name) -> Pod {
        let template = &*self.template;
        let (addresses, rest) = self.own.parts();
        let mut metadata = Rest::metadata(rest, name, &template.labels);
        metadata.owner_references = template.owner_references.to_vec();
        let announcement = template.announcement.as_ref().map(|text| (ANNOUNCEMENT.to_owned(), text.to_string()));
        metadata.annotations.extend(announcement);
        let odd = template.odd_addresses.as_deref();
        let (pod_ip, pod_ips) = addresses.texts().map_or_else(
            || odd.cloned().unwrap_or_default(),
            |(primary, all)| (primary, all.into_iter().map(|ip| PodIp { ip }).collect()),
        );
        Pod {
            metadata,
            spec: PodSpec {
                node_name: self.node.as_ref().map(Text::to_string),
                service_account_name: template.service_account_name.to_string(),
                host_network: template.host_network,
                containers: template.containers.to_vec(),
                init_containers: template.init_containers.to_vec(),
            },
            status: PodStatus { phase: template.phase.to_string(), pod_ip, pod_ips },
        }
    }
}

impl PackedService {
    pub(super) fn unpack(&self, name: &Name) -> Service {
        let Shape { labels, spec, status } = &*self.shape;
        let (cluster_ips, rest) = self.own.parts();
        let mut metadata = Rest::metadata(rest, name, labels);
        metadata.creation_timestamp = self.creation_timestamp.clone();
        let (mut spec, status) = (spec.clone(), status.clone());
        if let Some(addresses) = cluster_ips.texts() {
            (spec.cluster_ip, spec.cluster_ips) = addresses;
        }
        let selector = self.selector.iter().flat_map(|labels| labels.iter());
        spec.selector = selector.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Service { metadata, spec, status }
    }
}

impl PackedSlice {
    pub(super) fn unpack(&self, name: &Name) -> EndpointSlice {
        let endpoints = match &self.endpoints {
            PackedEndpoints::V4(each) => {
                each.iter().map(|endpoint| endpoint.unpack(vec![endpoint.address.to_string()])).collect()
            }
            PackedEndpoints::Any(each) => {
                each.iter().map(|endpoint| endpoint.unpack(endpoint.address.texts())).collect()
            }
        };
        EndpointSlice {
            metadata: Rest::metadata(self.rest.as_deref(), name, &self.labels),
            address_type: self.address_type.to_string(),
            ports: self.ports.to_vec(),
            endpoints,
        }
    }
}

impl<A> PackedEndpoint<A> {
    fn unpack(&self, addresses: Vec<String>) -> Endpoint {
        Endpoint {
            addresses,
            conditions: self.conditions,
            node_name: self.place.as_ref().and_then(|place| place.node.clone()),
            zone: self.place.as_ref().and_then(|place| place.zone.clone()),
        }
    }
}

impl Texts {
    fn texts(&self) -> Vec<String> {
        match self {
            Self::One(address) => vec![address.to_string()],
            Self::Odd(texts) => texts.to_vec(),
        }
    }
}

impl Addresses {
    fn of(primary: &str, all: &[&str]) -> Self {
        let usual: Option<Box<[IpAddr]>> = all.iter().map(|text| usual(text)).collect();
        match usual.as_deref() {
            Some([IpAddr::V4(only)]) if all == [primary] => Self::V4(*only),
            Some([_, ..]) if all.first() == Some(&primary) => Self::Other(Box::new(Others(usual.unwrap_or_default()))),
            Some(_) | None => Self::None,
        }
    }

    /// The primary one and all; `None` if it holds none.
    fn texts(&self) -> Option<(String, Vec<String>)> {
        let all: Vec<String> = match self {
            Self::None => return None,
            Self::V4(address) => vec![address.to_string()],
            Self::Other(addresses) => addresses.0.iter().map(IpAddr::to_string).collect(),
        };
        Some((all.first().cloned().unwrap_or_default(), all))
    }
}

impl Own {
    /// Its addresses, and what of `metadata` is neither name nor labels.
    fn of(addresses: Addresses, metadata: ObjectMeta) -> Self {
        match Rest::of(metadata) {
            None => Self::Addresses(addresses),
            Some(rest) => Self::More(Box::new((addresses, *rest))),
        }
    }

    fn parts(&self) -> (&Addresses, Option<&Rest>) {
        match self {
            Self::Addresses(addresses) => (addresses, None),
            Self::More(more) => (&more.0, Some(&more.1)),
        }
    }
}

impl Rest {
    /// What of `metadata` is neither name nor labels; `None` if there is nothing.
    fn of(metadata: ObjectMeta) -> Option<Box<Self>> {
        let ObjectMeta { name: _, namespace: _, uid, creation_timestamp, labels: _, annotations, owner_references } =
            metadata;
        let rest = Self { uid, creation_timestamp, annotations, owner_references };
        (rest != Self::default()).then(|| Box::new(rest))
    }

    fn metadata(rest: Option<&Self>, name: &Name, labels: &PackedLabels) -> ObjectMeta {
        let rest = rest.cloned().unwrap_or_default();
        let labels: Labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        ObjectMeta {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            uid: rest.uid,
            creation_timestamp: rest.creation_timestamp,
            labels: labels.into(),
            annotations: rest.annotations,
            owner_references: rest.owner_references,
        }
    }
}

//! Pods and endpoint slices in little room, since a cluster has many.
//!
//! In:  objects as `api` has them.
//! Out: the same objects as long as somebody looks at them, [`PackedPod`] and [`PackedSlice`] while nobody does.
//! Invariant: what is unpacked equals what was packed, field by field; equal objects are equal packed.
//! **Shape**: what pods of one template have in common is held once, as are places and names of nodes and namespaces; addresses are
//! numbers where their text is the usual one.

use crate::api::core::{Container, Pod, PodIp, PodSpec, PodStatus};
use crate::api::discovery::{Conditions, Endpoint, EndpointPort, EndpointSlice};
use crate::api::meta::{ObjectMeta, OwnerReference};
use crate::model::{Labels, Name};
use crate::share::Interner;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Where what objects have in common is held.
#[derive(Clone, Debug, Default)]
pub(super) struct Packer {
    texts: Interner<str>,
    templates: Interner<Template>,
    ports: Interner<[EndpointPort]>,
    places: Interner<Place>,
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
    node: Option<Arc<str>>,
    addresses: Addresses,
    rest: Option<Box<Rest>>,
}

/// What pods of one template have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Template {
    labels: PackedLabels,
    owner_references: Box<[OwnerReference]>,
    service_account_name: Box<str>,
    host_network: bool,
    containers: Box<[Container]>,
    init_containers: Box<[Container]>,
    phase: Box<str>,
}

/// Ordered by key.
type PackedLabels = Box<[(Arc<str>, Arc<str>)]>;

/// The addresses of a pod's status.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Addresses {
    None,
    /// The primary one is the only one.
    One(IpAddr),
    /// The primary one is the first.
    Several(Box<[IpAddr]>),
    /// Neither, or texts that are not written as usual.
    Odd(Box<(String, Vec<PodIp>)>),
}

/// What objects have that was not left out of them where they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rest {
    uid: String,
    creation_timestamp: String,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<OwnerReference>,
}

/// An endpoint slice in little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackedSlice {
    labels: PackedLabels,
    address_type: Arc<str>,
    ports: Arc<[EndpointPort]>,
    endpoints: Box<[PackedEndpoint]>,
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PackedEndpoint {
    address: Texts,
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
        let namespace = self.texts.share(Arc::clone(&metadata.namespace));
        Name::new(namespace, Arc::clone(&metadata.name))
    }

    fn labels(&mut self, labels: &Labels) -> PackedLabels {
        let texts = &mut self.texts;
        labels.iter().map(|(key, value)| (texts.share(key.as_str()), texts.share(value.as_str()))).collect()
    }

    fn node(&mut self, node: Option<String>) -> Option<Arc<str>> {
        node.map(|node| self.texts.share(node))
    }

    fn place(&mut self, node: Option<String>, zone: Option<String>) -> Option<Arc<Place>> {
        let place = Place { node, zone };
        (place != Place::default()).then(|| self.places.share(place))
    }

    pub(super) fn pod(&mut self, pod: Pod) -> (Name, PackedPod) {
        let Pod { mut metadata, spec, status } = pod;
        let name = self.name(&mut metadata);
        let template = Template {
            labels: self.labels(&metadata.labels),
            owner_references: std::mem::take(&mut metadata.owner_references).into(),
            service_account_name: spec.service_account_name.into(),
            host_network: spec.host_network,
            containers: spec.containers.into(),
            init_containers: spec.init_containers.into(),
            phase: status.phase.into(),
        };
        let packed = PackedPod {
            template: self.templates.share(template),
            node: self.node(spec.node_name),
            addresses: Addresses::of(status.pod_ip, status.pod_ips),
            rest: Rest::of(metadata),
        };
        (name, packed)
    }

    pub(super) fn slice(&mut self, slice: EndpointSlice) -> (Name, PackedSlice) {
        let EndpointSlice { mut metadata, address_type, ports, endpoints } = slice;
        let name = self.name(&mut metadata);
        let endpoint = |endpoint: Endpoint| PackedEndpoint {
            address: match endpoint.addresses.as_slice() {
                [address] => usual(address).map(Texts::One),
                _ => None,
            }
            .unwrap_or_else(|| Texts::Odd(endpoint.addresses.into())),
            place: self.place(endpoint.node_name, endpoint.zone),
            conditions: endpoint.conditions,
        };
        let endpoints = endpoints.into_iter().map(endpoint).collect();
        let packed = PackedSlice {
            labels: self.labels(&metadata.labels),
            address_type: self.texts.share(address_type),
            ports: self.ports.share(ports),
            endpoints,
            rest: Rest::of(metadata),
        };
        (name, packed)
    }
}

impl PackedPod {
    pub(super) fn unpack(&self, name: &Name) -> Pod {
        let template = &*self.template;
        let mut metadata = Rest::metadata(self.rest.as_deref(), name, &template.labels);
        metadata.owner_references = template.owner_references.to_vec();
        let (pod_ip, pod_ips) = self.addresses.texts();
        Pod {
            metadata,
            spec: PodSpec {
                node_name: self.node.as_deref().map(str::to_owned),
                service_account_name: template.service_account_name.to_string(),
                host_network: template.host_network,
                containers: template.containers.to_vec(),
                init_containers: template.init_containers.to_vec(),
            },
            status: PodStatus { phase: template.phase.to_string(), pod_ip, pod_ips },
        }
    }
}

impl PackedSlice {
    pub(super) fn unpack(&self, name: &Name) -> EndpointSlice {
        let endpoint = |endpoint: &PackedEndpoint| Endpoint {
            addresses: match &endpoint.address {
                Texts::One(address) => vec![address.to_string()],
                Texts::Odd(texts) => texts.to_vec(),
            },
            conditions: endpoint.conditions,
            node_name: endpoint.place.as_ref().and_then(|place| place.node.clone()),
            zone: endpoint.place.as_ref().and_then(|place| place.zone.clone()),
        };
        EndpointSlice {
            metadata: Rest::metadata(self.rest.as_deref(), name, &self.labels),
            address_type: self.address_type.to_string(),
            ports: self.ports.to_vec(),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
        }
    }
}

impl Addresses {
    fn of(pod_ip: String, pod_ips: Vec<PodIp>) -> Self {
        let usual: Option<Vec<IpAddr>> = pod_ips.iter().map(|entry| usual(&entry.ip)).collect();
        match usual.as_deref() {
            Some([]) if pod_ip.is_empty() => Self::None,
            Some([first, ..]) if first.to_string() != pod_ip => Self::Odd(Box::new((pod_ip, pod_ips))),
            Some([only]) => Self::One(*only),
            Some([_, _, ..]) => Self::Several(usual.unwrap_or_default().into()),
            Some([]) | None => Self::Odd(Box::new((pod_ip, pod_ips))),
        }
    }

    fn texts(&self) -> (String, Vec<PodIp>) {
        let several = |addresses: &[IpAddr]| {
            let ips: Vec<_> = addresses.iter().map(|address| PodIp { ip: address.to_string() }).collect();
            (ips.first().map(|first| first.ip.clone()).unwrap_or_default(), ips)
        };
        match self {
            Self::None => several(&[]),
            Self::One(address) => several(std::slice::from_ref(address)),
            Self::Several(addresses) => several(addresses),
            Self::Odd(texts) => (**texts).clone(),
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
            name: Arc::clone(&name.name),
            namespace: Arc::clone(&name.namespace),
            uid: rest.uid,
            creation_timestamp: rest.creation_timestamp,
            labels: labels.into(),
            annotations: rest.annotations,
            owner_references: rest.owner_references,
        }
    }
}

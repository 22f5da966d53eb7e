//! What the two ends of a question are.

use super::{Case, Noun, Place, Question, WhyError};
use crate::model::Name;
use crate::snapshot::WorkloadEntry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The addresses of whoever is at one that is not known.
const UNKNOWN: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// Who asks.
pub(super) struct End {
    /// For people.
    pub(super) shown: String,
    pub(super) who: Who,
    /// Its addresses, primary first.
    addresses: Vec<IpAddr>,
}

/// What someone is.
pub(super) enum Who {
    /// A pod.
    Pod(Name),
    /// The edge of a node, by which something entered.
    Edge(Arc<WorkloadEntry>),
    /// Nobody of the mesh.
    Other,
}

/// What is dialled.
pub(super) struct Target {
    /// For people.
    pub(super) shown: String,
    /// The address and port.
    pub(super) address: SocketAddr,
    /// The host that a request names if it says nothing else.
    pub(super) host: String,
}

impl End {
    /// Who asks; a pod gets a sandbox on the node of the case.
    ///
    /// **Errors**: there is no such pod, or no such gateway.
    pub(super) fn source(case: &mut Case, place: &Place) -> Result<Self, WhyError> {
        match place {
            Place::Address(address) => match case.compiler.pod_at(address).cloned() {
                Some(pod) => Self::of_pod(case, &pod, vec![*address]),
                None => Ok(Self { shown: address.to_string(), who: Who::Other, addresses: vec![*address] }),
            },
            Place::Named(name) | Place::Kind(Noun::Pod, name) => {
                let addresses = case.compiler.claims(&case.world, name);
                Self::of_pod(case, name, addresses)
            }
            Place::Outside => Ok(Self { shown: place.to_string(), who: Who::Other, addresses: UNKNOWN.into() }),
            Place::Kind(Noun::Gateway, name) => {
                let mut gateways = case.compiler.gateways().filter(|gateway| gateway.object.name == *name);
                let gateway = gateways.next().ok_or_else(|| WhyError::NoGateway { name: name.clone() })?;
                Ok(Self { shown: gateway.object.to_string(), ..Self::edge(case) })
            }
            Place::Kind(Noun::Service | Noun::Maker(_), _) | Place::Host(_) => {
                Err(WhyError::Place { text: place.to_string() })
            }
        }
    }

    fn of_pod(case: &mut Case, pod: &Name, addresses: Vec<IpAddr>) -> Result<Self, WhyError> {
        let first = addresses.first().ok_or_else(|| WhyError::NoPod { name: pod.clone() })?;
        let shown = case.shown(pod, *first);
        case.attach([pod.clone()]);
        Ok(Self { shown, who: Who::Pod(pod.clone()), addresses })
    }

    /// The edge of a node: which, and at which address, is not known.
    pub(super) fn edge(case: &Case) -> Self {
        Self { shown: "the edge".to_owned(), who: Who::Edge(Arc::clone(&case.edge)), addresses: UNKNOWN.into() }
    }

    /// The pod, if it is one.
    pub(super) fn pod(&self) -> Option<&Name> {
        match &self.who {
            Who::Pod(name) => Some(name),
            Who::Edge(_) | Who::Other => None,
        }
    }

    /// What to say of verdicts that may depend on its address, if that is not known.
    pub(super) fn remark(&self) -> Option<&'static str> {
        let text = match &self.who {
            Who::Edge(_) => {
                "its address is that of a node, which is not known: here it is asked as one that is in no range"
            }
            Who::Pod(_) | Who::Other => {
                "its address is not known: here it is asked as one that is in no range; name one to be sure"
            }
        };
        self.addresses.iter().all(IpAddr::is_unspecified).then_some(text)
    }

    /// Its address of the family of `other`.
    pub(super) fn address_for(&self, other: IpAddr) -> IpAddr {
        let same = self.addresses.iter().find(|own| own.is_ipv4() == other.is_ipv4());
        same.or(self.addresses.first()).copied().unwrap_or(other)
    }
}

/// What is dialled.
///
/// **Errors**: nothing has the name, or the port is not clear.
pub(super) fn target(case: &mut Case, question: &Question) -> Result<Target, WhyError> {
    let place = &question.destination;
    let name = match place {
        Place::Address(address) => {
            let address = *address;
            let port = port(question, &ports_at(case, address))?;
            let address = SocketAddr::new(address, port);
            return Ok(Target { shown: case.place(address), address, host: address.to_string() });
        }
        Place::Named(name) | Place::Kind(Noun::Pod | Noun::Service, name) => name,
        Place::Kind(Noun::Gateway | Noun::Maker(_), _) | Place::Host(_) | Place::Outside => {
            return Err(WhyError::Place { text: place.to_string() });
        }
    };
    let of_pod = (*place != Place::Kind(Noun::Service, name.clone())).then(|| case.compiler.claims(&case.world, name));
    if let Some(&address) = of_pod.iter().flatten().next() {
        let port = port(question, &ports_at(case, address))?;
        let address = SocketAddr::new(address, port);
        return Ok(Target { shown: case.shown(name, address), address, host: address.to_string() });
    }
    let service = if *place == Place::Kind(Noun::Pod, name.clone()) { None } else { case.world.service(name) };
    let Some(service) = service else { return Err(WhyError::Unknown { name: name.clone() }) };
    let spec = service.spec;
    let addresses = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
    let Some(address) = addresses.filter_map(|address| address.parse().ok()).next() else {
        return Err(WhyError::Headless { name: name.clone() });
    };
    let port = port(question, &ports_at(case, address))?;
    Ok(Target {
        shown: format!("service {name}:{port}"),
        address: SocketAddr::new(address, port),
        host: format!("{}.{}:{port}", name.name, name.namespace),
    })
}

/// The ports that are known at an address.
fn ports_at(case: &mut Case, address: IpAddr) -> Vec<u16> {
    let directory = case.compiler.snapshot().directory;
    let of_service = directory.services.get(&address).map(|service| service.ports.iter().map(|port| port.port));
    match of_service {
        Some(ports) => ports.collect(),
        None => {
            directory.endpoints.iter().map(|(at, _)| at).filter(|at| at.ip() == address).map(|at| at.port()).collect()
        }
    }
}

/// The port that is asked about.
pub(super) fn port(question: &Question, known: &[u16]) -> Result<u16, WhyError> {
    match (question.port, known) {
        (Some(port), _) | (None, &[port]) => Ok(port),
        (None, _) => {
            let ports: Vec<_> = known.iter().map(u16::to_string).collect();
            let ports = if ports.is_empty() { "none that is known".to_owned() } else { ports.join(", ") };
            Err(WhyError::Port { place: question.destination.clone(), ports })
        }
    }
}

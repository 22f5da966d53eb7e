//! What the two ends of a question are.

use super::{Case, Place, Question, WhyError};
use crate::model::Name;
use std::net::{IpAddr, SocketAddr};

/// Who asks.
pub(super) struct End {
    /// For people.
    pub(super) shown: String,
    /// The pod, if it is one.
    pub(super) pod: Option<Name>,
    /// Its addresses, primary first.
    pub(super) addresses: Vec<IpAddr>,
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
    /// **Errors**: there is no such pod.
    pub(super) fn source(case: &mut Case, place: &Place) -> Result<Self, WhyError> {
        let (pod, addresses) = match place {
            Place::Address(address) => (case.compiler.pod_at(address).cloned(), vec![*address]),
            Place::Named(name) => (Some(name.clone()), case.compiler.claims(&case.world, name)),
        };
        let (Some(first), pod) = (addresses.first(), pod) else {
            let Place::Named(name) = place else { return Err(WhyError::Place { text: place.to_string() }) };
            return Err(WhyError::NoPod { name: name.clone() });
        };
        let shown = match &pod {
            Some(pod) => format!("{pod} at {first}"),
            None => first.to_string(),
        };
        case.attach(pod.clone());
        Ok(Self { shown, pod, addresses })
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
        Place::Named(name) => name,
    };
    if let Some(&address) = case.compiler.claims(&case.world, name).first() {
        let port = port(question, &ports_at(case, address))?;
        let address = SocketAddr::new(address, port);
        return Ok(Target { shown: format!("{name} at {address}"), address, host: address.to_string() });
    }
    let Some(service) = case.world.service(name) else { return Err(WhyError::Unknown { name: name.clone() }) };
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
fn port(question: &Question, known: &[u16]) -> Result<u16, WhyError> {
    match (question.port, known) {
        (Some(port), _) | (None, &[port]) => Ok(port),
        (None, _) => {
            let ports: Vec<_> = known.iter().map(u16::to_string).collect();
            let ports = if ports.is_empty() { "none that is known".to_owned() } else { ports.join(", ") };
            Err(WhyError::Port { place: question.destination.clone(), ports })
        }
    }
}

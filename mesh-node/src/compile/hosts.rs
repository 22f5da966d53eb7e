//! Hosts that are no services of the cluster.
//!
//! In:  external services, with routes and traffic policies.
//! Out: [`Hosts`] by name, and services by the addresses that clients dial for them.
//! Invariant: an address or a name that a service of the cluster has stays with it.
//! Source: Istio `ServiceEntry`.

use super::http::{Place, Port, Traffic};
use crate::model::http::AppProtocol;
use crate::model::{ExternalService, Issue, Visibility};
use crate::share::AddressMap;
use crate::snapshot::http::Endpoints;
use crate::snapshot::{AddressList, HostEntry, Hosts, ServiceEntry, ServiceName, ServicePortEntry};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Every external host, and those by addresses that are none of `services`.
pub(super) fn hosts<'m>(
    traffic: &Traffic<'m>,
    services: &AddressMap<IpAddr, Arc<ServiceEntry>>,
    issues: &mut Vec<Issue>,
) -> (Hosts, BTreeMap<IpAddr, Arc<ServiceEntry>>) {
    let mut addresses: BTreeMap<IpAddr, Arc<ServiceEntry>> = BTreeMap::new();
    let mut by_age: Vec<&'m Arc<ExternalService>> = traffic.external_services().collect();
    by_age.sort_by_key(|external| (&external.created, &external.object));
    let mut exact: HashMap<Arc<str>, Vec<HostEntry>> = HashMap::new();
    let mut wildcards: HashMap<Arc<str>, Vec<HostEntry>> = HashMap::new();
    let mut owners: HashMap<(Arc<str>, Visibility), &Arc<ExternalService>> = HashMap::new();
    for external in by_age {
        for host in &external.hosts {
            let owner = owners.entry((Arc::clone(host), external.clients.clone())).or_insert(external);
            if owner.object != external.object {
                let problem = format!("{} is older and describes {host} for the same clients", owner.object);
                issues.push(Issue::new(&external.object, "spec.hosts", problem, "keep one of them"));
                continue;
            }
            let service = Arc::new(entry(traffic, external, host, issues));
            let entry = HostEntry { clients: external.clients.clone(), service: Arc::clone(&service) };
            match host.strip_prefix('*') {
                Some(suffix) => wildcards.entry(suffix.into()).or_default().push(entry),
                None => exact.entry(Arc::clone(host)).or_default().push(entry),
            }
            for address in &external.addresses {
                let owner = services.get(address);
                let owner = owner.unwrap_or_else(|| addresses.entry(*address).or_insert_with(|| Arc::clone(&service)));
                let is_own = owner.name.namespace == *external.object.name.namespace
                    && external.hosts.iter().any(|host| **host == *owner.name.host);
                if !is_own {
                    let problem = format!("{address} belongs to {}, which keeps it", owner.name.host);
                    issues.push(Issue::new(&external.object, "spec.addresses", problem, "give it another address"));
                }
            }
        }
        if !external.addresses.is_empty() && external.clients != Visibility::Everyone {
            let problem = "addresses are known to the pods of every namespace";
            issues.push(Issue::new(
                &external.object,
                "spec.exportTo",
                problem,
                "export it to all, or list no addresses",
            ));
        }
    }
    // Those for single namespaces say more than those for everyone.
    let finish = |of: HashMap<Arc<str>, Vec<HostEntry>>| {
        let finish = |(host, mut entries): (Arc<str>, Vec<HostEntry>)| {
            entries.sort_by_key(|entry| entry.clients == Visibility::Everyone);
            (host, entries.into_boxed_slice())
        };
        of.into_iter().map(finish).collect()
    };
    (Hosts { exact: finish(exact), wildcards: finish(wildcards) }, addresses)
}

fn entry<'m>(
    traffic: &Traffic<'m>,
    external: &'m Arc<ExternalService>,
    host: &Arc<str>,
    issues: &mut Vec<Issue>,
) -> ServiceEntry {
    let name = Arc::new(ServiceName {
        host: (**host).into(),
        name: (**host).into(),
        namespace: external.object.name.namespace.clone(),
    });
    let ports = external.ports.iter().map(|port| {
        let of = Port { service: None, name: &name, port: port.port, port_name: &port.name, protocol: port.protocol };
        let traffic = traffic.traffic(of, &Place::External(Arc::clone(external)), issues);
        // Without addresses a connection is told by the name that it asks for, where it asks for one.
        if traffic.streams.is_some() && external.addresses.is_empty() && port.protocol != AppProtocol::Tls {
            let problem = format!(
                "connections to {host} port {} are told by its addresses, and it has none: rules for them are not enforced",
                port.port
            );
            issues.push(Issue::new(&external.object, "spec.addresses", problem, "list some"));
        }
        let endpoints = match traffic.upstream.as_ref().map(|upstream| &upstream.endpoints) {
            Some(Endpoints::Static(endpoints)) => endpoints.iter().map(|endpoint| endpoint.address).collect(),
            Some(Endpoints::Dns(_) | Endpoints::Original) | None => AddressList::default(),
        };
        ServicePortEntry {
            port: port.port,
            protocol: traffic.protocol(port.protocol),
            endpoints,
            upstream: traffic.upstream,
            upstream_by_pod: traffic.upstream_by_pod,
            routes: traffic.routes,
            streams: traffic.streams,
        }
    });
    let ports = ports.collect();
    ServiceEntry { name, client_affinity: false, ports }
}

//! Who is where: workloads and services by address.
//!
//! In:  the `Model`, the node's name.
//! Out: the `Directory`.
//! Invariant: equal identities and equal labels share one `Arc`, for there are many workloads.
//! Source: Istio's standard metrics and canonical service; kube-proxy for `internalTrafficPolicy`.

use super::Settings;
use crate::model::{Identity, Model, Service, Workload};
use crate::policy::MtlsPolicies;
use crate::snapshot::{
    Directory, InboundModes, ServiceEntry, ServiceName, ServicePortEntry, WorkloadEntry, WorkloadLabels,
};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What Istio says where it knows no better.
const UNKNOWN: &str = "unknown";

/// Everybody's addresses.
pub(super) fn directory(model: &Model, settings: &Settings) -> Directory {
    let workloads = workloads(model);
    let mut services = HashMap::new();
    let mut service_of = HashMap::new();
    // In the order of names, so that of several services that own a port the smallest name is told.
    for service in model.services.values() {
        let name = Arc::new(service_name(service, &settings.cluster_domain));
        let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
        for endpoint in endpoints.filter(|endpoint| workloads.contains_key(&endpoint.address)) {
            service_of.entry(SocketAddr::new(endpoint.address, endpoint.port)).or_insert_with(|| Arc::clone(&name));
        }
        for is_ipv6 in [false, true] {
            let addresses = || service.addresses.iter().filter(move |address| address.is_ipv6() == is_ipv6);
            if addresses().next().is_none() {
                continue;
            }
            let entry = Arc::new(service_entry(service, Arc::clone(&name), is_ipv6, settings));
            services.extend(addresses().map(|&address| (address, Arc::clone(&entry))));
        }
    }
    Directory { workloads, services, service_of }
}

fn workloads(model: &Model) -> HashMap<IpAddr, Arc<WorkloadEntry>> {
    let policies = MtlsPolicies::new(model.peer_authentications.values().map(|policy| &**policy));
    let mut identities: HashMap<&Identity, Arc<Identity>> = HashMap::new();
    let mut all_labels: HashSet<Arc<WorkloadLabels>> = HashSet::new();
    let mut workloads = HashMap::with_capacity(model.workloads.len());
    // An address of the node is not one pod's; nobody there has an identity to prove.
    for workload in model.workloads.values().filter(|workload| !workload.host_network) {
        if workload.addresses.is_empty() {
            continue;
        }
        let identity = identities.entry(&workload.identity).or_insert_with(|| Arc::new(workload.identity.clone()));
        let labels = workload_labels(workload);
        let labels = all_labels.get(&labels).cloned().unwrap_or_else(|| {
            let labels = Arc::new(labels);
            all_labels.insert(Arc::clone(&labels));
            labels
        });
        let inbound = workload.enrolled.then(|| {
            let modes = policies.modes(workload);
            InboundModes { default: modes.default, ports: modes.ports.into() }
        });
        let entry =
            Arc::new(WorkloadEntry { name: workload.name.clone(), identity: Arc::clone(identity), inbound, labels });
        workloads.extend(workload.addresses.iter().map(|&address| (address, Arc::clone(&entry))));
    }
    workloads
}

/// What Istio's standard metrics say of a workload.
fn workload_labels(workload: &Workload) -> WorkloadLabels {
    let label = |keys: &[&str]| {
        keys.iter().find_map(|&key| workload.labels.get(key)).filter(|value| !value.is_empty()).cloned()
    };
    let canonical_service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
        .unwrap_or_else(|| workload.controller.clone());
    let canonical_revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
        .unwrap_or_else(|| "latest".to_owned());
    WorkloadLabels {
        workload: workload.controller.clone(),
        namespace: workload.name.namespace.to_string(),
        app: label(&["app"]).unwrap_or_else(|| canonical_service.clone()),
        version: label(&["version"]).unwrap_or_else(|| UNKNOWN.to_owned()),
        canonical_service,
        canonical_revision,
        principal: workload.identity.principal(),
    }
}

fn service_name(service: &Service, cluster_domain: &str) -> ServiceName {
    let (name, namespace) = (service.name.name.to_string(), service.name.namespace.to_string());
    ServiceName { host: format!("{name}.{namespace}.svc.{cluster_domain}"), name, namespace }
}

/// The service as clients that dial an address of one family see it: endpoints are of that family.
fn service_entry(service: &Service, name: Arc<ServiceName>, is_ipv6: bool, settings: &Settings) -> ServiceEntry {
    let mut ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| {
            let usable = port.endpoints.iter().filter(|endpoint| {
                endpoint.address.is_ipv6() == is_ipv6
                    && (!service.local_only || endpoint.node.as_deref() == Some(&settings.node))
            });
            let mut endpoints: Vec<_> =
                usable.map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port)).collect();
            endpoints.sort_unstable();
            endpoints.dedup();
            ServicePortEntry {
                port: port.port,
                protocol: port.protocol,
                endpoints: endpoints.into(),
                upstream: None,
                routes: None,
            }
        })
        .collect();
    ports.sort_by_key(|port| port.port);
    ServiceEntry { name, client_affinity: service.client_affinity, ports: ports.into() }
}

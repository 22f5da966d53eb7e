//! ServiceEntries and WorkloadEntries: hosts that are no services of the cluster, workloads that are no pods.
//!
//! In:  objects as written.
//! Out: [`ExternalService`], [`WorkloadEntry`]; closed if anything is not understood.
//! Source: Istio `ServiceEntry`, `WorkloadEntry`.

use super::host;
use crate::api::custom::Custom;
use crate::model::{EndpointAddress, ExternalEndpoint, ExternalPort, ExternalService, Resolution, WorkloadEntry};
use crate::translate::kube::protocol;
use crate::translate::read::{Fields, Log, Place};
use crate::translate::text;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The hosts that an object describes.
pub(in crate::translate) fn service(log: &Log, object: &Custom) -> ExternalService {
    let namespace = &log.object().name.namespace;
    let (mut service, is_clear) = log.part(|| {
        let mut fields = log.spec(&object.spec);
        let hosts = fields.take("hosts").items();
        let hosts: Vec<Arc<str>> = hosts.iter().filter_map(|place| place.parse("give a host name", host)).collect();
        let addresses = addresses(&fields.take("addresses"));
        let words = [
            ("NONE", Resolution::Original),
            ("STATIC", Resolution::Static),
            ("DNS", Resolution::Dns),
            ("DNS_ROUND_ROBIN", Resolution::Dns),
        ];
        let resolved = fields.take("resolution");
        let resolution = if resolved.is_there() {
            resolved.choice_except(&words, &["DYNAMIC_DNS"])
        } else {
            Some(Resolution::Original)
        };
        fields.take("location").choice(&[("MESH_EXTERNAL", ()), ("MESH_INTERNAL", ())]);
        let ports = ports(&fields.take("ports"));
        let endpoints = fields.take("endpoints").items();
        let endpoints: Vec<_> = endpoints.iter().filter_map(|place| endpoint(&mut place.fields()?)).collect();
        let selector = fields.take("workloadSelector").fields().map(|mut fields| fields.take("labels").labels());
        let names = fields.take("subjectAltNames").texts().into_iter().map(str::to_owned).collect();
        let clients = host::visibility(&fields.take("exportTo"), namespace);
        if selector.is_some() && !endpoints.is_empty() {
            fields.refuse("`endpoints` and `workloadSelector` exclude each other", "keep one");
        }
        if resolution == Some(Resolution::Dns) && endpoints.is_empty() && hosts.iter().any(|host| host.starts_with('*'))
        {
            resolved.refuse("a name with a star leads nowhere", "list endpoints, or use NONE");
        }
        ExternalService {
            object: log.object().clone(),
            created: object.metadata.creation_timestamp.clone(),
            hosts,
            addresses,
            ports,
            resolution: resolution.unwrap_or(Resolution::Static),
            endpoints,
            selector,
            clients,
            names,
            closed: false,
        }
    });
    service.closed = !is_clear;
    service
}

/// The workload that an object is.
pub(in crate::translate) fn workload(log: &Log, object: &Custom) -> WorkloadEntry {
    let (endpoint, is_clear) = log.part(|| endpoint(&mut log.spec(&object.spec)));
    let closed = !is_clear || endpoint.is_none();
    let mut endpoint = endpoint.unwrap_or_else(|| ExternalEndpoint {
        address: EndpointAddress::Name(String::new()),
        ports: BTreeMap::new(),
        weight: 1,
        labels: BTreeMap::new(),
        zone: None,
    });
    for (key, value) in object.metadata.labels.iter() {
        endpoint.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    WorkloadEntry { name: log.object().name.clone(), endpoint, closed }
}

fn host(text: &str) -> Result<Arc<str>, String> {
    if text == "*" || !text::is_host(text) {
        return Err(format!("`{text}` is no host name"));
    }
    Ok(Arc::from(text.trim_end_matches('.').to_ascii_lowercase()))
}

fn addresses(list: &Place<'_>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for place in list.items() {
        let Some(text) = place.text() else { continue };
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if bits.is_none_or(|bits| bits == if address.is_ipv4() { "32" } else { "128" }) => {
                addresses.push(address);
            }
            Ok(_) => {
                place.note("a range of addresses is not looked at; connections to it go as they are", "list addresses")
            }
            Err(_) => place.refuse(format!("`{text}` is no IP address"), "give an address"),
        }
    }
    addresses
}

fn ports(list: &Place<'_>) -> Vec<ExternalPort> {
    let mut ports: BTreeMap<u16, ExternalPort> = BTreeMap::new();
    for place in list.items() {
        let Some(mut fields) = place.fields() else { continue };
        let (number, target) = (fields.take("number").port(), fields.take("targetPort").port());
        let name = fields.take("name").text().unwrap_or_default().to_owned();
        let protocol = fields.take("protocol").text().unwrap_or_default();
        let Some(port) = number else {
            place.refuse("a port needs a number", "give one");
            continue;
        };
        let protocol = protocol::of_port(protocol, &name);
        let new = ExternalPort { port, name, protocol, target: target.unwrap_or(port) };
        if ports.insert(port, new).is_some() {
            place.refuse(format!("port {port} is listed twice"), "remove one");
        }
    }
    ports.into_values().collect()
}

fn endpoint(fields: &mut Fields<'_>) -> Option<ExternalEndpoint> {
    let address = fields.take("address").parse("give an IP address or a host name", address);
    let mut ports = BTreeMap::new();
    for (name, place) in fields.take("ports").entries() {
        ports.extend(place.port().map(|port| (name.to_owned(), port)));
    }
    let labels = fields.take("labels").labels();
    fields.take("network").ignored("there is one network");
    let locality = fields.take("locality").text();
    let zone = locality.and_then(|text| text.split('/').nth(1)).filter(|zone| !zone.is_empty()).map(str::to_owned);
    let weight = fields.take("weight").number(0, u32::MAX).filter(|weight| *weight > 0).unwrap_or(1);
    fields.take("serviceAccount").ignored("only pods prove an identity");
    if address.is_none() {
        fields.refuse("an endpoint needs an address", "give one");
    }
    Some(ExternalEndpoint { address: address?, ports, weight, labels, zone })
}

fn address(text: &str) -> Result<EndpointAddress, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(EndpointAddress::Ip(address.to_canonical())),
        Err(_) if text::is_host(text) && !text.starts_with('*') => Ok(EndpointAddress::Name(text.to_ascii_lowercase())),
        Err(_) => Err(format!("`{text}` is neither an IP address nor a host name")),
    }
}

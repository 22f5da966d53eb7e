//! Services, and the endpoint slices that the endpoint controller keeps for them.
//!
//! Source: Kubernetes, "EndpointSlices", conditions.

use super::split;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The label that says who keeps a slice.
pub(super) const CONTROLLER: &str = "endpointslice.kubernetes.io/managed-by";
/// The endpoint controller.
pub(super) const CONTROLLER_NAME: &str = "endpointslice-controller.k8s.io";

/// A port of a service.
#[derive(Clone, Debug)]
struct Port {
    name: String,
    port: u16,
    target: u16,
}

/// A service to be.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    name: String,
    selector: BTreeMap<String, String>,
    ports: Vec<Port>,
    affinity: bool,
}

impl ServiceSpec {
    /// A service; `name` is `namespace/name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), selector: BTreeMap::new(), ports: Vec::new(), affinity: false }
    }

    /// Its endpoints are the pods of its namespace with this label, and every other one named so.
    #[must_use]
    pub fn selector(mut self, label: &str, value: &str) -> Self {
        self.selector.insert(label.to_owned(), value.to_owned());
        self
    }

    /// Clients dial `port`, pods listen on `target`.
    #[must_use]
    pub fn port(self, port: u16, target: u16) -> Self {
        self.named(&format!("tcp-{port}"), port, target)
    }

    /// The same for a port with a name, which says what is spoken there: `http`, `grpc-api`, or nothing of the kind.
    #[must_use]
    pub fn named(mut self, name: &str, port: u16, target: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), port, target });
        self
    }

    /// One client keeps to one endpoint.
    #[must_use]
    pub const fn client_affinity(mut self) -> Self {
        self.affinity = true;
        self
    }

    /// The service with the `index`th pair of addresses, its object, and what keeps its slices.
    pub(super) fn build(self, index: usize) -> Result<(Service, Value, Controlled)> {
        let (namespace, name) = split(&self.name)?;
        let index = u16::try_from(index + 1)?;
        let [high, low] = index.to_be_bytes();
        let addresses: [IpAddr; 2] =
            [Ipv4Addr::new(10, 96, high, low).into(), Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, index).into()];
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "protocol": "TCP", "port": port.port, "targetPort": port.target}))
            .collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": addresses[0].to_string(),
                "clusterIPs": addresses.map(|address| address.to_string()),
                "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "RequireDualStack",
                "selector": self.selector,
                "sessionAffinity": if self.affinity { "ClientIP" } else { "None" },
                "ports": ports,
            },
        });
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let controlled =
            Controlled { namespace: namespace.clone(), name: name.clone(), selector: self.selector, ports: self.ports };
        Ok((Service { namespace, name, addresses }, object, controlled))
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
}

impl Service {
    /// Where clients dial over IPv4.
    #[must_use]
    pub const fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[0], port)
    }

    /// Where clients dial over IPv6.
    #[must_use]
    pub const fn address6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[1], port)
    }
}

/// What the endpoint controller knows of a service.
#[derive(Debug)]
pub(super) struct Controlled {
    namespace: String,
    name: String,
    selector: BTreeMap<String, String>,
    ports: Vec<Port>,
}

impl Controlled {
    /// The slices of this service over `pods`, one per family.
    pub(super) fn slices(&self, pods: &[Value]) -> Vec<Value> {
        let selected: Vec<_> = pods.iter().filter(|pod| self.selects(pod)).collect();
        let families = [("IPv4", false), ("IPv6", true)];
        families.into_iter().map(|(family, v6)| self.slice(family, v6, &selected)).collect()
    }

    fn selects(&self, pod: &Value) -> bool {
        let labels = &pod["metadata"]["labels"];
        pod["metadata"]["namespace"] == json!(self.namespace)
            && !self.selector.is_empty()
            && self.selector.iter().all(|(label, value)| labels[label] == json!(value))
    }

    fn slice(&self, family: &str, v6: bool, pods: &[&Value]) -> Value {
        let endpoints: Vec<_> = pods.iter().filter_map(|pod| endpoint(pod, v6)).collect();
        let ports: Vec<_> =
            self.ports.iter().map(|port| json!({"name": port.name, "protocol": "TCP", "port": port.target})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-{}", self.name, family.to_lowercase()),
                "labels": {"kubernetes.io/service-name": self.name, CONTROLLER: CONTROLLER_NAME},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": ports,
        })
    }
}

/// A pod as an endpoint of one family, once it has an address of it.
fn endpoint(pod: &Value, v6: bool) -> Option<Value> {
    let ips = pod["status"]["podIPs"].as_array()?;
    let address = ips.iter().filter_map(|ip| ip["ip"].as_str()).find(|ip| ip.contains(':') == v6)?;
    let conditions = pod["status"]["conditions"].as_array()?;
    let serving = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let terminating = !pod["metadata"]["deletionTimestamp"].is_null();
    Some(json!({
        "addresses": [address],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {"kind": "Pod", "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"]},
    }))
}

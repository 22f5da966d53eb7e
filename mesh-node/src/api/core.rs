//! Kubernetes core: namespaces, service accounts, pods and services.
//!
//! Out: one type per kind.
//! Source: the Kubernetes API reference, `core/v1`.

use super::meta::{ObjectMeta, nullable};
use crate::model::Labels;
use serde::{Deserialize, Serialize};

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Name and labels.
    pub metadata: ObjectMeta,
}

/// A service account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAccount {
    /// Name and labels.
    pub metadata: ObjectMeta,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Name, labels and owners.
    pub metadata: ObjectMeta,
    /// What it was asked to be.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: PodSpec,
    /// What it is.
    #[serde(default, deserialize_with = "nullable")]
    pub status: PodStatus,
}

/// What a pod was asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The node it is scheduled to.
    #[serde(default)]
    pub node_name: Option<String>,
    /// Who it is; empty means `default`.
    #[serde(default, deserialize_with = "nullable")]
    pub service_account_name: String,
    /// Does it use the node's network namespace?
    #[serde(default, deserialize_with = "nullable")]
    pub host_network: bool,
    /// Its containers.
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    /// Those that start before; with a restart policy of `Always` they stay, as sidecars.
    #[serde(default, deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The ports it declares.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
    /// Does it live?
    #[serde(default)]
    pub liveness_probe: Option<Probe>,
    /// Can it serve?
    #[serde(default)]
    pub readiness_probe: Option<Probe>,
    /// Has it started?
    #[serde(default)]
    pub startup_probe: Option<Probe>,
    /// What it is told of its life.
    #[serde(default)]
    pub lifecycle: Option<Lifecycle>,
}

/// What the kubelet tells a container of its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// After it started.
    #[serde(default)]
    pub post_start: Option<Probe>,
    /// Before it is stopped.
    #[serde(default)]
    pub pre_stop: Option<Probe>,
}

/// What the kubelet does to learn of a container, or to tell it something. One of the fields is set, or it runs a
/// program, which needs no network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// An HTTP request.
    #[serde(default)]
    pub http_get: Option<ProbeTarget>,
    /// A TCP connection.
    #[serde(default)]
    pub tcp_socket: Option<ProbeTarget>,
    /// A call of the gRPC health service.
    #[serde(default)]
    pub grpc: Option<ProbeTarget>,
}

/// Where a probe goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProbeTarget {
    /// Another host than the pod; empty means the pod.
    #[serde(default, deserialize_with = "nullable")]
    pub host: String,
    /// The port.
    pub port: PortOrName,
}

/// A port, or the name of one that the container declares.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortOrName {
    /// The port.
    Port(u16),
    /// Its name.
    Name(String),
}

impl Default for PortOrName {
    fn default() -> Self {
        Self::Port(0)
    }
}

/// A port that a container declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name, by which services may target it.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// The port.
    pub container_port: u16,
    /// The protocol; empty means TCP.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
}

/// What a pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(default, deserialize_with = "nullable")]
    pub phase: String,
    /// Its primary address.
    #[serde(default, rename = "podIP", deserialize_with = "nullable")]
    pub pod_ip: String,
    /// Its addresses, primary first.
    #[serde(default, rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
}

/// One address of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodIp {
    /// The address.
    #[serde(default, deserialize_with = "nullable")]
    pub ip: String,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// What it was asked to be.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ServiceSpec,
    /// What it is.
    #[serde(default, deserialize_with = "nullable")]
    pub status: ServiceStatus,
}

/// What a service was asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means `ClusterIP`.
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// Its primary virtual address, or `None` for a headless service.
    #[serde(default, rename = "clusterIP", deserialize_with = "nullable")]
    pub cluster_ip: String,
    /// Its virtual addresses, primary first.
    #[serde(default, rename = "clusterIPs", deserialize_with = "nullable")]
    pub cluster_ips: Vec<String>,
    /// Addresses outside the cluster's range that are its own too.
    #[serde(default, rename = "externalIPs", deserialize_with = "nullable")]
    pub external_ips: Vec<String>,
    /// Its ports.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<ServicePort>,
    /// The labels of the pods behind it; without any, endpoints are given by hand.
    #[serde(default, deserialize_with = "nullable")]
    pub selector: Labels,
    /// `None` or `ClientIP`.
    #[serde(default, deserialize_with = "nullable")]
    pub session_affinity: String,
    /// `Cluster` or `Local`.
    #[serde(default, deserialize_with = "nullable")]
    pub internal_traffic_policy: String,
    /// `PreferSameZone`, its older name `PreferClose`, or `PreferSameNode`; empty for no preference.
    #[serde(default, deserialize_with = "nullable")]
    pub traffic_distribution: String,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; empty if it is the only one.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// The port clients dial.
    pub port: u16,
    /// The protocol; empty means TCP.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
    /// What is spoken over it; empty if it is left to the port's name.
    #[serde(default, deserialize_with = "nullable")]
    pub app_protocol: String,
}

/// What a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its load balancer.
    #[serde(default, deserialize_with = "nullable")]
    pub load_balancer: LoadBalancerStatus,
}

/// The load balancer of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoadBalancerStatus {
    /// Where it takes traffic.
    #[serde(default, deserialize_with = "nullable")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// An address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// The address; empty if it has only a host name.
    #[serde(default, deserialize_with = "nullable")]
    pub ip: String,
    /// `VIP`, or `Proxy` when the balancer must see the traffic itself; empty means `VIP`.
    #[serde(default, deserialize_with = "nullable")]
    pub ip_mode: String,
}

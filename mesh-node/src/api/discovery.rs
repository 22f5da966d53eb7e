//! Endpoint slices: what answers for a service.
//!
//! Out: [`EndpointSlice`].
//! Source: the Kubernetes API reference, `discovery.k8s.io/v1`.

use super::meta::{ObjectMeta, nullable};
use serde::{Deserialize, Serialize};

/// The label that names the service a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Some of a service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Name and labels; one label names the service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default, deserialize_with = "nullable")]
    pub address_type: String,
    /// The ports of every endpoint of the slice.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The name of the service port it answers for.
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    /// The port; absent means every port, which no service uses.
    #[serde(default)]
    pub port: Option<u16>,
    /// The protocol; empty means TCP.
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Interchangeable addresses; clients use the first.
    #[serde(default, deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    /// Does it take traffic?
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Conditions,
    /// The node it is on.
    #[serde(default)]
    pub node_name: Option<String>,
    /// The zone it is in.
    #[serde(default)]
    pub zone: Option<String>,
}

/// Does an endpoint take traffic?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Is it ready and not terminating? Absent means yes.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Does it serve, terminating or not? Absent means as `ready`.
    #[serde(default)]
    pub serving: Option<bool>,
    /// Is it on its way out? Absent means no.
    #[serde(default)]
    pub terminating: Option<bool>,
}

//! Objects of kinds that a custom definition brings: routes, gateways, traffic policies, outside hosts.
//!
//! Out: [`Custom`], an object of any such kind, with what is [`Reported`] of it; [`CustomKind`], the kinds and where they are found.
//! Invariant: the whole spec is kept as it came, so that a field nobody knows is seen and refused.
//! Source: Gateway API `gateway.networking.k8s.io`; Istio `networking.istio.io`.

use super::meta::{ObjectMeta, nullable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object whose spec is as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// Namespace, name, labels and age.
    pub metadata: ObjectMeta,
    /// The fields as written.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: Map<String, Value>,
    /// What controllers have said of it, where somebody reads that.
    #[serde(skip)]
    pub reported: Option<Reported>,
}

/// What controllers have said of an object, and what that is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Which of its specifications this is.
    pub generation: i64,
    /// The revision of the object, status included.
    pub revision: String,
    /// What was said.
    pub status: Map<String, Value>,
}

impl Reported {
    /// Reads it of an object in JSON.
    ///
    /// **Errors**: the object has another form.
    pub fn read(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Parts {
            metadata: Metadata,
            #[serde(default, deserialize_with = "nullable")]
            status: Map<String, Value>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(default)]
            generation: i64,
            #[serde(default)]
            resource_version: String,
        }

        let Parts { metadata, status } = serde_json::from_str(json)?;
        Ok(Self { generation: metadata.generation, revision: metadata.resource_version, status })
    }
}

/// The kinds of [`Custom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CustomKind {
    /// Gateway API `HTTPRoute`.
    HttpRoute,
    /// Gateway API `GRPCRoute`.
    GrpcRoute,
    /// Gateway API `Gateway`.
    Gateway,
    /// Gateway API `GatewayClass`.
    GatewayClass,
    /// Gateway API `ReferenceGrant`.
    ReferenceGrant,
    /// Istio `VirtualService`.
    VirtualService,
    /// Istio `DestinationRule`.
    DestinationRule,
    /// Istio `ServiceEntry`.
    ServiceEntry,
    /// Istio `WorkloadEntry`.
    WorkloadEntry,
    /// Istio `Gateway`.
    IstioGateway,
    /// Istio `Sidecar`.
    Sidecar,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "networking.istio.io";
const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

impl CustomKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::Gateway,
        Self::GatewayClass,
        Self::ReferenceGrant,
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::IstioGateway,
        Self::Sidecar,
    ];

    /// The kind as users write it. Two are called `Gateway`; their groups differ.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::Gateway | Self::IstioGateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Sidecar => "Sidecar",
        }
    }

    /// The kind as it is told apart from every other: with its group where the name alone does not do.
    #[must_use]
    pub const fn full_name(self) -> &'static str {
        if matches!(self, Self::IstioGateway) { "Gateway.networking.istio.io" } else { self.name() }
    }

    /// Its API group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::GrpcRoute | Self::Gateway | Self::GatewayClass | Self::ReferenceGrant => {
                GATEWAY_API
            }
            Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::IstioGateway
            | Self::Sidecar => ISTIO,
        }
    }

    /// The versions that can be read, best first. Between them no field that is read differs.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::GrpcRoute => &["v1"],
            Self::HttpRoute | Self::Gateway | Self::GatewayClass | Self::ReferenceGrant => &["v1", "v1beta1"],
            Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::IstioGateway
            | Self::Sidecar => ISTIO_VERSIONS,
        }
    }

    /// Its name in paths and in rules of RBAC.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::Gateway | Self::IstioGateway => "gateways",
            Self::GatewayClass => "gatewayclasses",
            Self::ReferenceGrant => "referencegrants",
            Self::VirtualService => "virtualservices",
            Self::DestinationRule => "destinationrules",
            Self::ServiceEntry => "serviceentries",
            Self::WorkloadEntry => "workloadentries",
            Self::Sidecar => "sidecars",
        }
    }

    /// The kind of this name in this group.
    #[must_use]
    pub fn find(group: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.group() == group && kind.name() == name)
    }
}

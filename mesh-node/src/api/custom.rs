//! Objects whose spec is kept as it came: routes, gateways, traffic policies, outside hosts, policies.
//!
//! Out: [`Custom`], an object of any such kind, with what is [`Reported`] of it; [`CustomKind`], the kinds and where they are found.
//! Invariant: the whole spec is kept, so that a field nobody knows is seen and refused.
//! Source: Gateway API `gateway.networking.k8s.io`; Istio `networking.istio.io`, `security.istio.io`; Kubernetes
//! `networking.k8s.io/v1.NetworkPolicy`; `policy.networking.k8s.io`.

mod calico;

pub use calico::{CalicoFamily, CalicoKind, CalicoObject, CalicoStore};

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

    /// The same without what changes whenever somebody says something.
    #[must_use]
    pub fn generation_alone(self) -> Self {
        Self { generation: self.generation, ..Self::default() }
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
    /// Kubernetes `NetworkPolicy`, which is there without a definition.
    NetworkPolicy,
    /// `ClusterNetworkPolicy`.
    ClusterNetworkPolicy,
    /// A kind of Calico's, in one of its two places.
    Calico(CalicoKind, CalicoStore),
    /// Istio `AuthorizationPolicy`.
    AuthorizationPolicy,
    /// Istio `RequestAuthentication`.
    RequestAuthentication,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "networking.istio.io";
const ISTIO_SECURITY: &str = "security.istio.io";
const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

impl CustomKind {
    /// Every kind.
    pub const ALL: [Self; 31] = [
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
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::Calico(CalicoKind::NetworkPolicy, CalicoStore::Crd),
        Self::Calico(CalicoKind::NetworkPolicy, CalicoStore::Native),
        Self::Calico(CalicoKind::GlobalNetworkPolicy, CalicoStore::Crd),
        Self::Calico(CalicoKind::GlobalNetworkPolicy, CalicoStore::Native),
        Self::Calico(CalicoKind::StagedNetworkPolicy, CalicoStore::Crd),
        Self::Calico(CalicoKind::StagedNetworkPolicy, CalicoStore::Native),
        Self::Calico(CalicoKind::StagedGlobalNetworkPolicy, CalicoStore::Crd),
        Self::Calico(CalicoKind::StagedGlobalNetworkPolicy, CalicoStore::Native),
        Self::Calico(CalicoKind::StagedKubernetesNetworkPolicy, CalicoStore::Crd),
        Self::Calico(CalicoKind::StagedKubernetesNetworkPolicy, CalicoStore::Native),
        Self::Calico(CalicoKind::Tier, CalicoStore::Crd),
        Self::Calico(CalicoKind::Tier, CalicoStore::Native),
        Self::Calico(CalicoKind::NetworkSet, CalicoStore::Crd),
        Self::Calico(CalicoKind::NetworkSet, CalicoStore::Native),
        Self::Calico(CalicoKind::GlobalNetworkSet, CalicoStore::Crd),
        Self::Calico(CalicoKind::GlobalNetworkSet, CalicoStore::Native),
        Self::AuthorizationPolicy,
        Self::RequestAuthentication,
    ];

    /// The kind as users write it. Two are called `Gateway`, others `NetworkPolicy`; their groups differ.
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
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::Calico(kind, _) => kind.name(),
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::RequestAuthentication => "RequestAuthentication",
        }
    }

    /// The kind as it is told apart from every other: with its group where the name alone does not do.
    #[must_use]
    pub const fn full_name(self) -> &'static str {
        match self {
            Self::IstioGateway => "Gateway.networking.istio.io",
            Self::Calico(kind, store) => kind.full_name(store),
            Self::HttpRoute
            | Self::GrpcRoute
            | Self::Gateway
            | Self::GatewayClass
            | Self::ReferenceGrant
            | Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::Sidecar
            | Self::NetworkPolicy
            | Self::ClusterNetworkPolicy
            | Self::AuthorizationPolicy
            | Self::RequestAuthentication => self.name(),
        }
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
            Self::NetworkPolicy => "networking.k8s.io",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io",
            Self::Calico(_, store) => store.group(),
            Self::AuthorizationPolicy | Self::RequestAuthentication => ISTIO_SECURITY,
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
            Self::NetworkPolicy => &["v1"],
            Self::ClusterNetworkPolicy => &["v1alpha2"],
            Self::Calico(_, store) => store.versions(),
            Self::AuthorizationPolicy | Self::RequestAuthentication => &["v1", "v1beta1"],
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
            Self::NetworkPolicy => "networkpolicies",
            Self::ClusterNetworkPolicy => "clusternetworkpolicies",
            Self::Calico(kind, _) => kind.plural(),
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::RequestAuthentication => "requestauthentications",
        }
    }

    /// Do its objects live outside namespaces?
    #[must_use]
    pub const fn is_cluster_scoped(self) -> bool {
        match self {
            Self::GatewayClass | Self::ClusterNetworkPolicy => true,
            Self::Calico(kind, _) => kind.is_cluster_scoped(),
            Self::HttpRoute
            | Self::GrpcRoute
            | Self::Gateway
            | Self::ReferenceGrant
            | Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::IstioGateway
            | Self::Sidecar
            | Self::NetworkPolicy
            | Self::AuthorizationPolicy
            | Self::RequestAuthentication => false,
        }
    }

    /// Is it there only while a custom definition brings it?
    #[must_use]
    pub const fn needs_definition(self) -> bool {
        !matches!(self, Self::NetworkPolicy)
    }

    /// The kind of this name in this group.
    #[must_use]
    pub fn find(group: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.group() == group && kind.name() == name)
    }
}

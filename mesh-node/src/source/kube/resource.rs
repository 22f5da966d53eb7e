//! The kinds that are watched, and how an object of each is read.
//!
//! In:  JSON of the API server.
//! Out: [`Resource`]s; the `Object` that a text describes.
//! Invariant: only fields of `api` are kept of what is read.
//! Source: the Kubernetes API reference, "API overview", for paths; the CRDs of Istio, the Gateway API, Calico and ClusterNetworkPolicy.

use crate::api::custom::Reported;
use crate::model::Name;
use crate::world::{CustomKind, Kind, Object};
use serde::Deserialize;

/// A kind of objects and where the API server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// The API group, empty for the core.
    pub(super) group: &'static str,
    /// Served versions that can be read, best first.
    pub(super) versions: &'static [&'static str],
    /// As in paths and in rules of RBAC.
    pub(super) plural: &'static str,
    /// Which of them are watched; empty for all.
    pub(super) fields: &'static str,
    /// Is it there only while somebody has defined it?
    pub(super) is_custom: bool,
}

/// Those that the API server has anyhow, and the one of Istio's that has fields of its own.
const BUILT_IN: [Resource; 6] = [
    Resource {
        kind: Kind::Namespace,
        group: "",
        versions: &["v1"],
        plural: "namespaces",
        fields: "",
        is_custom: false,
    },
    Resource {
        kind: Kind::Pod,
        group: "",
        versions: &["v1"],
        plural: "pods",
        // Pods that have ended are nobody, and finished jobs leave many.
        fields: "status.phase!=Succeeded,status.phase!=Failed",
        is_custom: false,
    },
    Resource { kind: Kind::Service, group: "", versions: &["v1"], plural: "services", fields: "", is_custom: false },
    Resource {
        kind: Kind::ServiceAccount,
        group: "",
        versions: &["v1"],
        plural: "serviceaccounts",
        fields: "",
        is_custom: false,
    },
    Resource {
        kind: Kind::EndpointSlice,
        group: "discovery.k8s.io",
        versions: &["v1"],
        plural: "endpointslices",
        fields: "",
        is_custom: false,
    },
    Resource {
        kind: Kind::PeerAuthentication,
        group: "security.istio.io",
        versions: &["v1", "v1beta1"],
        plural: "peerauthentications",
        fields: "",
        is_custom: true,
    },
];

/// Every kind that is watched as a whole.
pub(super) const RESOURCES: [Resource; BUILT_IN.len() + CustomKind::ALL.len()] = {
    let mut all = [BUILT_IN[0]; BUILT_IN.len() + CustomKind::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < BUILT_IN.len() { BUILT_IN[at] } else { custom(CustomKind::ALL[at - BUILT_IN.len()]) };
        at += 1;
    }
    all
};

/// Secrets, each of which is watched by itself: rights may be given to single objects, and to no more is one needed.
pub(super) const SECRETS: Resource =
    Resource { kind: Kind::Secret, group: "", versions: &["v1"], plural: "secrets", fields: "", is_custom: false };

/// What one watch follows: all objects of a kind, or the one of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) only: Option<Name>,
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        Self { kind, only: None }
    }
}

/// The kinds by which it is judged how routes and gateways stand.
const OF_STANDINGS: [Kind; 7] = [
    Kind::Namespace,
    Kind::Service,
    Kind::Custom(CustomKind::HttpRoute),
    Kind::Custom(CustomKind::GrpcRoute),
    Kind::Custom(CustomKind::Gateway),
    Kind::Custom(CustomKind::GatewayClass),
    Kind::Custom(CustomKind::ReferenceGrant),
];

/// What objects are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To serve a node's pods: everything but what controllers have said.
    Node,
    /// To report how routes and gateways stand: what they depend on, and what was said of them.
    Standings,
}

impl Purpose {
    /// The kinds that are watched for it.
    pub(super) fn resources(self) -> Vec<&'static Resource> {
        let is_read = |resource: &&Resource| self == Self::Node || OF_STANDINGS.contains(&resource.kind);
        RESOURCES.iter().filter(is_read).collect()
    }

    /// The object of this kind that `json` describes.
    ///
    /// **Errors**: a field that is read has another form.
    pub(super) fn object(self, kind: Kind, json: &str) -> Result<Object, serde_json::Error> {
        let mut object = object(kind, json)?;
        if let Object::Custom(kind, custom) = &mut object {
            custom.reported = match self {
                Self::Standings => Some(Reported::read(json)?),
                // Of which specification it is, what a node makes of a gateway.
                Self::Node if *kind == CustomKind::Gateway => Some(Reported::read(json)?.generation_alone()),
                Self::Node => None,
            };
        }
        Ok(object)
    }
}

const fn custom(kind: CustomKind) -> Resource {
    Resource {
        kind: Kind::Custom(kind),
        group: kind.group(),
        versions: kind.versions(),
        plural: kind.plural(),
        fields: "",
        is_custom: kind.needs_definition(),
    }
}

impl Resource {
    /// The path of all its objects in one of its versions, or of those in a namespace.
    pub(super) fn path(&self, version: &str, namespace: Option<&str>) -> String {
        let root =
            if self.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{}/{version}", self.group) };
        match namespace {
            None => format!("{root}/{}", self.plural),
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
        }
    }

    /// Its name with its group, as in `pods` and `endpointslices.discovery.k8s.io`.
    pub(super) fn name(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// What is read of an object before, or instead of, the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: Name,
    /// The revision of the cluster in which it became what it is.
    pub(super) revision: String,
}

/// The head of the object that `json` describes.
///
/// **Errors**: it is no object.
pub(super) fn head(json: &str) -> Result<Head, serde_json::Error> {
    #[derive(Deserialize)]
    struct Parts {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        name: String,
        #[serde(default)]
        namespace: String,
        #[serde(default)]
        resource_version: String,
    }

    let Metadata { name, namespace, resource_version } = serde_json::from_str::<Parts>(json)?.metadata;
    Ok(Head { name: Name::new(namespace, name), revision: resource_version })
}

/// The object of this kind that `json` describes.
///
/// **Errors**: a field that is read has another form.
pub(super) fn object(kind: Kind, json: &str) -> Result<Object, serde_json::Error> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(serde_json::from_str(json)?),
        Kind::ServiceAccount => Object::ServiceAccount(serde_json::from_str(json)?),
        Kind::Pod => Object::Pod(serde_json::from_str(json)?),
        Kind::Service => Object::Service(serde_json::from_str(json)?),
        Kind::EndpointSlice => Object::EndpointSlice(serde_json::from_str(json)?),
        Kind::Secret => Object::Secret(serde_json::from_str(json)?),
        Kind::PeerAuthentication => Object::PeerAuthentication(serde_json::from_str(json)?),
        Kind::Custom(kind) => Object::Custom(kind, serde_json::from_str(json)?),
    })
}

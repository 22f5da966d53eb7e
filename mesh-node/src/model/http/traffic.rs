//! How requests and connections to a service's endpoints are balanced, bounded and protected.
//!
//! Out: [`TrafficPolicies`], one for each service or host.
//! Source: Istio `DestinationRule`; Kubernetes `Service.spec.trafficDistribution`.

use crate::model::{Labels, ObjectRef, Text, Visibility};
use http::HeaderName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What holds for one service or host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicies {
    /// The object it was translated from.
    pub object: ObjectRef,
    /// When the object was created (RFC 3339): the oldest of equals wins.
    pub created: Text,
    /// The full host name, as in `reviews.default.svc.cluster.local`; may begin with `*.` or be `*`.
    pub host: Arc<str>,
    /// Whose traffic it holds for.
    pub clients: Visibility,
    /// Something in the object is not understood, so that nothing goes to the host.
    pub closed: bool,
    /// For every port without one of its own.
    pub all: TrafficPolicy,
    /// For these ports: the whole policy, in which nothing is inherited.
    pub ports: BTreeMap<u16, TrafficPolicy>,
    /// Parts of the endpoints, by name.
    pub subsets: BTreeMap<String, Subset>,
}

/// Some of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Labels that their pods all have.
    pub labels: Labels,
    /// What holds for them instead, by field; `None` inherits everything.
    pub policy: Option<TrafficPolicy>,
    /// The same for single ports.
    pub ports: BTreeMap<u16, TrafficPolicy>,
}

/// How requests are balanced, bounded and protected. `None` of a field is the mesh's default or, in a subset, what
/// its service has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub balance: Option<Balance>,
    /// Which endpoints are preferred by where they are.
    pub locality: Option<LocalityPreference>,
    /// Bounds on connections and requests.
    pub limits: Option<ConnectionLimits>,
    /// When an endpoint is left out for a while.
    pub outliers: Option<OutlierDetection>,
    /// How the connection is protected.
    pub tls: Option<UpstreamTls>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Of two by chance, the one with fewer requests under way.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// By chance.
    Random,
    /// The address that the client dialled, whether it is an endpoint or not.
    Passthrough,
    /// By consistent hashing on a ring.
    RingHash {
        /// What is hashed.
        key: HashKey,
        /// The least number of places on the ring.
        minimum: u32,
    },
    /// By consistent hashing with Maglev's table.
    Maglev {
        /// What is hashed.
        key: HashKey,
        /// The table's size, a prime.
        size: u32,
    },
}

impl Balance {
    /// Places on a ring for which no number is given.
    ///
    /// **Source**: Istio `ConsistentHashLB.RingHash.minimumRingSize`.
    pub const RING: u32 = 1_024;

    /// What holds where no traffic policy says another, for a service that keeps a client to one endpoint or not.
    ///
    /// **Source**: Kubernetes `Service.spec.sessionAffinity`.
    #[must_use]
    pub const fn unless_said(client_affinity: bool) -> Self {
        if client_affinity { Self::RingHash { key: HashKey::Source, minimum: Self::RING } } else { Self::LeastRequest }
    }

    /// Does it keep a client to one endpoint by the client's address?
    #[must_use]
    pub const fn is_by_client(&self) -> bool {
        matches!(self, Self::RingHash { key: HashKey::Source, .. } | Self::Maglev { key: HashKey::Source, .. })
    }
}

/// What of a request is hashed. A request that lacks it goes to one by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A header.
    Header(HeaderName),
    /// A cookie. If the client has none and a life is given, it is sent one.
    Cookie {
        /// Its name.
        name: String,
        /// The path it is sent for; empty for none.
        path: String,
        /// How long it lives; zero for the client's session.
        life: Option<Duration>,
    },
    /// A parameter of the query.
    Query(String),
    /// The client's address.
    Source,
}

/// Which endpoints are preferred by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalityPreference {
    /// All alike.
    #[default]
    None,
    /// Those of the client's zone, as long as there are any.
    SameZone,
    /// Those of the client's node, then of its zone.
    SameNode,
}

/// Bounds on what goes to one upstream at once, and on its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections to each upstream.
    pub connections: Option<u32>,
    /// How long a connection may take to come about.
    pub connect_timeout: Option<Duration>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    /// Requests under way.
    pub requests: Option<u32>,
    /// Requests on one connection, after which it is closed.
    pub requests_per_connection: Option<u32>,
    /// Attempts beyond the first that are under way.
    pub retries: Option<u32>,
    /// How long a connection may idle.
    pub idle_timeout: Option<Duration>,
}

/// When an endpoint is left out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Answers of 5xx, or none, in a row; `None` does not count them.
    pub consecutive_errors: Option<u32>,
    /// Answers of 502, 503 or 504, or none, in a row; `None` does not count them.
    pub consecutive_gateway_errors: Option<u32>,
    /// How often endpoints come back.
    pub interval: Duration,
    /// For how long the first time; the n-th time n times as long.
    pub ejection: Duration,
    /// How much of the endpoints may be left out, in percent; one always may.
    pub max_ejection_percent: u32,
    /// With fewer endpoints than this left, in percent, none is left out.
    pub min_health_percent: u32,
}

/// How the connection to an upstream is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// As discovery says: mutual TLS with pods of the mesh.
    Mesh,
    /// Never: also with pods of the mesh.
    Disable,
    /// TLS that the daemon originates for the application.
    Originate(OriginateTls),
}

/// TLS that the daemon originates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginateTls {
    /// The name that is asked for, and proved where no others are given; `None` is the host.
    pub sni: Option<String>,
    /// The names of which the server must prove one instead; empty for the name that is asked for.
    pub names: Vec<String>,
    /// Path of the roots it is proved by, where the daemon runs; `None` are the system's.
    pub roots: Option<String>,
    /// Accept whatever the server proves.
    pub insecure: bool,
}

//! How requests and connections are routed from this node: tables without names to look up.
//!
//! In:  built by `compile` alone.
//! Out: [`HttpPort`] and [`StreamPort`] for each port that has routes, [`Upstream`] for each place that requests go to.
//! Invariant: the first route that matches decides; a request that none matches is answered 404.
//! Invariant: every backend is there; one that cannot be used answers with the status that says so.

use super::{PodKey, ServiceName};
use crate::model::ObjectRef;
use crate::model::http::{
    AppProtocol, Balance, ConnectionLimits, ConnectionMatch, HeaderChanges, HttpFilters, OutlierDetection, Redirect,
    RequestMatch, Share, UpstreamTls,
};
use http::StatusCode;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How traffic to one port of a service or host is routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerPod<T> {
    /// For every pod of this node that has none of its own.
    pub table: Arc<T>,
    /// For pods to which other routes apply, ordered by pod.
    pub by_pod: Box<[(PodKey, Arc<T>)]>,
}

/// How requests are.
pub type HttpPort = PerPod<RouteTable>;
/// How connections are that are no HTTP.
pub type StreamPort = PerPod<StreamTable>;

impl<T> PerPod<T> {
    /// The routes for what a pod sends.
    #[must_use]
    pub fn table(&self, pod: &PodKey) -> &Arc<T> {
        let own = self.by_pod.binary_search_by(|(key, _)| key.cmp(pod));
        own.map_or(&self.table, |at| &self.by_pod[at].1)
    }
}

/// Routes in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// The routes.
    pub routes: Box<[Route]>,
}

/// One way that a request may match, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the request must be.
    pub condition: RequestMatch,
    /// What becomes of it; shared by the matches of one rule.
    pub action: Arc<RouteAction>,
}

/// Routes of connections in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTable {
    /// The routes.
    pub routes: Box<[StreamRoute]>,
    /// Is a connection refused that none of them matches? Otherwise it goes where it would without routes.
    pub is_closed: bool,
}

impl StreamTable {
    /// Does any of them ask for which server name the client asks in TLS?
    #[must_use]
    pub fn asks_sni(&self) -> bool {
        self.routes.iter().any(|route| route.condition.sni.is_some())
    }

    /// The first that matches a connection to `destination`, whose client asks for the server `sni` in TLS, if for any.
    #[must_use]
    pub fn find(&self, sni: Option<&str>, destination: IpAddr) -> Option<&Arc<StreamAction>> {
        self.routes.iter().find(|route| route.condition.is_met(sni, destination)).map(|route| &route.action)
    }
}

/// One way that a connection may match, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRoute {
    /// What the connection must be.
    pub condition: ConnectionMatch,
    /// What becomes of it; shared by the matches of one rule.
    pub action: Arc<StreamAction>,
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAction {
    /// Which rule says so.
    pub origin: Arc<RouteOrigin>,
    /// It goes to one of these, by weight; refused without any, or with weights of 0 alone.
    pub backends: Box<[(u32, Destination)]>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAction {
    /// Which rule says so.
    pub origin: Arc<RouteOrigin>,
    /// What is done to it on its way.
    pub filters: Arc<HttpFilters>,
    /// Where copies of it go.
    pub mirrors: Box<[(Destination, Share)]>,
    /// Where it goes, or how it is answered.
    pub target: Target,
}

/// The rule that routed a request, for logs, metrics and whoever asks why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteOrigin {
    /// The object.
    pub object: ObjectRef,
    /// The rule's name, or its place in the object, as in `rules[1]`.
    pub rule: String,
}

/// Where a request goes, or how it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To one of these, by weight. Without any, or with weights of 0 alone, the answer is 500.
    Backends(Box<[Backend]>),
    /// Answered by a redirect.
    Redirect(Redirect),
    /// Answered with this.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body.
        body: String,
    },
}

/// One of several places that requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its share, relative to the sum of all.
    pub weight: u32,
    /// What it is.
    pub destination: Destination,
    /// Changes to the headers of requests that it gets.
    pub request_headers: HeaderChanges,
    /// Changes to the headers of its responses.
    pub response_headers: HeaderChanges,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Endpoints.
    Upstream(Arc<Upstream>),
    /// Nothing that can be used: this is the answer.
    Invalid(StatusCode),
}

/// Endpoints that answer for one port of a service, or for a subset of it, and how they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Tells it from every other upstream and stays over snapshots: `reviews.default.svc.cluster.local:9080`, with
    /// `/v1` for the subset v1, and with `@shop` where another policy holds for clients of the namespace shop, or
    /// `@shop/name` where an external service is not for everyone or has the name of a service of the cluster.
    pub key: Arc<str>,
    /// The service or host.
    pub service: Arc<ServiceName>,
    /// Its port.
    pub port: u16,
    /// What requests are sent in: neither `Opaque` nor `Tls`. Connections that are not looked at go there as they are.
    pub protocol: AppProtocol,
    /// Where it is; ordered by address, without duplicates.
    pub endpoints: Endpoints,
    /// How an endpoint is chosen. `Passthrough` only with `Endpoints::Original`.
    pub balance: Balance,
    /// Bounds on what goes there.
    pub limits: ConnectionLimits,
    /// When an endpoint is left out for a while.
    pub outliers: Option<OutlierDetection>,
    /// How connections are protected.
    pub tls: UpstreamTls,
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// At these places.
    Static(Box<[UpstreamEndpoint]>),
    /// Wherever these names lead, as the node resolves them.
    Dns(Box<[(String, u16)]>),
    /// At the address that the client dialled.
    Original,
}

/// One place of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its share of requests, relative to the others.
    pub weight: u32,
    /// How far it is from this node: those of the least distance that can take requests get them.
    pub distance: u8,
}

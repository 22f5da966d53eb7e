//! How HTTP to a service is routed, whoever's API said so, and how connections are that carry none.
//!
//! In:  nothing; plain data that translators fill.
//! Out: [`HttpRoute`] and its parts.
//! Invariant: what a translator could not take as written is a value that answers with an error, never an absence.
//! Source: Gateway API `HTTPRoute` and `GRPCRoute`; Istio `VirtualService`. Where both have a notion, the name is the
//! Gateway API's.

mod pattern;
mod stream;
mod traffic;

pub use pattern::{HeaderMatch, PathKind, PathMatch, Pattern, PatternError, QueryMatch, TextMatch};
pub use stream::{ConnectionMatch, RuleList, StreamBackend, StreamMatch, StreamRule};
pub use traffic::{
    Balance, ConnectionLimits, HashKey, LocalityPreference, OriginateTls, OutlierDetection, Subset, TrafficPolicies,
    TrafficPolicy, UpstreamTls,
};

use super::{Labels, Name, ObjectRef, Text};
use http::{HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// What a service's port speaks, as its object says.
///
/// **Source**: Kubernetes `ServicePort.appProtocol`; Istio's protocol selection by the port's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// Nothing is said: what a connection begins with decides, if the client speaks first.
    #[default]
    Undeclared,
    /// HTTP/1.1, or HTTP/2 where the client begins so.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC over HTTP/2 without TLS.
    Grpc,
    /// Bytes that are not looked at: TCP, and every protocol that is none of the others.
    Opaque,
    /// TLS of the applications themselves, of which at most the server name is read.
    Tls,
}

impl AppProtocol {
    /// Is it known not to be HTTP that can be read?
    #[must_use]
    pub const fn is_opaque(self) -> bool {
        match self {
            Self::Opaque | Self::Tls => true,
            Self::Undeclared | Self::Http | Self::Http2 | Self::Grpc => false,
        }
    }
}

/// Which API a route was written in. Where several speak of one host, the first of these decides alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteApi {
    /// Gateway API, which speaks of one service's port and is hence the more specific.
    Gateway,
    /// Istio.
    Istio,
}

/// The routes of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// The object it was translated from.
    pub object: ObjectRef,
    /// Which API it was written in.
    pub api: RouteApi,
    /// When the object was created (RFC 3339): the oldest of equals wins.
    pub created: Text,
    /// What it attaches to.
    pub parents: Vec<Parent>,
    /// The same as the object lists it, item by item; `None` for what is not understood. Of the Gateway API alone.
    pub references: Vec<Option<Parent>>,
    /// Host names for which it holds where its parent serves several; empty for all. A leading `*.` stands for one
    /// or more labels.
    pub hostnames: Vec<String>,
    /// Its rules, in the object's order. Translators keep a rule that they do not understand and make it answer 500.
    pub rules: Vec<Arc<HttpRule>>,
    /// Rules for connections of which nothing is read. Of Istio alone, as the next.
    pub tcp: Vec<Arc<StreamRule>>,
    /// Rules for connections on which applications speak TLS.
    pub tls: Vec<Arc<StreamRule>>,
}

impl HttpRoute {
    /// Is the list there? A route of the Gateway API is one for requests, be it without rules.
    #[must_use]
    pub fn has(&self, list: RuleList) -> bool {
        match list {
            RuleList::Http => self.api == RouteApi::Gateway || !self.rules.is_empty(),
            RuleList::Tcp | RuleList::Tls => !self.streams(list).is_empty(),
        }
    }

    /// The rules of a list for connections.
    #[must_use]
    pub fn streams(&self, list: RuleList) -> &[Arc<StreamRule>] {
        match list {
            RuleList::Http => &[],
            RuleList::Tcp => &self.tcp,
            RuleList::Tls => &self.tls,
        }
    }
}

/// What routes attach to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parent {
    /// HTTP from pods to a service's address.
    Service {
        /// The service.
        name: Name,
        /// One port of it; `None` for all.
        port: Option<u16>,
        /// One port of it by name; `None` for all.
        section: Option<Arc<str>>,
        /// Pods of this namespace only, as for a consumer's route; `None` for all.
        clients: Option<Text>,
    },
    /// HTTP from pods to a host outside the cluster, told by the request's authority; with a wildcard also to the
    /// addresses of services whose names it covers.
    Host {
        /// The host name; may begin with `*.` or be `*`.
        host: String,
        /// Pods of this namespace only; `None` for all.
        clients: Option<Text>,
    },
    /// HTTP that enters through a gateway.
    Gateway {
        /// The gateway.
        name: Name,
        /// One listener of it by name; `None` for all that take the route.
        listener: Option<String>,
        /// One port of it; `None` for all.
        port: Option<u16>,
    },
}

impl Parent {
    /// Is a port of the service meant that has this number and name?
    #[must_use]
    pub fn names(&self, number: u16, name: &str) -> bool {
        match self {
            Self::Service { port, section, .. } => {
                port.is_none_or(|port| port == number) && section.as_ref().is_none_or(|section| **section == *name)
            }
            Self::Host { .. } | Self::Gateway { .. } => false,
        }
    }
}

/// One rule: what it matches and what becomes of such requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// The rule's own name; empty if it has none.
    pub name: String,
    /// Any of these; empty matches every request.
    pub matches: Vec<HttpMatch>,
    /// What becomes of a request.
    pub action: HttpAction,
}

/// Conditions that must all be met. The default matches every request of everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// What the request must be.
    pub request: RequestMatch,
    /// Where and for whom it holds.
    pub scope: MatchScope,
}

/// Where and for whom a match holds. The default is everywhere and for everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchScope {
    /// The port that was dialled.
    pub port: Option<u16>,
    /// Which pods it holds for.
    pub clients: ClientMatch,
    /// Where the request or connection must have come from: a gateway of this name, or, for `None`, a pod of the mesh. Empty: as the
    /// route's parents say.
    pub gateways: Vec<Option<Name>>,
}

/// What a request must be, all of it. The default matches every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// The path.
    pub path: PathMatch,
    /// The method.
    pub method: Option<TextMatch>,
    /// Headers that must match.
    pub headers: Vec<HeaderMatch>,
    /// Headers that must not match.
    pub without_headers: Vec<HeaderMatch>,
    /// Parameters of the query that must match.
    pub query: Vec<QueryMatch>,
    /// The authority, without its port.
    pub authority: Option<TextMatch>,
    /// The scheme.
    pub scheme: Option<TextMatch>,
}

/// Which pods a match holds for. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientMatch {
    /// Their namespace.
    pub namespace: Option<Text>,
    /// Labels that they must all have.
    pub labels: Labels,
}

/// What becomes of a request that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAction {
    /// What is done to it on its way.
    pub filters: Arc<HttpFilters>,
    /// Where copies of it go; answers to them are thrown away.
    pub mirrors: Vec<Mirror>,
    /// Where it goes, or how it is answered.
    pub target: HttpTarget,
}

/// What is done to a request and its response on their way. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpFilters {
    /// Faults that are injected before anything else.
    pub fault: Fault,
    /// Changes to the request's headers.
    pub request_headers: HeaderChanges,
    /// Changes to the response's headers.
    pub response_headers: HeaderChanges,
    /// Changes to path and authority.
    pub rewrite: Rewrite,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// From the request's arrival to the end of its response; `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// The same for each attempt; `None` for no limit of its own.
    pub attempt_timeout: Option<Duration>,
    /// When an attempt is repeated; `None` for the mesh's default.
    pub retry: Option<Retry>,
}

/// Where a request goes, or how it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpTarget {
    /// To one of these, by weight. Without any, or with weights of 0 alone, the answer is 500.
    Backends(Vec<Backend>),
    /// To where the client asked: the service's own endpoints.
    Original,
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
    pub target: BackendTarget,
    /// Changes to the headers of requests that it gets.
    pub request_headers: HeaderChanges,
    /// Changes to the headers of its responses.
    pub response_headers: HeaderChanges,
}

/// What a backend is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendTarget {
    /// A port of a service of the cluster.
    Service {
        /// The service.
        name: Name,
        /// Its port; `None` is the one that was dialled.
        port: Option<u16>,
        /// The subset that the service's traffic policies name.
        subset: Option<String>,
    },
    /// A port of a host that a `ServiceEntry` describes.
    Host {
        /// The host name.
        host: String,
        /// Its port; `None` is the one that was dialled.
        port: Option<u16>,
        /// The subset that the host's traffic policies name.
        subset: Option<String>,
    },
    /// A backend that cannot be used as it was written: requests that fall to it are answered so.
    Invalid {
        /// 500, or 503 where the API says so.
        status: u16,
    },
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where it goes.
    pub target: BackendTarget,
    /// Which share of requests is copied.
    pub share: Share,
}

/// A share of requests: `parts` in a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Requests of a million, 1,000,000 at most.
    pub parts: u32,
}

impl Share {
    /// Every request.
    pub const ALL: Self = Self { parts: 1_000_000 };
    /// No request.
    pub const NONE: Self = Self { parts: 0 };
}

/// What goes wrong on purpose. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Requests are held for this long.
    pub delay: Option<(Duration, Share)>,
    /// Requests are answered with this status.
    pub abort: Option<(StatusCode, Share)>,
}

/// Changes to headers, done in this order: set, add, remove. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Replace whatever is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Put beside whatever is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Is nothing changed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Changes to what is asked for. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The path.
    pub path: Option<PathRewrite>,
    /// The authority.
    pub authority: Option<HeaderValue>,
}

/// A change of a path. The query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path becomes this.
    Full(String),
    /// The part that the rule's path match covered becomes this. Between it and the rest there is one slash, as in
    /// the Gateway API's `ReplacePrefixMatch`.
    Prefix(String),
    /// The part that the rule's path match covered becomes this, as it stands: Istio's `rewrite.uri`.
    RawPrefix(String),
    /// Each place that matches becomes this; `\1` stands for the first group.
    Regex {
        /// What is replaced.
        pattern: Pattern,
        /// By what.
        substitution: String,
    },
}

/// Where a client is sent instead. `None` keeps what the request had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<String>,
    /// The host, without port.
    pub host: Option<String>,
    /// The port.
    pub port: RedirectPort,
    /// The path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// Which port a redirect names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// The well-known port of the redirect's scheme if it names one, else that of the request's listener; neither
    /// is written where the scheme implies it.
    ///
    /// **Source**: Gateway API `HTTPRequestRedirectFilter.port`.
    Derived,
    /// The one in the request's authority: Istio's `FROM_REQUEST_PORT`.
    Request,
    /// None: the scheme implies it. Istio's `FROM_PROTOCOL_DEFAULT`.
    Implied,
    /// This.
    Port(u16),
}

/// How cross-origin requests are answered.
///
/// **Source**: the Fetch standard, "CORS protocol"; Gateway API `HTTPCORSFilter`; Istio `CorsPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may.
    pub origins: Vec<TextMatch>,
    /// Methods that they may use, as the preflight's answer lists them.
    pub methods: Vec<String>,
    /// Headers that they may send.
    pub headers: Vec<String>,
    /// Headers of responses that they may see.
    pub expose: Vec<String>,
    /// Whether credentials may be sent.
    pub credentials: bool,
    /// How long the answer to a preflight holds.
    pub max_age: Option<Duration>,
    /// Are preflights of origins that do not match handed on, as Istio's `FORWARD`, or answered without permission?
    pub forward_unmatched: bool,
}

/// When a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first; 0 for none.
    pub attempts: u32,
    /// What counts as failed.
    pub on: Vec<RetryOn>,
    /// The longest rest before the first repetition; it doubles each time, and a random part of it is taken.
    pub backoff: Option<Duration>,
}

/// A failure that is worth another attempt.
///
/// **Source**: Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`, whose words Istio takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryOn {
    /// `5xx`: any of these, or no response.
    ServerError,
    /// `gateway-error`: 502, 503 or 504, or no response.
    GatewayError,
    /// `connect-failure`: no connection could be had.
    ConnectFailure,
    /// `reset`: no response came.
    Reset,
    /// `reset-before-request`: no response came, and the request had not been sent.
    ResetBeforeRequest,
    /// `refused-stream`: HTTP/2's REFUSED_STREAM.
    RefusedStream,
    /// `retriable-4xx`: 409.
    Conflict,
    /// A status.
    Status(u16),
    /// gRPC's `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted` or `unavailable`, by number.
    Grpc(u16),
}

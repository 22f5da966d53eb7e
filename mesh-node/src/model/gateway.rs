//! Gateways: where traffic enters.
//!
//! Out: [`Gateway`].
//! Source: Gateway API `Gateway`; Istio `Gateway`.

use super::{Labels, ObjectRef, Text};
use std::sync::Arc;

/// The name under which the mesh says what became of routes and gateways, and by which classes of gateways say that it carries
/// them.
pub const CONTROLLER: &str = "mesh.internal/controller";

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The object it was translated from.
    pub object: ObjectRef,
    /// The object's UID; empty if it came from no API server.
    pub uid: Text,
    /// Which of its specifications this is; 0 where nobody is told of that.
    pub generation: i64,
    /// When the object was created (RFC 3339): the oldest of equals wins.
    pub created: Text,
    /// Who carries it.
    pub class: GatewayClass,
    /// Its listeners, in the object's order. One that is not understood is left out, and nothing listens there.
    pub listeners: Vec<Listener>,
}

/// Who carries a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayClass {
    /// Whoever controls the class of this name.
    Named(String),
    /// Pods that have all these labels.
    Pods(Labels),
}

/// One port of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its place in the object, from 0 on.
    pub at: usize,
    /// Its name.
    pub name: String,
    /// The port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Host names that it serves; empty for all. Each may begin with `*.`, and for Istio with a namespace and a slash:
    /// only routes of that namespace are taken for it.
    pub hostnames: Vec<Arc<str>>,
    /// How TLS is ended; `None` without TLS.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    pub routes: AllowedRoutes,
    /// The kinds of routes that may, as objects name them; none where nothing can.
    pub kinds: Vec<&'static str>,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// TLS.
    Tls,
    /// Bytes.
    Tcp,
}

/// How a listener ends TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Is it handed on as it is?
    pub passthrough: bool,
    /// Secrets with certificates, as namespace and name.
    pub certificates: Vec<super::Name>,
    /// Must clients prove themselves?
    pub mutual: bool,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedRoutes {
    /// Those of the gateway's namespace.
    Same,
    /// All.
    All,
    /// Those of namespaces that have all these labels.
    Selected(Labels),
}

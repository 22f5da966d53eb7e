//! Why a connection was not served.
//!
//! Out: [`Refusal`]: a stable identifier for logs, metrics and the peer, what exactly was wrong, and Envoy's
//! response flags.
//! Invariant: whatever is refused is refused for one of these reasons, and counted.

use super::tls::handshake::HandshakeError;
use super::wire::WireError;
use crate::identity;
use http::StatusCode;
use std::io;

/// Why a connection was not served or was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A stable identifier.
    pub(crate) reason: &'static str,
    /// What exactly was wrong, for people.
    pub(crate) detail: String,
    /// Envoy's response flags, as Istio's metrics carry them; `-` for none.
    pub(crate) flags: &'static str,
    /// The status by which a request is answered, where the reason alone does not say it.
    pub(crate) status: Option<StatusCode>,
}

/// The service has no endpoint that takes traffic.
pub(crate) const NO_ENDPOINTS: &str = "no_endpoints";
/// The service has no such port.
pub(crate) const NO_SUCH_PORT: &str = "no_such_port";
/// The upstream refused the connection.
pub(crate) const UPSTREAM_REFUSED: &str = "upstream_refused";
/// The upstream cannot be reached.
pub(crate) const UPSTREAM_UNREACHABLE: &str = "upstream_unreachable";
/// The upstream did not answer in time.
pub(crate) const UPSTREAM_TIMEOUT: &str = "upstream_timeout";
/// The upstream proved another identity than discovery gives for its address.
pub(crate) const UPSTREAM_IDENTITY: &str = "upstream_identity";
/// A server outside did not prove a name that it must.
pub(crate) const UPSTREAM_CERTIFICATE: &str = "upstream_certificate";
/// TLS with a server outside did not come about.
pub(crate) const UPSTREAM_TLS: &str = "upstream_tls";
/// There are no roots by which a server outside could be proved.
pub(crate) const NO_ROOTS: &str = "no_roots";
/// The other node refused the stream or the handshake.
pub(crate) const PEER_REFUSED: &str = "peer_refused";
/// The connection between the nodes broke.
pub(crate) const PEER_LOST: &str = "peer_lost";
/// The other node broke the protocol.
pub(crate) const PEER_PROTOCOL: &str = "peer_protocol";
/// This pod has no certificate now.
pub(crate) const NO_CREDENTIALS: &str = "no_credentials";
/// Plain text where mutual TLS is required.
pub(crate) const MTLS_REQUIRED: &str = "mtls_required";
/// TLS failed with a client from outside the mesh.
pub(crate) const OUTSIDE_TLS: &str = "outside_tls";
/// What arrived is no TLS at all; the id is that of [`identity::refusal`].
pub(crate) const NOT_TLS: &str = "not_tls";
/// The peer does not speak `mesh/1`; the id is that of [`identity::refusal`].
pub(crate) const NO_COMMON_PROTOCOL: &str = "no_common_protocol";
/// The certificate's identity is not the one that discovery gives for the source address.
pub(crate) const SOURCE_IDENTITY: &str = "source_identity";
/// A policy denies it.
pub(crate) const POLICY_DENIED: &str = "policy_denied";
/// Discovery knows no workload at the source address.
pub(crate) const UNKNOWN_SOURCE: &str = "unknown_source";
/// The certificate expired while its connection was open.
pub(crate) const EXPIRED_CERTIFICATE: &str = "expired_certificate";
/// The peer was silent for too long.
pub(crate) const HANDSHAKE_TIMEOUT: &str = "handshake_timeout";
/// Too many unfinished handshakes from one address.
pub(crate) const HANDSHAKE_LIMIT: &str = "handshake_limit";
/// Too many connections of one pod.
pub(crate) const POD_LIMIT: &str = "pod_limit";
/// Too many connections at one port of gateways.
pub(crate) const EDGE_LIMIT: &str = "edge_limit";
/// Nothing was asked for on a connection to a port of gateways.
pub(crate) const NO_REQUEST: &str = "no_request";
/// The daemon lacks descriptors or source ports.
pub(crate) const NO_RESOURCES: &str = "no_resources";
/// The mesh's own port was dialled.
pub(crate) const OWN_PORT: &str = "own_port";
/// A request that cannot be understood in only one way.
pub(crate) const BAD_REQUEST: &str = "bad_request";
/// No route matches the request.
pub(crate) const NO_ROUTE: &str = "no_route";
/// The route leads to nothing that can be used.
pub(crate) const NO_BACKEND: &str = "no_backend";
/// The request, or its last attempt, took too long.
pub(crate) const REQUEST_TIMEOUT: &str = "request_timeout";
/// The upstream broke off before it answered.
pub(crate) const UPSTREAM_RESET: &str = "upstream_reset";
/// The upstream does not speak the protocol that it should.
pub(crate) const UPSTREAM_PROTOCOL: &str = "upstream_protocol";
/// As much as the user allows is under way already.
pub(crate) const OVERFLOW: &str = "overflow";
/// A fault that a rule injects.
pub(crate) const FAULT: &str = "fault";
/// The client went before it was answered.
pub(crate) const DOWNSTREAM_GONE: &str = "downstream_gone";
/// The client gave up most of its requests as soon as it had made them.
pub(crate) const RAPID_RESET: &str = "rapid_reset";
/// The client does not take what it asked for.
pub(crate) const STALLED: &str = "stalled";
/// Nothing passed for too long on a connection that went over to another protocol.
pub(crate) const IDLE: &str = "idle";
/// The daemon stopped, and its deadline passed.
pub(crate) const DRAINED: &str = "drained";
/// The pod left.
pub(crate) const POD_GONE: &str = "pod_gone";

impl Refusal {
    /// A refusal for `reason`.
    pub(crate) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        let flags = match reason {
            NO_ENDPOINTS => "UH",
            NO_SUCH_PORT | NO_ROUTE | NO_BACKEND => "NR",
            REQUEST_TIMEOUT => "UT",
            UPSTREAM_RESET => "UC",
            UPSTREAM_PROTOCOL => "UPE",
            OVERFLOW => "UO",
            FAULT => "FI",
            DOWNSTREAM_GONE | RAPID_RESET | STALLED => "DC",
            BAD_REQUEST => "DPE",
            UPSTREAM_REFUSED | UPSTREAM_UNREACHABLE | UPSTREAM_TIMEOUT | UPSTREAM_IDENTITY | UPSTREAM_CERTIFICATE
            | UPSTREAM_TLS | NO_ROOTS | PEER_REFUSED | PEER_LOST => "UF",
            _ => "-",
        };
        Self { reason, detail: detail.into(), flags, status: None }
    }

    /// The same, by which a request is answered with `status`.
    pub(crate) fn answered(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Did it come before anything was sent to the upstream?
    pub(crate) fn precedes_sending(&self) -> bool {
        matches!(self.reason, UPSTREAM_REFUSED | UPSTREAM_TIMEOUT | UPSTREAM_UNREACHABLE | NO_RESOURCES)
    }

    /// A connection attempt failed.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; the rest has one id")]
    pub(crate) fn connect(error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => UPSTREAM_REFUSED,
            io::ErrorKind::TimedOut => UPSTREAM_TIMEOUT,
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => NO_RESOURCES,
            _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) => {
                NO_RESOURCES
            }
            _ => UPSTREAM_UNREACHABLE,
        };
        Self::new(reason, error.to_string())
    }

    /// A handshake failed.
    pub(crate) fn handshake(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(cause) => Self::new(identity::refusal(cause), cause.to_string()),
            HandshakeError::Io(cause) => Self::new(PEER_LOST, cause.to_string()),
            HandshakeError::Closed => Self::new(PEER_LOST, error.to_string()),
            HandshakeError::NoProtocol => Self::new(NO_COMMON_PROTOCOL, error.to_string()),
            HandshakeError::TooLong | HandshakeError::Keys(_) => Self::new(PEER_PROTOCOL, error.to_string()),
        }
    }

    /// A connection between nodes failed.
    pub(crate) fn wire(error: &WireError) -> Self {
        let reason = match error {
            WireError::Io(_) | WireError::CutOff | WireError::Closed => PEER_LOST,
            WireError::Alert(_) => PEER_REFUSED,
            WireError::Record(_) | WireError::Frame(_) | WireError::OutOfOrder | WireError::Keys(_) => PEER_PROTOCOL,
        };
        Self::new(reason, error.to_string())
    }
}

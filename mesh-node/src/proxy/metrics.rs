//! The proxy's own counters, beside Istio's.
//!
//! Out: `mesh_proxy_*`.

use super::verdicts::Verdicts;
use crate::telemetry::{Metrics, Security, Side};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Connection {
    side: &'static str,
    security: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    side: &'static str,
    reason: &'static str,
}

/// What a client did on its connection against the rules of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Abuse {
    side: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OneSide {
    side: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Mirrored {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EdgePort {
    port: u16,
}

/// How many workers listen on a port of gateways, and how many cannot.
#[derive(Clone, Copy, Default)]
struct Doors {
    open: u32,
    failed: u32,
}

/// The proxy's counters; clones share them.
#[derive(Clone, Default)]
pub(crate) struct ProxyMetrics {
    connections: Family<Connection, Counter>,
    refused: Family<Refused, Counter>,
    handshakes: Family<OneSide, Counter>,
    accept_errors: Counter,
    bad_http: Family<Abuse, Counter>,
    mirrors: Family<Mirrored, Counter>,
    edge: Family<EdgePort, Gauge>,
    /// The ports of gateways, as workers have them.
    ports: Arc<Mutex<BTreeMap<u16, Doors>>>,
    unmarked: Counter,
    /// What policies decided.
    pub(crate) verdicts: Verdicts,
    /// Peers whose mark was missing and who were reported.
    reported: Arc<Mutex<HashSet<IpAddr>>>,
}

/// Peers whose missing mark is remembered, so that each is reported once.
const REPORTED: usize = 4096;

impl ProxyMetrics {
    /// Registers the counters.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self { verdicts: Verdicts::new(metrics), ..Self::default() };
        metrics.register(|registry| {
            let help = "Streams served, by the side of the pod and how the network's part was protected";
            registry.register("mesh_proxy_connections", help, own.connections.clone());
            let help = "Streams refused or cut off, by reason";
            registry.register("mesh_proxy_refused", help, own.refused.clone());
            let help = "Whether a port of gateways is listened on (1) or cannot be (0)";
            registry.register("mesh_edge_listening", help, own.edge.clone());
            let help = "TLS handshakes completed between nodes";
            registry.register("mesh_proxy_handshakes", help, own.handshakes.clone());
            let help = "Connections that could not be accepted for lack of descriptors or memory";
            registry.register("mesh_proxy_accept_errors", help, own.accept_errors.clone());
            let help = "Connections that were ended, and streams that were refused, because what came was not HTTP or abused it, by reason";
            registry.register("mesh_proxy_bad_http", help, own.bad_http.clone());
            let help = "Copies of requests, by what became of them";
            registry.register("mesh_proxy_mirrors", help, own.mirrors.clone());
            let help = "Mesh connections whose SYN came without the mesh's DSCP: a network between removes it";
            registry.register("mesh_proxy_unmarked", help, own.unmarked.clone());
        });
        own
    }

    /// A stream is being served.
    pub(crate) fn connection(&self, side: Side, security: Security) {
        self.connections.get_or_create(&Connection { side: side.name(), security: security.policy() }).inc();
    }

    /// A stream was refused or cut off.
    pub(crate) fn refusal(&self, side: Side, reason: &'static str) {
        self.refused.get_or_create(&Refused { side: side.name(), reason }).inc();
    }

    /// A handshake was completed.
    pub(crate) fn handshake(&self, side: Side) {
        self.handshakes.get_or_create(&OneSide { side: side.name() }).inc();
    }

    /// A connection was ended, or so many streams were refused, because of what came.
    pub(crate) fn bad_http(&self, side: Side, reason: &'static str, times: u32) {
        self.bad_http.get_or_create(&Abuse { side: side.name(), reason }).inc_by(times.into());
    }

    /// A copy of a request was answered, or was not.
    pub(crate) fn mirror(&self, answered: bool) {
        self.mirrors.get_or_create(&Mirrored { outcome: if answered { "answered" } else { "failed" } }).inc();
    }

    /// A connection could not be accepted.
    pub(crate) fn accept_error(&self) {
        self.accept_errors.inc();
    }

    /// A worker listens on a port of gateways now, on which it may have failed to listen before. That it is all right again is told
    /// once, by the last of the workers.
    pub(crate) fn edge_opened(&self, port: u16, had_failed: bool) {
        let doors =
            self.doors(port, |doors| Doors { open: doors.open + 1, failed: doors.failed - u32::from(had_failed) });
        self.edge.get_or_create(&EdgePort { port }).set(i64::from(doors.failed == 0));
        if had_failed && doors.failed == 0 {
            tracing::info!(port, "a gateway's port is listened on");
        }
    }

    /// A worker cannot listen on a port of gateways, on which it did not fail before. It is told once, by the first of them.
    pub(crate) fn edge_failed(&self, port: u16, error: &std::io::Error) {
        self.edge.get_or_create(&EdgePort { port }).set(0);
        if self.doors(port, |doors| Doors { failed: doors.failed + 1, ..doors }).failed == 1 {
            tracing::error!(port, %error, "a gateway's port cannot be listened on; it is tried again");
        }
    }

    /// A port on which a worker may have failed to listen is no gateway's any more.
    pub(crate) fn no_edge(&self, port: u16, had_failed: bool) {
        self.doors(port, |doors| Doors {
            open: doors.open - u32::from(!had_failed),
            failed: doors.failed - u32::from(had_failed),
        });
        self.edge.remove(&EdgePort { port });
    }

    /// The ports of gateways on which workers listen or tried to, and whether none of them failed.
    pub(crate) fn edge_ports(&self) -> BTreeMap<u16, bool> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.iter().map(|(port, doors)| (*port, doors.failed == 0)).collect()
    }

    /// How workers have a port, after a change.
    fn doors(&self, port: u16, change: impl FnOnce(Doors) -> Doors) -> Doors {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let doors = change(ports.remove(&port).unwrap_or_default());
        if doors.open + doors.failed > 0 {
            ports.insert(port, doors);
        }
        doors
    }

    /// A mesh peer's SYN came without the mark.
    pub(crate) fn unmarked(&self, peer: IpAddr) {
        self.unmarked.inc();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() < REPORTED && reported.insert(peer) {
            tracing::warn!(%peer, "a mesh peer's SYN lacks the mesh's DSCP 23; a network between removes it");
        }
    }
}

//! Istio's standard metrics of TCP connections.
//!
//! In:  what the proxy counts on an [`Edge`]: one pair of workloads, as one side sees it.
//! Out: `istio_tcp_connections_{opened,closed,failed}_total` and `istio_tcp_{sent,received}_bytes_total`.
//! Invariant: beyond the ceiling one edge per side and security. An edge takes 150 to 220 bytes.
//! Source: Istio "Standard Metrics"; `failed` and its meaning from ztunnel.

#[cfg(test)]
mod tests;

pub use super::edges::{Count, EdgeLabels, Settings};

use super::edges::{EdgeKey, EdgeMetrics, Labels};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::sync::Arc;

/// Every edge of this node over which TCP was carried.
pub type TcpMetrics = EdgeMetrics<EdgeLabels>;

/// The counters of one edge. Adding takes no lock.
#[derive(Debug, Default)]
pub struct Edge {
    /// Connections that were served.
    pub opened: Count,
    /// Of these, those that ended.
    pub closed: Count,
    /// Connections that could not be served or were refused.
    pub failed: Count,
    /// Bytes of responses, towards the source; the same direction on both sides.
    pub sent: Count,
    /// Bytes of requests, from the source.
    pub received: Count,
}

/// Name without the `_total` that OpenMetrics adds, help, and which counter.
type Family = (&'static str, &'static str, fn(&Edge) -> &Count);

const FAMILIES: [Family; 5] = [
    ("istio_tcp_connections_opened", "TCP connections that were served", |edge| &edge.opened),
    ("istio_tcp_connections_closed", "TCP connections that were served and ended", |edge| &edge.closed),
    ("istio_tcp_connections_failed", "TCP connections that failed or were refused", |edge| &edge.failed),
    ("istio_tcp_sent_bytes", "Bytes of responses over TCP connections", |edge| &edge.sent),
    ("istio_tcp_received_bytes", "Bytes of requests over TCP connections", |edge| &edge.received),
];

impl EdgeKey for EdgeLabels {
    type Counters = Edge;

    const NAMES: [&'static str; 2] = ["mesh_telemetry_edges", "mesh_telemetry_edges_overflow"];

    fn labels(&mut self) -> &mut EdgeLabels {
        self
    }

    fn overflow(&self) -> Self {
        self.beyond_ceiling()
    }

    fn encode(
        edges: &[(Self, Arc<Edge>)],
        cluster: &str,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        for (name, help, count) in FAMILIES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (edge, counters) in edges {
                let value = count(counters).value();
                // As with Istio, a series begins with its first event.
                if value > 0 || (counters.opened.value() > 0 && !name.ends_with("_failed")) {
                    let labels = Labels { cluster, edge, protocol: "tcp", answer: None };
                    ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

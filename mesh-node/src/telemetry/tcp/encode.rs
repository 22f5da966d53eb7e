//! Edges as OpenMetrics text.
//!
//! In:  the edges of this node, when metrics are scraped.
//! Out: five families of counters with Istio's labels.
//! Invariant: no lock is held while text is written.
//! Source: Istio "Standard Metrics", label names and the value `unknown`.

use super::{Count, Edge, EdgeLabels, Shared, UNKNOWN};
use crate::snapshot::WorkloadLabels;
use crate::telemetry::Security;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;

/// Name without the `_total` that OpenMetrics adds, help, and which counter.
type Family = (&'static str, &'static str, fn(&Edge) -> &Count);

const FAMILIES: [Family; 5] = [
    ("istio_tcp_connections_opened", "TCP connections that were served", |edge| &edge.opened),
    ("istio_tcp_connections_closed", "TCP connections that were served and ended", |edge| &edge.closed),
    ("istio_tcp_connections_failed", "TCP connections that failed or were refused", |edge| &edge.failed),
    ("istio_tcp_sent_bytes", "Bytes of responses over TCP connections", |edge| &edge.sent),
    ("istio_tcp_received_bytes", "Bytes of requests over TCP connections", |edge| &edge.received),
];

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let edges: Vec<(EdgeLabels, Arc<Edge>)> =
            self.read().slots.iter().map(|(labels, slot)| (labels.clone(), Arc::clone(&slot.edge))).collect();
        for (name, help, count) in FAMILIES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, edge) in &edges {
                let value = count(edge).value();
                // As with Istio, a series begins with its first event.
                if value > 0 || (edge.opened.value() > 0 && !name.ends_with("_failed")) {
                    let labels = Labels { cluster: &self.settings.cluster, edge: labels };
                    ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let count = u32::try_from(edges.len()).unwrap_or(u32::MAX);
        let help = "Edges between workloads that are counted";
        let gauge = encoder.encode_descriptor("mesh_telemetry_edges", help, None, MetricType::Gauge)?;
        ConstGauge::new(count).encode(gauge)
    }
}

/// The whole label set of one edge.
struct Labels<'a> {
    cluster: &'a str,
    edge: &'a EdgeLabels,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), fmt::Error> {
        let edge = self.edge;
        label(encoder, "reporter", edge.side.reporter())?;
        self.encode_workload(encoder, &SOURCE, edge.source.as_deref())?;
        self.encode_workload(encoder, &DESTINATION, edge.destination.as_deref())?;
        let service = edge.service.as_deref();
        label(encoder, "destination_service", service.map_or("", |name| &name.host))?;
        label(encoder, "destination_service_name", service.map_or("", |name| &name.name))?;
        label(encoder, "destination_service_namespace", service.map_or("", |name| &name.namespace))?;
        label(encoder, "request_protocol", "tcp")?;
        label(encoder, "response_flags", edge.flags)?;
        label(encoder, "connection_security_policy", edge.security.policy())
    }
}

/// Label names of one party, in the order of [`Labels::encode_workload`].
type Keys = [&'static str; 8];

const SOURCE: Keys = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
];

const DESTINATION: Keys = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
];

impl Labels<'_> {
    fn encode_workload(
        &self,
        encoder: &mut LabelSetEncoder,
        keys: &Keys,
        workload: Option<&WorkloadLabels>,
    ) -> Result<(), fmt::Error> {
        let Some(workload) = workload else {
            return keys.iter().try_for_each(|key| label(encoder, key, UNKNOWN));
        };
        let principal = match self.edge.security {
            Security::MutualTls if !workload.principal.is_empty() => format!("spiffe://{}", workload.principal),
            Security::MutualTls | Security::Plain | Security::Unknown => String::new(),
        };
        let values = [
            &workload.workload,
            &workload.namespace,
            &principal,
            &workload.app,
            &workload.version,
            self.cluster,
            &workload.canonical_service,
            &workload.canonical_revision,
        ];
        keys.iter().zip(values).try_for_each(|(key, value)| label(encoder, key, value))
    }
}

fn label(encoder: &mut LabelSetEncoder, key: &'static str, value: &str) -> Result<(), fmt::Error> {
    let value = if value.is_empty() { UNKNOWN } else { value };
    (key, value).encode(encoder.encode_label())
}

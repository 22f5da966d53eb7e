//! Edges as OpenMetrics text.
//!
//! In:  the edges of this node, when metrics are scraped.
//! Out: their counters with Istio's labels, and how many edges there are.
//! Invariant: no lock is held while text is written.
//! Source: Istio "Standard Metrics", label names and the value `unknown`.

use super::{EdgeKey, EdgeLabels, Shared};
use crate::snapshot::WorkloadLabels;
use crate::telemetry::Security;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;

/// What no one knows, as Istio writes it.
const UNKNOWN: &str = "unknown";

impl<K: EdgeKey> Collector for Shared<K> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let edges: Vec<(K, Arc<K::Counters>)> =
            self.read().slots.iter().map(|(key, slot)| (key.clone(), Arc::clone(&slot.counters))).collect();
        K::encode(&edges, &self.settings.cluster, &mut encoder)?;
        let count = u32::try_from(edges.len()).unwrap_or(u32::MAX);
        let help = "Edges between workloads that are counted";
        let gauge = encoder.encode_descriptor(K::NAMES[0], help, None, MetricType::Gauge)?;
        ConstGauge::new(count).encode(gauge)
    }
}

/// The whole label set of one edge.
pub(in crate::telemetry) struct Labels<'a> {
    /// The cluster of every known workload.
    pub(in crate::telemetry) cluster: &'a str,
    /// What all edges are told apart by.
    pub(in crate::telemetry) edge: &'a EdgeLabels,
    /// What is spoken, as Istio writes it.
    pub(in crate::telemetry) protocol: &'static str,
    /// The status of a response, and that of gRPC; written as they are.
    pub(in crate::telemetry) answer: Option<(u16, &'static str)>,
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
        label(encoder, "request_protocol", self.protocol)?;
        if let Some((status, grpc)) = self.answer {
            ("response_code", u64::from(status)).encode(encoder.encode_label())?;
            ("grpc_response_status", grpc).encode(encoder.encode_label())?;
        }
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
            Security::MutualTls | Security::Tls | Security::Plain | Security::Unknown => String::new(),
        };
        let values = [
            workload.workload.as_str(),
            &workload.namespace,
            principal.as_str(),
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

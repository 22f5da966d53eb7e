//! What the signer counts.
//!
//! Out: `mesh_signer_requests_total{outcome}`, `mesh_signer_leading`.

use crate::telemetry::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The signer's metrics.
#[derive(Clone, Default)]
pub(super) struct Counts {
    requests: Family<Outcome, Counter>,
    leading: Gauge,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counts = Self::default();
        metrics.register(|registry| {
            registry.register("mesh_signer_requests", "Requests for certificates answered", counts.requests.clone());
            registry.register("mesh_signer_leading", "1 while this daemon signs", counts.leading.clone());
        });
        counts
    }

    pub(super) fn answered(&self, outcome: &'static str) {
        self.requests.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leading.set(leads.into());
    }
}

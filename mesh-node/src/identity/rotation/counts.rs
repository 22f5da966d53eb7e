//! What the keyring counts.
//!
//! Out: `mesh_identity_issued_total`, `mesh_identity_failures_total{reason}`, `mesh_identity_expiry_seconds`.

use crate::telemetry::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The keyring's metrics.
pub(super) struct Counts {
    issued: Counter,
    failures: Family<Reason, Counter>,
    expiry: Gauge,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counts = Self { issued: Counter::default(), failures: Family::default(), expiry: Gauge::default() };
        metrics.register(|registry| {
            registry.register("mesh_identity_issued", "Certificates issued", counts.issued.clone());
            registry.register("mesh_identity_failures", "Failures to issue, store or trust", counts.failures.clone());
            registry.register(
                "mesh_identity_expiry_seconds",
                "When the first of the certificates in use expires, in seconds since 1970; 0 when there is none",
                counts.expiry.clone(),
            );
        });
        counts
    }

    pub(super) fn issued(&self) {
        self.issued.inc();
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn expires(&self, soonest: Option<SystemTime>) {
        let seconds = soonest.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}

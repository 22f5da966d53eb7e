//! A histogram with Envoy's buckets, which is added to without a lock.
//!
//! In:  values in a fraction of the unit in which they are written.
//! Out: cumulative buckets and a sum.
//! Invariant: the count that is written is the sum of the buckets that are written.
//! Source: Envoy, default buckets of histograms for Prometheus.

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds, in the unit in which values are written.
pub(super) const BOUNDS: [f64; 20] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
    f64::INFINITY,
];

/// A distribution of values that are observed in one `SCALE`th of the unit in which they are written.
#[derive(Debug, Default)]
pub struct Histogram<const SCALE: u64> {
    buckets: [AtomicU64; BOUNDS.len()],
    sum: AtomicU64,
}

impl<const SCALE: u64> Histogram<SCALE> {
    /// Adds a value.
    pub fn observe(&self, value: u64) {
        let unit = unit::<SCALE>(value);
        // Infinity is above every value.
        let bucket = BOUNDS.partition_point(|bound| *bound < unit);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let mut buckets = BOUNDS.map(|bound| (bound, 0));
        for ((_, count), bucket) in buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = unit::<SCALE>(self.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years, and of so many bytes a few are nothing"
)]
fn unit<const SCALE: u64>(value: u64) -> f64 {
    value as f64 / SCALE as f64
}

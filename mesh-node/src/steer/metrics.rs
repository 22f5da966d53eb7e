//! What steering counts.
//!
//! In:  the kernel's counters, repairs as they are made.
//! Out: `mesh_steer_connections_total` by fate, `mesh_steer_repairs_total` by kind.

use super::Repair;
use super::maps::Fates;
use crate::telemetry::Metrics;
use mesh_common::map::Fate;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use std::sync::Arc;

/// Counters of repairs, by kind.
pub(super) type Repairs = Family<[(&'static str, &'static str); 1], Counter>;

/// Registers the metrics of steering.
pub(super) fn register(metrics: &Metrics, fates: Arc<Fates>) -> Repairs {
    let repairs = Repairs::default();
    for repair in Repair::ALL {
        drop(repairs.get_or_create(&label(repair)));
    }
    let family = repairs.clone();
    metrics.register(|registry| {
        registry.register("mesh_steer_repairs", "Kernel state that was not as it should be and was put right", family);
        registry.register_collector(Box::new(FatesCollector(fates)));
    });
    repairs
}

/// The label set of a kind of repair.
pub(super) fn label(repair: Repair) -> [(&'static str, &'static str); 1] {
    [("kind", repair.name())]
}

/// Reads the kernel's counters at each scrape.
struct FatesCollector(Arc<Fates>);

impl std::fmt::Debug for FatesCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FatesCollector")
    }
}

impl Collector for FatesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.read().map_err(|_| std::fmt::Error)?;
        let mut family = encoder.encode_descriptor(
            "mesh_steer_connections",
            "What became of connections in the kernel",
            None,
            MetricType::Counter,
        )?;
        for (fate, count) in Fate::ALL.into_iter().zip(counts) {
            ConstCounter::new(count).encode(family.encode_family(&[("fate", fate.name())])?)?;
        }
        Ok(())
    }
}

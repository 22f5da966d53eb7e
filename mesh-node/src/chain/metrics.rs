//! What is counted of the chain.
//!
//! In:  repairs, and states as they change.
//! Out: `mesh_chain_repairs_total` by kind; `mesh_chain_mode`, which is 1 for the mode in force.

use super::method::Method;
use super::plan::State;
use crate::telemetry::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Every kind of repair.
const KINDS: [&str; 5] = ["binary", "conflist", "drop-in", "network", "stale"];
/// Every mode.
const MODES: [&str; 3] = ["none", Method::DropIn.name(), Method::Conflist.name()];

type Label = [(&'static str, &'static str); 1];

pub(super) struct Counts {
    repairs: Family<Label, Counter>,
    mode: Family<Label, Gauge>,
}

impl Counts {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let counts = Self { repairs: Family::default(), mode: Family::default() };
        for kind in KINDS {
            drop(counts.repairs.get_or_create(&[("kind", kind)]));
        }
        counts.set(&State::Idle);
        let (repairs, mode) = (counts.repairs.clone(), counts.mode.clone());
        metrics.register(|registry| {
            let help = "Times that the plugin or its entry in the runtime's chain was disturbed and was put right";
            registry.register("mesh_chain_repairs", help, repairs);
            registry.register("mesh_chain_mode", "How the plugin is in the runtime's chain", mode);
        });
        counts
    }

    pub(super) fn repaired(&self, kind: &'static str) {
        self.repairs.get_or_create(&[("kind", kind)]).inc();
    }

    pub(super) fn set(&self, state: &State) {
        let now = match state {
            State::Installed { method, .. } => method.name(),
            State::Idle | State::Waiting | State::Refused { .. } | State::Removed => "none",
        };
        for mode in MODES {
            self.mode.get_or_create(&[("mode", mode)]).set(i64::from(mode == now));
        }
    }
}

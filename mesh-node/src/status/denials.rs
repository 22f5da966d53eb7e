//! Which denials get an Event.
//!
//! In:  each denial: the pod or gateway, and the rule.
//! Out: whether it gets one; the others are counted in `mesh_status_denials_untold_total`.
//! Invariant: each hears of a rule once in `REST`, all together of `BURST` and then of one in `COST`; what is remembered is
//! bounded by that.
//! Invariant: to ask allocates nothing, so that a flood of denials costs little.

use super::pace::Pace;
use crate::model::ObjectRef;
use crate::telemetry::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long whoever was told of a rule is not told of it again.
const REST: Duration = Duration::from_secs(60);
/// After how long there may be another Event.
const COST: Duration = Duration::from_secs(1);
/// Events at once after a rest.
const BURST: u32 = 25;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Untold {
    why: &'static str,
}

/// What was told of late.
#[derive(Debug)]
pub(super) struct Denials {
    untold: Family<Untold, Counter>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    pace: Pace,
    /// When each was told of a rule last, by a hash of both: two that share one would be told as if they were one.
    last: HashMap<u64, Instant>,
    hashes: RandomState,
}

impl Default for Denials {
    fn default() -> Self {
        let told =
            Told { pace: Pace::new(COST, BURST, Instant::now()), last: HashMap::new(), hashes: RandomState::new() };
        Self { untold: Family::default(), told: Mutex::new(told) }
    }
}

impl Denials {
    /// Registers the counter.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let help = "Denials that got no Event, because the pod was told of the rule or others were told of much";
            registry.register("mesh_status_denials_untold", help, own.untold.clone());
        });
        own
    }

    /// Is the pod or gateway with this UID told now that a rule denied something?
    pub(super) fn takes(&self, uid: &str, rule: (Option<&ObjectRef>, &str), now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Told { pace, last, hashes } = &mut *told;
        let key = hashes.hash_one((uid, rule));
        let why = if last.get(&key).is_some_and(|last| now.duration_since(*last) < REST) {
            "told_already"
        } else if pace.next() > now {
            "too_many"
        } else {
            pace.spend(now);
            last.retain(|_, last| now.duration_since(*last) < REST);
            last.insert(key, now);
            return true;
        };
        self.untold.get_or_create(&Untold { why }).inc();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_hears_of_a_rule_once_a_minute_and_all_pods_together_of_few() {
        let (denials, start) = (Denials::default(), Instant::now());
        let untold = |why| denials.untold.get_or_create(&Untold { why }).get();
        let takes = |pod: &str, rule: &str, now| denials.takes(pod, (None, rule), now);
        assert!(takes("a", "rule", start));
        assert!(!takes("a", "rule", start + REST / 2));
        assert_eq!((untold("told_already"), untold("too_many")), (1, 0));
        assert!(takes("a", "rule", start + REST));
        assert!(takes("b", "rule", start + REST) && takes("a", "other", start + REST));

        let flood = start + 10 * REST;
        let told = (0..1000).filter(|pod| takes(&format!("pod {pod}"), "rule", flood)).count();
        assert_eq!(told, BURST as usize);
        assert_eq!(untold("too_many"), 1000 - u64::from(BURST));
        // However long it lasts, what is remembered is what was told within a minute.
        for second in 0..600 {
            let now = flood + Duration::from_secs(second);
            let told = (0..10).filter(|pod| takes(&format!("{second} {pod}"), "rule", now)).count();
            assert!(told <= 1, "{told} in second {second}");
        }
        let remembered = denials.told.lock().expect("nobody panicked").last.len();
        assert!((50..=60 + BURST as usize).contains(&remembered), "{remembered} are remembered");
    }
}

//! Which denials get an Event.
//!
//! In:  each denial: the pod and the rule.
//! Out: whether it gets one; the others are counted in `mesh_status_denials_untold_total`.
//! Invariant: a pod hears of a rule once in `REST`, all pods together of `BURST` and then of one in `COST`; what is remembered is
//! bounded by that.

use super::Denial;
use super::pace::Pace;
use crate::model::ObjectRef;
use crate::telemetry::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a pod that was told of a rule is not told of it again.
const REST: Duration = Duration::from_secs(60);
/// After how long there may be another Event.
const COST: Duration = Duration::from_secs(1);
/// Events at once after a rest.
const BURST: u32 = 25;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Untold {
    why: &'static str,
}

/// What pods were told of late.
#[derive(Debug)]
pub(super) struct Denials {
    untold: Family<Untold, Counter>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    pace: Pace,
    last: HashMap<Rule, Instant>,
}

/// A rule at a pod.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rule {
    pod_uid: String,
    policy: Option<ObjectRef>,
    rule: String,
}

impl Default for Denials {
    fn default() -> Self {
        let told = Told { pace: Pace::new(COST, BURST, Instant::now()), last: HashMap::new() };
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

    /// Is the pod with this UID told of this denial now?
    pub(super) fn takes(&self, pod_uid: &str, denial: &Denial, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Told { pace, last } = &mut *told;
        let Denial { policy, rule, note: _ } = denial;
        let key = Rule { pod_uid: pod_uid.to_owned(), policy: policy.clone(), rule: rule.clone() };
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
        let takes = |pod: &str, rule: &str, now| {
            denials.takes(pod, &Denial { rule: rule.to_owned(), policy: None, note: String::new() }, now)
        };
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

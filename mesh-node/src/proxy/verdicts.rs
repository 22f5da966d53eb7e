//! What policies decided, counted rule by rule.
//!
//! In:  verdicts.
//! Out: `mesh_policy_verdicts_total`; of what would otherwise be told nowhere, a line in the log.
//! Invariant: bounded: beyond a ceiling rules are counted together. What is told is told once a second for each rule, and counted
//! each time.

use crate::model::ObjectRef;
use crate::model::policy::RuleOrigin;
use crate::policy::{By, Verdict};
use crate::telemetry::{Metrics, Side};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Rules that are counted by name.
const NAMED: usize = 1024;
/// By what the others are counted.
const OVERFLOW: &str = "overflow";
/// Rules that decided nothing for so long are forgotten, where there is no room for others.
const UNUSED: Duration = Duration::from_secs(60 * 60);
/// How long a rule that was told is not told again.
const REST: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rule {
    side: &'static str,
    policy: String,
    rule: String,
    verdict: &'static str,
}

/// The counters; clones share them.
#[derive(Clone)]
pub(crate) struct Verdicts {
    rules: Family<Rule, Counter>,
    /// By a hash of the rule and what it decided.
    known: Arc<RwLock<HashMap<u64, Known>>>,
    hashes: RandomState,
    start: Instant,
}

/// What is known of a rule that decided something.
struct Known {
    rule: Rule,
    counter: Counter,
    /// When it was told last, in milliseconds since the start.
    last: AtomicU64,
}

impl Default for Verdicts {
    fn default() -> Self {
        let (rules, known) = (Family::default(), Arc::default());
        Self { rules, known, hashes: RandomState::new(), start: Instant::now() }
    }
}

impl Verdicts {
    /// Registers the counters.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let help = "Connections and requests that a rule of a policy denied or tells of, and those that one on trial decides";
            registry.register("mesh_policy_verdicts", help, own.rules.clone());
        });
        own
    }

    /// It was denied; the access log says so.
    pub(crate) fn denied(&self, side: Side, by: &By<'_>) {
        self.count(side, by, "denied");
    }

    /// A rule tells of it.
    pub(crate) fn told(&self, side: Side, origin: &RuleOrigin) {
        if self.add(side, (Some(&origin.object), &origin.rule), "told") {
            tracing::info!(side = side.name(), policy = %origin.object, rule = origin.rule, "a rule tells of traffic");
        }
    }

    /// With the policies that are on trial it would be this.
    pub(crate) fn tried(&self, side: Side, verdict: &Verdict<'_>) {
        let would_be = if verdict.is_allowed { "would_allow" } else { "would_deny" };
        if self.count(side, &verdict.by, would_be) {
            tracing::info!(side = side.name(), by = %verdict.by, would_be, "a policy on trial would decide");
        }
    }

    /// Returns whether it is to be told.
    fn count(&self, side: Side, by: &By<'_>, verdict: &'static str) -> bool {
        self.add(side, (by.object(), &by.rule()), verdict)
    }

    /// What is known is counted without waiting for others who count.
    fn add(&self, side: Side, (policy, rule): (Option<&ObjectRef>, &str), verdict: &'static str) -> bool {
        let key = self.hashes.hash_one((side.name(), policy, rule, verdict));
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.count(now);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMED && !known.contains_key(&key) {
            for (_, unused) in known.extract_if(|_, known| now.saturating_sub(known.last()) >= millis(UNUSED)) {
                self.rules.remove(&unused.rule);
            }
        }
        let is_named = known.len() < NAMED || known.contains_key(&key);
        let overflow = || OVERFLOW.to_owned();
        let (key, rule) = if is_named {
            let policy = policy.map_or_else(|| "none".to_owned(), ToString::to_string);
            (key, Rule { side: side.name(), policy, rule: rule.to_owned(), verdict })
        } else {
            let rule = Rule { side: side.name(), policy: overflow(), rule: overflow(), verdict };
            (self.hashes.hash_one(&rule), rule)
        };
        let mut is_new = false;
        let known = known.entry(key).or_insert_with(|| {
            is_new = true;
            let counter = self.rules.get_or_create(&rule).clone();
            Known { rule, counter, last: AtomicU64::new(now) }
        });
        if is_new {
            known.counter.inc();
        }
        is_new || known.count(now)
    }
}

impl Known {
    fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Counts one more; returns whether it is to be told.
    fn count(&self, now: u64) -> bool {
        self.counter.inc();
        let last = self.last();
        let is_due = now.saturating_sub(last) >= millis(REST);
        // Of several who find it due, one tells.
        is_due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;

    #[test]
    fn each_rule_is_counted_and_told_once_a_second_up_to_a_ceiling() {
        let verdicts = Verdicts::default();
        let policy = |number: usize| ObjectRef::new("P", Name::new("a", format!("p{number}")));
        let add = |number: usize| verdicts.add(Side::Inbound, (Some(&policy(number)), "rules[0]"), "told");
        let count = |policy: String, rule: &str| {
            let rule = Rule { side: "inbound", policy, rule: rule.to_owned(), verdict: "told" };
            verdicts.rules.get_or_create(&rule).get()
        };
        assert!(add(0) && !add(0));
        assert_eq!(count(policy(0).to_string(), "rules[0]"), 2);
        for number in 0..2 * NAMED {
            add(number);
        }
        assert!(verdicts.known.read().expect("nobody panicked").len() <= NAMED + 1);
        assert_eq!(count(OVERFLOW.to_owned(), OVERFLOW), 1024);
        let origin = RuleOrigin { object: ObjectRef::new("P", Name::new("a", "b")), rule: "r".to_owned() };
        verdicts.told(Side::Inbound, &origin);
        assert_eq!(count(OVERFLOW.to_owned(), OVERFLOW), 1025);
        // What rested is told again, by one of those who count.
        let known = verdicts.known.read().expect("nobody panicked");
        let one = known.values().next().expect("a rule");
        let later = one.last() + millis(REST);
        assert!(!one.count(later - 1) && one.count(later) && !one.count(later));
    }
}

//! What policies decided, counted rule by rule.
//!
//! In:  verdicts.
//! Out: `mesh_policy_verdicts_total`; of what would otherwise be told nowhere, a line in the log.
//! Invariant: bounded: beyond a ceiling rules are counted together. What is told is told once a second for each rule, and counted
//! each time.

use crate::model::policy::RuleOrigin;
use crate::policy::{By, Verdict};
use crate::telemetry::{Metrics, Side};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
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
#[derive(Clone, Default)]
pub(crate) struct Verdicts {
    rules: Family<Rule, Counter>,
    /// When each was told last.
    told: Arc<Mutex<HashMap<Rule, Instant>>>,
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
        let (policy, rule) = (origin.object.to_string(), origin.rule.clone());
        if self.add(Rule { side: side.name(), policy, rule, verdict: "told" }) {
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
        let policy = by.object().map_or_else(|| "none".to_owned(), ToString::to_string);
        self.add(Rule { side: side.name(), policy, rule: by.rule().into_owned(), verdict })
    }

    fn add(&self, rule: Rule) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut is_full = told.len() >= NAMED && !told.contains_key(&rule);
        if is_full {
            for (unused, _) in told.extract_if(|_, last| now.duration_since(*last) >= UNUSED) {
                self.rules.remove(&unused);
            }
            is_full = told.len() >= NAMED;
        }
        let rule = if is_full { Rule { policy: OVERFLOW.to_owned(), rule: OVERFLOW.to_owned(), ..rule } } else { rule };
        self.rules.get_or_create(&rule).inc();
        match told.get_mut(&rule) {
            Some(last) if now.duration_since(*last) < REST => false,
            Some(last) => {
                *last = now;
                true
            }
            None => told.insert(rule, now).is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Name, ObjectRef};

    #[test]
    fn each_rule_is_counted_and_told_once_a_second_up_to_a_ceiling() {
        let verdicts = Verdicts::default();
        let rule = |number: usize| Rule {
            side: "inbound",
            policy: format!("p{number}"),
            rule: "rules[0]".to_owned(),
            verdict: "told",
        };
        assert!(verdicts.add(rule(0)) && !verdicts.add(rule(0)));
        assert_eq!(verdicts.rules.get_or_create(&rule(0)).get(), 2);
        for number in 0..2 * NAMED {
            verdicts.add(rule(number));
        }
        assert!(verdicts.told.lock().expect("nobody panicked").len() <= NAMED + 1);
        let overflow = Rule { policy: OVERFLOW.to_owned(), rule: OVERFLOW.to_owned(), ..rule(0) };
        assert_eq!(verdicts.rules.get_or_create(&overflow).get(), 1024);
        let origin = RuleOrigin { object: ObjectRef::new("P", Name::new("a", "b")), rule: "r".to_owned() };
        verdicts.told(Side::Inbound, &origin);
        assert_eq!(verdicts.rules.get_or_create(&overflow).get(), 1025);
    }
}

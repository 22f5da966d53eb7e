//! How a client behaves on its connection: what it asks for, gives up, does not take, or does not even ask for.
//!
//! In:  each request as it begins and ends, each response as it is offered.
//! Out: when a connection has rested for too long or is stalled; what is counted when it ends.
//! Invariant: connections of pods may rest, and be read as slowly as their clients like: what they hold is bounded by their number.
//! Source: RFC 9113, section 10.5; CVE-2023-44487 for requests that are reset as soon as they are made.

use super::abuse;
use super::body::{Passed, Taker};
use super::frames::Observed;
use super::{Downstream, Entry};
use crate::proxy::refusal::{self, Refusal};
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a connection from outside may take for the first request, if it may not idle for less.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// Whoever gives a request up before this never wanted its answer.
const HASTE: Duration = Duration::from_secs(1);
/// So many of these end a connection of HTTP/2, if they are more than half of its requests.
const MOST_HASTY: u32 = 500;

impl Downstream {
    /// A request has come.
    pub(super) fn begins(&self) {
        self.asked.set(self.asked.get().saturating_add(1));
        self.under_way.set(self.under_way.get() + 1);
    }

    /// A request has ended that `began` then; `given_up` by its client.
    pub(super) fn ends(&self, (began, now): (Instant, Instant), given_up: bool) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        self.rested.set(now);
        if given_up && self.is_http2.get() && now.saturating_duration_since(began) < HASTE {
            let hasty = self.hasty.get() + 1;
            self.hasty.set(hasty);
            if is_rapid(hasty, self.asked.get()) && self.cancelled.cause().is_none() {
                let detail = format!("{hasty} of {} requests were given up at once", self.asked.get());
                self.cancelled.cancel(Refusal::new(refusal::RAPID_RESET, detail));
            }
        }
    }

    /// A response is offered to the client, of which this will have passed.
    pub(super) fn offers(&self, passed: &Rc<Passed>) {
        let Entry::Edge { .. } = self.entry else { return };
        passed.taker.set(Taker::Waits(Instant::now()));
        let mut offered = self.offered.borrow_mut();
        if offered.len() > 2 * usize::try_from(self.under_way.get()).unwrap_or(usize::MAX) {
            offered.retain(|passed| passed.strong_count() > 0);
        }
        offered.push(Rc::downgrade(passed));
    }

    /// Waits until nothing was asked for as long as that may be on a connection from outside: the head of a request counts once it
    /// is whole. Pods' own connections may rest.
    pub(super) async fn idled(&self) {
        let Entry::Edge { .. } = self.entry else { return std::future::pending().await };
        let idle = self.worker.config.edge.idle_timeout;
        loop {
            let limit = if self.asked.get() > 0 { idle } else { idle.min(FIRST_REQUEST) };
            let rests = match self.under_way.get() {
                0 => self.rested.get().elapsed(),
                _ => Duration::ZERO,
            };
            if rests >= limit {
                return;
            }
            tokio::time::sleep(limit - rests).await;
        }
    }

    /// Waits until a response was not taken for as long as a connection from outside may rest.
    pub(super) async fn stalled(&self) {
        let Entry::Edge { .. } = self.entry else { return std::future::pending().await };
        let limit = self.worker.config.edge.idle_timeout;
        loop {
            let waits =
                self.offered.borrow().iter().filter_map(|passed| passed.upgrade()?.taker.get().waits_since()).min();
            let waits = waits.map_or(Duration::ZERO, |since| since.elapsed());
            if waits >= limit {
                return;
            }
            tokio::time::sleep(limit - waits).await;
        }
    }

    /// Counts what the client did against the rules, once its connection has ended. Streams of one that `is_ending` are left to
    /// others.
    pub(super) fn judge(&self, observed: &Observed, ended: Option<&(dyn Error + 'static)>, is_ending: bool) {
        let metrics = &self.worker.metrics;
        let reason = match self.cancelled.cause() {
            Some(refusal) => {
                Some(refusal.reason).filter(|reason| [refusal::RAPID_RESET, refusal::STALLED].contains(reason))
            }
            None if observed.is_flooded() => Some(abuse::CONTROL_FLOOD),
            None => ended.and_then(abuse::reason),
        };
        if let Some(reason) = reason {
            metrics.bad_http(self.side, reason, 1);
        }
        let lost = observed.begun().saturating_sub(self.asked.get());
        if lost > 0 && !is_ending {
            metrics.bad_http(self.side, abuse::BAD_STREAM, lost);
        }
        if let Some(error) = ended {
            tracing::debug!(error, "a connection of HTTP ended");
        }
    }
}

/// Are these too many requests that were given up at once?
const fn is_rapid(hasty: u32, asked: u32) -> bool {
    hasty >= MOST_HASTY && hasty > asked / 2
}

#[cfg(test)]
mod tests {
    use super::is_rapid;

    #[test]
    fn a_client_that_also_wants_answers_may_give_up_many() {
        assert!(!is_rapid(499, 499));
        assert!(is_rapid(500, 500));
        assert!(is_rapid(500, 999));
        assert!(!is_rapid(500, 1000));
        assert!(!is_rapid(4_000, 100_000));
    }
}

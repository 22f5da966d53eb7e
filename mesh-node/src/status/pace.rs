//! How often something may be done.
//!
//! In:  each time that it was done.
//! Out: when it may be done again.
//! Invariant: never more often than the rate, but for a burst after a rest.

use std::time::Duration;
use tokio::time::Instant;

/// A bucket that holds a burst and fills at a rate, as the time at which it is full.
#[derive(Debug)]
pub(super) struct Pace {
    full: Instant,
    /// After how long there is another one.
    cost: Duration,
    burst: u32,
}

impl Pace {
    /// One that is full.
    pub(super) fn new(cost: Duration, burst: u32, now: Instant) -> Self {
        Self { full: now, cost, burst }
    }

    /// When it may be done again.
    pub(super) fn next(&self) -> Instant {
        self.full.checked_sub(self.cost * (self.burst - 1)).unwrap_or(self.full)
    }

    /// It is done.
    pub(super) fn spend(&mut self, now: Instant) {
        self.full = self.full.max(now) + self.cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        const RATE: u32 = 20;
        const BURST: u32 = 50;
        let cost = Duration::from_secs(1) / RATE;
        let start = Instant::now() + Duration::from_secs(3600);
        let mut pace = Pace::new(cost, BURST, start);
        for _ in 0..BURST {
            assert!(pace.next() <= start);
            pace.spend(start);
        }
        assert_eq!(pace.next(), start + cost);
        // A rest of a second gives back a second's worth, beside the one that is due.
        let later = start + Duration::from_secs(1);
        for _ in 0..RATE {
            assert!(pace.next() <= later);
            pace.spend(later);
        }
        assert!(pace.next() > later);
    }
}

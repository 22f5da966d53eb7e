//! How many further attempts an upstream may be given beside the requests for it.
//!
//! In:  every request, and every wish to try one again.
//! Out: whether that may be.
//! Invariant: over the last ten seconds further attempts are at most a fifth of the requests, or ten a second where those are
//! few: a moment in which many connections break is made good, and an upstream that fails for everyone is left in peace.
//! Source: Gateway API GEP-3388, whose defaults these are.

use std::cell::RefCell;
use std::time::Instant;

/// How many seconds count.
const WINDOW: usize = 10;
/// Further attempts for each hundred requests.
const PERCENT: u64 = 20;
/// Further attempts in the window however few requests there are.
const LEAST: u64 = 10 * WINDOW as u64;

/// What one upstream was given of late.
#[derive(Default)]
pub(crate) struct Budget(RefCell<Seconds>);

#[derive(Default)]
struct Seconds {
    begun: Option<Instant>,
    seconds: [Second; WINDOW],
}

#[derive(Clone, Copy, Default)]
struct Second {
    /// Counted from the begin.
    number: u64,
    requests: u32,
    retries: u32,
}

impl Budget {
    /// A request.
    pub(crate) fn note_request(&self, now: Instant) {
        let mut seconds = self.0.borrow_mut();
        let second = seconds.at(now);
        second.requests = second.requests.saturating_add(1);
    }

    /// May there be a further attempt? If so, it is counted.
    pub(crate) fn takes_retry(&self, now: Instant) -> bool {
        let mut seconds = self.0.borrow_mut();
        let number = seconds.at(now).number;
        let recent = |second: &&Second| second.number + WINDOW as u64 > number;
        let (requests, retries) = seconds.seconds.iter().filter(recent).fold((0, 0), |(requests, retries), one| {
            (requests + u64::from(one.requests), retries + u64::from(one.retries))
        });
        let takes = retries < LEAST.max(requests * PERCENT / 100);
        if takes {
            let second = seconds.at(now);
            second.retries = second.retries.saturating_add(1);
        }
        takes
    }
}

impl Seconds {
    /// The second that it is.
    fn at(&mut self, now: Instant) -> &mut Second {
        let begun = *self.begun.get_or_insert(now);
        let number = now.saturating_duration_since(begun).as_secs();
        let second = &mut self.seconds[usize::try_from(number % WINDOW as u64).unwrap_or(0)];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn taken(budget: &Budget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.takes_retry(now)).take(10_000).take_while(|&takes| takes).count()
    }

    #[test]
    fn attempts_are_few_beside_requests_of_the_last_seconds() {
        let (budget, begun) = (Budget::default(), Instant::now());
        assert_eq!(taken(&budget, begun), 100, "so many even without requests");
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(taken(&budget, after(9)), 0, "they still count");
        assert_eq!(taken(&budget, after(10)), 100, "they count no more");
        for second in 30..40 {
            (0..1000).for_each(|_| budget.note_request(after(second)));
        }
        assert_eq!(taken(&budget, after(39)), 2000);
        assert_eq!(taken(&budget, after(48)), 0);
        assert_eq!(taken(&budget, after(60)), 100);
    }
}

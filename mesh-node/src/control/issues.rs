//! Which issues are worth a line in the log: those that last.
//!
//! In:  the issues of each snapshot, the time.
//! Out: each issue once, when it has lasted for [`LASTING`]; the admin server shows every issue at once.
//! Invariant: objects that belong together arrive one by one; what is amiss only in between is not told.

use crate::model::Issue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an issue lasts before it is told. A pod's sandbox is often known a moment before the pod is.
const LASTING: Duration = Duration::from_secs(2);

/// The issues that there are.
#[derive(Default)]
pub(super) struct Issues(BTreeMap<Arc<Issue>, Since>);

#[derive(Clone, Copy)]
enum Since {
    /// Seen at this time for the first time.
    Seen(Instant),
    Told,
}

impl Issues {
    /// Takes up what there is now and forgets the rest.
    pub(super) fn set(&mut self, issues: &[Arc<Issue>], now: Instant) {
        let known = |issue: &Issue| self.0.get(issue).copied().unwrap_or(Since::Seen(now));
        self.0 = issues.iter().map(|issue| (Arc::clone(issue), known(issue))).collect();
    }

    /// Those that are to be told now.
    pub(super) fn due(&mut self, now: Instant) -> impl Iterator<Item = &Arc<Issue>> {
        self.0.iter_mut().filter_map(move |(issue, since)| match *since {
            Since::Seen(at) if now.duration_since(at) >= LASTING => {
                *since = Since::Told;
                Some(issue)
            }
            Since::Seen(_) | Since::Told => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Name, ObjectRef};

    #[test]
    fn what_lasts_is_told_once_and_what_passes_is_not() {
        let issue =
            |name: &str| Arc::new(Issue::new(&ObjectRef::new("Pod", Name::new("shop", name)), "", "wrong", "right it"));
        let (lasting, passing) = (issue("lasting"), issue("passing"));
        let start = Instant::now();
        let mut issues = Issues::default();
        issues.set(&[lasting.clone(), passing], start);
        assert_eq!(issues.due(start).count(), 0);
        issues.set(std::slice::from_ref(&lasting), start + LASTING / 2);
        assert_eq!(issues.due(start + LASTING).collect::<Vec<_>>(), [&lasting]);
        issues.set(std::slice::from_ref(&lasting), start + LASTING);
        assert_eq!(issues.due(start + 2 * LASTING).count(), 0, "told twice");
        issues.set(&[], start + 2 * LASTING);
        issues.set(std::slice::from_ref(&lasting), start + 3 * LASTING);
        assert_eq!(issues.due(start + 4 * LASTING).count(), 1, "it is back");
    }
}

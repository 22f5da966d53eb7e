//! Bounds the unfinished handshakes of each source address.
//!
//! Invariant: a slot is taken exactly while its [`Slot`] lives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

type Counts = Rc<RefCell<HashMap<IpAddr, usize>>>;

/// The unfinished handshakes on one worker.
pub(crate) struct Handshakes {
    limit: usize,
    counts: Counts,
}

impl Handshakes {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, counts: Counts::default() }
    }

    /// A slot for a handshake with `source`; `None` if it has too many.
    pub(crate) fn enter(&self, source: IpAddr) -> Option<Slot> {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(source).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Slot { source, counts: Rc::clone(&self.counts) })
    }
}

/// One unfinished handshake.
pub(crate) struct Slot {
    source: IpAddr,
    counts: Counts,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_limit() {
        let handshakes = Handshakes::new(2);
        let (greedy, modest) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held = [handshakes.enter(greedy), handshakes.enter(greedy)];
        assert!(held.iter().all(Option::is_some));
        assert!(handshakes.enter(greedy).is_none());
        assert!(handshakes.enter(modest).is_some());
        drop(held);
        assert!(handshakes.counts.borrow().is_empty());
        assert!(handshakes.enter(greedy).is_some());
    }
}

//! The edges that one worker asked for lately, so that it need not ask the store that all workers share.
//!
//! In:  the labels of an edge.
//! Out: its counters, without a lock when they are known here.
//! Invariant: nothing stays longer than until the first question after a sweep, so that what is not in use any more can
//!   be retired; at most [`CAPACITY`] edges.

use super::{EdgeKey, EdgeMetrics};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Edges of one worker; beyond these it begins anew.
const CAPACITY: usize = 4096;

/// The edges that one worker asked for lately.
pub struct EdgeCache<K: EdgeKey> {
    store: EdgeMetrics<K>,
    known: RefCell<HashMap<K, Arc<K::Counters>>>,
    sweeps: Cell<u64>,
}

impl<K: EdgeKey> EdgeCache<K> {
    /// A cache of one worker before `store`.
    #[must_use]
    pub fn new(store: EdgeMetrics<K>) -> Self {
        Self { store, known: RefCell::default(), sweeps: Cell::new(0) }
    }

    /// The counters of an edge, as [`EdgeMetrics::edge`].
    #[must_use]
    pub fn edge(&self, labels: &K) -> Arc<K::Counters> {
        let mut known = self.known.borrow_mut();
        let sweeps = self.store.shared.sweeps.load(Ordering::Relaxed);
        if self.sweeps.replace(sweeps) != sweeps {
            known.clear();
        }
        if let Some(counters) = known.get(labels) {
            return Arc::clone(counters);
        }
        let counters = self.store.edge(labels);
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(labels.clone(), Arc::clone(&counters));
        counters
    }
}

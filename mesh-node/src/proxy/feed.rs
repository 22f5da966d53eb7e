//! The snapshot that traffic is judged by, from whoever publishes it to every worker.
//!
//! Out: [`Feed::snapshot`], one atomic load; [`Feed::changes`], for those who wait.
//! Invariant: whoever is woken by a change sees at least that snapshot.

use crate::snapshot::NodeSnapshot;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::watch;

/// The current snapshot.
pub struct Feed {
    current: ArcSwap<NodeSnapshot>,
    changes: watch::Sender<()>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { current: ArcSwap::default(), changes: watch::Sender::new(()) }
    }
}

impl Feed {
    /// Makes `snapshot` the current one.
    pub fn publish(&self, snapshot: Arc<NodeSnapshot>) {
        self.current.store(snapshot);
        self.changes.send_replace(());
    }

    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<NodeSnapshot> {
        self.current.load_full()
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

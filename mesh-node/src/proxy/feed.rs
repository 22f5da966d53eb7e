//! The snapshot that traffic is judged by, from whoever publishes it to every worker.
//!
//! Out: [`Feed::snapshot`], one atomic load; [`Feed::changes`], for those who wait.
//! Invariant: whoever is woken by a change sees at least that snapshot.
//! Invariant: a departure goes forward alone, one stage after the other.

use crate::snapshot::NodeSnapshot;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::watch;

/// How far this node has left the mesh. Nodes do so one after another; so that none is spoken to in what it does not take any
/// more, each first takes both, then speaks plain text, then no longer takes mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Departure {
    /// Not at all.
    #[default]
    Staying,
    /// Its pods take plain text too, whatever their policies say.
    TakingBoth,
    /// Its pods speak plain text.
    SpeakingPlain,
}

/// The current snapshot, and how far the node has left.
pub struct Feed {
    current: ArcSwap<NodeSnapshot>,
    changes: watch::Sender<()>,
    departure: AtomicU8,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            changes: watch::Sender::new(()),
            departure: AtomicU8::new(Departure::default() as u8),
        }
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

    /// The node leaves the mesh, as far as this.
    pub fn depart(&self, departure: Departure) {
        self.departure.fetch_max(departure as u8, Ordering::AcqRel);
    }

    /// How far the node has left the mesh.
    #[must_use]
    pub fn departure(&self) -> Departure {
        let departure = self.departure.load(Ordering::Acquire);
        let stages = [Departure::Staying, Departure::TakingBoth, Departure::SpeakingPlain];
        stages.into_iter().find(|stage| *stage as u8 == departure).unwrap_or_default()
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

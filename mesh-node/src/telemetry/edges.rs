//! Counters of edges: one pair of workloads, as one side sees it.
//!
//! In:  the labels of an edge, from the proxy.
//! Out: [`EdgeMetrics`], which gives each edge its counters and writes them when metrics are scraped.
//! Invariant: at most the configured number of edges, and a few in which those beyond the ceiling meet.
//! Invariant: label sets of equal content are stored once; ten thousand edges between a thousand workloads take some
//!   400 bytes a label set and what their counters take.
//! Source: Istio "Standard Metrics".

mod cache;
mod encode;
#[cfg(test)]
pub(super) mod tests;

pub use cache::EdgeCache;
pub(super) use encode::Labels;

use super::{Metrics, Security, Side};
use crate::model::Text;
use crate::snapshot::{ServiceName, WorkloadLabels};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// What stands for the workloads of edges beyond the ceiling.
const OVERFLOW: &str = "overflow";

/// How often edges without use are looked for.
const SWEEP: Duration = Duration::from_secs(5 * 60);

/// Edges that were not in use for so long are forgotten.
const UNUSED: Duration = Duration::from_secs(60 * 60);

/// What a node says of itself, and its ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Istio's `source_cluster` and `destination_cluster` of every known workload.
    pub cluster: String,
    /// Further edges are counted together.
    pub max_edges: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cluster: "Kubernetes".into(), max_edges: 10_000 }
    }
}

/// What all edges are told apart by. `None` is written as Istio's `unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeLabels {
    /// Who reports.
    pub side: Side,
    /// The workload that dialled.
    pub source: Option<Arc<WorkloadLabels>>,
    /// The workload that was dialled.
    pub destination: Option<Arc<WorkloadLabels>>,
    /// The service that was dialled.
    pub service: Option<Arc<ServiceName>>,
    /// How its connections are protected; principals are named for mutual TLS only.
    pub security: Security,
    /// Istio's response flags, `-` for none.
    pub flags: &'static str,
}

/// By the names of workloads alone: an edge is looked for at each request, and few have the same.
impl Hash for EdgeLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.side.hash(state);
        for workload in [&self.source, &self.destination] {
            workload.as_ref().map(|labels| (&labels.namespace, &labels.workload)).hash(state);
        }
    }
}

/// The labels of one kind of edge, and what is counted of it.
pub trait EdgeKey: Clone + fmt::Debug + Eq + Hash + Send + Sync + 'static {
    /// The counters of one edge. Adding takes no lock.
    type Counters: fmt::Debug + Default + Send + Sync;

    /// The metric that says how many edges there are, and that of the overflow.
    const NAMES: [&'static str; 2];

    /// What is common to all kinds.
    fn labels(&mut self) -> &mut EdgeLabels;

    /// Where it is counted beyond the ceiling. There are few of these, whatever was asked for.
    #[must_use]
    fn overflow(&self) -> Self;

    /// Writes the counters of `edges`.
    ///
    /// **Errors**: the text takes no more.
    fn encode(
        edges: &[(Self, Arc<Self::Counters>)],
        cluster: &str,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error>;
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `count`.
    pub fn inc_by(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Every edge of one kind on this node. Clones share them.
#[derive(Debug)]
pub struct EdgeMetrics<K: EdgeKey> {
    shared: Arc<Shared<K>>,
}

impl<K: EdgeKey> Clone for EdgeMetrics<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared<K: EdgeKey> {
    settings: Settings,
    began: Instant,
    edges: RwLock<Edges<K>>,
    overflowed: Counter,
    /// How often edges without use were looked for.
    sweeps: AtomicU64,
}

#[derive(Debug)]
struct Edges<K: EdgeKey> {
    slots: HashMap<K, Slot<K::Counters>>,
    workloads: HashSet<Arc<WorkloadLabels>>,
    services: HashSet<Arc<ServiceName>>,
}

#[derive(Debug)]
struct Slot<C> {
    counters: Arc<C>,
    /// When it was last asked for or seen in use, in milliseconds since `Shared::began`.
    used: AtomicU64,
}

impl<K: EdgeKey> EdgeMetrics<K> {
    /// Registers the metrics; no edge exists yet.
    #[must_use]
    pub fn new(metrics: &Metrics, settings: Settings) -> Self {
        let overflowed = Counter::default();
        let edges = Edges { slots: HashMap::new(), workloads: HashSet::new(), services: HashSet::new() };
        let shared = Arc::new(Shared {
            settings,
            began: Instant::now(),
            edges: RwLock::new(edges),
            overflowed: overflowed.clone(),
            sweeps: AtomicU64::new(0),
        });
        metrics.register(|registry| {
            let help = "How often something was counted together with others, because of the ceiling of edges";
            registry.register(K::NAMES[1], help, overflowed);
            registry.register_collector(Box::new(Arc::clone(&shared)));
        });
        Self { shared }
    }

    /// The counters of an edge, which is made when it is new. Meant to be asked once per stream and kept while
    /// it is in use: an edge that anyone holds is never retired.
    #[must_use]
    pub fn edge(&self, labels: &K) -> Arc<K::Counters> {
        let now = self.shared.millis(Instant::now());
        if let Some(counters) = self.shared.read().find(labels, now) {
            return counters;
        }
        let mut edges = self.shared.write();
        if let Some(counters) = edges.find(labels, now) {
            return counters;
        }
        if edges.slots.len() < self.shared.settings.max_edges {
            return edges.insert(labels, now);
        }
        self.shared.overflowed.inc();
        let overflow = labels.overflow();
        edges.find(&overflow, now).unwrap_or_else(|| edges.insert(&overflow, now))
    }

    /// Forgets edges that no one holds and no one asked for since `before`; returns how many. Their counters
    /// begin at zero should they come back, which rates of Prometheus take for a restart.
    pub fn retire(&self, before: Instant) -> usize {
        let (now, before) = (self.shared.millis(Instant::now()), self.shared.millis(before));
        let mut edges = self.shared.write();
        let count = edges.slots.len();
        edges.slots.retain(|_, slot| {
            if Arc::strong_count(&slot.counters) > 1 {
                *slot.used.get_mut() = now;
                return true;
            }
            *slot.used.get_mut() >= before
        });
        let retired = count - edges.slots.len();
        if retired > 0 {
            edges.workloads.retain(|labels| Arc::strong_count(labels) > 1);
            edges.services.retain(|name| Arc::strong_count(name) > 1);
            edges.slots.shrink_to_fit();
        }
        drop(edges);
        self.shared.sweeps.fetch_add(1, Ordering::Relaxed);
        retired
    }

    /// Retires edges as they fall out of use, for as long as it is polled.
    ///
    /// **Cancel**: safe; nothing is lost.
    pub async fn keep_retiring(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            if let Some(before) = Instant::now().checked_sub(UNUSED) {
                self.retire(before);
            }
        }
    }
}

impl<K: EdgeKey> Shared<K> {
    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self) -> RwLockReadGuard<'_, Edges<K>> {
        self.edges.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Edges<K>> {
        self.edges.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: EdgeKey> Edges<K> {
    fn find(&self, key: &K, now: u64) -> Option<Arc<K::Counters>> {
        let slot = self.slots.get(key)?;
        slot.used.store(now, Ordering::Relaxed);
        Some(Arc::clone(&slot.counters))
    }

    fn insert(&mut self, key: &K, now: u64) -> Arc<K::Counters> {
        let counters = Arc::<K::Counters>::default();
        let mut key = key.clone();
        let labels = key.labels();
        for workload in [&mut labels.source, &mut labels.destination].into_iter().flatten() {
            *workload = shared(&mut self.workloads, workload);
        }
        if let Some(service) = &mut labels.service {
            *service = shared(&mut self.services, service);
        }
        self.slots.insert(key, Slot { counters: Arc::clone(&counters), used: AtomicU64::new(now) });
        counters
    }
}

/// The one stored copy of `value`, which becomes it when there is none.
fn shared<T: Eq + Hash>(known: &mut HashSet<Arc<T>>, value: &Arc<T>) -> Arc<T> {
    if let Some(known) = known.get(value) {
        return Arc::clone(known);
    }
    known.insert(Arc::clone(value));
    Arc::clone(value)
}

impl EdgeLabels {
    /// The edge in which those beyond the ceiling meet.
    pub(super) fn beyond_ceiling(&self) -> Self {
        let workload = Arc::new(WorkloadLabels {
            workload: OVERFLOW.into(),
            namespace: Text::new(),
            app: Text::new(),
            version: Text::new(),
            canonical_service: OVERFLOW.into(),
            canonical_revision: Text::new(),
            principal: Text::new(),
        });
        Self {
            side: self.side,
            source: Some(Arc::clone(&workload)),
            destination: Some(workload),
            service: None,
            security: self.security,
            flags: "-",
        }
    }
}

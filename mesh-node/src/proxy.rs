//! Carries pods' connections: outbound to where they belong, inbound to the application.
//!
//! In:  the snapshot ([`Feed`]), certificates (`identity`), each pod's listeners (`steer`).
//! Out: traffic; Istio's TCP metrics and access records through `telemetry`.
//! Invariant: a connection lives on one thread; nothing on its way takes a lock or waits for another pod.
//! Invariant: every accepted connection has a counted fate and a reason.
//! Invariant: memory is bounded: an idle connection holds no buffer, a stuck one at most two, of one record each once
//! its pod has many.

mod authorize;
mod buffer;
mod connect;
mod denials;
mod edge;
mod facts;
mod feed;
pub mod frame;
mod hello;
mod http;
mod inbound;
mod io;
#[cfg(test)]
mod lab;
mod live;
mod metrics;
mod node;
mod outbound;
mod pool;
mod refusal;
mod relay;
mod report;
mod tls;
mod verdicts;
mod wire;
mod worker;

pub use self::http::Lesson;
pub use denials::{At, Denied, TellDenied};
pub use feed::{Departure, Feed};
pub use hello::{Hello, classify};

use self::http::Learnt;
use crate::identity::Keyring;
use crate::snapshot::{PodKey, WorkloadEntry};
use crate::sys::netns::NetNs;
use crate::sys::socket::PodListeners;
use crate::telemetry::access::AccessLog;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::tcp::TcpMetrics;
use crate::telemetry::trace::Tracer;
use crate::telemetry::{Metrics, Side};
use metrics::ProxyMetrics;
use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{self, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use worker::{Command, Parts};

/// How traffic is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Threads that carry traffic.
    pub workers: usize,
    /// How long an upstream may take to accept.
    pub connect_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Unfinished handshakes of one source address, on each worker.
    pub handshakes_per_source: usize,
    /// Connections of one pod, both sides together.
    pub connections_per_pod: u64,
    /// A file of roots that prove servers outside the mesh, beside the system's.
    pub outside_roots: Option<PathBuf>,
    /// What enters the mesh through gateways.
    pub edge: EdgeConfig,
}

/// How what enters the mesh through gateways is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    /// As whom daemons send it on.
    pub workload: Arc<WorkloadEntry>,
    /// Connections at one port, on each worker.
    pub connections: u32,
    /// How long a connection may be open without a request, or a response may wait to be taken.
    pub idle_timeout: Duration,
    /// How long nothing may pass on a connection that went over to another protocol.
    pub upgraded_idle_timeout: Duration,
}

/// Who is told of traffic.
#[derive(Clone)]
pub struct Observers {
    /// Of each connection or request, when it has ended.
    pub access: AccessLog,
    /// Of connections, counted by edge.
    pub tcp: TcpMetrics,
    /// Of requests, counted by edge.
    pub http: HttpMetrics,
    /// Of requests that are part of a trace.
    pub tracer: Tracer,
    /// Of what is denied at pods.
    pub denied: TellDenied,
}

/// Why traffic cannot be carried.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A thread or its runtime could not be had.
    #[error("cannot start a worker; raise the limit of threads or of open files")]
    Worker(#[source] std::io::Error),
    /// A listening socket could not be shared.
    #[error("cannot take over the listeners of a pod; raise the limit of open files")]
    Listener(#[source] std::io::Error),
    /// There must be one worker at least.
    #[error("`workers` is 0; give at least 1")]
    NoWorkers,
}

/// What a pod's connections amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that are open now, idle ones between nodes included.
    pub open: u64,
    /// Bytes that the pod sent, on streams that have ended.
    pub sent: u64,
    /// Bytes that the pod received, on streams that have ended.
    pub received: u64,
}

/// The same, as the worker counts.
#[derive(Default)]
struct Totals {
    open: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Totals {
    /// A stream or an exchange on one of the pod's sides carried so many bytes from the dialler, and to it.
    fn carried(&self, side: Side, request: u64, response: u64) {
        let (by_pod, to_pod) = match side {
            Side::Outbound => (request, response),
            Side::Inbound => (response, request),
        };
        self.sent.fetch_add(by_pod, Ordering::Relaxed);
        self.received.fetch_add(to_pod, Ordering::Relaxed);
    }
}

/// A pod's sockets, on their way to a worker.
struct PodTraffic {
    key: PodKey,
    ns: Arc<NetNs>,
    listeners: Vec<(TcpListener, Side)>,
    totals: Arc<Totals>,
}

/// The threads that carry traffic.
pub struct Proxy {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    learnt: Learnt,
    metrics: ProxyMetrics,
    homes: Mutex<Homes>,
}

/// Which worker serves which pod.
struct Homes {
    of: HashMap<PodKey, (usize, Arc<Totals>)>,
    load: Vec<usize>,
}

impl Proxy {
    /// Starts the workers. They end when the value is dropped.
    ///
    /// **Errors**: a thread could not be started.
    pub fn start(
        config: Config,
        feed: Arc<Feed>,
        keyring: Keyring,
        observers: Observers,
        metrics: &Metrics,
    ) -> Result<Self, ProxyError> {
        if config.workers == 0 {
            return Err(ProxyError::NoWorkers);
        }
        let count = config.workers;
        let node = Arc::new(NetNs::open("/proc/self/ns/net").map_err(ProxyError::Worker)?);
        let (metrics, learnt) = (ProxyMetrics::new(metrics), Learnt::default());
        let own = metrics.clone();
        let parts = Parts { config, feed, keyring, observers, metrics, node, learnt: learnt.clone() };
        let workers = (0..count).map(|number| start_worker(number, parts.clone())).collect::<Result<_, _>>()?;
        Ok(Self {
            workers,
            learnt,
            metrics: own,
            homes: Mutex::new(Homes { of: HashMap::new(), load: vec![0; count] }),
        })
    }

    /// Serves a pod's connections from its listeners, which stay open for as long as `serve` holds them.
    ///
    /// **Errors**: the listeners cannot be shared with a worker.
    pub fn serve(&self, key: &PodKey, ns: &Arc<NetNs>, listeners: &PodListeners) -> Result<(), ProxyError> {
        let sides = [
            (&listeners.outbound4, Side::Outbound),
            (&listeners.outbound6, Side::Outbound),
            (&listeners.inbound4, Side::Inbound),
            (&listeners.inbound6, Side::Inbound),
        ];
        let listeners = sides
            .into_iter()
            .filter_map(|(listener, side)| Some((listener.as_ref()?, side)))
            .map(|(listener, side)| Ok((listener.try_clone().map_err(ProxyError::Listener)?, side)))
            .collect::<Result<_, ProxyError>>()?;
        let (home, totals) = self.homes().assign(key);
        self.tell(home, Command::Serve(PodTraffic { key: Arc::clone(key), ns: Arc::clone(ns), listeners, totals }));
        Ok(())
    }

    /// What a pod's connections amount to; `None` for a pod that is not served.
    #[must_use]
    pub fn counts(&self, key: &PodKey) -> Option<Counts> {
        let (_, totals) = self.homes().of.get(key)?.clone();
        Some(Counts {
            open: totals.open.load(Ordering::Relaxed),
            sent: totals.sent.load(Ordering::Relaxed),
            received: totals.received.load(Ordering::Relaxed),
        })
    }

    /// The ports of gateways that are listened on, or cannot be: whether they are.
    #[must_use]
    pub fn edge_ports(&self) -> BTreeMap<u16, bool> {
        self.metrics.edge_ports()
    }

    /// What ports were seen to speak that do not say so.
    #[must_use]
    pub fn learnt(&self) -> Vec<Lesson> {
        self.learnt.lessons()
    }

    /// Takes no more connections for a pod and waits for the last one to end. Unknown pods have none.
    pub async fn retire(&self, key: &PodKey) {
        let Some(home) = self.homes().release(key) else { return };
        let (done, finished) = oneshot::channel();
        self.tell(home, Command::Retire(Arc::clone(key), done));
        // A worker that is gone has no connections left.
        let _worker_gone = finished.await;
    }

    /// Cuts the connections of a pod that is gone. What is returned is told, or closed, once the other ends know, for which the
    /// pod's network must still be there; `None` for unknown pods, which have none.
    pub fn remove(&self, key: &PodKey) -> Option<oneshot::Receiver<()>> {
        let home = self.homes().release(key)?;
        let (done, finished) = oneshot::channel();
        self.tell(home, Command::Remove(Arc::clone(key), done));
        Some(finished)
    }

    /// Takes no more connections at all and waits for the last one to end, or cuts what is left at `deadline`.
    pub async fn drain(&self, deadline: Instant) {
        let mut waiting = Vec::new();
        for home in 0..self.workers.len() {
            let (done, finished) = oneshot::channel();
            self.tell(home, Command::Drain(deadline, done));
            waiting.push(finished);
        }
        for finished in waiting {
            let _worker_gone = finished.await;
        }
    }

    fn tell(&self, home: usize, command: Command) {
        // Workers end only with this value.
        let _worker_gone = self.workers[home].send(command);
    }

    fn homes(&self) -> std::sync::MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Homes {
    /// The worker that serves a pod: the one it has, or the one with the fewest pods.
    fn assign(&mut self, key: &PodKey) -> (usize, Arc<Totals>) {
        if let Some(known) = self.of.get(key) {
            return known.clone();
        }
        let home = (0..self.load.len()).min_by_key(|&home| self.load[home]).unwrap_or(0);
        self.load[home] += 1;
        let assigned = (home, Arc::default());
        self.of.insert(Arc::clone(key), assigned.clone());
        assigned
    }

    fn release(&mut self, key: &PodKey) -> Option<usize> {
        let (home, _) = self.of.remove(key)?;
        self.load[home] -= 1;
        Some(home)
    }
}

fn start_worker(number: usize, parts: Parts) -> Result<mpsc::UnboundedSender<Command>, ProxyError> {
    let (sender, commands) = mpsc::unbounded_channel();
    let (begun, told) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("proxy-{number}"))
        .spawn(move || {
            // It can only be made where it runs.
            let runtime = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, outcome) = match runtime {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Whoever starts a worker waits for this.
            let _nobody_waits = begun.send(outcome);
            if let Some(runtime) = runtime {
                runtime.block_on(worker::run(parts, commands));
            }
        })
        .map_err(ProxyError::Worker)?;
    told.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into())).map_err(ProxyError::Worker)?;
    Ok(sender)
}

//! One thread that serves some of the pods, with everything it needs and shares with no other.
//!
//! In:  commands from [`super::Proxy`]; accepted connections of its pods.
//! Out: served connections.
//! Invariant: a pod's connections stay on one worker, so its pool, its open connections and its buffers need no lock.
//! Invariant: no pod can use up what the others need: connections and unfinished handshakes are bounded for each.

mod handshakes;

use super::buffer::Buffers;
use super::connect::Sockets;
use super::denials::TellDenied;
use super::edge::{Doors, Gate};
use super::facts::Facts;
use super::feed::{Departure, Feed};
use super::http::{Learnt, PodHttp, Seen};
use super::live::{Live, OneMore};
use super::metrics::ProxyMetrics;
use super::node::NodeAddresses;
use super::pool::Pool;
use super::refusal::{self, Refusal};
use super::report::Report;
use super::tls::outside::Outside;
use super::{Config, Observers, PodTraffic, Totals, edge, inbound, io, outbound};
use crate::identity::Keyring;
use crate::model::{Identity, MtlsMode};
use crate::snapshot::{EDGE, NodeSnapshot, PodKey, PodPolicies, WorkloadEntry};
use crate::sys::netns::NetNs;
use crate::telemetry::access::AccessLog;
use crate::telemetry::edges::{EdgeCache, EdgeLabels};
use crate::telemetry::http::HttpEdgeLabels;
use crate::telemetry::trace::Tracer;
use crate::telemetry::{self, Side};
use handshakes::{Handshakes, Slot};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

/// How often idle wires are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How often a pod that stops is asked whether its last connection has ended.
const IDLE_CHECK: Duration = Duration::from_millis(20);
/// How long the connections of a pod that is gone may take to end.
const PARTING: Duration = Duration::from_secs(1);
/// Rest after a failed accept; the cause, lack of descriptors, does not pass sooner.
const ACCEPT_REST: Duration = Duration::from_millis(20);

/// What a worker is told.
pub(super) enum Command {
    /// Serve a pod's connections.
    Serve(PodTraffic),
    /// Accept no more for a pod; answer when its last connection has ended.
    Retire(PodKey, oneshot::Sender<()>),
    /// The pod is gone: cut what is left of it; answer when the other ends were told, as far as they take it in time.
    Remove(PodKey, oneshot::Sender<()>),
    /// Accept no more at all; answer when the last connection has ended or the deadline has passed.
    Drain(Instant, oneshot::Sender<()>),
}

/// What a worker's connections share.
pub(crate) struct Worker {
    pub(crate) feed: Arc<Feed>,
    pub(crate) keyring: Keyring,
    /// What servers outside the mesh are proved by.
    pub(crate) outside: Outside,
    pub(crate) config: Config,
    buffers: Buffers,
    pub(crate) access: AccessLog,
    pub(crate) tracer: Tracer,
    /// Takes what is denied at pods.
    pub(crate) tell_denied: TellDenied,
    pub(crate) metrics: ProxyMetrics,
    handshakes: Handshakes,
    /// No stream is to be kept for another one.
    pub(crate) draining: Cell<bool>,
    /// What ports were seen to speak that do not say so.
    pub(crate) seen: Seen,
    /// The counters of connections.
    pub(crate) edges: EdgeCache<EdgeLabels>,
    /// The counters of requests.
    pub(crate) http_edges: EdgeCache<HttpEdgeLabels>,
    /// Where traffic enters from outside.
    pub(crate) doors: Doors,
    edge: Rc<Pod>,
    pods: RefCell<HashMap<PodKey, Rc<Pod>>>,
    /// Pods that take no more connections, while they have some.
    leaving: RefCell<Vec<Weak<Pod>>>,
    /// Which addresses are this node's.
    pub(crate) node: NodeAddresses,
}

/// A pod as its worker serves it.
pub(crate) struct Pod {
    pub(crate) key: PodKey,
    pub(crate) sockets: Sockets,
    pub(crate) live: Live<Facts>,
    pub(crate) pool: RefCell<Pool>,
    /// HTTP connections and what is known of their upstreams.
    pub(crate) http: PodHttp,
    /// The pod's share of the worker's buffers.
    pub(crate) buffers: Buffers,
    /// What the pod's connections amount to, idle wires included.
    pub(crate) totals: Arc<Totals>,
    /// What policies were said to say of the pod last.
    pub(crate) policies: RefCell<Option<PodPolicies>>,
    stopping: watch::Sender<bool>,
}

impl Pod {
    /// The mode of one of the pod's ports. A pod that has left the mesh is plain.
    pub(crate) fn mode(&self, feed: &Feed, snapshot: &NodeSnapshot, port: u16) -> MtlsMode {
        match snapshot.pods.get(&self.key).map_or(MtlsMode::Disable, |pod| pod.mode(port)) {
            MtlsMode::Strict if feed.departure() >= Departure::TakingBoth => MtlsMode::Permissive,
            mode @ (MtlsMode::Strict | MtlsMode::Permissive | MtlsMode::Disable) => mode,
        }
    }

    /// Does one of the pod's ports demand mutual TLS, also if that is not enforced while the pod joins or leaves the mesh?
    pub(crate) fn is_strict(&self, snapshot: &NodeSnapshot, port: u16) -> bool {
        let modes = snapshot.pods.get(&self.key).and_then(|pod| pod.workload.inbound.as_ref());
        modes.is_some_and(|modes| modes.mode(port) == MtlsMode::Strict)
    }

    /// Who the pod is.
    pub(crate) fn identity(&self, worker: &Worker) -> Result<Arc<Identity>, Refusal> {
        match worker.feed.snapshot().workload(&self.key) {
            Some(workload) => Ok(Arc::clone(&workload.identity)),
            None => Err(Refusal::new(refusal::POD_GONE, "the pod is no longer in the mesh")),
        }
    }

    /// Waits until the pod stops taking connections.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as the pod.
        let _sender_gone = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Does the pod take no more connections?
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn stop(&self) -> Vec<super::wire::Wire> {
        self.stopping.send_replace(true);
        self.http.pool.clear();
        self.pool.borrow_mut().clear()
    }

    fn open(&self) -> u64 {
        self.totals.open.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.open() == 0 && self.live.len() == 0
    }
}

/// What every worker is given.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) feed: Arc<Feed>,
    pub(super) keyring: Keyring,
    pub(super) observers: Observers,
    pub(super) metrics: ProxyMetrics,
    /// The node's own network namespace.
    pub(super) node: Arc<NetNs>,
    pub(super) learnt: Learnt,
}

/// Runs a worker until its commands end.
pub(super) async fn run(parts: Parts, mut commands: mpsc::UnboundedReceiver<Command>) {
    let buffers = Buffers::default();
    let edge = Rc::new(Pod {
        key: EDGE.into(),
        sockets: Sockets::of_node(parts.node),
        live: Live::default(),
        pool: RefCell::default(),
        http: PodHttp::default(),
        buffers: buffers.share(),
        totals: Arc::default(),
        policies: RefCell::default(),
        stopping: watch::Sender::new(false),
    });
    let pods = HashMap::from([(Arc::clone(&edge.key), Rc::clone(&edge))]);
    let worker = Rc::new(Worker {
        handshakes: Handshakes::new(parts.config.handshakes_per_source),
        feed: parts.feed,
        keyring: parts.keyring,
        outside: Outside::new(parts.config.outside_roots.clone()),
        config: parts.config,
        access: parts.observers.access,
        tracer: parts.observers.tracer,
        tell_denied: parts.observers.denied,
        edges: EdgeCache::new(parts.observers.tcp),
        http_edges: EdgeCache::new(parts.observers.http),
        metrics: parts.metrics,
        buffers,
        draining: Cell::new(false),
        seen: Seen::new(parts.learnt),
        doors: Doors::default(),
        edge,
        pods: RefCell::new(pods),
        leaving: RefCell::default(),
        node: NodeAddresses::default(),
    });
    let mut changes = worker.feed.changes();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => worker.obey(command),
                None => return,
            },
            Ok(()) = changes.changed() => {
                worker.judge_again();
                worker.keep_doors();
            }
            _ = sweep.tick() => {
                worker.sweep();
                worker.keep_doors();
            }
        }
    }
}

impl Worker {
    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Serve(traffic) => self.serve(traffic),
            Command::Retire(key, done) => {
                let pod = self.pods.borrow_mut().remove(&key);
                let pods: Vec<_> = pod.into_iter().collect();
                self.finish(pods, None, done);
            }
            Command::Remove(key, done) => {
                if let Some(pod) = self.pods.borrow_mut().remove(&key) {
                    self.part(pod, done);
                }
            }
            Command::Drain(deadline, done) => {
                self.draining.set(true);
                let pods = self.pods.borrow_mut().drain().map(|(_, pod)| pod).collect();
                self.finish(pods, Some(deadline), done);
            }
        }
    }

    fn serve(self: &Rc<Self>, traffic: PodTraffic) {
        let pod = Rc::new(Pod {
            key: Arc::clone(&traffic.key),
            sockets: Sockets::new(traffic.ns),
            live: Live::default(),
            pool: RefCell::default(),
            http: PodHttp::default(),
            buffers: self.buffers.share(),
            totals: traffic.totals,
            policies: RefCell::new(self.feed.snapshot().policies.get(&traffic.key).cloned()),
            stopping: watch::Sender::new(false),
        });
        for (listener, side) in traffic.listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let way = match side {
                        Side::Outbound => Way::Outbound,
                        Side::Inbound => Way::Inbound,
                    };
                    let accepting = accept((Rc::clone(self), Rc::clone(&pod)), listener, way, std::future::pending());
                    telemetry::spawn_local("accept", accepting);
                }
                Err(error) => tracing::error!(pod = %pod.key, %error, "cannot listen for a pod"),
            }
        }
        if let Some(before) = self.pods.borrow_mut().insert(traffic.key, pod) {
            self.stop(&before);
        }
    }

    /// Waits for the pods' last connections without holding up the worker; at the deadline cuts them.
    fn finish(self: &Rc<Self>, pods: Vec<Rc<Pod>>, deadline: Option<Instant>, done: oneshot::Sender<()>) {
        for pod in &pods {
            self.stop(pod);
        }
        telemetry::spawn_local("finish", async move {
            while !pods.iter().all(|pod| pod.is_idle()) {
                tokio::time::sleep(IDLE_CHECK).await;
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    for pod in &pods {
                        pod.live.end(|_| Some(Refusal::new(refusal::DRAINED, "the daemon or the pod stops")));
                    }
                    // One turn for the connections to say so.
                    tokio::time::sleep(IDLE_CHECK).await;
                    break;
                }
            }
            // Whoever asked may have stopped waiting.
            let _nobody_waits = done.send(());
        });
    }

    /// Cuts whatever a pod has, kept connections of other pods to it as well.
    fn part(&self, pod: Rc<Pod>, done: oneshot::Sender<()>) {
        self.stop(&pod);
        pod.live.end(|_| Some(Refusal::new(refusal::POD_GONE, "the pod is gone")));
        telemetry::spawn_local("part", async move {
            let deadline = Instant::now() + PARTING;
            loop {
                // At least one turn: what is kept between requests is counted nowhere.
                tokio::time::sleep(IDLE_CHECK).await;
                if pod.is_idle() || Instant::now() >= deadline {
                    break;
                }
            }
            // Whoever asked may have stopped waiting.
            let _nobody_waits = done.send(());
        });
    }

    /// Takes no more connections for a pod. Those that it has are judged on.
    fn stop(&self, pod: &Rc<Pod>) {
        self.dispose(pod.stop());
        self.leaving.borrow_mut().push(Rc::downgrade(pod));
    }

    /// Closes wires in an orderly way, in the background.
    fn dispose(&self, wires: Vec<super::wire::Wire>) {
        for wire in wires {
            telemetry::spawn_local("close", wire.close());
        }
    }

    /// The workload at an address, from which somebody proved to be `identity`. Gateways have addresses of nodes, at which
    /// nobody else is known.
    pub(crate) fn source(
        &self,
        snapshot: &NodeSnapshot,
        address: IpAddr,
        identity: Option<&Identity>,
    ) -> Option<Arc<WorkloadEntry>> {
        let edge = &self.config.edge.workload;
        let edge = || identity.filter(|identity| **identity == *edge.identity).map(|_| edge);
        snapshot.directory.workloads.get(&address).or_else(edge).cloned()
    }

    /// A slot for a handshake with `source`.
    ///
    /// **Errors**: it has too many that are unfinished.
    pub(super) fn begin_handshake(&self, source: IpAddr) -> Result<Slot, Refusal> {
        self.handshakes.enter(source).ok_or_else(|| {
            Refusal::new(refusal::HANDSHAKE_LIMIT, format!("{source} has too many unfinished handshakes"))
        })
    }

    /// Listens where the snapshot says so.
    fn keep_doors(self: &Rc<Self>) {
        if self.draining.get() {
            return;
        }
        let snapshot = self.feed.snapshot();
        let ports = snapshot.edge.as_ref().map_or(&[][..], |edge| &edge.ports);
        self.doors.keep(self, &self.edge, ports);
    }

    fn judge_again(&self) {
        let snapshot = self.feed.snapshot();
        let departure = self.feed.departure();
        let mut pods: Vec<_> = self.pods.borrow().values().cloned().collect();
        self.leaving.borrow_mut().retain(|pod| pod.upgrade().map(|pod| pods.push(pod)).is_some());
        for pod in &pods {
            pod.http.pool.keep(|place| place.is_current(&snapshot, departure));
            if let Some(policies) = snapshot.policies.get(&pod.key) {
                pod.policies.replace(Some(policies.clone()));
            }
            let ended = pod.live.end(|facts| facts.verdict((self, pod), &snapshot));
            if ended > 0 {
                let name = snapshot.pods.get(&pod.key).map(|local| local.name.to_string());
                tracing::info!(pod = name, sandbox = %pod.key, ended, "open connections are no longer allowed");
            }
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.node.forget();
        for pod in self.pods.borrow().values() {
            pod.sockets.sweep();
            pod.http.pool.sweep(now);
            pod.http.upstreams.sweep(now);
            let expired = pod.pool.borrow_mut().expire(now);
            self.dispose(expired);
        }
    }
}

/// What becomes of a listener's connections.
#[derive(Clone)]
pub(super) enum Way {
    /// They leave the pod.
    Outbound,
    /// They arrive for the pod.
    Inbound,
    /// They enter the mesh at this port of gateways.
    Edge(Rc<Gate>),
}

/// Accepts a pod's connections until it stops or the listener is `closed`, then those that wait already.
pub(super) async fn accept(
    (worker, pod): (Rc<Worker>, Rc<Pod>),
    listener: TcpListener,
    way: Way,
    closed: impl Future<Output = ()>,
) {
    let mut stopped = pin!(async {
        tokio::select! {
            () = pod.stopped() => {}
            () = closed => {}
        }
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((stream, client)) => start(&worker, &pod, stream, client, &way),
            Err(_) => {
                worker.metrics.accept_error();
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    // Connections that the kernel has completed for us are ours to serve.
    while let Ok(Ok((stream, client))) = tokio::time::timeout(ACCEPT_REST, listener.accept()).await {
        start(&worker, &pod, stream, client, &way);
    }
}

/// Why no further connection is served.
fn full(worker: &Worker, pod: &Pod, way: &Way) -> Option<Refusal> {
    match way {
        Way::Edge(gate) if gate.open.get() >= worker.config.edge.connections => {
            let detail = format!("the gateways' port {} has {} connections", gate.port, gate.open.get());
            Some(Refusal::new(refusal::EDGE_LIMIT, detail))
        }
        Way::Outbound | Way::Inbound | Way::Edge(_) if pod.open() >= worker.config.connections_per_pod => {
            Some(Refusal::new(refusal::POD_LIMIT, format!("the pod has {} connections", pod.open())))
        }
        Way::Outbound | Way::Inbound | Way::Edge(_) => None,
    }
}

fn start(worker: &Rc<Worker>, pod: &Rc<Pod>, stream: TcpStream, client: SocketAddr, way: &Way) {
    if let Some(refusal) = full(worker, pod, way) {
        let local = stream.local_addr().unwrap_or(client);
        io::reset(stream);
        let side = match way {
            Way::Outbound | Way::Edge(_) => Side::Outbound,
            Way::Inbound => Side::Inbound,
        };
        let report = Report::new((Rc::clone(worker), Rc::clone(pod)), side, client, local);
        return report.refused(refusal);
    }
    pod.totals.open.fetch_add(1, Ordering::Relaxed);
    let closing = Closing(Rc::clone(pod));
    let (worker, pod) = (Rc::clone(worker), Rc::clone(pod));
    match way {
        Way::Outbound => telemetry::spawn_local("outbound", async move {
            outbound::serve(worker, pod, stream, client).await;
            drop(closing);
        }),
        Way::Inbound => telemetry::spawn_local("inbound", async move {
            inbound::serve(worker, pod, stream, client).await;
            drop(closing);
        }),
        Way::Edge(gate) => {
            let entered = (gate.port, OneMore::new(gate, |gate| &gate.open));
            telemetry::spawn_local("edge", async move {
                edge::serve(worker, pod, stream, (client, entered)).await;
                drop(closing);
            })
        }
    };
}

/// Counts a connection as closed, also when its task panics.
struct Closing(Rc<Pod>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.totals.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what an asynchronous function with these arguments is while it waits.
    fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_waits_is_small() {
        let sizes = [size(outbound::serve), size(inbound::serve), size(inbound::streams::serve)];
        assert!(sizes.iter().all(|&size| size <= 3600), "{sizes:?} bytes");
    }
}

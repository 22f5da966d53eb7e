//! The thread that tells the kernel, since that blocks.
//!
//! In:  orders, in their order.
//! Out: reports; repairs once a second.
//! Invariant: one thread alone touches the kernel's steering.
//! Invariant: an order to enrol has a number, and so has its report: of several orders for one pod, the last one counts.

use super::running::Found;
use crate::proxy::Proxy;
use crate::snapshot::{LocalPod, PodKey};
use crate::source::running::{self, Stranger};
use crate::steer::{PodNet, SteerError, Steering};
use crate::telemetry::explain;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How often a share of the pods is compared with the kernel.
const RECONCILE: Duration = Duration::from_secs(1);

enum Order {
    TakeOver,
    Enrol(Arc<LocalPod>, u64),
    Leave(PodKey),
    Restore(PodKey),
    Forget(PodKey),
    Sweep(BTreeSet<PodKey>),
    Find(Vec<Stranger>),
    LetGo,
    LeaveAll,
    Uninstall(oneshot::Sender<Result<(), SteerError>>),
    Describe(Sender<serde_json::Value>),
}

/// What became of an order.
pub struct Report(pub(super) Outcome);

impl Report {
    /// Has steering done something, and not only looked?
    pub(super) fn is_of_change(&self) -> bool {
        match &self.0 {
            Outcome::Enrolled(..) | Outcome::Left(_) => true,
            Outcome::Found(_) => false,
        }
    }
}

pub(super) enum Outcome {
    Enrolled(PodKey, u64, Result<(), String>),
    Left(PodKey),
    Found(Vec<Found>),
}

/// Gives orders to the steering thread; it ends with the last of these.
#[derive(Clone)]
pub struct Steerer {
    orders: Sender<Order>,
    /// How many orders to enrol were given.
    given: Arc<AtomicU64>,
}

impl Steerer {
    /// Starts the thread. The runtime keeps network namespaces in the directory `namespaces`.
    ///
    /// **Errors**: it could not be started.
    pub fn start(
        steering: Steering,
        namespaces: PathBuf,
        proxy: Arc<Proxy>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        let thread = Thread { steering, namespaces, proxy, reports, nets: BTreeMap::new(), let_go: false };
        std::thread::Builder::new().name("steer".to_owned()).spawn(move || thread.run(&received))?;
        Ok(Self { orders, given: Arc::default() })
    }

    pub(super) fn take_over(&self) {
        self.give(Order::TakeOver);
    }

    /// Gives the number of the order.
    pub(super) fn enrol(&self, pod: Arc<LocalPod>) -> u64 {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        self.give(Order::Enrol(pod, number));
        number
    }

    pub(super) fn leave(&self, key: PodKey) {
        self.give(Order::Leave(key));
    }

    pub(super) fn restore(&self, key: PodKey) {
        self.give(Order::Restore(key));
    }

    pub(super) fn forget(&self, key: PodKey) {
        self.give(Order::Forget(key));
    }

    pub(super) fn sweep(&self, keep: BTreeSet<PodKey>) {
        self.give(Order::Sweep(keep));
    }

    /// Looks for the sandboxes of pods that no ADD told of.
    pub(super) fn find(&self, strangers: Vec<Stranger>) {
        self.give(Order::Find(strangers));
    }

    /// Closes this daemon's listeners, so that only those who accept keep them open, and repairs nothing any more.
    /// What is in the kernel stays: pods of a daemon that is gone are closed, not open.
    pub fn let_go(&self) {
        self.give(Order::LetGo);
    }

    /// Captures nothing new of any pod, for this node leaves the mesh. Open connections go on.
    pub fn leave_all(&self) {
        self.give(Order::LeaveAll);
    }

    /// Takes the mesh out of this node's kernel. Returns when that is done.
    ///
    /// **Errors**: the kernel refuses.
    pub async fn uninstall(&self) -> Result<(), SteerError> {
        let (answer, answered) = oneshot::channel();
        self.give(Order::Uninstall(answer));
        answered.await.unwrap_or(Err(SteerError::NotOwner))
    }

    /// What is in the kernel, for people; `None` if the thread is busy for longer than `patience`.
    pub(super) fn describe(&self, patience: Duration) -> Option<serde_json::Value> {
        let (answer, answered) = channel();
        self.give(Order::Describe(answer));
        answered.recv_timeout(patience).ok()
    }

    fn give(&self, order: Order) {
        // The thread ends only with the last sender.
        let _thread_gone = self.orders.send(order);
    }
}

struct Thread {
    steering: Steering,
    namespaces: PathBuf,
    proxy: Arc<Proxy>,
    reports: mpsc::UnboundedSender<Report>,
    /// The listeners that pods are steered to.
    nets: BTreeMap<PodKey, Arc<PodNet>>,
    let_go: bool,
}

impl Thread {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut due = Instant::now() + RECONCILE;
        loop {
            match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= due {
                self.reconcile();
                due = Instant::now() + RECONCILE;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::TakeOver => log("take over the steering of this node", self.steering.take_over()),
            Order::Enrol(pod, number) => {
                // What let go never takes again, whoever else may steer by now.
                let enrolled = if self.let_go { Err("the daemon is stopping".to_owned()) } else { self.enrol(&pod) };
                self.report(Outcome::Enrolled(Arc::clone(&pod.key), number, enrolled));
            }
            Order::Leave(key) => {
                log("let a pod leave", self.steering.leave(&key));
                self.report(Outcome::Left(key));
            }
            Order::Restore(key) => {
                log("restore a pod's namespace", self.steering.restore(&key));
                self.nets.remove(&key);
            }
            Order::Forget(key) => {
                log("forget a pod", self.steering.forget(&key));
                self.nets.remove(&key);
            }
            Order::Sweep(keep) => log("sweep what unknown pods left", self.steering.sweep(&keep)),
            Order::Find(strangers) => {
                let found = self.find(&strangers);
                self.report(Outcome::Found(found));
            }
            Order::LetGo => {
                self.let_go = true;
                self.nets.clear();
            }
            Order::LeaveAll => log("let all pods leave", self.steering.leave_all()),
            Order::Uninstall(answer) => {
                self.let_go = true;
                self.nets.clear();
                // Whoever asked may be gone.
                let _nobody_waits = answer.send(self.steering.uninstall());
            }
            Order::Describe(answer) => {
                // Whoever asked may have lost patience.
                let _nobody_waits = answer.send(self.steering.describe());
            }
        }
    }

    /// Listeners first, then someone who accepts, then the kernel: no connection meets a closed door.
    fn enrol(&mut self, pod: &Arc<LocalPod>) -> Result<(), String> {
        let net = self.steering.open(pod).map_err(|error| explain(&error))?;
        self.proxy.serve(&pod.key, &net.ns, &net.listeners).map_err(|error| explain(&error))?;
        self.steering.enrol(pod, &net).map_err(|error| explain(&error))?;
        self.nets.insert(Arc::clone(&pod.key), net);
        Ok(())
    }

    fn reconcile(&mut self) {
        if !self.let_go && self.steering.is_owner() {
            let repairs = self.steering.reconcile();
            if !repairs.made.is_empty() {
                tracing::warn!(made = ?repairs.made, "steering was disturbed and is repaired");
            }
            for (pod, error) in &repairs.failed {
                tracing::error!(pod = pod.as_deref(), "steering cannot be repaired: {}", explain(error));
            }
        }
    }

    fn find(&self, strangers: &[Stranger]) -> Vec<Found> {
        let found = running::find(&self.namespaces, strangers);
        let mut outcomes = match found {
            Ok(outcomes) => outcomes.into_iter().map(|outcome| outcome.map_err(|error| explain(&error))).collect(),
            Err(error) => {
                let why = format!("{}: {error}", self.namespaces.display());
                vec![Err(why); strangers.len()]
            }
        };
        let names = strangers.iter().map(|stranger| stranger.name.clone());
        names.zip(outcomes.drain(..)).map(|(name, attachment)| Found { name, attachment }).collect()
    }

    fn report(&self, outcome: Outcome) {
        // The loop ends before this thread only when the daemon stops.
        let _loop_ended = self.reports.send(Report(outcome));
    }
}

fn log(attempt: &str, result: Result<(), impl Error>) {
    if let Err(error) = result {
        tracing::error!("cannot {attempt}: {}", explain(&error));
    }
}

//! The loop: what is known becomes what this node does.
//!
//! In:  changes from the sources, requests of the CNI plugin, results from the steering thread.
//! Out: a snapshot for the proxy, orders for steering, wanted identities, answers to the plugin.
//! Invariant: nothing is decided here; `translate` and `compile` decide, this module carries out.
//! Invariant: before the world is whole nothing is published; before every source is in sync nothing is swept.
//! Invariant: ADD is answered only when identity, policy and steering of its pod are in force.

mod announcing;
mod inspect;
mod issues;
mod pods;
pub mod reporting;
mod requests;
mod running;
mod steerer;

pub use announcing::HEARD;
pub use inspect::Inspect;
pub use requests::Asked;
pub use steerer::{Report, Steerer};

use crate::announce::Announcer;
use crate::compile::{self, Compiler};
use crate::identity::{Bearer, Keyring};
use crate::model::{Identity, Name};
use crate::proxy::{Feed, Proxy};
use crate::snapshot::{LocalPod, NodeSnapshot, PodKey};
use crate::source::cni::{self, AttachmentStore};
use crate::status::Notices;
use crate::telemetry::Metrics;
use crate::world::{Change, Kind, SourceId, Touched, World};
use crate::{sys, translate};
use issues::Issues;
use pods::Enrolments;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use requests::Waiting;
use running::Strangers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Changes taken together into one snapshot.
const BATCH: usize = 4096;
/// How many reasons are told for objects that are not read yet.
const MOST_FAULTS: usize = 20;
/// How often deadlines and vanished sandboxes are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What the loop works with.
pub struct Parts {
    /// The names the operator chose.
    pub names: translate::Settings,
    /// This node.
    pub node: compile::Settings,
    /// Where snapshots go.
    pub feed: Arc<Feed>,
    /// Where identities are kept.
    pub keyring: Keyring,
    /// Who carries traffic.
    pub proxy: Arc<Proxy>,
    /// Who steers it.
    pub steerer: Steerer,
    /// Which sandboxes exist, over restarts.
    pub store: AttachmentStore,
    /// The daemon's metrics.
    pub metrics: Metrics,
    /// Who tells users what became of their pods.
    pub notices: Notices,
    /// Who tells the other nodes.
    pub announcer: Announcer,
    /// The daemon's own pod, if it is one.
    pub own_pod: Option<Name>,
}

/// What the loop listens to.
pub struct Inputs {
    /// The users' objects.
    pub changes: mpsc::Receiver<Change>,
    /// The CNI plugin.
    pub requests: mpsc::UnboundedReceiver<Asked>,
    /// The steering thread.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// The CNI socket is open.
    pub listening: oneshot::Receiver<()>,
}

/// The loop's state.
pub struct Control {
    parts: Parts,
    world: Arc<Mutex<World>>,
    /// Knows the world but for what is in `touched`; nothing before the world is whole.
    compiler: Compiler,
    touched: Touched,
    enrolments: Enrolments,
    waiting: Vec<Waiting>,
    /// Told, or closed, once connections of pods that went with the last request are cut.
    parting: Vec<oneshot::Receiver<()>>,
    strangers: Strangers,
    /// Has steering done something since the last tick?
    stirred: bool,
    inspect: Arc<Inspect>,
    gauges: Gauges,
    issues: Issues,
    /// Does the CNI plugin ask this daemon?
    listening: bool,
    /// Has the first snapshot been published?
    first: watch::Sender<bool>,
    /// How often the objects of each kind have changed.
    revisions: watch::Sender<BTreeMap<Kind, u64>>,
    /// Is everything known that there is to know, and what is not wanted swept?
    in_sync: watch::Sender<bool>,
    published: Option<Arc<NodeSnapshot>>,
    /// Certificates that became ready, by pod.
    certified: (mpsc::UnboundedSender<PodKey>, mpsc::UnboundedReceiver<PodKey>),
    /// Pods whose last connection ended after they left.
    retired: (mpsc::UnboundedSender<PodKey>, mpsc::UnboundedReceiver<PodKey>),
}

struct Gauges {
    snapshots: Counter,
    pods: Gauge,
    in_force: Gauge,
    issues: Gauge,
    compile_microseconds: Gauge,
    objects: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Self {
        let own = Self {
            snapshots: Counter::default(),
            pods: Gauge::default(),
            in_force: Gauge::default(),
            issues: Gauge::default(),
            compile_microseconds: Gauge::default(),
            objects: Family::default(),
        };
        metrics.register(|registry| {
            registry.register("mesh_control_snapshots", "Snapshots published", own.snapshots.clone());
            registry.register("mesh_control_pods", "Pods of this node that are to be steered", own.pods.clone());
            registry.register("mesh_control_pods_in_force", "Pods that are steered", own.in_force.clone());
            registry.register("mesh_control_issues", "Things wrong in users' objects", own.issues.clone());
            registry.register("mesh_source_objects", "Users' objects that are known", own.objects.clone());
            let help = "Time the last snapshot took to compile, in microseconds";
            registry.register("mesh_control_compile_microseconds", help, own.compile_microseconds.clone());
        });
        own
    }
}

impl Control {
    /// The loop's state at the start: the sandboxes on disk are attached.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let world = Arc::<Mutex<World>>::default();
        let inspect = Arc::new(Inspect::new(&parts, Arc::clone(&world)));
        let mut control = Self {
            gauges: Gauges::new(&parts.metrics),
            world,
            compiler: Compiler::new(parts.names.clone(), parts.node.clone()),
            touched: Touched::default(),
            enrolments: Enrolments::default(),
            issues: Issues::default(),
            waiting: Vec::new(),
            parting: Vec::new(),
            strangers: Strangers::default(),
            stirred: false,
            inspect,
            listening: false,
            first: watch::Sender::new(false),
            revisions: watch::Sender::default(),
            in_sync: watch::Sender::new(false),
            published: None,
            certified: mpsc::unbounded_channel(),
            retired: mpsc::unbounded_channel(),
            parts,
        };
        control.load_attachments();
        control.apply(Change::Synced(SourceId::Attachments));
        control
    }

    /// What the admin server shows.
    #[must_use]
    pub fn inspect(&self) -> Arc<Inspect> {
        Arc::clone(&self.inspect)
    }

    /// Becomes true with the first snapshot.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<bool> {
        self.first.subscribe()
    }

    /// Becomes true once every source has told the loop all it knows, and not while an earlier run's knowledge stands in.
    #[must_use]
    pub fn in_sync(&self) -> watch::Receiver<bool> {
        self.in_sync.subscribe()
    }

    /// What is known, as the loop has it.
    #[must_use]
    pub fn world_in_use(&self) -> Arc<Mutex<World>> {
        Arc::clone(&self.world)
    }

    /// How often the objects of each kind have changed.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<BTreeMap<Kind, u64>> {
        self.revisions.subscribe()
    }

    /// Runs until every source has ended.
    pub async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                change = inputs.changes.recv() => match change {
                    Some(change) => self.take(change, &mut inputs.changes),
                    None => return,
                },
                Some(asked) = inputs.requests.recv() => self.answer(asked),
                Ok(()) = &mut inputs.listening, if !self.listening => self.listen(),
                Some(report) = inputs.reports.recv() => {
                    self.stirred |= report.is_of_change();
                    self.hear(report);
                }
                Some(key) = self.certified.1.recv() => self.steer_certified(&key),
                Some(key) = self.retired.1.recv() => self.restore_retired(&key),
                _ = tick.tick() => self.tick(),
            }
            self.settle();
        }
    }

    /// Takes a change and all that came with it.
    fn take(&mut self, first: Change, changes: &mut mpsc::Receiver<Change>) {
        let (mut changed, mut kinds) = (false, BTreeSet::new());
        let mut more = 1..BATCH;
        let mut next = Some(first);
        while let Some(change) = next {
            let kind = change.kind();
            if self.apply(change) {
                changed = true;
                kinds.extend(kind);
            }
            next = more.next().and_then(|_| changes.try_recv().ok());
        }
        self.count(kinds);
        if changed {
            self.publish();
        }
    }

    /// Notes that objects of these kinds have changed.
    fn count(&self, kinds: BTreeSet<Kind>) {
        if kinds.is_empty() {
            return;
        }
        for kind in &kinds {
            let count = i64::try_from(self.world().count(*kind)).unwrap_or(i64::MAX);
            self.gauges.objects.get_or_create(&[("kind", kind.name())]).set(count);
        }
        self.revisions.send_modify(|revisions| {
            for kind in kinds {
                *revisions.entry(kind).or_default() += 1;
            }
        });
    }

    fn apply(&mut self, change: Change) -> bool {
        let touched = self.world().learn(change);
        let is_new = !touched.is_empty();
        // The first compilation takes the world as it is.
        if self.published.is_some() {
            self.touched.extend(touched);
        }
        is_new
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles the world and puts the result in force.
    fn publish(&mut self) {
        if !self.world().is_whole() {
            return;
        }
        let started = Instant::now();
        let snapshot = self.compile();
        let micros = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.gauges.compile_microseconds.set(micros);
        if self.set_strangers(self.unattached()) {
            return self.publish();
        }
        if self.published.as_deref() == Some(&snapshot) {
            return self.sweep();
        }
        let first = self.published.is_none();
        if self.published.as_ref().is_none_or(|published| !Arc::ptr_eq(&published.issues, &snapshot.issues)) {
            self.issues.set(&snapshot.issues, Instant::now());
        }
        let snapshot = Arc::new(snapshot);
        self.published = Some(Arc::clone(&snapshot));
        self.gauges.snapshots.inc();
        self.gauges.pods.set(i64::try_from(snapshot.pods.len()).unwrap_or(i64::MAX));
        self.gauges.issues.set(i64::try_from(snapshot.issues.len()).unwrap_or(i64::MAX));
        let edge = snapshot.edge.iter().map(|edge| {
            let (pod, uid) = edge.bearer.clone();
            (Arc::clone(&edge.workload.identity), Bearer { pod, uid })
        });
        self.parts.keyring.want(snapshot.pods.values().map(|pod| wanted(pod)).chain(edge).collect());
        self.parts.feed.publish(Arc::clone(&snapshot));
        if first {
            self.parts.steerer.take_over();
        }
        self.reconcile(&snapshot);
        self.sweep();
        if first {
            self.first.send_replace(true);
        }
    }

    /// The snapshot of the world as it is now.
    fn compile(&mut self) -> NodeSnapshot {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if self.published.is_some() {
            self.compiler.learn(&world, std::mem::take(&mut self.touched));
        } else {
            self.compiler = Compiler::of(&world, self.parts.names.clone(), self.parts.node.clone());
        }
        self.compiler.snapshot()
    }

    /// Removes what an earlier daemon left of pods that are gone, once all is known that there is to know, and lets go of the
    /// memory that it took to learn it.
    fn sweep(&mut self) {
        if !*self.in_sync.borrow() && self.world().in_sync() {
            self.parts.steerer.sweep(self.kept());
            sys::memory::trim();
            self.in_sync.send_replace(true);
        }
    }

    /// Pods whose kernel objects must not be swept: every sandbox that exists.
    fn kept(&self) -> BTreeSet<PodKey> {
        let published = self.published.iter().flat_map(|snapshot| snapshot.pods.keys().cloned());
        published.chain(self.enrolments.leaving()).collect()
    }

    /// Reads which sandboxes exist from disk. A daemon that takes over does so again once the plugin asks it.
    fn load_attachments(&mut self) {
        let loaded = match self.parts.store.load() {
            Ok(loaded) => loaded,
            Err(error) => return tracing::error!(error = &error as &dyn std::error::Error, "cannot read attachments"),
        };
        for error in &loaded.damaged {
            tracing::error!(error = error as &dyn std::error::Error, "an attachment is left aside");
        }
        for attachment in loaded.detached {
            self.forget_on_disk(&attachment.container_id, &attachment.ifname);
        }
        for attachment in loaded.attached {
            self.apply(Change::Attach(attachment));
        }
    }

    fn forget_on_disk(&self, container_id: &str, ifname: &str) {
        if let Err(error) = self.parts.store.remove(container_id, ifname) {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot forget an attachment");
        }
    }

    fn tick(&mut self) {
        // What it took to bring pods in, or to let them go, is not needed before others come.
        if std::mem::take(&mut self.stirred) && self.waiting.is_empty() {
            sys::memory::trim();
        }
        for issue in self.issues.due(Instant::now()) {
            tracing::warn!(object = %issue.object, field = issue.field, "{}; {}", issue.problem, issue.cure);
        }
        self.drop_vanished();
        self.look_for_strangers();
        self.retry_failed();
        self.answer_late();
    }

    /// Detaches sandboxes whose namespace is gone: their DEL was lost.
    fn drop_vanished(&mut self) {
        let vanished: Vec<_> = self
            .world()
            .attachments()
            .filter(|attachment| !cni::is_there(&attachment.netns))
            .map(|attachment| (attachment.container_id.clone(), attachment.ifname.clone()))
            .collect();
        self.detach(vanished);
    }

    /// Says how far the loop has come.
    fn settle(&mut self) {
        self.announce();
        let mut missing = Vec::new();
        if self.published.is_none() {
            missing.push("the users' objects are being read".to_owned());
            missing.extend(self.world().faults().take(MOST_FAULTS).map(ToString::to_string));
        }
        if !self.listening {
            missing.push("the CNI socket is not open yet".to_owned());
        }
        missing.extend(self.enrolments.missing());
        missing.extend(self.enrolments.unannounced().map(|name| self.unannounced(name)));
        let in_force = self.enrolments.in_force();
        self.gauges.in_force.set(i64::try_from(in_force.len()).unwrap_or(i64::MAX));
        self.inspect.set_standing(missing, in_force);
        self.answer_ready();
    }

    /// The CNI plugin asks this daemon from now on: what it told another one since our start is on disk.
    fn listen(&mut self) {
        self.listening = true;
        self.load_attachments();
        self.publish();
    }
}

/// The identity that a pod wants, and the pod as its bearer.
fn wanted(pod: &LocalPod) -> (Arc<Identity>, Bearer) {
    let bearer = Bearer { pod: pod.name.name.as_str().into(), uid: pod.uid.as_str().into() };
    (Arc::clone(&pod.workload.identity), bearer)
}

//! What the admin server shows of the loop.
//!
//! In:  the world, the model and the snapshot as the loop has them; the proxy's counts.
//! Out: an [`admin::Source`].
//! Invariant: looking changes nothing and holds up the loop for no longer than a copy takes.

use super::{Parts, Steerer};
use crate::admin::{self, What, view};
use crate::compile;
use crate::identity::Keyring;
use crate::model::Model;
use crate::proxy::{Feed, Proxy};
use crate::snapshot::{LocalPod, PodKey};
use crate::telemetry::Metrics;
use crate::translate;
use crate::why::{self, Answer, Question, WhyError};
use crate::world::{CustomKind, Kind, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a busy steering thread is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the loop has come.
struct Standing {
    missing: Vec<String>,
    in_force: BTreeSet<PodKey>,
}

/// The loop, seen from outside.
pub struct Inspect {
    metrics: Metrics,
    world: Arc<Mutex<World>>,
    /// Held by whoever copies the world, which takes as much memory again.
    copying: Mutex<()>,
    names: translate::Settings,
    node: compile::Settings,
    standing: Mutex<Standing>,
    feed: Arc<Feed>,
    keyring: Keyring,
    proxy: Arc<Proxy>,
    steerer: Steerer,
}

impl Inspect {
    pub(super) fn new(parts: &Parts, world: Arc<Mutex<World>>) -> Self {
        Self {
            metrics: parts.metrics.clone(),
            world,
            copying: Mutex::default(),
            names: parts.names.clone(),
            node: parts.node.clone(),
            standing: Mutex::new(Standing {
                missing: vec!["the daemon is starting".to_owned()],
                in_force: BTreeSet::new(),
            }),
            feed: Arc::clone(&parts.feed),
            keyring: parts.keyring.clone(),
            proxy: Arc::clone(&parts.proxy),
            steerer: parts.steerer.clone(),
        }
    }

    pub(super) fn set_standing(&self, missing: Vec<String>, in_force: BTreeSet<PodKey>) {
        *self.standing() = Standing { missing, in_force };
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod(&self, pod: &LocalPod) -> view::PodState {
        let counts = self.proxy.counts(&pod.key);
        view::PodState {
            enrolled: self.standing().in_force.contains(&pod.key),
            certificate_expires: self.keyring.current(&pod.workload.identity).map(|credentials| credentials.not_after),
            connections: counts.map_or(0, |counts| counts.open),
            bytes_sent: counts.map_or(0, |counts| counts.received),
            bytes_received: counts.map_or(0, |counts| counts.sent),
        }
    }

    /// What `ask` makes of a copy of the world; one copy at a time, however many ask.
    fn of_a_copy<T>(&self, ask: impl FnOnce(World) -> T) -> T {
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ask(world)
    }

    /// Nobody else needs all of it at once, so it is made when somebody looks.
    fn model(&self) -> Model {
        self.of_a_copy(|world| translate::translate(&world, &self.names).0)
    }

    fn world(&self) -> Value {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let mut objects = BTreeMap::from([
            (Kind::Namespace.name(), world.namespaces().keys().collect()),
            (Kind::ServiceAccount.name(), world.service_accounts().keys().collect()),
            (Kind::Pod.name(), world.pod_names().collect()),
            (Kind::Service.name(), world.service_names().collect()),
            (Kind::EndpointSlice.name(), world.endpoint_slice_names().collect()),
            (Kind::Secret.name(), world.secrets().keys().collect()),
            (Kind::PeerAuthentication.name(), world.peer_authentications().keys().collect()),
        ]);
        objects.extend(
            CustomKind::ALL.map(|kind| (kind.full_name(), world.customs(kind).map(|(name, _)| name).collect())),
        );
        view::world(&view::World {
            in_sync: world.in_sync(),
            objects,
            attachments: world.attachments().collect(),
            faults: world.faults().collect(),
        })
    }
}

impl admin::Source for Inspect {
    fn ready(&self) -> Result<(), Vec<String>> {
        let missing = self.standing().missing.clone();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.metrics.encode()
    }

    fn debug(&self, what: What) -> Value {
        match what {
            What::World => self.world(),
            What::Model => view::model(&self.model()),
            What::Snapshot => {
                let snapshot = self.feed.snapshot();
                let lessons = self.proxy.learnt().into_iter();
                let learnt = lessons.map(|of| view::Learnt::new(&snapshot, of.address, of.http, of.other));
                view::snapshot(&snapshot, |pod| self.pod(pod), &learnt.collect::<Vec<_>>())
            }
            What::Kernel => self.steerer.describe(PATIENCE).unwrap_or_else(|| json!({"error": "steering is busy"})),
        }
    }

    fn why(&self, question: &Question) -> Result<Answer, WhyError> {
        self.of_a_copy(|world| why::ask(world, self.names.clone(), self.node.clone(), question))
    }
}

//! What the admin server shows of the loop.
//!
//! In:  the world, the model and the snapshot as the loop has them; the proxy's counts.
//! Out: an [`admin::Source`].
//! Invariant: looking changes nothing and holds up the loop for no longer than a copy takes.

use super::{Parts, Steerer};
use crate::admin::{self, What, view};
use crate::identity::Keyring;
use crate::model::Model;
use crate::proxy::{Feed, Proxy};
use crate::snapshot::LocalPod;
use crate::telemetry::Metrics;
use crate::world::World;
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a busy steering thread is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The loop, seen from outside.
pub struct Inspect {
    metrics: Metrics,
    world: Arc<Mutex<World>>,
    model: ArcSwap<Model>,
    missing: Mutex<Vec<String>>,
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
            model: ArcSwap::default(),
            missing: Mutex::new(vec!["the daemon is starting".to_owned()]),
            feed: Arc::clone(&parts.feed),
            keyring: parts.keyring.clone(),
            proxy: Arc::clone(&parts.proxy),
            steerer: parts.steerer.clone(),
        }
    }

    pub(super) fn set_model(&self, model: Model) {
        self.model.store(Arc::new(model));
    }

    pub(super) fn set_missing(&self, missing: Vec<String>) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }

    pub(super) fn model(&self) -> Arc<Model> {
        self.model.load_full()
    }

    fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pod(&self, pod: &LocalPod) -> view::PodState {
        let counts = self.proxy.counts(&pod.key);
        view::PodState {
            enrolled: counts.is_some() && !self.missing().iter().any(|missing| missing.contains(&pod.name.to_string())),
            certificate_expires: self.keyring.current(&pod.workload.identity).map(|credentials| credentials.not_after),
            connections: counts.map_or(0, |counts| counts.open),
            bytes_sent: counts.map_or(0, |counts| counts.sent),
            bytes_received: counts.map_or(0, |counts| counts.received),
        }
    }

    fn world(&self) -> Value {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let names = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>();
        json!({
            "in_sync": world.in_sync(),
            "namespaces": names(&mut world.namespaces().keys().map(ToString::to_string)),
            "service_accounts": names(&mut world.service_accounts().keys().map(ToString::to_string)),
            "pods": names(&mut world.pods().keys().map(ToString::to_string)),
            "services": names(&mut world.services().keys().map(ToString::to_string)),
            "endpoint_slices": names(&mut world.endpoint_slices().keys().map(ToString::to_string)),
            "peer_authentications": names(&mut world.peer_authentications().keys().map(ToString::to_string)),
            "attachments": world.attachments().collect::<Vec<_>>(),
            "faults": view::issues(world.faults()),
        })
    }
}

impl admin::Source for Inspect {
    fn ready(&self) -> Result<(), Vec<String>> {
        let missing = self.missing();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.metrics.encode()
    }

    fn debug(&self, what: What) -> Value {
        match what {
            What::World => self.world(),
            What::Model => view::model(&self.model()),
            What::Snapshot => view::snapshot(&self.feed.snapshot(), |pod| self.pod(pod)),
            What::Kernel => self.steerer.describe(PATIENCE).unwrap_or_else(|| json!({"error": "steering is busy"})),
        }
    }
}

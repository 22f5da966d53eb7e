//! Tells the other nodes which pods of this node are in the mesh, and whoever reports to users which gateways are listened on.
//!
//! In:  what is to be said next of which pods.
//! Out: annotations of pods: of those in the mesh, which every node reads with the pods; of the daemon's own, which the reporter reads.
//! Invariant: nothing is said of a pod's successor: each write names the UID.
//! Invariant: each write is tried until it is made or no longer wanted; a few are made at once.
//! Source: `api::announcement` and `api::listening` for the annotations; Kubernetes, "API concepts", for patches of the status subresource.

use crate::api::announcement::{self, ANNOUNCEMENT};
use crate::api::listening::{self, LISTENING};
use crate::model::{Announced, Listening, Name};
use crate::telemetry::{self, Metrics, explain};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Writes that are under way at once.
const AT_ONCE: usize = 8;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What is to be said of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The pod's UID; empty where its name alone tells it from every other.
    pub uid: String,
    /// What to say.
    pub said: Said,
    /// How long it is not to be said yet.
    pub after: Duration,
}

/// What is said of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Whether it is in the mesh.
    Steered(Announced),
    /// What becomes of gateways at the node of this daemon.
    Listening(Arc<Listening>),
}

/// Says it.
pub struct Announcer {
    writer: Option<Arc<Writer>>,
    written: HashMap<Name, Task>,
}

struct Writer {
    client: Client,
    installation: Arc<str>,
    turns: Semaphore,
    failures: Counter,
}

/// One announcement on its way.
struct Task {
    wanted: Announcement,
    trouble: Arc<Mutex<Option<String>>>,
    writing: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Announcer {
    /// Announces nothing, where nodes do not hear of each other's pods by an API.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { writer: None, written: HashMap::new() }
    }

    /// Announces in the name of an installation.
    #[must_use]
    pub fn new(client: Client, installation: Arc<str>, metrics: &Metrics) -> Self {
        let failures = Counter::default();
        metrics.register(|registry| {
            let help = "Announcements of pods that the API server did not take, and that are tried again";
            registry.register("mesh_announce_failures", help, failures.clone());
        });
        let writer = Writer { client, installation, turns: Semaphore::new(AT_ONCE), failures };
        Self { writer: Some(Arc::new(writer)), written: HashMap::new() }
    }

    /// These and no others are to be said. What was said stays so; what is on its way and no longer wanted is dropped.
    pub fn want(&mut self, wanted: BTreeMap<Name, Announcement>) {
        let Some(writer) = &self.writer else { return };
        self.written.retain(|name, task| wanted.get(name) == Some(&task.wanted));
        for (name, wanted) in wanted {
            self.written.entry(name).or_insert_with_key(|name| {
                let trouble = Arc::<Mutex<Option<String>>>::default();
                let (writer, own) = (Arc::clone(writer), Arc::clone(&trouble));
                let announcement = (name.clone(), wanted.clone());
                let writing = telemetry::spawn("announcement", async move { writer.say(&announcement, &own).await });
                Task { wanted, trouble, writing }
            });
        }
    }

    /// Why a pod is not announced so far, if an attempt has failed.
    #[must_use]
    pub fn trouble(&self, pod: &Name) -> Option<String> {
        self.written.get(pod)?.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Writer {
    async fn say(&self, (name, wanted): &(Name, Announcement), trouble: &Mutex<Option<String>>) {
        sleep(wanted.after).await;
        let mut pause = FIRST_PAUSE;
        loop {
            let why = {
                let _turn = self.turns.acquire().await;
                match timeout(PATIENCE, self.write(name, wanted)).await {
                    Ok(Ok(())) => return,
                    // Gone, or replaced: whoever watches pods is about to hear of it.
                    Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                        format!("the pod is another: {}", status.message)
                    }
                    Ok(Err(error)) => explain(&error),
                    Err(_) => "the API server does not answer".to_owned(),
                }
            };
            self.failures.inc();
            let before = trouble.lock().unwrap_or_else(PoisonError::into_inner).replace(why.clone());
            if before.as_ref() != Some(&why) {
                tracing::warn!(pod = %name, why, "the other nodes cannot be told of a pod; it is tried again");
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn write(&self, name: &Name, wanted: &Announcement) -> Result<(), kube::Error> {
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), &name.namespace);
        let (key, value) = match &wanted.said {
            Said::Steered(announced) => (ANNOUNCEMENT, announcement::text(*announced, &self.installation)),
            Said::Listening(listening) => (LISTENING, Some(listening::text(listening))),
        };
        let mut patch = json!({"metadata": {"annotations": {key: value}}});
        if !wanted.uid.is_empty() {
            patch["metadata"]["uid"] = json!(wanted.uid);
        }
        // The right to the status alone does not allow to change what the pod runs.
        pods.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }
}

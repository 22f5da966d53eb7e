//! The Kubernetes API as the source of objects.
//!
//! In:  a client, and the world that an earlier run saved.
//! Out: `world::Change`s; `Synced(Objects)` once every kind is listed, `Recalled(Objects)` if the API server does not
//!      tell and a saved world stands in for it.
//! Invariant: what the API server says replaces a saved world wholly: each list says what exists and nothing else does.
//! Invariant: the saved world is told only while no watch runs, so that it never overwrites what is newer.
//! Invariant: a kind that nobody has defined has no objects, and is watched once somebody defines it.
//! Source: Kubernetes, "API concepts", for lists and watches.

mod resource;
mod saved;
mod slim;
mod standing;
mod trouble;
mod watch;

pub use resource::Purpose;
pub use saved::{Revisions, SavedError, keep_saved};

use crate::model::{Issue, Name};
use crate::telemetry::{self, Metrics};
use crate::world::{Change, SourceId};
use kube::Client;
use standing::Standing;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use watch::Watch;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The origin of every issue of this source.
const ORIGIN: &str = "kubernetes";

/// What to watch.
#[derive(Clone)]
pub struct Config {
    /// Who is asked.
    pub client: Client,
    /// Where the world of an earlier run is.
    pub saved: PathBuf,
    /// The node that this is. Of pods elsewhere only what other nodes need to know is kept.
    pub node: Arc<str>,
    /// What the objects are read for.
    pub purpose: Purpose,
    /// The Secrets that are read beside them, and no others.
    pub secrets: BTreeSet<Name>,
    /// The saved world stands in for the API server after this long without an answer.
    pub patience: Duration,
}

impl Config {
    /// Watches from `node` what `client` reaches, and no Secret; `saved` is the directory of the world of an earlier run.
    #[must_use]
    pub fn new(client: Client, node: impl Into<Arc<str>>, saved: impl Into<PathBuf>) -> Self {
        let (purpose, secrets, patience) = (Purpose::Node, BTreeSet::new(), Duration::from_secs(5));
        Self { client, saved: saved.into(), node: node.into(), purpose, secrets, patience }
    }

    /// Watches what the standing of routes and gateways depends on. Nothing is saved.
    #[must_use]
    pub fn of_standings(client: Client) -> Self {
        Self { purpose: Purpose::Standings, ..Self::new(client, "", "") }
    }
}

/// Tells `changes` what the API server has, then what changes in it, until nobody receives it. Becomes true once
/// everything is told.
pub fn watch(config: Config, changes: mpsc::Sender<Change>, metrics: &Metrics) -> channel::Receiver<bool> {
    let (synced, is_synced) = channel::channel(false);
    let standing = Arc::new(Standing::new(config.purpose, &config.secrets, metrics));
    let source = Source { config, changes, standing, synced, told: Vec::new(), recalled: None };
    telemetry::spawn("kubernetes source", source.run());
    is_synced
}

struct Source {
    config: Config,
    changes: mpsc::Sender<Change>,
    standing: Arc<Standing>,
    synced: channel::Sender<bool>,
    /// The issues that were told last.
    told: Vec<Issue>,
    /// Of when the saved world in force is.
    recalled: Option<String>,
}

impl Source {
    async fn run(mut self) {
        let mut watches = self.begin();
        // A saved world is looked for once.
        let mut may_recall = self.config.purpose == Purpose::Node;
        while !self.changes.is_closed() {
            if !*self.synced.borrow() {
                if self.standing.all_listed() {
                    self.now_in_sync().await;
                } else if may_recall && self.standing.is_stalled(self.config.patience, Instant::now()) {
                    may_recall = false;
                    for watch in watches {
                        watch.abort();
                        // It has ended one way or the other.
                        let _aborted = watch.await;
                    }
                    self.recall().await;
                    self.standing.restart();
                    watches = self.begin();
                }
            }
            self.tell_issues().await;
            // Either way it is time to look.
            let _late = timeout(TICK, self.standing.changed()).await;
        }
        watches.iter().for_each(JoinHandle::abort);
    }

    fn begin(&self) -> Vec<JoinHandle<()>> {
        let kinds = self.config.purpose.resources().into_iter().map(|resource| (resource, None));
        let secrets = self.config.secrets.iter().map(|name| (&resource::SECRETS, Some(name.clone())));
        kinds
            .chain(secrets)
            .map(|subject| {
                let watch = Watch::new(&self.config, subject, self.changes.clone(), Arc::clone(&self.standing));
                telemetry::spawn("kubernetes watch", watch.run())
            })
            .collect()
    }

    async fn now_in_sync(&mut self) {
        self.tell(Change::Synced(SourceId::Objects)).await;
        if self.recalled.take().is_some() {
            tracing::info!("the API server has told of every object: the saved ones are replaced");
        }
        self.standing.set_stale(false);
        self.synced.send_replace(true);
    }

    /// Tells the saved world, if there is one.
    async fn recall(&mut self) {
        let directory = self.config.saved.clone();
        let loaded = tokio::task::spawn_blocking(move || saved::load(&directory)).await;
        let world = match loaded {
            Ok(Ok(Some(world))) => world,
            Ok(Ok(None)) => {
                return tracing::warn!(
                    "the API server has not told of every object yet, and none are saved to stand in"
                );
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                return tracing::error!(
                    error,
                    "the saved objects are left aside, and the API server has not told of all yet"
                );
            }
            Err(_) => return tracing::error!("reading the saved world was broken off"),
        };
        tracing::warn!(
            saved = world.time,
            objects = world.objects,
            "the API server has not told of every object yet: those that were saved are in force until it has"
        );
        let (changes, time) = (self.changes.clone(), world.time.clone());
        let tell = move || world.tell(|object| changes.blocking_send(Change::Upsert(Box::new(object))).is_ok());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(tell).await {
            let error = &error as &dyn std::error::Error;
            return tracing::error!(error, "the saved objects changed while they were read; they do not stand in");
        }
        self.recalled = Some(time);
        self.standing.set_stale(true);
        self.tell(Change::Recalled(SourceId::Objects)).await;
    }

    async fn tell_issues(&mut self) {
        let issues = self.standing.issues(self.recalled.as_deref(), Instant::now());
        if issues != self.told {
            if !*self.synced.borrow() {
                // Nothing may be in force yet, so that nobody else logs them.
                for issue in issues.iter().filter(|issue| !self.told.contains(issue)) {
                    tracing::warn!(object = %issue.object, "{}; {}", issue.problem, issue.cure);
                }
            }
            self.told.clone_from(&issues);
            self.tell(Change::Faults { origin: ORIGIN.to_owned(), issues }).await;
        }
    }

    async fn tell(&self, change: Change) {
        // Nobody receives: the daemon stops, and `run` sees it.
        let _stopping = self.changes.send(change).await;
    }
}

//! Tells the end of a daemon from the end of the mesh.
//!
//! In:  what became of the DaemonSet that this daemon is of.
//! Out: [`Ending`].
//! Invariant: in doubt the mesh stays: pods without a daemon are closed, and the next daemon opens them.
//! Source: Kubernetes, "Garbage Collection": a DaemonSet that is deleted goes before its pods, or is marked before them.

use crate::telemetry;
use futures_util::TryStreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet as Object;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::time::Duration;
use tokio::sync::watch;

/// What became of the DaemonSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DaemonSet {
    /// Nobody could be asked yet.
    #[default]
    Unknown,
    /// It is there.
    Present,
    /// It is there, and is being deleted.
    Deleting,
    /// It is gone.
    Gone,
}

/// Why a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another one follows: an upgrade, a restart, a node that shuts down. Everything stays.
    Restart,
    /// The mesh leaves this node.
    Uninstall,
}

/// Why a daemon of this DaemonSet ends that was told to. `seen` is what was seen last, `asked` what the API server says now, if
/// it says anything.
#[must_use]
pub const fn ending(seen: DaemonSet, asked: Option<DaemonSet>) -> Ending {
    // Who deletes a release deletes also what allows the daemon to ask. So what was seen counts unless it is contradicted.
    match (asked, seen) {
        (Some(DaemonSet::Gone | DaemonSet::Deleting), _)
        | (None | Some(DaemonSet::Unknown), DaemonSet::Gone | DaemonSet::Deleting) => Ending::Uninstall,
        (Some(DaemonSet::Present), _) | (None | Some(DaemonSet::Unknown), DaemonSet::Present | DaemonSet::Unknown) => {
            Ending::Restart
        }
    }
}

/// What an object's metadata say.
fn state(object: &PartialObjectMeta<Object>) -> DaemonSet {
    if object.metadata.deletion_timestamp.is_some() { DaemonSet::Deleting } else { DaemonSet::Present }
}

/// Tells what becomes of the DaemonSet, for as long as it is polled.
async fn follow(api: Api<PartialObjectMeta<Object>>, name: String, seen: watch::Sender<DaemonSet>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher::watcher(api, config));
    let mut listed = DaemonSet::Gone;
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed = DaemonSet::Gone,
            Ok(Some(Event::InitApply(object))) => listed = state(&object),
            Ok(Some(Event::InitDone)) => drop(seen.send_replace(listed)),
            Ok(Some(Event::Apply(object))) => drop(seen.send_replace(state(&object))),
            Ok(Some(Event::Delete(_))) => drop(seen.send_replace(DaemonSet::Gone)),
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the daemon's own DaemonSet cannot be watched");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The DaemonSet that a daemon is of, being watched.
pub(super) struct Own {
    api: Api<Object>,
    name: String,
    seen: watch::Receiver<DaemonSet>,
}

impl Own {
    /// Begins to watch the DaemonSet `name` in the client's own namespace.
    pub(super) fn watch(client: Client, name: &str) -> Self {
        let (told, seen) = watch::channel(DaemonSet::default());
        let metadata = Api::default_namespaced(client.clone());
        telemetry::spawn("daemon set", follow(metadata, name.to_owned(), told));
        Self { api: Api::default_namespaced(client), name: name.to_owned(), seen }
    }

    /// Why the daemon ends, now that it was told to.
    pub(super) async fn ending(&self) -> Ending {
        let asked = ask(&self.api, &self.name).await;
        let seen = *self.seen.borrow();
        ending(seen, asked)
    }
}

/// How soon to try again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the API server may take to say whether the mesh is being uninstalled.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the API server says of the DaemonSet now; `None` if it says nothing of it.
async fn ask(api: &Api<Object>, name: &str) -> Option<DaemonSet> {
    match tokio::time::timeout(PATIENCE, api.get_metadata_opt(name)).await {
        Ok(Ok(Some(object))) => Some(state(&object)),
        Ok(Ok(None)) => Some(DaemonSet::Gone),
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot ask whether the mesh is being uninstalled");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_go_is_uninstalled() {
        use DaemonSet::{Deleting, Gone, Present, Unknown};
        for (seen, asked, expected) in [
            (Unknown, None, Ending::Restart),
            (Present, None, Ending::Restart),
            (Present, Some(Present), Ending::Restart),
            // The watch was late.
            (Present, Some(Gone), Ending::Uninstall),
            (Unknown, Some(Gone), Ending::Uninstall),
            (Present, Some(Deleting), Ending::Uninstall),
            // The role that allows to ask went first, or the API server is away.
            (Gone, None, Ending::Uninstall),
            (Deleting, None, Ending::Uninstall),
            (Gone, Some(Unknown), Ending::Uninstall),
            // It was deleted without its pods and made again.
            (Gone, Some(Present), Ending::Restart),
        ] {
            assert_eq!(ending(seen, asked), expected, "{seen:?} {asked:?}");
        }
    }

    #[test]
    fn an_object_that_is_being_deleted_says_so() {
        let object = |text: &str| serde_json::from_str::<PartialObjectMeta<Object>>(text).expect("metadata");
        assert_eq!(state(&object(r#"{"metadata":{"name":"mesh-node"}}"#)), DaemonSet::Present);
        let deleting = r#"{"metadata":{"name":"mesh-node","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(state(&object(deleting)), DaemonSet::Deleting);
    }
}

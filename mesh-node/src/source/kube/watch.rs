//! Follows the objects of one kind, or one of them.
//!
//! In:  a client, a [`Resource`], and the name if it is one.
//! Out: changes over a channel; how it goes, to [`Standing`].
//! Invariant: after a list, what was not in it is gone: a deletion that nobody told of is not missed.
//! Invariant: an object that cannot be read is named, and keeps no other from being read; what was known of it holds.
//! Source: Kubernetes, "API concepts": lists in pages, streaming lists, watches, bookmarks, 410 Gone.

use super::Config;
use super::resource::{self, Purpose, Resource, Subject};
use super::slim;
use super::standing::Standing;
use super::trouble::Trouble;
use crate::cluster::MAX_SILENCE;
use crate::model::Name;
use crate::world::{Change, Kind};
use futures_util::TryStreamExt as _;
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::request::Request;
use kube::core::watch::WatchEvent;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Objects on a page of a list.
const PAGE: u32 = 500;
/// How long a page may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a watch lasts before it is begun anew; up to a quarter less, so that nodes do not all do so at once.
const WATCH_SECONDS: u32 = 290;
/// A kind that nobody has defined is looked for this often if its definition cannot be waited for.
const ABSENT: Duration = Duration::from_secs(30);
/// The annotation of the bookmark that ends a streamed list.
const LIST_ENDS: &str = "k8s.io/initial-events-end";
/// Where definitions of custom kinds are.
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Pauses between failures: they double from the first to the last, and half of each is chance.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(250);
    const LAST: Duration = Duration::from_secs(15);

    fn new() -> Self {
        Self { next: Self::FIRST }
    }

    fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(Self::LAST);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Follows the objects of one kind, or one of them.
pub(super) struct Watch {
    client: Client,
    resource: &'static Resource,
    subject: Subject,
    /// The place in `resource.versions` of the one that is served.
    version: usize,
    /// The revision up to which everything is told; `None` before the first list.
    revision: Option<String>,
    /// Can the API server stream lists?
    streaming: bool,
    /// The node that this is.
    node: Arc<str>,
    purpose: Purpose,
    changes: mpsc::Sender<Change>,
    standing: Arc<Standing>,
}

impl Watch {
    pub(super) fn new(
        config: &Config,
        (resource, only): (&'static Resource, Option<Name>),
        changes: mpsc::Sender<Change>,
        standing: Arc<Standing>,
    ) -> Self {
        let (client, node, purpose) = (config.client.clone(), Arc::clone(&config.node), config.purpose);
        let subject = Subject { kind: resource.kind, only };
        let (version, revision, streaming) = (0, None, true);
        Self { client, resource, subject, version, revision, streaming, node, purpose, changes, standing }
    }

    /// Follows until nobody receives the changes.
    ///
    /// **Cancel**: safe; no change is told by half.
    pub(super) async fn run(mut self) {
        let kind = self.resource.kind;
        if kind != Kind::Namespace {
            // Namespaces say which pods are in the mesh, so they come first.
            self.standing.wait_for(&Kind::Namespace.into()).await;
        }
        let mut backoff = Backoff::new();
        loop {
            let started = Instant::now();
            match self.follow().await {
                Ok(()) if started.elapsed() > Backoff::FIRST => backoff = Backoff::new(),
                // A watch that ends at once is no better than a failure.
                Ok(()) => sleep(backoff.pause()).await,
                Err(Trouble::Unwanted) => return,
                Err(Trouble::Expired) => {
                    tracing::info!(
                        kind = kind.name(),
                        "the API server has forgotten where the watch was; listing again"
                    );
                    self.revision = None;
                    sleep(backoff.pause()).await;
                }
                Err(Trouble::NoStreaming) => self.streaming = false,
                Err(Trouble::NotServed) if self.version + 1 < self.resource.versions.len() => self.version += 1,
                Err(Trouble::NotServed) if self.resource.is_custom => {
                    self.version = 0;
                    self.revision = None;
                    if self.end_list(Vec::new()).await.is_err() {
                        return;
                    }
                    self.wait_definition().await;
                    // What is defined may not be served yet.
                    sleep(backoff.pause()).await;
                }
                // Nothing else waits for a single object: it counts as absent until it may be read.
                Err(trouble @ Trouble::Forbidden(_))
                    if self.subject.only.is_some() && !self.standing.is_listed(&self.subject) =>
                {
                    if self.end_list(Vec::new()).await.is_err() {
                        return;
                    }
                    self.standing.failed(&self.subject, trouble);
                    sleep(backoff.pause()).await;
                }
                Err(
                    trouble @ (Trouble::NotServed | Trouble::Forbidden(_) | Trouble::Refused(_) | Trouble::Silent(_)),
                ) => {
                    if started.elapsed() > Backoff::LAST {
                        backoff = Backoff::new();
                    }
                    tracing::debug!(kind = kind.name(), ?trouble, "a watch failed");
                    self.standing.failed(&self.subject, trouble);
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Lists everything if nothing is known yet, and follows what changes until the API server ends the watch.
    async fn follow(&mut self) -> Result<(), Trouble> {
        if self.revision.is_none() && !self.streaming {
            self.list().await?;
        }
        self.stream().await
    }

    /// Lists everything page by page.
    async fn list(&mut self) -> Result<(), Trouble> {
        #[derive(Deserialize)]
        struct Page<'json> {
            #[serde(default)]
            metadata: ListMeta,
            #[serde(borrow)]
            items: Option<Vec<&'json RawValue>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMeta {
            #[serde(default)]
            resource_version: String,
            #[serde(default, rename = "continue")]
            continue_token: String,
        }

        self.standing.lists(&self.subject);
        let mut params = ListParams { limit: Some(PAGE), field_selector: self.fields(), ..ListParams::default() };
        let mut names = Vec::new();
        loop {
            let request = self.request().list(&params).map_err(kube::Error::BuildRequest)?;
            let text = timeout(PAGE_PATIENCE, self.client.request_text(request))
                .await
                .map_err(|_| Trouble::Silent(format!("no list within {} s", PAGE_PATIENCE.as_secs())))??;
            let page: Page<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
            self.standing.heard(&self.subject);
            for item in page.items.unwrap_or_default() {
                push(&mut names, self.exists(item.get()).await?);
            }
            if page.metadata.continue_token.is_empty() {
                self.revision = Some(page.metadata.resource_version);
                return self.end_list(names).await;
            }
            params.continue_token = Some(page.metadata.continue_token);
        }
    }

    /// Follows changes from the last revision on, or streams everything first if there is none, until the API server
    /// ends the watch.
    async fn stream(&mut self) -> Result<(), Trouble> {
        let kind = self.resource.kind;
        let mut listing = self.revision.is_none().then(Vec::new);
        if listing.is_some() {
            self.standing.lists(&self.subject);
        }
        let params = WatchParams {
            field_selector: self.fields(),
            timeout: Some(WATCH_SECONDS - fastrand::u32(..WATCH_SECONDS / 4)),
            bookmarks: true,
            send_initial_events: listing.is_some(),
            ..WatchParams::default()
        };
        let from = self.revision.clone().unwrap_or_default();
        let request = self.request().watch(&params, &from).map_err(kube::Error::BuildRequest)?;
        let events = self.client.request_events::<Box<RawValue>>(request);
        let events = timeout(MAX_SILENCE, events).await.map_err(|_| silence())??;
        if listing.is_none() {
            self.standing.heard(&self.subject);
        }
        let mut events = pin!(events);
        loop {
            let event = timeout(MAX_SILENCE, events.try_next()).await.map_err(|_| silence())??;
            let Some(event) = event else { break };
            self.standing.heard(&self.subject);
            match event {
                WatchEvent::Added(json) | WatchEvent::Modified(json) => {
                    let name = self.exists(json.get()).await?;
                    match &mut listing {
                        Some(names) => push(names, name),
                        None => self.reached(json.get())?,
                    }
                }
                WatchEvent::Deleted(json) => {
                    let name = head(json.get())?.name;
                    self.standing.readable(&self.subject, &name);
                    self.tell(Change::Delete(kind, name)).await?;
                    self.reached(json.get())?;
                }
                WatchEvent::Bookmark(bookmark) if listing.is_none() => {
                    self.revision = Some(bookmark.metadata.resource_version);
                }
                WatchEvent::Bookmark(bookmark) => {
                    if bookmark.metadata.annotations.contains_key(LIST_ENDS) {
                        self.revision = Some(bookmark.metadata.resource_version);
                        self.end_list(listing.take().unwrap_or_default()).await?;
                    }
                }
                WatchEvent::Error(status) => return Err(Trouble::from(&*status)),
            }
        }
        match listing {
            None => Ok(()),
            Some(_) => Err(Trouble::Silent("the list ended before it was complete".to_owned())),
        }
    }

    /// Tells of an object that exists, if it can be read. Returns its name.
    async fn exists(&self, json: &str) -> Result<Name, Trouble> {
        let kind = self.resource.kind;
        match self.purpose.object(kind, json) {
            Ok(mut object) => {
                let name = object.metadata().full_name();
                self.standing.readable(&self.subject, &name);
                slim::slim(&mut object, &self.node);
                self.tell(Change::Upsert(Box::new(object))).await?;
                Ok(name)
            }
            Err(error) => {
                let name = head(json)?.name;
                self.standing.unreadable(&self.subject, &name, error.to_string());
                Ok(name)
            }
        }
    }

    /// What is not named is gone.
    async fn end_list(&self, names: Vec<Name>) -> Result<(), Trouble> {
        let names = names.into_iter().collect();
        self.standing.exist_only(&self.subject, &names);
        match &self.subject {
            Subject { kind, only: None } => self.tell(Change::Only(*kind, names)).await?,
            Subject { kind, only: Some(name) } if names.is_empty() => {
                self.tell(Change::Delete(*kind, name.clone())).await?;
            }
            Subject { only: Some(_), .. } => {}
        }
        self.standing.listed(&self.subject);
        Ok(())
    }

    fn reached(&mut self, json: &str) -> Result<(), Trouble> {
        self.revision = Some(head(json)?.revision);
        Ok(())
    }

    async fn tell(&self, change: Change) -> Result<(), Trouble> {
        self.changes.send(change).await.map_err(|_| Trouble::Unwanted)
    }

    fn request(&self) -> Request {
        let version = self.resource.versions.get(self.version).copied().unwrap_or_default();
        Request::new(self.resource.path(version, self.subject.only.as_ref().map(|name| &*name.namespace)))
    }

    /// Which objects are asked for. By a name that is asked for the API server also knows whether that may be.
    fn fields(&self) -> Option<String> {
        let only = self.subject.only.as_ref().map(|only| format!("metadata.name={}", only.name));
        only.or_else(|| Some(self.resource.fields.to_owned()).filter(|fields| !fields.is_empty()))
    }

    /// Returns when the kind may be served: somebody has defined it, or it is time to look again.
    async fn wait_definition(&self) {
        if let Err(error) = self.watch_definition().await {
            // Permission to watch definitions is not needed: looking more often stands in for it.
            tracing::debug!(kind = self.resource.kind.name(), %error, "definitions cannot be watched");
            sleep(ABSENT).await;
        }
    }

    async fn watch_definition(&self) -> kube::Result<()> {
        let params = WatchParams {
            field_selector: Some(format!("metadata.name={}", self.resource.name())),
            timeout: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let mut request = Request::new(DEFINITIONS).watch(&params, "").map_err(kube::Error::BuildRequest)?;
        let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        request.headers_mut().insert(hyper::header::ACCEPT, hyper::header::HeaderValue::from_static(metadata));
        let mut events = pin!(self.client.request_events::<Box<RawValue>>(request).await?);
        while let Some(event) = events.try_next().await? {
            if matches!(event, WatchEvent::Added(_) | WatchEvent::Modified(_)) {
                break;
            }
        }
        Ok(())
    }
}

/// Adds a name to those of a list, which come by namespace: neighbours share its text.
fn push(names: &mut Vec<Name>, mut name: Name) {
    if let Some(last) = names.last().filter(|last| last.namespace == name.namespace) {
        name.namespace = last.namespace.clone();
    }
    names.push(name);
}

fn head(json: &str) -> Result<resource::Head, Trouble> {
    resource::head(json).map_err(|error| Trouble::Refused(format!("an object without a name: {error}")))
}

fn silence() -> Trouble {
    Trouble::Silent(format!("the API server was silent for {} s", MAX_SILENCE.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses.iter().all(|pause| (Backoff::FIRST / 2..=Backoff::LAST).contains(pause)), "{pauses:?}");
        assert!(pauses.last() > pauses.first());
        assert!(pauses[15..].windows(2).any(|pair| pair[0] != pair[1]), "no chance in {pauses:?}");
    }
}

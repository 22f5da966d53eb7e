//! How the watches stand, all together.
//!
//! In:  what each watch hears, and what goes wrong with it.
//! Out: whether everything is known, whether nothing goes on, issues for people, metrics.
//! Invariant: the issues of an outage stay the same while it lasts.

use super::resource::{Purpose, Resource, SECRETS, Subject};
use super::trouble::Trouble;
use crate::model::{Issue, Name, ObjectRef};
use crate::telemetry::Metrics;
use crate::world::Kind;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};

#[cfg(test)]
mod tests;

/// The kind in issues about the API server itself.
const API: &str = "Kubernetes API";
/// A silence of the API server is an issue after this long: restarts are shorter.
const OUTAGE: Duration = Duration::from_secs(5);

/// How one watch stands.
#[derive(Clone, Debug, Default)]
struct Of {
    /// When its list was begun last.
    begun: Option<Instant>,
    /// When the API server last said something.
    heard: Option<Instant>,
    /// What is wrong, and since when.
    trouble: Option<(Trouble, Instant)>,
    /// Objects that cannot be read, and why.
    unreadable: BTreeMap<Name, String>,
}

type ByKind<M> = Family<[(&'static str, &'static str); 1], M>;

/// How the watches stand.
pub(super) struct Standing {
    watched: Vec<(&'static Resource, Subject)>,
    watches: Mutex<BTreeMap<Subject, Of>>,
    listed: watch::Sender<BTreeSet<Subject>>,
    changed: Notify,
    stale: Gauge,
    relists: ByKind<Counter>,
    errors: ByKind<Counter>,
    connected: ByKind<Gauge>,
    last_event: ByKind<Gauge>,
}

fn of(kind: Kind) -> [(&'static str, &'static str); 1] {
    [("kind", kind.name())]
}

impl Standing {
    /// Nothing is told yet of what `purpose` needs, nor of these Secrets.
    pub(super) fn new(purpose: Purpose, secrets: &BTreeSet<Name>, metrics: &Metrics) -> Self {
        let kinds = purpose.resources().into_iter().map(|resource| (resource, Subject::from(resource.kind)));
        let secrets = secrets.iter().map(|name| (&SECRETS, Subject { kind: SECRETS.kind, only: Some(name.clone()) }));
        let own = Self {
            watched: kinds.chain(secrets).collect(),
            watches: Mutex::default(),
            listed: watch::Sender::default(),
            changed: Notify::new(),
            stale: Gauge::default(),
            relists: Family::default(),
            errors: Family::default(),
            connected: Family::default(),
            last_event: Family::default(),
        };
        for (Resource { kind, .. }, _) in &own.watched {
            own.relists.get_or_create(&of(*kind)).inc_by(0);
            own.errors.get_or_create(&of(*kind)).inc_by(0);
            own.connected.get_or_create(&of(*kind)).set(0);
        }
        metrics.register(|registry| {
            let help = "Are the objects in force those of an earlier run, because the API server has not told all yet?";
            registry.register("mesh_source_stale", help, own.stale.clone());
            let help = "Times that all objects of a kind were asked for";
            registry.register("mesh_source_relists", help, own.relists.clone());
            registry.register("mesh_source_watch_errors", "Watches that failed", own.errors.clone());
            let help = "Does the API server tell of changes?";
            registry.register("mesh_source_connected", help, own.connected.clone());
            let help = "When the API server last said something of a kind, in seconds since 1970";
            registry.register("mesh_source_last_event_timestamp_seconds", help, own.last_event.clone());
        });
        own
    }

    /// A list of everything is begun.
    pub(super) fn lists(&self, subject: &Subject) {
        self.relists.get_or_create(&of(subject.kind)).inc();
        self.watches().entry(subject.clone()).or_default().begun = Some(Instant::now());
    }

    /// The API server said something that was asked for.
    pub(super) fn heard(&self, subject: &Subject) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last_event.get_or_create(&of(subject.kind)).set(i64::try_from(now).unwrap_or(i64::MAX));
        self.connected.get_or_create(&of(subject.kind)).set(1);
        let mut watches = self.watches();
        let state = watches.entry(subject.clone()).or_default();
        state.heard = Some(Instant::now());
        if state.trouble.take().is_some() {
            self.changed.notify_one();
        }
    }

    /// It cannot be watched now.
    pub(super) fn failed(&self, subject: &Subject, trouble: Trouble) {
        self.errors.get_or_create(&of(subject.kind)).inc();
        self.connected.get_or_create(&of(subject.kind)).set(0);
        let mut watches = self.watches();
        let state = watches.entry(subject.clone()).or_default();
        match &mut state.trouble {
            // Why it does not answer may read differently each time.
            Some((Trouble::Silent(_), _)) if matches!(trouble, Trouble::Silent(_)) => {}
            Some((known, _)) => *known = trouble,
            None => state.trouble = Some((trouble, Instant::now())),
        }
        self.changed.notify_one();
    }

    /// Everything of it is told.
    pub(super) fn listed(&self, subject: &Subject) {
        self.heard(subject);
        self.listed.send_if_modified(|listed| listed.insert(subject.clone()));
        self.changed.notify_one();
    }

    /// Objects of these names exist and no others.
    pub(super) fn exist_only(&self, subject: &Subject, names: &BTreeSet<Name>) {
        self.watches().entry(subject.clone()).or_default().unreadable.retain(|name, _| names.contains(name));
    }

    /// The object was read, or is gone.
    pub(super) fn readable(&self, subject: &Subject, name: &Name) {
        if self.watches().entry(subject.clone()).or_default().unreadable.remove(name).is_some() {
            self.changed.notify_one();
        }
    }

    /// The object cannot be read.
    pub(super) fn unreadable(&self, subject: &Subject, name: &Name, why: String) {
        self.watches().entry(subject.clone()).or_default().unreadable.insert(name.clone(), why);
        self.changed.notify_one();
    }

    /// Every watch begins anew.
    pub(super) fn restart(&self) {
        self.listed.send_replace(BTreeSet::new());
        for state in self.watches().values_mut() {
            state.begun = None;
        }
    }

    pub(super) fn set_stale(&self, stale: bool) {
        self.stale.set(stale.into());
    }

    /// Waits until everything of it is told.
    pub(super) async fn wait_for(&self, subject: &Subject) {
        // The sender is this very object, so the channel stays open.
        let mut listed = self.listed.subscribe();
        let _closed = listed.wait_for(|listed| listed.contains(subject)).await;
    }

    /// Is everything of it told?
    pub(super) fn is_listed(&self, subject: &Subject) -> bool {
        self.listed.borrow().contains(subject)
    }

    /// Waits until anything but an ordinary change happens.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Is everything told?
    pub(super) fn all_listed(&self) -> bool {
        self.listed.borrow().len() == self.watched.len()
    }

    /// Has a list come no further for this long?
    pub(super) fn is_stalled(&self, patience: Duration, now: Instant) -> bool {
        let listed = self.listed.borrow().clone();
        let long_ago = |then: Instant| now.saturating_duration_since(then) >= patience;
        self.watches().iter().filter(|(subject, _)| !listed.contains(subject)).any(|(_, state)| {
            state.trouble.as_ref().is_some_and(|(_, since)| long_ago(*since))
                || state.begun.max(state.heard).is_some_and(long_ago)
        })
    }

    /// What is wrong, for people. `recalled` says of when the objects are that are in force, if they are not of now.
    pub(super) fn issues(&self, recalled: Option<&str>, now: Instant) -> Vec<Issue> {
        let watches = self.watches();
        let mut issues = Vec::new();
        let silence = self.watched.iter().find_map(|(_, subject)| match &watches.get(subject)?.trouble {
            Some((Trouble::Silent(why), since)) if now.saturating_duration_since(*since) >= OUTAGE => Some(why),
            Some(_) | None => None,
        });
        if let Some(why) = silence {
            issues.push(api_issue(
                "",
                format!("it does not answer: {why}; what was known before stays in force"),
                "see whether the API server runs and whether this node reaches it".to_owned(),
            ));
        }
        if let Some(when) = recalled {
            issues.push(api_issue(
                "",
                format!("it has not told of every object since the daemon started; those of {when} are in force"),
                "see whether the API server runs and answers what the daemon asks".to_owned(),
            ));
        }
        for (resource, subject) in &self.watched {
            let Some(state) = watches.get(subject) else { continue };
            issues.extend(state.trouble.as_ref().and_then(|(trouble, _)| refusal(resource, subject, trouble)));
            issues.extend(state.unreadable.iter().map(|(name, why)| {
                Issue::new(
                    &ObjectRef::new(resource.kind.name(), name.clone()),
                    "",
                    format!("it cannot be read: {why}; what was read of it before stays in force"),
                    "correct the object",
                )
            }));
        }
        issues
    }

    fn watches(&self) -> MutexGuard<'_, BTreeMap<Subject, Of>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn api_issue(resource: &str, problem: String, cure: String) -> Issue {
    Issue::new(&ObjectRef::new(API, Name::new("", resource)), "", problem, cure)
}

/// The issue of what the API server does not give away.
fn refusal(resource: &Resource, subject: &Subject, trouble: &Trouble) -> Option<Issue> {
    let name = resource.name();
    let (problem, cure) = match trouble {
        Trouble::Forbidden(why) if subject.only.is_some() => (
            format!("it may not be listed and watched: {why}"),
            format!("let a Role in its namespace give the daemon `list` and `watch` on `{name}` of this name"),
        ),
        Trouble::Forbidden(why) => (
            format!("{name} may not be listed and watched: {why}"),
            format!("let the daemon's ClusterRole give the verbs `list` and `watch` on `{name}`"),
        ),
        Trouble::Refused(why) => {
            let cure = "see the log of the API server; with status 401, see whether the daemon's token is valid";
            (format!("{name} cannot be watched: {why}"), cure.to_owned())
        }
        Trouble::NotServed => (
            format!("{name} of {} is not served", resource.versions.join(" or ")),
            "use a Kubernetes that serves it".to_owned(),
        ),
        Trouble::Silent(_) | Trouble::Expired | Trouble::NoStreaming | Trouble::Unwanted => return None,
    };
    let problem = format!("{problem}; what was known of it before stays in force");
    Some(match &subject.only {
        None => api_issue(&name, problem, cure),
        Some(only) => Issue::new(&ObjectRef::new(subject.kind.name(), only.clone()), "", problem, cure),
    })
}

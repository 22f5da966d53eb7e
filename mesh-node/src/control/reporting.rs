//! The loop of the reporter: what is known becomes what users are told of their routes and gateways.
//!
//! In:  changes from the source, what daemons tell, whether this process leads.
//! Out: statuses, through [`Writer`].
//! Invariant: nothing is decided here; `translate` and `compile` judge, `status::conditions` words it.
//! Invariant: nothing is written before the world is whole, by who does not lead, or over what was not seen.

use crate::api::custom::CustomKind;
use crate::compile::Standings;
use crate::model::CONTROLLER;
use crate::model::Name;
use crate::source::daemons::Daemons;
use crate::status::conditions::{self, Speaker};
use crate::status::writer::{WriteError, Writer};
use crate::telemetry::{explain, timestamp};
use crate::translate::{Settings, Translator};
use crate::world::{Change, SourceId, World};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Changes taken together.
const BATCH: usize = 4096;
/// How long changes are waited for that come together, as those of a rollout do.
const SETTLING: Duration = Duration::from_millis(100);
/// How long gateways wait for what daemons tell, lest a reporter that has just begun take back what they told before.
const HEARING: Duration = Duration::from_secs(10);
/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(2);
/// The kinds that statuses are written of.
const KINDS: [CustomKind; 4] =
    [CustomKind::HttpRoute, CustomKind::GrpcRoute, CustomKind::Gateway, CustomKind::GatewayClass];

type Subject = (CustomKind, Name);

/// The loop's state.
pub struct Reporting {
    world: World,
    translator: Translator,
    writer: Writer,
    /// The revision over which a status was written last: until the source tells of a newer one, nothing more is.
    written: BTreeMap<Subject, String>,
    /// What is still to be looked at.
    due: VecDeque<Subject>,
    /// When everything is looked at again.
    review: Option<Instant>,
    daemons: watch::Receiver<Daemons>,
    /// Until then gateways wait for these.
    hearing: Instant,
}

impl Reporting {
    /// One that knows of nothing.
    #[must_use]
    pub fn new(names: Settings, writer: Writer, daemons: watch::Receiver<Daemons>) -> Self {
        let mut world = World::default();
        // A reporter has no sandboxes.
        world.apply(Change::Synced(SourceId::Attachments));
        let (written, due) = (BTreeMap::new(), VecDeque::new());
        let hearing = Instant::now() + HEARING;
        Self { world, translator: Translator::new(names), writer, written, due, review: None, daemons, hearing }
    }

    /// Runs until the source has ended.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>, mut leads: watch::Receiver<bool>) {
        loop {
            let may_write = *leads.borrow_and_update() && self.world.is_whole();
            let next = if self.due.is_empty() { self.review } else { Some(self.writer.next()) };
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => self.take(change, &mut changes),
                    None => return,
                },
                Ok(()) = self.daemons.changed() => self.review_by(Instant::now() + SETTLING),
                // Who leads anew looks at everything.
                Ok(()) = leads.changed() => self.review = Some(Instant::now()),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if may_write && next.is_some() => self.go_on().await,
            }
        }
    }

    fn take(&mut self, first: Change, changes: &mut mpsc::Receiver<Change>) {
        let mut touched = self.world.learn(first);
        for _ in 1..BATCH {
            let Ok(change) = changes.try_recv() else { break };
            touched.extend(self.world.learn(change));
        }
        if !touched.is_empty() {
            // What it reaches is found by looking at everything, for that is cheap beside a write.
            let _all_are_looked_at = self.translator.learn(&self.world, touched);
            self.review_by(Instant::now() + SETTLING);
        }
    }

    /// Everything is looked at again by then.
    fn review_by(&mut self, at: Instant) {
        self.review = Some(self.review.map_or(at, |review| review.min(at)));
    }

    /// Do gateways wait for what daemons tell?
    fn hears(&self, daemons: &Daemons) -> bool {
        daemons.is_none() && Instant::now() < self.hearing
    }

    /// Looks at the next object, or begins to look at all.
    async fn go_on(&mut self) {
        let Some(subject) = self.due.pop_front() else {
            let now = now();
            let daemons = self.daemons.borrow().clone();
            self.review = self.hears(&daemons).then_some(self.hearing);
            let standings = self.standings(&daemons);
            let of_kind = |kind: CustomKind| self.world.customs(kind).map(move |(name, _)| (kind, name.clone()));
            let all = KINDS.into_iter().flat_map(of_kind);
            let due = all.filter(|subject| self.wanted(&standings, subject, &now).is_some()).collect();
            self.due = due;
            self.written.retain(|(kind, name), _| self.world.custom(*kind, name).is_some());
            return;
        };
        let daemons = self.daemons.borrow().clone();
        let wanted = self.wanted(&self.standings(&daemons), &subject, &now());
        let Some((revision, status)) = wanted else { return };
        let (kind, name) = &subject;
        match self.writer.write((*kind, name), &revision, &status).await {
            // The source tells what there is now.
            Ok(()) | Err(WriteError::Outdated) => {
                self.written.insert(subject, revision);
            }
            Err(error @ (WriteError::Refused(_) | WriteError::Silent)) => {
                tracing::warn!(kind = kind.name(), %name, error = explain(&error), "a status is not written");
                // One that is refused holds up no other.
                if matches!(error, WriteError::Silent) {
                    self.due.clear();
                }
                self.review = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn standings<'s>(&'s self, daemons: &'s Daemons) -> Standings<'s> {
        Standings::new(&self.world, &self.translator, CONTROLLER).hearing(daemons.as_deref())
    }

    /// The status that an object must get, with the revision that it is for; `None` if it has it.
    fn wanted(&self, standings: &Standings<'_>, subject: &Subject, now: &str) -> Option<(String, Map<String, Value>)> {
        let (kind, name) = subject;
        let object = self.world.custom(*kind, name)?;
        let revision = &object.reported.as_ref()?.revision;
        if self.written.get(subject) == Some(revision) {
            return None;
        }
        let speaker = Speaker { controller: CONTROLLER, now };
        let status = match kind {
            CustomKind::HttpRoute | CustomKind::GrpcRoute => {
                conditions::route(object, &standings.route(*kind, name)?, speaker)
            }
            CustomKind::Gateway if self.hears(&self.daemons.borrow()) => None,
            CustomKind::Gateway => conditions::gateway(object, &standings.gateway(name)?, speaker),
            CustomKind::GatewayClass if standings.is_own_class(&name.name) => conditions::class(object, speaker),
            CustomKind::GatewayClass
            | CustomKind::ReferenceGrant
            | CustomKind::VirtualService
            | CustomKind::DestinationRule
            | CustomKind::ServiceEntry
            | CustomKind::WorkloadEntry
            | CustomKind::IstioGateway
            | CustomKind::Sidecar
            | CustomKind::NetworkPolicy
            | CustomKind::ClusterNetworkPolicy
            | CustomKind::Calico(..)
            | CustomKind::AuthorizationPolicy
            | CustomKind::RequestAuthentication => None,
        };
        Some((revision.clone(), status?))
    }
}

/// The time in seconds, as Kubernetes writes it.
fn now() -> String {
    let precise = timestamp(SystemTime::now());
    precise.split_once('.').map_or(precise.clone(), |(seconds, _)| format!("{seconds}Z"))
}

//! What users see of the mesh on their own objects.
//!
//! In:  [`Notice`]s of the loop, through [`Notices`]; how routes and gateways stand.
//! Out: Events on pods and gateways, as `kubectl describe` and `kubectl events` show them; in [`conditions`] and [`writer`] the
//!      statuses of routes and gateways.
//! Invariant: nothing waits for the API server: notices that it does not take in time are dropped and counted.
//! Invariant: denials are as many as traffic pleases; of those few are written, and the others counted.
//! Source: Kubernetes `events.k8s.io/v1`.

pub mod conditions;
mod denials;
mod pace;
pub mod writer;

use crate::api::custom::CustomKind;
use crate::model::{Name, ObjectRef};
use crate::telemetry::{Metrics, explain};
use denials::Denials;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Who reports, as Events name it.
const CONTROLLER: &str = "mesh-node";
/// Notices that may wait.
const QUEUE: usize = 256;
/// How long one Event may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest note the API server takes, in bytes.
const MAX_NOTE: usize = 1024;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub about: About,
    /// What happened.
    pub what: What,
}

/// An object of which something is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    api_version: Cow<'static, str>,
    kind: &'static str,
    name: Name,
    uid: String,
}

impl About {
    /// A pod; an Event without its UID belongs to no pod.
    #[must_use]
    pub fn pod(name: &Name, uid: &str) -> Self {
        Self { api_version: "v1".into(), kind: "Pod", name: name.clone(), uid: uid.to_owned() }
    }

    /// An object of a kind that a custom definition brings.
    #[must_use]
    pub fn custom(kind: CustomKind, name: &Name, uid: &str) -> Self {
        let version = kind.versions().first().copied().unwrap_or_default();
        let api_version = format!("{}/{version}", kind.group()).into();
        Self { api_version, kind: kind.name(), name: name.clone(), uid: uid.to_owned() }
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.api_version.to_string()),
            kind: Some(self.kind.to_owned()),
            namespace: Some(self.name.namespace.to_string()),
            name: Some(self.name.name.to_string()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its new connections go through the mesh.
    Joined {
        /// Who it is there.
        identity: String,
    },
    /// Its new connections no longer go through the mesh.
    Left,
    /// It cannot be enrolled.
    Failed {
        /// Why.
        why: String,
    },
    /// Something that arrived for it, or would leave it or enter by it, was denied.
    Denied(Denial),
}

/// What was denied, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rule's name or place in the policy.
    pub rule: String,
    /// The policy that it is of, where one object says so.
    pub policy: Option<ObjectRef>,
    /// What was denied, with the reason and the rule.
    pub note: String,
}

impl What {
    fn event(&self) -> Event {
        let (type_, reason, action, note) = match self {
            Self::Joined { identity } => {
                (EventType::Normal, "MeshJoined", "Enrol", format!("The pod is in the mesh as {identity}"))
            }
            Self::Left => {
                (EventType::Normal, "MeshLeft", "Enrol", "The pod left the mesh; its open connections go on".to_owned())
            }
            Self::Failed { why } => {
                let note = format!("The pod cannot be enrolled, it is tried again: {why}");
                (EventType::Warning, "MeshFailed", "Enrol", note)
            }
            Self::Denied(denial) => (EventType::Warning, "MeshDenied", "Authorize", denial.note.clone()),
        };
        let secondary = match self {
            Self::Denied(denial) => Some(denial.reference()),
            Self::Joined { .. } | Self::Left | Self::Failed { .. } => None,
        };
        Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note[..note.floor_char_boundary(MAX_NOTE)].to_owned()),
            action: action.to_owned(),
            secondary,
        }
    }
}

impl Denial {
    /// The policy, and where in it the rule stands: Events about one pod are counted together only if all this is equal.
    fn reference(&self) -> ObjectReference {
        let object = self.policy.as_ref();
        ObjectReference {
            kind: object.map(|object| object.kind.clone()),
            namespace: object.map(|object| object.name.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: object.map(|object| object.name.name.to_string()),
            field_path: Some(self.rule.clone()),
            ..ObjectReference::default()
        }
    }
}

/// Takes notices; cheap to clone.
#[derive(Clone, Debug)]
pub struct Notices {
    queue: Option<mpsc::Sender<Notice>>,
    dropped: Counter,
    denials: Arc<Denials>,
}

impl Notices {
    /// Notices that nobody reads, where there is no API server.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { queue: None, dropped: Counter::default(), denials: Arc::default() }
    }

    /// Notices, and who writes them down.
    #[must_use]
    pub fn new(metrics: &Metrics) -> (Self, Recording) {
        let (queue, notices) = mpsc::channel(QUEUE);
        let dropped = Counter::default();
        metrics.register(|registry| {
            registry.register("mesh_status_events_dropped", "Events that were not written in time", dropped.clone());
        });
        let denials = Arc::new(Denials::new(metrics));
        (Self { queue: Some(queue), dropped: dropped.clone(), denials }, Recording { notices, dropped })
    }

    /// Passes one on.
    pub fn tell(&self, notice: Notice) {
        if let Some(queue) = &self.queue
            && queue.try_send(notice).is_err()
        {
            self.dropped.inc();
        }
    }

    /// Passes on that a rule denied something at the object with this UID, unless enough was told. Only then the notice is made.
    pub fn tell_denied(&self, uid: &str, (policy, rule): (Option<&ObjectRef>, &str), notice: impl FnOnce() -> Notice) {
        if self.queue.is_some() && self.denials.takes(uid, (policy, rule), Instant::now()) {
            self.tell(notice());
        }
    }
}

/// Writes notices down.
#[derive(Debug)]
pub struct Recording {
    notices: mpsc::Receiver<Notice>,
    dropped: Counter,
}

impl Recording {
    /// Writes Events in the name of `node` until the last [`Notices`] is gone.
    pub async fn run(mut self, client: kube::Client, node: String) {
        let recorder = Recorder::new(client, Reporter { controller: CONTROLLER.to_owned(), instance: Some(node) });
        while let Some(notice) = self.notices.recv().await {
            let (event, about) = (notice.what.event(), notice.about.reference());
            let why = match tokio::time::timeout(PATIENCE, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => explain(&error),
                Err(_) => "the API server does not answer".to_owned(),
            };
            self.dropped.inc();
            tracing::debug!(kind = notice.about.kind, name = %notice.about.name, why, "an Event was not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_as_its_api_does() {
        let named = |kind| {
            let of = About::custom(kind, &Name::new("shop", "front"), "u").reference();
            [of.api_version, of.kind, of.namespace, of.name, of.uid].map(Option::unwrap_or_default)
        };
        let gateway = ["gateway.networking.k8s.io/v1", "Gateway", "shop", "front", "u"];
        assert_eq!(named(CustomKind::Gateway), gateway);
        let istio = ["networking.istio.io/v1", "Gateway", "shop", "front", "u"];
        assert_eq!(named(CustomKind::IstioGateway), istio);
    }

    #[test]
    fn what_is_not_told_is_not_put_into_words() {
        let (notices, mut recording) = Notices::new(&Metrics::default());
        let mut made = 0;
        for _ in 0..5 {
            notices.tell_denied("u", (None, "rule"), || {
                made += 1;
                let denial = Denial { rule: "rule".to_owned(), policy: None, note: String::new() };
                Notice { about: About::pod(&Name::new("shop", "web"), "u"), what: What::Denied(denial) }
            });
        }
        assert_eq!(made, 1);
        assert!(recording.notices.try_recv().is_ok() && recording.notices.try_recv().is_err());
        Notices::nowhere().tell_denied("u", (None, "rule"), || unreachable!("nobody is told"));
    }

    #[test]
    fn a_long_reason_is_cut_where_the_api_server_would_refuse_it() {
        let event = What::Failed { why: "ß".repeat(5000) }.event();
        let length = event.note.map_or(0, |note| note.len());
        assert!((MAX_NOTE - 1..=MAX_NOTE).contains(&length), "{length}");
    }
}

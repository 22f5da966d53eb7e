//! Writes statuses.
//!
//! In:  an object, its revision, its new status.
//! Out: the status is written, or why not.
//! Invariant: a status is written only over the revision that it was made from: what others said meanwhile is not lost.
//! Invariant: never more than `RATE` writes a second, but for the first `BURST`.
//! Source: Kubernetes, "API concepts", subresources and optimistic concurrency; RFC 7386.

use super::pace::Pace;
use crate::api::custom::CustomKind;
use crate::model::Name;
use crate::telemetry::Metrics;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Who writes, as the API server notes it.
const MANAGER: &str = "mesh-reporter";
/// Writes a second.
const RATE: u32 = 20;
/// Writes at once after a rest.
const BURST: u32 = 50;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else has written meanwhile, or the object is gone: a newer state of it comes.
    #[error("the object has changed meanwhile")]
    Outdated,
    /// The API server refuses, or cannot be asked.
    #[error("cannot write a status")]
    Refused(#[source] Box<kube::Error>),
    /// It does not answer.
    #[error("the API server does not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Writes statuses, not too fast.
pub struct Writer {
    client: Client,
    pace: Pace,
    written: Counter,
    failed: Counter,
}

impl Writer {
    /// Writes through `client`.
    #[must_use]
    pub fn new(client: Client, metrics: &Metrics) -> Self {
        let (written, failed) = (Counter::default(), Counter::default());
        metrics.register(|registry| {
            registry.register("mesh_status_writes", "Statuses of objects that were written", written.clone());
            let help = "Statuses of objects that were not written, for now";
            registry.register("mesh_status_write_errors", help, failed.clone());
        });
        Self { client, pace: Pace::new(Duration::from_secs(1) / RATE, BURST, Instant::now()), written, failed }
    }

    /// When another status may be written.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.pace.next()
    }

    /// Writes a status over `revision` of an object.
    ///
    /// **Errors**: it was not written.
    pub async fn write(
        &mut self,
        (kind, name): (CustomKind, &Name),
        revision: &str,
        status: &Map<String, Value>,
    ) -> Result<(), WriteError> {
        sleep_until(self.pace.next()).await;
        self.pace.spend(Instant::now());
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": revision}, "status": status}));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let outcome = match timeout(PATIENCE, self.api(kind, name).patch_status(&name.name, &params, &patch)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Err(WriteError::Outdated),
            Ok(Err(error)) => Err(WriteError::Refused(Box::new(error))),
            Err(_) => Err(WriteError::Silent),
        };
        if outcome.is_ok() {
            self.written.inc()
        } else {
            self.failed.inc()
        };
        outcome
    }

    fn api(&self, kind: CustomKind, name: &Name) -> Api<DynamicObject> {
        let version = kind.versions().first().copied().unwrap_or("v1");
        let of = GroupVersionKind::gvk(kind.group(), version, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&of, kind.plural());
        if name.namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &name.namespace, &resource)
        }
    }
}

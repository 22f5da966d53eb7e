//! A signer of a cluster: a program of its own, so that no node's token can read the authority's key.
//!
//! In:  the settings; requests through the Kubernetes API.
//! Out: a running signer, which leads when it is elected.
//! Invariant: on SIGTERM another signer leads at once.

use super::{AppError, Begun, begin};
use crate::admin::{self, What};
use crate::cluster;
use crate::config::Sign;
use crate::identity::Clock;
use crate::identity::signer::{Settings, Signer};
use crate::telemetry::Metrics;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Signs until told to stop.
///
/// **Errors**: what is configured cannot be used.
pub(super) async fn sign(run: Sign) -> Result<(), AppError> {
    let Begun { mut signals, metrics, listeners } = begin((run.log, &run.log_filter), &run.admin)?;
    let client = cluster::client(run.kubeconfig.as_deref()).await?;
    let settings = Settings {
        namespace: run.namespace,
        service_account: run.service_account,
        candidate: run.name,
        trust_domain: run.trust_domain.as_str().into(),
        root_ttl: run.root_ttl,
        overlap: run.root_overlap,
    };
    let signer = Signer::start(client, settings, Clock::system(), &metrics);
    let _admin = admin::serve(listeners, Arc::new(Inside(metrics.clone())), &metrics)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the signer has started");
    signals.told().await;
    signer.resign().await;
    Ok(())
}

/// What the admin server shows of a signer: its metrics. It is ready when it stands for election.
struct Inside(Metrics);

impl admin::Source for Inside {
    fn ready(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.0.encode()
    }

    fn debug(&self, _what: What) -> Value {
        json!({"error": "a signer serves no pods"})
    }
}

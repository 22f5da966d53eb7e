//! The reporter of a cluster: a program of its own, so that no node's token can write into users' objects.
//!
//! In:  the settings; objects through the Kubernetes API.
//! Out: a running reporter, which writes statuses when it is elected.
//! Invariant: on SIGTERM another reporter leads at once.

use super::{AppError, Begun, CHANGES, begin};
use crate::admin::{self, What};
use crate::cluster::lease::{self, Election};
use crate::config::Report;
use crate::control::reporting::Reporting;
use crate::source::{daemons, kube};
use crate::status::writer::Writer;
use crate::telemetry::{self, Metrics};
use crate::{cluster, translate};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The lease for which reporters compete.
const LEASE: &str = "mesh-reporter";
/// How long the lease may take to be given up.
const FAREWELL: Duration = Duration::from_secs(2);

/// Reports until told to stop.
///
/// **Errors**: what is configured cannot be used.
pub(super) async fn report(run: Report) -> Result<(), AppError> {
    let Begun { mut signals, metrics, listeners } = begin((run.log, &run.log_filter), &run.admin)?;
    let client = cluster::client(run.kubeconfig.as_deref()).await?;
    let (changed, changes) = mpsc::channel(CHANGES);
    let synced = kube::watch(kube::Config::of_standings(client.clone()), changed, &metrics);
    let (lead, leads) = watch::channel(false);
    let names = translate::Settings { cluster_domain: run.cluster_domain.clone(), ..translate::Settings::default() };
    let daemons = daemons::watch(client.clone(), &run.namespace);
    let reporting = Reporting::new(names, Writer::new(client.clone(), &metrics), daemons);
    telemetry::spawn("reporting", reporting.run(changes, leads));
    let _admin = admin::serve(listeners, Arc::new(Inside { metrics: metrics.clone(), synced }), &metrics)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the reporter has started");
    loop {
        let mut election = Election::new(client.clone(), &run.namespace, LEASE, &run.name);
        tokio::select! {
            () = election.win() => {}
            () = signals.told() => return Ok(()),
        }
        tracing::info!(candidate = run.name, "this reporter writes statuses");
        lead.send_replace(true);
        let is_over = tokio::select! {
            () = election.hold() => false,
            () = signals.told() => true,
        };
        lead.send_replace(false);
        if !matches!(tokio::time::timeout(FAREWELL, election.release()).await, Ok(Ok(()))) {
            tracing::debug!("the lease runs out by itself");
        }
        if is_over {
            return Ok(());
        }
        tracing::warn!("another reporter leads, or the API is away");
        tokio::select! {
            () = tokio::time::sleep(lease::DURATION) => {}
            () = signals.told() => return Ok(()),
        }
    }
}

/// What the admin server shows of a reporter: its metrics. It is ready when it knows everything that it reports of.
struct Inside {
    metrics: Metrics,
    synced: watch::Receiver<bool>,
}

impl admin::Source for Inside {
    fn ready(&self) -> Result<(), Vec<String>> {
        if *self.synced.borrow() { Ok(()) } else { Err(vec!["the users' objects are being read".to_owned()]) }
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.metrics.encode()
    }

    fn debug(&self, _what: What) -> Value {
        json!({"error": "a reporter serves no pods"})
    }
}

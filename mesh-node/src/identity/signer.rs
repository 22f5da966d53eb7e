//! The signer of a cluster: that one of several which holds a lease.
//!
//! In:  a client; requests of all daemons; the Secrets of the authority.
//! Out: certificates, and the roots that every daemon trusts.
//! Invariant: who loses the lease stops signing before another begins; two that sign for a moment use the same roots.
//! Source: `ARCHITECTURE.md`, "Identity in a cluster"; Kubernetes `certificates.k8s.io/v1` and `coordination.k8s.io/v1`.

mod authority;
mod counts;
mod csr;
mod entitled;
mod keeper;
mod pod_certificate;
mod requests;

#[cfg(test)]
mod tests;

pub use keeper::{KeepError, rotate};

use super::api::{Served, served};
use super::names::LEASE;
use super::trust::Board;
use super::{Clock, explain};
use crate::cluster::lease::{self, Election};
use crate::model::TrustDomain;
use crate::telemetry::{self, Metrics};
use arc_swap::ArcSwap;
use counts::Counts;
use keeper::Keeper;
use kube::Client;
use requests::Desk;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often the Secrets are read again.
const REREAD: Duration = Duration::from_secs(5);
/// How long the lease may take to be given up.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the signer works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The daemons' namespace.
    pub namespace: String,
    /// The daemons' service account.
    pub service_account: String,
    /// Who stands for election, as the lease names it.
    pub candidate: String,
    /// The authority of every identity.
    pub trust_domain: TrustDomain,
    /// How long a root is valid; its successor is made at half of it.
    pub root_ttl: Duration,
    /// How long a new root is only trusted before it signs.
    pub overlap: Duration,
}

/// Stands for election, and signs while it leads.
pub struct Signer {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Signer {
    /// Begins to stand for election.
    ///
    /// **Panics**: outside a tokio runtime.
    #[must_use]
    pub fn start(client: Client, settings: Settings, clock: Clock, metrics: &Metrics) -> Self {
        let (stop, stopped) = oneshot::channel();
        let counts = Counts::new(metrics);
        let task = telemetry::spawn("identity_signer", stand(client, settings, clock, counts, stopped));
        Self { stop: Some(stop), task }
    }

    /// Stops signing and lets another daemon lead at once.
    pub async fn resign(mut self) {
        drop(self.stop.take());
        if tokio::time::timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::warn!("the lease is not given up; it runs out by itself");
        }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn stand(client: Client, settings: Settings, clock: Clock, counts: Counts, mut stopped: oneshot::Receiver<()>) {
    loop {
        let mut election = Election::new(client.clone(), &settings.namespace, LEASE, &settings.candidate);
        tokio::select! {
            () = election.win() => {}
            _ = &mut stopped => return,
        }
        tracing::info!(candidate = settings.candidate, "this signer signs for the cluster");
        counts.leads(true);
        let resigned = tokio::select! {
            () = election.hold() => {
                tracing::warn!("another daemon signs, or the API is away");
                false
            }
            Err(error) = lead(&client, &settings, &clock, &counts) => {
                tracing::error!(error = explain(&error), "this daemon signs no more; another may try");
                false
            }
            _ = &mut stopped => true,
        };
        counts.leads(false);
        match tokio::time::timeout(FAREWELL, election.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = explain(&error), "the lease runs out by itself"),
            Err(_) => tracing::debug!("the lease runs out by itself"),
        }
        if resigned {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(lease::DURATION) => {}
            _ = &mut stopped => return,
        }
    }
}

/// Signs until that is impossible.
async fn lead(client: &Client, settings: &Settings, clock: &Clock, counts: &Counts) -> Result<Infallible, KeepError> {
    let offered = served(client).await?;
    let board = Board::new(client.clone(), settings.namespace.clone(), offered);
    let mut keeper = Keeper::new(client.clone(), board, settings.clone(), clock.clone());
    let first = keeper.refresh().await?;
    let desk = Desk {
        client: client.clone(),
        settings: settings.clone(),
        clock: clock.clone(),
        anchors: ArcSwap::new(Arc::new(first)),
        counts: counts.clone(),
    };
    tokio::select! {
        ended = keep(&mut keeper, &desk, offered) => Err(ended),
        () = desk.serve(offered) => Err(KeepError::Ended),
    }
}

/// Looks after the authority. What fails for a while leaves the last anchors in use. Ends when the API server serves
/// other kinds than before, since they change where roots are published.
async fn keep(keeper: &mut Keeper, desk: &Desk, offered: Served) -> KeepError {
    loop {
        tokio::time::sleep(REREAD).await;
        if served(&desk.client).await.is_ok_and(|now| now != offered) {
            return KeepError::Upgraded;
        }
        match keeper.refresh().await {
            Ok(anchors) => desk.anchors.store(Arc::new(anchors)),
            Err(error) => tracing::warn!(error = explain(&error), "the authority is as it was read last"),
        }
    }
}

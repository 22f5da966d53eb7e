//! Certificates for the workloads of this node, and what peers' certificates prove.
//!
//! In:  the identities wanted here ([`Keyring::want`]); an [`Issuer`]; a private directory for what was issued.
//! Out: one [`Credentials`] per identity, renewed at half-life; [`peer()`] and [`refusal`] for the other side.
//! Invariant: a key never leaves the node; no certificate is used or accepted outside its time, its trust domain or
//! the bundle; while the issuer fails, the last certificate serves until it expires.
//! Source: SPIFFE X509-SVID; RFC 5280 section 6; RFC 8446 section 4.4.2.

mod api;
mod bundle;
pub mod ca;
mod clock;
mod files;
mod issuer;
pub mod names;
mod peer;
mod rotation;
pub mod signer;
mod store;
mod svid;
mod tls;
mod trust;

#[cfg(test)]
mod tests;

pub use bundle::Bundle;
pub use clock::Clock;
pub use files::FileError;
pub use issuer::cluster::{ClusterIssuer, Way};
pub use issuer::{Bearer, BoxFuture, IssueError, Issuer, Request, Wanted};
pub use peer::{Peer, PeerError, peer, refusal};
pub use tls::ALPN;

use crate::model::{Identity, TrustDomain};
use crate::telemetry::{self, Metrics, explain};
use arc_swap::ArcSwap;
use rotation::Rotation;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Where certificates come from and how long they live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The embedded CA's directory; daemons that share it trust each other.
    pub ca_dir: PathBuf,
    /// The directory of this node's own certificates and keys.
    pub state_dir: PathBuf,
    /// The authority of every identity.
    pub trust_domain: TrustDomain,
    /// How long a workload's certificate is valid; it is renewed at half of it.
    pub svid_ttl: Duration,
    /// How long a root is valid; its successor is made at half of it.
    pub root_ttl: Duration,
    /// How long a new root is only trusted before it signs.
    pub root_overlap: Duration,
    /// How often the roots are read again.
    pub reread: Duration,
    /// How long after a start certificates on disk that nobody has wanted yet are kept.
    pub orphan_grace: Duration,
    /// How long an issuer may take for one answer.
    pub patience: Duration,
}

impl Config {
    /// The defaults: certificates of a day, roots of a year with an hour of overlap.
    #[must_use]
    pub fn new(ca_dir: PathBuf, state_dir: PathBuf, trust_domain: TrustDomain) -> Self {
        const HOUR: u64 = 3600;
        Self {
            ca_dir,
            state_dir,
            trust_domain,
            svid_ttl: Duration::from_secs(24 * HOUR),
            root_ttl: Duration::from_secs(365 * 24 * HOUR),
            root_overlap: Duration::from_secs(HOUR),
            reread: Duration::from_secs(5),
            orphan_grace: Duration::from_secs(300),
            patience: Duration::from_secs(10),
        }
    }

    /// The same for a cluster, whose signer may first have to be elected.
    ///
    /// **Errors**: the API server would refuse requests for such a life.
    pub fn for_cluster(self) -> Result<Self, IdentityError> {
        const SHORTEST: Duration = Duration::from_secs(3600);
        const LONGEST: Duration = Duration::from_secs(91 * 24 * 3600);
        if self.svid_ttl < SHORTEST || self.svid_ttl > LONGEST {
            return Err(IdentityError::Settings {
                field: "svid_ttl",
                reason: "must be from one hour to 91 days in a cluster, as Kubernetes demands of PodCertificateRequests",
            });
        }
        Ok(Self { patience: Duration::from_secs(30), ..self })
    }

    fn check(&self) -> Result<(), IdentityError> {
        let refuse = |field, reason| Err(IdentityError::Settings { field, reason });
        if self.svid_ttl < Duration::from_secs(2) {
            return refuse("svid_ttl", "must be two seconds or more");
        }
        if self.reread.is_zero() {
            return refuse("reread", "must not be zero");
        }
        if self.root_overlap < 2 * self.reread {
            return refuse("root_overlap", "must be at least twice the interval at which roots are read again");
        }
        if self.root_ttl < 2 * (self.root_overlap + self.svid_ttl) {
            return refuse("root_ttl", "must be at least twice the sum of root_overlap and svid_ttl");
        }
        Ok(())
    }
}

/// Why identities cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A setting contradicts another.
    #[error("{field} {reason}")]
    Settings {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The embedded CA's directory cannot be used.
    #[error("the embedded CA cannot start")]
    OpenCa(#[from] ca::CaError),
    /// The directory of issued certificates cannot be used.
    #[error("the directory of issued certificates cannot be used")]
    OpenState(#[source] FileError),
}

/// Why waiting for a certificate is in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    /// Nobody wants this identity, or no longer.
    #[error("no workload of this node has the identity {identity}")]
    Unwanted {
        /// The identity asked for.
        identity: Identity,
    },
    /// The keyring has ended.
    #[error("certificates are no longer issued, because the daemon is stopping")]
    Stopped,
}

/// What one identity shows to its peers, and demands of them.
#[derive(Debug)]
pub struct Credentials {
    /// Who this is.
    pub identity: Arc<Identity>,
    /// For connections to other workloads.
    pub client: Arc<rustls::ClientConfig>,
    /// For connections from other workloads.
    pub server: Arc<rustls::ServerConfig>,
    /// When the certificate expires.
    pub not_after: SystemTime,
    /// Grows with every new certificate and every new bundle; pooled connections of an older one are not reused.
    pub generation: u64,
}

/// The certificates of the identities wanted on this node.
#[derive(Clone)]
pub struct Keyring {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    _task: Arc<Task>,
}

impl Keyring {
    /// A keyring over the embedded CA. Its task runs until the last clone is dropped.
    ///
    /// **Errors**: settings that contradict each other; directories that are unusable or open to others.
    ///
    /// **Panics**: outside a tokio runtime.
    pub fn start(config: Config, metrics: &Metrics) -> Result<Self, IdentityError> {
        config.check()?;
        let clock = Clock::system();
        let issuer = Arc::new(ca::EmbeddedCa::open(&config, clock.clone())?);
        Self::start_with(&config, issuer, clock, metrics)
    }

    /// A keyring over any issuer and clock.
    ///
    /// **Errors**, **Panics**: as [`Keyring::start`].
    pub fn start_with(
        config: &Config,
        issuer: Arc<dyn Issuer>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, IdentityError> {
        config.check()?;
        let (rotation, changed) = Rotation::new(config, issuer, clock, metrics)?;
        let shared = rotation.shared();
        let task = Arc::new(Task(telemetry::spawn("identity_rotation", rotation.run())));
        Ok(Self { shared, changed, _task: task })
    }

    /// Keeps certificates for exactly these identities. Those of others are forgotten, here and on disk; what an
    /// earlier run left on disk is kept for [`Config::orphan_grace`], so that a restart may begin with few.
    pub fn want(&self, wanted: Wanted) {
        self.shared.want(wanted);
    }

    /// The credentials of an identity, once issued and until they expire. Takes no lock.
    #[must_use]
    pub fn current(&self, identity: &Identity) -> Option<Arc<Credentials>> {
        self.shared.published.load().credentials.get(identity).cloned()
    }

    /// Why the last attempt to issue or renew failed; `None` when it did not.
    #[must_use]
    pub fn failure(&self, identity: &Identity) -> Option<Arc<str>> {
        self.shared.published.load().failures.get(identity).cloned()
    }

    /// Waits until an identity has credentials. Failures of the issuer are waited out: give it a time limit, and ask
    /// [`Keyring::failure`] when it passes.
    ///
    /// **Errors**: the identity is not wanted; the keyring has ended.
    ///
    /// **Cancel**: safe.
    pub async fn ready(&self, identity: &Identity) -> Result<(), NotIssued> {
        let mut changed = self.changed.clone();
        loop {
            changed.borrow_and_update();
            if !self.shared.wanted.load().contains_key(identity) {
                return Err(NotIssued::Unwanted { identity: identity.clone() });
            }
            if self.current(identity).is_some() {
                return Ok(());
            }
            changed.changed().await.map_err(|_| NotIssued::Stopped)?;
        }
    }
}

/// What the keyring's clones and its task share.
#[derive(Default)]
struct Shared {
    wanted: ArcSwap<Wanted>,
    published: ArcSwap<Published>,
    wake: Notify,
}

impl Shared {
    fn want(&self, wanted: Wanted) {
        self.wanted.store(Arc::new(wanted));
        self.wake.notify_one();
    }
}

#[derive(Default)]
struct Published {
    credentials: HashMap<Arc<Identity>, Arc<Credentials>>,
    failures: HashMap<Arc<Identity>, Arc<str>>,
}

/// Ends the task when the last keyring is gone.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! Keeps the cluster's authority: reads it, makes and renews its roots, publishes what to trust.
//!
//! In:  the Secrets and the published roots, again and again while this daemon leads.
//! Out: [`Anchors`] to sign with.
//! Invariant: what signs has been published before; a Secret that is damaged or gone stops nobody who is running.

use super::Settings;
use super::authority::{self, Anchors, Content};
use crate::identity::api::{ApiError, failed, status};
use crate::identity::ca::{CaError, root};
use crate::identity::names::{CA_SECRET, SUPPLIED_SECRET};
use crate::identity::trust::{Board, Published};
use crate::identity::{Clock, IssueError, explain};
use crate::model::TrustDomain;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Why the authority cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API did not do what was asked.
    #[error("the Kubernetes API is of no use")]
    Api(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What the Secrets hold cannot be used.
    #[error("the authority cannot be used")]
    Ca(#[from] CaError),
    /// The watch of requests has ended.
    #[error("requests are no longer watched")]
    Ended,
    /// What is published where depends on what the API server serves.
    #[error("the API server serves other kinds than before")]
    Upgraded,
    /// There is nothing to add a root to.
    #[error("there is no Secret {CA_SECRET} in the namespace {namespace}: the daemons make it when they start")]
    NoSecret {
        /// Where it was looked for.
        namespace: String,
    },
    /// An operator supplies the authority.
    #[error(
        "the Secret {SUPPLIED_SECRET} supplies the authority: add its next root to root-cert.pem, wait for the overlap, \
         then replace ca-cert.pem, ca-key.pem and cert-chain.pem"
    )]
    Supplied,
}

impl From<ApiError> for KeepError {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

/// The leader's hold on the authority.
pub(super) struct Keeper {
    secrets: Api<Secret>,
    board: Board,
    settings: Settings,
    clock: Clock,
    anchors: Anchors,
    /// Faults that have been reported and are still there.
    faults: BTreeSet<String>,
}

impl Keeper {
    pub(super) fn new(client: Client, board: Board, settings: Settings, clock: Clock) -> Self {
        let secrets = Api::namespaced(client, &settings.namespace);
        Self { secrets, board, settings, clock, anchors: Anchors::default(), faults: BTreeSet::new() }
    }

    /// Reads everything again, makes a root when one is due, publishes, and says what to sign with.
    ///
    /// **Errors**: the API is away, or nothing can sign.
    pub(super) async fn refresh(&mut self) -> Result<Anchors, KeepError> {
        let now = self.clock.now();
        let mut faults = Vec::new();
        let mut anchors = Anchors { made: Vec::new(), supplied: self.supplied(now, &mut faults).await? };
        self.made(&mut anchors, now, &mut faults).await?;
        self.report(faults);
        if anchors.signer(now, Duration::ZERO).is_none() {
            return Err(CaError::NoSigner { dir: format!("secret/{CA_SECRET}").into() }.into());
        }
        let found = self.board.read().await?;
        let next = anchors.publish(found.as_ref().unwrap_or(&Published::default()), now);
        if found.is_none_or(|found| found != whole_seconds(&next)) {
            self.board.write(&next).await?;
            tracing::info!(roots = next.roots.len(), "the roots are published");
        }
        self.anchors = anchors.clone();
        Ok(anchors)
    }

    async fn read(&self, name: &'static str) -> Result<Option<Secret>, ApiError> {
        self.secrets.get_opt(name).await.map_err(failed(format!("read the Secret {name}")))
    }

    /// What an operator supplies. While it cannot be used, the last that could stays.
    async fn supplied(&self, now: SystemTime, faults: &mut Vec<CaError>) -> Result<Vec<root::Root>, KeepError> {
        let Some(secret) = self.read(SUPPLIED_SECRET).await? else { return Ok(Vec::new()) };
        match authority::supplied(&secret.data.unwrap_or_default(), &self.settings.trust_domain, now) {
            Ok(roots) => Ok(roots),
            Err(fault) if self.anchors.signer(now, Duration::ZERO).is_some() => {
                faults.push(fault);
                Ok(self.anchors.supplied.clone())
            }
            // A root of our own in its place would be trust that nobody asked for.
            Err(fault) => Err(fault.into()),
        }
    }

    /// The roots of our own, with one more when that is due.
    async fn made(&self, anchors: &mut Anchors, now: SystemTime, faults: &mut Vec<CaError>) -> Result<(), KeepError> {
        let trust_domain = &self.settings.trust_domain;
        let Some(secret) = self.read(CA_SECRET).await? else {
            if !self.anchors.made.is_empty() {
                faults.push(CaError::NoRoots { dir: format!("secret/{CA_SECRET}").into() });
                anchors.made.clone_from(&self.anchors.made);
            } else if !anchors.is_supplied() {
                let content = self.add(None, Content::new(), now).await?;
                anchors.made = authority::made(&content, trust_domain).roots;
            }
            return Ok(());
        };
        let content = secret.data.clone().unwrap_or_default();
        let mut found = authority::made(&content, trust_domain);
        if root::is_aging(&found.roots, now) && !anchors.is_supplied() {
            let content = self.add(Some(secret), content, now).await?;
            found = authority::made(&content, trust_domain);
        }
        faults.append(&mut found.faults);
        anchors.made = found.roots;
        Ok(())
    }

    async fn add(&self, secret: Option<Secret>, content: Content, now: SystemTime) -> Result<Content, KeepError> {
        let (trust_domain, ttl) = (&self.settings.trust_domain, self.settings.root_ttl);
        add(&self.secrets, secret, content, (trust_domain, ttl), now).await.map(|(content, _)| content)
    }

    /// Names each fault once, for as long as it lasts.
    fn report(&mut self, faults: Vec<CaError>) {
        let mut seen = BTreeSet::new();
        for fault in faults {
            let text = explain(&IssueError::UnusableRoot(Box::new(fault)));
            if !self.faults.contains(&text) {
                tracing::error!(error = text, "the authority has a fault");
            }
            seen.insert(text);
        }
        self.faults = seen;
    }
}

/// As it will be read back.
fn whole_seconds(published: &Published) -> Published {
    let mut published = published.clone();
    for time in published.since.values_mut() {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        *time = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    }
    published
}

/// Writes a Secret with one more root. Returns its content and the root's serial number.
async fn add(
    secrets: &Api<Secret>,
    secret: Option<Secret>,
    mut content: Content,
    (trust_domain, ttl): (&TrustDomain, Duration),
    now: SystemTime,
) -> Result<(Content, String), KeepError> {
    let serial = authority::with_root(&mut content, trust_domain, ttl, now)?;
    let params = PostParams::default();
    let written = match secret {
        Some(secret) => {
            let next = Secret { data: Some(content), ..secret };
            secrets.replace(CA_SECRET, &params, &next).await
        }
        None => {
            let metadata = ObjectMeta { name: Some(CA_SECRET.to_owned()), ..ObjectMeta::default() };
            let type_ = Some("Opaque".to_owned());
            secrets.create(&params, &Secret { metadata, type_, data: Some(content), ..Secret::default() }).await
        }
    };
    match written {
        Ok(secret) => {
            tracing::info!(serial, "a root was made");
            Ok((secret.data.unwrap_or_default(), serial))
        }
        Err(error) => {
            if status(&error) == Some(409) {
                tracing::info!("another made a root at the same time; it is read next");
            }
            Err(failed(format!("write the Secret {CA_SECRET}"))(error).into())
        }
    }
}

/// Adds a root to the cluster's authority, which the leader publishes within seconds and signs with after the overlap.
/// Returns its serial number.
///
/// **Errors**: the mesh makes no roots in this cluster, or the API refuses.
pub async fn rotate(
    client: Client,
    namespace: &str,
    (trust_domain, ttl): (&TrustDomain, Duration),
    now: SystemTime,
) -> Result<String, KeepError> {
    let secrets = Api::<Secret>::namespaced(client, namespace);
    let read =
        async |name: &'static str| secrets.get_opt(name).await.map_err(failed(format!("read the Secret {name}")));
    if read(SUPPLIED_SECRET).await?.is_some() {
        return Err(KeepError::Supplied);
    }
    let secret = read(CA_SECRET).await?.ok_or_else(|| KeepError::NoSecret { namespace: namespace.to_owned() })?;
    let content = secret.data.clone().unwrap_or_default();
    add(&secrets, Some(secret), content, (trust_domain, ttl), now).await.map(|(_, serial)| serial)
}

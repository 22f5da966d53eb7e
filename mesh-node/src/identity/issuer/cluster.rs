//! Certificates from the signer of a cluster.
//!
//! In:  a client, what the API server serves, the pod that bears an identity.
//! Out: an [`Issuer`] that asks by PodCertificateRequest, or by CertificateSigningRequest where those are not served.
//! Invariant: what is served is asked again after a refusal that an upgrade explains, never assumed for ever.
//! Source: Kubernetes KEP-4317 (pod certificates), KEP-3257 (trust bundles).

use super::{BoxFuture, IssueError, Issuer, Request, csr, pod_certificate};
use crate::identity::Bundle;
use crate::identity::api::{ApiError, Served, served};
use crate::identity::trust::Trust;
use crate::model::TrustDomain;
use kube::Client;
use rustls_pki_types::CertificateDer;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How certificates are asked for in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By what the API server serves: PodCertificateRequest before CertificateSigningRequest.
    Auto,
    /// By PodCertificateRequest.
    PodCertificate,
    /// By CertificateSigningRequest.
    Csr,
}

/// Asks the signer of a cluster.
pub struct ClusterIssuer {
    client: Client,
    namespace: String,
    trust_domain: TrustDomain,
    way: Way,
    pods: pod_certificate::Requests,
    /// What was learned of the API server, once it answered.
    learned: Mutex<Option<Learned>>,
}

#[derive(Clone)]
struct Learned {
    served: Served,
    trust: Arc<Trust>,
    at: Instant,
}

/// How long what an API server serves is believed: it may be upgraded.
const BELIEVED: Duration = Duration::from_secs(300);

impl ClusterIssuer {
    /// An issuer for the pods of `node`; `namespace` is the daemon's own. It asks nothing before it is used.
    #[must_use]
    pub fn new(client: Client, namespace: &str, node: &str, trust_domain: TrustDomain, way: Way) -> Self {
        let pods = pod_certificate::Requests::new(client.clone(), node.to_owned());
        Self { client, namespace: namespace.to_owned(), trust_domain, way, pods, learned: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Learned>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Believes nothing any more, since an upgrade would explain an answer.
    fn doubt(&self) {
        if let Some(known) = &mut *self.known()
            && let Some(long_ago) = known.at.checked_sub(BELIEVED)
        {
            known.at = long_ago;
        }
    }

    async fn learn(&self) -> Result<Learned, ApiError> {
        let before = self.known().clone();
        if let Some(known) = before.as_ref().filter(|known| known.at.elapsed() < BELIEVED) {
            return Ok(known.clone());
        }
        let served = match (served(&self.client).await, before) {
            (Ok(served), _) => served,
            // Roots that are known are not forgotten because the API is away.
            (Err(_), Some(before)) => return Ok(before),
            (Err(error), None) => return Err(error),
        };
        let mut known = self.known();
        if let Some(known) = known.as_mut().filter(|known| known.served == served) {
            known.at = Instant::now();
            return Ok(known.clone());
        }
        tracing::info!(
            pod_certificate_requests = served.pod_certificate_requests,
            cluster_trust_bundles = served.cluster_trust_bundles,
            "what the API server serves for identities"
        );
        let trust = Arc::new(Trust::follow(&self.client, &self.namespace, &self.trust_domain, served));
        Ok(known.insert(Learned { served, trust, at: Instant::now() }).clone())
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let unavailable = |error| IssueError::Unavailable(Box::new(error));
        let Learned { served, .. } = self.learn().await.map_err(unavailable)?;
        let by_pod = match self.way {
            Way::Auto => served.pod_certificate_requests,
            Way::PodCertificate if served.pod_certificate_requests => true,
            Way::PodCertificate => {
                self.doubt();
                return Err(unavailable(ApiError::NotServed { kind: "PodCertificateRequest" }));
            }
            Way::Csr => false,
        };
        let answer = if by_pod { self.pods.ask(request).await } else { csr::ask(&self.client, request).await };
        if let Err(error) = &answer
            && is_not_found(error)
        {
            self.doubt();
        }
        answer
    }
}

fn is_not_found(error: &IssueError) -> bool {
    let IssueError::Unavailable(cause) = error else { return false };
    cause.downcast_ref::<ApiError>().is_some_and(|error| error.status() == Some(404))
}

impl Issuer for ClusterIssuer {
    fn issue<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<Vec<CertificateDer<'static>>, IssueError>> {
        Box::pin(async move { self.ask(&request).await })
    }

    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>> {
        Box::pin(async move {
            let known = self.learn().await.and_then(|known| known.trust.bundle());
            known.map(|bundle| (bundle, Vec::new())).map_err(|error| IssueError::Unavailable(Box::new(error)))
        })
    }
}

//! Answers requests for certificates while this daemon leads.
//!
//! In:  requests that name our signer; the anchors.
//! Out: their status: a chain, a denial with its reason, or a failure.
//! Invariant: each request is decided once, by what the API server says of the pod at that moment.
//! Source: Kubernetes `certificates.k8s.io/v1`: which conditions there are, and what a status must satisfy.

use super::Settings;
use super::authority::Anchors;
use super::counts::Counts;
use super::entitled::{Claim, Denial, check, deny};
use crate::identity::api::{ApiError, Served, name_of};
use crate::identity::ca::mint::{self, SKEW};
use crate::identity::names::SIGNER;
use crate::identity::svid::{certificate_section, encode};
use crate::identity::{Clock, explain};
use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::future::join;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, PodCertificateRequest};
use kube::Client;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use rcgen::CertificateSigningRequestParams;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Requests answered at once.
const AT_ONCE: usize = 16;
/// Attempts to answer one, before it is said to have failed.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// What a request asks for, whichever its kind.
pub(super) struct Asked {
    pub(super) claim: Claim,
    /// A signing request, in DER.
    pub(super) pkcs10: Vec<u8>,
    /// How long the certificate may live, from its first second to its last.
    pub(super) life: Duration,
}

/// A decision on a request.
pub(super) enum Answer {
    Issued(Chain),
    Denied(Denial),
}

/// What was issued.
pub(super) struct Chain {
    pub(super) leaf: CertificateDer<'static>,
    pub(super) pem: String,
}

/// A kind of request.
pub(super) trait Kind:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Is there nothing left to decide?
    fn is_decided(&self) -> bool;
    /// What it asks for, or why that is no question.
    fn asked(&self, settings: &Settings) -> Result<Asked, Denial>;
    /// Writes the answer into it.
    fn answer(self, client: &Client, answer: &Answer) -> impl Future<Output = Result<(), ApiError>> + Send;
    /// Says that it cannot be answered.
    fn fail(self, client: &Client, message: &str) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// Where requests are answered.
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) anchors: ArcSwap<Anchors>,
    pub(super) counts: Counts,
}

impl Desk {
    /// Answers requests for ever.
    pub(super) async fn serve(&self, served: Served) {
        let csrs = self.answer_all::<CertificateSigningRequest>(Api::all(self.client.clone()));
        if served.pod_certificate_requests {
            join(csrs, self.answer_all::<PodCertificateRequest>(Api::all(self.client.clone()))).await;
        } else {
            csrs.await;
        }
    }

    async fn answer_all<K: Kind>(&self, api: Api<K>) {
        let ours = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let requests = watcher(api, ours).default_backoff().applied_objects();
        let each = |request: Result<K, watcher::Error>| async move {
            match request {
                Ok(request) if request.is_decided() => {}
                Ok(request) => self.decide(request).await,
                Err(error) => tracing::warn!(error = explain(&error), "requests cannot be watched"),
            }
        };
        requests.for_each_concurrent(AT_ONCE, each).await;
    }

    async fn decide<K: Kind>(&self, request: K) {
        let name = name_of(&request);
        let mut attempt = 1;
        loop {
            let error = match self.attempt(&request).await {
                Ok(Answer::Issued(_)) => return self.counts.answered("issued"),
                Ok(Answer::Denied(Denial { reason, message })) => {
                    tracing::warn!(request = name, reason, "a request is denied: {message}");
                    return self.counts.answered("denied");
                }
                Err(error) => error,
            };
            // Another version of the request comes by itself, or it is gone.
            if matches!(error.status(), Some(404 | 409)) {
                return;
            }
            if attempt == ATTEMPTS {
                let text = explain(&error);
                tracing::error!(request = name, error = text, "a request cannot be answered");
                self.counts.answered("failed");
                if let Err(error) = request.fail(&self.client, &text).await {
                    tracing::warn!(request = name, error = explain(&error), "it is not told so");
                }
                return;
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            attempt += 1;
        }
    }

    async fn attempt<K: Kind>(&self, request: &K) -> Result<Answer, ApiError> {
        let answer = match request.asked(&self.settings) {
            Ok(asked) => match check(&self.client, &asked.claim, &self.settings.trust_domain).await? {
                Ok(identity) => self.sign(&asked, &identity)?,
                Err(denial) => Answer::Denied(denial),
            },
            Err(denial) => Answer::Denied(denial),
        };
        request.clone().answer(&self.client, &answer).await?;
        Ok(answer)
    }

    fn sign(&self, asked: &Asked, identity: &crate::model::Identity) -> Result<Answer, ApiError> {
        let broken = |reason: String| ApiError::Malformed { object: "the authority".to_owned(), reason };
        let key = match key(&asked.pkcs10) {
            Ok(key) => key,
            Err(denial) => return Ok(Answer::Denied(denial)),
        };
        let now = whole_second(self.clock.now());
        let anchors = self.anchors.load();
        let authority = anchors.signer(now, self.settings.overlap);
        let authority = authority.ok_or_else(|| broken("no root can sign".to_owned()))?;
        let chain = mint::svid(authority, (identity, &key.public_key), asked.life - SKEW, now);
        let chain = chain.map_err(|error| broken(explain(&error)))?;
        let pem = encode(&chain.iter().map(certificate_section).collect::<Vec<_>>());
        let leaf = chain.into_iter().next().ok_or_else(|| broken("it signed nothing".to_owned()))?;
        Ok(Answer::Issued(Chain { leaf, pem }))
    }
}

/// The key of a signing request, which must have signed it.
fn key(pkcs10: &[u8]) -> Result<CertificateSigningRequestParams, Denial> {
    let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(pkcs10));
    let parsed = parsed.or_else(|error| deny("BadRequest", format!("the signing request is of no use: {error}")))?;
    if *parsed.public_key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
        return deny("UnsupportedKeyType", "ECDSAP256");
    }
    Ok(parsed)
}

/// So that a life is as long in whole seconds as it was asked for.
fn whole_second(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

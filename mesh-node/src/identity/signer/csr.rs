//! Answers to CertificateSigningRequests.
//!
//! In:  a request; a decision.
//! Out: its claim; its approval and status.
//! Invariant: the node that asks is the one to which the API server says the asker's token is bound; nothing else in a
//! request could prove it.
//! Source: Kubernetes `certificates.k8s.io/v1.CertificateSigningRequestSpec`: `username` and `extra` are the server's.

use super::Settings;
use super::entitled::{Claim, Denial, deny};
use super::requests::{Answer, Asked, Kind};
use crate::identity::api::{ApiError, failed, name_of};
use crate::identity::names::{NODE_CLAIM, POD_ANNOTATION, POD_UID_ANNOTATION};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use std::time::Duration;

/// The life of a certificate when a request names none.
const DAY: i32 = 86_400;
/// The shortest life; the API server accepts less, and a certificate begins a little before it is made.
const SHORTEST: u64 = 600;

impl Kind for CertificateSigningRequest {
    fn is_decided(&self) -> bool {
        let Some(status) = &self.status else { return false };
        let closed = |condition: &CertificateSigningRequestCondition| matches!(&*condition.type_, "Denied" | "Failed");
        status.certificate.is_some() || status.conditions.iter().flatten().any(closed)
    }

    fn asked(&self, settings: &Settings) -> Result<Asked, Denial> {
        let spec = &self.spec;
        let user = spec.username.as_deref().unwrap_or_default();
        let expected = format!("system:serviceaccount:{}:{}", settings.namespace, settings.service_account);
        if user != expected {
            return deny("NotADaemon", format!("{user} is not {expected}, which alone may ask"));
        }
        let bound = spec.extra.as_ref().and_then(|extra| extra.get(NODE_CLAIM)).map_or(&[][..], Vec::as_slice);
        let [node] = bound else {
            return deny("TokenNotBound", "the asker's token is bound to no node: it must be that of a pod");
        };
        let annotation = |key: &str| self.metadata.annotations.as_ref().and_then(|all| all.get(key));
        let pod = annotation(POD_ANNOTATION).and_then(|pod| pod.split_once('/'));
        let (Some((namespace, pod)), Some(pod_uid)) = (pod, annotation(POD_UID_ANNOTATION)) else {
            return deny("NoPod", format!("the annotations {POD_ANNOTATION} and {POD_UID_ANNOTATION} must name a pod"));
        };
        let pkcs10 = pem::parse(&spec.request.0).or_else(|error| deny("BadRequest", error.to_string()))?;
        let seconds = u64::try_from(spec.expiration_seconds.unwrap_or(DAY)).unwrap_or_default();
        Ok(Asked {
            claim: Claim {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                pod_uid: pod_uid.clone(),
                service_account: None,
                node: node.clone(),
                node_uid: None,
            },
            pkcs10: pkcs10.into_contents(),
            life: Duration::from_secs(seconds.max(SHORTEST)),
        })
    }

    async fn answer(self, client: &Client, answer: &Answer) -> Result<(), ApiError> {
        match answer {
            Answer::Denied(Denial { reason, message }) => {
                decide(self, client, condition("Denied", reason, message)).await.map(|_| ())
            }
            Answer::Issued(chain) => {
                let mut request = if is_approved(&self) {
                    self
                } else {
                    let message = "the pod runs on the node that asks, under this service account";
                    decide(self, client, condition("Approved", "PodOfThatNode", message)).await?
                };
                request.status.get_or_insert_default().certificate = Some(ByteString(chain.pem.clone().into_bytes()));
                write_status(request, client).await
            }
        }
    }

    async fn fail(mut self, client: &Client, message: &str) -> Result<(), ApiError> {
        let failure = condition("Failed", "SigningFailed", message);
        self.status.get_or_insert_default().conditions.get_or_insert_default().push(failure);
        write_status(self, client).await
    }
}

fn is_approved(request: &CertificateSigningRequest) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Approved")
}

/// Approves or denies.
async fn decide(
    mut request: CertificateSigningRequest,
    client: &Client,
    decision: CertificateSigningRequestCondition,
) -> Result<CertificateSigningRequest, ApiError> {
    let (api, name) = (Api::<CertificateSigningRequest>::all(client.clone()), name_of(&request));
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(decision);
    let decided = api.replace_subresource("approval", &name, &PostParams::default(), &request).await;
    decided.map_err(failed(format!("decide on the request {name}")))
}

async fn write_status(request: CertificateSigningRequest, client: &Client) -> Result<(), ApiError> {
    let (api, name) = (Api::<CertificateSigningRequest>::all(client.clone()), name_of(&request));
    let written = api.replace_status(&name, &PostParams::default(), &request).await;
    written.map(|_| ()).map_err(failed(format!("answer the request {name}")))
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: None,
        last_update_time: Some(Time(Timestamp::now())),
    }
}

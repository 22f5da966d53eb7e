//! Answers to PodCertificateRequests.
//!
//! In:  a request; a decision.
//! Out: its claim; its status.
//! Invariant: a status satisfies what the API server demands: the leaf's own times, and one condition.
//! Source: Kubernetes `certificates.k8s.io/v1.PodCertificateRequestStatus`. Who made the request is not in it: that the
//! asker is on the pod's node is for the admission policy to see, and for NodeRestriction when it is a kubelet.

use super::Settings;
use super::entitled::{Claim, Denial, deny};
use super::requests::{Answer, Asked, Chain, Kind};
use crate::identity::api::{ApiError, failed, name_of};
use crate::identity::peer::validity;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use std::time::{Duration, SystemTime};
use webpki::EndEntityCert;

/// The life of a certificate when a request names none.
const DAY: i32 = 86_400;

impl Kind for PodCertificateRequest {
    fn is_decided(&self) -> bool {
        self.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|found| !found.is_empty())
    }

    fn asked(&self, _settings: &Settings) -> Result<Asked, Denial> {
        let spec = &self.spec;
        if let Some(key) = spec.unverified_user_annotations.as_ref().and_then(|all| all.keys().next()) {
            return deny("InvalidUnverifiedUserAnnotations", format!("this signer knows no annotation {key}"));
        }
        let seconds = u64::try_from(spec.max_expiration_seconds.unwrap_or(DAY)).unwrap_or_default();
        Ok(Asked {
            claim: Claim {
                namespace: self.metadata.namespace.clone().unwrap_or_default(),
                pod: spec.pod_name.clone(),
                pod_uid: spec.pod_uid.clone(),
                service_account: Some((spec.service_account_name.clone(), spec.service_account_uid.clone())),
                node: spec.node_name.clone(),
                node_uid: Some(spec.node_uid.clone()),
            },
            pkcs10: spec.stub_pkc_s10_request.0.clone(),
            life: Duration::from_secs(seconds),
        })
    }

    async fn answer(self, client: &Client, answer: &Answer) -> Result<(), ApiError> {
        let status = match answer {
            Answer::Issued(chain) => issued(chain)?,
            Answer::Denied(Denial { reason, message }) => condition("Denied", reason, message),
        };
        write(self, client, status).await
    }

    async fn fail(self, client: &Client, message: &str) -> Result<(), ApiError> {
        write(self, client, condition("Failed", "SigningFailed", message)).await
    }
}

async fn write(
    mut request: PodCertificateRequest,
    client: &Client,
    status: PodCertificateRequestStatus,
) -> Result<(), ApiError> {
    let namespace = request.metadata.namespace.clone().unwrap_or_default();
    let (api, name) = (Api::<PodCertificateRequest>::namespaced(client.clone(), &namespace), name_of(&request));
    request.status = Some(status);
    let written = api.replace_status(&name, &PostParams::default(), &request).await;
    written.map(|_| ()).map_err(failed(format!("answer the request {namespace}/{name}")))
}

fn condition(kind: &str, reason: &str, message: &str) -> PodCertificateRequestStatus {
    let condition = Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: None,
    };
    PodCertificateRequestStatus { conditions: Some(vec![condition]), ..PodCertificateRequestStatus::default() }
}

fn issued(chain: &Chain) -> Result<PodCertificateRequestStatus, ApiError> {
    let malformed = |reason: String| ApiError::Malformed { object: "the certificate just signed".to_owned(), reason };
    let (from, to) = EndEntityCert::try_from(&chain.leaf)
        .and_then(|leaf| validity(&leaf))
        .map_err(|error| malformed(error.to_string()))?;
    let time = |time: SystemTime| Timestamp::try_from(time).map(Time).map_err(|error| malformed(error.to_string()));
    let half = to.duration_since(from).unwrap_or_default().as_secs() / 2;
    Ok(PodCertificateRequestStatus {
        certificate_chain: Some(chain.pem.clone()),
        not_before: Some(time(from)?),
        not_after: Some(time(to)?),
        begin_refresh_at: Some(time(from + Duration::from_secs(half))?),
        ..condition("Issued", "Signed", "signed by the mesh")
    })
}

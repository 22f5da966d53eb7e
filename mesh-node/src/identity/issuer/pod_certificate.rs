//! Certificates by PodCertificateRequest.
//!
//! In:  a key, and the pod that bears the identity.
//! Out: the chain that the signer put into the request's status, or its reason against it.
//! Invariant: a request says which pod, service account and node it is for, by name and UID; the API server checks the
//! key's signature, a policy the node, the signer everything against the objects themselves.
//! Invariant: a request that was granted, or that nobody waits for, is deleted.
//! Source: Kubernetes `certificates.k8s.io/v1.PodCertificateRequest`.

use super::{IssueError, Request};
use crate::identity::api::{ApiError, failed, name_of, outcome};
use crate::identity::names::SIGNER;
use crate::identity::trust::parse;
use crate::telemetry;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, Resource};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;
use tokio::sync::OnceCell;

/// Makes requests for the pods of a node.
pub(super) struct Requests {
    client: Client,
    node: String,
    node_uid: OnceCell<String>,
}

/// What became of a request.
enum Outcome {
    Issued(String),
    /// Denied or failed: the condition's type, reason and message.
    Refused(String),
}

impl Requests {
    pub(super) fn new(client: Client, node: String) -> Self {
        Self { client, node, node_uid: OnceCell::new() }
    }

    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let outcome = self.outcome(request).await.map_err(|error| error.of_request(request.identity))?;
        match outcome {
            Outcome::Issued(chain) => {
                parse("the request's status", &chain).map_err(|error| IssueError::Unusable(Box::new(error)))
            }
            Outcome::Refused(reason) => {
                Err(IssueError::Refused { identity: Box::new(request.identity.clone()), reason })
            }
        }
    }

    async fn outcome(&self, request: &Request<'_>) -> Result<Outcome, ApiError> {
        let spec = self.spec(request).await?;
        let api = Api::<PodCertificateRequest>::namespaced(self.client.clone(), &request.identity.namespace);
        let metadata = ObjectMeta { generate_name: Some(prefix(&spec.pod_name)), ..ObjectMeta::default() };
        let asked = PodCertificateRequest { metadata, spec, status: None };
        let created = api.create(&PostParams::default(), &asked).await.map_err(failed("request a certificate"))?;
        let mut withdrawal = Withdrawal::new(api.clone(), &created);
        let outcome = outcome(&api, created, ended).await;
        // The reason stays for whoever looks; Kubernetes deletes it in time.
        withdrawal.needed = !matches!(outcome, Ok(Outcome::Refused(_)) | Err(ApiError::Withdrawn { .. }));
        outcome
    }

    async fn spec(&self, request: &Request<'_>) -> Result<PodCertificateRequestSpec, ApiError> {
        let identity = request.identity;
        if request.bearer.uid.is_empty() {
            let object = format!("the pod {}/{}", identity.namespace, request.bearer.pod);
            return Err(ApiError::Incomplete { object, field: "UID" });
        }
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &identity.namespace);
        let account = accounts.get(&identity.service_account).await;
        let account = account.map_err(failed(format!("read the service account of {identity}")))?;
        let node_uid = self.node_uid.get_or_try_init(|| async {
            let nodes = Api::<Node>::all(self.client.clone());
            let node = nodes.get(&self.node).await.map_err(failed(format!("read the node {}", self.node)))?;
            uid(&node, "the node")
        });
        Ok(PodCertificateRequestSpec {
            signer_name: SIGNER.to_owned(),
            pod_name: request.bearer.pod.to_string(),
            pod_uid: request.bearer.uid.to_string(),
            service_account_name: identity.service_account.to_string(),
            service_account_uid: uid(&account, "the service account")?,
            node_name: self.node.clone(),
            node_uid: node_uid.await?.clone(),
            max_expiration_seconds: i32::try_from(request.ttl.as_secs()).ok(),
            stub_pkc_s10_request: ByteString(pkcs10(request.key)?),
            unverified_user_annotations: None,
        })
    }
}

fn uid<K: Resource>(object: &K, what: &str) -> Result<String, ApiError> {
    let incomplete = || ApiError::Incomplete { object: format!("{what} {}", name_of(object)), field: "UID" };
    object.meta().uid.clone().ok_or_else(incomplete)
}

/// The beginning of a request's name: the API server appends five characters, of 253 in all.
fn prefix(pod: &str) -> String {
    const MOST: usize = 200;
    format!("{}-", &pod[..pod.len().min(MOST)])
}

/// A signing request that says nothing but which key it is for.
pub(super) fn pkcs10(key: &KeyPair) -> Result<Vec<u8>, ApiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params
        .serialize_request(key)
        .map_err(|error| ApiError::Malformed { object: "the request".to_owned(), reason: error.to_string() })?;
    Ok(request.der().to_vec())
}

/// What became of a request, once it is decided.
fn ended(request: &PodCertificateRequest) -> Option<Outcome> {
    let status = request.status.as_ref()?;
    status.conditions.iter().flatten().filter(|condition| condition.status == "True").find_map(|condition| {
        match condition.type_.as_str() {
            "Issued" => Some(Outcome::Issued(status.certificate_chain.clone().unwrap_or_default())),
            kind @ ("Denied" | "Failed") => {
                Some(Outcome::Refused(format!("{kind}: {}: {}", condition.reason, condition.message)))
            }
            _ => None,
        }
    })
}

/// Deletes a request when it goes out of scope, whether it was answered or not.
struct Withdrawal {
    api: Api<PodCertificateRequest>,
    name: String,
    uid: Option<String>,
    needed: bool,
}

impl Withdrawal {
    fn new(api: Api<PodCertificateRequest>, request: &PodCertificateRequest) -> Self {
        Self { api, name: name_of(request), uid: request.metadata.uid.clone(), needed: true }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if !self.needed || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (api, name, uid) = (self.api.clone(), std::mem::take(&mut self.name), self.uid.take());
        telemetry::spawn("identity_withdraw", async move {
            let only = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
            if let Err(error) = api.delete(&name, &only).await {
                tracing::debug!(request = name, error = %error, "a request stays until Kubernetes deletes it");
            }
        });
    }
}

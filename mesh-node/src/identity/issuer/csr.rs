//! Certificates by CertificateSigningRequest, where PodCertificateRequests are not served.
//!
//! In:  a key, and the pod that bears the identity.
//! Out: the chain that the signer put into the request's status, or its reason against it.
//! Invariant: the API server itself notes who asks and to which node the asker's token is bound; the annotations name
//! the pod, and the signer checks that it runs on that node.
//! Source: Kubernetes `certificates.k8s.io/v1.CertificateSigningRequest`; it deletes them in time.

use super::pod_certificate::pkcs10;
use super::{IssueError, Request};
use crate::identity::api::{ApiError, failed, outcome};
use crate::identity::names::{POD_ANNOTATION, POD_UID_ANNOTATION, SIGNER};
use crate::identity::svid::encode;
use crate::identity::trust::parse;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use pem::Pem;
use rustls_pki_types::CertificateDer;

/// What became of a request.
enum Outcome {
    Issued(Vec<u8>),
    Refused(String),
}

pub(super) async fn ask(client: &Client, request: &Request<'_>) -> Result<Vec<CertificateDer<'static>>, IssueError> {
    let (identity, bearer) = (request.identity, request.bearer);
    let api = Api::<CertificateSigningRequest>::all(client.clone());
    let answer = async {
        let pod = format!("{}/{}", identity.namespace, bearer.pod);
        if bearer.uid.is_empty() {
            return Err(ApiError::Incomplete { object: format!("the pod {pod}"), field: "UID" });
        }
        let annotations = [(POD_ANNOTATION, pod), (POD_UID_ANNOTATION, bearer.uid.to_string())];
        let pkcs10 = encode(&[Pem::new("CERTIFICATE REQUEST", pkcs10(request.key)?)]);
        let asked = CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some("mesh-svid-".to_owned()),
                annotations: Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                signer_name: SIGNER.to_owned(),
                request: ByteString(pkcs10.into_bytes()),
                usages: Some(["digital signature", "server auth", "client auth"].map(str::to_owned).to_vec()),
                expiration_seconds: i32::try_from(request.ttl.as_secs()).ok(),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let created = api.create(&PostParams::default(), &asked).await.map_err(failed("request a certificate"))?;
        outcome(&api, created, ended).await
    };
    match answer.await.map_err(|error| error.of_request(identity))? {
        Outcome::Issued(chain) => parse("the request's status", &String::from_utf8_lossy(&chain))
            .map_err(|error| IssueError::Unusable(Box::new(error))),
        Outcome::Refused(reason) => Err(IssueError::Refused { identity: Box::new(identity.clone()), reason }),
    }
}

/// What became of a request, once it is decided.
fn ended(request: &CertificateSigningRequest) -> Option<Outcome> {
    let status = request.status.as_ref()?;
    let refused = status.conditions.iter().flatten().find(|condition| matches!(&*condition.type_, "Denied" | "Failed"));
    if let Some(condition) = refused {
        let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
        let parts = [Some(&*condition.type_), reason, message];
        return Some(Outcome::Refused(parts.into_iter().flatten().collect::<Vec<_>>().join(": ")));
    }
    status.certificate.as_ref().map(|chain| Outcome::Issued(chain.0.clone()))
}

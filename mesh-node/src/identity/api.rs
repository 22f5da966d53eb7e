//! What the identity of a cluster asks of the Kubernetes API, whoever asks.
//!
//! In:  a client.
//! Out: which kinds are served; what became of an object; errors that say what was attempted.
//! Invariant: no call here waits for ever: the caller's patience bounds it.
//! Source: Kubernetes API concepts, "Efficient detection of changes".

use super::IssueError;
use crate::model::Identity;
use futures_util::TryStreamExt;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

/// The pause before a broken watch is begun anew.
const PAUSE: Duration = Duration::from_millis(500);

/// Which kinds of `certificates.k8s.io/v1` an API server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) pod_certificate_requests: bool,
    pub(super) cluster_trust_bundles: bool,
}

/// Why the API was of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// A call failed.
    #[error("cannot {action}")]
    Call {
        action: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// The cluster's version lacks what was chosen.
    #[error("the API server does not serve certificates.k8s.io/v1 {kind}: choose another --issuer, or enable it")]
    NotServed { kind: &'static str },
    /// Somebody deleted a request before it was answered.
    #[error("the request {name} was deleted before it was answered")]
    Withdrawn { name: String },
    /// What the API gave lacks something it must have.
    #[error("{object} has no {field}")]
    Incomplete { object: String, field: &'static str },
    /// Certificates that the API gave cannot be read.
    #[error("the certificates in {object} cannot be read: {reason}")]
    Malformed { object: String, reason: String },
    /// Nobody has published roots.
    #[error("{object} is not there yet: the signer, which one of the daemons runs, makes it")]
    NoRoots { object: &'static str },
}

/// Says what was attempted when a call fails.
pub(super) fn failed(action: impl Into<String>) -> impl FnOnce(kube::Error) -> ApiError {
    move |source| ApiError::Call { action: action.into(), source: Box::new(source) }
}

impl ApiError {
    /// The HTTP status, if the API server answered.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => status(source),
            Self::NotServed { .. }
            | Self::Withdrawn { .. }
            | Self::Incomplete { .. }
            | Self::Malformed { .. }
            | Self::NoRoots { .. } => None,
        }
    }

    /// As a keyring hears it: what the API server forbids is a refusal, everything else may pass.
    pub(super) fn of_request(self, identity: &Identity) -> IssueError {
        if let Self::Call { source, .. } = &self
            && let kube::Error::Api(answer) = &**source
            && matches!(answer.code, 403 | 422)
        {
            return IssueError::Refused { identity: Box::new(identity.clone()), reason: answer.message.clone() };
        }
        IssueError::Unavailable(Box::new(self))
    }
}

/// The HTTP status of an answer that is an error.
pub(super) fn status(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(answer) = error { Some(answer.code) } else { None }
}

/// Asks which kinds are served.
pub(super) async fn served(client: &Client) -> Result<Served, ApiError> {
    let found = client.list_api_group_resources("certificates.k8s.io/v1").await;
    let found = found.map_err(failed("learn which certificate APIs are served"))?;
    let has = |plural: &str| found.resources.iter().any(|resource| resource.name == plural);
    Ok(Served {
        pod_certificate_requests: has("podcertificaterequests"),
        cluster_trust_bundles: has("clustertrustbundles"),
    })
}

/// The name of an object that the API server has.
pub(super) fn name_of<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// Waits until `ended` says what became of an object that was just created.
///
/// **Cancel**: safe.
pub(super) async fn outcome<K, T>(api: &Api<K>, created: K, ended: impl Fn(&K) -> Option<T>) -> Result<T, ApiError>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let name = name_of(&created);
    let mut version = created.meta().resource_version.clone().unwrap_or_default();
    loop {
        match watch(api, &name, &version, &ended).await {
            Ok(Some(outcome)) => return Ok(outcome),
            // The watch ended, or was too old.
            Ok(None) => {}
            Err(error @ ApiError::Withdrawn { .. }) => return Err(error),
            Err(error) => tracing::debug!(request = name, error = %error, "a watch broke off"),
        }
        tokio::time::sleep(PAUSE).await;
        let found = api.get_opt(&name).await.map_err(failed(format!("read the request {name}")))?;
        let Some(found) = found else { return Err(ApiError::Withdrawn { name }) };
        if let Some(outcome) = ended(&found) {
            return Ok(outcome);
        }
        version = found.meta().resource_version.clone().unwrap_or_default();
    }
}

async fn watch<K, T>(
    api: &Api<K>,
    name: &str,
    version: &str,
    ended: impl Fn(&K) -> Option<T>,
) -> Result<Option<T>, ApiError>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watching = || failed(format!("watch the request {name}"));
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(api.watch(&only, version).await.map_err(watching())?);
    while let Some(event) = events.try_next().await.map_err(watching())? {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if let Some(outcome) = ended(&object) {
                    return Ok(Some(outcome));
                }
            }
            WatchEvent::Deleted(_) => return Err(ApiError::Withdrawn { name: name.to_owned() }),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => return Ok(None),
        }
    }
    Ok(None)
}

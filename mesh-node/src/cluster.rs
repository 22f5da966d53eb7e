//! The Kubernetes API server, as every part of the daemon asks it.
//!
//! In:  a kubeconfig, or what the kubelet puts into a pod.
//! Out: a [`kube::Client`]; [`runtime_version`] of a node; the [`installation`] of the mesh.
//! Invariant: no request waits for ever: connecting, sending and each read have a deadline.
//! Source: Kubernetes, "Accessing the API from a Pod"; `core/v1.NodeSystemInfo`.

pub mod lease;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::Request;
use hyper::header::{HeaderValue, USER_AGENT};
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, core};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a connection may take to be made, and each write on it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the API server may be silent on a connection that waits for it. On watches it speaks about once a minute,
/// for they ask for bookmarks.
pub const MAX_SILENCE: Duration = Duration::from_secs(90);

/// Where the kubelet puts a pod's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Why the API server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// This is no pod with a service account.
    #[error(
        "this is no pod that may use the Kubernetes API; outside of a cluster, name a --kubeconfig or a directory of --objects"
    )]
    InCluster {
        /// What is missing.
        #[source]
        source: InClusterError,
    },
    /// The pod's token cannot be read.
    #[error("cannot read the token of the service account, {TOKEN}")]
    Token {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The token says of no service account which one.
    #[error("{TOKEN} is bound to no service account: mount a projected token, as Kubernetes does by default")]
    UnboundToken,
    /// What is configured fits no client.
    #[error("cannot make a client for the Kubernetes API")]
    Client {
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A request failed.
    #[error("cannot read {what} from the Kubernetes API")]
    Request {
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client for the API server that `kubeconfig` names; by default for that of the cluster in which this is a pod. It
/// does not connect before it is used.
///
/// **Errors**: the configuration is missing or cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClusterError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ClusterError::Kubeconfig { path: path.to_owned(), source: Box::new(source) })?,
        None => Config::incluster().map_err(|source| ClusterError::InCluster { source })?,
    };
    config.connect_timeout = Some(PATIENCE);
    config.write_timeout = Some(PATIENCE);
    config.read_timeout = Some(MAX_SILENCE);
    // Otherwise the time for which a connection was idle counts against the next answer.
    config.reset_reader_on_write = true;
    let agent = HeaderValue::from_static(concat!("mesh-node/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Client::try_from(config).map_err(|source| ClusterError::Client { source: Box::new(source) })
}

/// The installation of the mesh that a daemon is of: the UID of its service account, which an upgrade keeps and an uninstallation
/// ends. It is read from the token that the kubelet puts into the pod, so that it is known without the API server. Daemons with a
/// kubeconfig are one installation.
///
/// **Errors**: the token is missing, or is none that is bound to a service account.
pub fn installation(kubeconfig: Option<&Path>) -> Result<String, ClusterError> {
    if kubeconfig.is_some() {
        return Ok("kubeconfig".to_owned());
    }
    let token = std::fs::read_to_string(TOKEN).map_err(|source| ClusterError::Token { source })?;
    account_uid(&token).ok_or(ClusterError::UnboundToken)
}

/// The UID of the service account that a token is of. The API server checks the token; here it only tells.
fn account_uid(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(rename = "kubernetes.io")]
        kubernetes: Bound,
    }
    #[derive(Deserialize)]
    struct Bound {
        serviceaccount: Account,
    }
    #[derive(Deserialize)]
    struct Account {
        uid: String,
    }

    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(claims.kubernetes.serviceaccount.uid).filter(|uid| !uid.is_empty() && !uid.contains('/'))
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// The container runtime of a node and its version, as in `containerd://2.2.9`; empty if the node has not said yet.
///
/// **Errors**: the API server does not answer, or there is no such node.
pub async fn runtime_version(client: &Client, node: &str) -> Result<String, ClusterError> {
    #[derive(Deserialize)]
    struct Node {
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        node_info: Info,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        #[serde(default)]
        container_runtime_version: String,
    }

    let failed = |source| ClusterError::Request { what: format!("the node {node}"), source: Box::new(source) };
    let request = node_request(node).map_err(|source| failed(kube::Error::BuildRequest(source)))?;
    let node: Node = client.request(request).await.map_err(failed)?;
    Ok(node.status.node_info.container_runtime_version)
}

fn node_request(node: &str) -> Result<Request<Vec<u8>>, core::request::Error> {
    if !node.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
        return Err(core::request::Error::Validation(format!("`{node}` is no name of a node")));
    }
    core::Request::new("/api/v1/nodes").get(node, &core::params::GetParams::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_of_which_service_account_it_is() {
        let token = |claims: &str| format!("h.{}.s\n", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let bound =
            r#"{"kubernetes.io":{"namespace":"n","serviceaccount":{"name":"mesh-node","uid":"u-1"}},"sub":"x"}"#;
        assert_eq!(account_uid(&token(bound)).as_deref(), Some("u-1"));
        for wrong in [
            r#"{"sub":"x"}"#,
            r#"{"kubernetes.io":{"serviceaccount":{"uid":""}}}"#,
            r#"{"kubernetes.io":{"serviceaccount":{"uid":"a/b"}}}"#,
            "no claims",
        ] {
            assert_eq!(account_uid(&token(wrong)), None, "{wrong}");
        }
        assert_eq!(account_uid("opaque"), None);
    }

    #[test]
    fn a_node_is_asked_for_by_its_name_alone() {
        let uri = |node| node_request(node).map(|request| request.uri().to_string()).ok();
        assert_eq!(uri("worker-1.example").as_deref(), Some("/api/v1/nodes/worker-1.example"));
        assert_eq!(uri(""), None, "the list of all nodes is not asked for");
        assert_eq!(uri("a/../secrets"), None);
    }
}

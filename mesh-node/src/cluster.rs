//! The Kubernetes API server, as every part of the daemon asks it.
//!
//! In:  a kubeconfig, or what the kubelet puts into a pod.
//! Out: a [`kube::Client`]; [`runtime_version`] of a node.
//! Invariant: no request waits for ever: connecting, sending and each read have a deadline.
//! Source: Kubernetes, "Accessing the API from a Pod"; `core/v1.NodeSystemInfo`.

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
    fn a_node_is_asked_for_by_its_name_alone() {
        let uri = |node| node_request(node).map(|request| request.uri().to_string()).ok();
        assert_eq!(uri("worker-1.example").as_deref(), Some("/api/v1/nodes/worker-1.example"));
        assert_eq!(uri(""), None, "the list of all nodes is not asked for");
        assert_eq!(uri("a/../secrets"), None);
    }
}

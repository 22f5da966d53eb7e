//! Programs that `cargo xtask setup` builds from source.

use crate::env;
use anyhow::Result;
use std::path::PathBuf;

/// The programs of Kubernetes.
#[derive(Clone, Debug)]
pub struct Kube {
    /// The store behind the API server.
    pub etcd: PathBuf,
    /// The API server.
    pub apiserver: PathBuf,
    /// Its command line.
    pub kubectl: PathBuf,
}

/// The programs of Kubernetes.
///
/// **Errors**: one is not built.
pub fn kube() -> Result<Kube> {
    Ok(Kube { etcd: env::tool("etcd")?, apiserver: env::tool("kube-apiserver")?, kubectl: env::tool("kubectl")? })
}

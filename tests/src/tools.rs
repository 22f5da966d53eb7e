//! Programs that `cargo xtask setup` builds from source, and the files of Istio, the Gateway API and Calico.

use crate::{env, execute};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// The directory of Istio's Go module: samples, and the definitions of its kinds and of the Gateway API's.
///
/// **Errors**: Go is not installed, or the module can neither be found nor downloaded.
pub fn istio() -> Result<PathBuf> {
    module("istio", "istio.io/istio")
}

/// The directory of Calico's Go module, with the definitions of its kinds.
///
/// **Errors**: as for [`istio`].
pub fn calico() -> Result<PathBuf> {
    module("calico", "github.com/projectcalico/calico")
}

/// The directory with the definitions of the Gateway API's kinds.
///
/// **Errors**: as for [`istio`].
pub fn gateway_api() -> Result<PathBuf> {
    Ok(module("conformance", "sigs.k8s.io/gateway-api")?.join("config/crd/standard"))
}

/// The directory of a Go module that a `go.mod` of the tools names.
fn module(named_in: &str, path: &str) -> Result<PathBuf> {
    let mut command = Command::new(env::system("go")?);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(named_in);
    command.args(["mod", "download", "-json", path]).current_dir(directory);
    let said: serde_json::Value = serde_json::from_str(&execute(&mut command, Duration::from_secs(180))?.success()?)?;
    let directory = said["Dir"].as_str().with_context(|| format!("Go does not say where the module {path} is"))?;
    Ok(directory.into())
}

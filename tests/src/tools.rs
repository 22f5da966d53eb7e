//! Programs that `cargo xtask setup` builds from source, and the files of Istio.

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
    let mut command = Command::new(env::system("go")?);
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/istio");
    command.args(["mod", "download", "-json", "istio.io/istio"]).current_dir(module);
    let said: serde_json::Value = serde_json::from_str(&execute(&mut command, Duration::from_secs(180))?.success()?)?;
    Ok(said["Dir"].as_str().context("Go does not say where Istio's module is")?.into())
}

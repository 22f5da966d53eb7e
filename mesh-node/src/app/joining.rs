//! Puts the plugin into the runtime's chain when the daemon can answer it.
//!
//! In:  the settings; the runtime's version, as somebody knows it.
//! Out: a [`Chain`] and when it is to be installed.
//! Invariant: what the runtime is, is remembered: a node that boots without the API server is chained as before.

use crate::admin::{self, What};
use crate::chain::{self, Chain, ChainError, Entry, Method, PLUGIN, UnknownRuntime};
use crate::cluster;
use crate::config::{self, ChainMode, Run};
use crate::telemetry::{Metrics, explain};
use crate::why::{Answer, Question, WhyError};
use kube::Client;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The file in the state directory that holds the runtime's version.
const RUNTIME: &str = "container-runtime";

/// How soon to ask the API server again.
const RETRY: Duration = Duration::from_secs(5);

/// Begins to look after the chain, if the daemon is to.
///
/// **Errors**: see [`Chain::start`].
pub(super) fn start(
    settings: &config::Chain,
    state_dir: &Path,
    socket: &Path,
    metrics: &Metrics,
) -> Result<Option<Chain>, ChainError> {
    if settings.chain == ChainMode::Off {
        return Ok(None);
    }
    Chain::start(chain_config(settings, state_dir, socket), metrics).map(Some)
}

/// What the chain is told.
pub(super) fn chain_config(settings: &config::Chain, state_dir: &Path, socket: &Path) -> chain::Config {
    chain::Config {
        conf_dir: settings.cni_conf_dir.clone(),
        bin_dir: settings.cni_bin_dir.clone(),
        plugin: settings.cni_plugin.clone().unwrap_or_else(plugin_beside),
        state_dir: state_dir.join("chain"),
        entry: Entry { socket: socket.to_owned(), exempt: settings.exempt_namespaces.clone() },
    }
}

/// The plugin as it came with this program.
fn plugin_beside() -> PathBuf {
    std::env::current_exe().map_or_else(|_| PathBuf::from(PLUGIN), |own| own.with_file_name(PLUGIN))
}

/// Puts the plugin into the chain. Where the runtime's version decides how, the Node object says it; until the API server
/// answers, what it said last holds.
///
/// **Errors**: nothing says how this runtime is chained.
pub(super) async fn install(chain: &Chain, run: &Run, api: Option<&Client>) -> Result<(), UnknownRuntime> {
    match run.chain.chain {
        ChainMode::Off => {}
        ChainMode::DropIn => chain.install(Method::DropIn, true),
        ChainMode::Conflist => chain.install(Method::Conflist, true),
        ChainMode::Auto => {
            let remembered = run.state_dir.join(RUNTIME);
            let known = std::fs::read_to_string(&remembered).ok();
            let told = match (&run.chain.container_runtime, api) {
                (Some(text), _) => text.clone(),
                (None, Some(api)) => {
                    if let Some(method) = known.as_deref().and_then(|text| chain::method(text).ok()) {
                        chain.install(method, false);
                    }
                    runtime(api, &run.node_name).await
                }
                (None, None) => known.unwrap_or_default(),
            };
            chain.install(chain::method(&told)?, false);
            if let Err(error) = std::fs::write(&remembered, &told) {
                tracing::warn!(%error, "what the container runtime is cannot be remembered");
            }
        }
    }
    Ok(())
}

/// The container runtime of a node, as in `containerd://2.2.9`, as soon as the API server says it.
async fn runtime(api: &Client, node: &str) -> String {
    loop {
        match cluster::runtime_version(api, node).await {
            Ok(version) if version.is_empty() => {}
            Ok(version) => return version,
            Err(error) => {
                tracing::warn!(error = explain(&error), node, "cannot ask what container runtime this node has");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What the admin server shows, and whether the plugin is in the chain.
pub(super) struct Watched {
    pub(super) inner: Arc<dyn admin::Source>,
    pub(super) chain: Option<Chain>,
}

impl admin::Source for Watched {
    fn ready(&self) -> Result<(), Vec<String>> {
        let chained = self.chain.as_ref().and_then(|chain| chain::missing(&chain.state()));
        let mut missing = self.inner.ready().err().unwrap_or_default();
        missing.extend(chained);
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        self.inner.metrics()
    }

    fn debug(&self, what: What) -> Value {
        self.inner.debug(what)
    }

    fn why(&self, question: &Question) -> Result<Answer, WhyError> {
        self.inner.why(question)
    }
}

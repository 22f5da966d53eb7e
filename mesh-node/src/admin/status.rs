//! The page of `mesh-node status`.
//!
//! In:  the admin address of a running daemon.
//! Out: a page for people: ready or what is missing, pods, connections, refusals, issues with their cures.
//! Invariant: rendering is pure, and no text of the daemon can command the reader's terminal.

mod fetch;
mod page;
mod sample;
#[cfg(test)]
mod tests;

pub use fetch::{StatusError, fetch, probe, why};
pub use page::render;

use super::view::{Readiness, Snapshot};
use sample::samples;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Connections by `side` and `security`, as the proxy counts them.
const CONNECTIONS: &str = "mesh_proxy_connections_total";

/// Refusals by `side` and `reason`, as the proxy counts them.
const REFUSED: &str = "mesh_proxy_refused_total";

/// Is the API server connected, by `kind`; nothing where objects come from files.
const CONNECTED: &str = "mesh_source_connected";

/// Objects by `kind`.
const OBJECTS: &str = "mesh_source_objects";

/// Are the objects those of an earlier run?
const STALE: &str = "mesh_source_stale";

/// The users' objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// How many are known.
    pub objects: u64,
    /// Does the API server tell of changes?
    pub connected: bool,
}

/// The mode of the chain, as `chain` tells it.
const CHAIN: &str = "mesh_chain_mode";

/// Everything the page shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Where the daemon was asked.
    pub address: SocketAddr,
    /// Its version, if it says.
    pub version: Option<String>,
    /// Is it ready, and what is missing.
    pub readiness: Readiness,
    /// Are the objects those of an earlier run?
    pub stale: bool,
    /// What is watched of the Kubernetes API, by kind.
    pub watched: BTreeMap<String, Watched>,
    /// Pods and issues.
    pub snapshot: Snapshot,
    /// Connections by side and security.
    pub connections: BTreeMap<(String, String), u64>,
    /// Refused connections by side and reason.
    pub refused: BTreeMap<(String, String), u64>,
    /// How the plugin is in the runtime's chain, if the daemon looks after that.
    pub chain: Option<String>,
}

impl Status {
    /// Reads the metrics of `text`, which is in the OpenMetrics format.
    fn new(address: SocketAddr, readiness: Readiness, snapshot: Snapshot, text: &str) -> Self {
        let version = samples(text, "mesh_build_info").find_map(|(mut labels, _)| labels.remove("version"));
        Self {
            address,
            version,
            readiness,
            stale: samples(text, STALE).any(|(_, value)| value > 0),
            watched: watched(text),
            snapshot,
            connections: sums(text, CONNECTIONS, "security"),
            refused: sums(text, REFUSED, "reason"),
            chain: samples(text, CHAIN)
                .find(|(_, value)| *value == 1)
                .and_then(|(mut labels, _)| labels.remove("mode")),
        }
    }
}

/// What is watched of the Kubernetes API.
fn watched(text: &str) -> BTreeMap<String, Watched> {
    let of = |name| samples(text, name).filter_map(|(mut labels, value)| Some((labels.remove("kind")?, value)));
    let mut watched: BTreeMap<String, Watched> =
        of(CONNECTED).map(|(kind, value)| (kind, Watched { objects: 0, connected: value > 0 })).collect();
    for (kind, objects) in of(OBJECTS) {
        if let Some(watched) = watched.get_mut(&kind) {
            watched.objects = objects;
        }
    }
    watched
}

/// The values of a metric, by side and `by`, summed over other labels.
fn sums(text: &str, name: &str, by: &str) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for (mut labels, value) in samples(text, name) {
        let key = (labels.remove("side").unwrap_or_default(), labels.remove(by).unwrap_or_default());
        *sums.entry(key).or_default() += value;
    }
    sums
}

/// Asks the daemon at `address` and writes the page.
///
/// **Errors**: the daemon cannot be reached or its answer not be understood.
pub async fn status(address: SocketAddr) -> Result<String, StatusError> {
    Ok(render(&fetch(address).await?))
}

//! What the daemon says of itself: named tasks, metrics, logs.
//!
//! In:  what other modules count and record.
//! Out: [`spawn`], [`Metrics`], [`log`], [`access`] for each connection and request, [`tcp`] and [`http`] for Istio's
//!   standard metrics, [`trace`] for spans.
//! Invariant: tasks are started here and nowhere else, so that each has a name.
//! Invariant: counting and recording never hold up traffic; a record that does not fit is dropped and counted.

pub mod access;
pub mod edges;
pub mod http;
pub mod log;
pub mod process;
pub mod tcp;
mod timestamp;
pub mod trace;

pub use timestamp::timestamp;

use prometheus_client::registry::Registry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

/// Which of a connection's two proxies speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The proxy of the pod that dialled; Istio's reporter `source`.
    Outbound,
    /// The proxy of the pod that was dialled; Istio's reporter `destination`.
    Inbound,
}

impl Side {
    /// As metrics and logs of the mesh write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    /// As Istio's label `reporter` writes it.
    #[must_use]
    pub fn reporter(self) -> &'static str {
        match self {
            Self::Outbound => "source",
            Self::Inbound => "destination",
        }
    }
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Security {
    /// Both sides proved who they are, and the bytes are encrypted.
    MutualTls,
    /// The server alone proved who it is, and the bytes are encrypted: it is outside the mesh.
    Tls,
    /// Plain text.
    Plain,
    /// It ended before this was decided.
    Unknown,
}

impl Security {
    /// As Istio's label `connection_security_policy` writes it.
    #[must_use]
    pub fn policy(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Tls => "tls",
            Self::Plain => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// Why telemetry could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is not valid.
    #[error("log filter `{filter}` is not valid; write it as in `info,mesh_node::steer=debug`")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another log was begun in this process.
    #[error("the log was already begun in this process")]
    LogTaken {
        /// As the log reports it.
        #[source]
        source: tracing_subscriber::util::TryInitError,
    },
    /// The collector of spans cannot be reached over TLS.
    #[error(
        "cannot read the system's roots, by which the collector of spans is judged; use an http:// address or install them"
    )]
    Roots(#[source] std::io::Error),
    /// The access log's thread or output could not be had.
    #[error("the access log could not be begun")]
    Access {
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Starts a task that lives until it ends or the runtime does.
#[expect(clippy::disallowed_methods, reason = "the one place where tasks are started")]
pub fn spawn<F>(_name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Starts a task on the calling worker's own thread; for futures that never leave it.
#[expect(clippy::disallowed_methods, reason = "the one place where tasks are started")]
pub fn spawn_local<F>(_name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(future)
}

/// An error with its causes, in one line.
#[must_use]
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Every metric of the daemon. Each module registers its own and keeps the handles.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// Registers metrics, as in `metrics.register(|registry| registry.register("mesh_…", "…", counter.clone()))`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// **Errors**: a metric could not be written.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(
            &mut text,
            &self.registry.lock().unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(text)
    }
}

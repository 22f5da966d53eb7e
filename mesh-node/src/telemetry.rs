//! What the daemon says of itself: named tasks, metrics, logs.
//!
//! Out: [`spawn`], [`Metrics`].
//! Invariant: tasks are started here and nowhere else, so that each has a name.

pub mod access;

use prometheus_client::registry::Registry;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;

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

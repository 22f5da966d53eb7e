//! One record for each connection and each HTTP request that ended or was refused.
//!
//! In:  a [`Record`] or an [`HttpRecord`] from the proxy.
//! Out: one line on standard output, as text or JSON.
//! Invariant: traffic never waits: a record is formatted where it arises and handed to one thread through a
//!   bounded queue; what does not fit, or cannot be written, is dropped and counted.
//! Source: the terms are those of Envoy's and Istio's access logs.

mod format;
pub mod http;
mod line;
#[cfg(test)]
mod tests;

pub use super::{Security, Side};
pub use http::HttpRecord;

use super::{Metrics, TelemetryError};
use crate::snapshot::http::RouteOrigin;
use crate::snapshot::{ServiceName, WorkloadLabels};
use prometheus_client::metrics::counter::Counter;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

/// Records that may wait for the writer.
const QUEUE: usize = 8192;

/// Bytes of records that may wait for the writer.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// The writer hands over this many bytes at once.
const BATCH: usize = 64 * 1024;

/// After a batch the writer rests this long, so that busy workers need not wake it for each record.
const REST: Duration = Duration::from_millis(10);

/// How long the last owner of a log waits for its lines to be written.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Not at all.
    Off,
    /// A readable line.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How a connection or a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was served, and ended by either side.
    Closed,
    /// It was not served, or cut off.
    Refused {
        /// A short stable id, as in `untrusted_root`.
        reason: &'static str,
        /// What exactly was wrong, for people.
        detail: String,
    },
}

/// What is known of a connection at its end.
///
/// **Shape**: sent and received are as the pod that dialled is served: `bytes_sent` went to it (the response),
/// `bytes_received` came from it (the request); the same on both sides.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// Which proxy speaks.
    pub side: Side,
    /// How it ended.
    pub outcome: Outcome,
    /// Who dialled.
    pub source: SocketAddr,
    /// What was dialled: the original destination.
    pub destination: SocketAddr,
    /// Whom the proxy dialled, if it came to that.
    pub upstream: Option<SocketAddr>,
    /// The workload that dialled, if it is known.
    pub source_labels: Option<&'a WorkloadLabels>,
    /// The workload that was dialled, if it is known.
    pub destination_labels: Option<&'a WorkloadLabels>,
    /// The service that was dialled, if it is known.
    pub service: Option<&'a ServiceName>,
    /// The rule that routed it, if one did.
    pub route: Option<&'a RouteOrigin>,
    /// How it was protected.
    pub security: Security,
    /// Bytes of the response.
    pub bytes_sent: u64,
    /// Bytes of the request.
    pub bytes_received: u64,
    /// From its beginning to its end.
    pub duration: Duration,
    /// Istio's response flags; `-` for none.
    pub flags: &'static str,
}

/// Where records go. Clones write to the same log; the last one to go waits a moment for the lines to be written.
#[derive(Clone)]
pub struct AccessLog {
    /// `None` when nothing is to be written.
    log: Option<Arc<Log>>,
}

struct Log {
    json: bool,
    queue: SyncSender<Vec<u8>>,
    accepted: AtomicU64,
    progress: Arc<Progress>,
    dropped: Counter,
}

/// How many of the accepted records have left.
#[derive(Default)]
struct Progress {
    done: Mutex<u64>,
    moved: Condvar,
    /// Bytes of those that have not.
    waiting: AtomicUsize,
}

impl AccessLog {
    /// Begins a log on standard output.
    ///
    /// **Errors**: its thread or its output could not be had.
    pub fn start(format: Format, metrics: &Metrics) -> Result<Self, TelemetryError> {
        let output = io::stdout().as_fd().try_clone_to_owned();
        let output = output.map_err(|source| TelemetryError::Access { source })?;
        Self::start_on(format, metrics, File::from(output))
    }

    /// Begins a log on `output`, which sees whole lines only.
    ///
    /// **Errors**: its thread could not be started.
    pub fn start_on(
        format: Format,
        metrics: &Metrics,
        output: impl Write + Send + 'static,
    ) -> Result<Self, TelemetryError> {
        let dropped = Counter::default();
        metrics.register(|registry| {
            let help = "Access records that were not written, because the output was too slow or failed";
            registry.register("mesh_telemetry_access_dropped", help, dropped.clone());
        });
        let json = match format {
            Format::Off => return Ok(Self { log: None }),
            Format::Text => false,
            Format::Json => true,
        };
        let (queue, lines) = sync_channel(QUEUE);
        let progress = Arc::new(Progress::default());
        let writer = Writer { lines, output, progress: Arc::clone(&progress), dropped: dropped.clone() };
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run())
            .map_err(|source| TelemetryError::Access { source })?;
        let log = Log { json, queue, accepted: AtomicU64::new(0), progress, dropped };
        Ok(Self { log: Some(Arc::new(log)) })
    }

    /// Hands over a record; drops and counts it when the queue is full.
    pub fn write(&self, record: &Record<'_>) {
        let Some(log) = &self.log else { return };
        log.queue(if log.json { format::json(record) } else { format::text(record) });
    }

    /// Hands over the record of a request; drops and counts it when the queue is full.
    pub fn write_http(&self, record: &HttpRecord<'_>) {
        let Some(log) = &self.log else { return };
        log.queue(if log.json { http::json(record) } else { http::text(record) });
    }

    /// Is anything written at all? Whoever would only gather for a record may spare itself that.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.log.is_some()
    }

    /// Waits until every record handed over before is written, at most `patience`; returns whether it is.
    /// Blocks the calling thread.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.log.as_ref().is_none_or(|log| log.flush(patience))
    }
}

impl Log {
    fn queue(&self, line: Vec<u8>) {
        let length = line.len();
        let waiting = &self.progress.waiting;
        if waiting.fetch_add(length, Ordering::Relaxed) + length <= QUEUE_BYTES && self.queue.try_send(line).is_ok() {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.fetch_sub(length, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    fn flush(&self, patience: Duration) -> bool {
        let accepted = self.accepted.load(Ordering::Relaxed);
        let done = self.progress.done.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, _) = self
            .progress
            .moved
            .wait_timeout_while(done, patience, |done| *done < accepted)
            .unwrap_or_else(PoisonError::into_inner);
        *done >= accepted
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush(LAST_FLUSH);
    }
}

/// The thread that writes; it ends with the last [`AccessLog`].
struct Writer<W> {
    lines: Receiver<Vec<u8>>,
    output: W,
    progress: Arc<Progress>,
    dropped: Counter,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Ok(line) = self.lines.recv() {
            batch.clear();
            batch.extend_from_slice(&line);
            let mut count = 1;
            while batch.len() < BATCH {
                let Ok(line) = self.lines.try_recv() else { break };
                batch.extend_from_slice(&line);
                count += 1;
            }
            if self.output.write_all(&batch).and_then(|()| self.output.flush()).is_err() {
                self.dropped.inc_by(count);
            }
            self.progress.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            *self.progress.done.lock().unwrap_or_else(PoisonError::into_inner) += count;
            self.progress.moved.notify_all();
            if batch.len() < BATCH {
                thread::sleep(REST);
            }
        }
    }
}

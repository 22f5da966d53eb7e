//! Load at a fixed rate or in a closed loop, from one thread.
//!
//! In:  connections, a pace and bounds.
//! Out: counts and latencies.
//! Invariant: a load ends at its bounds, or at SIGTERM, and then says what it saw.
//! Invariant: at a fixed rate a request is due at its time whether or not a connection is free, and its latency
//! counts from then: a stalled proxy cannot hide the requests it kept from being sent.

use crate::Load;
use crate::client::{Connection, Progress, request};
use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// How long answers are waited for after the last request.
const GRACE: Duration = Duration::from_secs(2);

/// When the next request is due.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// At fixed times.
    Fixed {
        /// Requests per second.
        rate: u32,
    },
    /// When the last answer is there.
    Closed {
        /// A new connection for each request.
        close: bool,
    },
}

/// One request that was answered.
struct Sample {
    due: Duration,
    latency: Duration,
}

struct Run<'a> {
    load: &'a Load,
    pace: Pace,
    request: Vec<u8>,
    connections: Vec<Option<Connection>>,
    free: VecDeque<usize>,
    samples: Vec<Sample>,
    begun: u64,
    errors: u64,
    first_error: Option<String>,
    start: Instant,
}

/// Runs a load to its end and prints its figures.
pub(crate) fn run(load: &Load, pace: Pace) -> anyhow::Result<()> {
    let close = matches!(pace, Pace::Closed { close: true });
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        let open = || Connection::open(load.target).with_context(|| format!("cannot connect to {}", load.target));
        connections.push(if close { None } else { Some(open()?) });
    }
    let mut run = Run {
        load,
        pace,
        request: request(load.target, &load.path, close),
        free: (0..connections.len()).collect(),
        connections,
        samples: Vec::new(),
        begun: 0,
        errors: 0,
        first_error: None,
        start: Instant::now(),
    };
    run.drive()?;
    run.report()
}

impl Run<'_> {
    fn drive(&mut self) -> anyhow::Result<()> {
        let end = self.start + Duration::from_secs(self.load.seconds);
        let mut last = None;
        // Told to end, it sends no more and says what it saw.
        let mut told = SigSet::empty();
        told.add(Signal::SIGTERM);
        told.thread_block().context("cannot hold SIGTERM back")?;
        let told = SignalFd::with_flags(&told, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut ended = false;
        loop {
            let now = Instant::now();
            ended |= told.read_signal()?.is_some();
            let sending = now < end && self.begun < self.load.requests && !ended;
            if !sending {
                let last = *last.get_or_insert(now + GRACE);
                if self.free.len() == self.connections.len() || now > last {
                    return Ok(());
                }
            }
            let next = if sending { self.send_due(now) } else { now + Duration::from_millis(10) };
            self.receive(next)?;
        }
    }

    /// Sends what is due; returns when to look again.
    fn send_due(&mut self, now: Instant) -> Instant {
        while self.begun < self.load.requests {
            let due = match self.pace {
                Pace::Fixed { rate } => {
                    self.start + Duration::from_nanos(self.begun.saturating_mul(1_000_000_000) / u64::from(rate.max(1)))
                }
                Pace::Closed { .. } => now,
            };
            if due > now {
                return due;
            }
            let Some(slot) = self.free.pop_front() else { break };
            self.begun += 1;
            let Err(error) = self.send(slot, due) else { continue };
            self.fail(slot, &error);
            break;
        }
        now + Duration::from_millis(10)
    }

    fn send(&mut self, slot: usize, due: Instant) -> std::io::Result<()> {
        let connection = match &mut self.connections[slot] {
            Some(connection) => connection,
            empty @ None => empty.insert(Connection::open(self.load.target)?),
        };
        connection.send(&self.request, due)
    }

    /// Takes answers until the given moment, or returns once some came.
    fn receive(&mut self, until: Instant) -> anyhow::Result<()> {
        let busy: Vec<usize> = (0..self.connections.len())
            .filter(|&slot| self.connections[slot].as_ref().is_some_and(|connection| connection.due.is_some()))
            .collect();
        let mut polled: Vec<PollFd<'_>> = busy
            .iter()
            .filter_map(|&slot| self.connections[slot].as_ref())
            .map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN))
            .collect();
        let wait = until.saturating_duration_since(Instant::now());
        match ppoll(&mut polled, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for answers"),
        }
        let ready: Vec<usize> = busy
            .iter()
            .zip(&polled)
            .filter(|(_, polled)| polled.any().unwrap_or(false))
            .map(|(&slot, _)| slot)
            .collect();
        for slot in ready {
            self.take(slot);
        }
        Ok(())
    }

    fn take(&mut self, slot: usize) {
        let Some(connection) = &mut self.connections[slot] else { return };
        let due = connection.due.unwrap_or(self.start);
        match connection.receive() {
            Ok(Progress::Pending) => {}
            Ok(Progress::Answered(ok)) => {
                self.samples.push(Sample { due: due - self.start, latency: due.elapsed() });
                self.errors += u64::from(!ok);
                if !ok {
                    self.first_error.get_or_insert_with(|| "an answer was not 200".to_owned());
                }
                if matches!(self.pace, Pace::Closed { close: true }) {
                    self.connections[slot] = None;
                }
                self.free.push_back(slot);
            }
            Err(error) => self.fail(slot, &error),
        }
    }

    fn fail(&mut self, slot: usize, error: &std::io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
        self.connections[slot] = None;
        self.free.push_back(slot);
    }

    fn report(mut self) -> anyhow::Result<()> {
        let elapsed = self.start.elapsed();
        if let Some(path) = &self.load.log {
            let mut log = std::io::BufWriter::new(
                std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
            );
            for sample in &self.samples {
                writeln!(log, "{} {}", sample.due.as_micros(), sample.latency.as_micros())?;
            }
            log.flush()?;
        }
        let unanswered = self.connections.len() - self.free.len();
        self.samples.sort_by_key(|sample| sample.latency);
        let at = |share: f64| percentile(&self.samples, share).map(|latency| latency.as_secs_f64() * 1e3);
        println!(
            "{}",
            serde_json::json!({
                "begun": self.begun, "answered": self.samples.len(), "errors": self.errors, "unanswered": unanswered,
                "first_error": self.first_error, "seconds": elapsed.as_secs_f64(),
                "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0),
            })
        );
        Ok(())
    }
}

/// The latency which this share of the samples does not exceed (nearest rank); they are sorted.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank between one and the number of samples"
)]
fn percentile(sorted: &[Sample], share: f64) -> Option<Duration> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map(|sample| sample.latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<Sample> =
            (1..=1000).map(|ms| Sample { due: Duration::ZERO, latency: Duration::from_millis(ms) }).collect();
        assert_eq!(percentile(&samples, 0.5), Some(Duration::from_millis(500)));
        assert_eq!(percentile(&samples, 0.999), Some(Duration::from_millis(999)));
        assert_eq!(percentile(&samples, 1.0), Some(Duration::from_secs(1)));
        assert_eq!(percentile(&[], 0.5), None);
    }
}

//! CPU time and memory of processes, read from `/proc`.
//!
//! In:  process ids by role.
//! Out: [`Spent`], what a window of time cost whom; resident sizes.
//! Invariant: threads count with their process; children count for the client once they are reaped.
//! Source: `proc(5)`: `/proc/PID/stat`, `/proc/PID/status`, `/proc/stat`.

use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use std::fs;
use std::time::{Duration, Instant};

/// The kernel's unit of CPU time in `/proc` is 1/100 s on every architecture Linux has today.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes of one way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes {
    pub(crate) proxies: Vec<u32>,
    pub(crate) servers: Vec<u32>,
}

/// CPU seconds in one window of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) proxies: f64,
    pub(crate) servers: f64,
    pub(crate) clients: f64,
    /// The share of the machine used by others, between 0 and 1.
    pub(crate) foreign: f64,
    pub(crate) wall: f64,
}

impl Spent {
    pub(crate) fn all(&self) -> f64 {
        self.proxies + self.servers + self.clients
    }
}

/// A window that is open.
pub(crate) struct Window<'a> {
    processes: &'a Processes,
    start: Instant,
    proxies: f64,
    servers: f64,
    own: f64,
    busy: f64,
}

impl<'a> Window<'a> {
    /// Opens a window. The client is what this process starts and reaps before [`Window::close`].
    pub(crate) fn open(processes: &'a Processes) -> anyhow::Result<Self> {
        Ok(Self {
            processes,
            start: Instant::now(),
            proxies: cpu_of(&processes.proxies)?,
            servers: cpu_of(&processes.servers)?,
            own: own_cpu()?,
            busy: machine_cpu()?,
        })
    }

    /// What was spent since it was opened.
    pub(crate) fn close(self) -> anyhow::Result<Spent> {
        let wall = self.start.elapsed().as_secs_f64();
        let busy = machine_cpu()? - self.busy;
        let proxies = cpu_of(&self.processes.proxies)? - self.proxies;
        let servers = cpu_of(&self.processes.servers)? - self.servers;
        let clients = own_cpu()? - self.own;
        #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
        let capacity = wall * cpus() as f64;
        let foreign = ((busy - proxies - servers - clients) / capacity).clamp(0.0, 1.0);
        Ok(Spent { proxies, servers, clients, foreign, wall })
    }
}

/// How many processors there are.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Resident memory of a process in KB.
///
/// **Errors**: the process is gone.
pub(crate) fn rss_kb(pid: u32) -> anyhow::Result<f64> {
    size_kb(pid, "VmRSS:")
}

/// The part of [`rss_kb`] that no file backs: not the program itself.
pub(crate) fn anonymous_kb_of(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|&pid| size_kb(pid, "RssAnon:")).sum()
}

fn size_kb(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| gone(pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| gone(pid))?;
    line.trim().trim_end_matches("kB").trim().parse().with_context(|| gone(pid))
}

/// Sum of [`rss_kb`].
pub(crate) fn rss_kb_of(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|&pid| rss_kb(pid)).sum()
}

/// Waits until the machine is less busy than a share of it, for a bounded time.
pub(crate) fn quiet(share: f64, patience: Duration) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(250);
    let end = Instant::now() + patience;
    loop {
        let before = machine_cpu()?;
        std::thread::sleep(LOOK);
        #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
        let busy = (machine_cpu()? - before) / (LOOK.as_secs_f64() * cpus() as f64);
        if busy < share || Instant::now() > end {
            return Ok(());
        }
    }
}

/// Waits until processes have been at rest for a second, for a bounded time; returns when they came to rest.
pub(crate) fn rest(pids: &[u32], patience: Duration) -> anyhow::Result<Option<Instant>> {
    let end = Instant::now() + patience;
    let (mut since, mut last) = (Instant::now(), cpu_of(pids)?);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        let now = cpu_of(pids)?;
        // One tick in a tenth of a second is housekeeping.
        if now - last > 0.015 {
            since = Instant::now();
        } else if since.elapsed() > Duration::from_secs(1) {
            return Ok(Some(since));
        }
        last = now;
    }
    Ok(None)
}

/// Waits until the resident memory of processes has stopped moving, for a bounded time; returns it in KB.
pub(crate) fn settled_rss_kb(pids: &[u32], patience: Duration) -> anyhow::Result<f64> {
    let end = Instant::now() + patience;
    let mut last = rss_kb_of(pids)?;
    loop {
        // Longer than a daemon's tick, with which it gives memory back.
        std::thread::sleep(Duration::from_millis(1500));
        let now = rss_kb_of(pids)?;
        if (now - last).abs() < 64.0 || Instant::now() > end {
            return Ok(now);
        }
        last = now;
    }
}

fn gone(pid: u32) -> String {
    format!("process {pid} is gone: a proxy or server ended while it was measured; its log says why")
}

fn cpu_of(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|&pid| cpu(pid)).sum()
}

/// User and system time of a process in seconds.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| gone(pid))?;
    // The name, field 2, may hold spaces and parentheses: count from the last one. User time is field 14.
    let after = stat.rsplit_once(')').with_context(|| gone(pid))?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).with_context(|| gone(pid));
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// This process and the children it has reaped.
fn own_cpu() -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who).context("cannot read the CPU time of children")?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one run")]
        {
            seconds += micros as f64 / 1e6;
        }
    }
    Ok(seconds)
}

/// What all processors did since the machine started, in seconds; waiting and stolen time apart.
fn machine_cpu() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let fields: Vec<f64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum::<f64>();
    Ok(busy / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_is_seen() {
        let me = Processes { proxies: vec![std::process::id()], servers: Vec::new() };
        let window = Window::open(&me).unwrap();
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        let spent = window.close().unwrap();
        assert!(spent.proxies > 0.02 && spent.wall >= 0.3, "{spent:?}");
        assert!(rss_kb(std::process::id()).unwrap() > 100.0);
    }
}

//! What the daemon costs: memory, CPU time, descriptors, and which version it is.
//!
//! In:  `/proc/self`, read when metrics are scraped.
//! Out: the `process_*` metrics and `mesh_build_info`.
//! Invariant: what cannot be read is left out of that scrape, never reported as zero.
//! Source: Prometheus' standard process metrics; `proc_pid_stat(5)`.

use super::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use std::fmt;
use std::fs;

/// Clock ticks per second in `/proc`: 100 on every architecture that the mesh is built for.
const USER_HZ: f64 = 100.0;

/// Registers the metrics of this process; `version` is that of the daemon.
pub fn register(metrics: &Metrics, version: &str) {
    let build = Info::new([("version", version.to_owned())]);
    metrics.register(|registry| {
        registry.register("mesh_build", "The version that runs", build);
        registry.register_collector(Box::new(Process));
    });
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name, help, value: Option<f64>| match value {
            Some(value) => write(&mut encoder, (name, help), &ConstGauge::new(value)),
            None => Ok(()),
        };
        gauge("process_resident_memory_bytes", "Memory in RAM", resident_memory())?;
        gauge("process_open_fds", "Open file descriptors", open_descriptors())?;
        gauge("process_max_fds", "How many descriptors may be open", max_descriptors())?;
        let times = fs::read_to_string("/proc/self/stat").ok().and_then(|text| times(&text));
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        let started = times.zip(booted).map(|(times, booted)| booted + times.started);
        gauge("process_start_time_seconds", "When the process began, in Unix time", started)?;
        match times {
            Some(Times { cpu, .. }) => {
                let help = ("process_cpu_seconds", "CPU time spent in user and system mode");
                write(&mut encoder, help, &ConstCounter::new(cpu))
            }
            None => Ok(()),
        }
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Seconds of CPU time, and from the system's boot to the start of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    cpu: f64,
    started: f64,
}

/// Reads `/proc/<pid>/stat`. The command may hold spaces and brackets, so fields are counted from its last bracket.
fn times(stat: &str) -> Option<Times> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let field = |number: usize| fields.split(' ').nth(number - 3)?.trim_end().parse::<f64>().ok();
    Some(Times { cpu: (field(14)? + field(15)?) / USER_HZ, started: field(22)? / USER_HZ })
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn resident_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Counts the entries of `/proc/self/fd`, less the one that the count itself opens.
fn open_descriptors() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(f64::from(u32::try_from(count.checked_sub(1)?).ok()?))
}

fn max_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 3 0 12345 1000 50 18446744073709551615";
        assert_eq!(times(stat), Some(Times { cpu: 4.0, started: 123.45 }));
        assert_eq!(times("7 (cut"), None);
    }

    #[test]
    fn every_metric_of_this_process_is_there() {
        let metrics = Metrics::default();
        register(&metrics, "1.2.3");
        let text = metrics.encode().expect("metrics are written");
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
            let line = line.unwrap_or_else(|| panic!("{name} is missing from\n{text}"));
            line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1_600_000_000.0);
        assert!(text.contains("mesh_build_info{version=\"1.2.3\"} 1\n"), "{text}");
    }
}

//! The loads, and what their tools print.
//!
//! In:  a [`Pair`] of pods and a length of time.
//! Out: figures of one [`Sample`](crate::figures::Sample).
//! Invariant: CPU time is read in the same window in which the load runs; every load is bounded in time.

use crate::figures::{Measure, Way};
use crate::usage::{Processes, Spent, Window};
use anyhow::{Context as _, bail, ensure};
use mesh_tests::{Pod, load};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Figures by the keys of [`crate::figures`].
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// A client and what it dials.
pub(crate) struct Pair {
    pub(crate) way: Way,
    /// Where the client is.
    pub(crate) pod: Arc<Pod>,
    pub(crate) http: SocketAddr,
    /// Where iperf3 is, if connections are carried as they come.
    pub(crate) bulk: Option<SocketAddr>,
    /// Where HTTP/2 is spoken, if requests are understood.
    pub(crate) http2: Option<SocketAddr>,
    pub(crate) processes: Processes,
}

impl Pair {
    /// A program where the client is.
    pub(crate) fn client(&self, program: &str) -> Command {
        self.pod.command(program)
    }
}

/// How long loads run.
#[derive(Clone, Copy)]
pub(crate) struct Lengths {
    pub(crate) load: Duration,
    pub(crate) latency: Duration,
}

/// The load generator of this project.
pub(crate) struct Meshload(pub(crate) PathBuf);

/// Runs one load; returns its figures and the foreign share of the machine.
pub(crate) fn run(measure: Measure, pair: &Pair, lengths: Lengths, tool: &Meshload) -> anyhow::Result<(Figures, f64)> {
    let (mut figures, spent) = match measure {
        Measure::Bulk => bulk(pair, lengths.load)?,
        Measure::Keepalive | Measure::Http1 => requests(pair, lengths.load, false)?,
        Measure::Connections => requests(pair, lengths.load, true)?,
        Measure::Http2 => streams(pair, lengths.load)?,
        Measure::Latency | Measure::HttpLatency => latency(pair, lengths.latency, tool)?,
        Measure::Idle
        | Measure::Held
        | Measure::Workloads
        | Measure::Pods
        | Measure::Routes
        | Measure::Scale
        | Measure::Policy => {
            bail!("this measure is no load")
        }
    };
    figures.insert("wall_s", spent.wall);
    figures.insert("proxies_cpu_s", spent.proxies);
    figures.insert("servers_cpu_s", spent.servers);
    figures.insert("clients_cpu_s", spent.clients);
    Ok((figures, spent.foreign))
}

fn bulk(pair: &Pair, length: Duration) -> anyhow::Result<(Figures, Spent)> {
    let bulk = pair.bulk.context("there is no server of iperf3")?;
    let mut command = pair.client("iperf3");
    command.args(["-c", &bulk.ip().to_string(), "-p", &bulk.port().to_string(), "-J"]);
    command.args(["--connect-timeout", "3000", "-t", &length.as_secs().max(1).to_string()]);
    let (text, spent) = measured(pair, &mut command)?;
    let answer: Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let received = &answer["end"]["sum_received"];
    let gigabytes = received["bytes"].as_f64().unwrap_or(0.0) / 1e9;
    if gigabytes <= 0.0 {
        bail!("iperf3 moved no bytes");
    }
    let figures = [
        ("gbit", received["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9),
        ("gigabytes", gigabytes),
        ("proxy_cpu", spent.proxies / gigabytes),
        ("all_cpu", spent.all() / gigabytes),
    ];
    Ok((figures.into(), spent))
}

fn requests(pair: &Pair, length: Duration, close: bool) -> anyhow::Result<(Figures, Spent)> {
    let mut command = pair.client("wrk");
    command.args(["-t1", "-c32", "--latency", "--timeout", "5s", "-d", &format!("{}s", length.as_secs().max(1))]);
    if close {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{}/", pair.http));
    let (text, spent) = measured(pair, &mut command)?;
    let figures = wrk(&text).with_context(|| format!("cannot read what wrk printed:\n{text}"))?;
    Ok((for_each_request(figures, &spent, &text)?, spent))
}

/// Adds what a hundred thousand requests cost.
fn for_each_request(mut figures: Figures, spent: &Spent, text: &str) -> anyhow::Result<Figures> {
    let hundred_thousands = figures["requests"] / 1e5;
    if hundred_thousands <= 0.0 {
        bail!("there was no answer:\n{text}");
    }
    figures.insert("proxy_cpu", spent.proxies / hundred_thousands);
    figures.insert("all_cpu", spent.all() / hundred_thousands);
    Ok(figures)
}

/// 8 connections of 8 streams each.
fn streams(pair: &Pair, length: Duration) -> anyhow::Result<(Figures, Spent)> {
    let http2 = pair.http2.context("there is no server of HTTP/2")?;
    let mut command = pair.client("h2load");
    command.args(["-t1", "-c8", "-m8", "-D", &length.as_secs().max(1).to_string()]);
    command.arg(format!("http://{http2}/"));
    let (text, spent) = measured(pair, &mut command)?;
    let figures = h2load(&text).with_context(|| format!("cannot read what h2load printed:\n{text}"))?;
    Ok((for_each_request(figures, &spent, &text)?, spent))
}

fn latency(pair: &Pair, length: Duration, tool: &Meshload) -> anyhow::Result<(Figures, Spent)> {
    let mut command = pair.client(&tool.0.to_string_lossy());
    command.args(["fixed", &pair.http.to_string(), "--rate", "2000", "--connections", "16"]);
    command.args(["--seconds", &length.as_secs().max(1).to_string()]);
    let (text, spent) = measured(pair, &mut command)?;
    let told = load::Figures::read(&text)?;
    ensure!(told.answered > 0, "meshload had no answer");
    let answered = f64::from(told.answered);
    let latencies = [
        ("p50_ms", told.p50_ms),
        ("p90_ms", told.p90_ms),
        ("p99_ms", told.p99_ms),
        ("p999_ms", told.p999_ms),
        ("max_ms", told.max_ms),
    ];
    let mut figures: Figures = latencies.into_iter().filter_map(|(key, latency)| Some((key, latency?))).collect();
    figures.insert("requests", answered);
    figures.insert("errors", f64::from(told.failed()));
    figures.insert("proxy_cpu", spent.proxies / answered * 1e5);
    Ok((figures, spent))
}

fn measured(pair: &Pair, command: &mut Command) -> anyhow::Result<(String, Spent)> {
    let window = Window::open(&pair.processes)?;
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let spent = window.close()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((text, spent))
}

/// Reads the text that wrk prints for people; it has no other.
fn wrk(text: &str) -> Option<Figures> {
    let mut figures = Figures::from([("errors", 0.0)]);
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            figures.insert("requests", count.parse().ok()?);
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            figures.insert("per_second", rate.trim().parse().ok()?);
        } else if let Some(counts) = line.strip_prefix("Socket errors:") {
            let errors: f64 = counts.split([' ', ',']).filter_map(|word| word.parse::<f64>().ok()).sum();
            *figures.entry("errors").or_default() += errors;
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            *figures.entry("errors").or_default() += count.trim().parse::<f64>().ok()?;
        } else if let Some(latency) = line.strip_prefix("50%") {
            figures.insert("p50_ms", milliseconds(latency)?);
        } else if let Some(latency) = line.strip_prefix("99%") {
            figures.insert("p99_ms", milliseconds(latency)?);
        }
    }
    (figures.contains_key("requests") && figures.contains_key("per_second")).then_some(figures)
}

/// Reads the text that h2load prints for people.
pub(crate) fn h2load(text: &str) -> Option<Figures> {
    let mut figures = Figures::new();
    for line in text.lines().map(str::trim) {
        if let Some(counts) = line.strip_prefix("requests: ") {
            let count =
                |what: &str| counts.split(", ").find_map(|part| part.strip_suffix(what)?.trim().parse::<f64>().ok());
            figures.insert("requests", count("succeeded")?);
            figures.insert("errors", count("failed")? + count("timeout")?);
        } else if let Some(rest) = line.strip_prefix("finished in ") {
            figures.insert("per_second", rest.split(", ").find_map(|part| part.strip_suffix(" req/s")?.parse().ok())?);
        }
    }
    (figures.contains_key("requests") && figures.contains_key("per_second")).then_some(figures)
}

fn milliseconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:18181/
  1 threads and 32 connections
  Latency Distribution
     50%  752.00us
     75%    1.01ms
     90%    1.31ms
     99%    2.50ms
  19349 requests in 1.00s, 20.48MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 2
Requests/sec:  19266.94
Transfer/sec:     20.40MB";
        let expected =
            [("errors", 6.0), ("p50_ms", 0.752), ("p99_ms", 2.5), ("per_second", 19266.94), ("requests", 19349.0)];
        assert_eq!(wrk(text), Some(expected.into()));
        assert_eq!(wrk("unable to connect"), None);
    }

    #[test]
    fn what_h2load_prints_is_read() {
        let text = "starting benchmark...
finished in 4.00s, 23456.75 req/s, 24.10MB/s
requests: 93827 total, 93891 started, 93827 done, 93820 succeeded, 7 failed, 7 errored, 1 timeout
status codes: 93820 2xx, 0 3xx, 0 4xx, 7 5xx";
        let expected = [("errors", 8.0), ("per_second", 23456.75), ("requests", 93820.0)];
        assert_eq!(h2load(text), Some(expected.into()));
        assert_eq!(h2load("could not connect"), None);
    }

    #[test]
    fn units_become_milliseconds() {
        assert_eq!(milliseconds(" 1.50s"), Some(1500.0));
        assert_eq!(milliseconds("2.00m"), Some(120_000.0));
        assert_eq!(milliseconds("7"), None);
    }
}

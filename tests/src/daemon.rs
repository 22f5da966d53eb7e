//! The mesh's daemon on a node: started, asked, replaced, killed.
//!
//! In:  a node; the directories that daemons of one node share.
//! Out: [`Daemon`], which answers on its admin port, and whose log is shown when it ends.

use crate::env;
use crate::exec::{Process, create};
use crate::leftovers;
use crate::mesh::Cluster;
use crate::netns::NetNs;
use crate::node::Node;
use crate::traffic;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The admin port of the first daemon on a node; each further one takes a port of its own.
const ADMIN_PORT: u16 = 15000;
/// How long what is applied may take to be heard of: there may be a pause between two tries of a watch.
const HEARD: Duration = Duration::from_secs(60);
/// How much of a log is shown at the end.
const LOG_TAIL: usize = 60;

/// How many daemons this process started on each node, for the names of logs and for admin ports.
static STARTED: [AtomicU16; 2] = [AtomicU16::new(0), AtomicU16::new(0)];

/// An answer of the admin server.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Where a daemon runs.
pub(crate) trait Place: std::fmt::Debug + Send + Sync {
    /// The namespace in which it answers.
    fn ns(&self) -> &NetNs;
    /// Is its log to be shown at the end?
    fn shows_logs(&self) -> bool;
}

/// A node of a mesh.
#[derive(Debug)]
struct OnNode(Arc<Cluster>, Node);

impl Place for OnNode {
    fn ns(&self) -> &NetNs {
        self.0.node(self.1).ns()
    }

    fn shows_logs(&self) -> bool {
        self.0.shows_logs()
    }
}

/// A running daemon. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    place: Arc<dyn Place>,
    node: Node,
    process: Process,
    admin: SocketAddr,
    access: PathBuf,
}

impl Daemon {
    /// Starts a daemon; gives it back before it is ready.
    pub(crate) fn start(cluster: &Arc<Cluster>, node: Node) -> Result<Self> {
        let net = cluster.node(node);
        let number = STARTED[usize::from(node.number() - 1)].fetch_add(1, Ordering::Relaxed);
        let admin = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT + number);
        let dir = net.dir();
        let (log, access) = (dir.join(format!("daemon-{number}.log")), dir.join(format!("access-{number}.log")));
        let mut command = match cluster.hosts() {
            None => net.ns().command(env::built("mesh-node")?),
            Some(hosts) => {
                // Mounts that are made elsewhere, such as namespaces of pods, are seen here; this one is not seen there.
                let mut command = net.ns().command("unshare");
                command.args(["--mount", "--propagation", "slave", "sh", "-c"]);
                command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"").arg(hosts).arg(env::built("mesh-node")?);
                command
            }
        };
        command
            .args(["run", "--node-name", node.name()])
            .arg("--objects")
            .arg(cluster.kube().dir())
            .arg("--state-dir")
            .arg(cluster.state_dir(node))
            .arg("--bpf-dir")
            .arg(cluster.bpf_dir(node))
            .arg("--ca-dir")
            .arg(cluster.ca_dir(node))
            .arg("--cni-socket")
            .arg(cluster.socket(node))
            .args(["--admin-addr", &admin.to_string()])
            .args(cluster.daemon_arguments(node))
            .stdout(create(&access)?)
            .stderr(create(&log)?);
        if !cluster.daemon_arguments(node).any(|argument| argument.starts_with("--access-log")) {
            command.args(["--access-log", "json"]);
        }
        let process = Process::start_with(&mut command, &log)?;
        Ok(Self { place: Arc::new(OnNode(Arc::clone(cluster), node)), node, process, admin, access })
    }

    /// Starts a daemon with these arguments, alone in its place; gives it back before it is ready. Its files are in `dir`.
    pub(crate) fn start_alone(place: Arc<dyn Place>, dir: &Path, arguments: &[OsString]) -> Result<Self> {
        let number = STARTED[0].fetch_add(1, Ordering::Relaxed);
        let admin = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT + number);
        let (log, access) = (dir.join(format!("daemon-{number}.log")), dir.join(format!("access-{number}.log")));
        let mut command = place.ns().command(env::built("mesh-node")?);
        command
            .args(["run", "--node-name", Node::A.name()])
            .args(["--admin-addr", &admin.to_string(), "--access-log", "json"])
            .args(arguments)
            .stdout(create(&access)?)
            .stderr(create(&log)?);
        let process = Process::start_with(&mut command, &log)?;
        Ok(Self { place, node: Node::A, process, admin, access })
    }

    /// Where it runs.
    #[must_use]
    pub const fn node(&self) -> Node {
        self.node
    }

    /// Where it answers, in its namespace.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Sends it a signal.
    ///
    /// **Errors**: it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its memory: what is resident now, in bytes.
    ///
    /// **Errors**: it is gone.
    pub fn memory(&self) -> Result<u64> {
        self.size("VmRSS:")
    }

    /// Asks the admin server for `path`.
    ///
    /// **Errors**: it does not answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let stream = traffic::connect(self.place.ns(), self.admin, PATIENCE)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = traffic::exchange_open(stream, request.as_bytes())?;
        parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("the admin server's answer to GET {path}"))
    }

    /// Waits until it says that it is ready.
    ///
    /// **Errors**: it ends, or is not ready within [`PATIENCE`]; its log is shown.
    pub fn ready(&self) -> Result<()> {
        wait::until_true(&format!("the daemon on node {} is ready", self.node.name()), PATIENCE, || {
            if let Some(status) = self.process.ended()? {
                bail!("the daemon on node {} ended ({status}):\n{}", self.node.name(), self.process.log());
            }
            Ok(self.get("/readyz").is_ok_and(|answer| answer.status == 200))
        })
    }

    /// Everything it counts, in the OpenMetrics text format.
    ///
    /// **Errors**: it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.get("/metrics")?.body)
    }

    /// The most memory that was ever resident, in bytes.
    ///
    /// **Errors**: it is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        self.size("VmHWM:")
    }

    fn size(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
        Ok(kib.with_context(|| format!("no {field}"))?.trim().parse::<u64>().context("a size")? * 1024)
    }

    /// The sum of a metric over every set of labels that has all of `labels`; zero if there is none.
    ///
    /// **Errors**: it does not answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(sum(&self.metrics()?, name, labels))
    }

    /// What [`metric`](Self::metric) is once it is `at_least` this: a request is counted after its response has passed.
    ///
    /// **Errors**: it does not answer, or is not within [`PATIENCE`].
    pub fn wait_metric(&self, name: &str, labels: &[(&str, &str)], at_least: f64) -> Result<f64> {
        wait::until(&format!("{name} with {labels:?} is {at_least}"), PATIENCE, || {
            Ok(Some(self.metric(name, labels)?).filter(|value| *value >= at_least))
        })
    }

    /// A debug page, such as `snapshot`.
    ///
    /// **Errors**: it does not answer, or not with JSON.
    pub fn debug(&self, page: &str) -> Result<Value> {
        let answer = self.get(&format!("/debug/{page}"))?;
        serde_json::from_str(&answer.body).with_context(|| format!("/debug/{page} answered {}", answer.body))
    }

    /// Does it know the object `name`, which is `namespace/name` where its kind has namespaces?
    ///
    /// **Errors**: it does not answer, or there is no such kind.
    pub fn knows(&self, kind: &str, name: &str) -> Result<bool> {
        let world = self.debug("world")?;
        let names = world["objects"][kind].as_array().with_context(|| format!("no {kind} in {world}"))?;
        Ok(names.iter().any(|known| known == name))
    }

    /// Waits until it knows the object, or knows it no more.
    ///
    /// **Errors**: as [`Daemon::knows`], or it does not come to that.
    pub fn wait_known(&self, kind: &str, name: &str, known: bool) -> Result<()> {
        let what = format!("{kind} {name} is {}known", if known { "" } else { "not " });
        wait::until_true(&what, HEARD, || Ok(self.knows(kind, name)? == known))
    }

    /// The records in its access log so far.
    ///
    /// **Errors**: the log cannot be read, or a whole line of it is no JSON.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.access).context("cannot read the access log")?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("in the access log: {line}")))
            .collect()
    }

    /// Waits for a record in the access log.
    ///
    /// **Errors**: none comes within [`PATIENCE`].
    pub fn wait_access(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
        wait::until(&format!("in the access log: {what}"), PATIENCE, || {
            Ok(self.access_log()?.into_iter().find(|record| wanted(record)))
        })
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks it to drain and end.
    ///
    /// **Errors**: it is gone.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)
    }

    /// Kills it without a word, and waits until it is gone.
    ///
    /// **Errors**: it was gone.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.wait(PATIENCE).map(drop)
    }

    /// Waits for its end.
    ///
    /// **Errors**: it has not ended within `patience`.
    pub fn wait(&self, patience: Duration) -> Result<ExitStatus> {
        self.process.wait(patience)
    }

    /// How it ended, if it has.
    ///
    /// **Errors**: the kernel does not say.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Test runners show this only of a test that failed.
        if self.place.shows_logs() && !leftovers::kept() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
            eprintln!("--- the end of the log of the daemon on node {}:\n{}", self.node.name(), tail.join("\n"));
        }
    }
}

/// Status and body of an HTTP/1.1 answer that ends with its connection.
pub(crate) fn parse(answer: &str) -> Result<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok(Answer { status, body: if chunked { unchunked(body) } else { body.to_owned() } })
}

/// A chunked body put together.
fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// The sum of the samples of `name` that have all of `labels`.
fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let matches = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    metrics.lines().filter(matches).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels() {
        let metrics = "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total{x=\"2\"} 5\na_total_b 9\n";
        assert!((sum(metrics, "a_total", &[("x", "1")]) - 7.0).abs() < f64::EPSILON);
        assert!((sum(metrics, "a_total", &[]) - 12.0).abs() < f64::EPSILON);
    }

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        let plain = parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot yet").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (503, "not yet"));
        let chunked =
            parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap();
        assert_eq!(chunked.body, "abcde");
    }
}

//! Records of connections as text and as JSON, and what they have in common with those of requests.
//!
//! In:  a record.
//! Out: one line with its newline, of bounded length.
//! Invariant: no text from outside can begin a second line or pass for another field.

use super::http::route;
use super::line::Line;
use super::{HttpRecord, Outcome, Record};
use crate::snapshot::{ServiceName, WorkloadLabels};
use crate::telemetry::{Security, Side, timestamp};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Longer details are cut, in bytes.
const MAX_DETAIL: usize = 512;

/// What is usual; a longer line grows its buffer.
const USUAL_LINE: usize = 640;

/// The keys of a JSON record. All are always there: null means unknown or not applicable.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    side: &'static str,
    outcome: &'static str,
    reason: Option<&'static str>,
    detail: Option<&'a str>,
    #[serde(flatten)]
    parties: Parties<'a>,
    route: Option<String>,
    bytes_sent: u64,
    bytes_received: u64,
    duration_ms: f64,
    response_flags: &'static str,
}

/// Who spoke with whom, in JSON.
#[derive(Serialize)]
struct PartiesJson<'a> {
    source_address: SocketAddr,
    source_workload: Option<&'a str>,
    source_namespace: Option<&'a str>,
    source_principal: Option<Principal<'a>>,
    destination_address: SocketAddr,
    destination_service: Option<&'a str>,
    upstream_address: Option<SocketAddr>,
    destination_workload: Option<&'a str>,
    destination_namespace: Option<&'a str>,
    destination_principal: Option<Principal<'a>>,
    connection_security_policy: &'static str,
}

struct Principal<'a>(&'a str);

impl Serialize for Principal<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("spiffe://{}", self.0))
    }
}

/// Who spoke with whom.
#[derive(Clone, Copy)]
pub(super) struct Parties<'a> {
    source: SocketAddr,
    destination: SocketAddr,
    upstream: Option<SocketAddr>,
    source_labels: Option<&'a WorkloadLabels>,
    destination_labels: Option<&'a WorkloadLabels>,
    service: Option<&'a ServiceName>,
    security: Security,
}

impl<'a> Record<'a> {
    fn parties(&self) -> Parties<'a> {
        Parties {
            source: canonical(self.source),
            destination: canonical(self.destination),
            upstream: self.upstream.map(canonical),
            source_labels: self.source_labels,
            destination_labels: self.destination_labels,
            service: self.service,
            security: self.security,
        }
    }
}

impl<'a> HttpRecord<'a> {
    pub(super) fn parties(&self) -> Parties<'a> {
        Parties {
            source: canonical(self.source),
            destination: canonical(self.destination),
            upstream: self.upstream.map(canonical),
            source_labels: self.source_labels,
            destination_labels: self.destination_labels,
            service: self.service,
            security: self.security,
        }
    }
}

impl<'a> Parties<'a> {
    /// A principal is said of a connection only where it was proved.
    fn proved(&self, labels: Option<&'a WorkloadLabels>) -> Option<Principal<'a>> {
        match self.security {
            Security::MutualTls => labels.map(|labels| Principal(&labels.principal)),
            Security::Tls | Security::Plain | Security::Unknown => None,
        }
    }

    pub(super) fn write_text(&self, line: &mut Line) {
        let (source, destination) = (self.source_labels, self.destination_labels);
        write_party(line, " source=", self.source, source.map(workload));
        write_party(line, " destination=", self.destination, self.service.map(|service| [&service.host, "", ""]));
        match self.upstream {
            Some(upstream) => write_party(line, " upstream=", upstream, destination.map(workload)),
            None => _ = line.text(" upstream=-"),
        }
        for (key, labels) in [(" source_principal=", source), (" destination_principal=", destination)] {
            if let Some(Principal(principal)) = self.proved(labels) {
                line.text(key).name(&["spiffe://", principal]);
            }
        }
        line.text(" security=").text(self.security.policy());
    }
}

impl Serialize for Parties<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (source, destination) = (self.source_labels, self.destination_labels);
        PartiesJson {
            source_address: self.source,
            source_workload: source.map(|labels| labels.workload.as_str()),
            source_namespace: source.map(|labels| labels.namespace.as_str()),
            source_principal: self.proved(source),
            destination_address: self.destination,
            destination_service: self.service.map(|service| service.host.as_str()),
            upstream_address: self.upstream,
            destination_workload: destination.map(|labels| labels.workload.as_str()),
            destination_namespace: destination.map(|labels| labels.namespace.as_str()),
            destination_principal: self.proved(destination),
            connection_security_policy: self.security.policy(),
        }
        .serialize(serializer)
    }
}

/// `record` as one JSON object and a newline.
pub(super) fn json(record: &Record<'_>) -> Vec<u8> {
    let (outcome, reason, detail) = outcome(&record.outcome, "closed");
    let line = Json {
        time: timestamp(record.time),
        side: record.side.name(),
        outcome,
        reason,
        detail,
        parties: record.parties(),
        route: record.route.map(route),
        bytes_sent: record.bytes_sent,
        bytes_received: record.bytes_received,
        duration_ms: milliseconds(record.duration),
        response_flags: record.flags,
    };
    json_line(&line, USUAL_LINE)
}

/// `record` as one JSON object and a newline, in a buffer for `usual` bytes.
pub(super) fn json_line(record: &impl Serialize, usual: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(usual);
    serde_json::to_writer(&mut buffer, record).expect("plain fields are valid JSON and memory takes every byte");
    buffer.push(b'\n');
    buffer
}

/// `record` as one readable line and a newline.
pub(super) fn text(record: &Record<'_>) -> Vec<u8> {
    let (outcome, reason, detail) = outcome(&record.outcome, "closed");
    let mut line = begun((record.time, record.side), (outcome, reason), USUAL_LINE);
    record.parties().write_text(&mut line);
    if let Some(origin) = record.route {
        line.text(" route=").quoted(&[&route(origin)]);
    }
    line.text(" sent=").number(record.bytes_sent).text(" received=").number(record.bytes_received);
    line.text(" duration=").milliseconds(record.duration).text("ms flags=").text(record.flags);
    ended(line, detail)
}

/// A line with what stands first in all of them.
pub(super) fn begun((time, side): (SystemTime, Side), (outcome, reason): (&str, Option<&str>), usual: usize) -> Line {
    let mut line = Line::with_capacity(usual);
    line.text(&timestamp(time)).text(" ").text(side.name()).text(" ").text(outcome);
    if let Some(reason) = reason {
        line.text(" reason=").text(reason);
    }
    line
}

/// A line with what stands last.
pub(super) fn ended(mut line: Line, detail: Option<&str>) -> Vec<u8> {
    if let Some(detail) = detail.filter(|detail| !detail.is_empty()) {
        line.text(" detail=").quoted(&[detail]);
    }
    line.into_bytes()
}

fn write_party(line: &mut Line, key: &str, address: SocketAddr, name: Option<[&str; 3]>) {
    line.text(key).address(address);
    if let Some(name) = name {
        line.text("(").name(&name).text(")");
    }
}

fn workload(labels: &WorkloadLabels) -> [&str; 3] {
    [&labels.namespace, "/", &labels.workload]
}

/// Outcome, reason and detail; `served` is what an outcome without a reason is called.
pub(super) fn outcome<'a>(
    outcome: &'a Outcome,
    served: &'static str,
) -> (&'static str, Option<&'static str>, Option<&'a str>) {
    match outcome {
        Outcome::Closed => (served, None, None),
        Outcome::Refused { reason, detail } => ("refused", Some(*reason), Some(cut(detail, MAX_DETAIL))),
    }
}

/// At most `max` bytes of `text`, in whole characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// IPv4 addresses of dual-stack sockets are written as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

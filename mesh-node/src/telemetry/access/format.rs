//! Access records as text and as JSON.
//!
//! In:  a record.
//! Out: one line with its newline, of bounded length.
//! Invariant: no text from outside can begin a second line or pass for another field.

use super::{Outcome, Record};
use crate::snapshot::WorkloadLabels;
use crate::telemetry::{Security, timestamp};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

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
    bytes_sent: u64,
    bytes_received: u64,
    duration_ms: f64,
    response_flags: &'static str,
}

struct Principal<'a>(&'a str);

impl Serialize for Principal<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("spiffe://{}", self.0))
    }
}

/// `record` as one JSON object and a newline.
pub(super) fn json(record: &Record<'_>) -> Vec<u8> {
    let (outcome, reason, detail) = outcome(record);
    let (source, destination) = (record.source_labels, record.destination_labels);
    let line = Json {
        time: timestamp(record.time),
        side: record.side.name(),
        outcome,
        reason,
        detail,
        source_address: canonical(record.source),
        source_workload: source.map(|labels| labels.workload.as_str()),
        source_namespace: source.map(|labels| labels.namespace.as_str()),
        source_principal: proved(record, source),
        destination_address: canonical(record.destination),
        destination_service: record.service.map(|service| service.host.as_str()),
        upstream_address: record.upstream.map(canonical),
        destination_workload: destination.map(|labels| labels.workload.as_str()),
        destination_namespace: destination.map(|labels| labels.namespace.as_str()),
        destination_principal: proved(record, destination),
        connection_security_policy: record.security.policy(),
        bytes_sent: record.bytes_sent,
        bytes_received: record.bytes_received,
        duration_ms: milliseconds(record),
        response_flags: record.flags,
    };
    let mut buffer = Vec::with_capacity(USUAL_LINE);
    serde_json::to_writer(&mut buffer, &line).expect("plain fields are valid JSON and memory takes every byte");
    buffer.push(b'\n');
    buffer
}

/// `record` as one readable line and a newline.
pub(super) fn text(record: &Record<'_>) -> Vec<u8> {
    let mut line = String::with_capacity(USUAL_LINE);
    write_text(record, &mut line).expect("memory takes every character");
    line.push('\n');
    line.into_bytes()
}

fn write_text(record: &Record<'_>, line: &mut String) -> fmt::Result {
    let (outcome, reason, detail) = outcome(record);
    write!(line, "{} {} {outcome}", timestamp(record.time), record.side.name())?;
    if let Some(reason) = reason {
        write!(line, " reason={reason}")?;
    }
    let service = record.service.map(|service| Cow::Borrowed(service.host.as_str()));
    let (source, destination) = (record.source_labels, record.destination_labels);
    write_party(line, "source", record.source, source.map(workload))?;
    write_party(line, "destination", record.destination, service)?;
    match record.upstream {
        Some(upstream) => write_party(line, "upstream", upstream, destination.map(workload))?,
        None => line.push_str(" upstream=-"),
    }
    for (key, labels) in [("source_principal", source), ("destination_principal", destination)] {
        if let Some(Principal(principal)) = proved(record, labels) {
            write!(line, " {key}={}", quoted(&format!("spiffe://{principal}")))?;
        }
    }
    write!(
        line,
        " security={} sent={} received={} duration={:.3}ms flags={}",
        record.security.policy(),
        record.bytes_sent,
        record.bytes_received,
        milliseconds(record),
        record.flags,
    )?;
    match detail {
        Some(detail) if !detail.is_empty() => write!(line, " detail={detail:?}"),
        Some(_) | None => Ok(()),
    }
}

fn write_party(line: &mut String, key: &str, address: SocketAddr, name: Option<Cow<'_, str>>) -> fmt::Result {
    write!(line, " {key}={}", canonical(address))?;
    match name {
        Some(name) => write!(line, "({})", quoted(&name)),
        None => Ok(()),
    }
}

fn workload(labels: &WorkloadLabels) -> Cow<'_, str> {
    Cow::Owned(format!("{}/{}", labels.namespace, labels.workload))
}

/// A principal is said of a connection only where it was proved.
fn proved<'a>(record: &Record<'_>, labels: Option<&'a WorkloadLabels>) -> Option<Principal<'a>> {
    match record.security {
        Security::MutualTls => labels.map(|labels| Principal(&labels.principal)),
        Security::Plain | Security::Unknown => None,
    }
}

fn outcome<'a>(record: &'a Record<'_>) -> (&'static str, Option<&'static str>, Option<&'a str>) {
    match &record.outcome {
        Outcome::Closed => ("closed", None, None),
        Outcome::Refused { reason, detail } => {
            ("refused", Some(*reason), Some(&detail[..detail.floor_char_boundary(MAX_DETAIL)]))
        }
    }
}

/// IPv4 addresses of dual-stack sockets are written as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Names as they are when they are plain, else quoted with escapes.
fn quoted(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':');
    if !text.is_empty() && text.bytes().all(plain) { Cow::Borrowed(text) } else { Cow::Owned(format!("{text:?}")) }
}

fn milliseconds(record: &Record<'_>) -> f64 {
    (record.duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

//! One record for each HTTP request, when its response has ended or it was refused.
//!
//! In:  a [`HttpRecord`] from the proxy.
//! Out: one line with its newline, as text or JSON, of a few KiB at most whatever clients and servers send.
//! Invariant: no text from outside can begin a second line or pass for another field.
//! Source: the fields are those of Istio's default access log for HTTP, where the mesh has them.

#[cfg(test)]
mod tests;

use super::format::{Parties, begun, cut, ended, json_line, milliseconds, outcome};
use super::{Outcome, Security, Side};
use crate::snapshot::http::RouteOrigin;
use crate::snapshot::{ServiceName, WorkloadLabels};
use crate::telemetry::http::GrpcStatus;
use crate::telemetry::timestamp;
use crate::telemetry::trace::TraceId;
use http::{HeaderValue, Method, Version};
use serde::Serialize;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Longer paths are cut, in bytes; their length is in the record.
pub const MAX_PATH: usize = 1024;

/// Longer headers, authorities and methods are cut, in bytes.
pub const MAX_HEADER: usize = 256;

/// What is usual; a longer line grows its buffer.
const USUAL_LINE: usize = 1280;

/// What is known of a request at its end.
///
/// **Shape**: sent and received are as the client is served: `bytes_sent` are those of the response's body,
/// `bytes_received` those of the request's; the same on both sides.
#[derive(Clone, Debug)]
pub struct HttpRecord<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// Which proxy speaks.
    pub side: Side,
    /// How it ended: [`Outcome::Closed`] if the upstream answered and everything was passed on.
    pub outcome: Outcome,
    /// Who dialled.
    pub source: SocketAddr,
    /// What was dialled: the original destination.
    pub destination: SocketAddr,
    /// Which endpoint was asked last, if it came to that.
    pub upstream: Option<SocketAddr>,
    /// The key of the upstream that it is of.
    pub upstream_key: Option<&'a str>,
    /// The workload that dialled, if it is known.
    pub source_labels: Option<&'a WorkloadLabels>,
    /// The workload that was asked, if it is known.
    pub destination_labels: Option<&'a WorkloadLabels>,
    /// The service that was asked, if it is known.
    pub service: Option<&'a ServiceName>,
    /// How it was protected.
    pub security: Security,
    /// The rule that routed it, if one did.
    pub route: Option<&'a RouteOrigin>,
    /// The method.
    pub method: &'a Method,
    /// `:authority` or `Host`; empty if there was none.
    pub authority: &'a str,
    /// The path and query, as the client sent them.
    pub path: &'a str,
    /// The version in which the client spoke.
    pub version: Version,
    /// The status that the client got; 0 if it went before it got any.
    pub status: u16,
    /// The status of gRPC, if it came to one.
    pub grpc: Option<GrpcStatus>,
    /// Istio's response flags; `-` for none.
    pub flags: &'static str,
    /// Bytes of the response's body.
    pub bytes_sent: u64,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// From its first byte to the last of its response.
    pub duration: Duration,
    /// From its first byte to the head of the upstream's response, if one came.
    pub first_byte: Option<Duration>,
    /// How often it was sent to an upstream: 0 if the mesh answered, more than 1 if it was sent again.
    pub attempts: u32,
    /// `x-request-id`.
    pub request_id: Option<&'a HeaderValue>,
    /// The trace that it is of.
    pub trace: Option<TraceId>,
    /// `user-agent`.
    pub user_agent: Option<&'a HeaderValue>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<&'a HeaderValue>,
}

/// The keys of a JSON record. All are always there: null means unknown or not applicable.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    side: &'static str,
    outcome: &'static str,
    reason: Option<&'static str>,
    detail: Option<&'a str>,
    protocol: &'static str,
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    path_length: usize,
    response_code: u16,
    grpc_status: Option<u8>,
    response_flags: &'static str,
    #[serde(flatten)]
    parties: Parties<'a>,
    upstream_key: Option<&'a str>,
    route: Option<String>,
    attempts: u32,
    bytes_sent: u64,
    bytes_received: u64,
    duration_ms: f64,
    upstream_first_byte_ms: Option<f64>,
    request_id: Option<Cow<'a, str>>,
    trace_id: Option<String>,
    user_agent: Option<Cow<'a, str>>,
    x_forwarded_for: Option<Cow<'a, str>>,
}

/// `record` as one JSON object and a newline.
pub(super) fn json(record: &HttpRecord<'_>) -> Vec<u8> {
    let (outcome, reason, detail) = outcome(&record.outcome, "served");
    let line = Json {
        time: timestamp(record.time),
        side: record.side.name(),
        outcome,
        reason,
        detail,
        protocol: protocol(record.version),
        method: cut(record.method.as_str(), MAX_HEADER),
        authority: cut(record.authority, MAX_HEADER),
        path: cut(record.path, MAX_PATH),
        path_length: record.path.len(),
        response_code: record.status,
        grpc_status: record.grpc.map(GrpcStatus::code),
        response_flags: record.flags,
        parties: record.parties(),
        upstream_key: record.upstream_key.map(|key| cut(key, MAX_HEADER)),
        route: record.route.map(route),
        attempts: record.attempts,
        bytes_sent: record.bytes_sent,
        bytes_received: record.bytes_received,
        duration_ms: milliseconds(record.duration),
        upstream_first_byte_ms: record.first_byte.map(milliseconds),
        request_id: record.request_id.map(header),
        trace_id: record.trace.map(|trace| trace.to_string()),
        user_agent: record.user_agent.map(header),
        x_forwarded_for: record.forwarded_for.map(header),
    };
    json_line(&line, USUAL_LINE)
}

/// `record` as one readable line and a newline.
pub(super) fn text(record: &HttpRecord<'_>) -> Vec<u8> {
    let (outcome, reason, detail) = outcome(&record.outcome, "served");
    let mut line = begun((record.time, record.side), (outcome, reason), USUAL_LINE);
    // The request as it began, which people look for first.
    let (method, path) = (cut(record.method.as_str(), MAX_HEADER), cut(record.path, MAX_PATH));
    line.text(" request=").quoted(&[method, " ", path, " ", protocol(record.version)]);
    line.text(" authority=").name(&[cut(record.authority, MAX_HEADER)]);
    if record.path.len() > MAX_PATH {
        line.text(" path_length=").number(record.path.len().try_into().unwrap_or(u64::MAX));
    }
    line.text(" code=").number(record.status.into());
    if let Some(grpc) = record.grpc {
        line.text(" grpc=").text(grpc.text());
    }
    line.text(" flags=").text(record.flags);
    record.parties().write_text(&mut line);
    if let Some(key) = record.upstream_key {
        line.text(" upstream_key=").name(&[cut(key, MAX_HEADER)]);
    }
    if let Some(origin) = record.route {
        line.text(" route=").quoted(&[&route(origin)]);
    }
    line.text(" attempts=").number(record.attempts.into());
    line.text(" sent=").number(record.bytes_sent).text(" received=").number(record.bytes_received);
    line.text(" duration=").milliseconds(record.duration).text("ms");
    if let Some(first_byte) = record.first_byte {
        line.text(" first_byte=").milliseconds(first_byte).text("ms");
    }
    let headers = [
        (" request_id=", record.request_id),
        (" user_agent=", record.user_agent),
        (" x_forwarded_for=", record.forwarded_for),
    ];
    for (key, value) in headers {
        if let Some(value) = value {
            line.text(key).name(&[&header(value)]);
        }
    }
    if let Some(trace) = record.trace {
        line.text(" trace_id=").text(&trace.to_string());
    }
    ended(line, detail)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP",
    }
}

/// A rule, as records name it.
pub(super) fn route(origin: &RouteOrigin) -> String {
    let mut text = format!("{} {}", origin.object, origin.rule);
    text.truncate(text.floor_char_boundary(MAX_HEADER));
    text
}

/// A header as text: what is no UTF-8 in it is replaced.
fn header(value: &HeaderValue) -> Cow<'_, str> {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_HEADER)])
}

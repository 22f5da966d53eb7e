//! A span in the JSON form of OTLP.
//!
//! In:  the ids of a span and the record of its request.
//! Out: [`Span`], encoded, and with it what it is a span of.
//! Invariant: a span takes a few KiB at most, whatever clients and servers send.
//! Source: OTLP 1.x, "JSON Protobuf Encoding"; OpenTelemetry semantic conventions for HTTP and gRPC spans; Istio's names
//! of spans and its tags `istio.*`, `guid:x-request-id`, `response_flags` and `upstream_cluster`.

use super::SpanContext;
use super::context::Ids;
use crate::snapshot::WorkloadLabels;
use crate::telemetry::Side;
use crate::telemetry::access::http::{HttpRecord, MAX_HEADER, MAX_PATH};
use crate::telemetry::access::{Outcome, Security};
use http::{HeaderValue, Method, Version};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// Where all spans of this daemon are from.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) node: String,
    pub(super) cluster: String,
}

/// A span that has ended.
#[derive(Debug)]
pub(super) struct Span {
    /// Whose span it is: the attributes of a resource. Equal ones are posted together.
    pub(super) resource: String,
    /// The span.
    pub(super) json: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Attributes,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    message: String,
    code: u8,
}

/// `SPAN_KIND_SERVER` and `SPAN_KIND_CLIENT`.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

#[derive(Default, Serialize)]
#[serde(transparent)]
struct Attributes(Vec<Attribute>);

#[derive(Serialize)]
struct Attribute {
    key: &'static str,
    value: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value {
    StringValue(String),
    /// In decimal: 64 bits do not fit into the numbers of JSON.
    IntValue(String),
}

impl Attributes {
    fn text(&mut self, key: &'static str, text: &str) {
        self.long_text(key, text, MAX_HEADER);
    }

    fn long_text(&mut self, key: &'static str, text: &str, max: usize) {
        if !text.is_empty() {
            let text = text[..text.floor_char_boundary(max)].to_owned();
            self.0.push(Attribute { key, value: Value::StringValue(text) });
        }
    }

    fn header(&mut self, key: &'static str, header: Option<&HeaderValue>) {
        if let Some(header) = header {
            let bytes = header.as_bytes();
            self.text(key, &String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_HEADER)]));
        }
    }

    fn number(&mut self, key: &'static str, number: impl Into<u64>) {
        self.0.push(Attribute { key, value: Value::IntValue(number.into().to_string()) });
    }
}

impl Span {
    pub(super) fn new(places: &Places, context: &SpanContext, ids: &Ids, record: &HttpRecord<'_>) -> Self {
        let (own, kind) = match context.side {
            Side::Outbound => (record.source_labels, CLIENT),
            Side::Inbound => (record.destination_labels, SERVER),
        };
        let span = Json {
            trace_id: ids.trace.to_string(),
            span_id: ids.span.to_string(),
            parent_span_id: ids.parent.map(|parent| parent.to_string()),
            name: name(record),
            kind,
            start_time_unix_nano: nanos(context.started),
            // Clocks may be set back; a span does not end before it begins.
            end_time_unix_nano: nanos(record.time.max(context.started)),
            attributes: attributes(places, context, own, record),
            status: error(kind, record).map(|message| Status { message, code: ERROR }),
        };
        Self { resource: encoded(&resource(places, own)), json: encoded(&span) }
    }
}

fn encoded(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain fields are valid JSON")
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos().to_string()
}

/// As Istio names spans: by the service and its port. Few, whatever clients send.
fn name(record: &HttpRecord<'_>) -> String {
    let port = record.destination.port();
    match record.service {
        Some(service) => format!("{}:{port}/*", service.host),
        None => format!("{}:{port}/*", record.destination.ip().to_canonical()),
    }
}

fn resource(places: &Places, own: Option<&WorkloadLabels>) -> Attributes {
    let mut attributes = Attributes::default();
    match own {
        Some(own) => {
            attributes.text("service.name", &format!("{}.{}", own.canonical_service, own.namespace));
            attributes.text("service.version", &own.canonical_revision);
            attributes.text("k8s.namespace.name", &own.namespace);
        }
        None => attributes.text("service.name", "unknown"),
    }
    attributes.text("k8s.node.name", &places.node);
    attributes.text("k8s.cluster.name", &places.cluster);
    attributes
}

fn attributes(
    places: &Places,
    context: &SpanContext,
    own: Option<&WorkloadLabels>,
    record: &HttpRecord<'_>,
) -> Attributes {
    let mut all = Attributes::default();
    request(&mut all, context.side, record);
    response(&mut all, record);
    all.header("guid:x-request-id", Some(&context.request_id));
    if let Some(own) = own {
        all.text("istio.canonical_service", &own.canonical_service);
        all.text("istio.canonical_revision", &own.canonical_revision);
        all.text("istio.namespace", &own.namespace);
    }
    all.text("istio.cluster_id", &places.cluster);
    all.text("component", "proxy");
    all.text("connection_security_policy", record.security.policy());
    if record.security == Security::MutualTls {
        for (key, labels) in
            [("source.principal", record.source_labels), ("destination.principal", record.destination_labels)]
        {
            if let Some(labels) = labels {
                all.text(key, &format!("spiffe://{}", labels.principal));
            }
        }
    }
    all
}

fn request(all: &mut Attributes, side: Side, record: &HttpRecord<'_>) {
    if known(record.method) {
        all.text("http.request.method", record.method.as_str());
    } else {
        all.text("http.request.method", "_OTHER");
        all.text("http.request.method_original", record.method.as_str());
    }
    let (path, query) = record.path.split_once('?').unwrap_or((record.path, ""));
    let peer = match side {
        Side::Outbound => {
            let host = record.service.map_or("", |service| &service.host);
            let host = if record.authority.is_empty() { host } else { record.authority };
            all.long_text("url.full", &format!("http://{host}{}", record.path), MAX_PATH);
            record.upstream
        }
        Side::Inbound => {
            all.text("url.scheme", "http");
            all.long_text("url.path", path, MAX_PATH);
            all.long_text("url.query", query, MAX_PATH);
            all.text("client.address", &record.source.ip().to_canonical().to_string());
            Some(record.source)
        }
    };
    let destination = record.destination.ip().to_canonical().to_string();
    all.text("server.address", record.service.map_or(&destination, |service| &service.host));
    all.number("server.port", record.destination.port());
    if let Some(peer) = peer {
        all.text("network.peer.address", &peer.ip().to_canonical().to_string());
        all.number("network.peer.port", peer.port());
    }
    let version = match record.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "",
    };
    all.text("network.protocol.version", version);
    all.header("user_agent.original", record.user_agent);
    all.number("http.request.body.size", record.bytes_received);
}

fn response(all: &mut Attributes, record: &HttpRecord<'_>) {
    if record.status != 0 {
        all.number("http.response.status_code", record.status);
    }
    if let Some(grpc) = record.grpc {
        all.text("rpc.system", "grpc");
        all.number("rpc.grpc.status_code", grpc.code());
    }
    all.number("http.response.body.size", record.bytes_sent);
    all.text("response_flags", record.flags);
    all.text("upstream_cluster", record.upstream_key.unwrap_or_default());
    if record.attempts > 1 {
        all.number("http.request.resend_count", record.attempts - 1);
    }
    if let Some(route) = record.route {
        all.text("mesh.route", &format!("{} {}", route.object, route.rule));
    }
    match &record.outcome {
        Outcome::Refused { reason, .. } => all.text("error.type", reason),
        Outcome::Closed if record.status >= 500 => all.text("error.type", &record.status.to_string()),
        Outcome::Closed => {}
    }
}

/// The methods that the semantic conventions know; any other would make a series of its own.
fn known(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ]
    .contains(method)
}

/// Why the span is one of an error; `None` if it is none.
///
/// **Source**: semantic conventions: a status of 4xx is the client's error alone, and of gRPC's statuses these are the
/// server's.
fn error(kind: u8, record: &HttpRecord<'_>) -> Option<String> {
    if let Outcome::Refused { reason, detail } = &record.outcome {
        let mut text = format!("{reason}: {detail}");
        text.truncate(text.floor_char_boundary(MAX_HEADER));
        return Some(text);
    }
    let least = if kind == CLIENT { 400 } else { 500 };
    if record.status >= least {
        return Some(String::new());
    }
    let code = record.grpc?.code();
    (code != 0 && (kind == CLIENT || matches!(code, 2 | 4 | 12 | 13 | 14 | 15))).then(|| format!("grpc status {code}"))
}

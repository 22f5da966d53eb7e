//! Istio's standard metrics of HTTP requests.
//!
//! In:  what the proxy records on an [`HttpEdge`]: one pair of workloads and one kind of answer, as one side sees it.
//! Out: `istio_requests_total`, `istio_request_duration_milliseconds`, `istio_{request,response}_bytes` and, of gRPC,
//!   `istio_{request,response}_messages_total`.
//! Invariant: beyond the ceiling one edge per side, security, protocol and class of status, so that rates of errors stay
//!   true. An edge takes some 700 bytes.
//! Source: Istio "Standard Metrics"; Envoy's default buckets for histograms; gRPC "Status codes and their use".

mod histogram;
#[cfg(test)]
mod tests;

pub use super::edges::{EdgeLabels, Settings};
pub use histogram::Histogram;

use super::edges::{Count, EdgeKey, EdgeMetrics, Labels};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Every edge of this node over which HTTP was carried.
pub type HttpMetrics = EdgeMetrics<HttpEdgeLabels>;

/// What is spoken, as Istio's label `request_protocol` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP of any version.
    Http,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// As metrics, logs and spans write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    /// What a request with this content type speaks.
    ///
    /// **Source**: gRPC over HTTP/2, "Content-Type".
    #[must_use]
    pub fn of(content_type: Option<&::http::HeaderValue>) -> Self {
        let rest = content_type.and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
        match rest {
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            Some(_) | None => Self::Http,
        }
    }
}

/// A status of gRPC: 0 (OK) to 16 (UNAUTHENTICATED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcStatus(u8);

/// The words for statuses of gRPC, as a label writes them.
const GRPC: [&str; 17] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];

impl GrpcStatus {
    /// What stands for every status that is none.
    pub const UNKNOWN: Self = Self(2);

    /// Reads the header or trailer `grpc-status`; whatever is no status is UNKNOWN, as clients of gRPC take it.
    #[must_use]
    pub fn parse(value: &::http::HeaderValue) -> Self {
        let known = GRPC.iter().zip(0..).find(|(word, _)| value.as_bytes() == word.as_bytes());
        known.map_or(Self::UNKNOWN, |(_, code)| Self(code))
    }

    /// Its number.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }

    /// Its number in decimal.
    #[must_use]
    pub fn text(self) -> &'static str {
        GRPC[usize::from(self.0)]
    }
}

/// Tells one edge from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpEdgeLabels {
    /// What all edges are told apart by.
    pub edge: EdgeLabels,
    /// What is spoken.
    pub protocol: Protocol,
    /// The status that the client got; 0 if it went before it got any.
    pub status: u16,
    /// The status of gRPC, if it came to one.
    pub grpc: Option<GrpcStatus>,
}

/// One request and its response, when both have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// Messages of gRPC in the request; 0 for other protocols.
    pub request_messages: u64,
    /// Messages of gRPC in the response.
    pub response_messages: u64,
}

/// The counters of one edge.
#[derive(Debug, Default)]
pub struct HttpEdge {
    /// Durations, of which there is one for each request; observed in microseconds.
    duration: Histogram<1000>,
    request_bytes: Histogram<1>,
    response_bytes: Histogram<1>,
    request_messages: Count,
    response_messages: Count,
}

impl HttpEdge {
    /// Counts a request and its response. Takes no lock.
    pub fn record(&self, exchange: &Exchange) {
        self.duration.observe(u64::try_from(exchange.duration.as_micros()).unwrap_or(u64::MAX));
        self.request_bytes.observe(exchange.request_bytes);
        self.response_bytes.observe(exchange.response_bytes);
        if exchange.request_messages > 0 {
            self.request_messages.inc_by(exchange.request_messages);
        }
        if exchange.response_messages > 0 {
            self.response_messages.inc_by(exchange.response_messages);
        }
    }

    /// How many requests there were.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.duration.count()
    }
}

/// Writes one family of an edge: name, help, kind, and what is written of an edge.
type Family = (&'static str, &'static str, Value);

/// What is written of an edge.
enum Value {
    Requests,
    Messages(fn(&HttpEdge) -> &Count),
    Duration,
    Bytes(fn(&HttpEdge) -> &Histogram<1>),
}

const FAMILIES: [Family; 6] = [
    ("istio_requests", "HTTP requests", Value::Requests),
    ("istio_request_duration_milliseconds", "How long HTTP requests took", Value::Duration),
    ("istio_request_bytes", "Bytes of the bodies of HTTP requests", Value::Bytes(|edge| &edge.request_bytes)),
    ("istio_response_bytes", "Bytes of the bodies of HTTP responses", Value::Bytes(|edge| &edge.response_bytes)),
    ("istio_request_messages", "gRPC messages of clients", Value::Messages(|edge| &edge.request_messages)),
    ("istio_response_messages", "gRPC messages of servers", Value::Messages(|edge| &edge.response_messages)),
];

impl EdgeKey for HttpEdgeLabels {
    type Counters = HttpEdge;

    const NAMES: [&'static str; 2] = ["mesh_telemetry_http_edges", "mesh_telemetry_http_edges_overflow"];

    fn labels(&mut self) -> &mut EdgeLabels {
        &mut self.edge
    }

    fn overflow(&self) -> Self {
        let class = if (100..1000).contains(&self.status) { self.status / 100 * 100 } else { 0 };
        Self { edge: self.edge.beyond_ceiling(), protocol: self.protocol, status: class, grpc: None }
    }

    fn encode(
        edges: &[(Self, Arc<HttpEdge>)],
        cluster: &str,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        for (name, help, value) in FAMILIES {
            let kind = match value {
                Value::Requests | Value::Messages(_) => MetricType::Counter,
                Value::Duration | Value::Bytes(_) => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            // As with Istio, a series begins with its first event, and messages are those of gRPC.
            let of_all = !matches!(value, Value::Messages(_));
            for (key, counters) in edges.iter().filter(|(_, counters)| counters.requests() > 0) {
                if !of_all && key.protocol != Protocol::Grpc {
                    continue;
                }
                let answer = Some((key.status, key.grpc.map_or("", GrpcStatus::text)));
                let labels = Labels { cluster, edge: &key.edge, protocol: key.protocol.name(), answer };
                let metric = family.encode_family(&labels)?;
                match value {
                    Value::Requests => ConstCounter::new(counters.requests()).encode(metric)?,
                    Value::Messages(count) => ConstCounter::new(count(counters).value()).encode(metric)?,
                    Value::Duration => counters.duration.encode(metric)?,
                    Value::Bytes(histogram) => histogram(counters).encode(metric)?,
                }
            }
        }
        Ok(())
    }
}

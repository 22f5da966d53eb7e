//! Traces: what requests say of them, and this mesh's own spans.
//!
//! In:  the headers of a request, later the record of how it went.
//! Out: headers for the upstream; spans, which `export` posts to a collector of OpenTelemetry.
//! Invariant: traffic never waits: a span that does not fit into the queue is dropped and counted.
//! Invariant: the mesh puts its own spans into traces only where it exports them. Elsewhere a trace passes with the ids
//!   that it came with, so that none points to a parent which nobody ever sees.
//! Source: W3C Trace Context; B3 propagation; OpenTelemetry protocol (OTLP) 1.x.

mod context;
mod export;
mod settings;
mod span;
#[cfg(test)]
pub(super) mod tests;

pub use context::{SpanId, TraceId};
pub use settings::{Endpoint, EndpointError, Percent, PercentError};

use super::access::HttpRecord;
use super::{Metrics, Side, TelemetryError};
use context::{Extracted, Ids, extract};
use export::Queue;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, SystemTime};

/// Tells a request from every other, in logs and traces.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How requests are traced.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The collector; without one the mesh has no spans of its own.
    pub endpoint: Option<Endpoint>,
    /// The share of requests that are traced when they do not say themselves whether to.
    pub sampling: Percent,
    /// This node's name.
    pub node: String,
    /// The cluster's name.
    pub cluster: String,
}

/// Begins and ends spans. Clones share the queue to the collector.
#[derive(Clone)]
pub struct Tracer {
    /// `None` without a collector.
    queue: Option<Queue>,
    sampling: Percent,
    places: std::sync::Arc<span::Places>,
}

impl Tracer {
    /// Begins to export, on the runtime of the caller, if there is a collector.
    ///
    /// **Errors**: the roots by which a collector's certificate is judged cannot be read.
    pub fn start(settings: Settings, metrics: &Metrics) -> Result<Self, TelemetryError> {
        let Settings { endpoint, sampling, node, cluster } = settings;
        let queue = endpoint.map(|endpoint| export::start(endpoint, metrics)).transpose()?;
        Ok(Self { queue, sampling, places: span::Places { node, cluster }.into() })
    }

    /// The span of a request, by the headers with which it came to this side of the mesh at `now`.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, side: Side, now: SystemTime) -> SpanContext {
        let extracted = extract(headers);
        let ids = match &self.queue {
            Some(_) => {
                let sampled = extracted.sampled.unwrap_or_else(|| self.sampling.draw());
                Some(extracted.child(sampled))
            }
            None => extracted.same(),
        };
        let known = headers.get(&REQUEST_ID).filter(|value| !value.is_empty());
        let request_id = known.cloned().unwrap_or_else(new_request_id);
        SpanContext { ids, own: self.queue.is_some(), origin: extracted, side, started: now, request_id }
    }

    /// Ends a span: exports it, with what `record` says, if it was sampled. Otherwise nothing is done.
    pub fn finish(&self, context: &SpanContext, record: &HttpRecord<'_>) {
        let (Some(queue), Some(ids)) = (&self.queue, &context.ids) else { return };
        if context.own && ids.sampled {
            queue.push(span::Span::new(&self.places, context, ids, record));
        }
    }

    /// Waits until every span that ended before has been posted or given up, at most `patience`; returns whether it
    /// has.
    ///
    /// **Cancel**: safe.
    pub async fn flush(&self, patience: Duration) -> bool {
        match &self.queue {
            Some(queue) => tokio::time::timeout(patience, queue.flush()).await.is_ok(),
            None => true,
        }
    }
}

/// The span of one request, and what its headers were.
#[derive(Clone, Debug)]
pub struct SpanContext {
    /// `None` if the request is of no trace.
    ids: Option<Ids>,
    /// Is the span one of this mesh?
    own: bool,
    origin: Extracted,
    side: Side,
    started: SystemTime,
    request_id: HeaderValue,
}

impl SpanContext {
    /// Writes the request id, and the trace in both forms, into the headers of the forwarded request. May be called
    /// again for another attempt. Where the mesh has no spans of its own, only the form that was not there is written.
    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.insert(&REQUEST_ID, self.request_id.clone());
        match &self.ids {
            Some(ids) if self.own || !self.origin.has_both() => ids.inject(&self.origin, headers),
            Some(_) | None => {}
        }
    }

    /// The trace that the request is of.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        self.ids.as_ref().map(|ids| ids.trace).or(self.origin.parent.map(|(trace, _)| trace))
    }

    /// The span that the upstream sees as its parent.
    #[must_use]
    pub fn span_id(&self) -> Option<SpanId> {
        self.ids.as_ref().map(|ids| ids.span)
    }

    /// Will whoever exports spans export those of this request?
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.ids.as_ref().is_some_and(|ids| ids.sampled)
    }

    /// `x-request-id`, as it came or as it was made.
    #[must_use]
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }
}

/// A random UUID.
///
/// **Source**: RFC 9562, section 5.4.
fn new_request_id() -> HeaderValue {
    let random = fastrand::u128(..);
    let random = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{random:032x}");
    let text = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    HeaderValue::try_from(text).expect("hexadecimal digits and dashes are valid in headers")
}

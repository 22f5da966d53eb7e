//! Posts spans to a collector.
//!
//! In:  spans, through a bounded queue.
//! Out: OTLP over HTTP, in JSON.
//! Invariant: nobody waits for the collector: what does not fit into the queue, or what the collector does not take, is
//!   dropped and counted.
//! Source: OTLP 1.x, "OTLP/HTTP": which answers mean that the same may be sent again, `Retry-After`, `partialSuccess`.

use super::settings::Endpoint;
use super::span::Span;
use crate::telemetry::{self, Metrics, TelemetryError, explain};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Spans that may wait to be posted; at some 2 KiB each, 4 MiB.
pub(super) const QUEUE: usize = 2048;

/// Spans that are posted at once.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a batch is posted before it is given up.
const ATTEMPTS: u32 = 4;

/// The pause before the second attempt; it doubles from one to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause that a collector may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The way to the collector. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    messages: mpsc::Sender<Message>,
    dropped: Dropped,
}

enum Message {
    Span(Span),
    /// Tells when everything before it is done with.
    Flush(oneshot::Sender<()>),
}

/// Spans that no collector has, by reason.
#[derive(Clone, Default)]
struct Dropped(Family<[(&'static str, &'static str); 1], Counter>);

impl Dropped {
    fn add(&self, reason: &'static str, count: u64) {
        self.0.get_or_create(&[("reason", reason)]).inc_by(count);
    }
}

/// Begins to export, on the runtime of the caller.
///
/// **Errors**: the roots by which a collector's certificate is judged cannot be read.
pub(super) fn start(endpoint: Endpoint, metrics: &Metrics) -> Result<Queue, TelemetryError> {
    let (messages, queued) = mpsc::channel(QUEUE);
    let (exported, dropped) = (Counter::default(), Dropped::default());
    metrics.register(|registry| {
        let help = "Spans that the collector has taken";
        registry.register("mesh_telemetry_spans_exported", help, exported.clone());
        let help = "Spans that were given up, by reason";
        registry.register("mesh_telemetry_spans_dropped", help, dropped.0.clone());
    });
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector(&endpoint)?);
    let exporter =
        Exporter { client, collector: endpoint.traces, queued, exported, dropped: dropped.clone(), well: true };
    telemetry::spawn("spans", exporter.run());
    Ok(Queue { messages, dropped })
}

fn connector(endpoint: &Endpoint) -> Result<HttpsConnector<HttpConnector>, TelemetryError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(PATIENCE));
    let builder = HttpsConnectorBuilder::new();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = if endpoint.traces.scheme_str() == Some("https") {
        builder.with_provider_and_native_roots(provider).map_err(TelemetryError::Roots)?.https_only()
    } else {
        // Of no use, but there: a machine without any roots can post in plain text.
        let tls = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
        let tls = tls.expect("the provider has both versions of TLS");
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        builder.with_tls_config(tls).https_or_http()
    };
    Ok(builder.enable_http1().wrap_connector(tcp))
}

impl Queue {
    /// Hands over a span; drops and counts it when the queue is full.
    pub(super) fn push(&self, span: Span) {
        if self.messages.try_send(Message::Span(span)).is_err() {
            self.dropped.add("queue_full", 1);
        }
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.messages.send(Message::Flush(done)).await.is_ok() {
            // An exporter that is gone has nothing left.
            let _exporter_gone = flushed.await;
        }
    }
}

/// The task that posts; it ends with the last [`Queue`].
struct Exporter {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    collector: Uri,
    queued: mpsc::Receiver<Message>,
    exported: Counter,
    dropped: Dropped,
    /// Did the collector take the last batch?
    well: bool,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the collector did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the collector answered {status}")]
    Refused { status: StatusCode, retry_after: Option<Duration> },
}

impl ExportError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Silent => "unreachable",
            Self::Refused { .. } => "refused",
        }
    }

    /// How long to wait before the same may be posted again; `None` if it would be refused again.
    fn pause(&self, usual: Duration) -> Option<Duration> {
        match self {
            Self::Unreachable(_) | Self::Silent => Some(usual),
            Self::Refused { status, retry_after } => matches!(status.as_u16(), 429 | 502 | 503 | 504)
                .then(|| retry_after.map_or(usual, |asked| asked.min(MAX_PAUSE))),
        }
    }
}

impl Exporter {
    async fn run(mut self) {
        while let Some(message) = self.queued.recv().await {
            let mut flushed = None;
            match message {
                Message::Flush(done) => flushed = Some(done),
                Message::Span(first) => {
                    let (batch, flush) = self.gather(first).await;
                    flushed = flush.or(flushed);
                    self.export(&batch).await;
                }
            }
            if let Some(done) = flushed {
                // Whoever asked may have lost patience.
                let _gone = done.send(());
            }
        }
    }

    /// A batch that begins with `first`, and whoever waits for its end.
    async fn gather(&mut self, first: Span) -> (Vec<Span>, Option<oneshot::Sender<()>>) {
        let deadline = Instant::now() + LINGER;
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match timeout_at(deadline, self.queued.recv()).await {
                Ok(Some(Message::Span(span))) => batch.push(span),
                Ok(Some(Message::Flush(done))) => return (batch, Some(done)),
                Ok(None) | Err(_) => break,
            }
        }
        (batch, None)
    }

    async fn export(&mut self, batch: &[Span]) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let document = Bytes::from(document(batch));
        let mut pause = PAUSE;
        for attempt in 1.. {
            let error = match self.post(document.clone()).await {
                Ok(rejected) => {
                    self.exported.inc_by(count.saturating_sub(rejected));
                    if rejected > 0 {
                        self.dropped.add("rejected", rejected);
                    }
                    if !self.well {
                        tracing::info!(collector = %self.collector, "spans are exported again");
                    }
                    self.well = true;
                    return;
                }
                Err(error) => error,
            };
            if self.well {
                tracing::warn!(collector = %self.collector, "cannot export spans: {}", explain(&error));
                self.well = false;
            }
            match error.pause(pause) {
                Some(pause) if attempt < ATTEMPTS => sleep(pause).await,
                Some(_) | None => {
                    self.dropped.add(error.reason(), count);
                    return;
                }
            }
            pause *= 2;
        }
    }

    /// Posts a document; returns how many of its spans the collector rejected.
    async fn post(&self, document: Bytes) -> Result<u64, ExportError> {
        let mut request = Request::new(Full::new(document));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.collector.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = HeaderValue::from_static(concat!("mesh-node/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let exchange = async {
            let response =
                self.client.request(request).await.map_err(|error| ExportError::Unreachable(Box::new(error)))?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let retry_after = seconds.map(Duration::from_secs);
                return Err(ExportError::Refused { status: head.status, retry_after });
            }
            // It was taken, whatever the rest of the answer is.
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            Ok(body.map_or(0, |body| rejected(&body.to_bytes())))
        };
        timeout(PATIENCE, exchange).await.unwrap_or(Err(ExportError::Silent))
    }
}

/// An `ExportTraceServiceRequest` with these spans.
fn document(batch: &[Span]) -> String {
    let mut by_resource = BTreeMap::<&str, Vec<&str>>::new();
    for span in batch {
        by_resource.entry(&span.resource).or_default().push(&span.json);
    }
    let scope = concat!(r#"{"name":"mesh-node","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    let resources: Vec<String> = by_resource
        .iter()
        .map(|(resource, spans)| {
            let spans = spans.join(",");
            format!(
                r#"{{"resource":{{"attributes":{resource}}},"scopeSpans":[{{"scope":{scope},"spans":[{spans}]}}]}}"#
            )
        })
        .collect();
    format!(r#"{{"resourceSpans":[{}]}}"#, resources.join(","))
}

/// How many spans an answer says were rejected. A number of 64 bits, hence perhaps in quotes.
fn rejected(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0)
}

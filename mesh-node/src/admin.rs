//! What the daemon tells people and collectors about itself, over HTTP on loopback.
//!
//! In:  a [`Source`], which the control loop supplies.
//! Out: `/healthz`, `/readyz`, `/metrics`, `/debug/{world,model,snapshot,kernel,why}`.
//! Invariant: reachable over loopback and a socket of root's only, but for the metrics, which may have an address of their own;
//! nothing can be changed here, and nothing secret is shown.
//! Invariant: a slow or broken client costs one of a fixed number of connections for a limited time.
//! Source: RFC 9110, RFC 9112; OpenMetrics 1.0; Kubernetes probes.

mod listen;
pub mod status;
pub mod view;

pub use listen::{Listeners, listen};

#[cfg(test)]
mod tests;

use crate::route::matching::parameter;
use crate::telemetry::{self, Metrics};
use crate::why::{Answer, Question, WhyError};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use listen::Accept;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Connections served at once; further ones wait.
const MAX_CONNECTIONS: usize = 32;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For the header of its request.
    header: Duration,
    /// For all of its connection, which carries one request.
    whole: Duration,
}

const LIMITS: Limits = Limits { header: Duration::from_secs(5), whole: Duration::from_secs(30) };

/// The largest header of a request, in bytes.
const MAX_HEADER: usize = 16 * 1024;

/// The most header fields of a request.
const MAX_FIELDS: usize = 64;

/// The pause after a failure to accept, such as a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Every path that is served.
const PATHS: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/debug/world",
    "/debug/model",
    "/debug/snapshot",
    "/debug/kernel",
    "/debug/why",
];

/// What is served where others may ask.
const PUBLIC: [&str; 1] = ["/metrics"];

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The users' objects as they were read.
    World,
    /// What they mean.
    Model,
    /// What this node acts on.
    Snapshot,
    /// What is in the kernel.
    Kernel,
}

/// Supplies the answers. Called on threads that may block.
pub trait Source: Send + Sync + 'static {
    /// Is the daemon in force?
    ///
    /// **Errors**: what is still missing, each in a few words.
    fn ready(&self) -> Result<(), Vec<String>>;

    /// All metrics in the OpenMetrics text format.
    ///
    /// **Errors**: a metric could not be written.
    fn metrics(&self) -> Result<String, fmt::Error>;

    /// A look inside; see [`view`].
    fn debug(&self, what: What) -> serde_json::Value;

    /// Why something may speak with something, or may not.
    ///
    /// **Errors**: the question is not clear.
    fn why(&self, _question: &Question) -> Result<Answer, WhyError> {
        Err(WhyError::Elsewhere)
    }
}

/// Why the daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address can be reached from elsewhere.
    #[error(
        "the admin address {address} is not a loopback address; use 127.0.0.1 or [::1], since it needs no password"
    )]
    NotLoopback {
        /// As configured.
        address: SocketAddr,
    },
    /// The address could not be listened on.
    #[error("cannot listen on the admin address {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The socket could not be listened on.
    #[error("cannot listen at the admin socket {}", path.display())]
    Socket {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The listener could not be taken over by the runtime.
    #[error("cannot serve the admin listener")]
    Serve {
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Serves until the task is aborted, which closes the listeners; requests under way are then still answered.
///
/// **Errors**: the runtime does not take a listener.
/// **Panics**: outside a tokio runtime.
pub fn serve(listeners: Listeners, source: Arc<dyn Source>, metrics: &Metrics) -> Result<JoinHandle<()>, AdminError> {
    serve_within(listeners, source, metrics, LIMITS)
}

fn serve_within(
    listeners: Listeners,
    source: Arc<dyn Source>,
    metrics: &Metrics,
    limits: Limits,
) -> Result<JoinHandle<()>, AdminError> {
    let (admin, socket, public) = listeners.into_tokio().map_err(|source| AdminError::Serve { source })?;
    let server = Server { source, limits, errors: Errors::new(metrics), paths: &PATHS };
    let open = Server { paths: &PUBLIC, ..server.clone() };
    Ok(telemetry::spawn("admin", async move {
        tokio::join!(server.accept(Some(admin)), server.accept(socket), open.accept(public));
    }))
}

/// Connections that ended badly, by reason.
#[derive(Clone)]
struct Errors(Family<[(&'static str, &'static str); 1], Counter>);

impl Errors {
    fn new(metrics: &Metrics) -> Self {
        let errors = Self(Family::default());
        metrics.register(|registry| {
            let help = "Admin connections that could not be served to their end";
            registry.register("mesh_admin_connection_errors", help, errors.0.clone());
        });
        errors
    }

    fn count(&self, reason: &'static str) {
        self.0.get_or_create(&[("reason", reason)]).inc();
    }
}

/// What every connection shares.
#[derive(Clone)]
struct Server {
    source: Arc<dyn Source>,
    limits: Limits,
    errors: Errors,
    /// What is served.
    paths: &'static [&'static str],
}

impl Server {
    async fn accept(&self, listener: Option<impl Accept + Sync>) {
        let Some(listener) = listener else { return };
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok(stream) => {
                    let server = self.clone();
                    telemetry::spawn("admin connection", async move {
                        server.connection(stream).await;
                        drop(place);
                    });
                }
                Err(_) => {
                    self.errors.count("accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| {
            let (source, paths) = (Arc::clone(&self.source), self.paths);
            async move { Ok::<_, Infallible>(answer(&request, paths, source).await) }
        });
        let serve = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header)
            .max_buf_size(MAX_HEADER)
            .max_headers(MAX_FIELDS)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(self.limits.whole, serve).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_timeout() => self.errors.count("deadline"),
            Ok(Err(error)) if error.is_parse() => self.errors.count("not_http"),
            Ok(Err(_)) => self.errors.count("connection"),
            Err(_) => self.errors.count("deadline"),
        }
    }
}

async fn answer<B>(request: &Request<B>, paths: &[&str], source: Arc<dyn Source>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !paths.contains(&path) {
        return reply(StatusCode::NOT_FOUND, TEXT, format!("no such path; there are\n{}\n", paths.join("\n")));
    }
    if request.method() != Method::GET {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is served\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let (path, query) = (path.to_owned(), request.uri().query().unwrap_or_default().to_owned());
    // Metrics and views can take many milliseconds of CPU time, which must not hold up the runtime.
    match tokio::task::spawn_blocking(move || look(&path, &query, source.as_ref())).await {
        Ok(response) => response,
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the answer could not be made\n".into()),
    }
}

fn look(path: &str, query: &str, source: &dyn Source) -> Response<Full<Bytes>> {
    match path {
        "/readyz" => match source.ready() {
            Ok(()) => json(StatusCode::OK, &view::Readiness { ready: true, missing: Vec::new() }),
            Err(missing) => json(StatusCode::SERVICE_UNAVAILABLE, &view::Readiness { ready: false, missing }),
        },
        "/metrics" => match source.metrics() {
            Ok(text) => reply(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "a metric could not be written\n".into()),
        },
        "/debug/world" => json(StatusCode::OK, &source.debug(What::World)),
        "/debug/model" => json(StatusCode::OK, &source.debug(What::Model)),
        "/debug/snapshot" => json(StatusCode::OK, &source.debug(What::Snapshot)),
        "/debug/kernel" => json(StatusCode::OK, &source.debug(What::Kernel)),
        "/debug/why" => why(query, source),
        _ => reply(StatusCode::OK, TEXT, "ok\n".into()),
    }
}

/// `/debug/why`; the question is the parameter `question`, in JSON.
fn why(query: &str, source: &dyn Source) -> Response<Full<Bytes>> {
    let question = parameter(query, "question").unwrap_or_default();
    let unclear = |problem: String| reply(StatusCode::BAD_REQUEST, TEXT, problem + "\n");
    match serde_json::from_str::<Question>(&question) {
        Err(error) => unclear(format!("`question` is no question: {error}")),
        Ok(question) => match source.why(&question) {
            Err(error) => unclear(error.to_string()),
            Ok(answer) => json(StatusCode::OK, &answer),
        },
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => reply(status, JSON, text + "\n"),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the answer is no valid JSON\n".into()),
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

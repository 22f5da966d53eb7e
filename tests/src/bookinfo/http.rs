//! HTTP/1.1 as the services need it: answer requests, ask a neighbour.
//!
//! In:  a listening address and a function from [`Call`] to [`Reply`].
//! Out: answers; [`Upstream::ask`] asks a neighbour over a connection of its own.
//! Invariant: every wait has a deadline, every body a ceiling.
//! Source: RFC 9112; the headers carried along are those of W3C Trace Context, B3 and `x-request-id`.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(3);
const MAX_BODY: usize = 64 * 1024;
const CARRIED: [&str; 14] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "end-user",
    "user-agent",
    "cookie",
];

/// A request, as far as the services look at it.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    carried: HeaderMap,
}

/// An answer.
pub(crate) struct Reply {
    status: StatusCode,
    content_type: String,
    body: Bytes,
}

/// A neighbour.
pub(crate) struct Upstream {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A neighbour that gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("no answer from {host} within {} s", PATIENCE.as_secs())]
    Late { host: String },
    #[error("cannot connect to {host}: {source}")]
    Connect { host: String, source: std::io::Error },
    #[error("{host} broke off: {source}")]
    Exchange { host: String, source: hyper::Error },
    #[error("{host} answered more than {MAX_BODY} bytes or broke off")]
    Body { host: String },
    #[error("{host} answered {status} or something that is not JSON")]
    Content { host: String, status: StatusCode },
}

impl Reply {
    pub(crate) fn text(text: &str) -> Self {
        Self::new(StatusCode::OK, "text/plain; charset=utf-8", text.to_owned())
    }

    pub(crate) fn html(page: String) -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::new(StatusCode::OK, "application/json", value.to_string())
    }

    pub(crate) fn error(status: u16, problem: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, "application/json", serde_json::json!({ "error": problem }).to_string())
    }

    fn new(status: StatusCode, content_type: &str, body: String) -> Self {
        Self { status, content_type: content_type.to_owned(), body: body.into() }
    }
}

impl Upstream {
    /// Asks for a path and passes on what the call carries.
    ///
    /// **Cancel**: safe, the connection is closed.
    pub(crate) async fn ask(&self, path: &str, call: &Call) -> Result<Reply, UpstreamError> {
        timeout(PATIENCE, self.exchange(path, call))
            .await
            .map_err(|_elapsed| UpstreamError::Late { host: self.host.clone() })?
    }

    /// As [`Upstream::ask`], for an answer that must be 200 and JSON.
    pub(crate) async fn ask_json(&self, path: &str, call: &Call) -> Result<Value, UpstreamError> {
        let reply = self.ask(path, call).await?;
        let wrong = || UpstreamError::Content { host: self.host.clone(), status: reply.status };
        if reply.status != StatusCode::OK {
            return Err(wrong());
        }
        serde_json::from_slice(&reply.body).map_err(|_not_json| wrong())
    }

    #[expect(clippy::disallowed_methods, reason = "the services are applications, not the mesh")]
    async fn exchange(&self, path: &str, call: &Call) -> Result<Reply, UpstreamError> {
        let host = || self.host.clone();
        let broke_off = |source| UpstreamError::Exchange { host: host(), source };
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|source| UpstreamError::Connect { host: host(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path.parse().unwrap_or_default();
        *request.headers_mut() = call.carried.clone();
        if let Ok(name) = format!("{}:{}", self.host, self.port).parse() {
            request.headers_mut().insert(HOST, name);
        }
        let answer = async {
            let (head, body) = sender.send_request(request).await.map_err(broke_off)?.into_parts();
            let body =
                Limited::new(body, MAX_BODY).collect().await.map_err(|_any| UpstreamError::Body { host: host() })?;
            let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Ok(Reply { status: head.status, content_type: content_type.to_owned(), body: body.to_bytes() })
        };
        tokio::pin!(answer);
        tokio::select! {
            reply = &mut answer => reply,
            ended = connection => {
                ended.map_err(broke_off)?;
                answer.await
            }
        }
    }
}

/// Answers every request on an address until the process is ended.
#[expect(clippy::disallowed_methods, reason = "the services are applications and have no telemetry of their own")]
pub(crate) async fn serve<F, A>(address: SocketAddr, answer: F) -> std::io::Result<()>
where
    F: Fn(Call) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Reply> + Send,
{
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _peer) = listener.accept().await?;
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| respond(&answer, request));
            // A client that breaks off is its own affair.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(60))
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

async fn respond<F, A>(answer: &F, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Call) -> A,
    A: Future<Output = Reply>,
{
    let mut carried = HeaderMap::new();
    for name in CARRIED {
        if let Some(value) = request.headers().get(name) {
            carried.insert(name, value.clone());
        }
    }
    let call = Call { method: request.method().to_string(), path: request.uri().path().to_owned(), carried };
    let reply = answer(call).await;
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    if let Ok(value) = reply.content_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    Ok(response)
}

//! Asks a running daemon about itself.
//!
//! In:  its admin address.
//! Out: a [`Status`].
//! Invariant: answers are bounded in size and time.
//! Cancel: safe; nothing is changed.

use super::Status;
use crate::admin::view::Readiness;
use crate::telemetry;
use crate::why::{Answer, Question};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// All answers must have come by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// The largest answer, in bytes: the metrics of a node at its ceiling of edges, several times over.
const MAX_ANSWER: usize = 256 << 20;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers.
    #[error("cannot reach the daemon at {address}; is it running, and is this its admin address?")]
    Connect {
        /// Where it was asked.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("the daemon did not answer {path}")]
    Exchange {
        /// What was asked for.
        path: &'static str,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is something else, or of another version.
    #[error("the answer to {path} was {status}; is this the admin address of a daemon of the same version?")]
    Refused {
        /// What was asked for.
        path: &'static str,
        /// What it said.
        status: StatusCode,
    },
    /// The answer has another form.
    #[error("the answer to {path} is not understood; is the daemon of the same version?")]
    Form {
        /// What was asked for.
        path: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Nobody answers at the socket.
    #[error("the daemon does not answer at {}; is it running?", path.display())]
    Unreachable {
        /// Where it was asked.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is not ready.
    #[error("the daemon is not ready: {missing}")]
    NotReady {
        /// What is missing.
        missing: String,
    },
    /// It does not understand the question.
    #[error("{said}")]
    Unclear {
        /// What it says.
        said: String,
    },
    /// It takes too long.
    #[error("the daemon at {address} did not answer within {} s", PATIENCE.as_secs())]
    Late {
        /// Where it was asked.
        address: SocketAddr,
    },
}

/// Asks the daemon at `address` about itself.
///
/// **Errors**: it cannot be reached, takes too long, or says something else than expected.
pub async fn fetch(address: SocketAddr) -> Result<Status, StatusError> {
    tokio::time::timeout(PATIENCE, ask(address)).await.map_err(|_| StatusError::Late { address })?
}

async fn ask(address: SocketAddr) -> Result<Status, StatusError> {
    let readiness = json(address, "/readyz", &[StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]).await?;
    let snapshot = json(address, "/debug/snapshot", &[StatusCode::OK]).await?;
    let (_, metrics) = get(address, "/metrics", "", &[StatusCode::OK]).await?;
    Ok(Status::new(address, readiness, snapshot, &String::from_utf8_lossy(&metrics)))
}

async fn json<T: DeserializeOwned>(
    address: SocketAddr,
    path: &'static str,
    expected: &[StatusCode],
) -> Result<T, StatusError> {
    let (_, body) = get(address, path, "", expected).await?;
    serde_json::from_slice(&body).map_err(|source| StatusError::Form { path, source })
}

/// Asks the daemon at `address` why something may speak with something, or may not.
///
/// **Errors**: it cannot be reached, takes too long, or does not understand the question.
pub async fn why(address: SocketAddr, question: &Question) -> Result<Answer, StatusError> {
    let path = "/debug/why";
    let question = serde_json::to_vec(question).map_err(|source| StatusError::Form { path, source })?;
    let query = format!("?question={}", encoded(&question));
    let asking = get(address, path, &query, &[StatusCode::OK, StatusCode::BAD_REQUEST]);
    let late = |_| StatusError::Late { address };
    let (status, body) = tokio::time::timeout(PATIENCE, asking).await.map_err(late)??;
    if status == StatusCode::BAD_REQUEST {
        return Err(StatusError::Unclear { said: String::from_utf8_lossy(&body).trim().to_owned() });
    }
    serde_json::from_slice(&body).map_err(|source| StatusError::Form { path, source })
}

/// Bytes as the value of a parameter (RFC 3986, section 2.1).
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(*byte))
        } else {
            text.push_str(&format!("%{byte:02X}"))
        }
        text
    })
}

/// Asks the daemon at the socket `path` whether it is alive, or also whether it is ready.
///
/// **Errors**: it does not answer in time, or says that something is missing; the error names it.
pub async fn probe(path: &Path, ready: bool) -> Result<(), StatusError> {
    let unreachable = |source| StatusError::Unreachable { path: path.to_owned(), source };
    let asked = if ready { "/readyz" } else { "/healthz" };
    let ask = async {
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let (status, body) = exchange(stream, (asked, ""), "localhost").await?;
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => {
                let readiness: Readiness =
                    serde_json::from_slice(&body).map_err(|source| StatusError::Form { path: asked, source })?;
                Err(StatusError::NotReady { missing: readiness.missing.join("; ") })
            }
            status => Err(StatusError::Refused { path: asked, status }),
        }
    };
    let late = |_| unreachable(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(PATIENCE, ask).await.map_err(late)?
}

/// One request on a connection of its own, as the daemon serves it.
#[expect(clippy::disallowed_methods, reason = "no traffic of a pod: a command asks the daemon over loopback")]
async fn get(
    address: SocketAddr,
    path: &'static str,
    query: &str,
    expected: &[StatusCode],
) -> Result<(StatusCode, Bytes), StatusError> {
    let stream = TcpStream::connect(address).await.map_err(|source| StatusError::Connect { address, source })?;
    let (status, body) = exchange(stream, (path, query), &address.to_string()).await?;
    if expected.contains(&status) { Ok((status, body)) } else { Err(StatusError::Refused { path, status }) }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (path, query): (&'static str, &str),
    host: &str,
) -> Result<(StatusCode, Bytes), StatusError> {
    let failed = |source: hyper::Error| StatusError::Exchange { path, source: source.into() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // What goes wrong on the connection also ends the request below, which reports it.
    let connection = telemetry::spawn("status connection", connection);
    let request = Request::get(format!("{path}{query}")).header(HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(|source| StatusError::Exchange { path, source: source.into() })?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    connection.abort();
    Ok((status, body.map_err(|source| StatusError::Exchange { path, source })?.to_bytes()))
}

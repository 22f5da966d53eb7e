//! The socket at which the CNI plugin asks.
//!
//! In:  one request a connection, as `mesh_common::cni` has it.
//! Out: each request goes to a [`Respond`], its answer goes back. [`AttachmentStore`] remembers pods over restarts.
//! Invariant: only root and the daemon's own user are served; a line is at most [`MAX_MESSAGE`] bytes and must come
//! within [`READ_DEADLINE`]; at most [`MAX_REQUESTS`] requests are open, the kernel keeps the others waiting.
//! Invariant: between two daemons there is no moment at which nobody listens: a new one renames its socket over the
//! old one's.
//! Source: `unix(7)`, `SO_PEERCRED`; `rename(2)`.

mod store;
#[cfg(test)]
mod tests;

pub use store::{AttachmentStore, Loaded, StoreError, is_there};

use crate::telemetry;
use mesh_common::cni::{Attachment, MAX_MESSAGE, Request, Response, is_container_id, is_ifname, is_path};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How many requests may be open at a time.
pub const MAX_REQUESTS: usize = 256;

/// How long a plugin may take to send its request, and to take the answer.
pub const READ_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait when the kernel gives no connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest reason that is sent, in bytes; escaped it still fits into a message.
const MAX_REASON: usize = 4096;

/// The longest name of a pod or namespace.
const MAX_NAME: usize = 253;

/// More addresses than any pod has.
const MAX_ADDRESSES: usize = 64;

/// An answer in the making.
pub type Pending = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Who answers requests.
///
/// **Cancel**: the future is dropped when the plugin hangs up, so what must happen for a request has to be under way
/// before the first `await`.
pub type Respond = Arc<dyn Fn(Request) -> Pending + Send + Sync>;

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Its directory cannot be made.
    #[error("cannot make the directory {} of the CNI socket", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be bound.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// The socket, under its temporary name.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be put in its place.
    #[error("cannot put the CNI socket in its place {}", path.display())]
    Publish {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer is not root.
    #[error("user {uid} may not ask; only root may")]
    Peer {
        /// Its user id.
        uid: u32,
    },
    /// The line is too long.
    #[error("the request is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The line did not come in time.
    #[error("the request did not arrive within {} s", READ_DEADLINE.as_secs())]
    Slow,
    /// The connection ended before the end of the line.
    #[error("the connection ended within the request")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More came than one line.
    #[error("there is more than one request")]
    Trailing,
    /// The line is no request.
    #[error("the request cannot be understood ({source}): are mesh-cni and mesh-node of one version?")]
    Decode {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field has a value it cannot have.
    #[error("the request's {field} is not valid")]
    Field {
        /// The field.
        field: &'static str,
    },
}

/// Listens at `path`, in place of whoever did before: connections from now on are ours. Needs a tokio runtime.
///
/// **Errors**: the socket cannot be made or put in its place.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| SocketError::Directory { path: directory.to_owned(), source })?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // Left over from an earlier process of the same number, if it is there at all.
    let _ = fs::remove_file(&temporary);
    let listener =
        UnixListener::bind(&temporary).map_err(|source| SocketError::Listen { path: temporary.clone(), source })?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| SocketError::Publish { path: path.to_owned(), source })?;
    Ok(listener)
}

/// Serves requests for as long as it is polled.
///
/// **Cancel**: safe; requests that are open go on.
pub async fn serve(listener: UnixListener, respond: Respond) {
    let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let respond = Arc::clone(&respond);
                telemetry::spawn("cni request", async move {
                    answer(stream, &respond).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection at the CNI socket");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The request that a line holds, its end included or not.
///
/// **Errors**: it is none, or a field cannot be what it says. Ids and names are safe in paths and logs afterwards.
pub fn parse_request(line: &[u8]) -> Result<Request, RequestError> {
    if line.len() > MAX_MESSAGE {
        return Err(RequestError::TooLong);
    }
    let request: Request = serde_json::from_slice(line).map_err(|source| RequestError::Decode { source })?;
    match &request {
        Request::Add(attachment) | Request::Check(attachment) => check_attachment(attachment)?,
        Request::Del { container_id, ifname } => check_sandbox(container_id, ifname)?,
        Request::Gc { valid } => valid.iter().try_for_each(|(id, ifname)| check_sandbox(id, ifname))?,
        Request::Status => {}
    }
    Ok(request)
}

fn check_attachment(attachment: &Attachment) -> Result<(), RequestError> {
    let is_name = |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    check_sandbox(&attachment.container_id, &attachment.ifname)?;
    check(is_path(&attachment.netns), "netns")?;
    check(is_name(&attachment.pod_namespace), "pod_namespace")?;
    check(is_name(&attachment.pod_name), "pod_name")?;
    check(attachment.pod_uid.as_deref().is_none_or(is_name), "pod_uid")?;
    check((1..=MAX_ADDRESSES).contains(&attachment.addresses.len()), "addresses")
}

fn check_sandbox(container_id: &str, ifname: &str) -> Result<(), RequestError> {
    check(is_container_id(container_id), "container_id")?;
    check(is_ifname(ifname), "ifname")
}

fn check(holds: bool, field: &'static str) -> Result<(), RequestError> {
    if holds { Ok(()) } else { Err(RequestError::Field { field }) }
}

async fn answer(stream: UnixStream, respond: &Respond) {
    let mut stream = BufReader::new(stream);
    let response = match receive(&mut stream).await {
        Ok(request) => tokio::select! {
            biased;
            response = respond(request) => response,
            () = hung_up(&mut stream) => {
                tracing::debug!("the CNI plugin hung up before its answer");
                return;
            }
        },
        Err(error) => {
            tracing::warn!(%error, "refused a request at the CNI socket");
            Response::Error { retriable: matches!(error, RequestError::Slow), message: error.to_string() }
        }
    };
    if let Err(error) = send(&mut stream, response).await {
        tracing::debug!(%error, "the CNI plugin did not take its answer");
    }
}

async fn receive(stream: &mut BufReader<UnixStream>) -> Result<Request, RequestError> {
    let peer = stream.get_ref().peer_cred().map_err(|source| RequestError::Read { source })?;
    if !may_ask(peer.uid(), nix::unistd::geteuid().as_raw()) {
        return Err(RequestError::Peer { uid: peer.uid() });
    }
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_MESSAGE + 1).unwrap_or(u64::MAX);
    let mut limited = (&mut *stream).take(limit);
    match timeout(READ_DEADLINE, limited.read_until(b'\n', &mut line)).await {
        Err(_) => return Err(RequestError::Slow),
        Ok(Err(source)) => return Err(RequestError::Read { source }),
        Ok(Ok(_)) if line.len() > MAX_MESSAGE => return Err(RequestError::TooLong),
        Ok(Ok(_)) if line.last() != Some(&b'\n') => return Err(RequestError::Closed),
        Ok(Ok(_)) => {}
    }
    if stream.buffer().is_empty() { parse_request(&line) } else { Err(RequestError::Trailing) }
}

/// Root installs plugins; the daemon's own user is the same outside of tests.
fn may_ask(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// Returns when the peer closes, or sends what it should not.
async fn hung_up(stream: &mut BufReader<UnixStream>) {
    let _ = stream.read_u8().await;
}

async fn send(stream: &mut BufReader<UnixStream>, response: Response) -> io::Result<()> {
    let response = match response {
        Response::Error { retriable, mut message } => {
            message.truncate(message.floor_char_boundary(MAX_REASON));
            Response::Error { retriable, message }
        }
        Response::Ok => Response::Ok,
    };
    let mut line = serde_json::to_vec(&response)?;
    line.push(b'\n');
    let write = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    timeout(READ_DEADLINE, write).await.map_err(|_| io::ErrorKind::TimedOut)?
}

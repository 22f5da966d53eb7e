//! One question to the node's daemon.
//!
//! In:  a request, the path of the socket, a deadline.
//! Out: the daemon's answer, or why there is none.
//! Invariant: returns by the deadline, whatever the daemon does; reads no more than [`MAX_MESSAGE`] bytes.
//! Source: `mesh_common::cni`.

use mesh_common::cni::{MAX_MESSAGE, Request, Response};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// There is no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The request does not fit into a message.
    #[error("the request is longer than {MAX_MESSAGE} bytes")]
    RequestTooLong,
    /// Nobody listens.
    #[error("no mesh daemon at {}: is mesh-node running on this node?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the mesh daemon broke")]
    Exchange {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon closed the connection without a whole answer.
    #[error("the mesh daemon closed the connection without an answer; it may be restarting")]
    Closed,
    /// The daemon took too long.
    #[error("the mesh daemon gave no answer within {} s", after.as_secs_f64())]
    Slow {
        /// How long was waited.
        after: Duration,
    },
    /// The answer is longer than a message may be.
    #[error("the answer from {} is longer than {MAX_MESSAGE} bytes: is it mesh-node that listens there?", path.display())]
    AnswerTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The answer cannot be understood.
    #[error("the answer from {} cannot be understood: are mesh-cni and mesh-node of one version?", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

impl DaemonError {
    /// Would the same request succeed later, with nothing changed but time?
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Exchange { .. } | Self::Closed | Self::Slow { .. } => true,
            Self::RequestTooLong | Self::AnswerTooLong { .. } | Self::Garbled { .. } => false,
        }
    }
}

/// Sends `request` to the daemon at `path` and waits for its answer, at most `timeout`.
///
/// **Errors**: there is no usable answer.
pub fn ask(path: &Path, timeout: Duration, request: &Request) -> Result<Response, DaemonError> {
    let mut line = serde_json::to_vec(request).map_err(|_| DaemonError::RequestTooLong)?;
    line.push(b'\n');
    if line.len() > MAX_MESSAGE {
        return Err(DaemonError::RequestTooLong);
    }
    // A thread, because connecting to a full backlog, and a peer that trickles bytes, know no overall deadline.
    // It ends with the process.
    let (sender, receiver) = mpsc::channel();
    let socket = path.to_owned();
    thread::Builder::new()
        .name("exchange".to_owned())
        .spawn(move || sender.send(exchange(&socket, &line)))
        .map_err(|source| DaemonError::Exchange { source })?;
    match receiver.recv_timeout(timeout) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(DaemonError::Slow { after: timeout }),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(DaemonError::Closed),
    }
}

fn exchange(path: &Path, line: &[u8]) -> Result<Response, DaemonError> {
    let mut stream =
        UnixStream::connect(path).map_err(|source| DaemonError::Connect { path: path.to_owned(), source })?;
    let broken = |source| DaemonError::Exchange { source };
    // The daemon may refuse and close before it has read everything: then its answer says why.
    let sent = stream.write_all(line);
    let limit = u64::try_from(MAX_MESSAGE + 1).unwrap_or(u64::MAX);
    let mut answer = Vec::new();
    let read = BufReader::new(stream.take(limit)).read_until(b'\n', &mut answer);
    if answer.len() > MAX_MESSAGE {
        return Err(DaemonError::AnswerTooLong { path: path.to_owned() });
    }
    if answer.last() == Some(&b'\n') {
        return serde_json::from_slice(&answer)
            .map_err(|source| DaemonError::Garbled { path: path.to_owned(), source });
    }
    sent.map_err(broken)?;
    read.map_err(broken)?;
    Err(DaemonError::Closed)
}

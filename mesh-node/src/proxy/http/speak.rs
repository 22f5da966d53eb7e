//! HTTP on a connection that was made, as its client.
//!
//! In:  a connection, which version is spoken on it, and what ends it.
//! Out: [`Sender`], which sends requests.
//! Invariant: the connection is carried in the background until it ends, nobody can send on it any more, or it is ended.

use super::body::Payload;
use super::gather::Gathered;
use super::io::Transport;
use crate::proxy::refusal::{self, Refusal};
use crate::telemetry;
use futures_util::future::Either;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};

/// The head of a response, or hyper's error with the request if none of it was sent.
pub(crate) type Sent = Result<Response<Incoming>, TrySendError<Request<Payload>>>;

/// Sends requests on one connection.
pub(crate) enum Sender {
    /// HTTP/1.1: one request at a time.
    One(http1::SendRequest<Payload>),
    /// HTTP/2: many at once.
    Many(http2::SendRequest<Payload>),
}

impl Sender {
    /// Sends a request.
    #[expect(clippy::result_large_err, reason = "the request comes back whole")]
    pub(crate) fn send(&mut self, request: Request<Payload>) -> impl Future<Output = Sent> {
        match self {
            Self::One(sender) => Either::Left(sender.try_send_request(request)),
            Self::Many(sender) => Either::Right(sender.try_send_request(request)),
        }
    }

    /// Waits until a request can be sent; false if none ever can.
    pub(crate) async fn is_ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Many(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Begins to speak `version`. `until` is kept for as long as the connection lives, and ends it when it is ready. A connection of
/// HTTP/1.1 that `may_upgrade` may go over to another protocol; any other is ended in an orderly way.
///
/// **Errors**: the other side does not speak it.
pub(crate) async fn speak(
    transport: Transport,
    (version, may_upgrade): (Version, bool),
    until: impl Future + 'static,
) -> Result<Sender, Refusal> {
    let failed = |error: hyper::Error| Refusal::new(refusal::UPSTREAM_PROTOCOL, telemetry::explain(&error));
    if version == Version::HTTP_2 {
        let mut builder = http2::Builder::new(super::LocalExecutor);
        // What of a response nobody takes holds up few others.
        builder.initial_stream_window_size(super::STREAM_WINDOW);
        builder.max_header_list_size(u32::try_from(super::MAX_HEAD).unwrap_or(u32::MAX));
        let (sender, connection) = builder.handshake(Gathered::http2(transport)).await.map_err(failed)?;
        telemetry::spawn_local("http2-upstream", async move {
            tokio::select! {
                // Whoever waits for an answer is told of the failure.
                _told_elsewhere = connection => {}
                _ = until => {}
            }
        });
        return Ok(Sender::Many(sender));
    }
    let (sender, connection) = http1::Builder::new().handshake(transport).await.map_err(failed)?;
    telemetry::spawn_local("http1-upstream", async move {
        let carried = async {
            if may_upgrade {
                let _told_elsewhere = connection.with_upgrades().await;
            } else if let Ok(parts) = connection.without_shutdown().await {
                parts.io.close().await;
            }
        };
        tokio::select! {
            () = carried => {}
            _ = until => {}
        }
    });
    Ok(Sender::One(sender))
}

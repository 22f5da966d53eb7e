//! Whether what arrives for a pod is looked into as HTTP, and which server name a client asks for in TLS of its own.
//!
//! In:  the port, as the snapshot knows it; what rules ask; where nobody says what is spoken there, or a rule asks, the first bytes.
//! Out: HTTP or not; the server name.
//! Invariant: where the first bytes decide, whoever speaks first does; nobody is waited for alone, but for the rest of a ClientHello.
//! Cancel: safe; bytes are looked at, not taken, or handed on.

use crate::model::http::AppProtocol;
use crate::policy::Sni;
use crate::proxy::authorize::Asked;
use crate::proxy::buffer::Buffers;
use crate::proxy::facts::Carries;
use crate::proxy::frame::Control;
use crate::proxy::hello::{self, Hello};
use crate::proxy::http::{Sniffed, begins_as_http};
use crate::proxy::io;
use crate::proxy::relay::Beginning;
use crate::proxy::wire::{Event, Wire, WireError};
use crate::snapshot::NodeSnapshot;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// What of a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Nowhere,
    /// What the client says first, unless the application speaks first. What is looked for:
    First(Asked),
    /// It is HTTP.
    Http,
}

impl Look {
    /// What is looked at of a connection to this port of a pod, which the client says that it dialled as `original`. Where policies
    /// ask what requests are, what the client says decides nothing, and a port of which nobody says anything is looked at.
    pub(crate) fn at(snapshot: &NodeSnapshot, local: &SocketAddr, original: &SocketAddr, asked: Asked) -> Self {
        let directory = &snapshot.directory;
        // Of two services that one port belongs to, the one that was dialled may know that it is no HTTP.
        let dialled = directory.services.get(&original.ip()).and_then(|service| service.port(original.port()));
        let is_opaque = !asked.http && dialled.is_some_and(|port| port.protocol.is_opaque());
        let http = match directory.endpoints.get(local).map(|endpoint| endpoint.protocol) {
            _ if is_opaque => false,
            Some(AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc) => return Self::Http,
            Some(AppProtocol::Undeclared) => true,
            None => asked.http,
            Some(AppProtocol::Opaque | AppProtocol::Tls) => false,
        };
        if http || asked.sni { Self::First(Asked { http, ..asked }) } else { Self::Nowhere }
    }

    /// What a connection carries that is looked at like this, as far as that is known at its start.
    pub(crate) fn carries(self) -> Carries {
        match self {
            Self::Nowhere => Carries::Opaque,
            Self::First(_) | Self::Http => Carries::Requests,
        }
    }
}

/// What a client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP.
    Http,
    /// Something else, perhaps TLS, in which it asks for this server name.
    Other(Sni),
}

/// What a client says, before the application says anything.
pub(crate) async fn spoken(client: &TcpStream, application: &TcpStream, asked: Asked) -> Speaks {
    let nothing = Speaks::Other(Sni::Absent);
    let mut bytes = [0_u8; 24];
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            readable = client.readable() => if readable.is_err() { return nothing },
            _ = application.readable() => return nothing,
        }
        let length = match io::peek_now(client, &mut bytes) {
            Ok(None) => continue,
            Ok(Some(length)) => length,
            Err(_) => return nothing,
        };
        match begins_as_http(&bytes[..length]) {
            Sniffed::Http if asked.http => return Speaks::Http,
            // Peeking does not empty the socket: nothing would tell of the rest.
            Sniffed::Unclear if asked.http && length > seen => {
                seen = length;
                tokio::task::yield_now().await;
            }
            Sniffed::Http | Sniffed::Unclear | Sniffed::Other => {
                let sni = if asked.sni { hello::peek(client).await.sni() } else { Sni::Unread };
                return Speaks::Other(sni);
            }
        }
    }
}

/// What a client said first on a stream.
pub(crate) enum First {
    /// HTTP: these bytes, after which it may have finished already.
    Http(Vec<u8>, bool),
    /// Something else, perhaps TLS with this server name, which is to be carried on, or nothing: the application spoke first.
    Other(Sni, Option<Box<Beginning>>),
}

/// What the client says first on a stream that was accepted, unless the application speaks first.
///
/// **Errors**: the wire broke.
pub(crate) async fn first(
    wire: &mut Wire,
    (buffers, asked): (&Buffers, Asked),
    application: &TcpStream,
) -> Result<First, WireError> {
    let (mut sender, mut receiver) = wire.split();
    let there = tokio::select! {
        biased;
        batch = receiver.next(buffers) => Some(batch?),
        () = std::future::ready(()) => None,
    };
    let batch = match there {
        Some(batch) => batch,
        None => {
            // A client that waits to be accepted says nothing before.
            sender.settle().await?;
            tokio::select! {
                biased;
                batch = receiver.next(buffers) => batch?,
                _ = application.readable() => return Ok(First::Other(Sni::Absent, None)),
            }
        }
    };
    let mut said = Box::new(Beginning { bytes: receiver.bytes(&batch), then: batch.then });
    receiver.release();
    let ended = said.then == Some(Event::Control(Control::Fin));
    if asked.http && begins_as_http(&said.bytes) == Sniffed::Http && (ended || said.then.is_none()) {
        sender.settle().await?;
        return Ok(First::Http(said.bytes, ended));
    }
    if !asked.sni {
        return Ok(First::Other(Sni::Unread, Some(said)));
    }
    let deadline = tokio::time::Instant::now() + hello::PATIENCE;
    loop {
        let hello = hello::classify(&said.bytes);
        if hello != Hello::Incomplete || said.then.is_some() {
            return Ok(First::Other(hello.sni(), Some(said)));
        }
        // What came with OPEN is all that a client sends before it is accepted.
        sender.settle().await?;
        let Ok(batch) = tokio::time::timeout_at(deadline, receiver.next(buffers)).await else {
            return Ok(First::Other(hello.sni(), Some(said)));
        };
        let batch = batch?;
        said.bytes.extend(receiver.bytes(&batch));
        said.then = batch.then;
        receiver.release();
    }
}

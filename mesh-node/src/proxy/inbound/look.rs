//! Whether what arrives for a pod is looked into as HTTP.
//!
//! In:  the port, as the snapshot knows it; where nobody says what is spoken there, the first bytes.
//! Out: HTTP or not.
//! Invariant: where the first bytes decide, whoever speaks first does; nobody is waited for alone.
//! Cancel: safe; bytes are looked at, not taken, or handed on.

use crate::model::http::AppProtocol;
use crate::proxy::buffer::Buffers;
use crate::proxy::facts::Carries;
use crate::proxy::frame::Control;
use crate::proxy::http::{Sniffed, begins_as_http};
use crate::proxy::io;
use crate::proxy::wire::{Batch, Event, Wire, WireError};
use crate::snapshot::NodeSnapshot;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// What of a connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Nowhere,
    /// What the client says first, unless the application speaks first.
    First,
    /// It is HTTP.
    Http,
}

impl Look {
    /// What is looked at of a connection to this port of a pod, which the client says that it dialled as `original`. Where a policy
    /// asks what requests are, `is_asked`, what the client says decides nothing, and a port of which nobody says anything is looked at.
    pub(crate) fn at(snapshot: &NodeSnapshot, local: &SocketAddr, original: &SocketAddr, is_asked: bool) -> Self {
        let directory = &snapshot.directory;
        // Of two services that one port belongs to, the one that was dialled may know that it is no HTTP.
        let dialled = directory.services.get(&original.ip()).and_then(|service| service.port(original.port()));
        if !is_asked && dialled.is_some_and(|port| port.protocol == AppProtocol::Opaque) {
            return Self::Nowhere;
        }
        match directory.endpoints.get(local).map(|endpoint| endpoint.protocol) {
            Some(AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc) => Self::Http,
            Some(AppProtocol::Undeclared) => Self::First,
            None if is_asked => Self::First,
            Some(AppProtocol::Opaque) | None => Self::Nowhere,
        }
    }

    /// What a connection carries that is looked at like this, as far as that is known at its start.
    pub(crate) fn carries(self) -> Carries {
        match self {
            Self::Nowhere => Carries::Opaque,
            Self::First | Self::Http => Carries::Requests,
        }
    }
}

/// Does a client begin as HTTP does, before the application says anything?
pub(crate) async fn is_http(client: &TcpStream, application: &TcpStream) -> bool {
    let mut bytes = [0_u8; 24];
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            readable = client.readable() => if readable.is_err() { return false },
            _ = application.readable() => return false,
        }
        match io::peek_now(client, &mut bytes) {
            Ok(None) => {}
            Ok(Some(length)) => match begins_as_http(&bytes[..length]) {
                Sniffed::Http => return true,
                // Peeking does not empty the socket: nothing would tell of the rest.
                Sniffed::Unclear if length > seen => {
                    seen = length;
                    tokio::task::yield_now().await;
                }
                Sniffed::Unclear | Sniffed::Other => return false,
            },
            Err(_) => return false,
        }
    }
}

/// What a client said first on a stream.
pub(crate) enum First {
    /// HTTP: these bytes, after which it may have finished already.
    Http(Vec<u8>, bool),
    /// Something else, which is to be carried on, or nothing: the application spoke first.
    Other(Option<Box<Batch>>),
}

/// What the client says first on a stream that was accepted, unless the application speaks first.
///
/// **Errors**: the wire broke.
pub(crate) async fn first(wire: &mut Wire, buffers: &Buffers, application: &TcpStream) -> Result<First, WireError> {
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
                _ = application.readable() => return Ok(First::Other(None)),
            }
        }
    };
    let bytes = receiver.bytes(&batch);
    let ended = batch.then == Some(Event::Control(Control::Fin));
    if begins_as_http(&bytes) == Sniffed::Http && (ended || batch.then.is_none()) {
        sender.settle().await?;
        return Ok(First::Http(bytes, ended));
    }
    Ok(First::Other(Some(Box::new(batch))))
}

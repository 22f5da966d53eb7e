//! A connection as hyper reads and writes it: plain, under TLS, or one stream on a connection between nodes.
//!
//! In:  a TCP or TLS connection, or a wire on which a stream was opened.
//! Out: [`Transport`].
//! Invariant: an idle connection holds no buffer; what is held unsent or unread is bounded by a few records.
//! Invariant: the stream ends with the peer's FIN. A connection that breaks off earlier is an error, never an end, so
//! that no message without a length is taken for whole.
//! Cancel: dropping it closes the connection; the peer sees that it broke off unless both sides had finished.

#[cfg(test)]
mod tests;

use crate::proxy::frame::{Control, DATA, DRAIN, FIN};
use crate::proxy::io as sockets;
use crate::proxy::tls::handshake::Keys;
use crate::proxy::tls::record::{self, Content, HEADER, MAX_PEER_RECORD, Opener, Sealer, TAIL};
use crate::proxy::wire::{CLOSE_NOTIFY, KEY_UPDATE, MAX_DATA, Said, Wire, WireError};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsStream;

/// Sealed bytes that may wait for the socket before more are taken.
const MAX_UNSENT: usize = 64 * 1024;
/// Bytes that are read at once.
const READ: usize = 2 * MAX_PEER_RECORD;

thread_local! {
    /// Where bytes are read to before it is known how many there are: what is held of a connection is what came.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// A connection that carries HTTP.
pub(crate) enum Transport {
    /// In plain text.
    Plain(TokioIo<TcpStream>),
    /// As a stream between two nodes.
    Mesh(Box<MeshStream>),
    /// Under TLS.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Transport {
    /// A connection in plain text.
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::Plain(TokioIo::new(stream))
    }

    /// A connection under TLS.
    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(TokioIo::new(stream)))
    }

    /// The stream that was opened and accepted on `wire`. `drain` is given when the other side takes no further request on it.
    pub(crate) fn dialled(wire: Wire, drain: &Arc<Drain>) -> Self {
        Self::mesh(wire, (Vec::new(), false), Draining::Heeds(Arc::clone(drain)))
    }

    /// The stream that was accepted on `wire`, of which `opened` was taken from it already, perhaps with the peer's FIN after it.
    /// The peer may be told to make no further requests if it heeds that.
    pub(crate) fn arrived(wire: Wire, (opened, ended): (Vec<u8>, bool), heeds_drain: bool) -> Self {
        let draining = if heeds_drain { Draining::Tells(Arc::default()) } else { Draining::Done };
        Self::mesh(wire, (opened, ended), draining)
    }

    fn mesh(wire: Wire, (opened, ended): (Vec<u8>, bool), draining: Draining) -> Self {
        let parts = wire.into_parts();
        let (plain, unopened) = (0..opened.len(), opened.len());
        let mut received = opened;
        received.extend_from_slice(&parts.rest);
        Self::Mesh(Box::new(MeshStream {
            stream: parts.stream,
            sealer: parts.sealer,
            opener: parts.opener,
            keys: parts.keys,
            answer_update: parts.answer_update,
            received,
            unopened,
            plain,
            ended,
            unsent: Vec::new(),
            sent: 0,
            finished: false,
            draining,
        }))
    }

    /// By what the other side is told to make no further requests; what it has sent by then is still read. `None` if it cannot
    /// be told.
    pub(crate) fn drain(&self) -> Option<Arc<Drain>> {
        match self {
            Self::Mesh(stream) => match &stream.draining {
                Draining::Tells(drain) => Some(Arc::clone(drain)),
                Draining::Heeds(_) | Draining::Done => None,
            },
            Self::Plain(_) | Self::Tls(_) => None,
        }
    }
}

/// The word that no further request is taken on a stream, between the stream and whoever makes requests or takes them. It passes
/// no thread, but hyper wants that it could.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    is_given: AtomicBool,
    given: Notify,
}

impl Drain {
    /// Gives it. A stream tells the other side when it is read or written next.
    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Relaxed);
        self.given.notify_one();
    }

    /// Was it given?
    pub(crate) fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Relaxed)
    }

    /// Waits until it is given.
    pub(crate) async fn given(&self) {
        self.given.notified().await;
    }
}

/// Who tells whom that no further request is taken on a stream.
enum Draining {
    /// We do, once it is given.
    Tells(Arc<Drain>),
    /// The other side does; then it is given.
    Heeds(Arc<Drain>),
    /// It was told, or nobody tells.
    Done,
}

/// One stream on a connection between nodes.
pub(crate) struct MeshStream {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
    keys: Keys,
    answer_update: bool,
    /// What was read: opened bytes that nobody took yet, then records that are not opened.
    received: Vec<u8>,
    /// Where the records begin that are not opened.
    unopened: usize,
    /// The opened bytes that nobody took yet.
    plain: Range<usize>,
    /// The peer has no more to send.
    ended: bool,
    /// Sealed records, of which the first `sent` bytes have left.
    unsent: Vec<u8>,
    sent: usize,
    /// We have no more to send.
    finished: bool,
    draining: Draining,
}

impl MeshStream {
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while self.plain.is_empty() && !self.ended {
            if !self.open_next()? {
                ready!(self.poll_receive(context))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Opens the next record if it is there whole.
    fn open_next(&mut self) -> Result<bool, WireError> {
        let bytes = &mut self.received[self.unopened..];
        let Some(length) = record::length(bytes)? else { return Ok(false) };
        let Some(bytes) = bytes.get_mut(..length) else { return Ok(false) };
        let (content, range) = self.opener.open(bytes)?;
        let start = self.unopened;
        self.unopened += length;
        let payload = start + range.start..start + range.end;
        match Said::by(content, &self.received[payload.clone()])? {
            Said::Data => self.plain = payload.start + 1..payload.end,
            Said::Control(Control::Fin) => self.ended = true,
            Said::Control(Control::Reset(_)) => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
            Said::Control(Control::Drain) => match std::mem::replace(&mut self.draining, Draining::Done) {
                Draining::Heeds(drain) => drain.give(),
                Draining::Tells(_) | Draining::Done => return Err(WireError::OutOfOrder),
            },
            Said::Control(Control::Open(_) | Control::Accept) => return Err(WireError::OutOfOrder),
            // A farewell before FIN is a node that goes: what it said so far is not the whole.
            Said::Closed => return Err(WireError::Closed),
            Said::NewKeys { asked } => {
                self.answer_update |= asked;
                self.opener = Opener::new(self.keys.next_rx().map_err(WireError::Keys)?)?;
            }
        }
        Ok(true)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if self.unopened == self.received.len() {
            self.received = Vec::new();
        } else {
            self.received.drain(..self.unopened);
        }
        self.unopened = 0;
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = sockets::read_now(&self.stream, &mut [IoSliceMut::new(scratch)], READ)?;
                self.received.extend_from_slice(&scratch[..read.unwrap_or(0)]);
                Ok::<_, io::Error>(read)
            });
            match read? {
                Some(0) => return Poll::Ready(Err(WireError::CutOff)),
                Some(_) => return Poll::Ready(Ok(())),
                None => {}
            }
        }
    }

    /// Seals one frame of these bytes; returns how many of them it took.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, WireError> {
        self.renew_keys()?;
        let start = self.unsent.len();
        let wanted = slices.iter().map(|slice| slice.len()).sum::<usize>().min(MAX_DATA);
        self.unsent.reserve(HEADER + 1 + wanted + TAIL);
        self.unsent.resize(start + HEADER, 0);
        self.unsent.push(DATA);
        let mut left = wanted;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            self.unsent.extend_from_slice(part);
            left -= part.len();
        }
        self.unsent.resize(start + HEADER + 1 + wanted + TAIL, 0);
        self.sealer.seal(Content::Application, &mut self.unsent[start..], 1 + wanted)?;
        Ok(wanted)
    }

    fn renew_keys(&mut self) -> Result<(), WireError> {
        if self.sealer.is_worn() || self.answer_update {
            self.sealer.append(&mut self.unsent, Content::Handshake, &KEY_UPDATE)?;
            self.answer_update = false;
            self.sealer = Sealer::new(self.keys.next_tx().map_err(WireError::Keys)?)?;
        }
        Ok(())
    }

    /// Tells the other side to make no further requests, if that is due.
    fn tell_drain(&mut self) -> io::Result<()> {
        if let Draining::Tells(drain) = &self.draining
            && drain.is_given()
            && !self.finished
        {
            self.draining = Draining::Done;
            self.renew_keys().map_err(broken)?;
            self.sealer
                .append(&mut self.unsent, Content::Application, &[DRAIN])
                .map_err(|error| broken(error.into()))?;
        }
        Ok(())
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            match self.stream.try_write(&self.unsent[self.sent..]) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.unsent.len() - self.sent >= MAX_UNSENT {
            ready!(self.poll_send(context))?;
        }
        let taken = self.seal(slices).map_err(broken)?;
        // What the socket does not take now goes with the next write or the flush that follows.
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }
}

impl Read for MeshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let own = &mut *self;
        own.tell_drain()?;
        // Whoever only reads sends what is due, too.
        if let Poll::Ready(Err(error)) = own.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        ready!(own.poll_fill(context)).map_err(broken)?;
        let length = own.plain.len().min(into.remaining());
        into.put_slice(&own.received[own.plain.start..][..length]);
        own.plain.start += length;
        if own.plain.is_empty() && own.unopened == own.received.len() {
            (own.received, own.unopened, own.plain) = (Vec::new(), 0, 0..0);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for MeshStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_take(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_take(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tell_drain()?;
        self.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = &mut *self;
        if !own.finished {
            own.finished = true;
            own.sealer.append(&mut own.unsent, Content::Application, &[FIN]).map_err(|error| broken(error.into()))?;
            if own.ended {
                own.sealer
                    .append(&mut own.unsent, Content::Alert, &CLOSE_NOTIFY)
                    .map_err(|error| broken(error.into()))?;
            }
        }
        own.poll_send(context)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else breaks a wire is told by its text")]
fn broken(error: WireError) -> io::Error {
    match error {
        WireError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Hands each call to whichever connection it is.
macro_rules! either {
    ($transport:expr, $inner:ident => $call:expr) => {
        match $transport.get_mut() {
            Transport::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Transport::Mesh($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
            Transport::Tls($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
        }
    };
}

impl Read for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(context, into))
    }
}

impl Write for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Mesh(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(context))
    }
}

/// How long a connection that was ended here may take to end at the other side.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

impl Transport {
    /// Ends the connection in an orderly way: nobody at the other side takes it for broken off.
    pub(crate) async fn close(mut self) {
        let end = async {
            let mut own = Pin::new(&mut self);
            std::future::poll_fn(|context| own.as_mut().poll_shutdown(context)).await?;
            if let Self::Mesh(stream) = own.get_mut() {
                std::future::poll_fn(|context| stream.poll_end(context)).await.map_err(broken)?;
                stream
                    .sealer
                    .append(&mut stream.unsent, Content::Alert, &CLOSE_NOTIFY)
                    .map_err(|error| broken(error.into()))?;
                std::future::poll_fn(|context| stream.poll_send(context)).await?;
            }
            Ok::<_, io::Error>(())
        };
        // Whoever has gone already needs no farewell.
        let _gone_or_late = tokio::time::timeout(FAREWELL, end).await;
    }
}

impl MeshStream {
    /// Waits for the peer's FIN; what it still says before is nobody's.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while !self.ended {
            self.plain = 0..0;
            ready!(self.poll_fill(context))?;
        }
        Poll::Ready(Ok(()))
    }
}

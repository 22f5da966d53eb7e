//! What HTTP/2 writes in one turn of the worker's loop leaves in one write.
//!
//! In:  a connection on which HTTP is spoken.
//! Out: [`Gathered`], the same bytes in both directions.
//! Invariant: h2 flushes after each frame of data, and many streams have one each: what is flushed waits until the connection
//! is polled again, which it asks for itself, behind the tasks that are ready now.
//! Invariant: nothing is gathered but of HTTP/2, and of it less than [`MOST`]; what is larger is not copied.
//! Invariant: an idle connection holds no buffer.
//! Source: RFC 9113, section 3.4, for the preface by which a client says that it speaks HTTP/2.

#[cfg(test)]
mod tests;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How a connection of HTTP/2 begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are gathered at most: those of a record between nodes, about.
const MOST: usize = 16 * 1024;

/// A connection whose small writes are gathered.
pub(crate) struct Gathered<T> {
    inner: T,
    speaks: Speaks,
    /// What was written here, of which the first `sent` bytes have left.
    bytes: Vec<u8>,
    sent: usize,
    /// What has left is to be flushed.
    is_unflushed: bool,
    /// The connection is going to be polled again.
    is_awaited: bool,
}

#[derive(Clone, Copy)]
enum Speaks {
    /// So many bytes were those of the preface.
    Perhaps(usize),
    Http2,
    Other,
}

impl<T> Gathered<T> {
    /// One on which a client may speak HTTP/2.
    pub(crate) fn arriving(inner: T) -> Self {
        Self::new(inner, Speaks::Perhaps(0))
    }

    /// One on which HTTP/2 is spoken to a server.
    pub(crate) fn http2(inner: T) -> Self {
        Self::new(inner, Speaks::Http2)
    }

    fn new(inner: T, speaks: Speaks) -> Self {
        Self { inner, speaks, bytes: Vec::new(), sent: 0, is_unflushed: false, is_awaited: false }
    }

    fn gathers(&self) -> bool {
        matches!(self.speaks, Speaks::Http2)
    }
}

impl<T: Read + Unpin> Gathered<T> {
    /// Reads the rest of what may be the preface, and no more than that.
    fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
        known: usize,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; PREFACE.len()];
        let room = into.remaining().min(PREFACE.len() - known);
        let mut read = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.inner).poll_read(context, read.unfilled()))?;
        let read = read.filled();
        let so_far = known + read.len();
        self.speaks = match PREFACE.get(known..so_far) == Some(read) {
            true if so_far == PREFACE.len() => Speaks::Http2,
            true => Speaks::Perhaps(so_far),
            false => Speaks::Other,
        };
        into.put_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Gathered<T> {
    /// Sends what was gathered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            self.is_unflushed = true;
            match ready!(Pin::new(&mut self.inner).poll_write(context, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        if self.is_unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(context))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Read + Write + Unpin> Read for Gathered<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let own = &mut *self;
        match own.speaks {
            Speaks::Perhaps(known) => own.poll_begin(context, into, known),
            Speaks::Other => Pin::new(&mut own.inner).poll_read(context, into),
            Speaks::Http2 => {
                own.is_awaited = false;
                if let Poll::Ready(Err(error)) = own.poll_send(context) {
                    return Poll::Ready(Err(error));
                }
                Pin::new(&mut own.inner).poll_read(context, into)
            }
        }
    }
}

impl<T: Write + Unpin> Write for Gathered<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let own = &mut *self;
        if !own.gathers() {
            return Pin::new(&mut own.inner).poll_write_vectored(context, slices);
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if own.bytes.len() + length > MOST {
            ready!(own.poll_send(context))?;
        }
        if length > MOST {
            own.is_unflushed = true;
            return Pin::new(&mut own.inner).poll_write_vectored(context, slices);
        }
        slices.iter().for_each(|slice| own.bytes.extend_from_slice(slice));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = &mut *self;
        if !own.gathers() {
            return Pin::new(&mut own.inner).poll_flush(context);
        }
        if own.bytes.is_empty() {
            return own.poll_send(context);
        }
        // Whoever reads next sends it.
        if !std::mem::replace(&mut own.is_awaited, true) {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

//! The frames of HTTP/2 on a client's connection, counted as they pass.
//!
//! In:  a connection; what is read from it and written to it.
//! Out: the same bytes; how many requests were begun; an error once a client sends frames that neither ask nor answer anything and
//! that nothing explains.
//! Invariant: nothing is held back or changed, and what is no HTTP/2 is looked at no further than its first bytes.
//! Source: RFC 9113, sections 3.4 (preface), 4.1 (frames), 6 (their types) and 10.5 (denial of service).

#[cfg(test)]
mod tests;

use super::io::Transport;
use super::sniff::PREFACE;
use crate::sys::read;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The head of a frame.
const HEAD: usize = 9;

/// A connection whose frames are counted.
pub(crate) struct Watched {
    inner: Transport,
    read: Walk,
    written: Walk,
    budget: Budget,
    /// The last stream that its client opened.
    last: u32,
    observed: Arc<Observed>,
}

/// What a client was seen to do. It passes no thread, but hyper wants that it could.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    begun: AtomicU32,
    is_flooded: AtomicBool,
}

impl Observed {
    /// How many streams it has opened.
    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Was its connection ended because it sent too many frames that neither ask nor answer anything?
    pub(crate) fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }
}

impl Watched {
    /// Watches a connection, unless it is another node's, which has watched its client.
    pub(crate) fn new(inner: Transport) -> Self {
        let read = match inner {
            Transport::Mesh(_) => Walk::Foreign,
            Transport::Plain(_) | Transport::Tls(_) => Walk::Preface(0),
        };
        let written = Walk::Head([0; HEAD], 0);
        let budget = Budget { left: Budget::MOST, since: Instant::now() };
        Self { inner, read, written, budget, last: 0, observed: Arc::default() }
    }

    /// What its client is seen to do.
    pub(crate) fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observed)
    }

    /// So many bytes of these were written.
    fn note_written<'a>(&mut self, mut length: usize, slices: impl Iterator<Item = &'a [u8]>) {
        if matches!(self.read, Walk::Foreign) {
            return;
        }
        for slice in slices {
            let part = slice.get(..length).unwrap_or(slice);
            length -= part.len();
            self.written.pass(part, |frame| {
                if frame.carries() {
                    self.budget.earn();
                }
            });
        }
    }
}

impl Read for Watched {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if matches!(own.read, Walk::Foreign) {
            return Pin::new(&mut own.inner).poll_read(context, cursor);
        }
        if own.observed.is_flooded() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let Self { inner, read, budget, last, observed, .. } = own;
        read::observed(
            cursor,
            |room| Pin::new(inner).poll_read(context, room),
            |bytes| {
                read.pass(bytes, |frame| {
                    if frame.kind == HEADERS && frame.stream > *last {
                        *last = frame.stream;
                        observed.begun.fetch_add(1, Ordering::Relaxed);
                    }
                    if frame.carries() {
                        budget.earn();
                    } else if !budget.spends(Instant::now) {
                        observed.is_flooded.store(true, Ordering::Relaxed);
                    }
                });
            },
        )
    }
}

impl Write for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let length = ready!(Pin::new(&mut own.inner).poll_write(context, bytes))?;
        own.note_written(length, std::iter::once(bytes));
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let length = ready!(Pin::new(&mut own.inner).poll_write_vectored(context, slices))?;
        own.note_written(length, slices.iter().map(|slice| &**slice));
        Poll::Ready(Ok(length))
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    stream: u32,
}

impl Frame {
    /// Is it, or belongs to, what is asked or answered? How many of these may be empty, h2 bounds.
    const fn carries(self) -> bool {
        matches!(self.kind, DATA | HEADERS | CONTINUATION)
    }
}

/// How far one direction was looked at.
#[derive(Clone, Copy, Debug)]
enum Walk {
    /// So many bytes of the preface.
    Preface(usize),
    /// So many bytes of the head of a frame.
    Head([u8; HEAD], usize),
    /// So many bytes are left of a frame.
    Payload(usize),
    /// It is not HTTP/2, or not looked at.
    Foreign,
}

impl Walk {
    fn pass(&mut self, mut bytes: &[u8], mut saw: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let taken = match self {
                Self::Foreign => return,
                Self::Preface(met) => {
                    let expected = PREFACE.get(*met..).unwrap_or_default();
                    let length = expected.len().min(bytes.len());
                    if expected[..length] != bytes[..length] {
                        *self = Self::Foreign;
                        return;
                    }
                    *self =
                        if length == expected.len() { Self::Head([0; HEAD], 0) } else { Self::Preface(*met + length) };
                    length
                }
                Self::Head(head, have) => {
                    let length = bytes.len().min(HEAD - *have);
                    head[*have..][..length].copy_from_slice(&bytes[..length]);
                    *have += length;
                    if *have == HEAD {
                        let [a, b, c, kind, _flags, stream @ ..] = *head;
                        saw(Frame { kind, stream: u32::from_be_bytes(stream) & !(1 << 31) });
                        let left = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
                        *self = if left == 0 { Self::Head([0; HEAD], 0) } else { Self::Payload(left) };
                    }
                    length
                }
                Self::Payload(left) => {
                    let length = bytes.len().min(*left);
                    *self = if length == *left { Self::Head([0; HEAD], 0) } else { Self::Payload(*left - length) };
                    length
                }
            };
            bytes = &bytes[taken..];
        }
    }
}

/// How many frames a client may send that neither ask nor answer anything.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    /// When it was last filled by time alone.
    since: Instant,
}

impl Budget {
    /// At once, without any reason.
    const MOST: u32 = 1000;
    /// For each frame that asks or answers, either way: clients open windows, and measure the way with PING.
    const EARNED: u32 = 4;
    /// One more in so many milliseconds, without any reason.
    const MILLIS: u128 = 10;

    fn earn(&mut self) {
        self.left = Self::MOST.min(self.left + Self::EARNED);
    }

    /// One is spent, if one is left.
    fn spends(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let millis = now.saturating_duration_since(self.since).as_millis();
            self.since = now;
            self.left = u32::try_from(millis / Self::MILLIS).unwrap_or(u32::MAX).min(Self::MOST);
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

//! What a message carries after its head.
//!
//! In:  what hyper received, or bytes of ours.
//! Out: [`Payload`], which counts what passes and tells when it has passed.
//! Invariant: bytes and trailers pass as they come, one frame at a time: who reads slowly slows down who sends.
//! Invariant: what is kept of a request for another attempt is bounded by [`MAX_KEPT`]; beyond it there is none.

use crate::proxy::live::Cancelled;
use crate::telemetry::http::GrpcStatus;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::time::{Instant, Sleep};

/// Why a message broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The sender broke off.
    #[error("the message broke off")]
    Broken(#[from] hyper::Error),
    /// The time for the whole exchange is over.
    #[error("the request's timeout passed")]
    Timeout,
    /// It is no longer allowed.
    #[error("a policy ended the exchange")]
    Denied,
    /// Its beginning is no longer kept.
    #[error("the beginning of the message is no longer there")]
    Forgotten,
}

/// What is kept of a request for another attempt, or for a copy that is slower, in bytes.
const MAX_KEPT: usize = 64 * 1024;
/// The same for all requests of a pod together.
const KEPT_PER_POD: usize = 16 * 1024 * 1024;
/// What a frame costs beside its bytes: a client may send as many empty ones as it likes.
const FRAME: usize = 2 * size_of::<Part>();

/// What has passed of a message.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Bytes of its body.
    pub(crate) bytes: Cell<u64>,
    /// Has all of it?
    pub(crate) whole: Cell<bool>,
    /// Did it break off where it came from?
    pub(crate) broken: Cell<bool>,
    /// Did its time end?
    pub(crate) late: Cell<bool>,
    /// The status of a gRPC response.
    pub(crate) grpc_status: Cell<Option<GrpcStatus>>,
    /// Does whoever it is for take it?
    pub(crate) taker: Cell<Taker>,
    /// Messages of gRPC, where that is what passes.
    pub(crate) messages: RefCell<Option<Messages>>,
}

/// Whether a message is taken by whom it is for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Taker {
    /// Nobody wants to know.
    #[default]
    Unwatched,
    /// It asks for more.
    Asks,
    /// More is there since then, and it did not ask.
    Waits(std::time::Instant),
}

impl Taker {
    /// Since when nobody asks for what is there.
    pub(crate) const fn waits_since(self) -> Option<std::time::Instant> {
        match self {
            Self::Unwatched | Self::Asks => None,
            Self::Waits(since) => Some(since),
        }
    }

    const fn is_watched(self) -> bool {
        match self {
            Self::Unwatched => false,
            Self::Asks | Self::Waits(_) => true,
        }
    }
}

/// Counts the messages of gRPC in a body.
///
/// **Source**: gRPC over HTTP/2, "Length-Prefixed-Message": a flag, four bytes of length, the message.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Whole messages so far.
    pub(crate) count: u64,
    prefix: [u8; 5],
    have: usize,
    left: usize,
}

impl Messages {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.have < self.prefix.len() {
                let length = bytes.len().min(self.prefix.len() - self.have);
                self.prefix[self.have..][..length].copy_from_slice(&bytes[..length]);
                self.have += length;
                bytes = &bytes[length..];
                let [_, a, b, c, d] = self.prefix;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            } else {
                let length = bytes.len().min(self.left);
                self.left -= length;
                bytes = &bytes[length..];
            }
            if self.have == self.prefix.len() && self.left == 0 {
                self.count += 1;
                self.have = 0;
            }
        }
    }
}

/// What a message carries.
pub(crate) struct Payload {
    source: Source,
    passed: Rc<Passed>,
    /// When it must have passed.
    deadline: Option<Pin<Box<Sleep>>>,
    /// By what it is broken off.
    cancelled: Option<Rc<Cancelled>>,
    /// Dropped with it: whoever waits for its end.
    _end: Option<Box<dyn std::any::Any>>,
}

enum Source {
    /// At once.
    Bytes(Option<Bytes>),
    /// As it comes.
    Incoming(Incoming),
    /// From the beginning of what is kept, then as it comes. The number is that of the next frame.
    Kept(Rc<Keeper>, usize),
}

/// A message that may be sent more than once.
pub(crate) struct Keeper(RefCell<Kept>);

struct Kept {
    incoming: Option<Incoming>,
    /// Frames that are kept, the first of them being the one of number `first`.
    frames: Vec<Part>,
    first: usize,
    /// What they cost, here and among all of the pod's.
    cost: usize,
    of_pod: Rc<Cell<usize>>,
    /// Only what is being handed on is kept.
    gave_up: bool,
    waiting: Vec<Waker>,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    Broken,
}

impl Keeper {
    /// Keeps what comes, beside what else costs the pod `of_pod`.
    pub(crate) fn new(incoming: Incoming, of_pod: Rc<Cell<usize>>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Kept::new(Some(incoming), of_pod))))
    }

    /// Can it be sent from its beginning?
    pub(crate) fn is_whole(&self) -> bool {
        let kept = self.0.borrow();
        kept.first == 0 && !matches!(kept.frames.last(), Some(Part::Broken))
    }

    fn poll(&self, number: usize, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let kept = &mut *self.0.borrow_mut();
        let Some(at) = number.checked_sub(kept.first) else { return Poll::Ready(Some(Err(BodyError::Forgotten))) };
        if at == kept.frames.len() {
            let Some(incoming) = &mut kept.incoming else { return Poll::Ready(None) };
            let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) else {
                if !kept.waiting.iter().any(|waiting| waiting.will_wake(context.waker())) {
                    kept.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            };
            kept.take(frame, number);
        }
        match kept.frames.get(number - kept.first) {
            Some(Part::Data(data)) => {
                let data = data.clone();
                if kept.gave_up {
                    kept.forget(number + 1);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Part::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers.clone())))),
            Some(Part::Broken) => Poll::Ready(Some(Err(BodyError::Forgotten))),
            None => Poll::Ready(None),
        }
    }

    fn is_end(&self, number: usize) -> bool {
        let kept = self.0.borrow();
        number == kept.first + kept.frames.len() && kept.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn hint(&self, number: usize) -> SizeHint {
        let kept = self.0.borrow();
        let Some(at) = number.checked_sub(kept.first) else { return SizeHint::default() };
        let ahead: usize =
            kept.frames.iter().skip(at).map(|part| if let Part::Data(data) = part { data.len() } else { 0 }).sum();
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        let rest = kept.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

impl Kept {
    fn new(incoming: Option<Incoming>, of_pod: Rc<Cell<usize>>) -> Self {
        Self { incoming, frames: Vec::new(), first: 0, cost: 0, of_pod, gave_up: false, waiting: Vec::new() }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>, number: usize) {
        let part = match frame.map(|frame| frame.map(Frame::into_data)) {
            None => {
                self.incoming = None;
                None
            }
            Some(Err(_)) => {
                self.incoming = None;
                Some(Part::Broken)
            }
            Some(Ok(Ok(data))) => Some(Part::Data(data)),
            Some(Ok(Err(other))) => other.into_trailers().ok().map(Part::Trailers),
        };
        let cost = match &part {
            None => 0,
            Some(Part::Data(data)) => FRAME + data.len(),
            Some(Part::Trailers(_) | Part::Broken) => FRAME,
        };
        self.gave_up |= self.cost + cost > MAX_KEPT || self.of_pod.get() + cost > KEPT_PER_POD;
        if self.gave_up {
            // Nobody begins anew from here on; a reader that lags behind breaks off.
            self.forget(number);
        } else {
            self.cost += cost;
            self.of_pod.set(self.of_pod.get() + cost);
        }
        self.frames.extend(part);
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Forgets what stands before the frame of this number, and what it cost.
    fn forget(&mut self, number: usize) {
        self.frames.clear();
        self.first = number;
        self.of_pod.set(self.of_pod.get() - std::mem::take(&mut self.cost));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forget(0);
    }
}

impl Payload {
    fn of(source: Source, passed: Rc<Passed>) -> Self {
        Self { source, passed, deadline: None, cancelled: None, _end: None }
    }

    /// These bytes.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self::of(Source::Bytes(bytes), Rc::default())
    }

    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    /// What comes, counted in `passed`.
    pub(crate) fn incoming(incoming: Incoming, passed: Rc<Passed>) -> Self {
        Self::of(Source::Incoming(incoming), passed)
    }

    /// What `keeper` has and gets, from the beginning.
    pub(crate) fn kept(keeper: &Rc<Keeper>) -> Self {
        Self::of(Source::Kept(Rc::clone(keeper), 0), Rc::default())
    }

    /// The same, counted in `passed`.
    pub(crate) fn counted(mut self, passed: Rc<Passed>) -> Self {
        self.passed = passed;
        self
    }

    /// The same, which breaks off at `deadline`.
    pub(crate) fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        self
    }

    /// The same, which breaks off when this is given.
    pub(crate) fn unless(mut self, cancelled: &Rc<Cancelled>) -> Self {
        self.cancelled = Some(Rc::clone(cancelled));
        self
    }

    /// The same, which keeps `end` until it has passed or is given up.
    pub(crate) fn keeping(mut self, end: impl std::any::Any) -> Self {
        self._end = Some(Box::new(end));
        self
    }

    fn note_trailers(&self, trailers: &HeaderMap) {
        if let Some(status) = grpc_status(trailers) {
            self.passed.grpc_status.set(Some(status));
        }
    }
}

/// The status of a gRPC response, in its trailers or, without a message, in its headers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<GrpcStatus> {
    headers.get("grpc-status").map(GrpcStatus::parse)
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let own = &mut *self;
        let is_watched = own.passed.taker.get().is_watched();
        if is_watched {
            own.passed.taker.set(Taker::Asks);
        }
        if own.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            own.passed.late.set(true);
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        if own.cancelled.as_ref().is_some_and(|cancelled| cancelled.poll(context).is_ready()) {
            return Poll::Ready(Some(Err(BodyError::Denied)));
        }
        let frame = match &mut own.source {
            Source::Bytes(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Incoming(incoming) => {
                std::task::ready!(Pin::new(incoming).poll_frame(context)).map(|frame| frame.map_err(BodyError::from))
            }
            Source::Kept(keeper, number) => {
                let frame = std::task::ready!(keeper.poll(*number, context));
                *number += 1;
                frame
            }
        };
        if is_watched {
            own.passed.taker.set(Taker::Waits(std::time::Instant::now()));
        }
        match &frame {
            None => own.passed.whole.set(true),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    own.passed.bytes.set(own.passed.bytes.get() + length);
                    if let Some(messages) = &mut *own.passed.messages.borrow_mut() {
                        messages.pass(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    own.note_trailers(trailers);
                    own.passed.whole.set(true);
                }
                if own.is_end_stream() {
                    own.passed.whole.set(true);
                }
            }
            Some(Err(_)) => own.passed.broken.set(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Bytes(bytes) => bytes.is_none(),
            Source::Incoming(incoming) => incoming.is_end_stream(),
            Source::Kept(keeper, number) => keeper.is_end(*number),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
            }
            Source::Incoming(incoming) => incoming.size_hint(),
            Source::Kept(keeper, number) => keeper.hint(*number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: &'static [u8]) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        Some(Ok(Frame::data(Bytes::from_static(bytes))))
    }

    #[test]
    fn empty_frames_cost_too_and_nothing_is_owed_at_the_end() {
        let of_pod = Rc::<Cell<usize>>::default();
        let mut kept = Kept::new(None, Rc::clone(&of_pod));
        for number in 0..100_000 {
            kept.take(data(b""), number);
            assert!(of_pod.get() <= MAX_KEPT && kept.frames.len() <= MAX_KEPT / FRAME);
        }
        assert!(kept.gave_up && of_pod.get() == 0);
        let mut other = Kept::new(None, Rc::clone(&of_pod));
        other.take(data(b"kept"), 0);
        assert_eq!((of_pod.get(), other.first), (FRAME + 4, 0));
        drop((kept, other));
        assert_eq!(of_pod.get(), 0);
    }

    #[test]
    fn a_pod_that_has_much_keeps_no_more() {
        let of_pod = Rc::new(Cell::new(KEPT_PER_POD));
        let mut kept = Kept::new(None, Rc::clone(&of_pod));
        kept.take(data(b"more"), 0);
        assert!(kept.gave_up);
        assert_eq!(of_pod.get(), KEPT_PER_POD);
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 1], b"x", &[0, 0, 0]].concat();
        for size in 1..=bytes.len() {
            let mut messages = Messages::default();
            bytes.chunks(size).for_each(|chunk| messages.pass(chunk));
            assert_eq!(messages.count, 3, "in pieces of {size}");
        }
    }
}

//! Requests that go over to another protocol: WebSocket and its like, and CONNECT.
//!
//! In:  both halves of an exchange that was answered by 101, or CONNECT by 2xx.
//! Out: bytes, carried both ways until both sides have finished.
//! Invariant: from there on nothing is understood and everything is carried; the exchange ends with the connection.
//! Invariant: one that came from outside ends once nothing has passed for as long as the settings say; a pod's may rest.

use super::Entry;
use super::exchange::Exchange;
use crate::proxy::facts::Facts;
use crate::proxy::live::{Cancelled, Registration};
use crate::proxy::refusal::{self, Refusal};
use crate::telemetry;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Carries what follows on both connections, in the background. It is judged again by what the exchange is judged by, and by
/// `facts`. `keeps` lives as long.
pub(crate) fn carry(
    (client, upstream): (OnUpgrade, OnUpgrade),
    mut exchange: Exchange,
    facts: Option<Facts>,
    keeps: impl Sized + 'static,
) {
    let down = Rc::clone(&exchange.down);
    let mut entered = None;
    if let Some(facts) = facts {
        // Policies may have changed since it was asked for.
        exchange.refusal = facts.verdict((&down.worker, &down.pod), &down.worker.feed.snapshot());
        entered = exchange.judged.replace(down.pod.live.register(facts));
    }
    if exchange.refusal.is_some() {
        return;
    }
    let signal = |judged: &Option<Registration<Facts>>| judged.as_ref().map(|judged| Rc::clone(judged.cancelled()));
    let (cancelled, barred) = (signal(&exchange.judged), signal(&entered));
    telemetry::spawn_local("upgraded", async move {
        let moved = Rc::new(Moved { at: Cell::new(Instant::now()), sent: Cell::new(0), received: Cell::new(0) });
        let idle = match exchange.down.entry {
            Entry::Edge { .. } => Some(exchange.down.worker.config.edge.upgraded_idle_timeout),
            Entry::Pod => None,
        };
        let carrying = async {
            let (client, upstream) = tokio::try_join!(client, upstream).ok()?;
            copy(Noted { inner: TokioIo::new(client), moved: Rc::clone(&moved) }, upstream).await.ok()
        };
        let carried = tokio::select! {
            carried = carrying => Ok(carried.is_some()),
            refusal = given(cancelled) => Err(refusal),
            refusal = given(barred) => Err(refusal),
            () = moved.rests(idle) => Err(Refusal::new(refusal::IDLE, "nothing passed for as long as the settings allow")),
        };
        exchange.request.bytes.set(exchange.request.bytes.get() + moved.sent.get());
        exchange.response.bytes.set(exchange.response.bytes.get() + moved.received.get());
        match carried {
            Ok(is_whole) => exchange.response.whole.set(is_whole),
            Err(refusal) => exchange.refusal = Some(refusal),
        }
        drop((exchange, entered, keeps));
    });
}

/// Waits for a signal, if there is one.
async fn given(cancelled: Option<Rc<Cancelled>>) -> Refusal {
    match cancelled {
        Some(cancelled) => cancelled.wait().await,
        None => std::future::pending().await,
    }
}

async fn copy(mut client: Noted, upstream: Upgraded) -> io::Result<()> {
    tokio::io::copy_bidirectional(&mut client, &mut TokioIo::new(upstream)).await.map(drop)
}

/// What has passed, and when it did last.
struct Moved {
    at: Cell<Instant>,
    /// By the client.
    sent: Cell<u64>,
    /// By the client, too.
    received: Cell<u64>,
}

impl Moved {
    fn note(&self, count: &Cell<u64>, length: usize) {
        count.set(count.get() + u64::try_from(length).unwrap_or(u64::MAX));
        self.at.set(Instant::now());
    }

    /// Waits until nothing has passed for as long as `idle` says.
    async fn rests(&self, idle: Option<Duration>) {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let rests = self.at.get().elapsed();
            if rests >= idle {
                return;
            }
            tokio::time::sleep(idle - rests).await;
        }
    }
}

/// The client's connection, on which it is noted what passes.
struct Noted {
    inner: TokioIo<Upgraded>,
    moved: Rc<Moved>,
}

impl AsyncRead for Noted {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut own.inner).poll_read(context, buffer))?;
        own.moved.note(&own.moved.sent, buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Noted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
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
        own.moved.note(&own.moved.received, length);
        Poll::Ready(Ok(length))
    }
}

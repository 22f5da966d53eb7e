//! Requests that go over to another protocol: WebSocket and its like, and CONNECT.
//!
//! In:  both halves of an exchange that was answered by 101, or CONNECT by 2xx.
//! Out: bytes, carried both ways until both sides have finished.
//! Invariant: from there on nothing is understood and everything is carried; the exchange ends with the connection.

use super::exchange::Exchange;
use crate::proxy::facts::Facts;
use crate::proxy::live::{Cancelled, Registration};
use crate::proxy::refusal::Refusal;
use crate::telemetry;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::rc::Rc;

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
        let carrying = async {
            let (client, upstream) = tokio::try_join!(client, upstream).ok()?;
            copy(client, upstream).await
        };
        let carried = tokio::select! {
            carried = carrying => carried,
            _ = given(cancelled) => None,
            refusal = given(barred) => {
                exchange.refusal = Some(refusal);
                None
            }
        };
        if let Some((sent, received)) = carried {
            exchange.request.bytes.set(exchange.request.bytes.get() + sent);
            exchange.response.bytes.set(exchange.response.bytes.get() + received);
            exchange.response.whole.set(true);
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

async fn copy(client: Upgraded, upstream: Upgraded) -> Option<(u64, u64)> {
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok()
}

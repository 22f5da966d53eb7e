//! Requests that go over to another protocol: WebSocket and its like, and CONNECT.
//!
//! In:  both halves of an exchange that was answered by 101, or CONNECT by 2xx.
//! Out: bytes, carried both ways until both sides have finished.
//! Invariant: from there on nothing is understood and everything is carried; the exchange ends with the connection.

use super::exchange::Exchange;
use crate::proxy::facts::Facts;
use crate::telemetry;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::rc::Rc;

/// Carries what follows on both connections, in the background. It is judged again by what the exchange is judged by, else by
/// `facts`. `keeps` lives as long.
pub(crate) fn carry(
    (client, upstream): (OnUpgrade, OnUpgrade),
    mut exchange: Exchange,
    facts: Option<Facts>,
    keeps: impl Sized + 'static,
) {
    let down = Rc::clone(&exchange.down);
    if let Some(facts) = facts {
        // Policies may have changed since it was asked for.
        exchange.refusal = facts.verdict((&down.worker, &down.pod), &down.worker.feed.snapshot());
        exchange.judged = Some(down.pod.live.register(facts));
    }
    if exchange.refusal.is_some() {
        return;
    }
    let cancelled = exchange.judged.as_ref().map(|judged| Rc::clone(judged.cancelled()));
    telemetry::spawn_local("upgraded", async move {
        let cancelled = async {
            match &cancelled {
                Some(cancelled) => cancelled.wait().await,
                None => std::future::pending().await,
            }
        };
        let carrying = async {
            let (client, upstream) = tokio::try_join!(client, upstream).ok()?;
            copy(client, upstream).await
        };
        let carried = tokio::select! {
            carried = carrying => carried,
            _ = cancelled => None,
        };
        if let Some((sent, received)) = carried {
            exchange.request.bytes.set(exchange.request.bytes.get() + sent);
            exchange.response.bytes.set(exchange.response.bytes.get() + received);
            exchange.response.whole.set(true);
        }
        drop((exchange, keeps));
    });
}

async fn copy(client: Upgraded, upstream: Upgraded) -> Option<(u64, u64)> {
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok()
}

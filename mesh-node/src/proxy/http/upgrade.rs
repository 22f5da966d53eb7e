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

/// Carries what follows on both connections, in the background. `keeps` lives as long.
pub(crate) fn carry(
    (client, upstream): (OnUpgrade, OnUpgrade),
    exchange: Exchange,
    facts: Facts,
    keeps: impl Sized + 'static,
) {
    telemetry::spawn_local("upgraded", async move {
        let registration = exchange.down.pod.live.register(facts);
        let carrying = async {
            let (client, upstream) = tokio::try_join!(client, upstream).ok()?;
            copy(client, upstream).await
        };
        let carried = tokio::select! {
            carried = carrying => carried,
            _ = registration.cancelled().wait() => None,
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

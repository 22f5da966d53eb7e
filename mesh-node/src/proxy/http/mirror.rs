//! Copies of requests, whose answers nobody waits for.
//!
//! In:  a copy of a request, where it goes.
//! Out: nothing; what becomes of it is counted.
//! Invariant: the request itself never waits for its copy. A copy that falls behind breaks off.
//! Source: Istio `HTTPRoute.mirrors`: the authority gets the suffix `-shadow`; Gateway API `HTTPRequestMirrorFilter`.

use super::attempt::{Aim, Wanted};
use super::body::Payload;
use super::forward::endpoint;
use super::{Downstream, headers};
use crate::snapshot::http::Destination;
use crate::telemetry;
use http::header::EXPECT;
use http::uri::Authority;
use http::{Request, request};
use http_body_util::BodyExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends a copy in the background.
pub(crate) fn send(down: &Rc<Downstream>, to: &Destination, copy: Option<(request::Parts, Authority, Payload)>) {
    let (Destination::Upstream(upstream), Some((mut head, authority, body))) = (to, copy) else {
        return down.worker.metrics.mirror(false);
    };
    head.headers.remove(EXPECT);
    let (down, upstream) = (Rc::clone(down), Arc::clone(upstream));
    telemetry::spawn_local("mirror", async move {
        let sent = tokio::time::timeout(PATIENCE, async {
            let standing = down.pod.http.upstreams.standing(&upstream.key);
            let endpoint = endpoint(&upstream, &standing, (None, &[]), down.original).await.ok()?;
            let wanted = Wanted { version: head.version, may_upgrade: false, host: authority.host() };
            let snapshot = down.worker.feed.snapshot();
            let aim = Aim::new((&upstream, &standing), (&down, endpoint), &snapshot, wanted).ok()?;
            drop(snapshot);
            headers::address(&mut head, aim.place.version, &shadow(&authority), &aim.scheme());
            let answer = aim.send(&down, Request::from_parts(head, body)).await.ok()?;
            let mut body = answer.response.into_body();
            while let Some(frame) = body.frame().await {
                frame.ok()?;
            }
            answer.held.lease.give_back();
            Some(())
        });
        down.worker.metrics.mirror(matches!(sent.await, Ok(Some(()))));
    });
}

fn shadow(authority: &Authority) -> Authority {
    let port = authority.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}-shadow{port}", authority.host()).parse().unwrap_or_else(|_| authority.clone())
}

//! Copies of requests, whose answers nobody waits for.
//!
//! In:  a copy of a request, where it goes.
//! Out: nothing; what becomes of it is counted.
//! Invariant: the request itself never waits for its copy. A copy that falls behind breaks off.
//! Source: Istio `HTTPRoute.mirrors`: the authority gets the suffix `-shadow`; Gateway API `HTTPRequestMirrorFilter`.

use super::attempt::Aim;
use super::body::Payload;
use super::{Downstream, headers};
use crate::snapshot::NodeSnapshot;
use crate::snapshot::http::{Destination, Endpoints};
use crate::telemetry;
use http::header::EXPECT;
use http::uri::{Authority, Scheme};
use http::{Request, request};
use http_body_util::BodyExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends a copy in the background.
pub(crate) fn send(
    down: &Rc<Downstream>,
    snapshot: &NodeSnapshot,
    to: &Destination,
    copy: Option<(request::Parts, Authority, Payload)>,
) {
    let (Destination::Upstream(upstream), Some((mut head, authority, body))) = (to, copy) else {
        return down.worker.metrics.mirror(false);
    };
    let standing = down.pod.http.upstreams.standing(&upstream.key);
    let endpoint = match &upstream.endpoints {
        Endpoints::Original => Some(down.original),
        Endpoints::Static(_) => standing.choose(upstream, None, &[], Instant::now()),
        Endpoints::Dns(_) => None,
    };
    let Some(endpoint) = endpoint else { return down.worker.metrics.mirror(false) };
    let aim =
        Aim::new((upstream, &standing), endpoint, (snapshot, down.worker.feed.departure()), (head.version, false));
    let Ok(aim) = aim else { return down.worker.metrics.mirror(false) };
    headers::address(&mut head, aim.place.version, &shadow(&authority), &Scheme::HTTP);
    head.headers.remove(EXPECT);
    let down = Rc::clone(down);
    telemetry::spawn_local("mirror", async move {
        let request = Request::from_parts(head, body);
        let sent = tokio::time::timeout(PATIENCE, async {
            let answer = aim.send(&down, request).await.ok()?;
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

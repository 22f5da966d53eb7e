//! Sends a request until it is answered, or not worth another attempt.
//!
//! In:  a request whose route is found.
//! Out: the head of a response, with a body that follows it.
//! Invariant: every attempt goes to an endpoint that was not tried before, as long as there is one.
//! Invariant: neither a timeout nor another attempt outlasts the time that the whole request has.

use super::attempt::{Aim, Answer, Failure, Held, Kind};
use super::body::Payload;
use super::exchange::Exchange;
use super::headers::UNSENT;
use super::request::{Asking, asked, hits};
use super::resend::Resend;
use super::upstream::{Standing, Went};
use super::{affinity, headers, mirror, retry};
use crate::model::http::{HttpFilters, Share};
use crate::proxy::facts::Facts;
use crate::proxy::live::OneMore;
use crate::proxy::refusal::{self, Refusal};
use crate::snapshot::NodeSnapshot;
use crate::snapshot::http::{Destination, Endpoints, Upstream};
use crate::telemetry::Security;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// How a request is answered.
pub(super) enum Answered {
    /// Once.
    Response(Response<Payload>),
    /// By going over to another protocol on this connection.
    Upgrade {
        /// The head by which the client is told.
        response: Response<Payload>,
        /// The upstream's side.
        upstream: OnUpgrade,
        /// By what the connection is judged from then on.
        facts: Option<Facts>,
        /// What serves it, where that is to be counted.
        held: Option<Box<Held>>,
    },
}

/// Where a request goes and how.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) filters: &'a HttpFilters,
    pub(super) mirrors: &'a [(Destination, Share)],
}

impl<'a> Way<'a> {
    /// To an upstream, and nothing else.
    pub(super) fn plain(upstream: &'a Arc<Upstream>, filters: &'a HttpFilters) -> Self {
        Self { upstream, filters, mirrors: &[] }
    }
}

/// Sends a request.
pub(super) async fn forward(
    exchange: &mut Exchange,
    snapshot: &NodeSnapshot,
    asking: Asking,
    body: Incoming,
    way: Way<'_>,
) -> Result<Answered, Refusal> {
    let down = Rc::clone(&exchange.down);
    let standing = down.pod.http.upstreams.standing(&way.upstream.key);
    if way.upstream.limits.requests.is_some_and(|most| standing.requests.get() >= most) {
        let detail = format!("{} has as many requests as its traffic policy allows", way.upstream.key);
        return Err(Refusal::new(refusal::OVERFLOW, detail));
    }
    standing.budget.note_request(std::time::Instant::now());
    let plan = retry::Plan::new(way.filters.retry.as_ref());
    let mirrors: Vec<_> = way.mirrors.iter().filter(|(_, share)| hits(*share)).map(|(to, _)| to).collect();
    let repeats = !asking.changes && (plan.repeats() || !mirrors.is_empty());
    let affinity = affinity::Affinity::of(way.upstream, &asked(&asking), down.client.ip());
    let kept = repeats.then(|| Rc::clone(&down.pod.http.kept));
    let mut request = Resend::new(asking, body, kept, Rc::clone(&exchange.request));
    for to in mirrors {
        mirror::send(&down, to, request.copy());
    }
    let deadline = way.filters.request_timeout.map(|limit| Instant::from_std(exchange.started) + limit);
    let mut tried = Vec::new();
    let mut retrying = None;
    loop {
        exchange.attempts += 1;
        let made = exchange.attempts;
        let endpoint = endpoint(way.upstream, &standing, (affinity.key, &tried), down.original).await?;
        let aim = Aim::new((way.upstream, &standing), (&down, endpoint), snapshot, request.wanted())?;
        note(exchange, &aim);
        let limit = way.filters.attempt_timeout.map(|limit| Instant::now() + limit);
        let limit = [deadline, limit].into_iter().flatten().min();
        let went = within(limit, pin!(aim.send(&down, request.next(aim.place.version, &aim.scheme())?))).await;
        drop(retrying.take());
        let again = match &went {
            Ok(answer) => {
                let (status, headers) = (answer.response.status(), answer.response.headers());
                judge(aim.at(), Went::Answered(status.as_u16()));
                // Nobody but another node can know that its application was sent nothing.
                if aim.security() == Security::MutualTls && headers.contains_key(UNSENT) {
                    plan.wants_after(made, Kind::Connect, request.method())
                } else {
                    plan.wants_instead(made, status, headers, request.method())
                }
            }
            Err(failure) => {
                if !matches!(failure.kind, Kind::Overflow | Kind::Denied) {
                    judge(aim.at(), Went::Unanswered);
                }
                plan.wants_after(made, failure.kind, request.method())
            }
        };
        let went = went.map_err(|failure| {
            request.give_back(failure.unsent);
            failure.refusal
        });
        let rest = plan.rest(made, fastrand::f64());
        let in_time = deadline.is_none_or(|deadline| Instant::now() + rest < deadline);
        if again && in_time && request.can_be_sent() && retry::takes_retry(&standing, &way.upstream.limits) {
            retrying = Some(OneMore::new(&standing, |standing| &standing.retries));
            tried.push(endpoint);
            tokio::time::sleep(rest).await;
            continue;
        }
        let answer = went?;
        exchange.answered = Some(std::time::Instant::now());
        let mut answered = finish(exchange, request.method(), answer, (&aim, deadline));
        let (Answered::Response(response) | Answered::Upgrade { response, .. }) = &mut answered;
        affinity.tell(response);
        return Ok(answered);
    }
}

/// The endpoint for the next attempt: none of `tried` as long as there is another.
///
/// **Errors**: there is none.
pub(crate) async fn endpoint(
    upstream: &Arc<Upstream>,
    standing: &Standing,
    (key, tried): (Option<u64>, &[SocketAddr]),
    original: SocketAddr,
) -> Result<SocketAddr, Refusal> {
    let chosen = match &upstream.endpoints {
        Endpoints::Original => Some(original),
        Endpoints::Static(_) => standing.choose(upstream, key, tried, std::time::Instant::now()),
        Endpoints::Dns(names) => standing.resolve(names, tried, original.is_ipv6()).await,
    };
    chosen.ok_or_else(|| Refusal::new(refusal::NO_ENDPOINTS, format!("{} has no ready endpoint", upstream.key)))
}

fn note(exchange: &mut Exchange, aim: &Aim) {
    exchange.upstream = Some(Arc::clone(&aim.upstream));
    exchange.endpoint = Some(aim.place.endpoint);
    exchange.workload.clone_from(&aim.workload);
    exchange.security = aim.security();
    if !aim.upstream.service.host.is_empty() {
        exchange.service = Some(Arc::clone(&aim.upstream.service));
    }
}

async fn within(
    limit: Option<Instant>,
    sending: Pin<&mut impl Future<Output = Result<Answer, Failure>>>,
) -> Result<Answer, Failure> {
    let Some(limit) = limit else { return sending.await };
    tokio::time::timeout_at(limit, sending).await.unwrap_or_else(|_| {
        let refusal = Refusal::new(refusal::REQUEST_TIMEOUT, "the upstream did not answer in time");
        Err(Failure { kind: Kind::Timeout, refusal, unsent: None })
    })
}

/// Judges an endpoint of an upstream by how it went there.
pub(crate) fn judge((standing, upstream, endpoint): (&Standing, &Upstream, SocketAddr), went: Went) {
    if standing.judge(upstream, endpoint, went, std::time::Instant::now()) {
        tracing::info!(upstream = &*upstream.key, %endpoint, "an endpoint that fails is left out for a while");
    }
}

/// What the client is answered.
fn finish(
    exchange: &mut Exchange,
    method: &Method,
    answer: Answer,
    (aim, deadline): (&Aim, Option<Instant>),
) -> Answered {
    let Answer { response, held } = answer;
    match hand_back(exchange, response, aim.may_upgrade.then_some(method)) {
        Handed::Over(response, upstream) => {
            Answered::Upgrade { response, upstream, facts: Some(aim.place.facts()), held: Some(Box::new(held)) }
        }
        Handed::Back(response) => {
            exchange.held = Some(held);
            Answered::Response(response.map(|body| body.until(deadline)))
        }
    }
}

/// A response of an upstream, as it goes to the client.
pub(super) enum Handed {
    /// With its body.
    Back(Response<Payload>),
    /// The connection goes over to another protocol, which the upstream's side of it speaks.
    Over(Response<Payload>, OnUpgrade),
}

/// Hands an upstream's response to the client. `may_change` is the method of a request by which the connection may go over to
/// another protocol.
pub(super) fn hand_back(exchange: &Exchange, mut response: Response<Incoming>, may_change: Option<&Method>) -> Handed {
    let status = response.status();
    let changes = may_change.is_some_and(|method| {
        status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success())
    });
    if changes {
        let upstream = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(UPGRADE).cloned();
        let mut response = response.map(|_| Payload::empty());
        headers::strip(response.headers_mut());
        if let Some(protocol) = protocol {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(UPGRADE, protocol);
        }
        return Handed::Over(response, upstream);
    }
    if let Some(status) = super::body::grpc_status(response.headers()) {
        exchange.response.grpc_status.set(Some(status));
    }
    let passed = Rc::clone(&exchange.response);
    let mut response = response.map(|body| Payload::incoming(body, passed));
    headers::strip(response.headers_mut());
    Handed::Back(response)
}

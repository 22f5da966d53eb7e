//! One request, from its arrival to the head of its response.
//!
//! In:  a request on a connection whose dialled address is known.
//! Out: a response, whose body takes the exchange's record with it.
//! Phases: identify, route, filter, forward (pick, connect, send, again if it may), filter back.
//! Invariant: each phase is one function; what cannot be served is answered, never left.
//! Source: Gateway API and Istio for what filters do and in which order; Fetch for CORS.

use super::body::Payload;
use super::dialled::{Dialled, dialled};
use super::exchange::Exchange;
use super::forward::{self, Answered, Way};
use super::judged::{cut_short, unless_denied};
use super::{Downstream, Entry, headers, reply, upgrade};
use crate::model::http::{HttpFilters, Share};
use crate::policy;
use crate::proxy::authorize::{Entering, Head, Tell};
use crate::proxy::facts::Facts;
use crate::proxy::refusal::{self, Refusal};
use crate::route::matching::{self, Asked};
use crate::route::rewriting::{self, Arrived};
use crate::route::{self, cors};
use crate::snapshot::NodeSnapshot;
use crate::snapshot::http::{Destination, Route, RouteTable, Target};
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

/// What is done to requests that no rule speaks of.
static NO_FILTERS: LazyLock<HttpFilters> = LazyLock::new(HttpFilters::default);

/// A request whose head is understood.
pub(super) struct Asking {
    pub(super) head: request::Parts,
    pub(super) authority: Authority,
    /// By which it came.
    pub(super) scheme: &'static str,
    /// In which it goes on, unless the port there says another.
    pub(super) version: Version,
    /// May the connection go over to another protocol?
    pub(super) changes: bool,
    /// Which, where HTTP/1.1 names it.
    pub(super) protocol: Option<HeaderValue>,
}

impl Asking {
    /// As policies judge it.
    pub(super) fn judged(&self) -> policy::Request<'_> {
        let head = &self.head;
        policy::Request::new(head.method.as_str(), self.authority.as_str(), head.uri.path(), &head.headers)
    }
}

/// Serves one request.
pub(super) async fn serve(
    down: Rc<Downstream>,
    mut request: Request<Incoming>,
) -> Result<Response<Payload>, Infallible> {
    let client = Client::of(&down, &mut request);
    let (mut head, body) = request.into_parts();
    if let Entry::Edge { scheme, .. } = down.entry {
        rewriting::forwarded(&mut head.headers, down.client.ip(), scheme);
    }
    let snapshot = down.worker.feed.snapshot();
    let mut exchange = Exchange::outbound(&down, &head, &snapshot);
    let answered = match identify(head, &mut exchange).and_then(|asking| enter(&mut exchange, &snapshot, asking)) {
        Ok(asking) => judged(&mut exchange, &snapshot, asking, body).await,
        Err(refusal) => Err(refusal),
    };
    Ok(conclude(exchange, answered, client))
}

/// The request, if it may enter where it did, and the routes that are there for it. What policies speak of is judged again while it
/// lasts.
fn enter(exchange: &mut Exchange, snapshot: &NodeSnapshot, asking: Asking) -> Result<Entered, Refusal> {
    let down = &exchange.down;
    let Entry::Edge { port, sni, .. } = &down.entry else { return Ok((asking, None)) };
    let host = asking.authority.host();
    let entered = snapshot.edge.as_ref().and_then(|edge| edge.host(*port, host));
    let no_route = || Refusal::new(refusal::NO_ROUTE, "no route of a gateway speaks of the host");
    let entered = entered.ok_or_else(no_route)?;
    let says_nothing = |entrance| snapshot.entrances.get(entrance).is_some_and(|chains| chains.is_empty());
    let is_free = entered.entrances().all(says_nothing);
    // An upgraded connection may outlive any policy.
    if !is_free || asking.changes {
        let head = Rc::new(Head::of(&asking.head, asking.authority.as_str()));
        let local = SocketAddr::new(down.original.ip(), *port);
        let entry = Entering { client: down.client, local, host: host.into(), sni: sni.clone() };
        entry.judge(&down.worker, snapshot, &asking.judged(), Tell::Everything)?;
        exchange.judged = Some(down.pod.live.register(Facts::Entered { entry, head }));
    }
    Ok((asking, Some(Arc::clone(&entered.table))))
}

/// A request, and the routes that are there for it where it came through a gateway.
type Entered = (Asking, Option<Arc<RouteTable>>);

/// The answer, unless the request is no longer allowed before it comes.
async fn judged(
    exchange: &mut Exchange,
    snapshot: &NodeSnapshot,
    asking: Entered,
    body: Incoming,
) -> Result<Answered, Refusal> {
    let cancelled = exchange.judged.as_ref().map(|judged| Rc::clone(judged.cancelled()));
    let mut answering = pin!(answer(exchange, snapshot, asking, body));
    match cancelled {
        None => answering.await,
        Some(cancelled) => Ok(cut_short(unless_denied(&cancelled, answering.as_mut()).await?, &cancelled)),
    }
}

/// Who waits for a response.
pub(super) struct Client {
    version: Version,
    is_grpc: bool,
    upgrade: OnUpgrade,
}

impl Client {
    /// The one that sent `request`.
    pub(super) fn of(down: &Downstream, request: &mut Request<Incoming>) -> Self {
        let version = request.version();
        down.is_http2.set(version == Version::HTTP_2);
        Self { version, is_grpc: reply::is_grpc(request.headers()), upgrade: hyper::upgrade::on(request) }
    }
}

/// What the client is answered. The exchange ends with the response's body.
pub(super) fn conclude(
    mut exchange: Exchange,
    answered: Result<Answered, Refusal>,
    client: Client,
) -> Response<Payload> {
    let Client { version, is_grpc, upgrade } = client;
    let mut response = match answered {
        Ok(Answered::Response(response)) => response,
        Ok(Answered::Upgrade { response, upstream, facts, held }) => {
            exchange.status = Some(response.status());
            upgrade::carry((upgrade, upstream), exchange, facts, held);
            return response;
        }
        Err(refusal) => {
            let refusal = if exchange.request.broken.get() {
                Refusal::new(refusal::BAD_REQUEST, "the request's body broke off")
            } else {
                refusal
            };
            let response = reply::refused(&refusal, is_grpc);
            exchange.refusal = Some(refusal);
            response
        }
    };
    // What cannot be understood may be followed by what is no request.
    let is_over = exchange.refusal.as_ref().is_some_and(|refusal| refusal.reason == refusal::BAD_REQUEST);
    if version != Version::HTTP_2 && (is_over || exchange.down.is_last()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.status = Some(response.status());
    response.map(|body| {
        let passed = Rc::clone(&exchange.response);
        exchange.down.offers(&passed);
        body.counted(passed).keeping(exchange)
    })
}

/// What the request is for, said in only one way.
pub(super) fn identify(mut head: request::Parts, exchange: &mut Exchange) -> Result<Asking, Refusal> {
    let authority = headers::authority(&head).map_err(|error| Refusal::new(refusal::BAD_REQUEST, error.to_string()))?;
    exchange.authority = authority.as_str().to_owned();
    let protocol = headers::upgrade(&head);
    let changes = protocol.is_some() || (head.method == Method::CONNECT && head.version != Version::HTTP_2);
    headers::strip(&mut head.headers);
    let scheme = match exchange.down.entry {
        Entry::Pod => "http",
        Entry::Edge { scheme, .. } => scheme,
    };
    let version = wanted(&exchange.down.entry, &head);
    Ok(Asking { head, authority, scheme, version, changes, protocol })
}

/// The version in which a request goes on, unless the port that it goes to says another. A pod speaks to those it knows, as if
/// nobody were between. Browsers speak HTTP/2 to every edge, which tells nothing of the applications behind it.
fn wanted(entry: &Entry, head: &request::Parts) -> Version {
    match entry {
        Entry::Edge { .. } if !reply::is_grpc(&head.headers) => Version::HTTP_11,
        Entry::Pod | Entry::Edge { .. } => head.version,
    }
}

async fn answer(
    exchange: &mut Exchange,
    snapshot: &NodeSnapshot,
    (mut asking, table): Entered,
    body: Incoming,
) -> Result<Answered, Refusal> {
    let down = Rc::clone(&exchange.down);
    exchange.span.inject(&mut asking.head.headers);
    let table = match table {
        Some(table) => table,
        None => {
            let Dialled { service, upstream, table } = dialled(&down, snapshot, asking.authority.host())?;
            exchange.service = service;
            let Some(table) = table else {
                return forward::forward(exchange, snapshot, asking, body, Way::plain(&upstream, &NO_FILTERS)).await;
            };
            table
        }
    };
    let route = table.routes.iter().find(|route| matching::meets(&asked(&asking), &route.condition));
    let Some(route) = route else {
        return Err(Refusal::new(refusal::NO_ROUTE, "no rule of the routes for this port matches"));
    };
    let action = &route.action;
    exchange.origin = Some(Arc::clone(&action.origin));
    let permission = match filter(exchange, &mut asking, route).await? {
        Filtered::Answered(response) => return Ok(Answered::Response(response)),
        Filtered::Goes(permission) => permission,
    };
    let Target::Backends(backends) = &action.target else {
        return Err(Refusal::new(refusal::NO_BACKEND, "the rule leads nowhere"));
    };
    let backend = route::by_weight(backends.iter(), |backend| backend.weight, fastrand::u64(..))
        .ok_or_else(|| Refusal::new(refusal::NO_BACKEND, "the rule has no backend with a weight"))?;
    let upstream = match &backend.destination {
        Destination::Upstream(upstream) => upstream,
        Destination::Invalid(status) => {
            return Err(Refusal::new(refusal::NO_BACKEND, "the rule's backend cannot be used").answered(*status));
        }
    };
    rewriting::change(&mut asking.head.headers, &backend.request_headers);
    let way = Way { upstream, filters: &action.filters, mirrors: &action.mirrors };
    let mut answered = forward::forward(exchange, snapshot, asking, body, way).await?;
    if let Answered::Response(response) = &mut answered {
        let headers = response.headers_mut();
        rewriting::change(headers, &backend.response_headers);
        rewriting::change(headers, &action.filters.response_headers);
        for (name, value) in &permission {
            headers.insert(name, value.clone());
        }
    }
    Ok(answered)
}

/// What the client asked for, as conditions are compared with it.
pub(super) fn asked(asking: &Asking) -> Asked<'_> {
    Asked::of(&asking.head, &asking.authority, asking.scheme)
}

/// What the filters of a rule leave of a request.
enum Filtered {
    /// It is answered.
    Answered(Response<Payload>),
    /// It goes on, changed; its response gets these headers.
    Goes(HeaderMap),
}

/// Faults, redirects and changes of a rule.
async fn filter(exchange: &mut Exchange, asking: &mut Asking, route: &Route) -> Result<Filtered, Refusal> {
    let filters = &route.action.filters;
    let permission = match filters.cors.as_ref().map(|cors| cors::judge(&asked(asking), cors)) {
        Some(cors::Verdict::Answer(headers)) => {
            let mut response = reply::text(StatusCode::OK, "");
            *response.headers_mut() = headers;
            return Ok(Filtered::Answered(response));
        }
        Some(cors::Verdict::Permit(headers)) => headers,
        Some(cors::Verdict::Ignore) | None => HeaderMap::new(),
    };
    if let Some((delay, share)) = filters.fault.delay
        && hits(share)
    {
        exchange.delayed = true;
        tokio::time::sleep(delay).await;
    }
    if let Some((status, share)) = filters.fault.abort
        && hits(share)
    {
        return Err(Refusal::new(refusal::FAULT, "fault filter abort").answered(status));
    }
    let mut response = match &route.action.target {
        Target::Backends(_) => {
            let Asking { head, authority, scheme, .. } = asking;
            rewriting::rewrite((head, authority), scheme, &route.condition.path, filters);
            return Ok(Filtered::Goes(permission));
        }
        Target::Redirect(redirect) => {
            let arrived = Arrived { listener: exchange.down.original.port(), authority: asking.authority.port_u16() };
            let location = rewriting::location(&asked(asking), &route.condition.path, redirect, arrived);
            let location = HeaderValue::try_from(location)
                .map_err(|_| Refusal::new(refusal::NO_BACKEND, "the redirect leads to no valid address"))?;
            let mut response = reply::text(redirect.status, "");
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Target::Respond { status, body } => reply::text(*status, body.clone()),
    };
    rewriting::change(response.headers_mut(), &filters.response_headers);
    Ok(Filtered::Answered(response))
}

/// Is a request, by chance, one of this share?
pub(super) fn hits(share: Share) -> bool {
    fastrand::u32(..Share::ALL.parts) < share.parts
}

#[cfg(test)]
mod tests {
    use super::super::arrived;
    use super::*;

    /// The size of what an asynchronous function with these arguments is while it waits.
    fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_that_waits_is_small() {
        // It is moved once for each request, and held by each connection.
        let sizes = [size(serve), size(arrived::serve)];
        assert!(sizes[0] <= 7000 && sizes[1] <= 4096, "{sizes:?} bytes");
    }
}

//! HTTP connections of one pod, kept for its next requests.
//!
//! In:  an endpoint, who must be there, and which version is spoken.
//! Out: [`Lease`]: a connection that can take one request now.
//! Invariant: a connection serves the pod whose certificate opened it, and no other.
//! Invariant: a connection of HTTP/1.1 serves one request at a time; one of HTTP/2 up to [`STREAMS`], also those that came while
//! it was made. That it could not be made fails nobody but who made it.
//! Invariant: bounded in number for each endpoint, in time, and by the certificates that opened it.

use super::body::Payload;
use super::io::{Drain, Transport};
use super::speak::{Sender, Sent, speak};
use super::upstream::Standing;
use crate::model::Identity;
use crate::proxy::connect;
use crate::proxy::facts::Facts;
use crate::proxy::feed::Departure;
use crate::proxy::frame::Open;
use crate::proxy::live::OneMore;
use crate::proxy::outbound;
use crate::proxy::refusal::{self, Refusal};
use crate::proxy::tls::outside::{self, Server};
use crate::proxy::worker::{Pod, Worker};
use crate::snapshot::NodeSnapshot;
use crate::sys::socket::Destined;
use futures_util::future::Either;
use http::{Request, Version};
use hyper::client::conn::{http1, http2};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Idle connections of HTTP/1.1 to one endpoint.
const IDLE_PER_ENDPOINT: usize = 64;
/// How long a connection may idle, where the user says nothing else.
const IDLE: Duration = Duration::from_secs(60);
/// Streams at once on one connection of HTTP/2, before another is opened.
const STREAMS: u32 = 100;
/// How long a request waits for a connection that another one makes, before it makes one of its own.
const SHARING: Duration = Duration::from_secs(1);

/// Who is at an endpoint, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nobody proves who they are.
    Plain,
    /// A pod of the mesh.
    Mesh(Arc<Identity>),
    /// A server outside, to which TLS is spoken.
    Outside(Arc<Server>),
}

/// Where a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The address.
    pub(crate) endpoint: SocketAddr,
    /// Who must be there.
    pub(crate) peer: Peer,
    /// HTTP/1.1 or HTTP/2.
    pub(crate) version: Version,
}

/// By the address: there are few places with one, and an identity is long.
impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
    }
}

impl Place {
    /// By what a connection to it is judged.
    pub(crate) fn facts(&self) -> Facts {
        let identity = match &self.peer {
            Peer::Plain | Peer::Outside(_) => None,
            Peer::Mesh(identity) => Some(Arc::clone(identity)),
        };
        Facts::Outbound { to: self.endpoint, identity }
    }

    /// Is whoever was there still to be there, and spoken to so? A place that no pod of the mesh must prove stays as it is.
    pub(crate) fn is_current(&self, snapshot: &NodeSnapshot, departure: Departure) -> bool {
        match &self.peer {
            Peer::Plain | Peer::Outside(_) => true,
            Peer::Mesh(identity) => {
                outbound::at(snapshot, self.endpoint, departure).1.is_some_and(|now| now == *identity)
            }
        }
    }
}

/// One pod's HTTP connections.
#[derive(Default)]
pub(crate) struct HttpPool {
    one: RefCell<HashMap<Place, Vec<Idle>>>,
    many: RefCell<HashMap<Place, Vec<Shared>>>,
    /// Connections of HTTP/2 that are being made.
    making: RefCell<HashMap<Place, Rc<Making>>>,
}

/// A connection that is being made, and requests that wait for it.
#[derive(Default)]
struct Making {
    is_made: Cell<bool>,
    done: Notify,
}

/// Makes a connection for all that wait for it. They are told when it is dropped, whatever came of it.
pub(crate) struct Maker<'a> {
    pool: &'a HttpPool,
    place: &'a Place,
}

impl Drop for Maker<'_> {
    fn drop(&mut self) {
        if let Some(making) = self.pool.making.borrow_mut().remove(self.place) {
            making.done.notify_waiters();
        }
    }
}

/// Where a request's connection comes from.
pub(crate) enum Turn<'a> {
    /// It is open.
    Open(Lease),
    /// The request is to make it; others may wait for that.
    Make(Option<Maker<'a>>),
}

struct Idle {
    sender: http1::SendRequest<Payload>,
    limits: Limits,
    since: Instant,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Payload>,
    limits: Limits,
    streams: Rc<Cell<u32>>,
    idle_since: Rc<Cell<Instant>>,
}

/// What bounds a connection's life.
#[derive(Clone)]
struct Limits {
    expires: Option<SystemTime>,
    idle: Duration,
    /// Requests that it may still take; `None` for any number.
    left: Option<Rc<Cell<u32>>>,
    /// The other side said that it takes no more.
    drain: Arc<Drain>,
}

impl Limits {
    fn are_kept(&self) -> bool {
        !self.drain.is_given()
            && self.expires.is_none_or(|expires| expires > SystemTime::now())
            && self.left.as_ref().is_none_or(|left| left.get() > 0)
    }

    fn use_up(&self) {
        if let Some(left) = &self.left {
            left.set(left.get().saturating_sub(1));
        }
    }
}

/// A connection that can take one request now.
pub(crate) enum Lease {
    /// HTTP/1.1, for this request alone.
    One(OneLease),
    /// HTTP/2, beside others.
    Many(ManyLease),
}

/// A connection of HTTP/1.1.
pub(crate) struct OneLease {
    sender: http1::SendRequest<Payload>,
    limits: Limits,
    place: Place,
    pod: Rc<Pod>,
    /// Has it served before?
    pub(crate) reused: bool,
}

/// A stream of HTTP/2.
pub(crate) struct ManyLease {
    sender: http2::SendRequest<Payload>,
    streams: Rc<Cell<u32>>,
    idle_since: Rc<Cell<Instant>>,
    /// Has it served before?
    pub(crate) reused: bool,
}

impl Drop for ManyLease {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.idle_since.set(Instant::now());
    }
}

impl Lease {
    /// Has the connection served before?
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::One(lease) => lease.reused,
            Self::Many(lease) => lease.reused,
        }
    }

    /// Sends a request.
    #[expect(clippy::result_large_err, reason = "the request comes back whole")]
    pub(crate) fn send(&mut self, request: Request<Payload>) -> impl Future<Output = Sent> {
        match self {
            Self::One(lease) => Either::Left(lease.sender.try_send_request(request)),
            Self::Many(lease) => Either::Right(lease.sender.try_send_request(request)),
        }
    }

    /// The exchange has ended well: the connection may serve the next.
    pub(crate) fn give_back(self) {
        let Self::One(lease) = self else { return };
        if lease.sender.is_closed() || !lease.limits.are_kept() || lease.pod.is_stopping() {
            return;
        }
        let mut pool = lease.pod.http.pool.one.borrow_mut();
        let idle = pool.entry(lease.place).or_default();
        if idle.len() < IDLE_PER_ENDPOINT {
            idle.push(Idle { sender: lease.sender, limits: lease.limits, since: Instant::now() });
        }
    }
}

impl HttpPool {
    /// A connection to `place` that is open.
    pub(crate) fn take(&self, pod: &Rc<Pod>, place: &Place) -> Option<Lease> {
        if place.version == Version::HTTP_2 {
            return self.share(place).map(Lease::Many);
        }
        let mut pool = self.one.borrow_mut();
        let idle = pool.get_mut(place)?;
        while let Some(Idle { sender, limits, .. }) = idle.pop() {
            if sender.is_ready() && limits.are_kept() {
                limits.use_up();
                let pod = Rc::clone(pod);
                return Some(Lease::One(OneLease { sender, limits, place: place.clone(), pod, reused: true }));
            }
        }
        None
    }

    /// A connection to `place` that is open, as soon as whoever makes one has it; or it is the caller's turn to make one. One
    /// failure is waited for, not one after another.
    pub(crate) async fn turn<'a>(&'a self, pod: &Rc<Pod>, place: &'a Place) -> Turn<'a> {
        if let Some(lease) = self.take(pod, place) {
            return Turn::Open(lease);
        }
        if place.version != Version::HTTP_2 {
            return Turn::Make(None);
        }
        let late = tokio::time::Instant::now() + SHARING;
        let mut may_wait = true;
        loop {
            let making = match self.making.borrow_mut().entry(place.clone()) {
                Entry::Vacant(free) => {
                    free.insert(Rc::default());
                    return Turn::Make(Some(Maker { pool: self, place }));
                }
                Entry::Occupied(_) if !may_wait => return Turn::Make(None),
                Entry::Occupied(making) => Rc::clone(making.get()),
            };
            let is_done = tokio::time::timeout_at(late, making.done.notified()).await.is_ok();
            if let Some(lease) = self.take(pod, place) {
                return Turn::Open(lease);
            }
            // It is there, and those that came before have all its streams: so many more share the next.
            may_wait = is_done && making.is_made.get();
        }
    }

    fn share(&self, place: &Place) -> Option<ManyLease> {
        let mut pool = self.many.borrow_mut();
        let shared = pool.get_mut(place)?;
        shared.retain(|one| !one.sender.is_closed() && one.limits.are_kept());
        let one = shared.iter().find(|one| one.streams.get() < STREAMS)?;
        one.limits.use_up();
        Some(one.lease(true))
    }

    /// Closes what idled too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.one.borrow_mut().retain(|_, idle| {
            idle.retain(|one| !one.sender.is_closed() && now.duration_since(one.since) < one.limits.idle);
            !idle.is_empty()
        });
        self.many.borrow_mut().retain(|_, shared| {
            shared.retain(|one| {
                let idles = one.streams.get() == 0 && now.duration_since(one.idle_since.get()) >= one.limits.idle;
                !one.sender.is_closed() && !idles
            });
            !shared.is_empty()
        });
    }

    /// Closes connections to `place` that take no more requests, as soon as nothing is under way on them.
    fn let_go(&self, place: &Place) {
        if let Some(idle) = self.one.borrow_mut().get_mut(place) {
            idle.retain(|one| one.limits.are_kept());
        }
        if let Some(shared) = self.many.borrow_mut().get_mut(place) {
            shared.retain(|one| one.limits.are_kept());
        }
    }

    /// Closes connections to places that are no longer as they were, as soon as nothing is under way on them.
    pub(crate) fn keep(&self, is_so: impl Fn(&Place) -> bool) {
        self.one.borrow_mut().retain(|place, _| is_so(place));
        self.many.borrow_mut().retain(|place, _| is_so(place));
    }

    /// Closes every connection as soon as nothing is under way on it.
    pub(crate) fn clear(&self) {
        self.one.borrow_mut().clear();
        self.many.borrow_mut().clear();
    }
}

impl Shared {
    fn lease(&self, reused: bool) -> ManyLease {
        self.streams.set(self.streams.get() + 1);
        let (streams, idle_since) = (Rc::clone(&self.streams), Rc::clone(&self.idle_since));
        ManyLease { sender: self.sender.clone(), streams, idle_since, reused }
    }
}

/// How the user bounds new connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) requests: Option<u32>,
}

/// Opens a connection to `place`. One that `may_upgrade` serves this request alone.
pub(crate) async fn open(
    (worker, pod): (&Rc<Worker>, &Rc<Pod>),
    place: &Place,
    (bounds, standing): (Bounds, &Rc<Standing>),
    may_upgrade: bool,
) -> Result<Lease, Refusal> {
    let patience = bounds.connect_timeout.unwrap_or(worker.config.connect_timeout);
    let drain = Arc::<Drain>::default();
    // It counts from here on, lest all that come at once find room.
    let counted = OneMore::new(standing, |standing| &standing.connections);
    let connecting = transport(worker, pod, place, &drain);
    let (transport, expires) = tokio::time::timeout(patience, Box::pin(connecting)).await.map_err(|_| {
        Refusal::new(refusal::UPSTREAM_TIMEOUT, format!("{} did not take the connection in time", place.endpoint))
    })??;
    let limits = Limits {
        expires,
        idle: bounds.idle.unwrap_or(IDLE),
        left: bounds.requests.filter(|&requests| requests > 0).map(|requests| Rc::new(Cell::new(requests - 1))),
        drain: Arc::clone(&drain),
    };
    let alive = (pod.live.register(place.facts()), counted);
    let (of, to) = (Rc::downgrade(pod), place.clone());
    let until = async move {
        let (registration, _counted) = alive;
        let drained = async {
            drain.given().await;
            if let Some(pod) = of.upgrade() {
                pod.http.pool.let_go(&to);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = registration.cancelled().wait() => {}
            () = drained => {}
        }
    };
    match speak(transport, (place.version, may_upgrade), until).await? {
        Sender::Many(sender) => {
            let idle_since = Rc::new(Cell::new(Instant::now()));
            let shared = Shared { sender, limits, streams: Rc::default(), idle_since };
            let lease = shared.lease(false);
            if let Some(making) = pod.http.pool.making.borrow().get(place) {
                making.is_made.set(true);
            }
            if !pod.is_stopping() {
                pod.http.pool.many.borrow_mut().entry(place.clone()).or_default().push(shared);
            }
            Ok(Lease::Many(lease))
        }
        Sender::One(sender) => {
            let limits = if may_upgrade { Limits { left: Some(Rc::default()), ..limits } } else { limits };
            Ok(Lease::One(OneLease { sender, limits, place: place.clone(), pod: Rc::clone(pod), reused: false }))
        }
    }
}

/// A connection to `place`, and when the certificates that opened it expire.
async fn transport(
    worker: &Worker,
    pod: &Pod,
    place: &Place,
    drain: &Arc<Drain>,
) -> Result<(Transport, Option<SystemTime>), Refusal> {
    match &place.peer {
        Peer::Plain => Ok((Transport::plain(plainly(worker, pod, place.endpoint).await?), None)),
        Peer::Outside(server) => {
            let stream = plainly(worker, pod, place.endpoint).await?;
            // What is written is whole messages or large: each goes at once.
            let _slower_without = stream.set_nodelay(true);
            let protocol = if place.version == Version::HTTP_2 { outside::H2 } else { outside::HTTP_1_1 };
            let patience = worker.config.handshake_timeout;
            let stream = worker.outside.connect(stream, server, Some(protocol), patience).await?;
            Ok((Transport::tls(stream), None))
        }
        Peer::Mesh(identity) => {
            let asked = Open { original: place.endpoint, heeds_drain: true };
            let peered = outbound::open(worker, pod, (place.endpoint, identity), asked, &[]).await?;
            Ok((Transport::dialled(peered.wire, drain), Some(peered.expires)))
        }
    }
}

/// A connection on which nothing was said.
async fn plainly(worker: &Worker, pod: &Pod, to: SocketAddr) -> Result<TcpStream, Refusal> {
    let connecting = connect::to_network(&pod.sockets, to, Destined::Plain, worker.config.connect_timeout);
    connecting.await.map_err(|error| Refusal::connect(&error))
}

//! HTTP of pods: requests are routed, one by one, to where the routes say.
//!
//! In:  a connection on which a pod's application speaks HTTP, to a service's address or a pod's; or one on which it is spoken to.
//! Out: each request sent to one of the endpoints that its route leads to, or to the application; its response handed back.
//! Phases: identify, route, filter, pick, connect, send, filter back, record.
//! Invariant: one snapshot per request.
//! Invariant: every request has one record, also one that is never answered.
//! Invariant: a request is sent again only while nothing of its body is lost.
//! Source: RFC 9110, 9112 and 9113, whose framing is hyper's; Gateway API and Istio for what routes mean.

mod abuse;
mod affinity;
mod arrived;
mod attempt;
mod body;
mod budget;
mod conduct;
mod dialled;
mod exchange;
mod forward;
mod frames;
mod gather;
mod headers;
mod io;
mod judged;
mod learnt;
mod mirror;
mod pool;
mod reply;
mod request;
mod resend;
mod retry;
mod sniff;
mod speak;
mod upgrade;
mod upstream;

pub(crate) use forward::{endpoint, judge};
pub(crate) use io::Transport;
pub(crate) use learnt::Learnt;
pub use learnt::Lesson;
pub(crate) use sniff::{Seen, Sniffed, begins_as_http, sniff};
pub(crate) use upstream::{EndpointStanding, Standing, Went};

use super::edge::Gate;
use super::facts::Facts;
use super::live::{Cancelled, OneMore, Registration};
use super::refusal::{self, Refusal};
use super::worker::{Pod, Worker};
use crate::policy::Sni;
use crate::telemetry::{self, Security, Side};
use ::http::{Request, Response};
use arrived::Arrived;
use body::{Passed, Payload};
use dialled::Plain;
use frames::Watched;
use gather::Gathered;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::{Service, service_fn};
use hyper_util::server::conn::auto;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// The longest head of a message, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Streams that one connection of HTTP/2 may have at once.
const MAX_STREAMS: u32 = 256;

/// How long a connection that idled may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes that may be on their way in one stream of HTTP/2, each way; from a pod to its own node more gains nothing.
const STREAM_WINDOW: u32 = 256 * 1024;

/// What one pod's HTTP leaves behind from request to request.
#[derive(Default)]
pub(crate) struct PodHttp {
    /// Connections to endpoints.
    pub(crate) pool: pool::HttpPool,
    /// What is under way, and who is left out.
    pub(crate) upstreams: upstream::Upstreams,
    /// What is kept of requests for another attempt, in bytes.
    pub(crate) kept: Rc<Cell<usize>>,
}

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        telemetry::spawn_local("http", future);
    }
}

/// A connection on which requests are made: by the pod's application, or to it.
pub(crate) struct Downstream {
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    /// Who dialled.
    client: SocketAddr,
    /// What was dialled.
    original: SocketAddr,
    entry: Entry,
    /// By what the connection is ended.
    cancelled: Rc<Cancelled>,
    /// Which of the pod's sides it is on.
    side: Side,
    /// What a port without routes amounts to, as of the last request.
    plain: RefCell<Option<Plain>>,
    /// Is HTTP/2 spoken?
    is_http2: Cell<bool>,
    /// Requests that are under way, and since when none is.
    under_way: Cell<u32>,
    rested: Cell<Instant>,
    /// How many were ever made, and how many of those were given up at once.
    asked: Cell<u32>,
    hasty: Cell<u32>,
    /// What of its responses has passed, where somebody outside may not take them.
    offered: RefCell<Vec<Weak<Passed>>>,
}

/// How requests came to the daemon.
pub(crate) enum Entry {
    /// On a connection of a pod.
    Pod,
    /// From outside, at a port of gateways.
    Edge {
        /// The port.
        port: u16,
        /// `http` or `https`.
        scheme: &'static str,
        /// The server name that was asked for in TLS.
        sni: Sni,
        /// It counts at the port for as long as anything of the connection lives.
        _counted: OneMore<Gate>,
    },
}

/// Serves a connection, on which an application of the pod or somebody outside speaks HTTP, to its end.
pub(crate) async fn serve_outbound(
    (worker, pod): (Rc<Worker>, Rc<Pod>),
    (transport, entry): (Transport, Entry),
    (client, original): (SocketAddr, SocketAddr),
    registration: Registration<Facts>,
) {
    let cancelled = Rc::clone(registration.cancelled());
    let down = Downstream::new((worker, pod), (client, original), (Side::Outbound, cancelled));
    let down = Rc::new(Downstream { entry, ..down });
    let requests = Rc::clone(&down);
    let service = service_fn(move |request| request::serve(Rc::clone(&requests), request));
    carry(&down, transport, service, (&registration, &Notify::new())).await;
}

/// Serves a connection on which a client speaks HTTP to a port of the pod, where `application` was connected, to its end.
pub(crate) async fn serve_inbound(
    (worker, pod): (Rc<Worker>, Rc<Pod>),
    (transport, application): (Transport, TcpStream),
    ends: (SocketAddr, SocketAddr),
    security: Security,
    registration: Registration<Facts>,
) {
    let side = (Side::Inbound, Rc::clone(registration.cancelled()));
    let down = Rc::new(Downstream::new((worker, pod), ends, side));
    let arrived = Rc::new(Arrived::new(Rc::clone(&down), (security, registration.facts()), application));
    let closed = Rc::clone(&arrived.closed);
    let service = service_fn(move |request| arrived::serve(Rc::clone(&arrived), request));
    carry(&down, transport, service, (&registration, &closed)).await;
}

/// Reads requests until the connection ends or is ended. Once it is `closed` at its far end, or the pod stops, it takes no more.
async fn carry<S>(down: &Downstream, transport: Transport, service: S, ends: (&Registration<Facts>, &Notify))
where
    S: Service<Request<Incoming>, Response = Response<Payload>, Error = Infallible, Future: 'static> + 'static,
{
    let (registration, closed) = ends;
    let (is_peer, drain) = (matches!(transport, Transport::Mesh(_)), transport.drain());
    let mut server = auto::Builder::new(LocalExecutor);
    server.http1().max_buf_size(MAX_HEAD);
    server
        .http2()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_send_buf_size(MAX_HEAD)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
    let transport = Watched::new(transport);
    let observed = transport.observed();
    let mut connection = pin!(server.serve_connection_with_upgrades(Gathered::arriving(transport), service));
    let mut stopped = pin!(down.pod.stopped());
    let (mut is_closed, mut is_stopped, mut is_ending) = (false, false, false);
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            _ = registration.cancelled().wait() => return down.judge(&observed, None, is_ending),
            () = down.stalled() => {
                let detail = "a response was not taken for longer than a connection may idle";
                registration.cancelled().cancel(Refusal::new(refusal::STALLED, detail));
            }
            () = down.idled() => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(FAREWELL, connection.as_mut()).await {
                    Ok(ended) => break ended,
                    Err(_) if down.under_way.get() == 0 => break Ok(()),
                    // A request that met the end is served.
                    Err(_) => {}
                }
            }
            () = closed.notified(), if !is_closed => {
                (is_closed, is_ending) = (true, true);
                match &drain {
                    Some(drain) if !down.is_http2.get() => drain.give(),
                    Some(_) | None => connection.as_mut().graceful_shutdown(),
                }
            }
            () = &mut stopped, if !is_stopped => {
                (is_stopped, is_ending) = (true, true);
                match &drain {
                    // Another node is told, and what it has sent by then is served.
                    Some(drain) if !down.is_http2.get() => drain.give(),
                    // Streams that HTTP/2 says it takes no more of are opened elsewhere. An older node, which cannot be told, sends
                    // elsewhere what it may send twice. Any other client of HTTP/1.1 cannot know that its next request comes too
                    // late, so it is told with its next response.
                    Some(_) | None if is_peer || down.is_http2.get() => connection.as_mut().graceful_shutdown(),
                    Some(_) | None => {}
                }
            }
        }
    };
    let error = ended.err();
    down.judge(&observed, error.as_deref().map(|error| error as _), is_ending);
    if down.asked.get() == 0 && matches!(down.entry, Entry::Edge { .. }) {
        down.worker.metrics.refusal(Side::Outbound, refusal::NO_REQUEST);
    }
}

impl Downstream {
    fn new(
        (worker, pod): (Rc<Worker>, Rc<Pod>),
        (client, original): (SocketAddr, SocketAddr),
        (side, cancelled): (Side, Rc<Cancelled>),
    ) -> Self {
        Self {
            worker,
            pod,
            client,
            original,
            entry: Entry::Pod,
            cancelled,
            side,
            plain: RefCell::default(),
            is_http2: Cell::new(false),
            under_way: Cell::new(0),
            rested: Cell::new(Instant::now()),
            asked: Cell::new(0),
            hasty: Cell::new(0),
            offered: RefCell::default(),
        }
    }

    /// Is this the last response that an HTTP/1.1 client gets here?
    fn is_last(&self) -> bool {
        self.pod.is_stopping() || self.worker.draining.get()
    }
}

//! Requests that arrive for a pod.
//!
//! In:  a connection on which a client speaks HTTP to a port of the pod; a connection to the application there.
//! Out: each request handed to the application; its response handed back.
//! Phases: identify, authorize, send, hand back, record.
//! Invariant: a client's connection has one to the application, and both speak the same version: what the application closes
//! after a response or while it idles, is closed towards the client.
//! Invariant: a request is sent once; only one of which nothing was sent, because the application had closed, is sent anew.

use super::Downstream;
use super::body::Payload;
use super::exchange::Exchange;
use super::forward::{Answered, Handed, hand_back};
use super::headers::UNSENT;
use super::io::Transport;
use super::judged::{cut_short, unless_denied};
use super::request::{Asking, Client, conclude, identify};
use super::resend::Resend;
use super::speak::{Sender, speak};
use crate::policy::Spoken;
use crate::proxy::authorize::{self, Head, Tell, policies};
use crate::proxy::connect;
use crate::proxy::facts::{Carries, Facts};
use crate::proxy::refusal::{self, Refusal};
use crate::snapshot::NodeSnapshot;
use crate::telemetry::{self, Security};
use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{Request, Response, Version, request};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify};

/// A connection on which requests arrive for a pod.
pub(crate) struct Arrived {
    pub(super) down: Rc<Downstream>,
    security: Security,
    /// How it arrived; what is judged on it is each request.
    facts: Facts,
    application: RefCell<Application>,
    /// Held by whoever makes the connection to the application.
    making: Mutex<()>,
    /// The application has closed its connection.
    pub(super) closed: Rc<Notify>,
}

/// The connection to the application.
enum Application {
    /// There is none, or a request is being sent on it.
    Away,
    /// Nothing was said on it.
    Fresh(TcpStream),
    /// HTTP is spoken on it.
    Speaking(Sender),
}

/// Tells when the connection to the application has ended.
struct Closed(Rc<Notify>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Arrived {
    pub(super) fn new(down: Rc<Downstream>, (security, facts): (Security, Facts), application: TcpStream) -> Self {
        // Small requests follow one another at once.
        let _slower_without = application.set_nodelay(true);
        let application = RefCell::new(Application::Fresh(application));
        Self { down, security, facts, application, making: Mutex::default(), closed: Rc::default() }
    }

    /// A connection to the application that can take a request now, and whether it has served before. Requests that come at once
    /// share the one that the first of them makes.
    async fn sender(&self, version: Version) -> Result<(Sender, bool), Refusal> {
        if let Some(sender) = self.speaking().await {
            return Ok((sender, true));
        }
        let _one_at_a_time = self.making.lock().await;
        if let Some(sender) = self.speaking().await {
            return Ok((sender, true));
        }
        let stream = match self.application.replace(Application::Away) {
            Application::Fresh(stream) => stream,
            Application::Away | Application::Speaking(_) => Box::pin(self.connect()).await?,
        };
        let closed = Closed(Rc::clone(&self.closed));
        let until = async move {
            let _told_at_the_end = closed;
            std::future::pending::<()>().await;
        };
        let sender = Box::pin(speak(Transport::plain(stream), (version, true), until)).await?;
        if let Sender::Many(sender) = &sender {
            self.application.replace(Application::Speaking(Sender::Many(sender.clone())));
        }
        Ok((sender, false))
    }

    /// The connection on which HTTP is spoken, if it can still take a request. One of HTTP/2 stays for others.
    async fn speaking(&self) -> Option<Sender> {
        let mut sender = match &mut *self.application.borrow_mut() {
            Application::Speaking(Sender::Many(sender)) => Sender::Many(sender.clone()),
            alone @ Application::Speaking(Sender::One(_)) => match std::mem::replace(alone, Application::Away) {
                Application::Speaking(sender) => sender,
                Application::Away | Application::Fresh(_) => return None,
            },
            Application::Away | Application::Fresh(_) => return None,
        };
        sender.is_ready().await.then_some(sender)
    }

    async fn connect(&self) -> Result<TcpStream, Refusal> {
        let down = &self.down;
        let connecting = connect::to_application(&down.pod.sockets, down.client.ip(), down.original);
        let stream = connecting.await.map_err(|error| Refusal::connect(&error))?;
        let _slower_without = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Gives back a connection that takes one request after another.
    fn give_back(&self, sender: Sender) {
        if let Sender::One(_) = sender {
            self.application.replace(Application::Speaking(sender));
        }
    }
}

/// Serves one request.
pub(super) async fn serve(
    arrived: Rc<Arrived>,
    mut request: Request<Incoming>,
) -> Result<Response<Payload>, Infallible> {
    let client = Client::of(&arrived.down, &mut request);
    let (mut head, body) = request.into_parts();
    name_host(&mut head, &arrived.down);
    let snapshot = arrived.down.worker.feed.snapshot();
    let identity = arrived.facts.arrival().and_then(|arrival| arrival.identity.as_deref());
    let mut exchange = Exchange::inbound(&arrived.down, &head, &snapshot, (arrived.security, identity));
    let asked = identify(head, &mut exchange);
    let allowed = asked.and_then(|asking| authorize(&arrived, &snapshot, asking, &mut exchange));
    drop(snapshot);
    let answered = match allowed {
        Ok(asking) => judged(&arrived, &mut exchange, asking, body).await,
        Err(refusal) => Err(refusal),
    };
    let is_last = match &answered {
        Ok((_, is_last)) => *is_last,
        Err(_) => false,
    };
    let is_unsent = answered.as_ref().is_err_and(Refusal::precedes_sending);
    let mut response = conclude(exchange, answered.map(|(answered, _)| answered), client);
    if is_last && !arrived.down.is_http2.get() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // Only a node knows what that means.
    if is_unsent && arrived.security == Security::MutualTls {
        response.headers_mut().insert(UNSENT, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// The request, if policies allow it. It is judged again while it lasts.
fn authorize(
    arrived: &Arrived,
    snapshot: &NodeSnapshot,
    asking: Asking,
    exchange: &mut Exchange,
) -> Result<Asking, Refusal> {
    let down = &arrived.down;
    let arrival = arrived.facts.arrival().ok_or_else(authorize::unknown)?;
    let is_free = policies(&down.pod, snapshot).is_some_and(|policies| policies.inbound.is_empty());
    // An upgraded connection may outlive any policy.
    if is_free && !asking.changes {
        return Ok(asking);
    }
    arrival.judge((&down.worker, &down.pod), snapshot, Spoken::Http(&asking.judged()), Tell::Everything)?;
    let head = Head::of(&asking.head, asking.authority.as_str());
    let facts = arrived.facts.clone().carrying(Carries::Request(Rc::new(head)));
    exchange.judged = Some(down.pod.live.register(facts));
    Ok(asking)
}

/// The application's answer, unless the request is no longer allowed before it comes.
async fn judged(
    arrived: &Arrived,
    exchange: &mut Exchange,
    asking: Asking,
    body: Incoming,
) -> Result<(Answered, bool), Refusal> {
    let cancelled = exchange.judged.as_ref().map(|judged| Rc::clone(judged.cancelled()));
    let mut answering = pin!(answer(arrived, exchange, asking, body));
    match cancelled {
        None => answering.await,
        Some(cancelled) => {
            let (answered, is_last) = unless_denied(&cancelled, answering.as_mut()).await?;
            Ok((cut_short(answered, &cancelled), is_last))
        }
    }
}

/// HTTP/1.0 has requests that name no host; they are for whatever was dialled.
fn name_host(head: &mut request::Parts, down: &Downstream) {
    if head.version == Version::HTTP_10
        && head.uri.authority().is_none()
        && !head.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(down.original.to_string())
    {
        head.headers.insert(HOST, host);
    }
}

/// The application's answer, and whether it closes its connection after it.
async fn answer(
    arrived: &Arrived,
    exchange: &mut Exchange,
    mut asking: Asking,
    body: Incoming,
) -> Result<(Answered, bool), Refusal> {
    exchange.span.inject(&mut asking.head.headers);
    let version = if asking.head.version == Version::HTTP_2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let may_change = asking.changes.then(|| asking.head.method.clone());
    let mut request = Resend::once(asking, body, Rc::clone(&exchange.request));
    let mut sending = request.next(version, &Scheme::HTTP)?;
    exchange.attempts = 1;
    let (response, sender) = loop {
        let (mut sender, reused) = arrived.sender(version).await?;
        let error = match sender.send(sending).await {
            Ok(response) => break (response, sender),
            Err(mut error) => match error.take_message() {
                // It was closed while it idled; that is no failure of the application.
                Some(unsent) if reused => {
                    sending = unsent;
                    continue;
                }
                Some(_) | None => error.into_error(),
            },
        };
        return Err(Refusal::new(refusal::UPSTREAM_RESET, telemetry::explain(&error)));
    };
    exchange.answered = Some(std::time::Instant::now());
    let is_last = closes(response.headers());
    let answered = match hand_back(exchange, response, may_change.as_ref()) {
        Handed::Back(response) => {
            arrived.give_back(sender);
            Answered::Response(response)
        }
        Handed::Over(response, upstream) => {
            // By its request, which was judged whatever policies there were.
            Answered::Upgrade { response, upstream, facts: None, held: None }
        }
    };
    Ok((answered, is_last))
}

/// Does whoever sent this head close the connection after the message?
fn closes(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

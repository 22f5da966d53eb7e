//! Connections that a pod's applications make.
//!
//! In:  a captured connection, whose local address is the one the application dialled.
//! Out: the stream carried to an endpoint, over mutual TLS when the endpoint's pod is in the mesh.
//! Phases: identify, choose, connect, open, relay, record.
//! Invariant: no byte leaves before the upstream has proved the identity that discovery gives for it.
//! Invariant: a refused or unreachable upstream resets the downstream at once.

mod choose;

use super::authorize::{self, Tell};
use super::buffer::Buffer;
use super::connect;
use super::facts::Facts;
use super::feed::Departure;
use super::frame::{Control, Open};
use super::hello;
use super::http::{self, Entry, Transport};
use super::io;
use super::live::Cancelled;
use super::pool::Peered;
use super::refusal::{self, Refusal};
use super::relay::{self, Ended, Role};
use super::report::Report;
use super::tls::handshake;
use super::tls::outside::Server;
use super::wire::{Event, Wire, WireError};
use super::worker::{Pod, Worker};
use crate::identity;
use crate::model::Identity;
use crate::model::http::AppProtocol;
use crate::policy::Sni;
use crate::snapshot::{NodeSnapshot, PodKey, WorkloadEntry};
use crate::sys::socket::Destined;
use crate::telemetry::{Security, Side};
use choose::{Counted, Target, choose};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A connection as it is seen before it goes anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dialled {
    /// Who dialled.
    client: SocketAddr,
    /// What.
    original: SocketAddr,
    /// The server name that is asked for in TLS of the application's own, where anybody wants to know.
    sni: Option<Arc<str>>,
}

/// Serves one captured connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, downstream: TcpStream, client: SocketAddr) {
    let Ok(original) = downstream.local_addr() else { return };
    let speaks_http =
        if original.ip().is_loopback() { Ok(false) } else { is_http(&worker, &downstream, original).await };
    if let Ok(true) = speaks_http {
        let registration = pod.live.register(Facts::Http);
        // Small answers follow one another at once.
        let _slower_without = downstream.set_nodelay(true);
        let way = (Transport::plain(downstream), Entry::Pod);
        return Box::pin(http::serve_outbound((worker, pod), way, (client, original), registration)).await;
    }
    let snapshot = worker.feed.snapshot();
    let mut report = Report::new((Rc::clone(&worker), Rc::clone(&pod)), Side::Outbound, client, original);
    report.source_workload = snapshot.pods.get(&pod.key).map(|local| Arc::clone(&local.workload));
    if speaks_http.is_err() {
        io::reset(downstream);
        return report.ended(&Ended::Reset);
    }
    drop(snapshot);
    let seen = Dialled { client, original, sni: Box::pin(server_name(&worker, &pod, &downstream, original)).await };
    let chosen = choose((&worker.feed.snapshot(), &pod.key), &seen, fastrand::u64(..));
    let target = match chosen {
        Ok(course) => {
            report.service.clone_from(&course.service);
            report.route.clone_from(&course.route);
            Box::pin(course.settle((&worker, &pod), &seen)).await
        }
        Err(refusal) => Err(refusal),
    };
    let target = match target {
        Ok(target) => target,
        Err(refusal) => return refuse(downstream, report, refusal),
    };
    report.upstream = Some(target.endpoint);
    report.destination_workload.clone_from(&target.workload);
    let snapshot = worker.feed.snapshot();
    if let Err(refusal) = authorize::leaving((&worker, &pod), &snapshot, target.endpoint, Tell::Everything) {
        return refuse(downstream, report, refusal);
    }
    drop(snapshot);
    let facts = Facts::Outbound { to: target.endpoint, identity: target.identity.clone() };
    let registration = pod.live.register(facts);
    let captured = Captured {
        worker: &worker,
        pod: &pod,
        downstream: &downstream,
        target: &target,
        cancelled: registration.cancelled(),
    };
    let ended = captured.carry(&mut report).await;
    drop(registration);
    match ended {
        Ok(ended) => {
            if !matches!(ended, Ended::Clean) {
                io::reset(downstream);
            }
            report.ended(&ended);
        }
        Err(refusal) => {
            target.counted.iter().for_each(|counted| counted.refused(&refusal));
            refuse(downstream, report, refusal);
        }
    }
}

fn refuse(downstream: TcpStream, report: Report, refusal: Refusal) {
    io::reset(downstream);
    report.refused(refusal);
}

/// The pod at an endpoint, and who must be there if connections to it are mutual TLS.
pub(super) fn at(
    snapshot: &NodeSnapshot,
    endpoint: SocketAddr,
    departure: Departure,
) -> (Option<Arc<WorkloadEntry>>, Option<Arc<Identity>>) {
    let workload = snapshot.directory.workloads.get(&endpoint.ip()).cloned();
    let identity = workload.as_ref().and_then(|workload| workload.proves(endpoint.port())).cloned();
    // In plain text, once the node has left that far: the other node may no longer take anything else.
    let identity = identity.filter(|_| departure < Departure::SpeakingPlain);
    (workload, identity)
}

/// The same, as one of this node's pods speaks to it. What a pod says to itself goes through its own loopback to its
/// application, past the mesh's listeners, where nobody speaks TLS.
pub(super) fn from(
    pod: &PodKey,
    snapshot: &NodeSnapshot,
    endpoint: SocketAddr,
    departure: Departure,
) -> (Option<Arc<WorkloadEntry>>, Option<Arc<Identity>>) {
    let (workload, identity) = at(snapshot, endpoint, departure);
    let is_self = snapshot.pods.get(pod).is_some_and(|pod| pod.addresses.contains(&endpoint.ip()));
    (workload, identity.filter(|_| !is_self))
}

/// Does the application speak HTTP on this connection? Its port says so, or its first bytes do.
///
/// **Errors**: the application broke off.
async fn is_http(worker: &Worker, downstream: &TcpStream, original: SocketAddr) -> std::io::Result<bool> {
    let protocol = {
        let snapshot = worker.feed.snapshot();
        let service = snapshot.directory.services.get(&original.ip());
        match service.map(|service| service.port(original.port())) {
            Some(Some(port)) => port.protocol,
            // What is no service's port is as its first bytes say.
            Some(None) => AppProtocol::Opaque,
            // A pod's own address: only what is a service's endpoint is looked at.
            None if snapshot.directory.service_of(&original).is_some() => AppProtocol::Undeclared,
            // Requests to hosts outside are told by the host that they name.
            None if !snapshot.directory.hosts.is_empty() => AppProtocol::Undeclared,
            None => AppProtocol::Opaque,
        }
    };
    match protocol {
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => Ok(true),
        AppProtocol::Opaque | AppProtocol::Tls => Ok(false),
        AppProtocol::Undeclared => {
            let is_http = http::sniff(downstream, worker.seen.is_http(original)).await?;
            worker.seen.note(original, is_http);
            Ok(is_http)
        }
    }
}

/// The server name that the application asks for in TLS of its own, where a route asks for it, or hosts outside are told by it.
/// Whoever dials a port that speaks TLS must speak first, and is waited for; where only hosts outside speak it on that port, of which
/// this may be none, for a while.
async fn server_name(worker: &Worker, pod: &Pod, downstream: &TcpStream, original: SocketAddr) -> Option<Arc<str>> {
    let (must_speak, should_speak) = {
        let snapshot = worker.feed.snapshot();
        let directory = &snapshot.directory;
        match directory.services.get(&original.ip()) {
            Some(service) => {
                let streams = service.port(original.port()).and_then(|port| port.streams.as_ref());
                streams.filter(|streams| streams.table(&pod.key).asks_sni())?;
                (true, true)
            }
            None if original.ip().is_loopback() || directory.hosts.is_empty() => return None,
            None if directory.service_of(&original).is_some() => return None,
            None => (false, directory.hosts.speak_tls(original.port())),
        }
    };
    if should_speak && !must_speak {
        // Who is silent for so long is carried as it is.
        let _silent = tokio::time::timeout(hello::PATIENCE, downstream.readable()).await;
    }
    let speaks = || io::peek_now(downstream, &mut [0]).is_ok_and(|there| there.is_some_and(|length| length > 0));
    if !must_speak && !speaks() {
        return None;
    }
    match hello::peek(downstream).await.sni() {
        Sni::Name(name) => Some(name),
        Sni::Absent | Sni::Unread => None,
    }
}

/// A connection of an application, on its way out.
struct Captured<'a> {
    worker: &'a Rc<Worker>,
    pod: &'a Pod,
    downstream: &'a TcpStream,
    target: &'a Target,
    cancelled: &'a Cancelled,
}

impl Captured<'_> {
    /// Carries it to its end.
    ///
    /// **Errors**: the endpoint did not take it.
    async fn carry(&self, report: &mut Report) -> Result<Ended, Refusal> {
        match (&self.target.identity, &self.target.outside) {
            (Some(identity), _) => {
                report.security = Security::MutualTls;
                self.over_mesh(identity, report).await
            }
            (None, Some(server)) => {
                report.security = Security::Tls;
                Box::pin(self.to_outside(server, report)).await
            }
            (None, None) => Box::pin(self.in_plain(report)).await,
        }
    }

    /// How long the endpoint may take to take the connection.
    fn patience(&self) -> Duration {
        let own = self.target.counted.as_ref().and_then(Counted::patience);
        own.unwrap_or(self.worker.config.connect_timeout)
    }

    /// It took the connection.
    fn opened(&self, report: &mut Report) {
        self.target.counted.iter().for_each(Counted::taken);
        report.opened();
    }

    /// A connection on which nothing was said.
    async fn connect(&self) -> Result<TcpStream, Refusal> {
        let connecting = connect::to_network(&self.pod.sockets, self.target.endpoint, Destined::Plain, self.patience());
        connecting.await.map_err(|error| Refusal::connect(&error))
    }

    async fn in_plain(&self, report: &mut Report) -> Result<Ended, Refusal> {
        let upstream = self.connect().await?;
        self.opened(report);
        let context = (&self.pod.buffers, &report.counts, self.cancelled);
        let ended = relay::plain(self.downstream, &upstream, context).await;
        if !matches!(ended, Ended::Clean) {
            io::reset(upstream);
        }
        Ok(ended)
    }

    async fn to_outside(&self, server: &Server, report: &mut Report) -> Result<Ended, Refusal> {
        let upstream = self.connect().await?;
        let _slower_without = upstream.set_nodelay(true);
        let patience = self.worker.config.handshake_timeout;
        let upstream = self.worker.outside.connect(upstream, server, None, patience).await?;
        self.opened(report);
        let context = (&self.pod.buffers, &report.counts, self.cancelled);
        Ok(relay::over_tls(self.downstream, upstream, context).await)
    }

    async fn over_mesh(&self, identity: &Arc<Identity>, report: &mut Report) -> Result<Ended, Refusal> {
        let endpoint = self.target.endpoint;
        let early = early(self.pod, self.downstream).await;
        // What a rule leads elsewhere is to the other node what dialled the endpoint itself.
        let asked = if report.route.is_some() { endpoint } else { report.destination };
        // What opening needs is gone while the stream lives.
        let opening = Box::pin(open(self.worker, self.pod, (endpoint, identity), asked.into(), early.bytes()));
        let mut peered = match self.target.counted.as_ref().and_then(Counted::patience) {
            Some(patience) => tokio::time::timeout(patience, opening).await.map_err(|_| {
                Refusal::new(refusal::UPSTREAM_TIMEOUT, format!("{endpoint} did not take the connection in time"))
            })??,
            None => opening.await?,
        };
        relay::add(&report.counts.request, early.bytes().len());
        drop(early);
        self.opened(report);
        let context = (&self.pod.buffers, &report.counts, self.cancelled);
        let ended = relay::over_wire(self.downstream, (&mut peered.wire, None), Role::Dialler, context).await;
        if matches!(ended, Ended::Clean) && !self.worker.draining.get() {
            self.pod.pool.borrow_mut().put(endpoint, peered);
        }
        Ok(ended)
    }
}

/// What the application has sent already, or sends within a turn of the loop; it rides with OPEN.
struct Early(Option<(Buffer, usize)>);

impl Early {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |(buffer, length)| &buffer[..*length])
    }
}

async fn early(pod: &Pod, downstream: &TcpStream) -> Early {
    let mut buffer = pod.buffers.take();
    let read = match io::read_first(downstream, &mut buffer) {
        Ok(None) if matches!(io::readable_in_a_turn(downstream).await, Ok(true)) => {
            let room = buffer.len();
            io::read_now(downstream, &mut [IoSliceMut::new(&mut buffer)], room)
        }
        read => read,
    };
    match read {
        Ok(Some(length)) if length > 0 => Early(Some((buffer, length))),
        // The relay meets the same condition.
        Ok(_) | Err(_) => Early(None),
    }
}

/// A wire on which the other side has accepted a stream.
pub(super) async fn open(
    worker: &Worker,
    pod: &Pod,
    (endpoint, identity): (SocketAddr, &Arc<Identity>),
    asked: Open,
    early: &[u8],
) -> Result<Peered, Refusal> {
    loop {
        let idle = pod.pool.borrow_mut().take(endpoint, identity);
        let reused = idle.is_some();
        let mut peered = match idle {
            Some(peered) => peered,
            // A handshake needs much memory for a short time.
            None => Box::pin(dial(worker, pod, endpoint, identity)).await?,
        };
        let patience = worker.config.connect_timeout;
        match tokio::time::timeout(patience, ask(pod, &mut peered.wire, asked, early)).await {
            Ok(Ok(())) => return Ok(peered),
            // The other side closed while idle: it did not act on what we sent. If it broke off without a
            // word, it may have, so only a stream without payload is tried again.
            Ok(Err(Asked::Broken(WireError::Closed))) if reused => {}
            Ok(Err(Asked::Broken(WireError::CutOff | WireError::Io(_)))) if reused && early.is_empty() => {}
            Ok(Err(Asked::Broken(error))) => return Err(Refusal::wire(&error)),
            Ok(Err(Asked::Refused(reason))) => {
                let detail = format!("the peer node says: {}", if reason.is_empty() { "reset" } else { &reason });
                // A denial is told to whoever asks as that.
                let is_denied = reason == refusal::POLICY_DENIED;
                let reason = if is_denied { refusal::POLICY_DENIED } else { refusal::PEER_REFUSED };
                return Err(Refusal::new(reason, detail));
            }
            Err(_) => {
                let detail = "the peer node did not answer in time";
                return Err(Refusal::new(refusal::UPSTREAM_TIMEOUT, detail));
            }
        }
    }
}

enum Asked {
    Refused(String),
    Broken(WireError),
}

impl From<WireError> for Asked {
    fn from(error: WireError) -> Self {
        Self::Broken(error)
    }
}

/// Opens a stream on a wire.
async fn ask(pod: &Pod, wire: &mut Wire, asked: Open, early: &[u8]) -> Result<(), Asked> {
    let (mut sender, mut receiver) = wire.split();
    let sent = sender.control_with_data(&Control::Open(asked), early).await;
    // A peer that refuses may have closed already: what it said last tells more than the failed write.
    let answer = receiver.next(&pod.buffers).await;
    receiver.release();
    match answer.map(|batch| (batch.is_empty(), batch.then)) {
        Ok((true, Some(Event::Control(Control::Accept)))) => Ok(sent?),
        Ok((true, Some(Event::Control(Control::Reset(reason))))) => Err(Asked::Refused(reason)),
        Ok((true, Some(Event::Closed))) => Err(WireError::Closed.into()),
        Ok(_) => Err(WireError::OutOfOrder.into()),
        Err(error) => Err(error.into()),
    }
}

/// A new wire to `endpoint`, whose pod has proved to be `identity`.
async fn dial(worker: &Worker, pod: &Pod, endpoint: SocketAddr, identity: &Arc<Identity>) -> Result<Peered, Refusal> {
    let own = pod.identity(worker)?;
    let credentials = worker.keyring.current(&own).ok_or_else(|| {
        Refusal::new(refusal::NO_CREDENTIALS, format!("no certificate for {own}; the issuer may be away"))
    })?;
    let patience = worker.config.connect_timeout;
    let stream = connect::to_network(&pod.sockets, endpoint, Destined::Mesh, patience)
        .await
        .map_err(|error| Refusal::connect(&error))?;
    let shaking = handshake::connect(&stream, Arc::clone(&credentials.client), endpoint.ip());
    let session = tokio::time::timeout(worker.config.handshake_timeout, shaking)
        .await
        .map_err(|_| Refusal::new(refusal::HANDSHAKE_TIMEOUT, "the peer node was silent during the TLS handshake"))?
        .map_err(|error| Refusal::handshake(&error))?;
    let peer = identity::peer(&session.peer).map_err(|error| Refusal::new(error.reason(), error.to_string()))?;
    if peer.identity != **identity {
        let detail = format!("{endpoint} proved to be {}, discovery says {identity}", peer.identity);
        return Err(Refusal::new(refusal::UPSTREAM_IDENTITY, detail));
    }
    worker.metrics.handshake(Side::Outbound);
    Ok(Peered {
        wire: Wire::new(stream, session, &pod.buffers),
        identity: Arc::clone(identity),
        expires: peer.not_after.min(credentials.not_after),
    })
}

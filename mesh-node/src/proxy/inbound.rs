//! Connections that arrive for a pod.
//!
//! In:  an arriving connection, whose local address is the pod's own.
//! Out: its streams carried to the pod's application, which sees the client's address.
//! Phases: identify (plain text or mutual TLS, and who), authorize, connect, look, relay, record.
//! Invariant: what policies deny reaches no application; where a connection is looked at, it was connected by then, and reset.
//! Invariant: in STRICT mode no byte of plain text reaches the application, except of the node's kubelet on the ports
//! of the pod's probes.
//! Invariant: nothing ever waits for a client to speak first, unless that client must.
//! Invariant: a client that cannot be a mesh peer costs a STRICT pod nothing but its refusal.
//! Source: Istio `PeerAuthentication`; the mesh's mark on SYN packets is a hint, the handshake decides.

mod look;
pub(super) mod streams;

use super::authorize::{self, Arrival, Tell};
use super::connect;
use super::facts::{Carries, Facts, Way};
use super::hello;
use super::http::{self, Transport};
use super::io;
use super::live::Registration;
use super::pool::Peered;
use super::refusal::{self, Refusal};
use super::relay::{self, Ended};
use super::report::Report;
use super::tls::handshake::{self, Session};
use super::wire::Wire;
use super::worker::{Pod, Worker};
use crate::identity::{self, Peer};
use crate::model::MtlsMode;
use crate::policy::{Sni, Spoken};
use crate::snapshot::NodeSnapshot;
use crate::sys::{diag, socket};
use crate::telemetry::{Security, Side};
use look::{Look, Speaks as Heard};
use mesh_common::route::DSCP_MESH;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long discovery may take to learn of a peer that has a valid certificate.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(2);

/// What an arriving connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    MutualTls {
        /// The SYN is known to lack the mark.
        unmarked: bool,
    },
    Plain,
    /// Plain text from this node, on a port where its kubelet asks after the pod.
    Probe,
    /// The mark is missing, but the client is in the mesh: a network between may have removed it.
    Unclear,
    /// Plain text where mutual TLS is required. A mesh peer marks its SYN; one whose mark was removed is known.
    Forbidden,
}

/// Serves one arriving connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, downstream: TcpStream, client: SocketAddr) {
    let Ok(local) = downstream.local_addr() else { return };
    let snapshot = worker.feed.snapshot();
    let report = new_report(&worker, &pod, &snapshot, (client, local));
    if local.ip().is_loopback() {
        return refuse(downstream, report, Refusal::new(refusal::OWN_PORT, "the mesh's own port was dialled"));
    }
    let speaks = speaks((&worker, &pod), &snapshot, &downstream, (client, local));
    let early = pod.is_strict(&snapshot, local.port());
    drop(snapshot);
    // Listed before anything is awaited: a mode that changes meanwhile ends it before a byte is carried.
    let arrival = Arrival { source: client.ip(), local, identity: None, sni: Sni::Unread };
    let plain =
        |pod: &Pod, carries| pod.live.register(Facts::arrived(arrival.clone(), Way::Plain { early }).carrying(carries));
    // Each way in memory of its own, which is as large as that way needs.
    match speaks {
        Speaks::Plain => {
            let registration = plain(&pod, Carries::Opaque);
            Box::pin(in_plain((worker, pod), (downstream, None), registration, report)).await;
        }
        Speaks::Probe => {
            let registration = pod.live.register(Facts::arrived(arrival, Way::Probe));
            Box::pin(in_plain((worker, pod), (downstream, None), registration, report)).await;
        }
        Speaks::MutualTls { unmarked } => over_mesh(worker, pod, (downstream, unmarked), report).await,
        Speaks::Forbidden => {
            let detail = "mutual TLS is required, and the client is not in the mesh";
            refuse(downstream, report, Refusal::new(refusal::MTLS_REQUIRED, detail));
        }
        Speaks::Unclear => {
            let registration = plain(&pod, Carries::Requests);
            Box::pin(unclear(worker, pod, downstream, registration, report)).await;
        }
    }
}

fn new_report(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    snapshot: &NodeSnapshot,
    (client, local): (SocketAddr, SocketAddr),
) -> Report {
    let mut report = Report::new((Rc::clone(worker), Rc::clone(pod)), Side::Inbound, client, local);
    report.upstream = Some(local);
    report.source_workload = snapshot.directory.workloads.get(&client.ip()).cloned();
    report.destination_workload = snapshot.pods.get(&pod.key).map(|local| Arc::clone(&local.workload));
    report.service = snapshot.directory.service_of(&local).cloned();
    report
}

fn refuse(downstream: TcpStream, report: Report, refusal: Refusal) {
    io::reset(downstream);
    report.refused(refusal);
}

/// What the connection speaks, from the port's mode, the mark on its SYN and who the client is.
fn speaks(
    (worker, pod): (&Worker, &Pod),
    snapshot: &NodeSnapshot,
    downstream: &TcpStream,
    (client, local): (SocketAddr, SocketAddr),
) -> Speaks {
    // A connection whose SYN was not saved came with a SYN cookie; its mark is unknown.
    let mark = socket::syn_dscp(downstream).ok().flatten();
    let meshed = snapshot.directory.workloads.get(&client.ip()).is_some_and(|peer| peer.inbound.is_some());
    let is_probe = || !meshed && is_probe((worker, pod), snapshot, (client, local));
    // Where plain text is taken, it matters for policies alone who asks.
    let is_judged = authorize::policies(pod, snapshot).is_none_or(|policies| !policies.inbound.is_empty());
    match (pod.mode(&worker.feed, snapshot, local.port()), mark) {
        (MtlsMode::Strict | MtlsMode::Permissive, Some(DSCP_MESH)) => Speaks::MutualTls { unmarked: false },
        (MtlsMode::Strict, _) if is_probe() => Speaks::Probe,
        (MtlsMode::Disable | MtlsMode::Permissive, _) if is_judged && is_probe() => Speaks::Probe,
        (MtlsMode::Disable, _) => Speaks::Plain,
        (MtlsMode::Strict, Some(_)) if !meshed => Speaks::Forbidden,
        (MtlsMode::Strict, mark) => Speaks::MutualTls { unmarked: mark.is_some() },
        (MtlsMode::Permissive, _) if meshed => Speaks::Unclear,
        (MtlsMode::Permissive, _) => Speaks::Plain,
    }
}

/// Does the kubelet ask after the pod? It has no identity to prove, and asks from an address of the node that this
/// daemon runs on, on a port that the pod's own probes name. Others have such an address too, if what they dialled was a port
/// of the node: it is masqueraded. But a socket of the node is at the other end of what the node itself has dialled.
fn is_probe(
    (worker, pod): (&Worker, &Pod),
    snapshot: &NodeSnapshot,
    (client, local): (SocketAddr, SocketAddr),
) -> bool {
    let asks = snapshot.pods.get(&pod.key).is_some_and(|pod| pod.probe_ports.contains(&local.port()));
    asks && worker.node.has(client.ip()) && diag::is_connected(client, local).unwrap_or(false)
}

/// Carries plain text. `upstream` is a connection to the application that exists already.
async fn in_plain(
    (worker, pod): (Rc<Worker>, Rc<Pod>),
    (downstream, upstream): (TcpStream, Option<TcpStream>),
    registration: Registration<Facts>,
    mut report: Report,
) {
    let ends = (report.source, report.destination);
    let facts = registration.facts();
    let admitted = admit((&worker, &pod), &worker.feed.snapshot(), &facts, &ends.1);
    let look = match admitted {
        Ok(look) => look,
        Err(refusal) => {
            upstream.into_iter().for_each(io::reset);
            return refuse(downstream, report, refusal);
        }
    };
    registration.change(facts.carrying(look.carries()));
    let connected = match upstream {
        Some(upstream) => Ok(upstream),
        None => connect::to_application(&pod.sockets, report.source.ip(), report.destination).await,
    };
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => return refuse(downstream, report, Refusal::connect(&error)),
    };
    let heard = match look {
        Look::Nowhere => Heard::Other(Sni::Unread),
        Look::First(asked) => look::spoken(&downstream, &upstream, asked).await,
        Look::Http => Heard::Http,
    };
    let sni = match heard {
        Heard::Http => {
            registration.change(registration.facts().asking_for(Sni::Absent));
            let transport = Transport::plain(downstream);
            return http::serve_inbound((worker, pod), (transport, upstream), ends, Security::Plain, registration)
                .await;
        }
        Heard::Other(sni) => sni,
    };
    if let Err(refusal) = unread((&worker, &pod), &registration, sni) {
        io::reset(upstream);
        return refuse(downstream, report, refusal);
    }
    report.opened();
    let context = (&pod.buffers, &report.counts, &**registration.cancelled());
    let ended = relay::plain(&downstream, &upstream, context).await;
    if !matches!(ended, Ended::Clean) {
        io::reset(downstream);
        io::reset(upstream);
    }
    report.ended(&ended);
}

/// What is looked at of a connection that may be let in, the client of which says that it dialled `original`.
///
/// **Errors**: it may not, whatever it will carry.
fn admit(
    ends: (&Worker, &Pod),
    snapshot: &NodeSnapshot,
    facts: &Facts,
    original: &SocketAddr,
) -> Result<Look, Refusal> {
    // The kubelet asks whatever it likes.
    if facts.is_probe() {
        return Ok(Look::Nowhere);
    }
    let arrival = facts.arrival().ok_or_else(authorize::unknown)?;
    let look = Look::at(snapshot, &arrival.local, original, arrival.asked(ends.1, snapshot));
    match look {
        Look::Nowhere => arrival.judge(ends, snapshot, Spoken::Opaque, Tell::Everything)?,
        Look::First(_) => arrival.judge(ends, snapshot, Spoken::Unread, Tell::Denials)?,
        // Each request is answered for itself.
        Look::Http => {}
    }
    Ok(look)
}

/// Judges a connection whose first bytes were looked at, on which it turned out that nobody will read requests, by the server name
/// that its client asks for.
///
/// **Errors**: it is not allowed to go on like that.
fn unread((worker, pod): (&Worker, &Pod), registration: &Registration<Facts>, sni: Sni) -> Result<(), Refusal> {
    let Facts::Inbound { arrival, way, carries: Carries::Requests } = registration.facts() else { return Ok(()) };
    let arrival = Arrival { sni, ..arrival };
    registration.change(Facts::arrived(arrival.clone(), way));
    arrival.judge((worker, pod), &worker.feed.snapshot(), Spoken::Opaque, Tell::Everything)
}

/// Mutual TLS on a connection, then one stream after another.
async fn over_mesh(worker: Rc<Worker>, pod: Rc<Pod>, (downstream, unmarked): (TcpStream, bool), mut report: Report) {
    report.security = Security::MutualTls;
    let ends = (report.source, report.destination);
    let established = Box::pin(establish(Rc::clone(&worker), Rc::clone(&pod), (downstream, unmarked), report)).await;
    if let Some(peered) = established {
        Box::pin(streams::serve(worker, pod, peered, ends)).await;
    }
}

/// The wire on which the client's streams arrive; `None` if it was refused.
async fn establish(
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    (downstream, unmarked): (TcpStream, bool),
    report: Report,
) -> Option<Peered> {
    match identify(&worker, &pod, &downstream, report.source).await {
        Ok((session, peer)) => {
            worker.metrics.handshake(Side::Inbound);
            if unmarked {
                worker.metrics.unmarked(report.source.ip());
            }
            Some(Peered {
                wire: Wire::new(downstream, session, &pod.buffers),
                identity: Arc::new(peer.identity),
                expires: peer.not_after,
            })
        }
        Err(refusal) => {
            refuse(downstream, report, refusal);
            None
        }
    }
}

/// The TLS session, and who the client proved to be: the one that discovery gives for its address.
async fn identify(
    worker: &Rc<Worker>,
    pod: &Pod,
    downstream: &TcpStream,
    client: SocketAddr,
) -> Result<(Session, Peer), Refusal> {
    let _slot = worker.begin_handshake(client.ip())?;
    let own = pod.identity(worker)?;
    let credentials = worker.keyring.current(&own).ok_or_else(|| {
        Refusal::new(refusal::NO_CREDENTIALS, format!("no certificate for {own}; the issuer may be away"))
    })?;
    let shaking = handshake::accept(downstream, Arc::clone(&credentials.server));
    let session = tokio::time::timeout(worker.config.handshake_timeout, shaking)
        .await
        .map_err(|_| Refusal::new(refusal::HANDSHAKE_TIMEOUT, "the client was silent during the TLS handshake"))?
        .map_err(|error| match Refusal::handshake(&error) {
            refusal if refusal.reason == refusal::NOT_TLS => Refusal::new(
                refusal::MTLS_REQUIRED,
                "the client sent plain text where mutual TLS is required or was announced by its SYN",
            ),
            refusal => refusal,
        })?;
    let peer = identity::peer(&session.peer).map_err(|error| Refusal::new(error.reason(), error.to_string()))?;
    known(worker, client, &peer).await?;
    Ok((session, peer))
}

/// Waits until discovery gives the peer's identity for its address.
async fn known(worker: &Worker, client: SocketAddr, peer: &Peer) -> Result<(), Refusal> {
    let mut changes = worker.feed.changes();
    let agrees = || {
        let snapshot = worker.feed.snapshot();
        match snapshot.directory.workloads.get(&client.ip()) {
            Some(workload) if *workload.identity == peer.identity => Ok(()),
            Some(workload) => Err(Refusal::new(
                refusal::SOURCE_IDENTITY,
                format!("{} proved to be {}, discovery says {}", client.ip(), peer.identity, workload.identity),
            )),
            // What entered through a gateway comes from an address of a node, which is no pod's.
            None if peer.identity == *worker.config.edge.workload.identity => Ok(()),
            None => Err(Refusal::new(
                refusal::UNKNOWN_SOURCE,
                format!("{} proved to be {}, but discovery knows no pod there", client.ip(), peer.identity),
            )),
        }
    };
    let deadline = tokio::time::Instant::now() + DISCOVERY_PATIENCE;
    loop {
        changes.mark_unchanged();
        let verdict = agrees();
        if verdict.is_ok() {
            return verdict;
        }
        match tokio::time::timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return verdict,
        }
    }
}

/// A client in the mesh whose SYN was not marked. It may speak plain text, perhaps waiting for the server to
/// speak first, so the application is connected at once and whoever speaks first decides.
async fn unclear(
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    downstream: TcpStream,
    registration: Registration<Facts>,
    report: Report,
) {
    let (client, local) = (report.source, report.destination);
    // A failure is told a mesh client by a frame, a plain one by a reset: which it is remains to be seen.
    let upstream = connect::to_application(&pod.sockets, client.ip(), local).await.ok();
    let hello = match &upstream {
        Some(upstream) => tokio::select! {
            hello = hello::peek(&downstream) => hello.is_mesh(),
            _ = upstream.readable() => false,
        },
        // A client that stays silent hears of the failure, too.
        None => {
            let hello = tokio::time::timeout(worker.config.handshake_timeout, hello::peek(&downstream)).await;
            hello.is_ok_and(|hello| hello.is_mesh())
        }
    };
    if hello {
        if let Some(upstream) = upstream {
            io::reset(upstream);
        }
        drop(registration);
        over_mesh(worker, pod, (downstream, true), report).await;
    } else {
        in_plain((worker, pod), (downstream, upstream), registration, report).await;
    }
}

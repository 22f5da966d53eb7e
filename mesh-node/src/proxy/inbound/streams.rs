//! The streams of one connection from another node, one after another.
//!
//! In:  a wire whose peer is known.
//! Out: each stream carried to the application; a refused one answered by RESET.
//! Invariant: each stream is judged by the snapshot of its own time.
//! Invariant: a wire ends with the certificate that opened it; a stream that meets its end was not acted on.

use super::look::{self, First, Look};
use super::{admit, unread};
use crate::policy::Sni;
use crate::proxy::authorize::Arrival;
use crate::proxy::connect;
use crate::proxy::facts::{Carries, Facts, Way};
use crate::proxy::frame::{Control, Open};
use crate::proxy::http::{self, Transport};
use crate::proxy::io;
use crate::proxy::live::Cancelled;
use crate::proxy::pool::Peered;
use crate::proxy::refusal::{self, Refusal};
use crate::proxy::relay::{self, Beginning, Ended, Role};
use crate::proxy::report::Report;
use crate::proxy::wire::{Event, Wire, WireError};
use crate::proxy::worker::{Pod, Worker};
use crate::snapshot::NodeSnapshot;
use crate::telemetry::Security;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpStream;

/// Serves a wire until either side ends it.
pub(crate) async fn serve(worker: Rc<Worker>, pod: Rc<Pod>, mut peered: Peered, ends: (SocketAddr, SocketAddr)) {
    let mut was_used = false;
    loop {
        let asked = tokio::select! {
            biased;
            asked = open(&pod, &mut peered) => asked,
            () = pod.stopped() => {
                Box::pin(peered.wire.close()).await;
                return;
            }
        };
        let Open { original, heeds_drain } = match asked {
            Ok(Some(open)) => open,
            Ok(None) => return,
            Err(error) => {
                // A connection on which nothing was ever asked is itself what failed.
                if !was_used {
                    let report = new_report((&worker, &pod), &worker.feed.snapshot(), &peered, ends);
                    report.refused(Refusal::wire(&error));
                }
                return;
            }
        };
        if was_used && peered.expires <= SystemTime::now() {
            // The client saw the certificate valid when it sent OPEN, and may have a new one by now. It opens the
            // stream again on a new wire; if it has none, the handshake refuses it.
            Box::pin(peered.wire.close()).await;
            return;
        }
        was_used = true;
        let snapshot = worker.feed.snapshot();
        let mut report = new_report((&worker, &pod), &snapshot, &peered, ends);
        if let Some(service) = snapshot.directory.services.get(&original.ip()) {
            report.service = Some(Arc::clone(&service.name));
        }
        let identity = Some(Arc::clone(&peered.identity));
        let facts =
            Facts::arrived(Arrival { source: ends.0.ip(), local: ends.1, identity, sni: Sni::Unread }, Way::Mesh);
        let admitted = judge(&pod, &snapshot, &peered, &facts);
        let admitted = admitted.and_then(|()| admit((&worker, &pod), &snapshot, &facts, &original));
        drop(snapshot);
        let registration =
            pod.live.register(facts.carrying(admitted.as_ref().map_or(Carries::Opaque, |look| look.carries())));
        let Some((application, look, report)) = connect(&pod, &mut peered, (admitted, report)).await else { return };
        peered.wire.accept();
        let first = match look {
            Look::Nowhere => First::Other(Sni::Unread, None),
            Look::First(asked) => {
                match Box::pin(look::first(&mut peered.wire, (&pod.buffers, asked), &application)).await {
                    Ok(first) => first,
                    Err(error) => return broken(application, report, &error),
                }
            }
            Look::Http => {
                let _met_again = peered.wire.split().0.settle().await;
                First::Http(Vec::new(), false)
            }
        };
        match first {
            First::Http(opened, ended) => {
                registration.change(registration.facts().asking_for(Sni::Absent));
                let carried = (Transport::arrived(peered.wire, (opened, ended), heeds_drain), application);
                let serving = http::serve_inbound((worker, pod), carried, ends, Security::MutualTls, registration);
                return Box::pin(serving).await;
            }
            First::Other(sni, first) => {
                if let Err(refusal) = unread((&worker, &pod), &registration, sni) {
                    io::reset(application);
                    return Box::pin(refuse(&mut peered, report, refusal)).await;
                }
                let carrying = (&mut peered.wire, first);
                if !stream(&pod, carrying, application, (registration.cancelled(), report)).await {
                    return;
                }
            }
        }
    }
}

fn new_report(
    (worker, pod): (&Rc<Worker>, &Rc<Pod>),
    snapshot: &NodeSnapshot,
    peered: &Peered,
    ends: (SocketAddr, SocketAddr),
) -> Report {
    let mut report = super::new_report(worker, pod, snapshot, ends);
    report.security = Security::MutualTls;
    report.source_workload = worker.source(snapshot, ends.0.ip(), Some(&peered.identity));
    report
}

/// What the next stream is for; `None` when the peer is done with the connection.
async fn open(pod: &Pod, peered: &mut Peered) -> Result<Option<Open>, WireError> {
    let (_, mut receiver) = peered.wire.split();
    let batch = match receiver.next(&pod.buffers).await {
        Ok(batch) => batch,
        // Between streams a peer may go without a word: its node may have lost power.
        Err(WireError::CutOff | WireError::Io(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    receiver.release();
    match (batch.is_empty(), batch.then) {
        (true, Some(Event::Control(Control::Open(open)))) => Ok(Some(open)),
        (true, Some(Event::Closed)) => Ok(None),
        _ => Err(WireError::OutOfOrder),
    }
}

/// Connects a stream that was judged to the application; `None` if the peer was refused.
async fn connect(
    pod: &Pod,
    peered: &mut Peered,
    (admitted, report): (Result<Look, Refusal>, Report),
) -> Option<(TcpStream, Look, Report)> {
    let connected = match admitted {
        Ok(look) => connect::to_application(&pod.sockets, report.source.ip(), report.destination)
            .await
            .map(|application| (application, look))
            .map_err(|error| Refusal::connect(&error)),
        Err(refusal) => Err(refusal),
    };
    match connected {
        Ok((application, look)) => Some((application, look, report)),
        Err(refusal) => {
            Box::pin(refuse(peered, report, refusal)).await;
            None
        }
    }
}

/// The wire broke before anything was carried.
fn broken(application: TcpStream, report: Report, error: &WireError) {
    io::reset(application);
    report.refused(Refusal::wire(error));
}

async fn refuse(peered: &mut Peered, report: Report, refusal: Refusal) {
    let _peer_may_be_gone = peered.wire.split().0.control(&Control::Reset(refusal.reason.to_owned())).await;
    report.refused(refusal);
}

/// Carries one stream; true if the wire can serve another.
async fn stream(
    pod: &Pod,
    carrying: (&mut Wire, Option<Box<Beginning>>),
    application: TcpStream,
    (cancelled, mut report): (&Cancelled, Report),
) -> bool {
    report.opened();
    let context = (&pod.buffers, &report.counts, cancelled);
    let ended = relay::over_wire(&application, carrying, Role::Dialled, context).await;
    let clean = matches!(ended, Ended::Clean);
    if !clean {
        io::reset(application);
    }
    report.ended(&ended);
    clean
}

/// May whoever is there open a stream, whatever policies say?
fn judge(pod: &Pod, snapshot: &NodeSnapshot, peered: &Peered, facts: &Facts) -> Result<(), Refusal> {
    if peered.expires <= SystemTime::now() {
        let detail = format!("the certificate of {} expired while the connection was open", peered.identity);
        return Err(Refusal::new(refusal::EXPIRED_CERTIFICATE, detail));
    }
    match facts.is_out_of_place(snapshot, pod) {
        Some(reason) => Err(Refusal::new(reason, format!("the connection of {} was judged again", peered.identity))),
        None => Ok(()),
    }
}

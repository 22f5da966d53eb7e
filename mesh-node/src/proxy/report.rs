//! What is said of one stream: counters while it lives, a record when it ends.
//!
//! In:  what `inbound` and `outbound` learn of a stream.
//! Out: Istio's TCP metrics, the mesh's own counters, one access record.
//! Invariant: every accepted connection ends in exactly one record and one fate.

use super::denials::{At, Denied};
use super::refusal::{self, Refusal};
use super::relay::{Counts, Ended};
use super::worker::{Pod, Worker};
use crate::snapshot::http::RouteOrigin;
use crate::snapshot::{ServiceName, WorkloadEntry};
use crate::telemetry::access::{Outcome, Record};
use crate::telemetry::tcp::{Edge, EdgeLabels};
use crate::telemetry::{Security, Side};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// One stream, as far as it is known.
pub(crate) struct Report {
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    started: Instant,
    /// Which side of the pod.
    pub(crate) side: Side,
    /// Who dialled.
    pub(crate) source: SocketAddr,
    /// What was dialled.
    pub(crate) destination: SocketAddr,
    /// Whom the proxy dialled.
    pub(crate) upstream: Option<SocketAddr>,
    /// The workload that dialled.
    pub(crate) source_workload: Option<Arc<WorkloadEntry>>,
    /// The workload that was dialled.
    pub(crate) destination_workload: Option<Arc<WorkloadEntry>>,
    /// The service that was dialled.
    pub(crate) service: Option<Arc<ServiceName>>,
    /// The rule that routed it.
    pub(crate) route: Option<Arc<RouteOrigin>>,
    /// How the network's part was protected.
    pub(crate) security: Security,
    /// Bytes carried.
    pub(crate) counts: Counts,
    edge: Option<Arc<Edge>>,
}

impl Report {
    /// A stream of which only the addresses are known.
    pub(crate) fn new(
        (worker, pod): (Rc<Worker>, Rc<Pod>),
        side: Side,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Self {
        Self {
            worker,
            pod,
            started: Instant::now(),
            side,
            source,
            destination,
            upstream: None,
            source_workload: None,
            destination_workload: None,
            service: None,
            route: None,
            security: Security::Plain,
            counts: Counts::default(),
            edge: None,
        }
    }

    /// The stream is being served.
    pub(crate) fn opened(&mut self) {
        let edge = self.worker.edges.edge(&self.labels("-"));
        edge.opened.inc();
        self.worker.metrics.connection(self.side, self.security);
        self.edge = Some(edge);
    }

    /// The stream was served and has ended.
    pub(crate) fn ended(self, ended: &Ended) {
        let refusal = match ended {
            Ended::Clean | Ended::Reset => None,
            Ended::Refused(reason) => {
                Some(Refusal::new(refusal::PEER_REFUSED, format!("the peer node says: {reason}")))
            }
            Ended::Failed(error) => Some(Refusal::wire(error)),
            Ended::Cancelled(refusal) => Some(Refusal::clone(refusal)),
        };
        self.finish(refusal);
    }

    /// The stream was refused.
    pub(crate) fn refused(self, refusal: Refusal) {
        if self.side == Side::Inbound && refusal.reason == refusal::MTLS_REQUIRED {
            self.tell_denied(&refusal);
        }
        self.worker.edges.edge(&self.labels(refusal.flags)).failed.inc();
        self.finish(Some(refusal));
    }

    /// Its pod is told that it takes no plain text.
    fn tell_denied(&self, refusal: &Refusal) {
        let snapshot = self.worker.feed.snapshot();
        let Some(own) = snapshot.pods.get(&self.pod.key) else { return };
        let flow = &format_args!("From {} to port {}", self.source.ip(), self.destination.port());
        let denied = Denied { at: At::Pod(own), rule: refusal.reason, policy: None, flow, refusal };
        (self.worker.tell_denied)(&denied);
    }

    fn finish(self, refusal: Option<Refusal>) {
        let (request, response) = (self.counts.request.get(), self.counts.response.get());
        self.pod.totals.carried(self.side, request, response);
        if let Some(edge) = &self.edge {
            edge.sent.inc_by(response);
            edge.received.inc_by(request);
            edge.closed.inc();
        }
        let flags = refusal.as_ref().map_or("-", |refusal| refusal.flags);
        let outcome = match refusal {
            None => Outcome::Closed,
            Some(Refusal { reason, detail, .. }) => {
                self.worker.metrics.refusal(self.side, reason);
                Outcome::Refused { reason, detail }
            }
        };
        self.worker.access.write(&Record {
            time: SystemTime::now(),
            side: self.side,
            outcome,
            source: self.source,
            destination: self.destination,
            upstream: self.upstream,
            source_labels: self.source_workload.as_ref().map(|workload| &*workload.labels),
            destination_labels: self.destination_workload.as_ref().map(|workload| &*workload.labels),
            service: self.service.as_deref(),
            route: self.route.as_deref(),
            security: self.security,
            bytes_sent: response,
            bytes_received: request,
            duration: self.started.elapsed(),
            flags,
        });
    }

    fn labels(&self, flags: &'static str) -> EdgeLabels {
        let labels =
            |workload: &Option<Arc<WorkloadEntry>>| workload.as_ref().map(|workload| Arc::clone(&workload.labels));
        EdgeLabels {
            side: self.side,
            source: labels(&self.source_workload),
            destination: labels(&self.destination_workload),
            service: self.service.clone(),
            security: self.security,
            flags,
        }
    }
}

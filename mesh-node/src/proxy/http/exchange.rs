//! What is said of one request when it has ended.
//!
//! In:  what the phases learn of it.
//! Out: Istio's HTTP metrics, one access record.
//! Invariant: dropped once, whatever becomes of the request, and recorded then.

use super::Downstream;
use super::attempt::Held;
use super::body::{Messages, Passed};
use crate::model::Identity;
use crate::proxy::facts::Facts;
use crate::proxy::live::Registration;
use crate::proxy::refusal::{self, Refusal};
use crate::route::rewriting::FORWARDED_FOR;
use crate::snapshot::http::{RouteOrigin, Upstream};
use crate::snapshot::{NodeSnapshot, ServiceName, WorkloadEntry};
use crate::telemetry::access::Outcome;
use crate::telemetry::access::http::HttpRecord;
use crate::telemetry::edges::EdgeLabels;
use crate::telemetry::http::{GrpcStatus, HttpEdgeLabels, Protocol};
use crate::telemetry::trace::SpanContext;
use crate::telemetry::{self, Security, Side};
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{StatusCode, request};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Counts messages where gRPC is spoken.
fn passed(head: &request::Parts) -> Rc<Passed> {
    let passed = Passed::default();
    if super::reply::is_grpc(&head.headers) {
        passed.messages.replace(Some(Messages::default()));
    }
    Rc::new(passed)
}

/// One request and its response, as far as they are known.
pub(crate) struct Exchange {
    pub(crate) down: Rc<Downstream>,
    pub(crate) started: Instant,
    pub(crate) method: http::Method,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) version: http::Version,
    /// Which of the pod's sides served it.
    pub(crate) side: Side,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// Its place in a trace.
    pub(crate) span: SpanContext,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) forwarded_for: Option<HeaderValue>,
    /// The workload that dialled.
    pub(crate) source: Option<Arc<WorkloadEntry>>,
    /// The service that was dialled, later the one that answered.
    pub(crate) service: Option<Arc<ServiceName>>,
    /// The rule that routed it.
    pub(crate) origin: Option<Arc<RouteOrigin>>,
    /// Where it was sent last.
    pub(crate) upstream: Option<Arc<Upstream>>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) workload: Option<Arc<WorkloadEntry>>,
    pub(crate) security: Security,
    /// Attempts that were made.
    pub(crate) attempts: u32,
    /// When the head of its response came.
    pub(crate) answered: Option<Instant>,
    /// How it was answered.
    pub(crate) status: Option<StatusCode>,
    /// Why it was not served, or not as the application wanted.
    pub(crate) refusal: Option<Refusal>,
    /// Was a delay injected?
    pub(crate) delayed: bool,
    pub(crate) request: Rc<Passed>,
    pub(crate) response: Rc<Passed>,
    /// What serves it until its end.
    pub(crate) held: Option<Held>,
    /// By what it is judged again while it lasts.
    pub(crate) judged: Option<Registration<Facts>>,
}

impl Exchange {
    /// A request of the pod, of which only the head is known.
    pub(crate) fn outbound(down: &Rc<Downstream>, head: &request::Parts, snapshot: &NodeSnapshot) -> Self {
        let source = snapshot.workload(&down.pod.key).cloned();
        let mut exchange = Self::new(down, Side::Outbound, head);
        exchange.source = source;
        exchange
    }

    /// A request to the pod, of which only the head is known, over a connection protected like this, by whoever proved to be this.
    pub(crate) fn inbound(
        down: &Rc<Downstream>,
        head: &request::Parts,
        snapshot: &NodeSnapshot,
        (security, identity): (Security, Option<&Identity>),
    ) -> Self {
        let mut exchange = Self::new(down, Side::Inbound, head);
        exchange.source = down.worker.source(snapshot, down.client.ip(), identity);
        exchange.workload = snapshot.pods.get(&down.pod.key).map(|local| Arc::clone(&local.workload));
        exchange.service = snapshot.directory.service_of(&down.original).cloned();
        exchange.endpoint = Some(down.original);
        exchange.security = security;
        exchange
    }

    fn new(down: &Rc<Downstream>, side: Side, head: &request::Parts) -> Self {
        down.begins();
        Self {
            down: Rc::clone(down),
            started: Instant::now(),
            method: head.method.clone(),
            authority: String::new(),
            path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            version: head.version,
            side,
            protocol: Protocol::of(head.headers.get(CONTENT_TYPE)),
            span: down.worker.tracer.begin(&head.headers, side, SystemTime::now()),
            user_agent: head.headers.get(USER_AGENT).cloned(),
            forwarded_for: head.headers.get(FORWARDED_FOR).cloned(),
            source: None,
            service: None,
            origin: None,
            upstream: None,
            endpoint: None,
            workload: None,
            security: Security::Plain,
            attempts: 0,
            answered: None,
            status: None,
            refusal: None,
            delayed: false,
            request: passed(head),
            response: passed(head),
            held: None,
            judged: None,
        }
    }
}

impl Exchange {
    /// Why it was not served, or not as the application wanted.
    fn conclude(&self) -> Option<Refusal> {
        let response = &self.response;
        let judged = || self.judged.as_ref().and_then(|judged| judged.cancelled().cause());
        // What ended it, or the connection that it was on, says more than that it was not served.
        let cut = || if response.whole.get() { None } else { judged().or_else(|| self.down.cancelled.cause()) };
        let refusal = self.refusal.clone().or_else(cut);
        refusal.or_else(|| {
            if response.late.get() {
                Some(Refusal::new(refusal::REQUEST_TIMEOUT, "the response took too long"))
            } else if response.broken.get() {
                Some(Refusal::new(refusal::UPSTREAM_RESET, "the response broke off"))
            } else if self.status.is_none() || !response.whole.get() {
                Some(Refusal::new(refusal::DOWNSTREAM_GONE, "the client did not wait for its answer"))
            } else {
                None
            }
        })
    }

    fn labels(&self, flags: &'static str, grpc: Option<GrpcStatus>) -> HttpEdgeLabels {
        let labels = |workload: &Option<Arc<WorkloadEntry>>| workload.as_ref().map(|entry| Arc::clone(&entry.labels));
        HttpEdgeLabels {
            edge: EdgeLabels {
                side: self.side,
                source: labels(&self.source),
                destination: labels(&self.workload),
                service: self.service.clone(),
                security: self.security,
                flags,
            },
            protocol: self.protocol,
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(held) = self.held.take()
            && self.response.whole.get()
            && !self.response.broken.get()
        {
            held.lease.give_back();
        }
        let refusal = self.conclude();
        let (request, response) = (self.request.bytes.get(), self.response.bytes.get());
        self.down.pod.totals.carried(self.side, request, response);
        let worker = &self.down.worker;
        let flags = match (&refusal, self.delayed) {
            (Some(refusal), _) => refusal.flags,
            (None, true) => "DI",
            (None, false) => "-",
        };
        let grpc = self.response.grpc_status.get();
        let messages = |passed: &Passed| passed.messages.borrow().as_ref().map_or(0, |messages| messages.count);
        let now = Instant::now();
        let given_up = refusal.as_ref().is_some_and(|refusal| refusal.reason == refusal::DOWNSTREAM_GONE);
        self.down.ends((self.started, now), given_up);
        let duration = now.saturating_duration_since(self.started);
        worker.http_edges.edge(&self.labels(flags, grpc)).record(&telemetry::http::Exchange {
            duration,
            request_bytes: request,
            response_bytes: response,
            request_messages: messages(&self.request),
            response_messages: messages(&self.response),
        });
        let outcome = match refusal {
            None => Outcome::Closed,
            Some(Refusal { reason, detail, .. }) => {
                worker.metrics.refusal(self.side, reason);
                Outcome::Refused { reason, detail }
            }
        };
        if !worker.access.is_on() && !self.span.is_sampled() {
            return;
        }
        let record = HttpRecord {
            time: SystemTime::now(),
            side: self.side,
            outcome,
            source: self.down.client,
            destination: self.down.original,
            upstream: self.endpoint,
            upstream_key: self.upstream.as_ref().map(|upstream| &*upstream.key),
            source_labels: self.source.as_ref().map(|workload| &*workload.labels),
            destination_labels: self.workload.as_ref().map(|workload| &*workload.labels),
            service: self.service.as_deref(),
            security: self.security,
            route: self.origin.as_deref(),
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            version: self.version,
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc,
            flags,
            bytes_sent: response,
            bytes_received: request,
            duration,
            first_byte: self.answered.map(|at| at.saturating_duration_since(self.started)),
            attempts: self.attempts,
            request_id: Some(self.span.request_id()),
            trace: self.span.trace_id(),
            user_agent: self.user_agent.as_ref(),
            forwarded_for: self.forwarded_for.as_ref(),
        };
        worker.access.write_http(&record);
        worker.tracer.finish(&self.span, &record);
    }
}

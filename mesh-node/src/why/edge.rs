//! What becomes of a request that enters by a gateway.
//!
//! In:  the edge of the snapshot: who listens, by which routes, and what policies say of what enters.
//! Out: an [`Answer`], with what becomes of the request at the pods that it goes on to.
//! Invariant: in the data plane's order: a listener, its certificate, its routes' hosts, policies, the route.
//! Invariant: what enters goes on as the edge, whoever made it.

use super::end::{self, End, Who};
use super::question::Understood;
use super::route::{self, Routed};
use super::{Answer, Case, Entered, Place, Question, Request, WhyError, verdict, ways};
use crate::model::{Gateway, Issue, ObjectRef};
use crate::policy::Sni;
use crate::route::rewriting;
use crate::snapshot::NodeSnapshot;
use crate::snapshot::edge::{Door, EdgeHost, EdgePort};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What is dialled.
struct Target<'q> {
    question: &'q Question,
    /// The gateways that are named; none if a host is.
    gateways: Vec<Arc<Gateway>>,
    port: u16,
}

/// Answers.
///
/// **Errors**: the question is not clear.
pub(super) fn enter(case: &mut Case, source: End, question: &Question) -> Result<Answer, WhyError> {
    let snapshot = case.compiler.snapshot();
    let target = Target::of(case, question)?;
    let request = question.request.as_ref().ok_or_else(|| WhyError::Request {
        what: "by gateways enter requests alone: give METHOD and PATH".to_owned(),
    })?;
    let mut answer = Answer {
        source: source.shown.clone(),
        destination: target.shown(),
        entered: None,
        route: super::Route::default(),
        ways: Vec::new(),
    };
    let Some(port) = snapshot.edge.as_ref().and_then(|edge| edge.port(target.port)) else {
        answer.route.answered = Some(format!("no gateway listens on port {}", target.port));
        answer.route.notes = target.troubles(&snapshot);
        return Ok(answer);
    };
    let request = target.understood(port, request, &source)?;
    let host = request.authority.host().to_ascii_lowercase();
    if port.tls.as_ref().is_some_and(|tls| tls.covering(&host).next().is_none()) {
        answer.route.answered = Some("TLS fails: no listener of the port has a certificate for the host".to_owned());
        answer.route.notes = target.troubles(&snapshot);
        return Ok(answer);
    }
    let Some(through) = port.hosts.covering(&host).next() else {
        answer.route.answered = Some("404: no route of a gateway speaks of the host".to_owned());
        answer.route.notes = target.troubles(&snapshot);
        return Ok(answer);
    };
    let entered = entered(&snapshot, &source, (through, target.port), &request);
    let routed = if entered.is_allowed() { route::by_table(&through.table, &request, None) } else { Routed::default() };
    answer.route = routed.route;
    answer.route.notes.extend(target.notes(&source, through));
    answer.entered = Some(entered);
    let edge = End::edge(case);
    answer.ways = ways(case, (&edge, &Sni::Absent), routed.ways);
    Ok(answer)
}

/// By what it enters, and what policies say of that.
fn entered(snapshot: &NodeSnapshot, source: &End, (through, port): (&EdgeHost, u16), request: &Understood) -> Entered {
    let by = |door: &Door| format!("{}, listener {}", door.gateway.object, door.listener);
    let chains = through.entrances().filter_map(|entrance| snapshot.entrances.get(entrance));
    let mut steps: Vec<_> = chains.map(|chains| verdict::entering(chains, source, port, request)).collect();
    let denied = steps.iter().position(|step| !step.is_allowed);
    steps.truncate(denied.map_or(steps.len(), |at| at + 1));
    Entered { by: through.doors.iter().map(by).collect(), steps }
}

impl<'q> Target<'q> {
    fn of(case: &Case, question: &'q Question) -> Result<Self, WhyError> {
        let mut gateways: Vec<Arc<Gateway>> = Vec::new();
        let all = case.compiler.gateways();
        let known: BTreeSet<u16> = if let Place::Kind(_, name) = &question.destination {
            gateways.extend(all.filter(|gateway| gateway.object.name == *name).cloned());
            if gateways.is_empty() {
                return Err(WhyError::NoGateway { name: name.clone() });
            }
            gateways.iter().flat_map(|gateway| &gateway.listeners).map(|listener| listener.port).collect()
        } else {
            all.flat_map(|gateway| &gateway.listeners).map(|listener| listener.port).collect()
        };
        let known: Vec<u16> = known.into_iter().collect();
        Ok(Self { question, gateways, port: end::port(question, &known)? })
    }

    fn shown(&self) -> String {
        let objects: Vec<_> = self.gateways.iter().map(|gateway| gateway.object.to_string()).collect();
        let named = if objects.is_empty() { self.question.destination.to_string() } else { objects.join(" and ") };
        format!("{named}:{}", self.port)
    }

    /// The request as the edge passes it to policies and routes.
    fn understood(&self, port: &EdgePort, request: &Request, source: &End) -> Result<Understood, WhyError> {
        let scheme = if port.tls.is_some() { "https" } else { "http" };
        let host = match (&request.host, &self.question.destination) {
            (Some(host), _) => host.clone(),
            (None, Place::Host(host)) => host.clone(),
            (None, _) => self.only_host(port)?,
        };
        let mut request = request.understood(&host, scheme)?;
        let client = source.address_for(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        rewriting::forwarded(&mut request.head.headers, client, scheme);
        Ok(request)
    }

    /// The host that the gateway serves, if it serves one.
    fn only_host(&self, port: &EdgePort) -> Result<String, WhyError> {
        let is_let_in = |of: &EdgeHost| of.doors.iter().any(|door| self.is_named(&door.gateway.object));
        let exact = port.hosts.exact.iter().filter(|(_, of)| is_let_in(of)).map(|(host, _)| host.to_string());
        let ends = port.hosts.wildcards.iter().filter(|(_, of)| is_let_in(of)).map(|(end, _)| format!("*{end}"));
        let hosts: BTreeSet<String> = exact.chain(ends).collect();
        match hosts.first().filter(|host| hosts.len() == 1 && !host.starts_with('*')) {
            Some(host) => Ok(host.clone()),
            None => {
                let hosts: Vec<_> = hosts.into_iter().collect();
                let hosts = if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") };
                Err(WhyError::Host { place: self.question.destination.clone(), hosts })
            }
        }
    }

    fn is_named(&self, object: &ObjectRef) -> bool {
        self.gateways.iter().any(|gateway| gateway.object == *object)
    }

    /// What is wrong with what was named.
    fn troubles(&self, snapshot: &NodeSnapshot) -> Vec<String> {
        let issues = snapshot.issues.iter().filter(|issue| self.is_named(&issue.object));
        issues.map(|issue: &Arc<Issue>| issue.to_string()).collect()
    }

    /// What is to be said of it besides.
    fn notes(&self, source: &End, through: &EdgeHost) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.gateways.is_empty() && !through.doors.iter().any(|door| self.is_named(&door.gateway.object)) {
            notes.push("gateways share the port, and another one takes the host".to_owned());
        }
        if let Who::Pod(_) = source.who {
            notes.push("what leaves the pod is not judged here: the address of the node is not known".to_owned());
        }
        notes
    }
}

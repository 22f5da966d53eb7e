//! Whether policies allow what arrives for a pod and what leaves it.
//!
//! In:  the snapshot, the pod, what is known of the connection or request.
//! Out: nothing, or the [`Refusal`]. What rules tell, and what policies on trial would say, is counted.
//! Invariant: a pod whose policies nobody ever said is closed. One that leaves the mesh is judged by what was said last.
//! Invariant: whatever its address was dialled as, the verdict is that of the pod's own address and port.
//! Source: Kubernetes `NetworkPolicy`: a pod reaches itself and its node, and its node reaches it; Istio `AuthorizationPolicy`.

mod head;

pub(crate) use head::Head;

use super::denials::{At, Denied};
use super::refusal::{self, Refusal};
use super::worker::{Pod, Worker};
use crate::model::Identity;
use crate::policy::flow::TCP;
use crate::policy::{Chains, Flow, Party, Proof, Request, Sni, Spoken, Told, judge};
use crate::snapshot::{EDGE, NodeSnapshot, PodPolicies, WorkloadEntry};
use crate::telemetry::Side;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A connection that arrives for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The client's address.
    pub(crate) source: IpAddr,
    /// The pod's address and port.
    pub(crate) local: SocketAddr,
    /// Who the client proved to be; `None` in plain text.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The server name that it asked for in TLS of its own.
    pub(crate) sni: Sni,
}

/// What rules ask of the first bytes on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which requests they are.
    pub(crate) http: bool,
    /// Which server name they ask for in TLS.
    pub(crate) sni: bool,
}

/// Who is told of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// It is the first: everything is told.
    Everything,
    /// It was judged before, or will be again: a denial alone is told.
    Denials,
}

impl Arrival {
    /// Is it allowed, or a request on it?
    ///
    /// **Errors**: why not. With [`Spoken::Unread`], that nothing which may be read on it is allowed.
    pub(crate) fn judge(
        &self,
        (worker, pod): (&Worker, &Pod),
        snapshot: &NodeSnapshot,
        spoken: Spoken<'_>,
        tell: Tell,
    ) -> Result<(), Refusal> {
        let policies = policies(pod, snapshot).ok_or_else(unknown)?;
        let chains = &*policies.inbound;
        if chains.is_empty() {
            return Ok(());
        }
        let source = worker.source(snapshot, self.source, self.identity.as_deref());
        let own = snapshot.pods.get(&pod.key).map(|own| &own.workload.subject);
        let principal = self.identity.as_deref().map(|identity| principal(source.as_ref(), identity));
        let proof = self.identity.as_deref().zip(principal.as_deref());
        let flow = Flow {
            source: Party { address: self.source, port: None, subject: source.as_ref().map(|source| &source.subject) },
            destination: Party { address: self.local.ip(), port: Some(self.local.port()), subject: own },
            with_node: is_node(worker, chains, snapshot, self.source),
            protocol: TCP,
            proof: proof.map(|(identity, principal)| Proof { identity, principal }),
            sni: &self.sni,
            spoken,
        };
        let own = snapshot.pods.get(&pod.key).map(|own| At::Pod(own));
        decide((worker, own), (Side::Inbound, tell), chains, &flow)
    }

    /// What rules ask of the first bytes on it.
    pub(crate) fn asked(&self, pod: &Pod, snapshot: &NodeSnapshot) -> Asked {
        let asks = |reads: fn(&Chains, u16) -> bool| {
            policies(pod, snapshot).is_some_and(|policies| reads(&policies.inbound, self.local.port()))
        };
        Asked { http: asks(Chains::reads_http), sni: asks(Chains::reads_sni) }
    }
}

/// May a pod connect to an endpoint?
///
/// **Errors**: why not.
pub(crate) fn leaving(
    (worker, pod): (&Worker, &Pod),
    snapshot: &NodeSnapshot,
    to: SocketAddr,
    tell: Tell,
) -> Result<(), Refusal> {
    // What enters through gateways is no pod's.
    if *pod.key == *EDGE {
        return Ok(());
    }
    let policies = policies(pod, snapshot).ok_or_else(unknown)?;
    let chains = &*policies.outbound;
    if chains.is_empty() {
        return Ok(());
    }
    let own = snapshot.pods.get(&pod.key).ok_or_else(unknown)?;
    if own.addresses.contains(&to.ip()) {
        return Ok(());
    }
    let of_family = |address: &&IpAddr| address.is_ipv4() == to.is_ipv4();
    let source = own.addresses.iter().find(of_family).ok_or_else(unknown)?;
    let there = snapshot.directory.workloads.get(&to.ip());
    let flow = Flow {
        source: Party { address: *source, port: None, subject: Some(&own.workload.subject) },
        destination: Party { address: to.ip(), port: Some(to.port()), subject: there.map(|there| &there.subject) },
        with_node: is_node(worker, chains, snapshot, to.ip()),
        protocol: TCP,
        proof: None,
        sni: &Sni::Unread,
        spoken: Spoken::Opaque,
    };
    decide((worker, [At::Pod(own)]), (Side::Outbound, tell), chains, &flow)
}

/// A request that enters through gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entering {
    /// Who makes it.
    pub(crate) client: SocketAddr,
    /// The address of the node, and the port of the gateways.
    pub(crate) local: SocketAddr,
    /// The host that it is for, without port.
    pub(crate) host: Box<str>,
    /// The server name that was asked for in the TLS on which it is made.
    pub(crate) sni: Sni,
}

impl Entering {
    /// May it enter, by all of those through which it does? Where nobody lets in requests for the host any more, nobody says no.
    ///
    /// **Errors**: why not.
    pub(crate) fn judge(
        &self,
        worker: &Worker,
        snapshot: &NodeSnapshot,
        request: &Request<'_>,
        tell: Tell,
    ) -> Result<(), Refusal> {
        let Self { client, local, host, sni } = self;
        // What policies of gateways may ask of a source is its address.
        let flow = Flow {
            source: Party { address: client.ip(), port: Some(client.port()), subject: None },
            destination: Party { address: local.ip(), port: Some(local.port()), subject: None },
            with_node: false,
            protocol: TCP,
            proof: None,
            sni,
            spoken: Spoken::Http(request),
        };
        let entered = snapshot.edge.as_ref().and_then(|edge| edge.host(local.port(), host));
        let Some(entered) = entered else { return Ok(()) };
        entered.entrances().try_for_each(|entrance| {
            let chains = snapshot.entrances.get(entrance).ok_or_else(|| {
                Refusal::new(refusal::POLICY_DENIED, "it is not known what policies say of what enters here")
            })?;
            decide((worker, entered.gateways(entrance).map(At::Gateway)), (Side::Inbound, tell), chains, &flow)
        })
    }
}

/// What policies say of the pod; what they said last, if nothing is said now.
pub(crate) fn policies<'s>(pod: &Pod, snapshot: &'s NodeSnapshot) -> Option<Cow<'s, PodPolicies>> {
    let now = snapshot.policies.get(&pod.key).map(Cow::Borrowed);
    now.or_else(|| pod.policies.borrow().clone().map(Cow::Owned))
}

/// The principal of an identity that was proved, at best as it is known already.
fn principal<'a>(workload: Option<&'a Arc<WorkloadEntry>>, identity: &Identity) -> Cow<'a, str> {
    match workload {
        Some(workload) if *workload.identity == *identity => workload.labels.principal.as_str().into(),
        Some(_) | None => identity.principal().into(),
    }
}

/// Is it an address of this node? Asked only where it makes a difference.
fn is_node(worker: &Worker, chains: &Chains, snapshot: &NodeSnapshot, address: IpAddr) -> bool {
    let on_trial = chains.trial.as_ref().is_some_and(|trial| !trial.network.is_empty());
    let matters = on_trial || !chains.enforced.network.is_empty();
    matters && !snapshot.directory.workloads.contains_key(&address) && worker.node.has(address)
}

/// Of what nothing is known nothing is allowed.
pub(crate) fn unknown() -> Refusal {
    Refusal::new(refusal::POD_GONE, "it is not known what policies say of the pod")
}

/// Judges it. Pods and gateways at which it is are told of a denial.
fn decide<'a>(
    (worker, at): (&Worker, impl IntoIterator<Item = At<'a>>),
    (side, tell): (Side, Tell),
    chains: &Chains,
    flow: &Flow<'_>,
) -> Result<(), Refusal> {
    let verdicts = &worker.metrics.verdicts;
    let verdict = judge(chains, flow, |told| match (tell, told) {
        (Tell::Everything, Told::Rule(origin)) => verdicts.told(side, origin),
        (Tell::Everything, Told::Trial(verdict)) => verdicts.tried(side, &verdict),
        (Tell::Denials, Told::Rule(_) | Told::Trial(_)) => {}
    });
    if verdict.is_allowed {
        return Ok(());
    }
    verdicts.denied(side, &verdict.by);
    let refusal = Refusal::new(refusal::POLICY_DENIED, format!("denied by {}", verdict.by));
    let (rule, policy) = (verdict.by.rule(), verdict.by.object());
    for at in at {
        let flow = &Words { at, side, flow };
        (worker.tell_denied)(&Denied { at, rule: &rule, policy, flow, refusal: &refusal });
    }
    Err(refusal)
}

/// What is judged, as those are told of it at whom it is.
struct Words<'f> {
    at: At<'f>,
    side: Side,
    flow: &'f Flow<'f>,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow { source, destination, proof, spoken, .. } = self.flow;
        let (from, port) = (source.address, destination.port.unwrap_or_default());
        match (self.at, self.side, proof) {
            (At::Gateway(_), _, _) => {
                write!(f, "From {from} to port {port}")?;
                match spoken {
                    Spoken::Http(request) => write!(f, " for {}", request.authority()),
                    Spoken::Opaque | Spoken::Unread => Ok(()),
                }
            }
            (At::Pod(_), Side::Outbound, _) => write!(f, "To {}", SocketAddr::new(destination.address, port)),
            (At::Pod(_), Side::Inbound, Some(proof)) => {
                write!(f, "From {from}, which is {}, to port {port}", proof.principal)
            }
            (At::Pod(_), Side::Inbound, None) => write!(f, "From {from} in plain text to port {port}"),
        }
    }
}

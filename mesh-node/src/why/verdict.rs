//! What is said of something that goes to a place.

use super::end::{End, Who};
use super::question::Understood;
use super::{Case, Step, What, pod};
use crate::model::{Identity, MtlsMode, ObjectRef};
use crate::policy::flow::TCP;
use crate::policy::{Chains, Flow, Party, Proof, Sni, Spoken, Told, judge};
use crate::snapshot::NodeSnapshot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

const OTHERWISE_ALLOWED: &str = "what is no HTTP is allowed by";
/// What is told of a port on which requests are read and all else is denied; who denies it follows.
pub const OTHERWISE_DENIED: &str = "what is no HTTP is denied by";
const NAMELESS_ALLOWED: &str = "what asks for no server name, and is no HTTP, is allowed by";
const NAMELESS_DENIED: &str = "what asks for no server name, and is no HTTP, is denied by";

/// Every verdict on the way to a place, to which mutual TLS is spoken if it can be and `may_prove`, up to the first that denies.
pub(super) fn steps(
    (snapshot, case): (&NodeSnapshot, &Case),
    source: &End,
    (to, may_prove): (SocketAddr, bool),
    (request, sni): (Option<&Understood>, &Sni),
) -> Vec<Step> {
    let own = source.pod().and_then(|name| pod(snapshot, name)).filter(|(_, pod)| pod.enrolled);
    if own.is_some_and(|(_, own)| own.addresses.contains(&to.ip())) {
        return vec![plain_to_itself()];
    }
    let there = case.compiler.pod_at(&to.ip()).and_then(|name| pod(snapshot, name)).map(|(_, pod)| pod);
    let from = source.address_for(to.ip());
    let subject = |address| snapshot.directory.workloads.get(&address).map(|workload| &workload.subject);
    let (edge, by) = match &source.who {
        Who::Edge(edge) => (Some(&edge.identity), Some(&edge.subject)),
        Who::Pod(_) | Who::Other => (None, subject(from)),
    };
    let flow = Flow {
        source: Party { address: from, port: None, subject: by },
        destination: Party { address: to.ip(), port: Some(to.port()), subject: subject(to.ip()) },
        with_node: false,
        protocol: TCP,
        proof: None,
        sni,
        spoken: Spoken::Opaque,
    };
    let mut steps = Vec::new();
    if let Some((key, _)) = own
        && let Some(policies) = snapshot.policies.get(key)
    {
        steps.push(step(What::Egress, &policies.outbound, &flow));
    }
    let proves = |address| snapshot.directory.workloads.get(address).is_some_and(|of| of.proves(to.port()).is_some());
    let is_mutual = may_prove && proves(&to.ip());
    let identity = edge.or(own.map(|(_, own)| &own.workload.identity)).filter(|_| is_mutual);
    let mode = there.filter(|there| there.enrolled).map(|there| {
        let workload = case.compiler.workload(&there.name);
        let by = workload.and_then(|workload| case.compiler.mode_by(workload, to.port()));
        (there.mode(to.port()), by)
    });
    steps.push(protection(identity, mode));
    if let Some(there) = there
        && let Some(policies) = snapshot.policies.get(&there.key)
    {
        let principal = identity.map(|identity| identity.principal());
        let proof = identity.zip(principal.as_deref());
        let proof = proof.map(|(identity, principal)| Proof { identity, principal });
        let flow = Flow { proof, ..flow };
        let mut arrives = arriving(&policies.inbound, &flow, request);
        if !policies.inbound.is_empty() {
            arrives.told.extend(source.remark().map(str::to_owned));
        }
        if edge.is_some() && !arrives.is_allowed {
            let near = arriving(&policies.inbound, &Flow { with_node: true, ..flow }, request);
            let near = near.is_allowed.then(|| format!("from the pod's own node it would be allowed by {}", near.by));
            arrives.told.extend(near);
        }
        steps.push(arrives);
    }
    let denied = steps.iter().position(|step| !step.is_allowed);
    steps.truncate(denied.map_or(steps.len(), |at| at + 1));
    steps
}

/// How it is protected, and whether that is enough for the mode of the port and who gives it that.
fn protection(identity: Option<&Arc<Identity>>, mode: Option<(MtlsMode, Option<ObjectRef>)>) -> Step {
    let step = |is_allowed, by: String| Step { what: What::Protection, is_allowed, by, told: Vec::new() };
    let Some((mode, by)) = mode else {
        let outside = "the destination is not in the mesh, and nothing is judged there";
        return match identity {
            Some(identity) => step(true, format!("mutual TLS, as {identity}")),
            None => step(true, format!("plain text; {outside}")),
        };
    };
    let says = match (mode, by) {
        (mode, Some(by)) => format!("{by} says {}", mode.name()),
        (mode, None) => format!("no PeerAuthentication says anything, which is {}", mode.name()),
    };
    match (identity, mode) {
        (Some(identity), _) => step(true, format!("mutual TLS, as {identity}; {says}")),
        (None, MtlsMode::Strict) => step(false, format!("plain text, where {says}; the source must be in the mesh")),
        (None, MtlsMode::Permissive | MtlsMode::Disable) => step(true, format!("plain text; {says}")),
    }
}

/// Of places whose addresses are not known before something goes there.
pub(super) fn unresolved() -> Step {
    let by = "whatever the address has, once the node has resolved the name".to_owned();
    let told = vec!["what leaves is judged by the address, which is not known here".to_owned()];
    Step { what: What::Protection, is_allowed: true, by, told }
}

/// What a pod says to itself passes no listener of the mesh.
fn plain_to_itself() -> Step {
    let by = "plain text, through the pod's own loopback".to_owned();
    Step { what: What::Protection, is_allowed: true, by, told: Vec::new() }
}

/// What policies say of what arrives.
fn arriving(chains: &Chains, flow: &Flow<'_>, request: Option<&Understood>) -> Step {
    let port = flow.destination.port.unwrap_or_default();
    let Some(asked) = request else {
        let (asks_http, asks_sni) = (chains.reads_http(port), chains.reads_sni(port) && *flow.sni == Sni::Unread);
        let otherwise = if asks_sni { Flow { sni: &Sni::Absent, ..*flow } } else { *flow };
        let otherwise = step(What::Ingress, chains, &otherwise);
        if !asks_http && !asks_sni {
            return otherwise;
        }
        let mut unread = step(What::Ingress, chains, &Flow { spoken: Spoken::Unread, ..*flow });
        if unread.is_allowed {
            if asks_http {
                unread.told.push("this depends on the request: give METHOD and PATH".to_owned());
            }
            if asks_sni {
                unread.told.push("this depends on the server name that is asked for in TLS: give --sni".to_owned());
            }
            let verdict = match (asks_sni, otherwise.is_allowed) {
                (false, true) => OTHERWISE_ALLOWED,
                (false, false) => OTHERWISE_DENIED,
                (true, true) => NAMELESS_ALLOWED,
                (true, false) => NAMELESS_DENIED,
            };
            unread.told.push(format!("{verdict} {}", otherwise.by));
        }
        return unread;
    };
    step(What::Ingress, chains, &Flow { spoken: Spoken::Http(&asked.judged()), ..*flow })
}

/// What policies say of a request that enters by something, to the address of a node and this port.
pub(super) fn entering(chains: &Chains, source: &End, port: u16, request: &Understood) -> Step {
    let client = source.address_for(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let local = if client.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    // Whoever opens TLS asks for the host.
    let sni = if request.scheme == "https" { Sni::of(request.authority.host()) } else { Sni::Absent };
    let flow = Flow {
        source: Party { address: client, port: None, subject: None },
        destination: Party { address: local, port: Some(port), subject: None },
        with_node: false,
        protocol: TCP,
        proof: None,
        sni: &sni,
        spoken: Spoken::Http(&request.judged()),
    };
    let mut step = step(What::Entering, chains, &flow);
    if !chains.is_empty() {
        step.told.extend(source.remark().map(str::to_owned));
    }
    step
}

fn step(what: What, chains: &Chains, flow: &Flow<'_>) -> Step {
    let mut told = Vec::new();
    let verdict = judge(chains, flow, |one| {
        told.push(match one {
            Told::Rule(origin) => format!("{origin} tells of it"),
            Told::Trial(verdict) => {
                let would = if verdict.is_allowed { "allowed" } else { "denied" };
                format!("with the policies on trial it would be {would} by {}", verdict.by)
            }
        });
    });
    Step { what, is_allowed: verdict.is_allowed, by: verdict.by.to_string(), told }
}

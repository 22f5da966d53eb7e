//! By what an open connection was judged, so that it can be judged again.
//!
//! In:  what is known of a connection; the snapshot of a later moment.
//! Out: why it may not go on.
//! Invariant: an address that discovery no longer gives to anyone does not condemn: the pod behind it is gone, and so will the
//! connection be.

use super::authorize::{self, Arrival, Entering, Head, Tell};
use super::refusal::{self, Refusal};
use super::worker::{Pod, Worker};
use crate::model::{Identity, MtlsMode};
use crate::policy::{Sni, Spoken};
use crate::snapshot::NodeSnapshot;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// By what an open connection was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Facts {
    /// It arrived for the pod.
    Inbound {
        /// From whom and where.
        arrival: Arrival,
        /// By which way.
        way: Way,
        /// What is judged on it.
        carries: Carries,
    },
    /// Requests that leave the pod, or enter through gateways, and are judged one by one.
    Http,
    /// A request that entered through gateways, or what came of it.
    Entered {
        /// From whom and where.
        entry: Entering,
        /// The request.
        head: Rc<Head>,
    },
    /// Left for an endpoint.
    Outbound {
        /// The endpoint.
        to: SocketAddr,
        /// Who it proved to be; `None` in plain text.
        identity: Option<Arc<Identity>>,
    },
}

/// How a connection arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In plain text.
    Plain {
        /// Did its port demand mutual TLS already? It was let in because the pod was joining or leaving the mesh, and goes on like
        /// those that were begun before.
        early: bool,
    },
    /// In plain text from the node itself, on a port where the kubelet asks after the pod.
    Probe,
    /// Over mutual TLS.
    Mesh,
}

/// What is judged on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Something that nobody reads.
    Opaque,
    /// Requests, each for itself, or what is yet to be read.
    Requests,
    /// This request, or what came of it.
    Request(Rc<Head>),
}

impl Facts {
    /// Of a connection that arrived.
    pub(crate) fn arrived(arrival: Arrival, way: Way) -> Self {
        Self::Inbound { arrival, way, carries: Carries::Opaque }
    }

    /// The same of one that carries something else.
    pub(crate) fn carrying(mut self, now: Carries) -> Self {
        if let Self::Inbound { carries, .. } = &mut self {
            *carries = now;
        }
        self
    }

    /// The same of one whose client asked for this server name.
    pub(crate) fn asking_for(mut self, name: Sni) -> Self {
        if let Self::Inbound { arrival, .. } = &mut self {
            arrival.sni = name;
        }
        self
    }

    /// The connection as it arrived.
    pub(crate) fn arrival(&self) -> Option<&Arrival> {
        match self {
            Self::Inbound { arrival, .. } => Some(arrival),
            Self::Http | Self::Entered { .. } | Self::Outbound { .. } => None,
        }
    }

    /// Does the kubelet ask?
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self, Self::Inbound { way: Way::Probe, .. })
    }

    /// Why the connection may not go on under `snapshot`; `None` if it may.
    pub(crate) fn verdict(&self, ends: (&Worker, &Pod), snapshot: &NodeSnapshot) -> Option<Refusal> {
        let reason = self.is_out_of_place(snapshot, ends.1);
        let again = |reason| Refusal::new(reason, "the open connection was judged again");
        reason.map(again).or_else(|| self.judge(ends, snapshot).err())
    }

    /// Why whoever is there may not speak like this; `None` if they may.
    pub(crate) fn is_out_of_place(&self, snapshot: &NodeSnapshot, pod: &Pod) -> Option<&'static str> {
        let differs = |address: &IpAddr, identity: &Identity| {
            snapshot.directory.workloads.get(address).is_some_and(|workload| *workload.identity != *identity)
        };
        match self {
            Self::Inbound { arrival: Arrival { local, source, identity, .. }, way, .. } => {
                let pod = snapshot.pods.get(&pod.key);
                let strict = pod.is_some_and(|pod| pod.mode(local.port()) == MtlsMode::Strict);
                match way {
                    Way::Plain { early } => (strict && !early).then_some(refusal::MTLS_REQUIRED),
                    Way::Probe => {
                        let asks = pod.is_some_and(|pod| pod.probe_ports.contains(&local.port()));
                        (strict && !asks).then_some(refusal::MTLS_REQUIRED)
                    }
                    Way::Mesh => {
                        let identity = identity.as_ref()?;
                        differs(source, identity).then_some(refusal::SOURCE_IDENTITY)
                    }
                }
            }
            Self::Http | Self::Entered { .. } => None,
            Self::Outbound { to, identity } => {
                let identity = identity.as_ref()?;
                differs(&to.ip(), identity).then_some(refusal::UPSTREAM_IDENTITY)
            }
        }
    }

    /// Is it denied?
    fn judge(&self, (worker, pod): (&Worker, &Pod), snapshot: &NodeSnapshot) -> Result<(), Refusal> {
        match self {
            Self::Inbound { arrival, way, carries } => {
                let own = snapshot.pods.get(&pod.key);
                let asks = || own.is_none_or(|own| own.probe_ports.contains(&arrival.local.port()));
                if *way == Way::Probe && asks() {
                    return Ok(());
                }
                let judge = |spoken: Spoken<'_>| arrival.judge((worker, pod), snapshot, spoken, Tell::Denials);
                match carries {
                    Carries::Opaque => judge(Spoken::Opaque),
                    Carries::Requests => judge(Spoken::Unread),
                    Carries::Request(head) => judge(Spoken::Http(&head.request())),
                }
            }
            Self::Http => Ok(()),
            Self::Entered { entry, head } => entry.judge(worker, snapshot, &head.request(), Tell::Denials),
            Self::Outbound { to, .. } => authorize::leaving((worker, pod), snapshot, *to, Tell::Denials),
        }
    }
}

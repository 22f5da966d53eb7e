//! What the other nodes are told of this node's pods, step by step.
//!
//! In:  the snapshot's pods, with what was told last; which of them are in force.
//! Out: what is to be told next; what becomes of gateways at this node, of the daemon's own pod.
//! Invariant: a pod takes mutual TLS before the others are told to speak it, and until after they are told not to.
//! Invariant: a pod that starts is told of before it runs; only one that ran before takes plain text for a moment longer.

use super::Control;
use super::pods::State;
use crate::announce::{Announcement, Said};
use crate::model::{Announced, Closed, Listening};
use crate::snapshot::LocalPod;
use crate::snapshot::edge::ListenerHere;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Within this all nodes have heard of a change, or cannot hear of any.
pub const HEARD: Duration = Duration::from_secs(2);
/// What becomes of gateways is told together for so long.
const GATHERING: Duration = Duration::from_millis(250);

impl Control {
    /// Has the other nodes told of this node's pods what they have not been told yet.
    pub(super) fn announce(&mut self) {
        let Some(published) = &self.published else { return };
        let wanted = published.pods.iter().filter(|(_, pod)| !pod.uid.is_empty()).filter_map(|(key, pod)| {
            let in_force = self.enrolments.state(key) == Some(&State::InForce);
            let starts = self.waiting.iter().any(|waiting| waiting.is_for(key));
            let (announced, after) = next(pod, in_force, starts)?;
            let said = Said::Steered(announced);
            Some((pod.name.clone(), Announcement { uid: pod.uid.clone(), said, after }))
        });
        let own = self.parts.own_pod.as_ref().filter(|_| !published.listeners.is_empty()).map(|pod| {
            let listening = listening(&published.listeners, &self.parts.proxy.edge_ports());
            let said = Said::Listening(Arc::new(listening));
            (pod.clone(), Announcement { uid: String::new(), said, after: GATHERING })
        });
        let wanted = wanted.chain(own).collect();
        self.parts.announcer.want(wanted);
    }
}

/// What became of listeners, where these ports are listened on or cannot be.
fn listening(listeners: &[ListenerHere], ports: &BTreeMap<u16, bool>) -> Listening {
    let mut told = Listening::new();
    for listener in listeners {
        let gateway = told.entry(listener.gateway.to_string()).or_default();
        gateway.generation = listener.generation;
        let closed = listener.closed.or(match ports.get(&listener.port) {
            Some(true) => None,
            Some(false) => Some(Closed::PortUnavailable),
            None => Some(Closed::Opening),
        });
        gateway.closed.extend(closed.map(|why| (listener.name.to_string(), why)));
    }
    told
}

/// What is to be announced next of a pod, and after how long.
fn next(pod: &LocalPod, in_force: bool, starts: bool) -> Option<(Announced, Duration)> {
    match (pod.enrolled, pod.announced) {
        (true, Announced::InForce) | (false, Announced::Nothing) => None,
        (true, _) if !in_force => None,
        // Nobody has spoken to it so far.
        (true, Announced::Nothing | Announced::Leaving) if starts => Some((Announced::InForce, Duration::ZERO)),
        (true, Announced::Nothing | Announced::Leaving) => Some((Announced::Joining, Duration::ZERO)),
        (true, Announced::Joining) => Some((Announced::InForce, if starts { Duration::ZERO } else { HEARD })),
        (false, Announced::Joining | Announced::InForce) => Some((Announced::Leaving, Duration::ZERO)),
        (false, Announced::Leaving) => Some((Announced::Nothing, HEARD)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Name, Text, Told};
    use crate::snapshot::{WorkloadEntry, WorkloadLabels};

    pub(in crate::control) fn pod(enrolled: bool, announced: Announced) -> LocalPod {
        let name = Name::new("shop", "web");
        let entry = WorkloadEntry {
            identity: Arc::new("spiffe://cluster.local/ns/shop/sa/web".parse().expect("an identity")),
            inbound: None,
            takes_mutual_tls: announced.takes_mutual_tls(),
            labels: Arc::new(WorkloadLabels {
                workload: Text::new(),
                namespace: Text::new(),
                app: Text::new(),
                version: Text::new(),
                canonical_service: Text::new(),
                canonical_revision: Text::new(),
                principal: Text::new(),
            }),
            subject: Arc::default(),
        };
        LocalPod {
            key: "c0ffee".into(),
            name,
            uid: "1".to_owned(),
            netns: String::new(),
            ifname: "eth0".to_owned(),
            addresses: Vec::new(),
            workload: Arc::new(entry),
            enrolled,
            announced,
            probe_ports: Box::default(),
        }
    }

    /// All that is said of a pod from a state on.
    fn story(enrolled: bool, from: Announced, starts: bool) -> Vec<Announced> {
        let mut said = vec![from];
        while let Some((next, _)) = next(&pod(enrolled, said[said.len() - 1]), true, starts) {
            assert!(said.len() < 5, "{said:?} has no end");
            said.push(next);
        }
        said
    }

    #[test]
    fn a_listener_is_told_to_be_open_once_its_port_is() {
        let here = |gateway: &str, name: &str, port: u16, closed: Option<Closed>| ListenerHere {
            gateway: gateway.into(),
            generation: 3,
            name: name.into(),
            port,
            closed,
        };
        let listeners = [
            here("u1", "open", 80, None),
            here("u1", "busy", 81, None),
            here("u1", "early", 82, None),
            here("u1", "bare", 443, Some(Closed::InvalidCertificate)),
            here("u2", "open", 80, None),
        ];
        let told = listening(&listeners, &BTreeMap::from([(80, true), (81, false)]));
        let closed =
            [("bare", Closed::InvalidCertificate), ("busy", Closed::PortUnavailable), ("early", Closed::Opening)];
        let closed: BTreeMap<String, Closed> = closed.map(|(name, why)| (name.to_owned(), why)).into();
        let (first, second) = (Told { generation: 3, closed }, Told { generation: 3, ..Told::default() });
        assert_eq!(told, Listening::from([("u1".to_owned(), first), ("u2".to_owned(), second)]));
    }

    #[test]
    fn a_pod_that_ran_before_joins_and_leaves_in_two_steps() {
        use Announced::{InForce, Joining, Leaving, Nothing};
        assert_eq!(story(true, Nothing, false), [Nothing, Joining, InForce]);
        assert_eq!(story(false, InForce, false), [InForce, Leaving, Nothing]);
        // It changed its mind half way.
        assert_eq!(story(false, Joining, false), [Joining, Leaving, Nothing]);
        assert_eq!(story(true, Leaving, false), [Leaving, Joining, InForce]);
    }

    #[test]
    fn a_pod_that_starts_is_announced_in_one() {
        use Announced::{InForce, Joining, Nothing};
        assert_eq!(story(true, Nothing, true), [Nothing, InForce]);
        // The daemon that said the first step is gone, and the pod's ADD is asked again.
        assert_eq!(next(&pod(true, Joining), true, true), Some((InForce, Duration::ZERO)));
    }

    #[test]
    fn nothing_is_said_of_a_pod_that_is_not_steered_yet() {
        for announced in [Announced::Nothing, Announced::Joining, Announced::Leaving] {
            assert_eq!(next(&pod(true, announced), false, true), None);
        }
        // But that it leaves can be said at once.
        assert_eq!(next(&pod(false, Announced::InForce), false, false), Some((Announced::Leaving, Duration::ZERO)));
    }
}

//! Where each pod of this node stands between being wanted and being in force.
//!
//! In:  the snapshot's pods; results of certificates, steering and draining.
//! Out: orders to the steering thread and the proxy.
//! Invariant: a pod is steered only once it has a certificate; it is restored only once its last connection ended.

use super::Control;
use super::steerer::Outcome;
use crate::model::Name;
use crate::snapshot::{LocalPod, NodeSnapshot, PodKey};
use crate::status::{About, Notice, Notices, What};
use crate::telemetry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long after a failure a pod is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for its certificate.
    Certificate,
    /// The kernel is being told, by the order of this number.
    Steering(u64),
    /// Its traffic is steered.
    InForce,
    /// The kernel refused; tried again at this time.
    Failed(String, Instant),
    /// It left; its last connections go on.
    Leaving,
}

struct Enrolment {
    pod: Arc<LocalPod>,
    state: State,
}

/// Every pod of this node that is or was to be steered.
#[derive(Default)]
pub(super) struct Enrolments(BTreeMap<PodKey, Enrolment>);

impl Enrolments {
    /// Where a pod stands.
    pub(super) fn state(&self, key: &str) -> Option<&State> {
        self.0.get(key).map(|enrolment| &enrolment.state)
    }

    /// Pods that left and still have connections.
    pub(super) fn leaving(&self) -> impl Iterator<Item = PodKey> {
        self.0.iter().filter(|(_, enrolment)| enrolment.state == State::Leaving).map(|(key, _)| Arc::clone(key))
    }

    /// The pods that are in force.
    pub(super) fn in_force(&self) -> BTreeSet<PodKey> {
        self.0
            .iter()
            .filter(|(_, enrolment)| enrolment.state == State::InForce)
            .map(|(key, _)| Arc::clone(key))
            .collect()
    }

    /// What is missing, pod by pod, in a few words.
    pub(super) fn missing(&self) -> impl Iterator<Item = String> {
        self.0.values().filter_map(|Enrolment { pod, state }| match state {
            State::Certificate => Some(format!("pod {} waits for its certificate", pod.name)),
            State::Steering(_) => Some(format!("pod {} is being enrolled", pod.name)),
            State::Failed(error, _) => Some(format!("pod {} cannot be enrolled: {error}", pod.name)),
            State::InForce | State::Leaving => None,
        })
    }

    /// Pods that are in force, and of which the other nodes have not heard.
    pub(super) fn unannounced(&self) -> impl Iterator<Item = &Name> {
        let waiting = |enrolment: &&Enrolment| {
            enrolment.state == State::InForce && enrolment.pod.enrolled && !enrolment.pod.is_settled()
        };
        self.0.values().filter(waiting).map(|enrolment| &enrolment.pod.name)
    }

    /// A pod's name, for people.
    fn name(&self, key: &str) -> Option<String> {
        self.0.get(key).map(|enrolment| enrolment.pod.name.to_string())
    }

    /// Tells users what became of a pod.
    fn tell(&self, notices: &Notices, key: &str, what: impl FnOnce(&LocalPod) -> What) {
        if let Some(Enrolment { pod, .. }) = self.0.get(key) {
            notices.tell(Notice { about: About::pod(&pod.name, &pod.uid), what: what(pod) });
        }
    }

    /// Tells users that a pod is in the mesh, if it is wholly so.
    fn tell_joined(&self, notices: &Notices, key: &str) {
        if self.0.get(key).is_some_and(|enrolment| enrolment.pod.is_settled()) {
            self.tell(notices, key, |pod| What::Joined { identity: pod.workload.identity.to_string() });
        }
    }

    /// Takes what became of an order to enrol, and gives where the pod stands then; `None` if the pod has moved on since the order was
    /// given, be it to another order.
    fn hear(&mut self, key: &str, order: u64, outcome: Result<(), String>, now: Instant) -> Option<State> {
        let enrolment = self.0.get_mut(key).filter(|enrolment| enrolment.state == State::Steering(order))?;
        enrolment.state = outcome.map_or_else(|error| State::Failed(error, now + RETRY), |()| State::InForce);
        Some(enrolment.state.clone())
    }

    fn set(&mut self, key: &str, state: State) {
        if let Some(enrolment) = self.0.get_mut(key) {
            enrolment.state = state;
        }
    }
}

/// Must the kernel be told of the difference between two states of one pod?
fn moved(before: &LocalPod, after: &LocalPod) -> bool {
    before.addresses != after.addresses || before.netns != after.netns || before.ifname != after.ifname
}

impl Control {
    /// Brings every pod toward what the snapshot wants.
    pub(super) fn reconcile(&mut self, snapshot: &NodeSnapshot) {
        for (key, pod) in &snapshot.pods {
            match self.enrolments.0.get_mut(key) {
                Some(Enrolment { pod: before, state }) if *state != State::Leaving && !moved(before, pod) => {
                    let settled = *state == State::InForce && !before.is_settled() && pod.is_settled();
                    *before = Arc::clone(pod);
                    if settled {
                        self.enrolments.tell_joined(&self.parts.notices, key);
                    }
                }
                Some(_) | None => self.begin(key, pod),
            }
        }
        let gone: Vec<PodKey> =
            self.enrolments.0.keys().filter(|key| !snapshot.pods.contains_key(*key)).cloned().collect();
        for key in gone {
            self.end(&key);
        }
    }

    fn begin(&mut self, key: &PodKey, pod: &Arc<LocalPod>) {
        self.enrolments.0.insert(Arc::clone(key), Enrolment { pod: Arc::clone(pod), state: State::Certificate });
        let keyring = self.parts.keyring.clone();
        let identity = Arc::clone(&pod.workload.identity);
        if keyring.current(&identity).is_some() {
            return self.steer_certified(key);
        }
        let (key, certified) = (Arc::clone(key), self.certified.0.clone());
        telemetry::spawn("certificate", async move {
            // Not wanted any more: then the pod has left, and nobody waits.
            if keyring.ready(&identity).await.is_ok() {
                let _loop_ended = certified.send(key);
            }
        });
    }

    /// The pod has its certificate: the kernel may be told.
    pub(super) fn steer_certified(&mut self, key: &PodKey) {
        if let Some(enrolment) = self.enrolments.0.get_mut(key)
            && enrolment.state == State::Certificate
        {
            enrolment.state = State::Steering(self.parts.steerer.enrol(Arc::clone(&enrolment.pod)));
        }
    }

    /// The pod is no longer to be steered: it left the mesh, or it is gone.
    fn end(&mut self, key: &PodKey) {
        let exists = self.world().attachments().any(|attachment| *attachment.container_id == **key);
        match self.enrolments.state(key) {
            None => {}
            Some(State::Leaving) if exists => {}
            Some(State::Certificate) if exists => {
                self.enrolments.0.remove(key);
            }
            Some(_) if exists => {
                self.enrolments.set(key, State::Leaving);
                self.parts.steerer.leave(Arc::clone(key));
                let pod = self.enrolments.name(key);
                tracing::info!(pod, sandbox = %key, "a pod leaves the mesh; its open connections go on");
                self.enrolments.tell(&self.parts.notices, key, |_| What::Left);
            }
            Some(_) => {
                self.enrolments.0.remove(key);
                self.parting.extend(self.parts.proxy.remove(key));
                self.parts.steerer.forget(Arc::clone(key));
            }
        }
    }

    /// The steering thread has done something.
    pub(super) fn hear(&mut self, report: super::Report) {
        match report.0 {
            Outcome::Enrolled(key, order, outcome) => self.hear_enrolled(&key, order, outcome),
            Outcome::Left(key) if self.enrolments.state(&key) == Some(&State::Leaving) => {
                let (proxy, retired) = (Arc::clone(&self.parts.proxy), self.retired.0.clone());
                telemetry::spawn("retire", async move {
                    proxy.retire(&key).await;
                    let _loop_ended = retired.send(key);
                });
            }
            // The pod has moved on since the order was given.
            Outcome::Left(_) => {}
            Outcome::Found(found) => self.take_found(found),
        }
    }

    fn hear_enrolled(&mut self, key: &PodKey, order: u64, outcome: Result<(), String>) {
        match self.enrolments.hear(key, order, outcome, Instant::now()) {
            Some(State::InForce) => {
                tracing::info!(pod = self.enrolments.name(key), sandbox = %key, "a pod's traffic is steered");
                self.enrolments.tell_joined(&self.parts.notices, key);
            }
            Some(State::Failed(error, _)) => {
                let pod = self.enrolments.name(key);
                tracing::error!(pod, sandbox = %key, error, "a pod cannot be enrolled; it is tried again");
                self.enrolments.tell(&self.parts.notices, key, |_| What::Failed { why: error });
            }
            Some(State::Certificate | State::Steering(_) | State::Leaving) | None => {}
        }
    }

    /// The last connection of a pod that left has ended.
    pub(super) fn restore_retired(&mut self, key: &PodKey) {
        if self.enrolments.state(key) == Some(&State::Leaving) {
            self.enrolments.0.remove(key);
            self.parts.steerer.restore(Arc::clone(key));
        }
    }

    pub(super) fn retry_failed(&mut self) {
        let now = Instant::now();
        let due: Vec<PodKey> = self
            .enrolments
            .0
            .iter()
            .filter(|(_, enrolment)| matches!(enrolment.state, State::Failed(_, at) if at <= now))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in due {
            self.enrolments.set(&key, State::Certificate);
            self.steer_certified(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::announcing::tests::pod;
    use crate::model::Announced;

    #[test]
    fn of_several_orders_for_a_pod_the_last_one_counts() {
        let now = Instant::now();
        let pod = Arc::new(pod(true, Announced::Nothing));
        let steering = |order| Enrolment { pod: Arc::clone(&pod), state: State::Steering(order) };
        // It was enrolled, left, and is enrolled again before the kernel was told of either.
        let mut enrolments = Enrolments(BTreeMap::from([(Arc::clone(&pod.key), steering(2))]));
        assert_eq!(enrolments.hear(&pod.key, 1, Ok(()), now), None, "that order is of before");
        assert_eq!(enrolments.state(&pod.key), Some(&State::Steering(2)));
        let failed = State::Failed("why".to_owned(), now + RETRY);
        assert_eq!(enrolments.hear(&pod.key, 2, Err("why".to_owned()), now), Some(failed.clone()));
        assert_eq!(enrolments.hear(&pod.key, 2, Ok(()), now), None, "it was told once");
        assert_eq!(enrolments.state(&pod.key), Some(&failed));
        assert_eq!(enrolments.hear("another", 2, Ok(()), now), None);

        enrolments.0.insert(Arc::clone(&pod.key), steering(3));
        assert_eq!(enrolments.hear(&pod.key, 3, Ok(()), now), Some(State::InForce));
    }
}

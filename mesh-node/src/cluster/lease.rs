//! Which of several programs acts: the one that holds a lease.
//!
//! In:  the lease as it is found, and this process's own monotonic clock.
//! Out: whether it may be taken; taking, renewing and releasing it.
//! Invariant: a lease is over when it was *seen* unchanged for its duration: times that others wrote are never compared
//! with a clock of ours. Whoever cannot renew for `RENEW_DEADLINE` stops before another may begin.
//! Source: Kubernetes `coordination.k8s.io/v1.Lease`; client-go's leader election.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use std::time::Duration;
use tokio::time::Instant;

/// How long a lease that nobody renews stays taken.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long a leader that cannot renew goes on.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews, and others look.
const RETRY: Duration = Duration::from_secs(2);

/// What tells one state of a lease from the next.
type Record = (Option<String>, Option<Timestamp>, Option<i32>);

/// What was seen of a lease.
#[derive(Debug, Default)]
struct Observed(Option<(Record, Instant)>);

impl Observed {
    /// May `me` write itself into the lease?
    fn is_free(&mut self, found: &LeaseSpec, me: &str, now: Instant) -> bool {
        let holder = found.holder_identity.clone().filter(|holder| !holder.is_empty());
        let record = (holder.clone(), found.renew_time.as_ref().map(|time| time.0), found.lease_transitions);
        let seen = match &self.0 {
            Some((known, seen)) if *known == record => *seen,
            Some(_) | None => {
                self.0 = Some((record, now));
                now
            }
        };
        let seconds = found.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        holder.is_none_or(|holder| holder == me) || now >= seen + duration
    }
}

/// What failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the lease {lease}")]
pub struct LeaseError {
    action: &'static str,
    lease: &'static str,
    #[source]
    source: Box<kube::Error>,
}

/// One candidate's part in the election.
pub struct Election {
    api: Api<Lease>,
    lease: &'static str,
    me: String,
    observed: Observed,
}

impl Election {
    /// Stands for election to `lease` under a name that no other process has.
    #[must_use]
    pub fn new(client: Client, namespace: &str, lease: &'static str, candidate: &str) -> Self {
        let me = format!("{candidate}_{:016x}", fastrand::u64(..));
        Self { api: Api::namespaced(client, namespace), lease, me, observed: Observed::default() }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(kube::Error) -> LeaseError + use<> {
        let lease = self.lease;
        move |source| LeaseError { action, lease, source: Box::new(source) }
    }

    /// Waits until this process leads.
    ///
    /// **Cancel**: safe; the lease may then be held until it runs out.
    pub async fn win(&mut self) {
        loop {
            match tokio::time::timeout(RENEW_DEADLINE, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "no election"),
                Err(_) => tracing::warn!("no election: the API server does not answer"),
            }
            tokio::time::sleep(RETRY.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
        }
    }

    /// Renews the lease until that fails for too long or another has it.
    ///
    /// **Cancel**: safe.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the lease is not renewed");
                }
                Err(_) => return,
            }
        }
    }

    /// Takes or renews the lease, if that is allowed. Is it ours?
    async fn attempt(&mut self) -> Result<bool, LeaseError> {
        let found = self.api.get_opt(self.lease).await.map_err(self.failed("read"))?;
        let now = Timestamp::now();
        let written = match found {
            None => {
                let metadata = ObjectMeta { name: Some(self.lease.to_owned()), ..ObjectMeta::default() };
                let spec = Some(taken(LeaseSpec::default(), &self.me, now));
                self.api.create(&PostParams::default(), &Lease { metadata, spec }).await
            }
            Some(mut lease) => {
                let spec = lease.spec.take().unwrap_or_default();
                if !self.observed.is_free(&spec, &self.me, Instant::now()) {
                    return Ok(false);
                }
                lease.spec = Some(taken(spec, &self.me, now));
                self.api.replace(self.lease, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.failed("write")(error)),
        }
    }

    /// Gives the lease up, so that another need not wait for its end.
    ///
    /// **Errors**: it is not given up, and runs out by itself.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        let found = self.api.get_opt(self.lease).await.map_err(self.failed("read"))?;
        let Some(mut lease) = found else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.me)) else {
            return Ok(());
        };
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        let released = self.api.replace(self.lease, &PostParams::default(), &lease).await;
        released.map(|_| ()).map_err(self.failed("release"))
    }
}

/// The lease once `me` holds it.
fn taken(mut spec: LeaseSpec, me: &str, now: Timestamp) -> LeaseSpec {
    if spec.holder_identity.as_deref() != Some(me) {
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1)));
        spec.acquire_time = Some(MicroTime(now));
        spec.holder_identity = Some(me.to_owned());
    }
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).expect("a time"))),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_over_when_it_was_seen_unchanged_for_its_duration() {
        let (mut observed, start) = (Observed::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // Renewed long ago or far ahead by the other's clock: that says nothing.
        for renewed in [0, 4_000_000_000] {
            assert!(!observed.is_free(&held_by("other", renewed), "me", at(0)), "{renewed}");
            assert!(!observed.is_free(&held_by("other", renewed), "me", at(14)));
        }
        assert!(observed.is_free(&held_by("other", 4_000_000_000), "me", at(15)));
        // A sign of life begins the wait anew.
        assert!(!observed.is_free(&held_by("other", 4_000_000_001), "me", at(15)));
        assert!(!observed.is_free(&held_by("other", 4_000_000_001), "me", at(29)));
        assert!(observed.is_free(&held_by("other", 4_000_000_001), "me", at(30)));
    }

    #[test]
    fn ones_own_lease_and_one_given_up_are_free_at_once() {
        let (mut observed, now) = (Observed::default(), Instant::now());
        assert!(observed.is_free(&held_by("me", 0), "me", now));
        assert!(observed.is_free(&held_by("", 0), "me", now));
        assert!(observed.is_free(&LeaseSpec::default(), "me", now));
        assert!(!observed.is_free(&held_by("me_too", 0), "me", now));
    }

    #[test]
    fn a_change_of_holder_is_counted_and_a_renewal_is_not() {
        let now = Timestamp::from_second(7).expect("a time");
        let first = taken(LeaseSpec::default(), "one", now);
        assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("one"), Some(0)));
        let later = Timestamp::from_second(9).expect("a time");
        let renewed = taken(first.clone(), "one", later);
        assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&first.acquire_time, Some(0)));
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        assert_eq!(taken(renewed, "two", later).lease_transitions, Some(1));
        const { assert!(RETRY.as_secs() < RENEW_DEADLINE.as_secs() && RENEW_DEADLINE.as_secs() < DURATION.as_secs()) };
    }
}

//! Keeps every wanted identity in possession of a valid certificate.
//!
//! In:  what is wanted, the issuer, the certificates on disk, the clock.
//! Out: what [`Keyring::current`](super::Keyring::current) reads.
//! Invariant: one [`Rotation::step`] depends on the clock and on its inputs alone and never waits for time to pass; a
//! certificate that peers would refuse is replaced at once; one that works is kept until it expires.

mod counts;

use super::clock::unix;
use super::store::Store;
use super::svid::Svid;
use super::{
    Bundle, Clock, Config, Credentials, FileError, IdentityError, IssueError, Issuer, PeerError, Published, Request,
    Shared, Wanted,
};
use super::{explain, tls};
use crate::model::Identity;
use crate::telemetry::Metrics;
use counts::Counts;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What keeps a very short life from being renewed without pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Certificates asked for at once: a node full of pods that start together must not storm the issuer.
pub(super) const AT_ONCE: usize = 8;

/// The keyring's task.
pub(super) struct Rotation {
    svid_ttl: Duration,
    reread: Duration,
    pub(super) patience: Duration,
    clock: Clock,
    issuer: Arc<dyn Issuer>,
    store: Store,
    shared: Arc<Shared>,
    changed: watch::Sender<u64>,
    counts: Counts,
    /// What the issuer said last.
    latest: Bundle,
    /// The part of it that has not expired.
    bundle: Arc<Bundle>,
    next_reread: SystemTime,
    /// The set that `held` follows.
    wanted: Arc<Wanted>,
    held: BTreeMap<Arc<Identity>, Held>,
    generation: u64,
    /// Faults of roots that have been reported and are still there.
    faults: BTreeSet<String>,
    /// When certificates on disk that nobody wants are removed; `None` once done.
    sweep_at: Option<SystemTime>,
}

/// What there is of one wanted identity.
struct Held {
    svid: Option<Svid>,
    credentials: Option<Arc<Credentials>>,
    /// When to ask the issuer.
    due: SystemTime,
    /// Failures since the last success.
    failures: u32,
    failure: Option<Arc<str>>,
}

/// What an issuer gave for a key.
struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Rotation {
    pub(super) fn new(
        config: &Config,
        issuer: Arc<dyn Issuer>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<(Self, watch::Receiver<u64>), IdentityError> {
        let store = Store::open(&config.state_dir).map_err(IdentityError::OpenState)?;
        let (changed, receiver) = watch::channel(0);
        let now = clock.now();
        let counts = Counts::new(metrics);
        let latest = store.load_bundle(&config.trust_domain).unwrap_or_else(|error| {
            counts.failed("disk");
            tracing::warn!(error = explain(&error), "the last bundle is not used");
            Bundle::empty(config.trust_domain.clone())
        });
        let rotation = Self {
            svid_ttl: config.svid_ttl,
            reread: config.reread,
            patience: config.patience,
            clock,
            issuer,
            store,
            shared: Arc::default(),
            changed,
            counts,
            bundle: Arc::new(latest.at(now)),
            latest,
            next_reread: now,
            wanted: Arc::default(),
            held: BTreeMap::new(),
            generation: 0,
            faults: BTreeSet::new(),
            sweep_at: Some(now + config.orphan_grace),
        };
        Ok((rotation, receiver))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Steps for ever: when something is due, and when something else is wanted.
    pub(super) async fn run(mut self) {
        loop {
            let pause = self.step().await;
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what is due now. Returns how long nothing will be.
    pub(super) async fn step(&mut self) -> Duration {
        let now = self.clock.now();
        let mut changed = self.follow_issuer(now).await;
        changed |= self.follow_wants(now);
        changed |= self.follow_clock(now);
        if changed {
            self.publish();
        }
        self.renew_due().await;
        self.sweep(now);
        self.pause()
    }

    fn pause(&self) -> Duration {
        let due = self.held.values().map(|held| held.due);
        let next = due.chain(self.sweep_at).fold(self.next_reread, SystemTime::min);
        next.duration_since(self.clock.now()).unwrap_or_default().clamp(SHORTEST_PAUSE, self.reread.max(SHORTEST_PAUSE))
    }

    /// Takes up new roots and drops expired ones. Did anything change?
    async fn follow_issuer(&mut self, now: SystemTime) -> bool {
        // A clock set back must not postpone it.
        if self.next_reread <= now || now + self.reread < self.next_reread {
            self.next_reread = now + self.reread;
            let answer = self.ask_for_roots().await;
            let faults = match answer {
                Ok((latest, faults)) => {
                    self.latest = latest;
                    faults
                }
                Err(error) => vec![error],
            };
            self.report(faults);
        }
        let bundle = self.latest.at(now);
        if bundle == *self.bundle {
            return false;
        }
        tracing::info!(roots = bundle.len(), before = self.bundle.len(), "the bundle of roots has changed");
        self.disk_did(self.store.save_bundle(&bundle), "the bundle is not on disk");
        self.bundle = Arc::new(bundle);
        let identities: Vec<_> = self.held.keys().cloned().collect();
        for identity in identities {
            self.rebuild(&identity, now);
        }
        true
    }

    /// Asks the issuer for its roots. A silent one does not keep what is wanted meanwhile from what is on disk, unless there
    /// are no roots to judge that by.
    async fn ask_for_roots(&mut self) -> Result<(Bundle, Vec<IssueError>), IssueError> {
        let (shared, issuer) = (Arc::clone(&self.shared), Arc::clone(&self.issuer));
        let mut answer = pin!(in_time(self.patience, issuer.bundle()));
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = shared.wake.notified(), if !self.bundle.is_empty() => {
                    if self.follow_wants(self.clock.now()) {
                        self.publish();
                    }
                }
            }
        }
    }

    /// Names each fault once, for as long as it lasts, and counts it each time.
    fn report(&mut self, faults: Vec<IssueError>) {
        let mut seen = BTreeSet::new();
        for fault in faults {
            self.counts.failed(fault.reason());
            let text = explain(&fault);
            if !self.faults.contains(&text) {
                tracing::warn!(error = text, "the issuer has a fault");
            }
            seen.insert(text);
        }
        self.faults = seen;
    }

    /// Drops what is no longer wanted and looks on disk for what newly is. Has the set changed?
    fn follow_wants(&mut self, now: SystemTime) -> bool {
        let wanted = self.shared.wanted.load_full();
        if Arc::ptr_eq(&wanted, &self.wanted) {
            return false;
        }
        let gone: Vec<_> = self.held.keys().filter(|identity| !wanted.contains_key(*identity)).cloned().collect();
        for identity in gone {
            self.held.remove(&identity);
            // Soon after a start pods are tried again and again, and the issuer may be away: the sweep takes what is left then.
            if self.sweep_at.is_none() {
                self.disk_did(self.store.remove(&identity), "a certificate nobody wants is still on disk");
            }
        }
        for identity in wanted.keys() {
            if !self.held.contains_key(identity) {
                let svid = self.found_on_disk(identity);
                let due = svid.as_ref().map_or(now, |svid| self.half_life_of_found(svid, now));
                let held = Held { svid, credentials: None, due, failures: 0, failure: None };
                self.held.insert(Arc::clone(identity), held);
                self.rebuild(identity, now);
            }
        }
        self.wanted = wanted;
        true
    }

    /// When to renew a certificate found on disk: at half of the life that would be asked for today.
    fn half_life_of_found(&self, svid: &Svid, now: SystemTime) -> SystemTime {
        const ROUNDING: Duration = Duration::from_secs(1);
        if svid.not_after > now + self.svid_ttl + ROUNDING {
            return now;
        }
        svid.not_after - self.svid_ttl.mul_f64(renewal_point())
    }

    /// What an earlier run left. Anything unusable is reported, and overwritten by the next certificate.
    fn found_on_disk(&self, identity: &Identity) -> Option<Svid> {
        self.store.load(identity).unwrap_or_else(|error| {
            self.counts.failed("disk");
            tracing::warn!(identity = %identity, error = explain(&error), "a certificate is made anew");
            None
        })
    }

    /// Makes credentials of what is held and the bundle. What peers would refuse is due at once and, when it has not
    /// been in use, is not taken into use.
    fn rebuild(&mut self, identity: &Arc<Identity>, now: SystemTime) {
        let Some(held) = self.held.get_mut(identity) else { return };
        let Some(svid) = &held.svid else { return };
        if let Err(error) = svid.check(&self.bundle, now) {
            tracing::info!(identity = %identity, reason = error.reason(), "a certificate is replaced before its time");
            held.due = now;
            if held.credentials.is_none() {
                held.svid = None;
                return;
            }
        }
        self.generation += 1;
        match credentials(identity, svid, (&self.bundle, &self.clock), self.generation) {
            Ok(credentials) => held.credentials = Some(Arc::new(credentials)),
            Err(error) => tracing::error!(identity = %identity, error = explain(&error), "TLS cannot be configured"),
        }
    }

    /// Withdraws what has expired, and replaces what a clock set back has made early. Did anything change?
    fn follow_clock(&mut self, now: SystemTime) -> bool {
        let mut changed = false;
        for (identity, held) in &mut self.held {
            let Some(svid) = &held.svid else { continue };
            if unix(now) > unix(svid.not_after) {
                tracing::error!(identity = %identity, "the certificate has expired without a successor");
                held.svid = None;
                held.credentials = None;
                changed = true;
            } else if now < svid.not_before && held.failures == 0 {
                held.due = now;
            }
        }
        changed
    }

    /// Asks the issuer for every certificate that is due, a few at a time. What is newly wanted meanwhile is due too.
    async fn renew_due(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut asked = BTreeSet::new();
        let mut answers = FuturesUnordered::new();
        // A silent issuer must not keep us from what else is due.
        let mut silent = false;
        loop {
            if !silent {
                let free = AT_ONCE.saturating_sub(answers.len());
                for identity in self.due(&asked).into_iter().take(free) {
                    asked.insert(Arc::clone(&identity));
                    answers.push(self.ask(identity));
                }
            }
            tokio::select! {
                Some((identity, answer)) = answers.next() => {
                    silent |= matches!(answer, Err(IssueError::TimedOut(_)));
                    self.take(&identity, answer).await;
                    self.publish();
                }
                () = shared.wake.notified(), if !answers.is_empty() => {
                    if self.follow_wants(self.clock.now()) {
                        self.publish();
                    }
                }
                else => return,
            }
        }
    }

    /// What is due and has not been asked for.
    fn due(&self, asked: &BTreeSet<Arc<Identity>>) -> Vec<Arc<Identity>> {
        let now = self.clock.now();
        let due = self.held.iter().filter(|(identity, held)| held.due <= now && !asked.contains(*identity));
        due.map(|(identity, _)| Arc::clone(identity)).collect()
    }

    /// Asks the issuer for one certificate.
    fn ask(
        &self,
        identity: Arc<Identity>,
    ) -> impl Future<Output = (Arc<Identity>, Result<Issued, IssueError>)> + use<> {
        let (issuer, ttl, patience) = (Arc::clone(&self.issuer), self.svid_ttl, self.patience);
        // What is held is wanted.
        let bearer = self.wanted.get(&identity).cloned().unwrap_or_default();
        async move {
            let answer = async {
                let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                    .map_err(|error| IssueError::Unavailable(Box::new(error)))?;
                let request = Request { identity: &identity, bearer: &bearer, key: &key, ttl };
                let chain = in_time(patience, issuer.issue(request)).await?;
                Ok(Issued { chain, key })
            };
            let answer = answer.await;
            (identity, answer)
        }
    }

    /// Takes what the issuer answered into use. On failure the old certificate stays.
    async fn take(&mut self, identity: &Arc<Identity>, answer: Result<Issued, IssueError>) {
        let obtained = match answer {
            // Whoever wanted it has left meanwhile.
            _ if !self.held.contains_key(identity) => return,
            Ok(issued) => self.accept(identity, issued).await,
            Err(error) => Err(error),
        };
        let now = self.clock.now();
        let Some(held) = self.held.get_mut(identity) else { return };
        match obtained {
            Ok(svid) => {
                let remaining = svid.not_after.duration_since(now).unwrap_or_default();
                held.due = now + remaining.mul_f64(renewal_point()).max(SHORTEST_PAUSE);
                held.failures = 0;
                held.failure = None;
                held.svid = Some(svid);
                self.counts.issued();
                self.rebuild(identity, now);
                tracing::info!(identity = %identity, seconds = remaining.as_secs(), "a certificate was issued");
            }
            Err(error) => {
                held.failures = held.failures.saturating_add(1);
                held.due = now + backoff(held.failures, self.svid_ttl);
                let text = explain(&error);
                tracing::warn!(identity = %identity, failures = held.failures, error = text, "no certificate");
                held.failure = Some(text.into());
                self.counts.failed(error.reason());
            }
        }
    }

    /// Checks what was issued as a peer would, and puts it on disk.
    async fn accept(&mut self, identity: &Identity, issued: Issued) -> Result<Svid, IssueError> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key));
        let svid = Svid::new(identity, issued.chain.clone(), key.clone_key())
            .map_err(|error| IssueError::Unusable(Box::new(error)))?;
        let mut checked = svid.check(&self.bundle, self.clock.now());
        if matches!(checked, Err(PeerError::Untrusted)) {
            // Its root may be newer than what was read last.
            self.next_reread = self.clock.now();
            if self.follow_issuer(self.clock.now()).await {
                checked = svid.check(&self.bundle, self.clock.now());
            }
        }
        checked.map_err(|error| IssueError::Unusable(Box::new(error)))?;
        // It works without the disk, until the next start.
        self.disk_did(self.store.save(identity, &issued.chain, &key), "a certificate is not on disk");
        Ok(svid)
    }

    fn sweep(&mut self, now: SystemTime) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        self.sweep_at = None;
        let swept = self.store.sweep(self.held.keys().map(|identity| &**identity));
        self.disk_did(swept, "certificates of earlier runs are still on disk");
    }

    /// Counts and reports what the disk refused; nothing else depends on it.
    fn disk_did(&self, done: Result<(), FileError>, otherwise: &str) {
        if let Err(error) = done {
            self.counts.failed("disk");
            tracing::warn!(error = explain(&error), "{otherwise}");
        }
    }

    fn publish(&mut self) {
        let mut published = Published::default();
        for (identity, held) in &self.held {
            if let Some(credentials) = &held.credentials {
                published.credentials.insert(Arc::clone(identity), Arc::clone(credentials));
            }
            if let Some(failure) = &held.failure {
                published.failures.insert(Arc::clone(identity), Arc::clone(failure));
            }
        }
        self.counts.expires(published.credentials.values().map(|credentials| credentials.not_after).min());
        self.shared.published.store(Arc::new(published));
        self.changed.send_modify(|changes| *changes += 1);
    }
}

fn credentials(
    identity: &Arc<Identity>,
    svid: &Svid,
    (bundle, clock): (&Arc<Bundle>, &Clock),
    generation: u64,
) -> Result<Credentials, rustls::Error> {
    Ok(Credentials {
        identity: Arc::clone(identity),
        client: Arc::new(tls::client(&svid.key, bundle, clock)?),
        server: Arc::new(tls::server(&svid.key, bundle, clock)?),
        not_after: svid.not_after,
        generation,
    })
}

async fn in_time<T>(patience: Duration, answer: impl Future<Output = Result<T, IssueError>>) -> Result<T, IssueError> {
    tokio::time::timeout(patience, answer).await.unwrap_or(Err(IssueError::TimedOut(patience)))
}

/// The part of a life after which it is renewed: about half, so that certificates made together part ways.
fn renewal_point() -> f64 {
    0.45 + 0.1 * fastrand::f64()
}

/// The pause after so many failures in a row: it leaves a short life several attempts.
fn backoff(failures: u32, ttl: Duration) -> Duration {
    let longest = LONGEST_PAUSE.min(ttl / 16).max(SHORTEST_PAUSE);
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(longest).mul_f64(0.75 + 0.5 * fastrand::f64())
}

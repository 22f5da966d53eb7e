//! Certificates and roots over time, under a clock that the test moves.

use super::*;
use std::collections::BTreeSet;

fn tick(lab: &Lab, seconds: u64) {
    lab.day.pass(secs(seconds));
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let lab = Lab::new();
    let mut node = lab.node("a").await;
    let first = node.only();
    assert_eq!(first.not_after, lab.day.now() + secs(100));
    tick(&lab, 44);
    node.step().await;
    assert_eq!(node.only().generation, first.generation);
    tick(&lab, 12);
    node.step().await;
    assert!(node.only().generation > first.generation);
    assert_eq!(node.only().not_after, lab.day.now() + secs(100));
    assert_eq!(node.metric("mesh_identity_issued_total").as_deref(), Some("2"));
    let expiry = node.only().not_after.duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    assert_eq!(node.metric("mesh_identity_expiry_seconds"), Some(expiry));
}

#[tokio::test]
async fn certificates_made_together_are_not_renewed_together() {
    let lab = Lab::new();
    let config = lab.config("a");
    let ca = Arc::new(ca::EmbeddedCa::open(&config, lab.day.clock()).unwrap());
    let mut node = Node::new(&config, ca, lab.day.clock());
    let identities: Vec<_> = (0..50).map(|number| id(&format!("sa-{number}"))).collect();
    node.want(&identities.iter().collect::<Vec<_>>());
    node.step().await;
    tick(&lab, 50);
    node.step().await;
    let issued: u32 = node.metric("mesh_identity_issued_total").unwrap().parse().unwrap();
    assert!((51..100).contains(&issued), "{issued} of 100");
    tick(&lab, 6);
    node.step().await;
    assert_eq!(node.metric("mesh_identity_issued_total").as_deref(), Some("100"));
}

#[tokio::test]
async fn the_pause_ends_when_something_is_due() {
    let lab = Lab::new();
    let mut node = lab.node("a").await;
    let first = node.only().generation;
    let mut waited = Duration::ZERO;
    while node.only().generation == first {
        let pause = node.step().await;
        assert!(pause <= secs(5), "the roots are read again in time");
        lab.day.pass(pause);
        waited += pause;
    }
    assert!(waited >= secs(45) && waited <= secs(61), "{waited:?}");
}

#[tokio::test]
async fn while_the_issuer_fails_the_old_certificate_serves_until_it_expires() {
    let lab = Lab::new();
    let config = lab.config("a");
    let issuer = Fickle::new(&config, lab.day.clock());
    let mut node = Node::new(&config, issuer.clone(), lab.day.clock());
    node.want(&[&id("a")]);
    node.step().await;
    let first = node.only();
    issuer.set_away(true);
    let unavailable = r#"mesh_identity_failures_total{reason="unavailable"}"#;
    for _ in 0..100 {
        tick(&lab, 1);
        node.step().await;
        assert_eq!(node.only().generation, first.generation);
    }
    let failure = node.shared.published.load().failures[&id("a")].to_string();
    assert_eq!(failure, "the issuer is unavailable: gone fishing");
    assert!(node.metric(unavailable).unwrap().parse::<u32>().unwrap() > 5);
    tick(&lab, 1);
    node.step().await;
    assert!(node.current(&id("a")).is_none(), "it has expired");
    assert_eq!(node.metric("mesh_identity_expiry_seconds").as_deref(), Some("0"));
    issuer.set_away(false);
    for _ in 0..8 {
        tick(&lab, 1);
        node.step().await;
    }
    assert!(node.current(&id("a")).is_some());
    assert!(node.shared.published.load().failures.is_empty());
}

#[tokio::test]
async fn attempts_become_rarer() {
    let lab = Lab::new();
    let mut config = lab.config("a");
    config.svid_ttl = secs(24 * 3600);
    config.root_ttl = secs(365 * 24 * 3600);
    let issuer = Fickle::new(&config, lab.day.clock());
    let mut node = Node::new(&config, issuer.clone(), lab.day.clock());
    node.step().await;
    issuer.set_away(true);
    node.want(&[&id("a")]);
    for _ in 0..3600 {
        tick(&lab, 1);
        node.step().await;
    }
    let failures: u32 = node.metric(r#"mesh_identity_failures_total{reason="unavailable"}"#).unwrap().parse().unwrap();
    // One for each reading of the roots, and at least every 75 seconds one for the certificate.
    assert!((720 + 48..720 + 100).contains(&failures), "{failures}");
}

#[tokio::test]
async fn a_new_root_is_trusted_before_it_signs_and_nobody_is_cut_off() {
    let lab = Lab::new();
    let mut a = lab.node("a").await;
    tick(&lab, 25);
    let mut b = lab.node("b").await;
    a.step().await;
    let dir = lab.dir.0.join("ca");
    ca::rotate(&dir, &"cluster.local".into(), secs(1000), lab.day.now()).unwrap();
    assert_eq!(lab.roots("crt").len(), 2);
    let first = a.only().generation;
    let (mut overlapped, mut last) = (false, (0, 0));
    for second in 0..200 {
        // The nodes look at the directory at different times, and one of them late.
        if second % 5 == 0 {
            a.step().await;
        }
        if second % 7 == 3 {
            b.step().await;
        }
        both_ways(&a, &b);
        overlapped |= issuer_of(&a) != issuer_of(&b);
        last = (issuer_of(&a), issuer_of(&b));
        tick(&lab, 1);
    }
    assert!(a.only().generation > first);
    assert!(overlapped, "for some time one had moved and the other not");
    assert_eq!(last.0, last.1);
}

/// Tells issuers apart.
fn issuer_of(node: &Node) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let key = node.only().client.client_auth_cert_resolver.resolve(&[], &[]).unwrap();
    let certificate = webpki::EndEntityCert::try_from(&key.cert[0]).unwrap();
    BuildHasherDefault::<DefaultHasher>::default().hash_one(certificate.issuer())
}

#[tokio::test]
async fn roots_succeed_each_other_by_themselves_for_as_long_as_it_takes() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.node("a").await, lab.node("b").await);
    let mut issuers = BTreeSet::new();
    for second in 0..4000 {
        if second % 5 == 0 {
            a.step().await;
        }
        if second % 9 == 4 {
            b.step().await;
        }
        issuers.insert(issuer_of(&a));
        if second % 3 == 0 {
            both_ways(&a, &b);
        }
        tick(&lab, 1);
    }
    let made = lab.roots("crt").len();
    assert!((7..=9).contains(&made), "a root every 500 seconds, by one of the nodes: {made}");
    assert!(issuers.len() >= 7, "{}", issuers.len());
    assert_eq!(a.metric("mesh_identity_failures_total"), None);
}

#[tokio::test]
async fn a_root_taken_away_is_no_longer_trusted_and_what_it_signed_is_replaced() {
    let lab = Lab::new();
    let mut a = lab.node("a").await;
    let stale = a.only();
    let old = lab.roots("crt").remove(0);
    ca::rotate(&lab.dir.0.join("ca"), &"cluster.local".into(), secs(1000), lab.day.now()).unwrap();
    fs::remove_file(old.with_extension("key")).unwrap();
    fs::remove_file(&old).unwrap();
    tick(&lab, 5);
    a.step().await;
    let fresh = a.only();
    assert!(fresh.generation > stale.generation);
    assert_eq!(met(&fresh, &stale).client, Err("untrusted_root"));
    both_ways(&a, &lab.node("b").await);
}

#[tokio::test]
async fn nothing_outlives_its_root() {
    let lab = Lab::new();
    let ca = ca::EmbeddedCa::open(&lab.config("a"), lab.day.clock()).unwrap();
    let old = ca.bundle().await.unwrap().0;
    let end = lab.day.now() + secs(1000);
    tick(&lab, 950);
    let key = rcgen::KeyPair::generate().unwrap();
    let chain =
        ca.issue(Request { identity: &id("a"), bearer: &Bearer::default(), key: &key, ttl: secs(100) }).await.unwrap();
    assert_eq!(peer(&chain).unwrap().not_after, end);
    assert_eq!(old.at(end).len(), 1);
    assert!(old.at(end + secs(1)).is_empty());

    let both = ca.bundle().await.unwrap().0;
    assert_eq!(both.len(), 2, "the successor was overdue");
    tick(&lab, 51);
    let new = ca.bundle().await.unwrap().0;
    assert_eq!((new.len(), new), (1, both.at(lab.day.now())));
}

#[tokio::test]
async fn an_emptied_directory_stops_nobody_who_is_running() {
    let lab = Lab::new();
    let (mut a, b) = (lab.node("a").await, lab.node("b").await);
    for extension in ["crt", "key"] {
        lab.roots(extension).iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    let first = a.only().generation;
    for _ in 0..12 {
        tick(&lab, 5);
        a.step().await;
    }
    assert!(a.only().generation > first);
    both_ways(&a, &b);
    assert!(a.metric(r#"mesh_identity_failures_total{reason="unusable_root"}"#).is_some());
}

/// An issuer that never answers.
struct Silent;

impl Issuer for Silent {
    fn issue<'a>(
        &'a self,
        _: Request<'a>,
    ) -> BoxFuture<'a, Result<Vec<rustls_pki_types::CertificateDer<'static>>, IssueError>> {
        Box::pin(std::future::pending())
    }

    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn what_is_on_disk_serves_while_a_silent_issuer_is_asked_for_roots() {
    let lab = Lab::new();
    let first = lab.node("a").await;
    let mut again = Node::new(&lab.config("a"), Arc::new(Silent), lab.day.clock());
    again.rotation.patience = Duration::from_secs(3600);
    again.want(&[&first.only().identity]);
    let asking = tokio::time::timeout(Duration::from_millis(50), again.step()).await;
    assert!(asking.is_err(), "the issuer has not answered");
    assert_eq!(again.only().not_after, first.only().not_after);
}

#[tokio::test]
async fn a_silent_issuer_is_not_waited_for_without_end() {
    let lab = Lab::new();
    let mut node = Node::new(&lab.config("a"), Arc::new(Silent), lab.day.clock());
    node.rotation.patience = Duration::from_millis(5);
    let identities: Vec<_> = (0..2 * rotation::AT_ONCE + 3).map(|number| id(&format!("sa-{number}"))).collect();
    node.want(&identities.iter().collect::<Vec<_>>());
    let timed_out = r#"mesh_identity_failures_total{reason="timed_out"}"#;
    for failures in [1 + rotation::AT_ONCE, 1 + 2 * rotation::AT_ONCE, 1 + identities.len()] {
        // One wait for the roots in the first step, and one for a few certificates in each: what else is due comes
        // between.
        node.step().await;
        assert_eq!(node.metric(timed_out), Some(failures.to_string()));
    }
    assert_eq!(node.shared.published.load().failures.len(), identities.len());
}

/// An issuer that answers with a certificate for somebody else.
struct Confused(ca::EmbeddedCa);

impl Issuer for Confused {
    fn issue<'a>(
        &'a self,
        request: Request<'a>,
    ) -> BoxFuture<'a, Result<Vec<rustls_pki_types::CertificateDer<'static>>, IssueError>> {
        Box::pin(async move {
            let identity = id("somebody-else");
            self.0.issue(Request { identity: &identity, ..request }).await
        })
    }

    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>> {
        self.0.bundle()
    }
}

#[tokio::test]
async fn what_was_issued_for_somebody_else_is_not_used() {
    let lab = Lab::new();
    let config = lab.config("a");
    let confused = Confused(ca::EmbeddedCa::open(&config, lab.day.clock()).unwrap());
    let mut node = Node::new(&config, Arc::new(confused), lab.day.clock());
    node.want(&[&id("a")]);
    node.step().await;
    assert!(node.current(&id("a")).is_none());
    assert!(node.shared.published.load().failures[&id("a")].contains("is that of spiffe://"));
    assert_eq!(node.metric(r#"mesh_identity_failures_total{reason="unusable_certificate"}"#).as_deref(), Some("1"));
}

/// The CA, which answers only when told, and counts who waits.
struct Slow {
    ca: ca::EmbeddedCa,
    gate: tokio::sync::Semaphore,
    waiting: AtomicU32,
    most: AtomicU32,
}

impl Issuer for Slow {
    fn issue<'a>(
        &'a self,
        request: Request<'a>,
    ) -> BoxFuture<'a, Result<Vec<rustls_pki_types::CertificateDer<'static>>, IssueError>> {
        Box::pin(async move {
            let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(waiting, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.ca.issue(request).await
        })
    }

    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>> {
        self.ca.bundle()
    }
}

#[tokio::test]
async fn many_wait_for_a_slow_issuer_together_but_never_too_many() {
    let lab = Lab::new();
    let config = lab.config("a");
    let ca = ca::EmbeddedCa::open(&config, lab.day.clock()).unwrap();
    let slow = Arc::new(Slow {
        ca,
        gate: tokio::sync::Semaphore::new(0),
        waiting: AtomicU32::new(0),
        most: AtomicU32::new(0),
    });
    let mut node = Node::new(&config, slow.clone(), lab.day.clock());
    let identities: Vec<_> = (0..110).map(|number| id(&format!("sa-{number}"))).collect();
    node.want(&identities.iter().collect::<Vec<_>>());
    let (shared, late) = (Arc::clone(&node.shared), id("late"));
    let open = async {
        while slow.waiting.load(Ordering::Relaxed) < 8 {
            tokio::task::yield_now().await;
        }
        // A pod that starts meanwhile does not wait for the next round.
        shared.want(wanted(&identities.iter().chain([&late]).collect::<Vec<_>>()));
        slow.gate.add_permits(1000);
    };
    tokio::join!(node.step(), open);
    assert_eq!(node.shared.published.load().credentials.len(), 111);
    assert_eq!(slow.most.load(Ordering::Relaxed), u32::try_from(rotation::AT_ONCE).unwrap());
}

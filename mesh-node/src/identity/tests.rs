//! A laboratory of nodes that share a CA's directory and a clock which only the test moves.

mod disk;
mod handshakes;
mod peers;
mod rotating;

use super::rotation::Rotation;
use super::*;
use crate::telemetry::Metrics;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

/// A directory that goes away with the test.
struct TestDir(PathBuf);

impl TestDir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mesh-identity-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A time of day that stands still until it is moved.
#[derive(Clone)]
struct Day(Arc<Mutex<SystemTime>>);

impl Day {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(UNIX_EPOCH + Duration::from_secs(1_900_000_000))))
    }

    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    fn clock(&self) -> Clock {
        let day = self.clone();
        Clock::new(move || day.now())
    }

    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    fn turn_back(&self, time: Duration) {
        *self.0.lock().unwrap() -= time;
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One CA and one clock for several nodes.
struct Lab {
    dir: TestDir,
    day: Day,
}

impl Lab {
    fn new() -> Self {
        Self { dir: TestDir::new(), day: Day::new() }
    }

    fn config(&self, node: &str) -> Config {
        Config {
            svid_ttl: secs(100),
            root_ttl: secs(1000),
            root_overlap: secs(30),
            reread: secs(5),
            orphan_grace: secs(20),
            ..Config::new(self.dir.0.join("ca"), self.dir.0.join(node), "cluster.local".into())
        }
    }

    /// A node that holds the identity of its own name.
    async fn node(&self, name: &str) -> Node {
        self.node_with(&self.config(name), name).await
    }

    async fn node_with(&self, config: &Config, name: &str) -> Node {
        let ca = Arc::new(ca::EmbeddedCa::open(config, self.day.clock()).unwrap());
        let mut node = Node::new(config, ca, self.day.clock());
        let identity = id_of(&config.trust_domain, name);
        node.want(&[&identity]);
        node.step().await;
        node
    }

    /// The names of the CA's files with this extension.
    fn roots(&self, extension: &str) -> Vec<PathBuf> {
        files::list(&self.dir.0.join("ca"), extension).unwrap()
    }
}

fn id(name: &str) -> Identity {
    id_of("cluster.local", name)
}

fn id_of(trust_domain: &str, name: &str) -> Identity {
    format!("spiffe://{trust_domain}/ns/default/sa/{name}").parse().unwrap()
}

fn wanted(identities: &[&Identity]) -> Wanted {
    identities.iter().map(|identity| (Arc::new((*identity).clone()), Bearer::default())).collect()
}

/// A keyring whose task is run by hand.
struct Node {
    rotation: Rotation,
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl Node {
    fn new(config: &Config, issuer: Arc<dyn Issuer>, clock: Clock) -> Self {
        let metrics = Metrics::default();
        let (rotation, _) = Rotation::new(config, issuer, clock, &metrics).unwrap();
        Self { shared: rotation.shared(), rotation, metrics }
    }

    fn want(&self, identities: &[&Identity]) {
        self.shared.want(wanted(identities));
    }

    async fn step(&mut self) -> Duration {
        self.rotation.step().await
    }

    fn current(&self, identity: &Identity) -> Option<Arc<Credentials>> {
        self.shared.published.load().credentials.get(identity).cloned()
    }

    /// The credentials of the one identity held.
    fn only(&self) -> Arc<Credentials> {
        let published = self.shared.published.load();
        assert_eq!(published.credentials.len(), 1);
        Arc::clone(published.credentials.values().next().unwrap())
    }

    fn metric(&self, line: &str) -> Option<String> {
        let text = self.metrics.encode().unwrap();
        text.lines().find_map(|has| Some(has.strip_prefix(line)?.trim().to_owned()))
    }
}

/// What both sides of a handshake concluded: who the other is, or a refusal's id.
#[derive(Debug, PartialEq, Eq)]
struct Met {
    client: Result<Identity, &'static str>,
    server: Result<Identity, &'static str>,
}

/// A handshake and one byte each way, in memory.
fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (Met, ClientConnection, ServerConnection) {
    let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let (mut client_says, mut server_says) = (Ok(()), Ok(()));
    client.writer().write_all(b"c").unwrap();
    server.writer().write_all(b"s").unwrap();
    for _ in 0..4 {
        server_says = server_says.and_then(|()| pass(&mut client, &mut server));
        client_says = client_says.and_then(|()| pass(&mut server, &mut client));
    }
    let known = |certs: Option<&[rustls_pki_types::CertificateDer<'_>]>| peer(certs.unwrap_or_default());
    let met = Met {
        client: client_says.map(|()| known(client.peer_certificates()).unwrap().identity),
        server: server_says.map(|()| known(server.peer_certificates()).unwrap().identity),
    };
    (met, client, server)
}

/// Carries what one side has written to the other.
fn pass<A, B>(
    from: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<A>>,
    to: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<B>>,
) -> Result<(), &'static str> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = bytes.as_slice();
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets().map_err(|error| refusal(&error))?;
    }
    Ok(())
}

fn met(from: &Credentials, to: &Credentials) -> Met {
    meet(&from.client, &to.server).0
}

fn both_ways(one: &Node, other: &Node) {
    let (one, other) = (one.only(), other.only());
    for (from, to) in [(&one, &other), (&other, &one)] {
        let expected = Met { client: Ok((*to.identity).clone()), server: Ok((*from.identity).clone()) };
        assert_eq!(met(from, to), expected);
    }
}

/// The CA, until it is switched off.
struct Fickle {
    ca: ca::EmbeddedCa,
    away: AtomicBool,
}

impl Fickle {
    fn new(config: &Config, clock: Clock) -> Arc<Self> {
        Arc::new(Self { ca: ca::EmbeddedCa::open(config, clock).unwrap(), away: AtomicBool::new(false) })
    }

    fn is_away(&self) -> Option<IssueError> {
        self.away.load(Ordering::Relaxed).then(|| IssueError::Unavailable("gone fishing".into()))
    }

    fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }
}

impl Issuer for Fickle {
    fn issue<'a>(
        &'a self,
        request: Request<'a>,
    ) -> BoxFuture<'a, Result<Vec<rustls_pki_types::CertificateDer<'static>>, IssueError>> {
        match self.is_away() {
            Some(error) => Box::pin(async { Err(error) }),
            None => self.ca.issue(request),
        }
    }

    fn bundle(&self) -> BoxFuture<'_, Result<(Bundle, Vec<IssueError>), IssueError>> {
        match self.is_away() {
            Some(error) => Box::pin(async { Err(error) }),
            None => self.ca.bundle(),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_keyring_issues_what_is_wanted_and_waits_for_it() {
    let lab = Lab::new();
    let metrics = Metrics::default();
    let keyring = Keyring::start(lab.config("node"), &metrics).unwrap();
    let reviews = id("reviews");
    assert_eq!(keyring.ready(&reviews).await, Err(NotIssued::Unwanted { identity: reviews.clone() }));

    keyring.want(wanted(&[&reviews]));
    tokio::time::timeout(secs(20), keyring.ready(&reviews)).await.expect("in time").unwrap();
    assert_eq!(*keyring.current(&reviews).unwrap().identity, reviews);
    assert_eq!(keyring.failure(&reviews), None);

    // Waiting for what cannot be issued ends when it is no longer wanted.
    let foreign = id_of("elsewhere", "reviews");
    keyring.want(wanted(&[&foreign]));
    let unwant = async {
        let mut changed = keyring.changed.clone();
        while keyring.failure(&foreign).is_none() {
            changed.changed().await.unwrap();
        }
        assert!(keyring.failure(&foreign).unwrap().contains("this CA serves the trust domain cluster.local"));
        keyring.want(Wanted::new());
    };
    let both = async { tokio::join!(keyring.ready(&foreign), unwant).0 };
    let waited = tokio::time::timeout(secs(20), both).await.expect("in time");
    assert_eq!(waited, Err(NotIssued::Unwanted { identity: foreign }));
    assert!(keyring.current(&reviews).is_none());
}

#[tokio::test]
async fn the_task_renews_by_itself_and_ends_with_the_last_keyring() {
    fn may_be_shared<T: Send + Sync>(_: &T) {}
    fn may_move<T: Send>(future: T) -> T {
        future
    }
    let lab = Lab::new();
    let config = Config { svid_ttl: secs(2), ..lab.config("node") };
    let keyring = Keyring::start(config, &Metrics::default()).unwrap();
    may_be_shared(&keyring);
    let reviews = id("reviews");
    keyring.want(wanted(&[&reviews]));
    may_move(keyring.ready(&reviews)).await.unwrap();
    let first = keyring.current(&reviews).unwrap().generation;
    let mut changed = keyring.changed.clone();
    let renewed = async {
        while keyring.current(&reviews).is_none_or(|credentials| credentials.generation == first) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(secs(20), renewed).await.expect("in time");

    let copy = keyring.clone();
    drop(keyring);
    assert!(copy.current(&reviews).is_some());
    drop(copy);
    let ended = async { while changed.changed().await.is_ok() {} };
    tokio::time::timeout(secs(20), ended).await.expect("in time");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let good = Config::new("ca".into(), "state".into(), "cluster.local".into());
    good.check().unwrap();
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 4] = [
        ("svid_ttl", |config| config.svid_ttl = secs(1)),
        ("reread", |config| config.reread = secs(0)),
        ("root_overlap", |config| config.root_overlap = secs(9)),
        ("root_ttl", |config| config.root_ttl = secs(24 * 3600)),
    ];
    for (name, spoil) in cases {
        let mut config = good.clone();
        spoil(&mut config);
        assert!(
            matches!(config.check(), Err(IdentityError::Settings { field, .. }) if field == name),
            "{name} must be refused"
        );
    }
}

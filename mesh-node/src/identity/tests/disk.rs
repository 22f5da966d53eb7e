//! What lies on disk: its permissions, a restart, damage, and who removes it.

use super::*;
use std::sync::Barrier;

fn restarted(lab: &Lab, config: &Config) -> (Node, Arc<Fickle>) {
    let issuer = Fickle::new(config, lab.day.clock());
    let node = Node::new(config, issuer.clone(), lab.day.clock());
    (node, issuer)
}

fn svid_files(config: &Config) -> Vec<PathBuf> {
    files::list(&config.state_dir, "pem").unwrap()
}

#[tokio::test]
async fn only_the_owner_may_read_anything() {
    let lab = Lab::new();
    let node = lab.node("a").await;
    assert_eq!(node.only().identity.service_account.as_ref(), "a");
    for dir in ["ca", "a"].map(|name| lab.dir.0.join(name)) {
        assert_eq!(mode(&dir), 0o700);
        let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 2);
        for file in files {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }
}

#[tokio::test]
async fn a_restart_uses_the_disk_while_the_issuer_is_away() {
    let lab = Lab::new();
    let config = lab.config("a");
    let first = lab.node("a").await.only();
    let b = lab.node("b").await;
    lab.day.pass(secs(20));
    let (mut node, issuer) = restarted(&lab, &config);
    issuer.set_away(true);
    node.want(&[&id("a")]);
    node.step().await;
    assert_eq!(node.only().not_after, first.not_after);
    both_ways(&node, &b);
    assert_eq!(node.metric("mesh_identity_issued_total").as_deref(), Some("0"));

    // It is renewed when its time comes, as if nothing had happened.
    issuer.set_away(false);
    lab.day.pass(secs(40));
    node.step().await;
    assert!(node.only().not_after > first.not_after);
}

#[tokio::test]
async fn soon_after_a_restart_a_certificate_may_be_wanted_again_while_the_issuer_is_away() {
    let lab = Lab::new();
    let config = lab.config("a");
    lab.node("a").await;
    let (mut node, issuer) = restarted(&lab, &config);
    issuer.set_away(true);
    // A pod that could not start, and is tried again.
    for wanted in [&[&id("a")][..], &[], &[&id("a")]] {
        node.want(wanted);
        node.step().await;
    }
    assert_eq!(*node.only().identity, id("a"));
    // Nobody wants it when the time is over.
    node.want(&[]);
    node.step().await;
    assert_eq!(svid_files(&config).len(), 1);
    lab.day.pass(config.orphan_grace);
    node.step().await;
    assert_eq!(svid_files(&config).len(), 0);
}

#[tokio::test]
async fn what_expired_or_lost_its_root_during_the_absence_is_made_anew() {
    let lab = Lab::new();
    let config = lab.config("a");
    let first = lab.node("a").await.only();
    lab.day.pass(secs(101));
    let (mut node, _) = restarted(&lab, &config);
    node.want(&[&id("a")]);
    node.step().await;
    assert!(node.only().not_after > first.not_after);

    fs::remove_dir_all(&config.ca_dir).unwrap();
    let (mut node, _) = restarted(&lab, &config);
    node.want(&[&id("a")]);
    node.step().await;
    assert_eq!(node.metric("mesh_identity_issued_total").as_deref(), Some("1"));
    both_ways(&node, &lab.node("b").await);
}

#[tokio::test]
async fn what_peers_would_refuse_is_not_taken_from_the_disk() {
    let lab = Lab::new();
    let config = lab.config("a");
    lab.node("a").await;
    // The clock was ahead by more than the minute that is allowed for.
    lab.day.turn_back(secs(120));
    let (mut node, issuer) = restarted(&lab, &config);
    issuer.set_away(true);
    node.want(&[&id("a")]);
    node.step().await;
    assert!(node.current(&id("a")).is_none());
    issuer.set_away(false);
    lab.day.pass(secs(10));
    node.step().await;
    assert_eq!(*node.only().identity, id("a"));
}

#[tokio::test]
async fn damaged_certificates_are_counted_and_replaced() {
    let lab = Lab::new();
    let config = lab.config("a");
    lab.node("a").await;
    let [path] = svid_files(&config).try_into().unwrap();
    let whole = fs::read(&path).unwrap();
    let other = {
        lab.node("b").await;
        fs::read(&svid_files(&lab.config("b"))[0]).unwrap()
    };
    let key_only = whole[..whole.len() / 3].to_vec();
    for damage in [Vec::new(), b"\xff\xfe nonsense".to_vec(), key_only, other, vec![b'x'; 100_000]] {
        fs::write(&path, &damage).unwrap();
        assert_replaced(&lab, &config, &path).await;
    }
    // A key from one, a certificate from another.
    let text = String::from_utf8(whole.clone()).unwrap();
    let (key, _) = text.split_at(text.find("-----BEGIN CERTIFICATE").unwrap());
    let new = fs::read_to_string(&path).unwrap();
    let (_, certificate) = new.split_at(new.find("-----BEGIN CERTIFICATE").unwrap());
    fs::write(&path, [key, certificate].concat()).unwrap();
    assert_replaced(&lab, &config, &path).await;
    // Readable by others: whoever read it has the key.
    chmod(&path, 0o644);
    assert_replaced(&lab, &config, &path).await;
    assert_eq!(mode(&path), 0o600);
}

async fn assert_replaced(lab: &Lab, config: &Config, path: &Path) {
    let (mut node, _) = restarted(lab, config);
    node.want(&[&id("a")]);
    node.step().await;
    assert_eq!(node.metric(r#"mesh_identity_failures_total{reason="disk"}"#).as_deref(), Some("1"));
    assert_eq!(node.metric("mesh_identity_issued_total").as_deref(), Some("1"));
    assert_eq!(*node.only().identity, id("a"));
    assert!(fs::read_to_string(path).unwrap().contains("-----BEGIN PRIVATE KEY-----"));
}

#[tokio::test]
async fn a_damaged_bundle_on_disk_is_replaced() {
    let lab = Lab::new();
    let config = lab.config("a");
    lab.node("a").await;
    let path = config.state_dir.join("bundle.crt");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (mut node, _) = restarted(&lab, &config);
    node.want(&[&id("a")]);
    node.step().await;
    assert_eq!(node.metric("mesh_identity_issued_total").as_deref(), Some("0"), "the certificate was good");
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[tokio::test]
async fn what_is_not_wanted_is_forgotten_and_removed() {
    let lab = Lab::new();
    let config = lab.config("a");
    let (mut node, _) = restarted(&lab, &config);
    node.want(&[&id("a"), &id("b"), &id("c")]);
    node.step().await;
    assert_eq!(svid_files(&config).len(), 3);
    // The time after its own start is over.
    lab.day.pass(config.orphan_grace);
    node.step().await;
    node.want(&[&id("b"), &id("c")]);
    node.step().await;
    assert!(node.current(&id("a")).is_none());
    assert_eq!(svid_files(&config).len(), 2);

    // After a restart nobody has asked yet, which is no reason to remove anything; after some time it is.
    let (mut node, issuer) = restarted(&lab, &config);
    fs::write(config.state_dir.join("left.1.tmp"), "half").unwrap();
    node.want(&[&id("b")]);
    lab.day.pass(secs(19));
    node.step().await;
    assert_eq!(svid_files(&config).len(), 2);
    lab.day.pass(secs(1));
    node.step().await;
    assert_eq!(svid_files(&config).len(), 1);
    assert!(files::list(&config.state_dir, "tmp").unwrap().is_empty());
    issuer.set_away(true);
    assert_eq!(*node.only().identity, id("b"));
}

#[tokio::test]
async fn the_longest_names_have_files_too() {
    let lab = Lab::new();
    let config = lab.config("a");
    let (mut node, _) = restarted(&lab, &config);
    let text = format!("spiffe://cluster.local/ns/{}/sa/{}", "n".repeat(63), "s".repeat(253));
    let long: Identity = text.parse().unwrap();
    node.want(&[&long]);
    node.step().await;
    assert_eq!(*node.only().identity, long);
    assert_eq!(svid_files(&config).len(), 1);
}

#[tokio::test]
async fn a_full_disk_does_not_stop_certificates() {
    let lab = Lab::new();
    let config = lab.config("a");
    let (mut node, _) = restarted(&lab, &config);
    node.step().await;
    // A directory in the file's place cannot be replaced by rename, whoever one is.
    let identity = id("a");
    let path = store::Store::open(&config.state_dir).unwrap().path(&identity);
    fs::create_dir(&path).unwrap();
    node.want(&[&identity]);
    node.step().await;
    assert!(node.current(&identity).is_some());
    assert!(node.metric(r#"mesh_identity_failures_total{reason="disk"}"#).is_some());
}

#[test]
fn directories_open_to_others_are_refused_with_the_cure() {
    let lab = Lab::new();
    let config = lab.config("a");
    fs::create_dir(&config.ca_dir).unwrap();
    chmod(&config.ca_dir, 0o750);
    let error = ca::EmbeddedCa::open(&config, lab.day.clock()).err().unwrap();
    let text = explain(&error);
    assert!(text.contains("has mode 750") && text.contains("chmod go-rwx"), "{text}");
    assert!(lab.roots("crt").is_empty());
}

#[tokio::test]
async fn a_damaged_or_exposed_root_is_named_and_another_signs() {
    for spoil in [
        |path: &Path| chmod(path, 0o640),
        |path: &Path| fs::write(path, "nonsense").unwrap(),
        |path: &Path| fs::remove_file(path).unwrap(),
    ] {
        for extension in ["key", "crt"] {
            let lab = Lab::new();
            lab.node("a").await;
            spoil(&lab.roots(extension)[0]);
            let node = lab.node("a").await;
            assert_eq!(*node.only().identity, id("a"));
            both_ways(&node, &lab.node("b").await);
            assert!(lab.roots("key").len() + lab.roots("crt").len() > 2, "there is another root");
        }
    }
}

#[tokio::test]
async fn a_key_of_another_root_signs_nothing() {
    let lab = Lab::new();
    lab.node("a").await;
    ca::rotate(&lab.dir.0.join("ca"), &"cluster.local".into(), secs(1000), lab.day.now()).unwrap();
    let keys = lab.roots("key");
    fs::copy(&keys[0], &keys[1]).unwrap();
    fs::write(&keys[0], "nonsense").unwrap();
    let (b, c) = (lab.node("b").await, lab.node("c").await);
    assert_eq!(lab.roots("key").len(), 3);
    both_ways(&b, &c);
}

#[test]
fn daemons_that_start_together_make_one_root() {
    let lab = Lab::new();
    let config = lab.config("a");
    let daemons = 8;
    let barrier = Barrier::new(daemons);
    std::thread::scope(|scope| {
        for _ in 0..daemons {
            scope.spawn(|| {
                barrier.wait();
                ca::EmbeddedCa::open(&config, lab.day.clock()).unwrap();
            });
        }
    });
    assert_eq!(lab.roots("crt").len(), 1);
    assert_eq!(lab.roots("key").len(), 1);
    assert!(lab.roots("tmp").is_empty());
}

#[test]
fn a_lock_held_by_another_is_not_waited_for_beyond_patience() {
    let dir = TestDir::new();
    let path = dir.0.join("lock");
    let held = files::lock(&path, Duration::ZERO).unwrap();
    assert!(matches!(files::lock(&path, Duration::ZERO), Err(FileError::Locked { .. })));
    drop(held);
    files::lock(&path, Duration::ZERO).unwrap();
}

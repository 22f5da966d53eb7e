//! The chain's thread on a directory of its own.

use super::{CALICO, entry};
use crate::chain::{Chain, Config, DROP_IN, Method, PLUGIN, State};
use crate::telemetry::Metrics;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    root: PathBuf,
    metrics: Metrics,
}

impl Host {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("mesh-chain-{test}-{}", std::process::id()));
        fs::create_dir_all(root.join("net.d")).unwrap();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("plugin"), "first").unwrap();
        Self { root, metrics: Metrics::default() }
    }

    fn start(&self) -> Chain {
        Chain::start(self.config(), &self.metrics).unwrap()
    }

    fn config(&self) -> Config {
        Config {
            conf_dir: self.root.join("net.d"),
            bin_dir: self.root.join("bin"),
            plugin: self.root.join("plugin"),
            state_dir: self.root.join("state"),
            entry: entry(),
        }
    }

    fn list(&self) -> PathBuf {
        self.root.join("net.d/10-calico.conflist")
    }

    fn drop_in(&self, network: &str) -> PathBuf {
        self.root.join("net.d").join(network).join(DROP_IN)
    }

    fn count(&self, sample: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line =
            text.lines().find(|line| line.starts_with(sample)).unwrap_or_else(|| panic!("no {sample} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn repairs(&self, kind: &str) -> u64 {
        self.count(&format!("mesh_chain_repairs_total{{kind=\"{kind}\"}}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The thread that was told to let go may be about to write for the last time.
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir_all(&self.root).is_err() && self.root.exists() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn installed(method: Method) -> State {
    State::Installed { method, network: "k8s-pod-network".to_owned() }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn nothing_is_touched_before_it_is_asked_for() {
    let host = Host::new("idle");
    fs::write(host.list(), CALICO).unwrap();
    let chain = host.start();
    // The thread looks at what it is woken for before it takes this order.
    chain.install(Method::DropIn, false);
    until("the drop-in", || chain.state() == installed(Method::DropIn));
    chain.let_go();
    let idle = Host::new("idle-only");
    fs::write(idle.list(), CALICO).unwrap();
    let chain = idle.start();
    fs::write(idle.list(), CALICO).unwrap();
    chain.let_go();
    assert_eq!(chain.state(), State::Idle);
    assert_eq!(names(&idle.root.join("net.d")), ["10-calico.conflist"]);
    assert_eq!(names(&idle.root.join("bin")), Vec::<String>::new());
}

#[test]
fn it_waits_for_a_network_and_follows_it() {
    let host = Host::new("follow");
    let chain = host.start();
    chain.install(Method::DropIn, false);
    until("waiting", || chain.state() == State::Waiting);
    fs::write(host.list(), CALICO).unwrap();
    until("the drop-in", || host.drop_in("k8s-pod-network").is_file());
    until("the state", || chain.state() == installed(Method::DropIn));
    assert_eq!(fs::read_to_string(host.list()).unwrap(), CALICO);
    fs::write(host.list(), CALICO.replace("k8s-pod-network", "other")).unwrap();
    until("the other drop-in", || host.drop_in("other").is_file());
    until("the old one is gone", || !host.drop_in("k8s-pod-network").exists());
    until("the count", || host.repairs("network") > 0);
    assert_eq!(names(&host.root.join("net.d")), ["10-calico.conflist", "other"]);
    assert_eq!(host.count("mesh_chain_mode{mode=\"drop-in\"}"), 1);
    chain.let_go();
}

#[test]
fn the_drop_in_is_restored_and_counted() {
    let host = Host::new("restore");
    fs::write(host.list(), CALICO).unwrap();
    let chain = host.start();
    chain.install(Method::DropIn, true);
    until("the drop-in", || chain.state() == installed(Method::DropIn));
    let path = host.drop_in("k8s-pod-network");
    let right = fs::read(&path).unwrap();
    for (at, disturb) in [
        &(|| fs::remove_file(&path).unwrap()) as &dyn Fn(),
        &|| fs::write(&path, "{}").unwrap(),
        &|| fs::write(&path, "").unwrap(),
        &|| fs::rename(path.parent().unwrap(), host.root.join("gone")).unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        let before = host.repairs("drop-in");
        disturb();
        until("the drop-in is right", || fs::read(&path).is_ok_and(|bytes| bytes == right));
        until(&format!("disturbance {at} is counted"), || host.repairs("drop-in") > before);
    }
    chain.let_go();
}

#[test]
fn a_rewritten_list_gets_the_entry_again() {
    let host = Host::new("rewrite");
    fs::write(host.list(), CALICO).unwrap();
    fs::set_permissions(host.list(), fs::Permissions::from_mode(0o644)).unwrap();
    let chain = host.start();
    chain.install(Method::Conflist, false);
    let has_entry = || fs::read_to_string(host.list()).is_ok_and(|text| text.contains(PLUGIN));
    until("the entry", has_entry);
    for round in 0..50 {
        // What Calico means may change, and must never be lost to an older text.
        let text = CALICO.replace("\"mtu\": 0", &format!("\"mtu\": {}", 1000 + round));
        fs::write(host.list(), &text).unwrap();
        let mtu = format!("\"mtu\": {}", 1000 + round);
        until("the new text with the entry", || has_entry() && fs::read_to_string(host.list()).unwrap().contains(&mtu));
    }
    assert_eq!(fs::metadata(host.list()).unwrap().mode() & 0o777, 0o644);
    until("it is counted", || host.repairs("conflist") > 0);
    let removed = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(chain.remove());
    removed.unwrap();
    assert_eq!(fs::read_to_string(host.list()).unwrap(), CALICO.replace("\"mtu\": 0", "\"mtu\": 1049"));
    chain.let_go();
}

#[test]
fn what_was_written_into_the_displaced_file_is_not_lost() {
    use super::super::place::Directory;
    use super::super::plan::Change;
    use std::io::Write;
    let host = Host::new("displaced");
    fs::write(host.list(), CALICO).unwrap();
    // Another program has opened the file, and is about to write.
    let mut writer = fs::OpenOptions::new().write(true).open(host.list()).unwrap();
    let change = Change::WriteList {
        file: "10-calico.conflist".to_owned(),
        seen: CALICO.as_bytes().to_owned(),
        text: CALICO.replace("node-a", "ours"),
    };
    let displaced = Directory(host.root.join("net.d")).apply(&change).unwrap().expect("it was displaced");
    assert!(displaced.rescue().unwrap(), "nothing is written yet");
    writer.set_len(0).unwrap();
    assert!(displaced.rescue().unwrap(), "it is only begun");
    let news = CALICO.replace("node-a", "theirs");
    writer.write_all(news.as_bytes()).unwrap();
    assert!(!displaced.rescue().unwrap(), "it is whole");
    assert_eq!(fs::read_to_string(host.list()).unwrap(), news);
}

#[test]
fn the_program_is_installed_replaced_and_stays() {
    let host = Host::new("binary");
    fs::write(host.list(), CALICO).unwrap();
    let chain = host.start();
    chain.install(Method::DropIn, false);
    until("the drop-in", || chain.state() == installed(Method::DropIn));
    let program = host.root.join("bin").join(PLUGIN);
    let first = fs::metadata(&program).unwrap();
    assert_eq!(first.mode() & 0o7777, 0o755);
    fs::write(&program, "damaged").unwrap();
    until("the program is right", || fs::read(&program).is_ok_and(|bytes| bytes == b"first"));
    until("it is counted", || host.repairs("binary") > 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(chain.remove()).unwrap();
    assert_eq!(chain.state(), State::Removed);
    assert_eq!(names(&host.root.join("net.d")), ["10-calico.conflist"]);
    assert!(program.is_file());
    chain.let_go();

    // The same program again is not written again.
    let inode = fs::metadata(&program).unwrap().ino();
    let chain = host.start();
    chain.install(Method::DropIn, false);
    until("the drop-in", || host.drop_in("k8s-pod-network").is_file());
    assert_eq!(fs::metadata(&program).unwrap().ino(), inode);
    chain.let_go();
}

#[test]
fn without_the_program_there_is_no_entry() {
    let host = Host::new("no-program");
    fs::write(host.list(), CALICO).unwrap();
    fs::remove_file(host.root.join("plugin")).unwrap();
    let chain = host.start();
    chain.install(Method::DropIn, false);
    until("it is refused", || matches!(chain.state(), State::Refused { .. }));
    assert_eq!(names(&host.root.join("net.d")), ["10-calico.conflist"]);
    chain.let_go();
}

#[test]
fn the_newer_of_two_daemons_has_the_last_word() {
    let host = Host::new("two");
    fs::write(host.list(), CALICO).unwrap();
    let old = host.start();
    old.install(Method::DropIn, false);
    until("the drop-in", || old.state() == installed(Method::DropIn));
    let mut config = host.config();
    config.entry.exempt = vec!["else".to_owned()];
    let new = Chain::start(config, &Metrics::default()).unwrap();
    new.install(Method::DropIn, false);
    let path = host.drop_in("k8s-pod-network");
    let is_new = || fs::read_to_string(&path).is_ok_and(|text| text.contains("\"else\""));
    until("the new one's entry", is_new);
    until("the new one's state", || new.state() == installed(Method::DropIn));
    // Had the old one a say, it would have been woken by this and put its own entry back.
    for _ in 0..20 {
        fs::remove_file(&path).unwrap();
        until("the new one's entry again", || path.exists());
        assert!(is_new());
    }
    old.let_go();
    new.let_go();
}

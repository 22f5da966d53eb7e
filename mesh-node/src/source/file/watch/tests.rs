use super::{Config, FileError, Watching, watch};
use crate::model::Name;
use crate::world::{Change, SourceId, World};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(10);

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-file-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a new directory");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a writable file");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            removed.expect("nobody else removes it");
        }
    }
}

/// A source, and the world that it tells of.
struct Watched {
    _watching: Watching,
    changes: mpsc::Receiver<Change>,
    world: World,
    synced: bool,
}

impl Watched {
    fn start(path: &Path, configure: impl FnOnce(&mut Config)) -> Self {
        let (sender, changes) = mpsc::channel(16);
        let mut config = Config::new(path);
        configure(&mut config);
        let watching = watch(config, sender).expect("a directory that can be watched");
        let mut watched = Self { _watching: watching, changes, world: World::default(), synced: false };
        watched.until("the first read", |watched| watched.synced);
        watched
    }

    /// Takes changes until `is_so`. Returns how long it took.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        while !is_so(self) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let change = runtime.block_on(async { tokio::time::timeout(left, self.changes.recv()).await });
            let change = change.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}; {:?}", self.world));
            let change = change.expect("the source goes on");
            self.synced |= change == Change::Synced(SourceId::Objects);
            self.world.apply(change);
        }
        start.elapsed()
    }

    fn holds(&self, pod: &str) -> bool {
        self.world.pod(&Name::new("default", pod)).is_some()
    }

    fn issues(&self) -> Vec<String> {
        self.world.faults().map(ToString::to_string).collect()
    }
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

#[test]
fn what_is_there_is_told_before_it_is_in_sync() {
    let directory = Directory::new("there");
    fs::create_dir_all(directory.path("deep/er")).expect("a new directory");
    fs::create_dir_all(directory.path(".hidden")).expect("a new directory");
    directory.write("a.yaml", &pod("a"));
    directory.write("deep/er/b.json", r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}}"#);
    directory.write(".hidden/c.yaml", &pod("c"));
    directory.write("notes.txt", "no YAML: [");
    let watched = Watched::start(&directory.0, |_| {});
    assert!(watched.holds("a") && watched.holds("b") && !watched.holds("c"));
    assert_eq!(watched.issues(), [""; 0]);
}

#[test]
fn changes_arrive_at_once() {
    let directory = Directory::new("changes");
    // Lost notices are made up for so rarely here that nothing but notices can be in time.
    let mut watched = Watched::start(&directory.0, |config| config.reread = DEADLINE * 6);
    let mut times = Vec::new();
    for round in 0..5 {
        let name = format!("p{round}");
        directory.write("a.yaml", &pod(&name));
        times.push(watched.until("a written pod", |watched| watched.holds(&name)));
    }
    fs::create_dir(directory.path("new")).expect("a new directory");
    directory.write("new/b.yml", &pod("b"));
    watched.until("a pod in a new directory", |watched| watched.holds("b"));
    fs::rename(directory.path("new"), directory.path("newer")).expect("a rename");
    fs::remove_file(directory.path("a.yaml")).expect("a removal");
    watched.until("a removed pod", |watched| !watched.holds("p4"));
    assert!(watched.holds("b"));
    // The best of several, for the machine may be busy with something else.
    assert!(times.iter().min() < Some(&Duration::from_millis(100)), "{times:?}");
}

#[test]
fn a_file_written_in_place_keeps_its_objects_meanwhile() {
    let directory = Directory::new("in-place");
    directory.write("a.yaml", &pod("a"));
    let mut watched = Watched::start(&directory.0, |_| {});
    directory.write("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {");
    watched.until("an issue", |watched| !watched.issues().is_empty());
    assert!(watched.holds("a"));
    let path = directory.path("a.yaml");
    assert!(watched.issues()[0].starts_with(&format!("File {}, line ", path.display())), "{:?}", watched.issues());
    directory.write("a.yaml", "");
    directory.write("b.yaml", &pod("b"));
    watched.until("another pod", |watched| watched.holds("b"));
    assert!(watched.holds("a"), "a file just emptied is about to be written");
    directory.write("a.yaml", &(pod("a") + "---\n" + &pod("c")));
    watched.until("the whole file", |watched| watched.holds("c") && watched.issues().is_empty());
    directory.write("a.yaml", "");
    watched.until("an empty file", |watched| !watched.holds("a") && !watched.holds("c"));
}

#[test]
fn a_mounted_config_map_is_followed() {
    let directory = Directory::new("config-map");
    for (version, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(directory.path(version)).expect("a new directory");
        directory.write(&format!("{version}/pod.yaml"), &pod(name));
    }
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, directory.path(name)).expect("a new link");
    link("..1", "..data");
    link("..data/pod.yaml", "pod.yaml");
    let mut watched = Watched::start(&directory.0, |_| {});
    assert!(watched.holds("a"));
    link("..2", "..data_tmp");
    fs::rename(directory.path("..data_tmp"), directory.path("..data")).expect("a rename");
    watched.until("the new version", |watched| watched.holds("b") && !watched.holds("a"));
}

#[test]
fn large_files_are_refused() {
    let directory = Directory::new("large");
    directory.write("a.yaml", &pod("a"));
    let mut watched = Watched::start(&directory.0, |config| config.max_file_bytes = 1_000);
    directory.write("a.yaml", &(pod("b") + &"#".repeat(1_000)));
    watched.until("an issue", |watched| !watched.issues().is_empty());
    assert!(watched.holds("a") && !watched.holds("b"));
    assert!(watched.issues()[0].contains("larger than 1000 bytes"), "{:?}", watched.issues());
}

#[test]
fn a_lost_directory_keeps_what_it_held_and_may_come_back() {
    let directory = Directory::new("lost");
    let root = directory.path("root");
    fs::create_dir(&root).expect("a new directory");
    directory.write("root/a.yaml", &pod("a"));
    let mut watched = Watched::start(&root, |config| config.reread = Duration::from_millis(100));
    fs::rename(&root, directory.path("away")).expect("a rename");
    watched.until("an issue", |watched| !watched.issues().is_empty());
    assert!(watched.holds("a"));
    fs::create_dir(&root).expect("a new directory");
    directory.write("root/b.yaml", &pod("b"));
    watched.until("the new content", |watched| watched.holds("b") && !watched.holds("a"));
    watched.until("no issue", |watched| watched.issues().is_empty());
}

#[test]
fn a_directory_must_be_there_to_begin_with() {
    let directory = Directory::new("absent");
    let (sender, _changes) = mpsc::channel(1);
    let error = watch(Config::new(directory.path("no")), sender).expect_err("there is no such directory");
    assert!(matches!(error, FileError::Directory { .. }), "{error}");
}

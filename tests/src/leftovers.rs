//! Who owns what a run makes, and how it goes away.
//!
//! In:  the id of a run, which everything it makes is named after.
//! Out: a lock for as long as the run lives; removal of what belongs to runs that are gone.
//! Invariant: nothing is removed while the lock of its run is held by a live process, or while it was kept on purpose.

use crate::{env, netns, wait};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Directories and locks of all runs.
const RUNS: &str = "/run/mesh-tests";
/// In a run's directory: leave it alone although nobody holds its lock.
const KEEP: &str = "keep";
/// How long another process may take to sweep what a run of the same scenario left.
const SWEEPING: Duration = Duration::from_secs(3);
/// The most characters of a scenario's name in an id.
const MOST_OF_NAME: usize = 24;

static KEPT: AtomicBool = AtomicBool::new(false);

/// Is what this process made to outlive it?
pub(crate) fn kept() -> bool {
    KEPT.load(Ordering::Relaxed)
}

/// A run: its id, its directory, and the lock that says it lives.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    _lock: Flock<File>,
}

impl Run {
    /// Sweeps what dead runs left, and begins one for the scenario `name`.
    pub(crate) fn begin(name: &str) -> Result<Self> {
        env::need_root()?;
        fs::create_dir_all(RUNS).with_context(|| format!("cannot create {RUNS}"))?;
        sweep()?;
        let mut hasher = DefaultHasher::new();
        // Two work trees may run the same scenario at the same time.
        (name, std::env::current_exe().ok()).hash(&mut hasher);
        let id = format!("{}-{:04x}", family(name), hasher.finish() & 0xffff);
        // Who sweeps holds the lock of what a dead run left, for a moment.
        let lock = wait::until("the lock of the scenario", SWEEPING, || lock_named(&id))
            .with_context(|| format!("the scenario {name} already runs"))?;
        let dir = Path::new(RUNS).join(&id);
        if dir.exists() {
            // It was kept, and this one takes its place.
            remove(&id);
        }
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { id, dir, _lock: lock })
    }

    /// Leaves everything as it is when this process ends, until [`down`].
    pub(crate) fn keep(&self) -> Result<()> {
        fs::write(self.dir.join(KEEP), "").context("cannot mark the run as kept")?;
        KEPT.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !kept() {
            remove(&self.id);
            drop(fs::remove_file(lock_path(&self.id)));
        }
    }
}

/// Removes what was kept of the scenario `name`; says how many runs that were.
///
/// **Errors**: the runs cannot be listed.
pub fn down(name: &str) -> Result<usize> {
    env::need_root()?;
    let family = format!("{}-", family(name));
    let mut removed = 0;
    for id in ids()?.iter().filter(|id| id.strip_prefix(&family).is_some_and(|hash| !hash.contains('-'))) {
        if let Some(_lock) = lock_named(id)? {
            remove(id);
            drop(fs::remove_file(lock_path(id)));
            removed += 1;
        }
    }
    Ok(removed)
}

/// Waits for the one link between a mesh and the machine's own namespace.
pub(crate) fn lock_exclusive(what: &str) -> Result<Flock<File>> {
    let path = Path::new(RUNS).join(format!("{what}.exclusive"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context("cannot lock")
}

/// The part of an id that comes from the scenario's name.
fn family(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|next| if next.is_ascii_alphanumeric() { next.to_ascii_lowercase() } else { '_' })
        .take(MOST_OF_NAME)
        .collect();
    format!("{}-{name}", env::prefix())
}

fn lock_path(id: &str) -> PathBuf {
    Path::new(RUNS).join(format!("{id}.lock"))
}

/// The lock of a run, unless a live process has it.
fn lock_named(id: &str) -> Result<Option<Flock<File>>> {
    let path = lock_path(id);
    loop {
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let inode = file.metadata().context("cannot look at a lock")?.ino();
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Whoever had it may have removed the file in between; then this lock is worth nothing.
            Ok(lock) if fs::metadata(&path).is_ok_and(|now| now.ino() == inode) => return Ok(Some(lock)),
            Ok(_) => {}
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Every run that has a lock, held or not.
fn ids() -> Result<Vec<String>> {
    let entries = match fs::read_dir(RUNS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {RUNS}")),
    };
    Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".lock")?.to_owned())).collect())
}

/// Removes what dead runs left.
fn sweep() -> Result<()> {
    for id in ids()? {
        if Path::new(RUNS).join(&id).join(KEEP).exists() {
            continue;
        }
        if let Some(_lock) = lock_named(&id)? {
            eprintln!("sweeping what the run {id}, which was killed, left behind");
            remove(&id);
            drop(fs::remove_file(lock_path(&id)));
        }
    }
    Ok(())
}

/// Removes namespaces, pinned kernel objects and files of a run.
fn remove(id: &str) {
    let own = format!("{id}-");
    for entry in fs::read_dir(netns::NAMESPACES).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with(&own)) {
            remove_namespace(name);
        }
    }
    let dir = Path::new(RUNS).join(id);
    let bpf = dir.join(crate::mesh::BPF_DIR);
    if bpf.exists() {
        // Everything pinned goes with its file system. It may not be mounted, which is what is wanted.
        let _ = umount2(&bpf, MntFlags::MNT_DETACH);
    }
    if let Err(error) = fs::remove_dir_all(&dir).or_else(|error| if dir.exists() { Err(error) } else { Ok(()) }) {
        eprintln!("warning: {} is left behind: {error}", dir.display());
    }
}

/// Ends every process in a namespace and removes it.
pub(crate) fn remove_namespace(name: &str) {
    let own = std::process::id().to_string();
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    let inside = inside.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for process in inside.split_whitespace().filter(|process| *process != own) {
        let process = process.parse().map(nix::unistd::Pid::from_raw);
        if let Ok(process) = process {
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
        }
    }
    let removed = Command::new("ip").args(["netns", "del", name]).output();
    if !removed.is_ok_and(|output| output.status.success()) {
        eprintln!("warning: the namespace {name} is left behind");
    }
}

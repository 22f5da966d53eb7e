//! Puts the plugin into the container runtime's chain, keeps it there, and takes it out.
//!
//! In:  the host's directories of CNI configuration and CNI plugins; orders.
//! Out: the plugin's program and its entry; [`State`]; `mesh_chain_repairs_total`, `mesh_chain_mode`.
//! Invariant: nothing is touched before [`Chain::install`]: an entry without a daemon that answers fails every pod.
//! Invariant: the entry outlives the daemon, whatever ends it, so that no pod is added outside the mesh; only
//! [`Chain::remove`] takes it out.
//! Invariant: a lost notice of the kernel only delays: everything is looked at again every few seconds.
//! Source: CNI 1.1.0; libcni 1.3.0 for directories of networks; inotify(7).

mod binary;
mod claim;
mod entry;
mod list;
mod method;
mod metrics;
mod place;
mod plan;
#[cfg(test)]
mod tests;

pub use entry::{DROP_IN, Entry, PLUGIN};
pub use list::ListError;
pub use method::{Method, UnknownRuntime, method};
pub use plan::State;

use crate::telemetry::{Metrics, explain};
use binary::Binary;
use claim::Claim;
use metrics::Counts;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use place::{Directory, Displaced, WRITING};
use plan::{Change, Seen, Wanted};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Everything is looked at this often, in case a notice was lost.
const REREAD: Duration = Duration::from_secs(3);
/// How soon to look again at what is being written.
const SOON: Duration = Duration::from_millis(20);

/// Where the host keeps what belongs to CNI.
#[derive(Clone, Debug)]
pub struct Config {
    /// The runtime's configuration directory.
    pub conf_dir: PathBuf,
    /// The runtime's directory of plugins.
    pub bin_dir: PathBuf,
    /// The plugin's program, as it came with the daemon.
    pub plugin: PathBuf,
    /// The daemon's directory for what must outlive it.
    pub state_dir: PathBuf,
    /// What the plugin has to know.
    pub entry: Entry,
}

/// Why the chain is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The plugin's program cannot be installed.
    #[error("cannot install {} as {}; the host's directory of CNI plugins must be writable", from.display(), to.display())]
    Binary {
        /// Where it came from.
        from: PathBuf,
        /// Where it belongs.
        to: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The configuration directory cannot be read.
    #[error("cannot read the CNI configuration directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of the configuration directory cannot be changed.
    #[error("cannot change {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell of changes.
    #[error("cannot watch {}; the limit may be fs.inotify.max_user_watches", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: notify::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the thread that looks after the chain")]
    Thread(#[source] io::Error),
    /// The thread has ended.
    #[error("nobody looks after the chain any more")]
    Ended,
}

enum Wake {
    Look,
    Install { method: Method, firm: bool },
    Remove(oneshot::Sender<Result<(), ChainError>>),
    LetGo,
}

/// Gives orders to the thread that looks after the chain.
#[derive(Clone, Debug)]
pub struct Chain {
    wake: Sender<Wake>,
    state: Arc<Mutex<State>>,
}

impl Chain {
    /// Begins to watch. Nothing is changed yet.
    ///
    /// **Errors**: the configuration directory cannot be made or watched.
    pub fn start(config: Config, metrics: &Metrics) -> Result<Self, ChainError> {
        let unusable = |source| ChainError::Directory { path: config.conf_dir.clone(), source };
        std::fs::create_dir_all(&config.conf_dir).map_err(unusable)?;
        let (wake, wakes) = channel();
        let state = Arc::new(Mutex::new(State::Idle));
        let watcher = watch(&config, wake.clone())?;
        let thread = Thread {
            directory: Directory(config.conf_dir),
            binary: Binary::new(config.plugin, &config.bin_dir),
            claim: Claim::new(&config.state_dir),
            entry: config.entry,
            wanted: None,
            displaced: Vec::new(),
            unsettled_since: None,
            state: Arc::clone(&state),
            counts: Counts::new(metrics),
            _watcher: watcher,
        };
        std::thread::Builder::new()
            .name("chain".to_owned())
            .spawn(move || thread.run(&wakes))
            .map_err(ChainError::Thread)?;
        Ok(Self { wake, state })
    }

    /// Puts the plugin into the chain and keeps it there. A `firm` method never gives way to another that would work.
    pub fn install(&self, method: Method, firm: bool) {
        self.give(Wake::Install { method, firm });
    }

    /// Takes the plugin out of the chain; its program stays. Returns when that is done.
    ///
    /// **Errors**: a file cannot be changed. Everything was tried.
    pub async fn remove(&self) -> Result<(), ChainError> {
        let (answer, answered) = oneshot::channel();
        self.give(Wake::Remove(answer));
        answered.await.unwrap_or(Err(ChainError::Ended))
    }

    /// Leaves everything as it is from now on.
    pub fn let_go(&self) {
        self.give(Wake::LetGo);
    }

    /// Whether the plugin is in the chain.
    #[must_use]
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    fn give(&self, wake: Wake) {
        // The thread ends only when it was told to let go; nothing can be ordered after that.
        let _let_go = self.wake.send(wake);
    }
}

/// What is missing for the plugin to be in the chain, in a few words.
#[must_use]
pub fn missing(state: &State) -> Option<String> {
    match state {
        State::Installed { .. } | State::Removed => None,
        State::Idle => Some("the plugin is not in the runtime's chain yet".to_owned()),
        State::Waiting => Some("no CNI network is configured yet".to_owned()),
        State::Refused { file, problem } => Some(format!("the plugin is not in the chain of {file}: {problem}")),
    }
}

fn watch(config: &Config, wake: Sender<Wake>) -> Result<RecommendedWatcher, ChainError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| ChainError::Watch { path, source }
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.as_ref().map_or(true, |event| is_change(event.kind)) {
            // What is noticed after the thread has ended no longer matters.
            let _ended = wake.send(Wake::Look);
        }
    })
    .map_err(failed(&config.conf_dir))?;
    watcher.watch(&config.conf_dir, RecursiveMode::Recursive).map_err(failed(&config.conf_dir))?;
    if config.bin_dir.is_dir() {
        watcher.watch(&config.bin_dir, RecursiveMode::NonRecursive).map_err(failed(&config.bin_dir))?;
    }
    Ok(watcher)
}

/// Does a notice tell of a change? Reading the files causes notices too.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Thread {
    directory: Directory,
    binary: Binary,
    claim: Claim,
    entry: Entry,
    /// `None` until somebody asks.
    wanted: Option<Wanted>,
    displaced: Vec<Displaced>,
    unsettled_since: Option<Instant>,
    state: Arc<Mutex<State>>,
    counts: Counts,
    _watcher: RecommendedWatcher,
}

impl Thread {
    fn run(mut self, wakes: &Receiver<Wake>) {
        let mut patience = REREAD;
        loop {
            match wakes.recv_timeout(patience) {
                Ok(Wake::LetGo) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Install { method, firm }) => {
                    self.wanted = Some(Wanted::Installed { method, firm, entry: self.entry.clone() });
                    if let Err(error) = self.claim.take() {
                        self.refuse(&error);
                    }
                }
                Ok(Wake::Remove(answer)) => {
                    self.wanted = Some(Wanted::Removed);
                    let removed = self.claim.take().and_then(|()| self.look());
                    // Whoever asked may be gone.
                    let _nobody_waits = answer.send(removed.map(drop));
                    continue;
                }
                Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            patience = match self.look() {
                Ok(unsettled) if unsettled || !self.displaced.is_empty() => SOON,
                Ok(_) => REREAD,
                Err(error) => {
                    self.refuse(&error);
                    REREAD
                }
            };
        }
    }

    /// Makes the chain what it should be. Returns whether something is perhaps just being written.
    fn look(&mut self) -> Result<bool, ChainError> {
        let Some(wanted) = self.wanted.clone().filter(|_| self.claim.holds()) else { return Ok(false) };
        let before = lock(&self.state).clone();
        if wanted != Wanted::Removed && self.binary.ensure()? && matches!(before, State::Installed { .. }) {
            self.counts.repaired("binary");
            tracing::warn!("the plugin's program was not as it should be and is installed again");
        }
        self.rescue()?;
        let seen = self.directory.look()?;
        let plan = plan::plan(&seen, &wanted);
        let outcome = self.apply(&plan.changes);
        if let (State::Installed { network: was, .. }, State::Installed { network, .. }) = (&before, &plan.state) {
            for change in &plan.changes {
                let kind = if was == network { kind(change) } else { "network" };
                self.counts.repaired(kind);
                tracing::warn!(kind, network, "the chain was disturbed and is repaired");
            }
        }
        outcome?;
        let unsettled = self.is_unsettled(&seen);
        // While a list is being written, what was known of it still holds.
        if !(unsettled && matches!(before, State::Installed { .. })) {
            self.set(plan.state);
        }
        Ok(unsettled)
    }

    /// Makes changes. Each is tried; the first error is told.
    fn apply(&mut self, changes: &[Change]) -> Result<(), ChainError> {
        let mut results = Vec::new();
        let mut nudge = false;
        for change in changes {
            nudge |= !matches!(change, Change::WriteList { .. });
            match self.directory.apply(change) {
                Ok(displaced) => self.displaced.extend(displaced),
                Err(error) => results.push(Err(error)),
            }
        }
        if nudge {
            results.push(self.directory.nudge());
        }
        results.into_iter().collect()
    }

    /// Is a list perhaps only being written? After some time it is taken for what it is.
    fn is_unsettled(&mut self, seen: &Seen) -> bool {
        if !plan::is_unsettled(seen) {
            self.unsettled_since = None;
            return false;
        }
        self.unsettled_since.get_or_insert_with(Instant::now).elapsed() < WRITING
    }

    fn rescue(&mut self) -> Result<(), ChainError> {
        let mut kept = Vec::new();
        for displaced in std::mem::take(&mut self.displaced) {
            if displaced.rescue()? {
                kept.push(displaced);
            }
        }
        self.displaced = kept;
        Ok(())
    }

    fn refuse(&self, error: &ChainError) {
        let problem = explain(error);
        self.set(State::Refused { file: self.directory.0.display().to_string(), problem });
    }

    fn set(&self, state: State) {
        let mut now = lock(&self.state);
        if *now == state {
            return;
        }
        match &state {
            State::Installed { method, network } => {
                tracing::info!(method = method.name(), network, "the plugin is in the runtime's chain");
            }
            State::Refused { file, problem } => {
                tracing::error!(file, "the plugin cannot be put into the runtime's chain: {problem}");
            }
            State::Waiting => tracing::info!("no CNI network is configured yet; the chain waits for one"),
            State::Removed => tracing::info!("the plugin is in no chain any more"),
            State::Idle => {}
        }
        self.counts.set(&state);
        *now = state;
    }
}

/// The kind of a repair, in the metric.
const fn kind(change: &Change) -> &'static str {
    match change {
        Change::WriteDropIn { .. } => "drop-in",
        Change::WriteList { .. } => "conflist",
        Change::RemoveDropIn { .. } => "stale",
    }
}

//! Watches a directory and tells what changes.
//!
//! In:  a directory, the kernel's notices of changes below it.
//! Out: changes over a channel, from a thread of its own.
//! Invariant: a lost notice only delays: everything is looked at again every few seconds.
//! Invariant: hidden files and directories, linked directories and what is no regular file are not read; linked
//! files are, so that a mounted ConfigMap works.
//! Source: inotify(7) for what notices mean; git's "racily clean" entries for what a time stamp proves.

use super::contents::{Contents, Seen, tell_faults};
use super::parse::file_issue;
use crate::api::apps::Plan;
use crate::model::Issue;
use crate::world::{Change, SourceId};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

#[cfg(test)]
mod tests;

/// What to watch, and how closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory; everything below it is read.
    pub directory: PathBuf,
    /// Larger files are refused.
    pub max_file_bytes: u64,
    /// Changes that follow each other this closely are looked at together.
    pub debounce: Duration,
    /// However closely changes follow each other, they are looked at this often.
    pub debounce_at_most: Duration,
    /// Everything is looked at this often, in case a notice was lost.
    pub reread: Duration,
}

impl Config {
    /// Watches `directory` as closely as people expect.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            max_file_bytes: 32 * 1024 * 1024,
            debounce: Duration::from_millis(20),
            debounce_at_most: Duration::from_millis(60),
            reread: Duration::from_secs(3),
        }
    }
}

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read the directory {path}; create it, or configure another")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is streamed ends early.
    #[error("cannot read the objects of the stream")]
    Stream(#[source] io::Error),
    /// The kernel does not tell of its changes.
    #[error("cannot watch the directory {path}; the limit may be fs.inotify.max_user_watches")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// There is no thread to watch it.
    #[error("cannot start the thread that watches {path}")]
    Thread {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A directory that is being watched, until this is dropped or nobody receives the changes.
#[derive(Debug)]
pub struct Watching {
    wake: Sender<Wake>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // The thread may have ended first, when nobody received its changes.
        let _ended_already = self.wake.send(Wake::End);
    }
}

/// Why the thread looks up.
#[derive(Debug)]
enum Wake {
    Look,
    End,
}

/// Tells `changes` what the directory holds, then what changes in it.
///
/// **Errors**: the directory cannot be read or watched now. Later troubles become issues.
pub fn watch(config: Config, changes: mpsc::Sender<Change>) -> Result<Watching, FileError> {
    let path = config.directory.clone();
    fs::read_dir(&path).map_err(|source| FileError::Directory { path: path.clone(), source })?;
    let (wake, wakes) = channel();
    let notices = wake.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.as_ref().map_or(true, |event| is_change(event.kind)) {
            // The thread ends before the watcher does; what is noticed between no longer matters.
            let _ended = notices.send(Wake::Look);
        }
    })
    .map_err(|source| FileError::Watch { path: path.clone(), source })?;
    let watched = identity(&path);
    watcher.watch(&path, RecursiveMode::Recursive).map_err(|source| FileError::Watch { path: path.clone(), source })?;
    let mut watch = Watch { reader: Reader::new(config), watcher, watched, wakes, changes };
    std::thread::Builder::new()
        .name("source-file".to_owned())
        .spawn(move || watch.run())
        .map_err(|source| FileError::Thread { path, source })?;
    Ok(Watching { wake })
}

/// What there is, once.
#[derive(Debug, Default)]
pub struct Tree {
    /// What there is to learn.
    pub changes: Vec<Change>,
    /// What controllers would make something of.
    pub plans: Vec<Plan>,
}

/// What the directory holds, once.
///
/// **Errors**: the directory cannot be read. Troubles with what is in it become issues.
pub fn read_once(directory: PathBuf) -> Result<Tree, FileError> {
    fs::read_dir(&directory).map_err(|source| FileError::Directory { path: directory.clone(), source })?;
    let mut reader = Reader { contents: Contents::with_plans(), ..Reader::new(Config::new(directory)) };
    let mut changes = reader.look(SystemTime::now());
    changes.push(Change::Synced(SourceId::Objects));
    Ok(Tree { changes, plans: reader.contents.into_plans() })
}

/// What a stream holds, once.
///
/// **Errors**: it cannot be read. Troubles with what is in it become issues.
pub fn read_stream(stream: impl Read) -> Result<Tree, FileError> {
    let max = Config::new("").max_file_bytes;
    let mut bytes = Vec::new();
    let len = stream.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::Stream)?;
    let is_whole = u64::try_from(len).is_ok_and(|len| len <= max);
    let mut contents = Contents::with_plans();
    let seen = if is_whole { Seen::Bytes(bytes) } else { too_large(max) };
    let mut changes = contents.update(BTreeMap::from([(PathBuf::from("standard input"), seen)]));
    changes.push(Change::Synced(SourceId::Objects));
    Ok(Tree { changes, plans: contents.into_plans() })
}

/// Does a notice tell of a change? Reading the files causes notices too.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

/// Tells a directory from its successor of the same path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The thread's own.
struct Watch<W> {
    reader: Reader,
    watcher: W,
    watched: Option<(u64, u64)>,
    wakes: Receiver<Wake>,
    changes: mpsc::Sender<Change>,
}

impl<W: Watcher> Watch<W> {
    fn run(&mut self) {
        let mut first = true;
        loop {
            let mut changes = self.reader.look(SystemTime::now());
            if first {
                changes.push(Change::Synced(SourceId::Objects));
                first = false;
            }
            for change in changes {
                if self.changes.blocking_send(change).is_err() {
                    return;
                }
            }
            self.follow();
            if self.changes.is_closed() || !self.wait() {
                return;
            }
        }
    }

    /// Watches the directory that has the path now, should it have been replaced.
    fn follow(&mut self) {
        let path = &self.reader.config.directory;
        let now = identity(path);
        if now.is_some() && now != self.watched {
            // The old watch may have gone with the old directory. Until the new one holds, looking again
            // every few seconds stands in for it.
            let _gone_already = self.watcher.unwatch(path);
            if self.watcher.watch(path, RecursiveMode::Recursive).is_ok() {
                self.watched = now;
            }
        }
    }

    /// Waits for the next change, or until it is time to look again. Returns whether to go on.
    fn wait(&self) -> bool {
        let config = &self.reader.config;
        let patience = if self.reader.unsettled { config.debounce_at_most } else { config.reread };
        match self.wakes.recv_timeout(patience) {
            Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Wake::Look) => {}
        }
        let latest = Instant::now() + config.debounce_at_most;
        loop {
            let left = latest.saturating_duration_since(Instant::now());
            match self.wakes.recv_timeout(config.debounce.min(left)) {
                Ok(Wake::Look) if !left.is_zero() => {}
                Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }
}

/// What a file's metadata said when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Reads what has changed.
#[derive(Debug)]
struct Reader {
    config: Config,
    contents: Contents,
    /// Files whose bytes are known for certain by their stamp.
    stamps: BTreeMap<PathBuf, Stamp>,
    faults: BTreeMap<String, Vec<Issue>>,
    /// Is a file perhaps being written?
    unsettled: bool,
}

/// A file whose stamp is younger than this may change once more without a change of the stamp.
const STAMP_PROVES_AFTER: Duration = Duration::from_secs(1);
/// An empty file of which more is known is believed after this: many writers empty a file first.
const EMPTY_HOLDS_AFTER: Duration = Duration::from_secs(1);

impl Reader {
    fn new(config: Config) -> Self {
        Self {
            config,
            contents: Contents::default(),
            stamps: BTreeMap::new(),
            faults: BTreeMap::new(),
            unsettled: false,
        }
    }

    /// Looks at everything. Returns what changed.
    fn look(&mut self, now: SystemTime) -> Vec<Change> {
        self.unsettled = false;
        let mut seen = BTreeMap::new();
        let mut faults = BTreeMap::new();
        let root = self.config.directory.clone();
        self.look_into(&root, now, &mut seen, &mut faults);
        self.stamps.retain(|path, _| seen.contains_key(path));
        let mut changes = self.contents.update(seen);
        changes.extend(tell_faults(&self.faults, &faults));
        self.faults = faults;
        changes
    }

    fn look_into(
        &mut self,
        directory: &Path,
        now: SystemTime,
        seen: &mut BTreeMap<PathBuf, Seen>,
        faults: &mut BTreeMap<String, Vec<Issue>>,
    ) {
        let entries: io::Result<Vec<_>> = fs::read_dir(directory).and_then(Iterator::collect);
        let entries = match entries {
            Ok(entries) => entries,
            // It went while its parent was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != self.config.directory => return,
            Err(error) => {
                let path = directory.to_string_lossy().into_owned();
                let problem = format!("the directory cannot be read: {error}");
                let issue = file_issue(&path, None, &problem, "make it readable for the daemon");
                faults.insert(path, vec![issue]);
                let below = self.contents.paths().filter(|path| path.starts_with(directory));
                seen.extend(below.map(|path| (path.to_owned(), Seen::Unchanged)));
                return;
            }
        };
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.look_into(&path, now, seen, faults);
            } else if has_known_extension(&path)
                && let Some(file) = self.look_at(&path, now)
            {
                seen.insert(path, file);
            }
        }
    }

    /// What a file holds; `None` if it is gone, or is no file.
    fn look_at(&mut self, path: &Path, now: SystemTime) -> Option<Seen> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(unreadable(&error)),
        };
        if !metadata.is_file() {
            return None;
        }
        let stamp = Stamp {
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if self.stamps.get(path) == Some(&stamp) {
            return Some(Seen::Unchanged);
        }
        let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
        if stamp.len == 0 && age < EMPTY_HOLDS_AFTER && self.contents.holds_objects(path) {
            self.unsettled = true;
            return Some(Seen::Unchanged);
        }
        self.stamps.remove(path);
        if stamp.len > self.config.max_file_bytes {
            return Some(too_large(self.config.max_file_bytes));
        }
        let seen = read(path, self.config.max_file_bytes);
        if age >= STAMP_PROVES_AFTER && matches!(seen, Some(Seen::Bytes(_))) {
            self.stamps.insert(path.to_owned(), stamp);
        }
        seen
    }
}

fn has_known_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

fn unreadable(error: &io::Error) -> Seen {
    Seen::Unreadable { problem: format!("the file cannot be read: {error}"), cure: "make it readable for the daemon" }
}

fn too_large(max_bytes: u64) -> Seen {
    Seen::Unreadable {
        problem: format!("the file is larger than {max_bytes} bytes, the limit"),
        cure: "split it into several files",
    }
}

fn read(path: &Path, max_bytes: u64) -> Option<Seen> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes));
    match read {
        Ok(len) if u64::try_from(len).is_ok_and(|len| len <= max_bytes) => Some(Seen::Bytes(bytes)),
        // It grew since it was looked at.
        Ok(_) => Some(too_large(max_bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(unreadable(&error)),
    }
}

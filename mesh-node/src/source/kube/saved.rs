//! The users' objects on disk, for a start without the API server.
//!
//! In:  the world and which kinds of it changed.
//! Out: one file a kind, `<kind>.jsonl`: a line that says what follows, then an object a line; all objects again at boot.
//! Invariant: a file is whole or not there; only root can read it. All files are used or none, since policies belong to
//! the pods they protect.
//! Invariant: saving takes at most a hundredth of one processor's time.
//! Source: `rename(2)`, `fsync(2)`.

use super::resource::{self, RESOURCES, Resource};
use crate::api::secret::Secret;
use crate::sys;
use crate::telemetry::timestamp;
use crate::world::{Kind, Object, World};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

#[cfg(test)]
mod tests;

/// Changes are saved at most this often.
const PAUSE: Duration = Duration::from_secs(3);
/// The pause after saving is at least so many times as long as the work: waiting for the disk, or for a processor, is none.
const IDLE_SHARE: u32 = 100;
/// What the files hold and how; another number is another form.
const FORMAT: u32 = 1;

/// The world on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// A file cannot be written.
    #[error("cannot save the world in {}; is the disk full?", path.display())]
    Write {
        /// The file or its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("{} is damaged in line {line}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Lines are missing.
    #[error("{} ends after {found} of {expected} objects", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Objects in it.
        found: usize,
        /// Objects that were saved.
        expected: usize,
    },
    /// Another version of the daemon wrote the file.
    #[error("{} has the form {found}, and {FORMAT} is read: another version of the daemon wrote it", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
}

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    format: u32,
    /// When it was saved.
    time: String,
    /// How many objects follow.
    objects: usize,
}

/// A saved world that is whole. It is read object by object, so that it is not in memory beside the world it becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saved {
    directory: PathBuf,
    /// When it was saved last.
    pub(super) time: String,
    /// How many objects it has.
    pub(super) objects: usize,
}

impl Saved {
    /// Tells everything that was known, until `tell` says that nobody listens.
    ///
    /// **Errors**: a file cannot be used that could be before.
    pub(super) fn tell(&self, mut tell: impl FnMut(Object) -> bool) -> Result<(), SavedError> {
        kinds().try_for_each(|kind| read(&path(&self.directory, kind), kind, &mut tell).map(drop))
    }
}

/// The number of changes of each kind so far.
pub type Revisions = BTreeMap<Kind, u64>;

/// Saves what changes in `world`, beginning when it is `in_sync`, until `stopping` is told or dropped; then once more.
///
/// **Cancel**: safe; an earlier file stays whole.
pub async fn keep_saved(
    directory: PathBuf,
    world: Arc<Mutex<World>>,
    mut revisions: watch::Receiver<Revisions>,
    mut in_sync: watch::Receiver<bool>,
    mut stopping: oneshot::Receiver<()>,
) {
    let is_in_sync = tokio::select! {
        known = in_sync.wait_for(|in_sync| *in_sync) => known.is_ok(),
        _ = &mut stopping => false,
    };
    if !is_in_sync {
        return;
    }
    let mut saved = Revisions::new();
    let mut failing = false;
    let mut is_last = false;
    loop {
        let now = revisions.borrow_and_update().clone();
        let changed: Vec<Kind> = kinds().filter(|kind| saved.get(kind) != Some(&revision(&now, *kind))).collect();
        let (to, of) = (directory.clone(), Arc::clone(&world));
        let mut worked = Duration::ZERO;
        match tokio::task::spawn_blocking(move || save(&to, &of, &changed, SystemTime::now())).await {
            Ok(Ok(time)) => {
                (failing, worked) = (false, time);
                saved = kinds().map(|kind| (kind, revision(&now, kind))).collect();
            }
            Ok(Err(error)) => {
                if !failing {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "without the API server the daemon cannot start again with what it knows now"
                    );
                }
                failing = true;
            }
            // The runtime is stopping.
            Err(_) => return,
        }
        if is_last {
            return;
        }
        let next = async {
            sleep(PAUSE.max(worked * IDLE_SHARE)).await;
            failing || revisions.changed().await.is_ok()
        };
        is_last = tokio::select! {
            goes_on = next => !goes_on,
            _ = &mut stopping => true,
        };
    }
}

fn revision(revisions: &Revisions, kind: Kind) -> u64 {
    revisions.get(&kind).copied().unwrap_or_default()
}

fn kinds() -> impl Iterator<Item = Kind> {
    RESOURCES.iter().map(|Resource { kind, .. }| *kind)
}

fn path(directory: &Path, kind: Kind) -> PathBuf {
    directory.join(format!("{}.jsonl", kind.name()))
}

/// Saves the objects of these kinds; how much time of a processor that took.
fn save(directory: &Path, world: &Mutex<World>, kinds: &[Kind], now: SystemTime) -> Result<Duration, SavedError> {
    let failed = |source| SavedError::Write { path: directory.to_owned(), source };
    let started = sys::time::of_thread().map_err(failed)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    for kind in kinds {
        let path = path(directory, *kind);
        let unfinished = path.with_extension("unfinished");
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            let mut file = BufWriter::new(file);
            match kind {
                Kind::Namespace => write_objects(&mut file, shared(world, World::namespaces), now)?,
                Kind::ServiceAccount => write_objects(&mut file, shared(world, World::service_accounts), now)?,
                Kind::Pod => write_objects(&mut file, locked(world).pods(), now)?,
                Kind::Service => write_objects(&mut file, locked(world).services(), now)?,
                Kind::EndpointSlice => write_objects(&mut file, locked(world).endpoint_slices(), now)?,
                // Keys are never written to a disk.
                Kind::Secret => write_objects(&mut file, std::iter::empty::<Arc<Secret>>(), now)?,
                Kind::PeerAuthentication => {
                    write_objects(&mut file, shared(world, World::peer_authentications), now)?;
                }
                Kind::Custom(kind) => {
                    let objects: Vec<_> = locked(world).customs(*kind).map(|(_, object)| Arc::clone(object)).collect();
                    write_objects(&mut file, objects.into_iter(), now)?;
                }
            }
            let file = file.into_inner()?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|source| SavedError::Write { path: path.clone(), source })?;
    }
    let sync = || File::open(directory)?.sync_all();
    sync().map_err(failed)?;
    Ok(sys::time::of_thread().map_err(failed)?.saturating_sub(started))
}

/// The objects of one kind, without copying them: the world is locked for no longer than that takes.
fn shared<K, T>(
    world: &Mutex<World>,
    of: fn(&World) -> &BTreeMap<K, Arc<T>>,
) -> impl ExactSizeIterator<Item = Arc<T>> + use<K, T> {
    of(&locked(world)).values().cloned().collect::<Vec<_>>().into_iter()
}

fn locked(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_objects<T: Serialize>(
    file: &mut impl Write,
    objects: impl ExactSizeIterator<Item = T>,
    now: SystemTime,
) -> io::Result<()> {
    let heading = Heading { format: FORMAT, time: timestamp(now), objects: objects.len() };
    serde_json::to_writer(&mut *file, &heading)?;
    file.write_all(b"\n")?;
    for object in objects {
        serde_json::to_writer(&mut *file, &object)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// The world that was saved last; `None` if none ever was.
///
/// **Errors**: a file cannot be used, so none is.
pub(super) fn load(directory: &Path) -> Result<Option<Saved>, SavedError> {
    if !kinds().any(|kind| path(directory, kind).exists()) {
        return Ok(None);
    }
    let mut saved = Saved { directory: directory.to_owned(), time: String::new(), objects: 0 };
    for kind in kinds() {
        let heading = read(&path(directory, kind), kind, &mut |_checked| true)?;
        saved.time = saved.time.max(heading.time);
        saved.objects += heading.objects;
    }
    Ok(Some(saved))
}

/// Tells of the objects of one file.
fn read(path: &Path, kind: Kind, tell: &mut impl FnMut(Object) -> bool) -> Result<Heading, SavedError> {
    let failed = |source| SavedError::Read { path: path.to_owned(), source };
    let damaged = |line, source| SavedError::Damaged { path: path.to_owned(), line, source };
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut text = String::new();
    file.read_line(&mut text).map_err(failed)?;
    let heading: Heading = serde_json::from_str(&text).map_err(|source| damaged(1, source))?;
    if heading.format != FORMAT {
        return Err(SavedError::Form { path: path.to_owned(), found: heading.format });
    }
    let mut found = 0;
    loop {
        text.clear();
        if file.read_line(&mut text).map_err(failed)? == 0 {
            break;
        }
        if !tell(resource::object(kind, &text).map_err(|source| damaged(found + 2, source))?) {
            return Ok(heading);
        }
        found += 1;
    }
    if found != heading.objects {
        return Err(SavedError::Short { path: path.to_owned(), found, expected: heading.objects });
    }
    Ok(heading)
}

//! Which pods are attached, remembered over restarts of the daemon.
//!
//! In:  attachments, as ADD brings them.
//! Out: one file each, and all of them again after a restart.
//! Invariant: a file is whole or not there; only root can read it.
//! Invariant: a damaged file is reported and left alone, it keeps no other attachment from being loaded.
//! Source: `rename(2)`, `fsync(2)`; `namespaces(7)`: every namespace file is on one file system of its own.

use mesh_common::cni::{Attachment, MAX_MESSAGE, is_container_id, is_ifname};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A namespace that is there for as long as this process is.
const OWN_NAMESPACE: &str = "/proc/self/ns/net";

/// The attachments of this node on disk: `<state directory>/attachments/<container id>@<interface>.json`. Every call
/// waits for the disk.
#[derive(Clone, Debug)]
pub struct AttachmentStore {
    directory: PathBuf,
}

/// What was on disk.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Attachments whose network namespace exists.
    pub attached: Vec<Attachment>,
    /// Attachments whose network namespace is gone. Their files stay until [`AttachmentStore::remove`], so that a daemon
    /// which ends before it has cleaned up does so the next time.
    pub detached: Vec<Attachment>,
    /// What is wrong with the other files.
    pub damaged: Vec<StoreError>,
}

/// The disk does not hold what it should, or will not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or read.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An id or interface name is none, and would be a path.
    #[error("{container_id:?} with {ifname:?} is no attachment")]
    Key {
        /// The container id.
        container_id: String,
        /// The interface name.
        ifname: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or is too long.
    #[error("cannot read the attachment {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no attachment.
    #[error("{} is no attachment; remove it once its pod is gone", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file holds another attachment than its name says.
    #[error("{} is not the file of the attachment in it; remove it once its pod is gone", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
    },
}

impl AttachmentStore {
    /// The store in a state directory, which is made if it is not there.
    ///
    /// **Errors**: the directory cannot be made.
    pub fn open(state_directory: &Path) -> Result<Self, StoreError> {
        let directory = state_directory.join("attachments");
        match DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            Ok(()) => Ok(Self { directory }),
            Err(source) => Err(StoreError::Directory { path: directory, source }),
        }
    }

    /// Every attachment on disk, ordered by container id and interface.
    ///
    /// **Errors**: the directory cannot be read. Single files that cannot be read are in [`Loaded::damaged`].
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let unusable = |source| StoreError::Directory { path: self.directory.clone(), source };
        let entries = fs::read_dir(&self.directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut paths: Vec<_> = entries.map_err(unusable)?.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        let mut loaded = Loaded::default();
        for path in paths.into_iter().filter(|path| !is_unfinished(path)) {
            match self.read(path) {
                Ok(attachment) if !is_there(&attachment.netns) => loaded.detached.push(attachment),
                Ok(attachment) => loaded.attached.push(attachment),
                Err(error) => loaded.damaged.push(error),
            }
        }
        Ok(loaded)
    }

    /// Remembers an attachment, in place of what was known of it.
    ///
    /// **Errors**: the disk refuses; then the earlier file is still whole.
    pub fn save(&self, attachment: &Attachment) -> Result<(), StoreError> {
        let path = self.path(&attachment.container_id, &attachment.ifname)?;
        let unfinished = unfinished(&path);
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(&serde_json::to_vec(attachment)?)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(|source| StoreError::Write { path: path.clone(), source })
    }

    /// Forgets an attachment; one that is not known is forgotten already.
    ///
    /// **Errors**: the disk refuses.
    pub fn remove(&self, container_id: &str, ifname: &str) -> Result<(), StoreError> {
        let path = self.path(container_id, ifname)?;
        for path in [unfinished(&path), path] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::Remove { path, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn path(&self, container_id: &str, ifname: &str) -> Result<PathBuf, StoreError> {
        if is_container_id(container_id) && is_ifname(ifname) {
            // No container id has an `@`: different attachments have different files.
            Ok(self.directory.join(format!("{container_id}@{ifname}.json")))
        } else {
            Err(StoreError::Key { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
        }
    }

    fn read(&self, path: PathBuf) -> Result<Attachment, StoreError> {
        let limit = u64::try_from(MAX_MESSAGE).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        if let Err(source) = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
            return Err(StoreError::Read { path, source });
        }
        let attachment: Attachment = match serde_json::from_slice(&bytes) {
            Ok(attachment) => attachment,
            Err(source) => return Err(StoreError::Decode { path, source }),
        };
        match self.path(&attachment.container_id, &attachment.ifname) {
            Ok(own) if own == path => Ok(attachment),
            Ok(_) | Err(_) => Err(StoreError::Misnamed { path }),
        }
    }
}

/// The name under which a file is written before it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Is there a network namespace at `netns`? After its end, runtimes may leave an ordinary file there. What cannot be looked
/// at counts as there.
#[must_use]
pub fn is_there(netns: &str) -> bool {
    match (fs::metadata(netns), fs::metadata(OWN_NAMESPACE)) {
        (Ok(found), Ok(own)) => found.dev() == own.dev(),
        (Ok(_), Err(_)) => true,
        (Err(error), _) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

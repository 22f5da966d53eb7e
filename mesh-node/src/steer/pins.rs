//! Where kernel objects are pinned, and how a pin is replaced.
//!
//! In:  the daemon's directory of the BPF file system, programs' names, pods' sandboxes.
//! Out: paths.
//! Invariant: a pod's sandbox can be read back from its directory, so a process with no memory can sweep it.
//! Invariant: a replaced link is never missing: the new one is attached and named before the old one goes.

use super::SteerError;
use crate::snapshot::PodKey;
use crate::sys::bpf::{PinnedLink, ensure_directory};
use aya::programs::links::FdLink;
use mesh_common::pin;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of one daemon, for one layout of the maps.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Makes the directory, and mounts the file system if need be and that is allowed.
    pub(super) fn open(bpf_dir: &Path, may_mount: bool) -> Result<Self, SteerError> {
        let root = bpf_dir.join(pin::LAYOUT);
        let refused = |source| SteerError::Pin { path: root.clone(), source };
        ensure_directory(bpf_dir, may_mount).map_err(refused)?;
        std::fs::create_dir_all(root.join(pin::LINKS)).map_err(refused)?;
        Ok(Self { root })
    }

    /// The pin of a map, or of a link of the whole node.
    pub(super) fn node(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The pin of a pod's link.
    pub(super) fn pod(&self, key: &str, program: &str) -> PathBuf {
        self.pod_directory(key).join(program)
    }

    fn pod_directory(&self, key: &str) -> PathBuf {
        self.root.join(pin::LINKS).join(escape(key))
    }

    /// Makes the directory of a pod.
    pub(super) fn make_pod(&self, key: &str) -> Result<(), SteerError> {
        let path = self.pod_directory(key);
        match std::fs::create_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(SteerError::Pin { path, source }),
            _ => Ok(()),
        }
    }

    /// Detaches all of a pod's links.
    pub(super) fn remove_pod(&self, key: &str) -> Result<(), SteerError> {
        let path = self.pod_directory(key);
        let remove_all = || -> io::Result<()> {
            for entry in std::fs::read_dir(&path)? {
                detach(&entry?.path())?;
            }
            std::fs::remove_dir(&path)
        };
        match remove_all() {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SteerError::Pin { path, source }),
            _ => Ok(()),
        }
    }

    /// Removes every pin of this layout; those of pods must be gone.
    pub(super) fn remove_all(&self) -> Result<(), SteerError> {
        for link in [pin::CONNECT4, pin::CONNECT6] {
            remove(&self.node(link))?;
        }
        let remove_rest = || -> io::Result<()> {
            std::fs::remove_dir(self.root.join(pin::LINKS))?;
            for entry in std::fs::read_dir(&self.root)? {
                std::fs::remove_file(entry?.path())?;
            }
            std::fs::remove_dir(&self.root)
        };
        remove_rest().map_err(|source| SteerError::Pin { path: self.root.clone(), source })?;
        if let Some(bpf_dir) = self.root.parent() {
            // It stays if something else is in it, or something is mounted there.
            drop(std::fs::remove_dir(bpf_dir));
        }
        Ok(())
    }

    /// Every pod that has a directory.
    pub(super) fn pods(&self) -> Result<Vec<PodKey>, SteerError> {
        let path = self.root.join(pin::LINKS);
        let read = || -> io::Result<Vec<PodKey>> {
            let mut keys = Vec::new();
            for entry in std::fs::read_dir(&path)? {
                keys.extend(entry?.file_name().to_str().and_then(unescape).map(PodKey::from));
            }
            Ok(keys)
        };
        read().map_err(|source| SteerError::Pin { path: path.clone(), source })
    }
}

/// Pins `link` at `path` in place of whatever was there, which is detached.
pub(super) fn replace(link: FdLink, path: &Path) -> Result<(), SteerError> {
    let refused = |source| SteerError::Pin { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("_new");
    let fresh = path.with_file_name(name);
    remove(&fresh)?;
    link.pin(&fresh).map_err(|error| refused(io::Error::other(error)))?;
    let old = PinnedLink::open(path).map_err(refused)?;
    std::fs::rename(&fresh, path).map_err(refused)?;
    old.map_or(Ok(()), |old| old.detach()).map_err(refused)
}

/// Detaches a link and removes its pin, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), SteerError> {
    match detach(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SteerError::Pin { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn detach(path: &Path) -> io::Result<()> {
    if let Some(link) = PinnedLink::open(path)? {
        link.detach()?;
    }
    std::fs::remove_file(path)
}

/// A sandbox's name as a file name; the BPF file system refuses dots.
pub(super) fn escape(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

/// The sandbox that [`escape`] gave this file name; `None` if it gave no such name.
pub(super) fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|key| escape(key) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_can_be_read_from_its_directory() {
        for key in ["3f2a", "a.b/c", "pod_1-x", "ü%", ""] {
            assert_eq!(unescape(&escape(key)).as_deref(), Some(key));
        }
        assert_eq!(escape("a.b/c"), "a%2eb%2fc");
    }

    #[test]
    fn foreign_names_are_no_sandboxes() {
        for name in ["a.b", "%", "%2", "%zz", "%2E", "%41"] {
            assert_eq!(unescape(name), None, "{name}");
        }
    }
}

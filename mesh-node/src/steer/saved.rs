//! What a pod's namespace was like before the mesh, on disk.
//!
//! In:  a pod and its namespace, before anything is changed.
//! Out: what must be written back when the pod leaves, also by a later daemon.
//! Invariant: a record is on disk before the first change, and describes one namespace by its cookie: a record of
//! another namespace under the same name is worth nothing.

use super::owner::{failed, write};
use super::{SteerError, pins};
use crate::snapshot::PodKey;
use crate::sys::netns::NetNs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// One pod before the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// The namespace's path.
    pub(super) netns: String,
    /// The namespace's cookie.
    pub(super) cookie: u64,
    /// The addresses it was enrolled with.
    pub(super) addresses: Vec<IpAddr>,
    /// Settings and their values before the mesh.
    pub(super) sysctls: BTreeMap<String, String>,
}

impl Saved {
    /// The namespace, if it is still there and still the same.
    pub(super) fn namespace(&self) -> Option<NetNs> {
        NetNs::open(&self.netns).ok().filter(|ns| ns.cookie() == self.cookie)
    }
}

/// The directory of all records.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    /// Makes the directory.
    pub(super) fn open(state_dir: &Path) -> Result<Self, SteerError> {
        let directory = state_dir.join("pods");
        std::fs::create_dir_all(&directory).map_err(failed(&directory))?;
        Ok(Self { directory })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(pins::escape(key)).with_extension("json")
    }

    /// The record of a pod. One that cannot be read is as good as none.
    pub(super) fn read(&self, key: &str) -> Option<Saved> {
        serde_json::from_slice(&std::fs::read(self.path(key)).ok()?).ok()
    }

    /// Writes the record of a pod.
    pub(super) fn write(&self, key: &str, saved: &Saved) -> Result<(), SteerError> {
        let path = self.path(key);
        let content = serde_json::to_vec(saved).map_err(io::Error::other).map_err(failed(&path))?;
        write(&path, &content)
    }

    /// Removes the record of a pod, if there is one.
    pub(super) fn remove(&self, key: &str) -> Result<(), SteerError> {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Every pod that has a record.
    pub(super) fn pods(&self) -> Result<Vec<PodKey>, SteerError> {
        let read = || -> io::Result<Vec<PodKey>> {
            let mut keys = Vec::new();
            for entry in std::fs::read_dir(&self.directory)? {
                let name = entry?.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
                keys.extend(name.and_then(pins::unescape).map(PodKey::from));
            }
            Ok(keys)
        };
        read().map_err(failed(&self.directory))
    }
}

//! Puts the plugin's program among the host's CNI plugins.
//!
//! In:  the program as it came with the daemon; the host's directory of plugins.
//! Out: the same program there, for everybody to run.
//! Invariant: the program is whole or not there, and is replaced only if it differs: a running one goes on.
//! Invariant: it is never removed. Sandboxes outlive the mesh, the runtime deletes each by the chain that made it, and a
//! plugin that is missing would leave its pod terminating for ever. Without a daemon its DEL succeeds.

use super::ChainError;
use super::entry::PLUGIN;
use super::place::replace;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of the program.
const MODE: u32 = 0o755;

/// The program, at its origin and where it belongs.
#[derive(Debug)]
pub(super) struct Binary {
    from: PathBuf,
    to: PathBuf,
    /// What the metadata of a file said whose content is known to be right.
    known: Option<Stamp>,
}

type Stamp = (u64, u64, u64, i64, i64, u32);

impl Binary {
    pub(super) fn new(from: PathBuf, directory: &Path) -> Self {
        Self { from, to: directory.join(PLUGIN), known: None }
    }

    /// Installs the program unless it is there. Returns whether that was needed.
    pub(super) fn ensure(&mut self) -> Result<bool, ChainError> {
        let there = stamp(&self.to);
        if there.is_some() && there == self.known {
            return Ok(false);
        }
        let failed = |source| ChainError::Binary { from: self.from.clone(), to: self.to.clone(), source };
        let wanted = fs::read(&self.from).map_err(failed)?;
        let is_there = there.is_some_and(|(.., mode)| mode & 0o7777 == MODE)
            && fs::read(&self.to).is_ok_and(|bytes| bytes == wanted);
        if !is_there {
            let directory = self.to.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(directory).and_then(|()| replace(&self.to, &wanted, MODE)).map_err(failed)?;
        }
        self.known = stamp(&self.to);
        Ok(!is_there)
    }
}

/// Tells a regular file from any other that may come to have its name; `None` if there is none.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata: io::Result<fs::Metadata> = fs::symlink_metadata(path);
    let metadata = metadata.ok().filter(fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode();
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec(), mode))
}

//! Which of a node's daemons looks after the chain: during an upgrade, two of them run.
//!
//! In:  a directory that both share.
//! Out: whether this daemon is the last that claimed the chain.
//! Invariant: of two daemons with different settings, the older one stops before they could undo each other's work.

use super::ChainError;
use super::place::replace;
use std::path::{Path, PathBuf};

/// One daemon's claim.
#[derive(Debug)]
pub(super) struct Claim {
    file: PathBuf,
    id: String,
}

impl Claim {
    pub(super) fn new(state_dir: &Path) -> Self {
        let id = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Self { file: state_dir.join("owner"), id }
    }

    /// Becomes the daemon that looks after the chain.
    pub(super) fn take(&self) -> Result<(), ChainError> {
        std::fs::create_dir_all(self.file.parent().unwrap_or(Path::new("/")))
            .and_then(|()| replace(&self.file, self.id.as_bytes(), 0o600))
            .map_err(|source| ChainError::Write { path: self.file.clone(), source })
    }

    /// Is it still this one?
    pub(super) fn holds(&self) -> bool {
        std::fs::read(&self.file).is_ok_and(|id| id == self.id.as_bytes())
    }
}

//! Which of a node's daemons steers: during an upgrade, two of them run.
//!
//! In:  a directory that both daemons share.
//! Out: the right to change the kernel, for one call at a time.
//! Invariant: whoever is not named in the file `owner` changes nothing; the file and every change are made under a
//! lock, so the old daemon cannot undo what the new one just did.

use super::SteerError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One daemon's claim.
#[derive(Debug)]
pub(super) struct Owner {
    id: String,
    file: PathBuf,
    lock: File,
}

/// The right to change the kernel, until dropped.
#[must_use]
pub(super) struct Turn(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

impl Owner {
    /// A daemon that does not steer yet.
    pub(super) fn open(state_dir: &Path) -> Result<Self, SteerError> {
        let path = state_dir.join("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed(&path))?;
        let id = format!("{}-{:016x}", std::process::id(), fastrand::u64(..));
        Ok(Self { id, file: state_dir.join("owner"), lock })
    }

    /// Becomes the daemon that steers.
    pub(super) fn take_over(&self) -> Result<Turn, SteerError> {
        let turn = self.lock()?;
        write(&self.file, self.id.as_bytes())?;
        Ok(turn)
    }

    /// Is this the daemon that steers?
    pub(super) fn is_self(&self) -> bool {
        std::fs::read(&self.file).is_ok_and(|id| id == self.id.as_bytes())
    }

    /// The right to change the kernel; refused to a daemon that does not steer.
    pub(super) fn turn(&self) -> Result<Turn, SteerError> {
        let turn = self.lock()?;
        if self.is_self() { Ok(turn) } else { Err(SteerError::NotOwner) }
    }

    /// A time in which no other daemon changes what they share, whoever steers.
    pub(super) fn alone(&self) -> Result<Turn, SteerError> {
        self.lock()
    }

    /// This daemon's name in the file.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn lock(&self) -> Result<Turn, SteerError> {
        let refused = failed(&self.file);
        let file = self.lock.try_clone().map_err(refused)?;
        Flock::lock(file, FlockArg::LockExclusive).map(Turn).map_err(|(_, errno)| refused(errno.into()))
    }
}

/// Replaces a file of the daemon as a whole.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), SteerError> {
    let fresh = path.with_extension("new");
    let replace = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut file, content)?;
        std::fs::rename(&fresh, path)
    };
    replace().map_err(failed(path))
}

/// An error about a file of the daemon.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> SteerError + Copy {
    move |source| SteerError::State { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_take_over_steers() {
        let directory = std::env::temp_dir().join(format!("mesh-owner-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (old, new) = (Owner::open(&directory).expect("old"), Owner::open(&directory).expect("new"));
        assert!(matches!(old.turn(), Err(SteerError::NotOwner)));
        drop(old.take_over().expect("nobody steers"));
        assert!(old.turn().is_ok());
        drop(new.take_over().expect("the old one holds no turn"));
        assert!(new.is_self() && !old.is_self());
        assert!(matches!(old.turn(), Err(SteerError::NotOwner)));
        std::fs::remove_dir_all(&directory).expect("clean up");
    }
}

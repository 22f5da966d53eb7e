//! Files that only the daemon's user may read.
//!
//! In:  paths and bytes.
//! Out: whole files or an error that names the path.
//! Invariant: directories have mode 0700 and files 0600 from their first moment; a file is replaced by rename, so a
//! reader finds the old one or the new one; what others may read is not used.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No certificate, key or chain of ours comes near this.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why a private file or directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Users other than the owner have access.
    #[error("`{path}` has mode {mode:03o}, but only its owner may have access: run `chmod go-rwx` on it")]
    Exposed {
        /// What is exposed.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// More bytes than any file of ours has.
    #[error("`{path}` is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error("`{path}` is locked by another process")]
    Locked {
        /// The lock's file.
        path: PathBuf,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { action, path: path.to_owned(), source }
}

fn check_private(path: &Path, permissions: &Permissions) -> Result<(), FileError> {
    let mode = permissions.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(FileError::Exposed { path: path.to_owned(), mode }) }
}

/// Makes a directory, with its parents, unless it is there.
pub(super) fn private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create the directory", path))?;
    let metadata = fs::metadata(path).map_err(failed("inspect", path))?;
    check_private(path, &metadata.permissions())
}

/// A file's content; `None` when there is no such file.
pub(super) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("open", path)(source)),
    };
    let metadata = file.metadata().map_err(failed("inspect", path))?;
    check_private(path, &metadata.permissions())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(Some(bytes))
}

/// Writes or replaces a file. It is on stable storage when this returns.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let draft = draft(path);
    let written = write_draft(&draft, bytes).and_then(|()| {
        fs::rename(&draft, path).map_err(failed("replace", path))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("write out", dir))
    });
    if written.is_err() {
        // The first error is the one to report; a draft left over is swept later.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// The name a file has while it is written: distinct for each process.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn write_draft(draft: &Path, bytes: &[u8]) -> Result<(), FileError> {
    remove(draft)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(failed("create", draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", draft))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The files of a directory whose name ends in a dot and `extension`, in order.
pub(super) fn list(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let path = entry.map_err(failed("list", dir))?.path();
        if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// An exclusive lock among processes and threads, held until the file is dropped.
///
/// **Errors**: [`FileError::Locked`] when another still holds it after `patience`.
pub(super) fn lock(path: &Path, patience: Duration) -> Result<File, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(FileError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

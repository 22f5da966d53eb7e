//! Files of the host: looked at, and replaced as a whole.
//!
//! In:  the configuration directory, changes to it.
//! Out: what it holds; files under their names, each whole or not there.
//! Invariant: what is being written has a name that no runtime reads.
//! Invariant: what another program writes into a file while it is replaced is kept: see [`Displaced`].
//! Source: `rename(2)`; `ConfFiles` of libcni 1.3.0 for which names are read.

use super::ChainError;
use super::entry::DROP_IN;
use super::list::List;
use super::plan::{Change, Seen};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a runtime reads in the configuration directory.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Larger configurations are not read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// The scratch file whose coming and going makes the runtime read the directory again.
const NUDGE: &str = ".mesh-nudge";

/// How long a program may take to write what it began to write.
pub(super) const WRITING: Duration = Duration::from_secs(3);

/// The runtime's configuration directory.
#[derive(Clone, Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// What it holds.
    pub(super) fn look(&self) -> Result<Seen, ChainError> {
        self.read().map_err(|source| ChainError::Directory { path: self.0.clone(), source })
    }

    fn read(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() {
                if let Some(bytes) = read(&path.join(DROP_IN))? {
                    seen.drop_ins.insert(name, bytes);
                }
            } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
                && let Some(bytes) = read(&path)?
            {
                seen.files.insert(name, bytes);
            }
        }
        Ok(seen)
    }

    /// Makes one change. Of a list that was replaced, gives what was displaced.
    pub(super) fn apply(&self, change: &Change) -> Result<Option<Displaced>, ChainError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ChainError::Write { path, source }
        };
        match change {
            Change::WriteDropIn { network, text } => {
                let directory = self.0.join(network);
                let path = directory.join(DROP_IN);
                fs::create_dir_all(&directory)
                    .and_then(|()| replace(&path, text.as_bytes(), 0o600))
                    .map_err(failed(&path))?;
                Ok(None)
            }
            Change::RemoveDropIn { network } => {
                let directory = self.0.join(network);
                let path = directory.join(DROP_IN);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
                    _ => {}
                }
                // Others may have files there too; then it stays.
                let _not_empty = fs::remove_dir(&directory);
                Ok(None)
            }
            Change::WriteList { file, seen, text } => {
                let path = self.0.join(file);
                displace(&path, seen, text).map_err(failed(&path))
            }
        }
    }

    /// Makes the runtime read the directory again: its watcher does not look into directories of networks.
    pub(super) fn nudge(&self) -> Result<(), ChainError> {
        let (fresh, path) = (self.0.join(format!("{NUDGE}.new")), self.0.join(NUDGE));
        let nudge = || -> io::Result<()> {
            fs::write(&fresh, b"mesh-node changed the chain of plugins\n")?;
            fs::rename(&fresh, &path)?;
            fs::remove_file(&path)
        };
        nudge().map_err(|source| ChainError::Write { path: path.clone(), source })
    }
}

/// A list that was replaced while another program may have been about to write it.
///
/// Such a program empties the file and writes it anew. If it had opened the file before we renamed ours over it, what it
/// writes goes into a file without a name. So the file is kept open, and what turns up in it later is put in its place.
#[derive(Debug)]
pub(super) struct Displaced {
    path: PathBuf,
    file: File,
    was: Vec<u8>,
    ours: Vec<u8>,
    until: Instant,
}

impl Displaced {
    /// Puts in place what was written into the displaced file since. Returns whether to go on looking.
    pub(super) fn rescue(&self) -> Result<bool, ChainError> {
        let rescue = || -> io::Result<bool> {
            let mut now = vec![0; usize::try_from(self.file.metadata()?.len().min(MAX_BYTES)).unwrap_or_default()];
            let read = self.file.read_at(&mut now, 0)?;
            // It may have been emptied in between.
            now.truncate(read);
            if now == self.was || List::parse(&now).is_err() {
                return Ok(Instant::now() < self.until);
            }
            // Whoever wrote once more since has the last word.
            if fs::read(&self.path).is_ok_and(|bytes| bytes == self.ours) {
                let mode = self.file.metadata()?.permissions().mode();
                replace(&self.path, &now, mode)?;
            }
            Ok(false)
        };
        rescue().map_err(|source| ChainError::Write { path: self.path.clone(), source })
    }
}

fn displace(path: &Path, seen: &[u8], text: &str) -> io::Result<Option<Displaced>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut was = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut was)?;
    if was != seen {
        // It was written meanwhile, which is noticed and looked at again.
        return Ok(None);
    }
    replace(path, text.as_bytes(), file.metadata()?.permissions().mode())?;
    Ok(Some(Displaced {
        path: path.to_owned(),
        file,
        was,
        ours: text.as_bytes().to_owned(),
        until: Instant::now() + WRITING,
    }))
}

/// Replaces a file as a whole, on disk before it has its name.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.mesh-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    let written = write();
    if written.is_err() {
        // It is of no use, and may fill the disk; what went wrong first is told.
        let _not_there = fs::remove_file(&fresh);
    }
    written
}

/// What a file holds; `None` if it is not there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

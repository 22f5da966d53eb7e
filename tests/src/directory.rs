//! Directories for a while.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A directory that goes with the test.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// A new one; `name` tells it from those of other tests.
    ///
    /// **Errors**: it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("mesh-tests-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of something in it.
    #[must_use]
    pub fn join(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind only if the machine refuses; then it is under the system's directory for such things.
        let _refused = std::fs::remove_dir_all(&self.0);
    }
}

//! The process's limits.
//!
//! Source: `getrlimit(2)`; `PR_SET_THP_DISABLE` in `prctl(2)`.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Raises the limit of open files as far as it goes, and returns it.
///
/// **Errors**: those of `setrlimit(2)`.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Keeps this process from transparent huge pages, which the allocator asks for: each of its heaps, some of them a few
/// kilobytes, would else take 2 MiB.
///
/// **Errors**: those of `prctl(2)`.
pub fn refuse_huge_pages() -> io::Result<()> {
    Ok(nix::sys::prctl::set_thp_disable(true)?)
}

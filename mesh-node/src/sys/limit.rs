//! The process's limits.
//!
//! Source: `getrlimit(2)`; `PR_SET_THP_DISABLE` in `prctl(2)`; `DT_INIT_ARRAY` in the System V ABI.
#![expect(unsafe_code, reason = "a function is named to the loader, which calls it before the allocator is used")]

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
/// kilobytes, would else take 2 MiB. Its first ones are made before `main`, hence this is called before those. Where the
/// kernel cannot do it, memory is only larger than need be.
extern "C" fn refuse_huge_pages() {
    let _larger = nix::sys::prctl::set_thp_disable(true);
}

#[used]
// SAFETY: the loader calls what this section lists, without arguments that the function would have to take; the function
// needs nothing that is set up later, it makes one system call.
#[unsafe(link_section = ".init_array.00000")]
static BEFORE_MAIN: extern "C" fn() = refuse_huge_pages;

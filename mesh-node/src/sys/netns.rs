//! Network namespaces: open one, know it, do something inside.
//!
//! Invariant: a thread that entered a namespace is back in its own when the call returns, or the
//! process ends: a worker left in a pod's namespace would give one pod's sockets to another.
//! Source: `setns(2)`, `network_namespaces(7)`, `SO_NETNS_COOKIE` in `socket(7)`.
#![expect(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper")]

use nix::sched::CloneFlags;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An open network namespace; it lives at least as long as this does.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    cookie: u64,
    inode: u64,
}

impl NetNs {
    /// The namespace at `path`.
    ///
    /// **Errors**: the path cannot be opened or is no network namespace.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        let mut ns = Self { file, cookie: 0, inode };
        ns.cookie = ns.enter(|| netns_cookie(&UdpSocket::bind("127.0.0.1:0")?))?;
        Ok(ns)
    }

    /// The kernel's number for this namespace, never reused.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The namespace's inode number, as `ip netns identify` and `lsns` show it.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` with the calling thread inside this namespace. `work` must not await.
    ///
    /// **Errors**: those of `work`, or the namespace could not be entered.
    pub fn enter<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let home = match HOME.take() {
            Some(home) => home,
            None => File::open("/proc/thread-self/ns/net")?,
        };
        switch(&self.file)?;
        let _way_home = WayHome(Some(home));
        work()
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

thread_local! {
    /// The namespace in which the thread is, opened once; taken while the thread is in another one.
    static HOME: Cell<Option<File>> = const { Cell::new(None) };
}

/// Brings the thread home, also when `work` panics.
struct WayHome(Option<File>);

impl Drop for WayHome {
    fn drop(&mut self) {
        let home = self.0.take();
        if home.as_ref().is_none_or(|home| switch(home).is_err()) {
            // Going on would mix the sockets of two pods.
            std::process::abort();
        }
        HOME.set(home);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where namespaces are entered")]
fn switch(to: &File) -> io::Result<()> {
    Ok(nix::sched::setns(to, CloneFlags::CLONE_NEWNET)?)
}

/// The cookie of the namespace a socket lives in.
fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: `cookie` and `length` are valid for writes, and `length` is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

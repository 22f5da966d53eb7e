//! Kernel settings of a network namespace.
//!
//! In:  names as paths below `/proc/sys`, as in `net/ipv4/fwmark_reflect`.
//! Out: values as the kernel prints them, without the newline.
//! Invariant: `/proc/sys/net` shows the namespace of the thread that opens a file, so each access enters it.
//! Source: `proc_sys_net(5)`.

use super::netns::NetNs;
use std::io;
use std::path::{Path, PathBuf};

/// The value of `name` in `ns`.
///
/// **Errors**: there is no such setting, or the namespace cannot be entered.
pub fn read(ns: &NetNs, name: &str) -> io::Result<String> {
    ns.enter(|| Ok(std::fs::read_to_string(path(name))?.trim_end().to_owned()))
}

/// Sets `name` in `ns` to `value`.
///
/// **Errors**: there is no such setting, the kernel refuses the value, or `/proc/sys` is mounted read-only.
pub fn write(ns: &NetNs, name: &str, value: &str) -> io::Result<()> {
    ns.enter(|| std::fs::write(path(name), value))
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

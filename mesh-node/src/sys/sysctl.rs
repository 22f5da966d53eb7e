//! Kernel settings of a network namespace.
//!
//! In:  names as paths below `/proc/sys`, as in `net/ipv4/fwmark_reflect`.
//! Out: values as the kernel prints them, without the newline.
//! Invariant: `/proc/sys/net`, wherever it is mounted, shows the namespace of the thread that opens a file, so each access
//! enters it.
//! Source: `proc_sys_net(5)`.

use super::netns::NetNs;
use std::io;
use std::path::Path;

/// Where all settings are.
pub const ALL: &str = "/proc/sys";

/// The value of `name` in `ns`.
///
/// **Errors**: there is no such setting, or the namespace cannot be entered.
pub fn read(ns: &NetNs, name: &str) -> io::Result<String> {
    ns.enter(|| Ok(std::fs::read_to_string(Path::new(ALL).join(name))?.trim_end().to_owned()))
}

/// Sets a setting, by its name, in `ns` to a value. Containers have [`ALL`] read-only, and may have it writable elsewhere: `below`.
///
/// **Errors**: there is no such setting, the kernel refuses the value, or `below` is mounted read-only.
pub fn write(below: &Path, ns: &NetNs, (name, value): (&str, &str)) -> io::Result<()> {
    ns.enter(|| std::fs::write(below.join(name), value))
}

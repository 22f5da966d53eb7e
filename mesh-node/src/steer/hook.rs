//! Which hook captures connections on this machine.
//!
//! In:  the mode asked for, the mounts.
//! Out: the root of cgroup v2, or none: then packets are captured on the pods' devices.
//! Source: `proc_pid_mountinfo(5)`; hybrid machines mount cgroup v2 beside v1.

use super::SteerError;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::io;
use std::path::{Path, PathBuf};

/// How connections are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By cgroup where there is a cgroup v2, else packet by packet.
    #[default]
    Auto,
    /// By a hook at the root of cgroup v2.
    Cgroup,
    /// Packet by packet, on the pod's device: Linux 6.6 or later.
    Tcx,
}

/// Which hook captures connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// The cgroup at this path.
    Cgroup(PathBuf),
    /// The pods' devices.
    Tcx,
}

/// The hook for this mode on this machine.
pub(super) fn choose(mode: Mode, cgroup: Option<PathBuf>) -> Result<Hook, SteerError> {
    match mode {
        Mode::Tcx => Ok(Hook::Tcx),
        Mode::Auto | Mode::Cgroup => match cgroup.map_or_else(cgroup_root, |path| within(&path))? {
            Some(path) => Ok(Hook::Cgroup(path)),
            None if mode == Mode::Auto => Ok(Hook::Tcx),
            None => Err(SteerError::Cgroup { at: None, source: io::ErrorKind::NotFound.into() }),
        },
    }
}

/// The cgroup v2 at `path`, or beside v1 below it, if there is one.
fn within(path: &Path) -> Result<Option<PathBuf>, SteerError> {
    let kind = statfs(path).map_err(|errno| SteerError::Cgroup { at: Some(path.to_owned()), source: errno.into() })?;
    if kind.filesystem_type() == CGROUP2_SUPER_MAGIC {
        return Ok(Some(path.to_owned()));
    }
    let beside = path.join("unified");
    Ok(statfs(&beside).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC).then_some(beside))
}

/// Where cgroup v2 is mounted, if it is.
fn cgroup_root() -> Result<Option<PathBuf>, SteerError> {
    let mounts =
        std::fs::read_to_string("/proc/self/mountinfo").map_err(|source| SteerError::Cgroup { at: None, source })?;
    Ok(mounts.lines().find_map(cgroup2_mount_point))
}

/// The mount point in a line of `proc_pid_mountinfo(5)`, if it is a whole cgroup v2.
fn cgroup2_mount_point(line: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, mount_point) = (fields.next()?, fields.next()?);
    (file_system.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(mount_point.replace("\\040", " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_cgroup_v2_is_none() {
        assert_eq!(choose(Mode::Auto, Some("/proc".into())).ok(), Some(Hook::Tcx));
        assert!(choose(Mode::Cgroup, Some("/proc".into())).is_err());
        assert!(choose(Mode::Auto, Some("/nowhere".into())).is_err());
        let mounted = cgroup_root().expect("mounts can be read");
        if let Some(path) = mounted {
            assert_eq!(choose(Mode::Auto, Some(path.clone())).ok(), Some(Hook::Cgroup(path)));
        }
    }

    #[test]
    fn the_whole_cgroup_v2_is_found_among_the_mounts() {
        let check = |line: &str| cgroup2_mount_point(line);
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(check(unified), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let tagged = "30 23 0:26 / /sys/fs/my\\040cgroup rw shared:4 - cgroup2 cgroup rw,nsdelegate";
        assert_eq!(check(tagged), Some(PathBuf::from("/sys/fs/my cgroup")));
        assert_eq!(check("40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
        assert_eq!(check("41 31 0:38 /pods /mnt rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(check(""), None);
    }
}

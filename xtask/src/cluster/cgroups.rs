//! The cgroups of a node, in every hierarchy below the one that this process is in.
//!
//! In:  `/proc/self/cgroup`, `/proc/self/mountinfo`.
//! Out: directories that bear the node's name, with this process in them; their removal.
//! Invariant: the node's cgroup is the root of what the node sees, also of cgroup v2: a program attached there sees the
//!            connections of this node's pods, and of no other's.
//! Source: `cgroups(7)`, `cgroup_namespaces(7)`, `proc_pid_mountinfo(5)`.

use super::wait;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the kernel may take to let go of what ended.
const PATIENCE: Duration = Duration::from_secs(15);

/// A hierarchy, as a line of `/proc/self/cgroup` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Is it cgroup v2?
    pub(super) version2: bool,
    /// The controllers, or `name=…`.
    controllers: String,
    /// The cgroup of this process, from the hierarchy's root.
    path: String,
}

impl Hierarchy {
    fn parse(line: &str) -> Option<Self> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Self { version2: number == "0", controllers: controllers.to_owned(), path: path.to_owned() })
    }

    /// The name of its mount point.
    pub(super) fn directory(&self) -> &str {
        if self.version2 { "unified" } else { self.controllers.trim_start_matches("name=") }
    }

    /// What a mount of it says.
    pub(super) fn options(&self) -> String {
        if self.controllers.starts_with("name=") {
            format!("none,{}", self.controllers)
        } else {
            self.controllers.clone()
        }
    }

    /// Its controllers one by one, if it has several.
    pub(super) fn aliases(&self) -> Vec<&str> {
        if self.controllers.contains(',') { self.controllers.split(',').collect() } else { Vec::new() }
    }

    /// Where it is mounted, by the lines of `/proc/self/mountinfo`.
    fn mount_point(&self, mounts: &str) -> Option<PathBuf> {
        mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let matches = match kind.next()? {
                "cgroup2" => self.version2,
                "cgroup" => {
                    let options: Vec<_> = kind.nth(1)?.split(',').collect();
                    !self.version2 && self.controllers.split(',').all(|controller| options.contains(&controller))
                }
                _ => false,
            };
            let mut place = place.split(' ').skip(3);
            let (root, at) = (place.next()?, place.next()?);
            (matches && root == "/").then(|| PathBuf::from(at))
        })
    }
}

/// Every hierarchy that this process is in.
///
/// **Errors**: there is none.
pub(super) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let hierarchies: Vec<_> = text.lines().filter_map(Hierarchy::parse).collect();
    if hierarchies.is_empty() {
        bail!("this kernel has no cgroups, and containers need them");
    }
    Ok(hierarchies)
}

/// Makes a cgroup `name` in every hierarchy, and moves this process there.
///
/// **Errors**: a hierarchy is not mounted, or the kernel refuses.
pub(super) fn enter(name: &str) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let hierarchies = hierarchies()?;
    for hierarchy in &hierarchies {
        let root = hierarchy.mount_point(&mounts);
        let root = root.with_context(|| format!("the cgroups `{}` are not mounted", hierarchy.directory()))?;
        // On a machine with nothing but v2, only the root may have both processes and cgroups with controllers.
        let parent = if hierarchies.len() == 1 { root } else { root.join(hierarchy.path.trim_start_matches('/')) };
        let own = parent.join(name);
        fs::create_dir_all(&own).with_context(|| format!("cannot create the cgroup {}", own.display()))?;
        if hierarchies.len() == 1 {
            delegate(&parent)?;
        }
        if hierarchy.controllers.split(',').any(|controller| controller == "cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let all = fs::read(parent.join(file)).with_context(|| format!("cannot read {file}"))?;
                fs::write(own.join(file), all).with_context(|| format!("cannot write {file}"))?;
            }
            fs::write(own.join("cgroup.clone_children"), "1").context("cannot write cgroup.clone_children")?;
        }
        fs::write(own.join("cgroup.procs"), std::process::id().to_string())
            .with_context(|| format!("cannot enter the cgroup {}", own.display()))?;
    }
    Ok(())
}

/// Makes the root of a node's cgroup v2 ready to have cgroups with controllers: no process may stay in it.
///
/// **Errors**: the kernel refuses.
pub(super) fn open_root(root: &Path) -> Result<()> {
    let first = root.join("init");
    fs::create_dir_all(&first).context("cannot create the cgroup `init`")?;
    fs::write(first.join("cgroup.procs"), "1").context("cannot enter the cgroup `init`")?;
    delegate(root)
}

/// Lets the children of a cgroup of v2 have every controller that it has.
fn delegate(cgroup: &Path) -> Result<()> {
    let controllers =
        fs::read_to_string(cgroup.join("cgroup.controllers")).context("cannot read cgroup.controllers")?;
    for controller in controllers.split_whitespace() {
        fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("cannot delegate the controller {controller} at {}", cgroup.display()))?;
    }
    Ok(())
}

/// Removes every cgroup called one of `names`, wherever it is, with those below it.
///
/// **Errors**: processes stay in one.
pub(super) fn remove(names: &[String]) -> Result<()> {
    let mut found = Vec::new();
    find(Path::new("/sys/fs/cgroup"), names, &mut found);
    for cgroup in found {
        wait::until(&format!("the kernel lets go of the cgroup {}", cgroup.display()), PATIENCE, || {
            remove_tree(&cgroup);
            Ok(!cgroup.exists())
        })?;
    }
    Ok(())
}

fn find(dir: &Path, names: &[String], found: &mut Vec<PathBuf>) {
    for child in directories(dir) {
        if child.file_name().is_some_and(|name| names.iter().any(|wanted| name == wanted.as_str())) {
            found.push(child);
        } else {
            find(&child, names, found);
        }
    }
}

/// Removes a cgroup and those below it, as far as they are empty.
fn remove_tree(cgroup: &Path) {
    for child in directories(cgroup) {
        remove_tree(&child);
    }
    // Whoever asked looks whether it is gone.
    drop(fs::remove_dir(cgroup));
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_where_they_are_mounted() {
        let mounts = "\
            30 29 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 30 0:29 /pods /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n\
            34 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let at = |line: &str| Hierarchy::parse(line).unwrap().mount_point(mounts);
        assert_eq!(at("4:cpu,cpuacct:/user"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(at("1:name=systemd:/user"), Some(PathBuf::from("/sys/fs/cgroup/systemd")));
        assert_eq!(at("0::/"), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(at("7:memory:/"), None);
    }

    #[test]
    fn hierarchies_are_mounted_as_they_were() {
        let hierarchy = |line: &str| Hierarchy::parse(line).unwrap();
        let both = hierarchy("4:cpu,cpuacct:/");
        assert_eq!((both.directory(), both.options().as_str()), ("cpu,cpuacct", "cpu,cpuacct"));
        assert_eq!(both.aliases(), ["cpu", "cpuacct"]);
        let named = hierarchy("1:name=systemd:/user");
        assert_eq!((named.directory(), named.options().as_str()), ("systemd", "none,name=systemd"));
        assert!(named.aliases().is_empty());
        assert_eq!(hierarchy("0::/user").directory(), "unified");
        assert_eq!(Hierarchy::parse("nonsense"), None);
    }
}

//! The file systems of a node: where Kubernetes, containerd and Calico keep things, the node has its own.
//!
//! In:  the directories of this machine that take the place of others.
//! Out: mounts in the namespace of the calling process.
//! Invariant: what a node writes to `/etc`, `/opt`, `/run`, `/tmp`, `/var/lib`, `/var/log`, or as a kernel parameter of
//!            the whole machine, never reaches this machine's own.
//! Source: `mount(2)`, `overlayfs` of the kernel's documentation, `cgroups(7)`.

use super::cgroups::{self, Hierarchy};
use super::machine::Machine;
use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::Path;

/// Directories of this machine on which a node writes over.
const COVERED: &[&str] = &["/etc", "/opt", "/var/lib", "/var/log"];

/// Parameters of the whole kernel which the kubelet sets, and the values it wants.
const PARAMETERS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Where Cargo's directory waits while the others are covered.
const ASIDE: &str = "/run/target";

/// Makes the mounts of a machine.
///
/// **Errors**: the kernel refuses one; the error says which.
pub(super) fn make(machine: &Machine) -> Result<()> {
    // Read before `/proc` and `/sys` are replaced.
    let hierarchies = cgroups::hierarchies()?;
    file_system("proc", "/proc", "")?;
    if !machine.node {
        return Ok(());
    }
    let programs = fs::File::open(&machine.target).context("cannot open Cargo's directory")?;
    file_system("tmpfs", "/run", "mode=755")?;
    fs::create_dir_all(ASIDE).context("cannot create a directory in /run")?;
    // Through the open directory, which is found even if it was below /run.
    let target = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&programs));
    bind(Path::new(&target), Path::new(ASIDE))?;
    file_system("tmpfs", "/tmp", "mode=1777")?;
    for covered in COVERED {
        let name = covered.trim_start_matches('/').replace('/', "-");
        let (over, work) = (format!("/run/covers/{name}/over"), format!("/run/covers/{name}/work"));
        fs::create_dir_all(&over)
            .and_then(|()| fs::create_dir_all(&work))
            .context("cannot create a directory in /run")?;
        file_system("overlay", covered, &format!("lowerdir={covered},upperdir={over},workdir={work}"))?;
    }
    bind(Path::new(ASIDE), &machine.target)?;
    for (outside, inside) in &machine.binds {
        bind(outside, inside)?;
    }
    fs::create_dir_all("/run/netns").context("cannot create /run/netns")?;
    system(&hierarchies)?;
    for (name, value) in PARAMETERS {
        let instead = Path::new("/run/parameters").join(name.replace('/', "."));
        fs::create_dir_all("/run/parameters").context("cannot create /run/parameters")?;
        fs::write(&instead, value).with_context(|| format!("cannot write {}", instead.display()))?;
        bind_file(&instead, &Path::new("/proc/sys").join(name))?;
    }
    // Containers and daemons see what others mount later.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)
        .context("cannot share the mounts of a node")
}

/// `/sys`, with the devices of the node's own network, BPF objects and cgroups of its own.
fn system(hierarchies: &[Hierarchy]) -> Result<()> {
    umount2("/sys", MntFlags::MNT_DETACH).context("cannot unmount /sys")?;
    file_system("sysfs", "/sys", "")?;
    file_system("bpf", "/sys/fs/bpf", "")?;
    if let [Hierarchy { version2: true, .. }] = hierarchies {
        file_system("cgroup2", "/sys/fs/cgroup", "")?;
        return cgroups::open_root(Path::new("/sys/fs/cgroup"));
    }
    file_system("tmpfs", "/sys/fs/cgroup", "mode=755")?;
    for hierarchy in hierarchies {
        let at = format!("/sys/fs/cgroup/{}", hierarchy.directory());
        fs::create_dir(&at).with_context(|| format!("cannot create {at}"))?;
        if hierarchy.version2 {
            file_system("cgroup2", &at, "")?;
            continue;
        }
        file_system("cgroup", &at, &hierarchy.options())?;
        for controller in hierarchy.aliases() {
            let link = format!("/sys/fs/cgroup/{controller}");
            std::os::unix::fs::symlink(hierarchy.directory(), &link)
                .with_context(|| format!("cannot create {link}"))?;
        }
    }
    Ok(())
}

fn file_system(kind: &str, at: &str, options: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount {kind} at {at} ({options})"))
}

/// Puts a directory in the place of another, which is made if it is not there.
fn bind(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    bind_file(from, to)
}

fn bind_file(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

//! The BPF file system, and what the kernel says of a pinned link.
//!
//! Source: `bpf(2)`, `BPF_OBJ_GET` and `BPF_OBJ_GET_INFO_BY_FD`; `struct bpf_link_info` of `linux/bpf.h`.
#![expect(unsafe_code, reason = "aya does not tell whether a link is still attached")]

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the BPF file system is mounted by convention.
const CONVENTIONAL: &str = "/sys/fs/bpf";

/// Makes `directory` a directory of a BPF file system. If there is none and `may_mount`, one is mounted: at the conventional
/// place for a directory below it, else at `directory` itself.
///
/// **Errors**: the directory cannot be made, or the file system cannot or may not be mounted.
pub fn ensure_directory(directory: &Path, may_mount: bool) -> io::Result<()> {
    let mount_point = if directory.starts_with(CONVENTIONAL) {
        Path::new(CONVENTIONAL)
    } else {
        if !existing_part_is_bpffs(directory)? {
            std::fs::create_dir_all(directory)?;
        }
        directory
    };
    if !existing_part_is_bpffs(directory)? {
        if !may_mount {
            let cure = "no BPF file system is mounted there: mount one on the host, by `mount -t bpf bpf /sys/fs/bpf`";
            return Err(io::Error::new(io::ErrorKind::NotFound, cure));
        }
        // Two daemons that start together must not mount one over the other.
        let lock = Flock::lock(File::open(mount_point)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        if !existing_part_is_bpffs(directory)? {
            mount(Some("bpf"), mount_point, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
        }
        drop(lock);
    }
    std::fs::create_dir_all(directory)
}

fn existing_part_is_bpffs(path: &Path) -> io::Result<bool> {
    let existing = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    Ok(statfs(existing)?.filesystem_type() == BPF_FS_MAGIC)
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The kernel's number of the link, not reused soon.
    pub id: u32,
    /// The kernel's number of its program.
    pub program: u32,
    /// Is it still attached to its cgroup, device or namespace?
    pub attached: bool,
}

/// The first fields of `struct bpf_link_info`; the last one starts a union, which for a link to a cgroup, a device
/// or a namespace begins with the number of that, zero once it is detached.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    _padding: u32,
    target: u32,
    _rest: [u32; 3],
}

/// `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct ObjectGet {
    path: u64,
    _fd: u32,
    _flags: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct InfoGet {
    fd: u32,
    length: u32,
    info: u64,
}

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `union bpf_attr` for `BPF_LINK_DETACH`.
#[repr(C)]
#[derive(Default)]
struct LinkDetach {
    fd: u32,
}

const BPF_LINK_DETACH: libc::c_int = 34;

/// A link that was found by its pin.
#[derive(Debug)]
pub struct PinnedLink(OwnedFd);

impl PinnedLink {
    /// The link pinned at `path`; `None` if nothing is pinned there.
    ///
    /// **Errors**: the pin cannot be opened.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut get = ObjectGet { path: path.as_ptr() as u64, ..ObjectGet::default() };
        match bpf(BPF_OBJ_GET, &mut get) {
            // SAFETY: the kernel has just given us this descriptor.
            Ok(fd) => Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the kernel says of it.
    ///
    /// **Errors**: it is no link.
    pub fn state(&self) -> io::Result<LinkState> {
        let mut info = LinkInfo::default();
        let mut request = InfoGet {
            fd: self.number()?,
            length: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
            info: (&raw mut info) as u64,
        };
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut request)?;
        Ok(LinkState { id: info.id, program: info.program, attached: info.target != 0 })
    }

    /// Detaches it now; a link whose last pin goes is detached only some time later. One that is detached already
    /// is left so.
    ///
    /// **Errors**: it is no link.
    pub fn detach(&self) -> io::Result<()> {
        bpf(BPF_LINK_DETACH, &mut LinkDetach { fd: self.number()? }).map(drop)
    }

    fn number(&self) -> io::Result<u32> {
        u32::try_from(self.0.as_raw_fd()).map_err(io::Error::other)
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is valid for its size; the callers' pointers in it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { libc::c_int::try_from(result).map_err(io::Error::other) }
}

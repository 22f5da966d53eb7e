//! The images that every node has from the start, made from programs of this machine.
//!
//! In:  Debian's static busybox, and what `cargo xtask setup cluster` built.
//! Out: an archive of them; the import of any archive.

use super::layout::{Layout, NODES};
use super::machine;
use crate::oci::{self, Image, Layer};
use crate::{env, run};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// What holds a pod's namespaces.
pub(super) const PAUSE: &str = "mesh.test/pause:1";
/// A shell, and small clients and servers.
const BUSYBOX: &str = "docker.io/library/busybox:local";
const COREDNS: &str = "mesh.test/coredns:1";

/// Debian's, which needs no library.
const BUSYBOX_PROGRAM: &str = "/bin/busybox";

/// The archive of the images, made unless it is there and newer than what is in it.
///
/// **Errors**: a program is missing, or the archive cannot be written.
pub(super) fn make(layout: &Layout) -> Result<PathBuf> {
    let dir = layout.dir().join("images");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let archive = dir.join("base.tar");
    let own = env::own_program()?;
    let sources = [PathBuf::from(BUSYBOX_PROGRAM), layout.tool("pause"), layout.tool("coredns"), own];
    let newest = sources.iter().map(|source| changed(source)).collect::<Result<Vec<_>>>()?.into_iter().max();
    if changed(&archive).ok() <= newest {
        let pause = Image {
            reference: PAUSE.to_owned(),
            entrypoint: vec!["/pause".to_owned()],
            user: "65535:65535".to_owned(),
            layers: vec![Layer::new().copy("/pause", &layout.tool("pause"))?],
            ..Image::default()
        };
        let coredns = Image {
            reference: COREDNS.to_owned(),
            entrypoint: vec!["/coredns".to_owned()],
            layers: vec![Layer::new().copy("/coredns", &layout.tool("coredns"))?],
            ..Image::default()
        };
        let busybox = Image {
            reference: BUSYBOX.to_owned(),
            command: vec!["/bin/sh".to_owned()],
            layers: vec![busybox()?],
            ..Image::default()
        };
        oci::write(&[pause, coredns, busybox], &archive)?;
    }
    Ok(archive)
}

/// When a file was changed.
fn changed(path: &Path) -> Result<SystemTime> {
    let metadata = fs::metadata(path).and_then(|metadata| metadata.modified());
    metadata.with_context(|| format!("{} is missing: run `cargo xtask setup cluster`", path.display()))
}

/// The files of an image with a shell.
///
/// **Errors**: busybox is missing.
pub(crate) fn busybox() -> Result<Layer> {
    let applets = run::output(Command::new(BUSYBOX_PROGRAM).arg("--list"))?;
    let mut files = Layer::new()
        .copy("/bin/busybox", Path::new(BUSYBOX_PROGRAM))?
        .directory("/tmp", 0o1777)
        .file("/etc/passwd", 0o644, "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        files = files.link(&format!("/bin/{applet}"), "busybox");
    }
    Ok(files)
}

/// Imports an archive on every node.
///
/// **Errors**: there is no such file, a node is down, or it is no archive of images.
pub(super) fn load(layout: &Layout, archive: &Path) -> Result<()> {
    for node in NODES {
        let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
        let mut import = machine::inside(layout, node.name, "ctr")?;
        import.args(["--namespace", "k8s.io", "images", "import", "-"]);
        let output = import.stdin(file).output().with_context(|| format!("cannot run {}", run::line(&import)))?;
        if !output.status.success() {
            let (log, said) = (layout.log(node.name, "containerd"), String::from_utf8_lossy(&output.stderr));
            bail!("{} does not take {}: {}\nsee {}", node.name, archive.display(), said.trim_end(), log.display());
        }
        println!("cluster: {} has the images of {}", node.name, archive.display());
    }
    Ok(())
}

//! Container images, made from files of this machine.
//!
//! In:  [`Image`]s: what they are called, what they run, and layers of files.
//! Out: one archive of them all, which `ctr images import`, `podman load` and `docker load` take.
//! Invariant: the same files give the same bytes, whoever owns them and whenever they were changed; in the image
//!            everything belongs to root. Layers are not compressed: they go no further than this machine.
//! Source: OCI image specification 1.1, "Image Layout", "Image Manifest", "Image Configuration", "Filesystem Layer".

#[cfg(test)]
mod tests;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tar::{EntryType, Header};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Where a shell looks for programs, in an image that says nothing else.
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Registry, repository and tag in full, as `docker.io/library/busybox:local`.
    pub(crate) reference: String,
    /// What always runs.
    pub(crate) entrypoint: Vec<String>,
    /// What runs, or the arguments of the entrypoint, unless a pod says something else.
    pub(crate) command: Vec<String>,
    /// More environment, as `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// Who runs it, as `uid:gid`; empty is root.
    pub(crate) user: String,
    /// The files; a later layer covers an earlier one.
    pub(crate) layers: Vec<Layer>,
}

/// Files of an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    /// By the path from the image's root, without a slash at its start.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

impl Layer {
    /// A layer without files.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An empty directory. What files need is made by itself, with mode 755.
    pub(crate) fn directory(mut self, path: &str, mode: u32) -> Self {
        self.entries.insert(relative(path), Entry::Directory { mode });
        self
    }

    /// A file with this content.
    pub(crate) fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.entries.insert(relative(path), Entry::File { mode, content: content.into() });
        self
    }

    /// A symbolic link.
    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        self.entries.insert(relative(path), Entry::Link { target: target.to_owned() });
        self
    }

    /// A file of this machine, with its mode.
    ///
    /// **Errors**: it cannot be read.
    pub(crate) fn copy(self, path: &str, from: &Path) -> Result<Self> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {} for an image", from.display()))?;
        let mode = std::fs::metadata(from).with_context(|| format!("cannot look at {}", from.display()))?;
        Ok(self.file(path, mode.permissions().mode() & 0o7777, content))
    }

    /// Its tar archive: parents before what is in them.
    fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut directories = BTreeSet::new();
        for (path, entry) in &self.entries {
            for (at, _) in path.match_indices('/') {
                let parent = &path[..at];
                match self.entries.get(parent) {
                    None if directories.insert(parent) => {
                        append(&mut archive, EntryType::Directory, parent, 0o755, b"")?
                    }
                    // It comes by itself, as it sorts before what is in it.
                    None | Some(Entry::Directory { .. }) => {}
                    Some(Entry::File { .. } | Entry::Link { .. }) => {
                        bail!("/{path} cannot be in an image in which /{parent} is no directory")
                    }
                }
            }
            match entry {
                Entry::Directory { mode } => append(&mut archive, EntryType::Directory, path, *mode, b"")?,
                Entry::File { mode, content } => append(&mut archive, EntryType::Regular, path, *mode, content)?,
                Entry::Link { target } => {
                    archive
                        .append_link(&mut header(EntryType::Symlink, 0o777), path, target)
                        .with_context(|| format!("cannot put the link /{path} into an image"))?;
                }
            }
        }
        archive.into_inner().context("cannot end an image's layer")
    }
}

/// Writes one archive with all `images`; what they share is in it once.
///
/// **Errors**: a reference without a tag, files that contradict each other, or the file cannot be written.
pub(crate) fn write(images: &[Image], archive: &Path) -> Result<()> {
    let mut blobs = Blobs::default();
    let manifests = images.iter().map(|image| image.manifest(&mut blobs)).collect::<Result<Vec<_>>>()?;
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    // Under another name first, so that nobody imports half of it.
    let unfinished = archive.with_extension("unfinished");
    let write = || -> Result<()> {
        let mut tar = tar::Builder::new(File::create(&unfinished)?);
        append(&mut tar, EntryType::Regular, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, EntryType::Regular, "index.json", 0o644, index.to_string().as_bytes())?;
        for (digest, content) in &blobs.by_digest {
            append(&mut tar, EntryType::Regular, &format!("blobs/sha256/{digest}"), 0o644, content)?;
        }
        tar.into_inner()?.flush()?;
        Ok(std::fs::rename(&unfinished, archive)?)
    };
    write().with_context(|| format!("cannot write the image archive {}", archive.display()))
}

impl Image {
    /// Puts its parts among the blobs; returns its entry in the index.
    fn manifest(&self, blobs: &mut Blobs) -> Result<Value> {
        let tag =
            self.reference.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.is_empty() && !tag.contains('/'));
        let tag = tag.with_context(|| format!("the image reference `{}` has no tag: add one", self.reference))?;
        let layers =
            self.layers.iter().map(|layer| Ok(blobs.add(LAYER, layer.archive()?))).collect::<Result<Vec<_>>>()?;
        let mut environment = vec![SEARCH_PATH.to_owned()];
        environment.extend(self.environment.iter().cloned());
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "Cmd": self.command, "Env": environment, "User": self.user,
            },
            // Of a layer that is not compressed, both digests are the same.
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>()},
        });
        let config = blobs.add(CONFIG, config.to_string().into_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut entry = blobs.add(MANIFEST, manifest.to_string().into_bytes());
        entry["annotations"] =
            json!({"io.containerd.image.name": self.reference, "org.opencontainers.image.ref.name": tag});
        Ok(entry)
    }
}

/// Content by its digest.
#[derive(Default)]
struct Blobs {
    by_digest: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    /// Adds content; returns its descriptor.
    fn add(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = hexadecimal(&Sha256::digest(&content));
        let descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()});
        self.by_digest.insert(digest, content);
        descriptor
    }
}

/// Appends an entry of which nothing tells when and by whom it was made.
fn append(tar: &mut tar::Builder<impl Write>, kind: EntryType, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = header(kind, mode);
    header.set_size(u64::try_from(content.len())?);
    let path = if kind == EntryType::Directory { format!("{path}/") } else { path.to_owned() };
    tar.append_data(&mut header, &path, content).with_context(|| format!("cannot put {path} into an archive"))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// `path` from the root, as tar wants it.
fn relative(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// This machine's architecture, in the words of Go, which are those of the specification.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

//! Makes the images of the mesh and of Bookinfo, with no container engine and no registry.
//!
//! In:  the work tree; this machine's C library, for linking.
//! Out: archives in `target/images`, which `ctr images import`, `podman load` and `docker load` take.
//! Invariant: programs need nothing of the image they are in, nor of the host that the plugin is copied to: everything is linked
//! into them.
//! Source: Istio's sample `bookinfo` for the names of its images.

use crate::oci::{self, Image, Layer};
use crate::setup::{self, Group};
use crate::{cluster, env, run};
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The name of the mesh's image, without a tag.
    #[arg(long, default_value = "mesh-node")]
    repository: String,
    /// The tag of Bookinfo's images, as in Istio's sample.
    #[arg(long, default_value = "1.20.3")]
    bookinfo_tag: String,
    /// Without optimisation, which is built sooner.
    #[arg(long)]
    debug: bool,
    /// With the image that pods of the suites run.
    #[arg(long)]
    suites: bool,
}

impl Arguments {
    /// What the suites of the cluster need.
    pub(crate) fn of_suites() -> Self {
        let (repository, bookinfo_tag) = ("mesh-node".to_owned(), "1.20.3".to_owned());
        Self { repository, bookinfo_tag, debug: true, suites: true }
    }
}

/// Bookinfo's services with their versions.
const BOOKINFO: [(&str, &str); 6] = [
    ("productpage", "v1"),
    ("details", "v1"),
    ("ratings", "v1"),
    ("reviews", "v1"),
    ("reviews", "v2"),
    ("reviews", "v3"),
];

/// Where programs are in the images.
const BIN: &str = "/usr/local/bin";

/// `cargo xtask image`.
///
/// **Errors**: a build fails, or an archive cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Group::Build)?;
    let programs = build(arguments.debug)?;
    let dir = env::target_dir().join("images");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mesh = mesh(&arguments.repository, &programs)?;
    write(&[mesh], &dir.join("mesh.tar"))?;
    write(&bookinfo(&arguments.bookinfo_tag, &programs)?, &dir.join("bookinfo.tar"))?;
    if arguments.suites {
        write(&[suites(&programs)?], &dir.join("suites.tar"))?;
    }
    Ok(())
}

fn write(images: &[Image], archive: &Path) -> Result<()> {
    oci::write(images, archive)?;
    println!("{}:", archive.display());
    for image in images {
        println!("  {}", image.reference);
    }
    Ok(())
}

/// Builds the programs with everything linked into them; returns where they are.
fn build(debug: bool) -> Result<PathBuf> {
    let target = host_target()?;
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--target", &target, "-p", "mesh-node", "-p", "mesh-cni", "-p", "mesh-tests"])
        .args([
            "--bin",
            "mesh-node",
            "--bin",
            "mesh-cni",
            "--bin",
            "bookinfo",
            "--bin",
            "meshload",
            "--bin",
            "httpecho",
        ])
        .current_dir(env::root())
        // Only of this target: programs that the build runs, and eBPF programs, are built as ever.
        .env(flags_variable(&target), "-C target-feature=+crt-static");
    if debug {
        // Nobody debugs inside an image, and without it they are built sooner and copied sooner.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    } else {
        cargo.arg("--release");
    }
    run::open(&mut cargo)?;
    Ok(env::target_dir().join(target).join(if debug { "debug" } else { "release" }))
}

/// The target that the compiler runs on.
fn host_target() -> Result<String> {
    let text = run::output(Command::new("rustc").arg("-vV").current_dir(env::root()))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// The variable that holds a target's flags.
fn flags_variable(target: &str) -> String {
    format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"))
}

fn mesh(repository: &str, programs: &Path) -> Result<Image> {
    let mut layer = Layer::new();
    for program in ["mesh-node", "mesh-cni"] {
        layer = layer.copy(&format!("{BIN}/{program}"), &programs.join(program))?;
    }
    Ok(Image {
        reference: format!("{}:{}", in_full(repository), env!("CARGO_PKG_VERSION")),
        entrypoint: vec![format!("{BIN}/mesh-node")],
        command: vec!["run".to_owned()],
        layers: vec![layer],
        ..Image::default()
    })
}

fn bookinfo(tag: &str, programs: &Path) -> Result<Vec<Image>> {
    let program = format!("{BIN}/bookinfo");
    let layer = Layer::new().copy(&program, &programs.join("bookinfo"))?;
    let image = |(service, version): (&str, &str)| Image {
        reference: format!("registry.istio.io/release/examples-bookinfo-{service}-{version}:{tag}"),
        entrypoint: vec![program.clone(), service.to_owned()],
        environment: vec![format!("SERVICE_VERSION={version}")],
        user: "65534:65534".to_owned(),
        layers: vec![layer.clone()],
        ..Image::default()
    };
    Ok(BOOKINFO.map(image).into())
}

/// A shell, small clients and servers, and a load.
fn suites(programs: &Path) -> Result<Image> {
    let own = Layer::new()
        .copy(&format!("{BIN}/meshload"), &programs.join("meshload"))?
        .copy(&format!("{BIN}/httpecho"), &programs.join("httpecho"))?
        // What `httpd -h /www` serves: which pod answers, and who it takes the client for.
        .file("/www/cgi-bin/who", 0o755, "#!/bin/sh\necho\necho \"$HOSTNAME $REMOTE_ADDR\"\n");
    Ok(Image {
        reference: "mesh.test/suites:1".to_owned(),
        command: vec!["/bin/sh".to_owned()],
        layers: vec![cluster::busybox()?, own],
        ..Image::default()
    })
}

/// The name by which a runtime knows `repository`: with the registry that is meant where none is named.
fn in_full(repository: &str) -> String {
    let first = repository.split('/').next().unwrap_or_default();
    if !repository.contains('/') {
        format!("docker.io/library/{repository}")
    } else if first.contains(['.', ':']) || first == "localhost" {
        repository.to_owned()
    } else {
        format!("docker.io/{repository}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_without_a_registry_is_that_of_docker() {
        for (repository, expected) in [
            ("mesh-node", "docker.io/library/mesh-node"),
            ("mesh/node", "docker.io/mesh/node"),
            ("ghcr.example/mesh/node", "ghcr.example/mesh/node"),
            ("localhost/node", "localhost/node"),
            ("registry:5000/node", "registry:5000/node"),
        ] {
            assert_eq!(in_full(repository), expected);
        }
    }

    #[test]
    fn flags_are_those_of_one_target() {
        assert_eq!(flags_variable("x86_64-unknown-linux-gnu"), "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS");
    }

    #[test]
    fn bookinfo_has_the_images_of_istios_sample() {
        let dir = std::env::temp_dir().join(format!("mesh-image-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("bookinfo"), "program").expect("a file");
        let images = bookinfo("1.20.3", &dir).expect("images");
        let names: Vec<_> = images.iter().map(|image| image.reference.as_str()).collect();
        assert!(names.contains(&"registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3"), "{names:?}");
        assert!(names.contains(&"registry.istio.io/release/examples-bookinfo-productpage-v1:1.20.3"), "{names:?}");
        std::fs::remove_dir_all(&dir).expect("clean up");
    }
}

//! The images that the suite's pods run.
//!
//! In:  the manifests of the suite, which name them; the programs that setup built.
//! Out: an archive with an image of each name.
//! Invariant: an image for which there is no program is an error: its pods would wait for it until the suite gives up.
//! Source: Gateway API, `conformance/mesh/manifests.yaml`; its echo server of meshes is Istio's.

use super::tool;
use crate::oci::{self, Image, Layer};
use crate::{run, setup};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository of the echo server of meshes, without its registry.
const ECHO: &str = "gateway-api/echo-advanced";

/// Makes the archive in `dir`.
///
/// **Errors**: the manifests cannot be read or name other images, or a program is missing.
pub(super) fn image(dir: &Path) -> Result<PathBuf> {
    let manifests = setup::module(setup::GATEWAY_API_SUITE)?.join("mesh/manifests.yaml");
    let manifests = fs::read_to_string(&manifests).with_context(|| format!("cannot read {}", manifests.display()))?;
    let files = files(dir)?;
    let mut images = Vec::new();
    for reference in references(&manifests) {
        if !reference.split(':').next().is_some_and(|repository| repository.ends_with(ECHO)) {
            bail!("the suite's pods run {reference}, and no program is known for it");
        }
        images.push(Image {
            reference: reference.to_owned(),
            entrypoint: vec!["/usr/local/bin/server".to_owned()],
            user: "1338:1338".to_owned(),
            layers: vec![files.clone()],
            ..Image::default()
        });
    }
    ensure!(!images.is_empty(), "the suite's manifests name no image");
    let archive = dir.join("echo.tar");
    oci::write(&images, &archive)?;
    Ok(archive)
}

/// What manifests say pods run.
fn references(manifests: &str) -> BTreeSet<&str> {
    manifests
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("image:"))
        .map(str::trim)
        .collect()
}

/// Istio's server and client, and a certificate where the suite's pods expect one.
fn files(dir: &Path) -> Result<Layer> {
    let (key, certificate) = (dir.join("echo.key"), dir.join("echo.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "3650",
    ]);
    openssl.args(["-subj", "/CN=echo", "-addext", "subjectAltName=DNS:echo,DNS:*.svc.cluster.local"]);
    run::output(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
    let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    Ok(Layer::new()
        .copy("/usr/local/bin/server", &tool("echo-server"))?
        .copy("/usr/local/bin/client", &tool("echo-client"))?
        .file("/cert.key", 0o644, read(&key)?)
        .file("/cert.crt", 0o644, read(&certificate)?)
        .file("/etc/passwd", 0o644, "root:x:0:0:root:/:/bin/sh\napplication:x:1338:1338::/tmp:/bin/false\n")
        .directory("/tmp", 0o1777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_those_that_pods_run_each_once() {
        let manifests = "    - image: a/b:1\n      name: x\n      image: a/b:1\n    # image: c:2\n      image: d/e:3\n";
        assert_eq!(references(manifests).into_iter().collect::<Vec<_>>(), ["a/b:1", "d/e:3"]);
    }
}

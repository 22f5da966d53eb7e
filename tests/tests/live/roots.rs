//! Roots that change under traffic.

use crate::support::{Shop, Stolen, refused, under_traffic};
use anyhow::{Context, Result, ensure};
use mesh_tests::Node::{A, B};
use mesh_tests::{Mesh, env, execute, wait};
use std::process::Command;

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The serial numbers of the roots.
fn roots(mesh: &Mesh) -> Result<Vec<String>> {
    let mut roots = Vec::new();
    for entry in std::fs::read_dir(mesh.ca_dir())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            roots.push(path.file_stem().context("a root without name")?.to_string_lossy().into_owned());
        }
    }
    Ok(roots)
}

#[test]
fn roots_are_rotated_under_traffic() -> Result<()> {
    let settings = ["--svid-ttl=10s", "--root-reread=500ms", "--root-overlap=1s"];
    let mesh = settings.iter().fold(Mesh::builder("live roots"), |mesh, setting| mesh.daemon_argument(setting));
    let shop = Shop::open(mesh, "STRICT")?;
    let mesh = &shop.mesh;
    let signed_by = |root: &str| -> Result<bool> {
        Ok(Stolen::take(mesh, B, CLIENT)?.is_signed_by(root) && Stolen::take(mesh, A, WEB)?.is_signed_by(root))
    };
    let [first] = roots(mesh)?.try_into().map_err(|roots| anyhow::anyhow!("not one root: {roots:?}"))?;
    let old = Stolen::take(mesh, B, CLIENT)?;
    ensure!(old.is_signed_by(&first), "not signed by the one root");

    under_traffic(&[(&shop.client, shop.at())], || {
        let mut rotate = Command::new(env::built("mesh-node")?);
        rotate.args(["ca", "rotate", "--ca-dir"]).arg(mesh.ca_dir());
        let said = execute(&mut rotate, wait::PATIENCE)?.success()?;
        let second = roots(mesh)?.into_iter().find(|root| *root != first).context("no second root")?;
        ensure!(said.contains(&second), "{said}");
        wait::until_true("the new root signs on both nodes", wait::PATIENCE, || signed_by(&second))?;
        // Both are trusted: new daemons' certificates, and those that were issued before.
        old.use_from(&shop.client, shop.at()).context("a certificate of the old root, while it is trusted")?;
        for extension in ["crt", "key"] {
            std::fs::remove_file(mesh.ca_dir().join(format!("{first}.{extension}")))?;
        }
        let untrusted = wait::until_true("the old root is trusted no more", wait::PATIENCE, || {
            Ok(old.use_from(&shop.client, shop.at()).is_err())
        });
        ensure!(!old.has_expired()?, "too slow: the certificate expired before its root went");
        untrusted
    })?;
    refused(&*mesh.daemon(A)?, "inbound", "untrusted_root")?;
    shop.served(&shop.client, shop.at())
}

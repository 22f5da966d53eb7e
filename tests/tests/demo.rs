//! The demo and its tours, as users run them.

use anyhow::{Context as _, Result, ensure};
use mesh_tests::{env, tools};
use std::path::Path;
use std::process::Command;

fn demo(application: &str, arguments: &[&str]) -> Result<()> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(application);
    let mut demo = Command::new(env::built("mesh-demo")?);
    // By names of its own: a demo that somebody keeps stays.
    demo.env("MESH_TEST_PREFIX", format!("{}-demo", env::prefix()));
    let output = demo.arg("--manifests").arg(manifests).args(arguments).output().context("the demo does not start")?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(told.lines().any(|line| line.starts_with("demo: ")), "the demo ends without its last word:\n{told}");
    Ok(())
}

#[test]
fn the_demo_proves_identity_and_encryption() -> Result<()> {
    demo("bookinfo", &[])
}

#[test]
fn every_stop_of_the_tour_does_what_its_files_say() -> Result<()> {
    let samples = tools::istio()?.join("samples/bookinfo").display().to_string();
    demo("bookinfo", &["--tour", &samples])
}

#[test]
fn every_stop_of_the_banks_tour_does_what_its_policies_say() -> Result<()> {
    demo("bank", &["--bank"])
}

//! Compiles the eBPF programs for the BPF target and leaves the object in `OUT_DIR/mesh`.
//!
//! A nested Cargo does it, since the target differs; its own output appears only when it fails.

#![expect(clippy::disallowed_methods, reason = "Cargo speaks to build scripts through the environment")]

use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::Command;

fn main() -> anyhow::Result<()> {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    for input in ["../mesh-ebpf/src", "../mesh-ebpf/Cargo.toml", "../mesh-common/src", "../rust-toolchain.toml"] {
        println!("cargo:rerun-if-changed={input}");
    }
    let target = match std::env::var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = out_dir.join("ebpf");
    let flags = [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f");
    let mut cargo = Command::new(std::env::var_os("CARGO").context("CARGO is not set")?);
    cargo
        .args(["build", "--release", "--quiet", "--package=mesh-ebpf", "--bin=mesh", "-Zbuild-std=core"])
        .args(["--target", target])
        .arg("--target-dir")
        .arg(&target_dir)
        // The linker complains about the one of its candidate LLVM libraries that is a linker script.
        .env("CARGO_ENCODED_RUSTFLAGS", format!("{flags}\x1f-Alinker_messages"))
        // Building `core` is unstable; a stable compiler allows it under this variable.
        .env("RUSTC_BOOTSTRAP", "1");
    for variable in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(variable);
    }
    let output = cargo.output().with_context(|| format!("cannot run {cargo:?}"))?;
    if !output.status.success() {
        bail!(
            "the eBPF programs do not build; if bpf-linker is missing, run `cargo xtask setup`\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::copy(target_dir.join(target).join("release/mesh"), out_dir.join("mesh"))
        .context("the eBPF object is not where Cargo should have left it")?;
    Ok(())
}

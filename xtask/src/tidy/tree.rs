//! What the work tree holds: its first level, licences, dependencies, large files.

use super::{File, Finding};

/// What may stand at the first level.
const FIRST_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".gitignore",
    ".typos.toml",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "deny.toml",
    "fuzz",
    "manifests",
    "mesh-cni",
    "mesh-common",
    "mesh-ebpf",
    "mesh-node",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// What must stand there.
const REQUIRED: &[&str] = &["LICENSE", "README.md", "CONTRIBUTING.md", "Cargo.lock", "rust-toolchain.toml", ".ci/run"];

/// Crates that must stay free of a dependency, and why.
const FREE_OF: &[(&str, &str, &str)] = &[
    ("mesh-cni/Cargo.toml", "aya", "the plugin only talks to the daemon's socket"),
    ("mesh-cni/Cargo.toml", "tokio", "the plugin starts for each pod and must stay small"),
    ("xtask/Cargo.toml", "mesh-node", "xtask installs what mesh-node's build needs"),
];

/// A larger file is a finding.
const MOST_BYTES: u64 = 1024 * 1024;

pub(super) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let first = file.path.split('/').next().unwrap_or_default();
        if !FIRST_LEVEL.contains(&first) {
            let cure = format!("`{first}` is new at the first level: move it, or add it in xtask/src/tidy/tree.rs");
            findings.push(Finding::new(&file.path, 1, "tree", cure));
        }
        if file.bytes > MOST_BYTES {
            let cure = format!("{} bytes, {MOST_BYTES} at most: make it when it is needed", file.bytes);
            findings.push(Finding::new(&file.path, 1, "size", cure));
        }
        if let Some(text) = &file.text {
            findings.extend(manifest(&file.path, text));
        }
    }
    for required in REQUIRED {
        match files.iter().find(|file| file.path == *required) {
            Some(file) => findings.extend(licence(file)),
            None => findings.push(Finding::new(required, 1, "tree", "it is missing: every clone has it")),
        }
    }
    findings
}

/// The licence is the one that the manifests name.
fn licence(file: &File) -> Option<Finding> {
    let wrong = file.path == "LICENSE" && !file.text.as_ref().is_some_and(|text| text.contains("Apache License"));
    wrong.then(|| Finding::new(&file.path, 1, "licence", "it holds the text of the Apache License 2.0"))
}

/// Rules for the manifest of a crate.
fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !path.ends_with("Cargo.toml") || !text.contains("[package]") {
        return findings;
    }
    if !text.lines().any(|line| line.starts_with("license")) {
        findings.push(Finding::new(path, 1, "licence", "say `license.workspace = true`"));
    }
    for (_, dependency, why) in FREE_OF.iter().filter(|(manifest, ..)| *manifest == path) {
        for (index, line) in text.lines().enumerate() {
            let named = line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with([' ', '=', '.']));
            if named {
                let cure = format!("it may not depend on `{dependency}`: {why}");
                findings.push(Finding::new(path, index + 1, "dependencies", cure));
            }
        }
    }
    findings
}

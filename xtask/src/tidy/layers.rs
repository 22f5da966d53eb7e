//! Who may import whom inside `mesh-node`.
//!
//! In:  a file of `mesh-node/src`, with its paths through `crate` and `super`.
//! Out: a finding for each import that the table does not allow.
//! Invariant: the table has no cycle; test code is free to import what it tests with.

use super::Finding;
use super::source::{Path, Source};

/// A module of `mesh-node`, and the modules that it may import. Every module may also import itself.
pub(super) const TABLE: &[(&str, &[&str])] = &[
    // 0: what everything stands on.
    ("sys", &[]),
    ("model", &[]),
    // Names and labels are the model's, so that nobody copies them.
    ("api", &["model"]),
    // Labels of workloads and services are in the snapshot, as data.
    ("telemetry", &["model", "snapshot"]),
    // 1
    ("policy", &["model"]),
    ("route", &["model"]),
    ("world", &["api", "model"]),
    // 2
    ("snapshot", &["model", "policy", "route"]),
    ("translate", &["world", "api", "model"]),
    ("source", &["world", "api", "model", "sys", "telemetry"]),
    // 3
    ("compile", &["model", "policy", "route", "world", "snapshot", "translate"]),
    ("identity", &["model", "sys", "telemetry"]),
    // 4
    ("steer", &["snapshot", "model", "sys", "telemetry"]),
    ("proxy", &["snapshot", "model", "policy", "route", "identity", "sys", "telemetry"]),
    ("status", &["api", "model", "telemetry"]),
    // 5
    ("admin", BELOW_CONTROL),
    // Answers what the admin server asks.
    (
        "control",
        &[
            "sys",
            "model",
            "api",
            "telemetry",
            "policy",
            "route",
            "world",
            "snapshot",
            "translate",
            "source",
            "compile",
            "identity",
            "steer",
            "proxy",
            "status",
            "admin",
        ],
    ),
    // 6: settings of each module.
    (
        "config",
        &[
            "sys",
            "model",
            "api",
            "telemetry",
            "policy",
            "route",
            "world",
            "snapshot",
            "translate",
            "source",
            "compile",
            "identity",
            "steer",
            "proxy",
            "status",
            "control",
            "admin",
        ],
    ),
    // 7: puts everything together.
    (
        "app",
        &[
            "sys",
            "model",
            "api",
            "telemetry",
            "policy",
            "route",
            "world",
            "snapshot",
            "translate",
            "source",
            "compile",
            "identity",
            "steer",
            "proxy",
            "status",
            "control",
            "admin",
            "config",
        ],
    ),
];

/// Layers 0 to 4.
const BELOW_CONTROL: &[&str] = &[
    "sys",
    "model",
    "api",
    "telemetry",
    "policy",
    "route",
    "world",
    "snapshot",
    "translate",
    "source",
    "compile",
    "identity",
    "steer",
    "proxy",
    "status",
];

const SOURCES: &str = "mesh-node/src/";
const RULE: &str = "layers";

pub(super) fn findings(source: &Source) -> Vec<Finding> {
    let Some(file) = source.path.strip_prefix(SOURCES) else { return Vec::new() };
    if file == "lib.rs" || file == "main.rs" || source.is_test() {
        return Vec::new();
    }
    let modules: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    let importer = modules[0];
    let Some((_, allowed)) = TABLE.iter().find(|(module, _)| *module == importer) else {
        let cure = format!("`{importer}` has no layer: give it one in xtask/src/tidy/layers.rs");
        return vec![Finding::new(&source.path, 1, RULE, cure)];
    };
    let mut findings = Vec::new();
    for path in source.paths().iter().filter(|path| !path.test) {
        let Some(imported) = imported(path, modules.len()) else { continue };
        if imported == "*" || imported == "self" {
            let cure = "name what you import, so that it is seen whether it may be";
            findings.push(Finding::new(&source.path, path.line, RULE, cure));
        } else if imported != importer && !allowed.contains(&imported) {
            findings.push(Finding::new(&source.path, path.line, RULE, cure(importer, imported, allowed)));
        }
    }
    findings
}

fn cure(importer: &str, imported: &str, allowed: &[&str]) -> String {
    let may = if allowed.is_empty() { "nothing of this crate".to_owned() } else { allowed.join(", ") };
    format!("`{importer}` may not import `{imported}`, only {may}: pass what it needs in, or move it to a lower layer")
}

/// The top-level module that `path` goes through, in a file `depth` modules deep.
fn imported(path: &Path, depth: usize) -> Option<&str> {
    let first = path.segments.first()?;
    if first == "crate" || first == "mesh_node" {
        return path.segments.get(1).map(String::as_str);
    }
    let up = path.segments.iter().take_while(|segment| *segment == "super").count();
    (up == depth + path.depth).then(|| path.segments.get(up).map(String::as_str)).flatten()
}

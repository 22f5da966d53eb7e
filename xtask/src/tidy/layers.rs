//! Who may import whom inside `mesh-node`.
//!
//! In:  a file of `mesh-node/src`, with its paths through `crate` and `super`.
//! Out: a finding for each import that the table does not allow.
//! Invariant: the table has no cycle; test code is free to import what it tests with.

use super::Finding;
use super::source::{Path, Source};

/// What a module may import besides itself.
enum May {
    /// These modules.
    Only(&'static [&'static str]),
    /// Every module that stands before it in the table.
    AllBefore,
}
use May::{AllBefore, Only};

/// The modules of `mesh-node`, from what everything stands on to what puts everything together.
const TABLE: &[(&str, May)] = &[
    // 0: what everything stands on.
    ("sys", Only(&[])),
    // Whoever asks the Kubernetes API does so with its client.
    ("cluster", Only(&[])),
    ("share", Only(&[])),
    ("model", Only(&[])),
    // Names and labels are the model's, so that nobody copies them.
    ("api", Only(&["model"])),
    // Labels of workloads and services are in the snapshot, as data.
    ("telemetry", Only(&["model", "snapshot"])),
    // 1
    ("policy", Only(&["model"])),
    ("route", Only(&["model"])),
    ("world", Only(&["api", "model", "share"])),
    // 2
    ("snapshot", Only(&["model", "policy", "route", "share"])),
    ("translate", Only(&["world", "api", "model", "share"])),
    ("source", Only(&["world", "api", "model", "sys", "cluster", "telemetry"])),
    // 3
    ("compile", Only(&["model", "policy", "route", "world", "snapshot", "translate", "share"])),
    // Why something is so, from a world alone: for the admin server and the command line.
    // It makes the pods of templates, where nothing runs yet.
    ("why", Only(&["api", "model", "policy", "route", "world", "snapshot", "translate", "compile"])),
    ("identity", Only(&["model", "sys", "cluster", "telemetry"])),
    // 4
    ("steer", Only(&["snapshot", "model", "sys", "telemetry"])),
    ("proxy", Only(&["snapshot", "model", "policy", "route", "identity", "sys", "telemetry"])),
    ("status", Only(&["api", "model", "telemetry"])),
    // What nodes tell each other of their pods.
    ("announce", Only(&["api", "model", "telemetry"])),
    // The host's files; nothing of what the mesh means.
    ("chain", Only(&["telemetry"])),
    // 5: the loop answers what the admin server asks.
    ("admin", AllBefore),
    ("control", AllBefore),
    // 6: settings of each module.
    ("config", AllBefore),
    // 7: puts everything together.
    ("app", AllBefore),
];

/// Each module with what it may import.
pub(super) fn table() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    TABLE.iter().enumerate().map(|(at, (module, may))| {
        let allowed = match may {
            Only(modules) => modules.to_vec(),
            AllBefore => TABLE[..at].iter().map(|(module, _)| *module).collect(),
        };
        (*module, allowed)
    })
}

const SOURCES: &str = "mesh-node/src/";
const RULE: &str = "layers";

pub(super) fn findings(source: &Source) -> Vec<Finding> {
    let Some(file) = source.path.strip_prefix(SOURCES) else { return Vec::new() };
    if file == "lib.rs" || file == "main.rs" || source.is_test() {
        return Vec::new();
    }
    let modules: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    let importer = modules[0];
    let Some((_, allowed)) = table().find(|(module, _)| *module == importer) else {
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
            findings.push(Finding::new(&source.path, path.line, RULE, cure(importer, imported, &allowed)));
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

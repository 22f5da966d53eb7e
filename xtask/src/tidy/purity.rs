//! The middle of `mesh-node` decides without looking at the world.
//!
//! In:  a file of a pure module.
//! Out: a finding for each sign of I/O, time, chance, concurrency or logging.
//! Invariant: test code is free.

use super::Finding;
use super::source::{Kind, Source};

/// The modules that decide.
const PURE: &[&str] = &["model", "translate", "policy", "route", "compile", "snapshot", "world"];

/// Words that have no place there, and why.
const WORDS: &[(&str, &str)] = &[
    ("async", "deciding does not wait"),
    ("await", "deciding does not wait"),
    ("Instant", "take the time as an argument"),
    ("println", "return an Issue"),
    ("eprintln", "return an Issue"),
    ("Mutex", "take what you need as an argument, give what you made as the result"),
    ("RwLock", "take what you need as an argument, give what you made as the result"),
];

/// Beginnings of paths that have no place there, and why.
const PATHS: &[(&[&str], &str)] = &[
    (&["tokio"], "deciding does not wait"),
    (&["std", "fs"], "take what the file says as an argument"),
    (&["std", "env"], "take settings as an argument"),
    (&["std", "process"], "deciding starts nothing"),
    (&["std", "thread"], "deciding starts nothing"),
    (&["std", "io"], "deciding reads and writes nothing"),
    (&["std", "net", "TcpStream"], "deciding opens no sockets"),
    (&["std", "net", "TcpListener"], "deciding opens no sockets"),
    (&["std", "net", "UdpSocket"], "deciding opens no sockets"),
    (&["SystemTime", "now"], "take the time as an argument"),
    (&["std", "time", "SystemTime", "now"], "take the time as an argument"),
    (&["fastrand"], "leave choices to whoever acts"),
    (&["rand"], "leave choices to whoever acts"),
    (&["tracing"], "return an Issue"),
    (&["log"], "return an Issue"),
];

pub(super) fn findings(source: &Source) -> Vec<Finding> {
    let Some(file) = source.path.strip_prefix("mesh-node/src/") else { return Vec::new() };
    let module = file.trim_end_matches(".rs").split('/').next().unwrap_or_default();
    if !PURE.contains(&module) {
        return Vec::new();
    }
    let finding = |line, what: &str, why: &str| {
        Finding::new(&source.path, line, "purity", format!("`{what}` in `{module}`, which only decides: {why}"))
    };
    let mut findings = Vec::new();
    for token in source.tokens.iter().filter(|token| !token.test) {
        let Kind::Word(word) = &token.kind else { continue };
        if let Some((_, why)) = WORDS.iter().find(|(banned, _)| banned == word) {
            findings.push(finding(token.line, word, why));
        }
    }
    for path in source.paths().iter().filter(|path| !path.test) {
        let banned = PATHS.iter().find(|(banned, _)| {
            path.segments.len() >= banned.len()
                && banned.iter().zip(&path.segments).all(|(banned, segment)| banned == segment)
        });
        if let Some((_, why)) = banned {
            findings.push(finding(path.line, &path.segments.join("::"), why));
        }
    }
    findings
}

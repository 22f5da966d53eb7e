//! What a source file looks like: its head, its size, its names, and whether it may be unsafe.

use super::Finding;
use super::source::{Kind, Source};

/// More lines than this, tests not counted, is a finding.
const MOST_LINES: usize = 600;
/// More lines than this in `mesh-node/src/main.rs` is a finding.
const MOST_LINES_MAIN: usize = 60;

/// Where unsafe code may be.
const UNSAFE_HOMES: &[&str] = &["mesh-node/src/sys.rs", "mesh-node/src/sys/", "mesh-common/src/pod.rs", "mesh-ebpf/"];

/// The headings of which a module's head has at least one.
const HEADINGS: &[&str] = &["In:", "Out:", "Invariant:", "Source:"];

/// Words that name a thing by nothing it does, so that anything ends up in it.
const EMPTY_NAMES: &[&str] = &["manager", "handler", "helper", "helpers", "util", "utils"];

pub(super) fn findings(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line, rule, cure: String| findings.push(Finding::new(&source.path, line, rule, cure));
    if source.path.ends_with("/mod.rs") {
        find(1, "mod.rs", "name it after its directory and put it beside: `foo.rs` beside `foo/`".to_owned());
    }
    if let Some(cure) = head(source) {
        find(1, "head", cure);
    }
    let lines = source.lines_without_tests();
    let most = if source.path == "mesh-node/src/main.rs" { MOST_LINES_MAIN } else { MOST_LINES };
    if lines > most {
        find(most, "size", format!("{lines} lines without tests, {most} at most: split it by what its parts know"));
    }
    if !UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home)) {
        for token in source.tokens.iter().filter(|token| token.is("unsafe")) {
            find(token.line, "unsafe", format!("unsafe code lives in {} only", UNSAFE_HOMES.join(", ")));
        }
    }
    for (line, name) in empty_names(source) {
        find(line, "names", format!("`{name}` says nothing of what it does: name it by that"));
    }
    for (line, rule, cure) in dishonest_tests(source) {
        find(line, rule, cure.to_owned());
    }
    findings
}

/// Tests that pause instead of waiting, or that do not run.
fn dishonest_tests(source: &Source) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.test) {
        let after = |sign| source.tokens.get(at + 1).is_some_and(|next| next.is_sign(sign));
        let before = at.checked_sub(1).is_some_and(|before| source.tokens[before].is_sign('['));
        if token.is("sleep") && after('(') {
            found.push((token.line, "sleep", "wait for a condition, with a deadline"));
        }
        if token.is("ignore") && before {
            found.push((token.line, "ignore", "a test that does not run proves nothing: make it run, or take it out"));
        }
    }
    found
}

/// What is wrong with the comment that opens the file.
fn head(source: &Source) -> Option<String> {
    if source.is_test() && source.path.contains("/src/") {
        return None;
    }
    if source.head.trim_start_matches("//!").trim().is_empty() {
        return Some("begin with a `//!` comment: what it takes, what it gives, what always holds".to_owned());
    }
    let top_level = source.path.strip_prefix("mesh-node/src/").is_some_and(|file| !file.contains('/'));
    let exempt = source.path.ends_with("/lib.rs") || source.path.ends_with("/main.rs");
    (top_level && !exempt && !HEADINGS.iter().any(|heading| source.head.contains(heading)))
        .then(|| format!("the head of a module of the first level has at least one of {}", HEADINGS.join(" ")))
}

/// Declared names that say nothing.
fn empty_names(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for pair in source.tokens.windows(2) {
        let Kind::Word(name) = &pair[1].kind else { continue };
        let declares = |keywords: &[&str]| keywords.iter().any(|keyword| pair[0].is(keyword));
        let getter = declares(&["fn"]) && name.starts_with("get_");
        let empty = declares(&["struct", "enum", "trait", "mod", "type"])
            && words_of(name).iter().any(|word| EMPTY_NAMES.contains(&word.as_str()));
        if getter || empty {
            found.push((pair[1].line, name.clone()));
        }
    }
    found
}

/// The words of a name in either case style, in lower case.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for next in name.chars() {
        if next == '_' || next.is_uppercase() {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), next != '_') {
            word.extend(next.to_lowercase());
        }
    }
    words
}

/// Median, 95th percentile and maximum of the sizes of files, tests not counted.
pub(super) fn sizes(sources: &[Source]) -> String {
    let mut sizes: Vec<_> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.lines_without_tests(), source.path.as_str()))
        .collect();
    sizes.sort_unstable();
    let Some((largest, path)) = sizes.last() else { return "no source files".to_owned() };
    let at = |percent: usize| sizes[(sizes.len() - 1) * percent / 100].0;
    format!(
        "{} source files; lines without tests: median {} (aim 150), 95th percentile {} (aim 400), most {largest} in {path}",
        sizes.len(),
        at(50),
        at(95),
    )
}

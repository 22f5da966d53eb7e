//! Words that do not belong into a work tree that others read.

use super::{File, Finding};

/// A word, or part of a path, and what to do instead. Case matters where a capital is in it.
const WORDS: &[(&str, &str)] = &[
    ("TODO", "do it, or leave it out"),
    ("FIXME", "fix it"),
    ("XXX", "say what is wrong, or set it right"),
    ("todo!", "write it"),
    ("unimplemented!", "write it"),
    ("dbg!", "take it out"),
    ("/root/", "a path of one machine"),
    ("/home/", "a path of one machine"),
    ("github.com/projectcalico/calico/blob", "cite paths and symbols, never lines"),
];

/// Files that others wrote, or that hold these very words.
const EXEMPT: &[&str] = &["LICENSE", "Cargo.lock", "xtask/src/tidy/words.rs", "xtask/src/tidy/tests.rs", "go.sum"];

pub(super) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !EXEMPT.iter().any(|exempt| file.path.ends_with(exempt))) {
        let Some(text) = &file.text else { continue };
        for (index, line) in text.lines().enumerate() {
            for (word, cure) in WORDS.iter().filter(|(word, _)| contains(line, word)) {
                findings.push(Finding::new(&file.path, index + 1, "words", format!("`{word}`: {cure}")));
            }
        }
    }
    findings
}

/// Does `line` contain `word`, not as part of a longer one?
fn contains(line: &str, word: &str) -> bool {
    let part_of_word = |next: Option<char>| next.is_some_and(|next| next.is_alphanumeric() || next == '_');
    let open_start = word.starts_with(|first: char| !first.is_alphanumeric());
    let open_end = word.ends_with(|last: char| !last.is_alphanumeric());
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        (open_start || !part_of_word(before)) && (open_end || !part_of_word(after))
    })
}

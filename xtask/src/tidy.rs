//! Checks what the compiler cannot: who may import whom, what a module says of itself, sizes, purity.
//!
//! In:  the files of the work tree that Git knows or would add.
//! Out: findings, each with file, line, rule and cure; none means success.
//! Invariant: a rule is a pure function of [`Source`]s, and has tests that show it failing.

mod layers;
mod purity;
mod shape;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod words;

use crate::{env, run};
use anyhow::{Context, Result, bail};
use source::Source;
use std::fmt;
use std::process::Command;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    /// What is wrong and what to do about it.
    cure: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, cure: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, cure: cure.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}: {}", self.path, self.line, self.rule, self.cure)
    }
}

/// A file of the work tree.
struct File {
    path: String,
    bytes: u64,
    /// `None` if it is no text.
    text: Option<String>,
}

/// `cargo xtask tidy`.
///
/// **Errors**: there are findings, or Git cannot list the files.
pub(crate) fn run() -> Result<()> {
    let files = files()?;
    let sources: Vec<Source> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .filter_map(|file| Some(Source::parse(&file.path, file.text.as_deref()?)))
        .collect();
    let mut findings = tree::findings(&files);
    findings.extend(words::findings(&files));
    findings.extend(sources.iter().flat_map(check));
    findings.sort();
    // One line may break a rule twice in the same way.
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {}", shape::sizes(&sources));
    if !findings.is_empty() {
        bail!("tidy has {} finding(s)", findings.len());
    }
    Ok(())
}

/// Every rule that looks at one source file.
fn check(source: &Source) -> Vec<Finding> {
    let mut findings = layers::findings(source);
    findings.extend(purity::findings(source));
    findings.extend(shape::findings(source));
    findings
}

/// Every file that Git knows or would add.
fn files() -> Result<Vec<File>> {
    let root = env::root();
    let list = run::output(
        Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&root),
    )
    .context("tidy asks Git which files there are: run it in a clone")?;
    let mut files = Vec::new();
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        let on_disk = root.join(path);
        // A file that was deleted and not yet committed is listed as well.
        let Ok(metadata) = std::fs::symlink_metadata(&on_disk) else { continue };
        let text = std::fs::read(&on_disk).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        files.push(File { path: path.to_owned(), bytes: metadata.len(), text });
    }
    Ok(files)
}

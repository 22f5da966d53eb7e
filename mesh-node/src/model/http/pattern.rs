//! What texts of a request are compared with.
//!
//! Out: [`TextMatch`], [`PathMatch`] and the matches of headers and parameters.
//! Invariant: a pattern was compiled when the object was read, so that none fails while a request waits.
//! Source: Gateway API `HTTPPathMatch`, `HTTPHeaderMatch`; Istio `StringMatch`; RE2's syntax, which `regex` has.

use http::HeaderName;
use std::fmt;

/// The largest program that a regular expression may become, in bytes.
const LARGEST: usize = 256 * 1024;

/// A regular expression, which must match the whole text.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    whole: regex::Regex,
    part: regex::Regex,
}

/// A text that is no regular expression, or one that is too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no regular expression that can be used: {problem}")]
pub struct PatternError {
    text: String,
    problem: String,
}

impl Pattern {
    /// The regular expression that `text` is.
    ///
    /// **Errors**: it is none, or its program would be too large.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let build = |text: &str| regex::RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(LARGEST).build();
        let error = |error: regex::Error| {
            let problem = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            PatternError { text: text.to_owned(), problem }
        };
        // Compiled alone first: a text such as `a)(b` must not become whole by what is put around it.
        let part = build(text).map_err(error)?;
        let whole = build(&format!("^(?:{text})$")).map_err(error)?;
        Ok(Self { text: text.to_owned(), whole, part })
    }

    /// Does it match the whole of `text`?
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }

    /// `text` with each place that matches replaced by `substitution`, in which `\1` is the first group.
    #[must_use]
    pub fn replace(&self, text: &str, substitution: &str) -> String {
        self.part
            .replace_all(text, |found: &regex::Captures<'_>| {
                let mut out = String::new();
                let mut letters = substitution.chars().peekable();
                while let Some(letter) = letters.next() {
                    match (letter, letters.peek().and_then(|next| next.to_digit(10))) {
                        ('\\', Some(group)) => {
                            letters.next();
                            let group = usize::try_from(group).ok().and_then(|group| found.get(group));
                            out.push_str(group.map_or("", |group| group.as_str()));
                        }
                        _ => out.push(letter),
                    }
                }
                out
            })
            .into_owned()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a text is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// The same text.
    Exact(String),
    /// A text that begins so.
    Prefix(String),
    /// A text that matches as a whole.
    Regex(Pattern),
    /// Any text: that there is one is enough.
    Present,
    /// None: it cannot be met, and what it was meant for is refused.
    Never,
}

/// What a path is compared with, without its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathMatch {
    /// The comparison.
    pub kind: PathKind,
    /// Do capital and small letters count as the same? For exact and prefix matches only.
    pub ignore_case: bool,
}

/// How a path is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathKind {
    /// Every path.
    #[default]
    Any,
    /// The same path.
    Exact(String),
    /// A path that begins with these elements: `/abc` covers `/abc` and `/abc/d`, not `/abcd`. Without a slash at the
    /// end, but for `/` itself. Gateway API's `PathPrefix`.
    Elements(String),
    /// A path that begins with this text. Istio's `prefix`.
    Prefix(String),
    /// A path that matches as a whole.
    Regex(Pattern),
}

/// A header that must match: any of its values, joined by commas as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// What its value is compared with.
    pub value: TextMatch,
}

/// A parameter of the query that must match: the first of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name, compared as it stands.
    pub name: String,
    /// What its value is compared with.
    pub value: TextMatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_the_whole_text() {
        let pattern = Pattern::new("a|bc").expect("a pattern");
        assert_eq!(["a", "bc", "ab", "xa", ""].map(|text| pattern.matches(text)), [true, true, false, false, false]);
    }

    #[test]
    fn groups_are_put_where_the_substitution_names_them() {
        let pattern = Pattern::new("^/service/([^/]+)(/.*)$").expect("a pattern");
        assert_eq!(pattern.replace("/service/foo/v1/api", r"\2/instance/\1"), "/v1/api/instance/foo");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["(", "a)(b", r"\k", "(?:a{1000}){1000}"] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
    }
}

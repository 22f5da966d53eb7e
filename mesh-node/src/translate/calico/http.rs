//! What a rule says of requests.
//!
//! In:  `http` of a rule.
//! Out: tests of methods and paths; that HTTP is spoken, where neither is named.
//! Source: Calico `HTTPMatch`; how its 3.32 compares paths: decoded once, without parameters, dots and doubled slashes, and prefixes
//! by whole elements. A slash at the end does not count. What is escaped twice, or badly, meets no rule. Here a path must be allowed as
//! it was sent, too.

use crate::model::policy::{Atom, Test, Text, Texts, segments, unescaped, without_parameters};
use crate::translate::draft::atom;
use crate::translate::read::Place;

/// The tests that must all be met.
pub(super) fn tests(place: &Place<'_>) -> Vec<Atom> {
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let methods = atom(&fields.take("methods"), methods);
    let paths = atom(&fields.take("paths"), paths);
    let plain = paths.iter().any(|paths| matches!(paths.test, Test::Path(_))).then(|| Atom::is(Test::PathIsPlain));
    let tests: Vec<Atom> = methods.into_iter().chain(paths).chain(plain).collect();
    if tests.is_empty() { vec![Atom::is(Test::Http)] } else { tests }
}

fn methods(list: &Place<'_>) -> Option<Test> {
    let methods = list.texts();
    if methods.contains(&"*") {
        return Some(Test::Http);
    }
    let is_any_method = methods.is_empty();
    let texts = methods.into_iter().map(|method| Text::Exact(method.into())).collect();
    (!is_any_method).then_some(Test::Method(texts))
}

fn paths(list: &Place<'_>) -> Option<Test> {
    let items = list.items();
    let texts: Texts = items.iter().flat_map(path).collect();
    (!items.is_empty()).then_some(Test::Path(texts))
}

/// What one path is like: as it was written and as it is compared.
fn path(place: &Place<'_>) -> Vec<Text> {
    const CURE: &str = "write a path such as /a/b, without a query";
    let Some(mut fields) = place.fields() else { return Vec::new() };
    let (exact, prefix) = (fields.take("exact"), fields.take("prefix"));
    if exact.is_there() == prefix.is_there() {
        place.refuse("it must have either `exact` or `prefix`", "give one of them");
    }
    let mut texts = Vec::new();
    for path in exact.parse(CURE, readings).unwrap_or_default() {
        let folder = format!("{}/", path.trim_end_matches('/'));
        texts.extend([Text::Exact(path.into()), Text::Exact(folder.into())]);
    }
    let prefixes = prefix.parse(CURE, readings).unwrap_or_default();
    texts.extend(prefixes.into_iter().map(|path| Text::Elements(path.into())));
    texts
}

/// The path without a slash at its end, as it was written, and as it is compared if that is another.
fn readings(text: &str) -> Result<Vec<String>, String> {
    let refused = |problem: &str| Err(format!("`{text}` {problem}"));
    if !text.starts_with('/') {
        return refused("does not begin with a slash");
    }
    if text.contains(['?', '#', ' ']) {
        return refused("has a query, a fragment or a blank");
    }
    let decoded = unescaped(text).ok_or_else(|| format!("`{text}` is not escaped well and once"))?;
    let compared = format!("/{}", segments(&decoded, without_parameters).join("/"));
    let written = text.trim_end_matches('/');
    let written = if written.is_empty() { "/".to_owned() } else { written.to_owned() };
    Ok(if written == compared { vec![compared] } else { vec![written, compared] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_compared_as_calico_does() {
        for (path, expected) in [
            ("/", &["/"][..]),
            ("/ok", &["/ok"]),
            ("/api/", &["/api"]),
            ("/a%20b/", &["/a%20b", "/a b"]),
            ("/a//b/./c", &["/a//b/./c", "/a/b/c"]),
            ("/a/..;x/b", &["/a/..;x/b", "/b"]),
            ("/a\\b", &["/a\\b", "/a/b"]),
        ] {
            assert_eq!(readings(path).expect(path), expected, "{path}");
        }
        for path in ["", "ok", "/a?b", "/a#b", "/a b", "/%zz", "/%2", "/%252e", "/%00", "/%ff"] {
            assert!(readings(path).is_err(), "{path}");
        }
    }
}

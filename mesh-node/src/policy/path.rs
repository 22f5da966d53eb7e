//! The readings of a request's path and authority, of which nobody can say which one the application takes.
//!
//! In:  a path or an authority as it was sent.
//! Out: [`Readings`]: as it stands, and as an application may understand it.
//! Invariant: what is written in the usual way costs no memory.
//! Source: RFC 3986, sections 2.1 and 5.2.4; Istio `pathNormalization`, of which `DECODE_AND_MERGE_SLASHES` is the second reading.

use crate::model::policy::{segments, unescaped, without_parameters};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// A text as it stands, and as it may be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings<'a> {
    written: Cow<'a, str>,
    /// `None` if it is the same.
    understood: Option<Cow<'a, str>>,
    /// Without the parameters of its segments; `None` if there are none.
    bare: Option<String>,
}

impl<'a> Readings<'a> {
    /// Of a path without its query.
    #[must_use]
    pub fn of_path(path: &'a str) -> Self {
        let has_parameters = path.contains(';') || path.contains("%3b") || path.contains("%3B");
        Self {
            written: path.into(),
            understood: is_unusual(path).then(|| normalized(path, |segment| segment).into()),
            bare: has_parameters.then(|| normalized(path, without_parameters)),
        }
    }

    /// Of an authority: in small letters, with its port and without.
    #[must_use]
    pub fn of_authority(authority: &'a str) -> Self {
        let is_small = !authority.bytes().any(|byte| byte.is_ascii_uppercase());
        let written: Cow<'a, str> = if is_small { authority.into() } else { authority.to_ascii_lowercase().into() };
        let host = host(&written).len();
        let understood = (host < written.len()).then(|| match &written {
            Cow::Borrowed(text) => text[..host].into(),
            Cow::Owned(text) => text[..host].to_owned().into(),
        });
        Self { written, understood, bare: None }
    }

    /// As it stands.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Is what was written escaped well and once?
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.written.contains(['%', '\0']) || unescaped(&self.written).is_some()
    }

    /// Is one of them so?
    pub fn any(&self, mut is_so: impl FnMut(&str) -> bool) -> bool {
        is_so(&self.written)
            || self.understood.as_ref().is_some_and(|text| is_so(text))
            || self.bare.as_ref().is_some_and(|text| is_so(text))
    }

    /// Are all of them so?
    pub fn all(&self, mut is_so: impl FnMut(&str) -> bool) -> bool {
        is_so(&self.written)
            && self.understood.as_ref().is_none_or(|text| is_so(text))
            && self.bare.as_ref().is_none_or(|text| is_so(text))
    }
}

/// The part of an authority before the port.
#[must_use]
pub fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        Some(_) | None => authority,
    }
}

/// May an application understand another path than what stands there?
fn is_unusual(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        || bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.")
        || !path.starts_with('/')
}

/// Decoded, with `\` as `/`, without `.`, `..` and doubled slashes. It is decoded once: what becomes `%` by that stays.
fn normalized(path: &str, read: impl Fn(&str) -> &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let kept = segments(&decoded, &read);
    let mut path = String::with_capacity(decoded.len() + 1);
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    let last = decoded.rsplit(['/', '\\']).next().map_or("", read);
    if kept.is_empty() || matches!(last, "" | "." | "..") {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(readings: &Readings<'_>) -> Vec<String> {
        let mut seen = Vec::new();
        readings.all(|text| {
            seen.push(text.to_owned());
            true
        });
        seen
    }

    #[test]
    fn a_path_is_read_as_it_stands_and_as_it_may_be_understood() {
        for (path, expected) in [
            ("/", &["/"][..]),
            ("/a/b.html", &["/a/b.html"]),
            ("/a/", &["/a/"]),
            ("/a//b", &["/a//b", "/a/b"]),
            ("//", &["//", "/"]),
            ("/a/./b/../c", &["/a/./b/../c", "/a/c"]),
            ("/a/..", &["/a/..", "/"]),
            ("/../../a", &["/../../a", "/a"]),
            ("/a/b/.", &["/a/b/.", "/a/b/"]),
            ("/.hidden", &["/.hidden", "/.hidden"]),
            ("/a%2fb", &["/a%2fb", "/a/b"]),
            ("/%61dmin", &["/%61dmin", "/admin"]),
            ("/x/%2e%2E/admin", &["/x/%2e%2E/admin", "/admin"]),
            ("/x%5c..%5cadmin", &["/x%5c..%5cadmin", "/admin"]),
            ("/a\\b", &["/a\\b", "/a/b"]),
            ("/%2561", &["/%2561", "/%61"]),
            ("/100%", &["/100%", "/100%"]),
            ("/%zz", &["/%zz", "/%zz"]),
            ("/%ff", &["/%ff", "/\u{fffd}"]),
            ("*", &["*", "/*"]),
            ("/a;b=c/d", &["/a;b=c/d", "/a/d"]),
            ("/public/..;x/admin", &["/public/..;x/admin", "/public/..;x/admin", "/admin"]),
            ("/public/..%3bx/admin", &["/public/..%3bx/admin", "/public/..;x/admin", "/admin"]),
        ] {
            assert_eq!(all(&Readings::of_path(path)), expected, "{path}");
        }
    }

    #[test]
    fn an_authority_is_read_in_small_letters_with_its_port_and_without() {
        for (authority, expected) in [
            ("shop", &["shop"][..]),
            ("Shop.Example:80", &["shop.example:80", "shop.example"]),
            ("shop:80", &["shop:80", "shop"]),
            ("[fd00::1]", &["[fd00::1]"]),
            ("[fd00::1]:80", &["[fd00::1]:80", "[fd00::1]"]),
            ("shop:", &["shop:", "shop"]),
        ] {
            assert_eq!(all(&Readings::of_authority(authority)), expected, "{authority}");
        }
    }

    #[test]
    fn usual_texts_cost_no_memory() {
        assert!(matches!(Readings::of_path("/a/b").written, Cow::Borrowed(_)));
        let readings = Readings::of_authority("shop:80");
        assert!(matches!((readings.written, readings.understood), (Cow::Borrowed(_), Some(Cow::Borrowed(_)))));
    }
}

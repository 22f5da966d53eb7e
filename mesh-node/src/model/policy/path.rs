//! Paths of requests, as they are compared.
//!
//! Out: [`segments`], [`unescaped`].
//! Source: RFC 3986, section 5.2.4; Calico 3.32, which meets no rule by a path that is not escaped well and once.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The segments of a path that was decoded, each as `read` reads it: without `.`, `..`, and what is empty. `\` separates as `/` does.
pub fn segments<'p>(decoded: &'p str, read: impl Fn(&'p str) -> &'p str) -> Vec<&'p str> {
    let mut kept = Vec::new();
    for segment in decoded.split(['/', '\\']).map(read) {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    kept
}

/// The path with what is escaped in it as it is meant; `None` if that is no text, or if servers differ in what they make of it: those
/// that decode twice would find another `.`, `/` or `\`, or it ends early.
#[must_use]
pub fn unescaped(path: &str) -> Option<Cow<'_, str>> {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !path.split('%').skip(1).all(is_escape) {
        return None;
    }
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let lower = decoded.to_ascii_lowercase();
    let is_plain = !decoded.contains('\0') && !["%2e", "%2f", "%5c"].iter().any(|twice| lower.contains(twice));
    is_plain.then_some(decoded)
}

/// A segment up to its parameters, as in `a;b=c` (RFC 3986, section 3.3), which some servers leave out before they look for `..`.
#[must_use]
pub fn without_parameters(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(segment, _)| segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_escaped_well_and_once() {
        for (path, expected) in [
            ("/a/b", Some("/a/b")),
            ("/a%20b", Some("/a b")),
            ("/%2e%2e/a", Some("/../a")),
            ("/%2561", Some("/%61")),
            ("/%252e%252E/a", None),
            ("/a%252fb", None),
            ("/a%25%35cb", None),
            ("/a%00", None),
            ("/100%", None),
            ("/%zz", None),
            ("/%ff", None),
        ] {
            assert_eq!(unescaped(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_path_is_its_segments_however_they_are_written() {
        for (path, all, bare) in [
            ("", &[][..], &[][..]),
            ("//", &[], &[]),
            ("/a/./b/../c/", &["a", "c"], &["a", "c"]),
            ("/../a\\b", &["a", "b"], &["a", "b"]),
            ("/a;x/..;y/b", &["a;x", "..;y", "b"], &["b"]),
        ] {
            assert_eq!(segments(path, |segment| segment), all, "{path}");
            assert_eq!(segments(path, without_parameters), bare, "{path}");
        }
    }
}

//! Paths of requests, as they are compared.
//!
//! Out: [`segments`].
//! Source: RFC 3986, section 5.2.4.

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

/// A segment up to its parameters, as in `a;b=c` (RFC 3986, section 3.3), which some servers leave out before they look for `..`.
#[must_use]
pub fn without_parameters(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(segment, _)| segment)
}

#[cfg(test)]
mod tests {
    use super::*;

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

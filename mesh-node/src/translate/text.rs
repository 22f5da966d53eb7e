//! Texts that both APIs have: headers, patterns, host names.
//!
//! In:  texts as written.
//! Out: values of the model, or what is wrong with the text.
//! Source: RFC 9110, "Field Names"; RFC 1123 for host names.

use crate::model::http::{PathMatch, Pattern, TextMatch};
use http::{HeaderName, HeaderValue};

/// The header of this name.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no name of a header"))
}

/// A header's value.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("`{text}` is no value of a header"))
}

/// A pattern.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| error.to_string())
}

/// A comparison with a pattern; those that match everything need none.
pub(super) fn regex(text: &str) -> Result<TextMatch, String> {
    if text == ".*" { Ok(TextMatch::Present) } else { pattern(text).map(TextMatch::Regex) }
}

/// Is `text` a host name, perhaps with a leading `*.`, or `*` itself?
pub(super) fn is_host(text: &str) -> bool {
    let rest = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text == "*" || (text.len() <= 253 && rest.trim_end_matches('.').split('.').all(is_label))
}

/// Paths that begin with these elements.
pub(super) fn elements(text: &str) -> Result<String, String> {
    absolute(text)?;
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// A path that begins with a slash.
pub(super) fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("`{text}` does not begin with a slash")) }
}

/// A match of paths that tells capital from small letters.
pub(super) fn path(kind: crate::model::http::PathKind) -> PathMatch {
    PathMatch { kind, ignore_case: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_have_labels_and_at_most_one_leading_star() {
        for text in ["*", "*.com", "a", "a.b-c.d", "a_b.c", "a.b."] {
            assert!(is_host(text), "{text}");
        }
        for text in ["", "*a.b", "a.*", "a..b", "a b", "*.*", "a/b", "a:80"] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn elements_have_no_slash_at_their_end() {
        assert_eq!(elements("/"), Ok("/".to_owned()));
        assert_eq!(elements("/abc/"), Ok("/abc".to_owned()));
        assert!(elements("abc").is_err());
    }
}

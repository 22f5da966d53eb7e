//! Does a request meet a condition?
//!
//! In:  what a client asked for, and a [`RequestMatch`].
//! Out: yes or no, and how much of the path the condition covered.
//! Invariant: pure, and linear in the request's size.
//! Source: Gateway API `HTTPRouteMatch`; Istio `HTTPMatchRequest`.

use crate::model::http::{HeaderMatch, PathKind, PathMatch, QueryMatch, RequestMatch, TextMatch};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, request};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The scheme.
    pub scheme: &'a str,
    /// The authority, without port.
    pub host: &'a str,
    /// The path, without query.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    /// What the request with this head asks for, which is for `authority`.
    #[must_use]
    pub fn of(head: &'a request::Parts, authority: &'a Authority, scheme: &'a str) -> Self {
        Self {
            method: &head.method,
            scheme,
            host: authority.host(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
        }
    }
}

/// Does the request meet the whole condition?
#[must_use]
pub fn meets(asked: &Asked<'_>, condition: &RequestMatch) -> bool {
    let text = |condition: &Option<TextMatch>, text: &str| condition.as_ref().is_none_or(|c| is_like(text, c));
    covers(&condition.path, asked.path)
        && text(&condition.method, asked.method.as_str())
        && text(&condition.scheme, asked.scheme)
        && text(&condition.authority, asked.host)
        && condition.headers.iter().all(|header| has(asked.headers, header))
        && !condition.without_headers.iter().any(|header| has(asked.headers, header))
        && condition.query.iter().all(|parameter| asks(asked.query, parameter))
}

/// How many bytes of `path` the condition covers: all of it, or the prefix. 0 if it names no part.
#[must_use]
pub fn covered(condition: &PathMatch, path: &str) -> usize {
    match &condition.kind {
        PathKind::Any => 0,
        PathKind::Exact(_) | PathKind::Regex(_) => path.len(),
        // `/` is the beginning of every path, and the slash belongs to the rest.
        PathKind::Elements(prefix) if prefix == "/" => 0,
        PathKind::Elements(prefix) | PathKind::Prefix(prefix) => prefix.len().min(path.len()),
    }
}

fn covers(condition: &PathMatch, path: &str) -> bool {
    let begins = |prefix: &str| {
        let start = path.as_bytes().get(..prefix.len());
        start.is_some_and(|start| {
            if condition.ignore_case {
                start.eq_ignore_ascii_case(prefix.as_bytes())
            } else {
                start == prefix.as_bytes()
            }
        })
    };
    match &condition.kind {
        PathKind::Any => true,
        PathKind::Exact(text) => path.len() == text.len() && begins(text),
        PathKind::Elements(prefix) => {
            prefix == "/" || (begins(prefix) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/')))
        }
        PathKind::Prefix(prefix) => begins(prefix),
        PathKind::Regex(pattern) => pattern.matches(path),
    }
}

/// Is `text` like this?
#[must_use]
pub fn is_like(text: &str, condition: &TextMatch) -> bool {
    match condition {
        TextMatch::Exact(exact) => text == exact,
        TextMatch::Prefix(prefix) => text.starts_with(prefix.as_str()),
        TextMatch::Regex(pattern) => pattern.matches(text),
        TextMatch::Present => true,
        TextMatch::Never => false,
    }
}

fn has(headers: &HeaderMap, condition: &HeaderMatch) -> bool {
    joined(headers, &condition.name).is_some_and(|value| is_like(&value, &condition.value))
}

/// A header's values as one, joined by commas; `None` if it is absent or no text.
#[must_use]
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().map(|value| value.to_str().ok());
    let first = values.next()??;
    let mut all = Cow::Borrowed(first);
    for value in values {
        let all = all.to_mut();
        all.push(',');
        all.push_str(value?);
    }
    Some(all)
}

fn asks(query: &str, condition: &QueryMatch) -> bool {
    parameter(query, &condition.name).is_some_and(|value| is_like(&value, &condition.value))
}

/// The first value of a parameter, decoded.
///
/// **Source**: the URL standard, "application/x-www-form-urlencoded parsing".
#[must_use]
pub fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::http::Pattern;
    use http::HeaderValue;

    fn path(kind: PathKind) -> RequestMatch {
        RequestMatch { path: PathMatch { kind, ignore_case: false }, ..RequestMatch::default() }
    }

    fn asked<'a>(path: &'a str, query: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
        Asked { method: &Method::GET, scheme: "http", host: "reviews", path, query, headers }
    }

    #[test]
    fn paths_are_compared_as_their_api_says() {
        let pattern = |text| PathKind::Regex(Pattern::new(text).expect("a pattern"));
        let none = HeaderMap::new();
        for (kind, yes, no) in [
            (PathKind::Any, vec!["/", "/a", "*"], vec![]),
            (PathKind::Exact("/a".into()), vec!["/a"], vec!["/", "/a/", "/ab", "/A"]),
            (PathKind::Elements("/".into()), vec!["/", "/a"], vec![]),
            (PathKind::Elements("/a".into()), vec!["/a", "/a/", "/a/b"], vec!["/", "/ab", "/b/a"]),
            (PathKind::Prefix("/a".into()), vec!["/a", "/ab", "/a/b"], vec!["/", "/A"]),
            (pattern("/v[0-9]+"), vec!["/v1", "/v22"], vec!["/v", "/v1/x"]),
        ] {
            let condition = path(kind.clone());
            for path in yes {
                assert!(meets(&asked(path, "", &none), &condition), "{kind:?} {path}");
            }
            for path in no {
                assert!(!meets(&asked(path, "", &none), &condition), "{kind:?} {path}");
            }
        }
        let either = PathMatch { kind: PathKind::Elements("/Abc".into()), ignore_case: true };
        assert!(covers(&either, "/aBC/d") && !covers(&either, "/aBCd"));
    }

    #[test]
    fn every_condition_must_be_met() {
        let mut headers = HeaderMap::new();
        headers.append("version", HeaderValue::from_static("one"));
        headers.append("version", HeaderValue::from_static("two"));
        headers.append("bytes", HeaderValue::from_bytes(b"\xff").expect("a value"));
        let header = |name, value| HeaderMatch { name: HeaderName::from_static(name), value };
        let request = asked("/", "animal=whale&animal=dog&hue=dark%20blue+", &headers);
        let with = |headers| RequestMatch { headers, ..RequestMatch::default() };
        let exact = |text: &str| TextMatch::Exact(text.into());
        assert!(meets(
            &request,
            &with(vec![header("version", exact("one,two")), header("version", TextMatch::Present)])
        ));
        assert!(!meets(&request, &with(vec![header("version", exact("one"))])));
        assert!(!meets(&request, &with(vec![header("bytes", TextMatch::Present)])));
        assert!(!meets(&request, &with(vec![header("version", TextMatch::Never)])));
        let without =
            RequestMatch { without_headers: vec![header("version", exact("one"))], ..RequestMatch::default() };
        assert!(meets(&request, &without));
        let query = |name: &str, value| QueryMatch { name: name.into(), value };
        let with = |query| RequestMatch { query, ..RequestMatch::default() };
        assert!(meets(&request, &with(vec![query("animal", exact("whale")), query("hue", exact("dark blue "))])));
        assert!(!meets(&request, &with(vec![query("animal", exact("dog"))])));
        assert!(!meets(&request, &with(vec![query("other", TextMatch::Present)])));
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(["%41", "%4", "%zz", "%", "a+b", "%+f"].map(decoded), ["A", "%4", "%zz", "%", "a b", "% f"]);
    }
}

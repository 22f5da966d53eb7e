//! What a request becomes on its way, and where a redirect leads.
//!
//! In:  a rule's changes; the request as it came.
//! Out: changed headers, paths, addresses of redirects.
//! Invariant: pure. A result that would be no valid path or header leaves what was there.
//! Source: Gateway API `HTTPHeaderFilter`, `HTTPPathModifier`, `HTTPRequestRedirectFilter`; Istio `HTTPRewrite`,
//! `HTTPRedirect`, `Headers`.

use super::matching::{Asked, covered};
use crate::model::http::{HeaderChanges, HttpFilters, PathMatch, PathRewrite, Redirect, RedirectPort};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request;
use http::uri::{Authority, PathAndQuery};
use std::net::IpAddr;

/// Who asked, as the hops on the way say it.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Tells the server who asked, and by which scheme: whoever is outside may say what it likes of that.
pub fn forwarded(headers: &mut HeaderMap, client: IpAddr, scheme: &'static str) {
    let client = client.to_string();
    let before: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let chain = if before.is_empty() { client } else { format!("{}, {client}", before.join(", ")) };
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

/// Changes a request that met `condition`, as the filters of its rule say: its path, what it is for, its headers.
pub fn rewrite(
    (head, authority): (&mut request::Parts, &mut Authority),
    scheme: &str,
    condition: &PathMatch,
    filters: &HttpFilters,
) {
    let asked = Asked::of(head, authority, scheme);
    let path = filters.rewrite.path.as_ref().and_then(|rewrite| path(&asked, condition, rewrite));
    if let Some(path) = path {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.path_and_query = Some(path);
        // The other parts were those of a valid address.
        head.uri = http::Uri::from_parts(parts).unwrap_or_default();
    }
    if let Some(other) = &filters.rewrite.authority
        && let Ok(other) = Authority::try_from(other.as_bytes())
    {
        *authority = other;
    }
    change(&mut head.headers, &filters.request_headers);
    // A `Host` that a rule set is what the request is for from here on.
    let host = head.headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let sets_host = filters.request_headers.set.iter().any(|(name, _)| name == header::HOST);
    if let Some(host) = host.filter(|_| sets_host) {
        *authority = host;
    }
}

/// Changes headers.
pub fn change(headers: &mut HeaderMap, changes: &HeaderChanges) {
    for (name, value) in &changes.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &changes.add {
        headers.append(name, value.clone());
    }
    for name in &changes.remove {
        headers.remove(name);
    }
}

/// The path, with its query, that a request for `asked` goes on with.
///
/// **Errors**: `None` if what would come out is no path.
#[must_use]
pub fn path(asked: &Asked<'_>, condition: &PathMatch, rewrite: &PathRewrite) -> Option<PathAndQuery> {
    let path = rewritten(asked.path, condition, rewrite);
    let text = if asked.query.is_empty() { path } else { format!("{path}?{}", asked.query) };
    text.parse().ok()
}

fn rewritten(path: &str, condition: &PathMatch, rewrite: &PathRewrite) -> String {
    let rest = path.get(covered(condition, path)..).unwrap_or_default();
    match rewrite {
        PathRewrite::Full(path) => path.clone(),
        PathRewrite::RawPrefix(prefix) => format!("{prefix}{rest}"),
        PathRewrite::Prefix(prefix) => {
            let (prefix, rest) = (prefix.trim_end_matches('/'), rest.trim_start_matches('/'));
            match (prefix, rest) {
                ("", "") => "/".to_owned(),
                // A path that was covered whole gets no slash at its end that it did not have.
                (prefix, "") if !path.ends_with('/') || path == "/" => prefix.to_owned(),
                (prefix, rest) => format!("{prefix}/{rest}"),
            }
        }
        PathRewrite::Regex { pattern, substitution } => pattern.replace(path, substitution),
    }
}

/// Where a request came to: what a redirect keeps unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The port that was dialled.
    pub listener: u16,
    /// The port in the request's authority, if there is one.
    pub authority: Option<u16>,
}

/// The address that a redirect leads to.
#[must_use]
pub fn location(asked: &Asked<'_>, condition: &PathMatch, redirect: &Redirect, arrived: Arrived) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(asked.scheme);
    let host = redirect.host.as_deref().unwrap_or(asked.host);
    let implied = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let port = match redirect.port {
        RedirectPort::Port(port) => Some(port),
        RedirectPort::Request => arrived.authority,
        RedirectPort::Implied => None,
        RedirectPort::Derived if redirect.scheme.is_some() && implied.is_some() => implied,
        RedirectPort::Derived => Some(arrived.listener),
    };
    let path = redirect.path.as_ref().map_or_else(|| asked.path.to_owned(), |to| rewritten(asked.path, condition, to));
    let mut location = format!("{scheme}://{host}");
    if let Some(port) = port.filter(|&port| Some(port) != implied) {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if !asked.query.is_empty() {
        location.push('?');
        location.push_str(asked.query);
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::http::{PathKind, Pattern};
    use http::{Method, StatusCode};

    fn asked<'a>(path: &'a str, query: &'a str, headers: &'a HeaderMap) -> Asked<'a> {
        Asked { method: &Method::GET, scheme: "http", host: "example.org", path, query, headers }
    }

    fn elements(prefix: &str) -> PathMatch {
        PathMatch { kind: PathKind::Elements(prefix.into()), ignore_case: false }
    }

    /// The table of the Gateway API's `ReplacePrefixMatch`.
    #[test]
    fn a_prefix_of_elements_is_replaced_with_one_slash_after_it() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/", "/", "/xyz", "/xyz"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
        ] {
            let rewrite = PathRewrite::Prefix(replacement.into());
            assert_eq!(rewritten(path, &elements(prefix), &rewrite), expected, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn paths_keep_their_query() {
        let none = HeaderMap::new();
        let raw = PathMatch { kind: PathKind::Prefix("/ratings".into()), ignore_case: false };
        let to = |rewrite| path(&asked("/ratings/1", "a=b", &none), &raw, &rewrite).map(|path| path.to_string());
        assert_eq!(to(PathRewrite::RawPrefix("/v1/x".into())), Some("/v1/x/1?a=b".into()));
        assert_eq!(to(PathRewrite::Full("/all".into())), Some("/all?a=b".into()));
        let pattern = Pattern::new("^/ratings/(.*)$").expect("a pattern");
        assert_eq!(to(PathRewrite::Regex { pattern, substitution: r"/\1/r".into() }), Some("/1/r?a=b".into()));
        assert_eq!(to(PathRewrite::Full("no path".into())), None);
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let none = HeaderMap::new();
        let plain =
            Redirect { scheme: None, host: None, port: RedirectPort::Derived, path: None, status: StatusCode::FOUND };
        let at = |redirect: Redirect, listener| {
            let arrived = Arrived { listener, authority: Some(8081) };
            location(&asked("/a/b", "q", &none), &elements("/a"), &redirect, arrived)
        };
        assert_eq!(at(plain.clone(), 80), "http://example.org/a/b?q");
        assert_eq!(at(plain.clone(), 8080), "http://example.org:8080/a/b?q");
        let https = Redirect { scheme: Some("https".into()), ..plain.clone() };
        assert_eq!(at(https.clone(), 8080), "https://example.org/a/b?q");
        let port = Redirect { port: RedirectPort::Port(443), ..https };
        assert_eq!(at(port, 80), "https://example.org/a/b?q");
        let odd = Redirect { port: RedirectPort::Port(8443), host: Some("other".into()), ..plain.clone() };
        assert_eq!(at(odd, 80), "http://other:8443/a/b?q");
        let request = Redirect { port: RedirectPort::Request, ..plain.clone() };
        assert_eq!(at(request, 80), "http://example.org:8081/a/b?q");
        let prefix = Redirect { path: Some(PathRewrite::Prefix("/x".into())), ..plain };
        assert_eq!(at(prefix, 80), "http://example.org/x/b?q");
    }

    #[test]
    fn headers_are_set_then_added_then_removed() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        let mut headers = HeaderMap::new();
        headers.append(name("set"), value("a"));
        headers.append(name("set"), value("b"));
        headers.append(name("add"), value("a"));
        headers.append(name("gone"), value("a"));
        let changes = HeaderChanges {
            set: vec![(name("set"), value("c"))],
            add: vec![(name("add"), value("b"))],
            remove: vec![name("gone")],
        };
        change(&mut headers, &changes);
        assert_eq!(headers.get_all("set").iter().collect::<Vec<_>>(), ["c"]);
        assert_eq!(headers.get_all("add").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(!headers.contains_key("gone"));
    }
}

//! Heads of messages, from one connection to another.
//!
//! In:  a head as it arrived.
//! Out: the same without what concerns one connection only, or why it cannot be understood.
//! Invariant: what is handed on says one thing to every reader: one host, one length.
//! Source: RFC 9110, sections 7.2 (host) and 7.6.1 (connection); RFC 9112, sections 3.2 (target) and 6.3 (length);
//! RFC 9113, section 8.3.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version, request};

/// Why a request cannot be understood in only one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// HTTP/1.1 without a host.
    #[error("the request names no host")]
    NoHost,
    /// More than one host, or one that is none.
    #[error("the request's host is none, or there are several")]
    BadHost,
    /// `Content-Length` beside `Transfer-Encoding`.
    #[error("the request has two lengths")]
    TwoLengths,
    /// HTTP/2 with a header that concerns one connection.
    #[error("the request has headers that HTTP/2 does not know")]
    Connection,
}

/// What the server's node says with an answer of its own, if the application was not sent the request. It goes no further than to
/// the client's node, which may send the request elsewhere, whatever its method.
pub(crate) const UNSENT: HeaderName = HeaderName::from_static("mesh-unsent");

/// Headers that concern one connection, beside those that `Connection` names. `Trailer` stays, for trailers do.
const HOP_BY_HOP: [HeaderName; 8] = [
    UNSENT,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// The authority that a request is for.
///
/// **Errors**: it is not clear which.
pub(crate) fn authority(head: &request::Parts) -> Result<Authority, HeadError> {
    if head.headers.contains_key(header::TRANSFER_ENCODING) && head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(HeadError::TwoLengths);
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(HeadError::BadHost),
        (None, None) => None,
        (Some(host), None) => Some(Authority::try_from(host.as_bytes()).map_err(|_| HeadError::BadHost)?),
    };
    if head.version == Version::HTTP_2
        && [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE]
            .iter()
            .any(|name| head.headers.contains_key(name))
    {
        return Err(HeadError::Connection);
    }
    // The target's own authority comes first: RFC 9112, section 3.2.2.
    let authority = head.uri.authority().cloned().or(host).ok_or(HeadError::NoHost)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(HeadError::BadHost);
    }
    Ok(authority)
}

/// Takes away what concerns the connection that a message came by. Whether the peer takes trailers is told again.
pub(crate) fn strip(headers: &mut HeaderMap) {
    // Most have none of them, and to look at each name is less than to look for each.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    let trailers = takes_trailers(headers);
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case("trailers"))
}

/// The protocol that a request of HTTP/1.1 asks to go over to. HTTP/2 is none: a server may go on with HTTP/1.1, and what is
/// carried after an upgrade is not read, so that requests on it would be judged by the first one.
///
/// **Source**: RFC 9110, section 7.8; RFC 9113, section 3.1 has made the upgrade to `h2c` obsolete.
pub(crate) fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    if head.version != Version::HTTP_11 {
        return None;
    }
    let asks = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("upgrade")))
    };
    let is_http2 = |value: &HeaderValue| {
        let has = |value: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("h2c"));
        value.to_str().map_or(true, has)
    };
    let mut protocols = head.headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none()).filter(|protocol| !is_http2(protocol));
    head.headers.get_all(header::CONNECTION).iter().any(asks).then(|| protocol.cloned())?
}

/// Makes the head of a request that goes upstream in `version`.
pub(crate) fn address(head: &mut request::Parts, version: Version, authority: &Authority, scheme: &Scheme) {
    let host = HeaderValue::from_str(authority.as_str()).ok();
    head.version = version;
    let path = || head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = http::uri::Parts::default();
    if version == Version::HTTP_2 {
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(path());
        head.headers.remove(header::HOST);
    } else if head.method == Method::CONNECT {
        parts.authority = Some(authority.clone());
    } else {
        parts.path_and_query = Some(path());
    }
    if version != Version::HTTP_2 {
        if let Some(host) = host {
            head.headers.insert(header::HOST, host);
        }
        join_cookies(&mut head.headers);
    }
    // Every part was taken from a valid address.
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Makes one line of cookies, which HTTP/2 may split and HTTP/1.1 may not.
///
/// **Source**: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(build: http::request::Builder) -> request::Parts {
        build.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn one_host_and_one_length() {
        let get = || Request::builder().uri("/");
        let host = |build: http::request::Builder| authority(&head(build)).map(|authority| authority.to_string());
        assert_eq!(host(get().header("host", "reviews:9080")), Ok("reviews:9080".into()));
        assert_eq!(host(Request::builder().uri("http://a/x").header("host", "b")), Ok("a".into()));
        assert_eq!(host(get()), Err(HeadError::NoHost));
        assert_eq!(host(get().header("host", "a").header("host", "a")), Err(HeadError::BadHost));
        for bad in ["a b", "u@a", "", "a/b", "a:b:c:d"] {
            assert_eq!(host(get().header("host", bad)), Err(HeadError::BadHost), "{bad}");
        }
        let two = get().header("host", "a").header("content-length", "3").header("transfer-encoding", "chunked");
        assert_eq!(host(two), Err(HeadError::TwoLengths));
        let http2 = get().version(Version::HTTP_2).header("host", "a").header("connection", "close");
        assert_eq!(host(http2), Err(HeadError::Connection));
    }

    #[test]
    fn no_upgrade_leads_to_http_2() {
        let asks = |protocols: &[&str]| {
            let build = Request::builder().uri("/").header("connection", "Upgrade, HTTP2-Settings");
            upgrade(&head(protocols.iter().fold(build, |build, protocol| build.header("upgrade", *protocol))))
        };
        assert_eq!(asks(&["websocket"]), Some(HeaderValue::from_static("websocket")));
        for protocols in [&["h2c"][..], &["H2C"], &["websocket, h2c"], &["websocket", "h2c"], &[]] {
            assert_eq!(asks(protocols), None, "{protocols:?}");
        }
    }

    #[test]
    fn what_concerns_a_connection_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "gzip, Trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "a"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        left.sort_unstable();
        assert_eq!(left, [("accept", "a"), ("te", "trailers")]);
    }

    #[test]
    fn cookies_are_one_line_in_http_1() {
        let authority: Authority = "reviews:9080".parse().expect("an authority");
        for (version, expected) in [(Version::HTTP_2, vec!["a=1", "b=2"]), (Version::HTTP_11, vec!["a=1; b=2"])] {
            let mut head = head(Request::builder().uri("/").header("cookie", "a=1").header("cookie", "b=2"));
            address(&mut head, version, &authority, &Scheme::HTTP);
            assert_eq!(head.headers.get_all("cookie").iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_target_has_the_form_of_its_version() {
        let authority: Authority = "reviews:9080".parse().expect("an authority");
        let addressed = |method: Method, version| {
            let mut head = head(Request::builder().method(method).uri("http://old/a?b").header("host", "old"));
            address(&mut head, version, &authority, &Scheme::HTTP);
            (head.uri.to_string(), head.headers.get("host").map(|host| host.to_str().expect("text").to_owned()))
        };
        assert_eq!(addressed(Method::GET, Version::HTTP_11), ("/a?b".into(), Some("reviews:9080".into())));
        assert_eq!(addressed(Method::GET, Version::HTTP_2), ("http://reviews:9080/a?b".into(), None));
        assert_eq!(addressed(Method::CONNECT, Version::HTTP_11), ("reviews:9080".into(), Some("reviews:9080".into())));
    }
}

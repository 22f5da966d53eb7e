//! Keeps a client to one endpoint, where the upstream's traffic policy asks for it.
//!
//! In:  the policy's hash key, a request.
//! Out: the hash, and the cookie that a client without one is sent.
//! Invariant: a request without the key goes anywhere.
//! Source: Istio `LoadBalancerSettings.ConsistentHashLB`; Envoy's generated cookies.

use super::body::Payload;
use crate::model::http::{Balance, HashKey};
use crate::route::hashing::hash;
use crate::route::matching::{self, Asked};
use crate::snapshot::http::Upstream;
use http::Response;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use std::net::IpAddr;

/// How a request keeps to an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// The hash of its key.
    pub(crate) key: Option<u64>,
    cookie: Option<HeaderValue>,
}

impl Affinity {
    /// What `upstream` makes of a request from `client`.
    pub(crate) fn of(upstream: &Upstream, asked: &Asked<'_>, client: IpAddr) -> Self {
        let (Balance::RingHash { key, .. } | Balance::Maglev { key, .. }) = &upstream.balance else {
            return Self::default();
        };
        let known = |text: &str| Self { key: Some(hash(text.as_bytes(), 0)), cookie: None };
        match key {
            HashKey::Source => known(&client.to_string()),
            HashKey::Header(name) => {
                matching::joined(asked.headers, name).map_or_else(Self::default, |value| known(&value))
            }
            HashKey::Query(name) => {
                matching::parameter(asked.query, name).map_or_else(Self::default, |value| known(&value))
            }
            HashKey::Cookie { name, path, life } => match cookie(asked, name) {
                Some(value) => known(value),
                None => {
                    let Some(life) = life else { return Self::default() };
                    let value = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
                    let mut text = format!("{name}=\"{value}\"; HttpOnly");
                    if !life.is_zero() {
                        text.push_str(&format!("; Max-Age={}", life.as_secs()));
                    }
                    if !path.is_empty() {
                        text.push_str(&format!("; Path={path}"));
                    }
                    Self { cookie: HeaderValue::try_from(text).ok(), ..known(&value) }
                }
            },
        }
    }

    /// Sends the client its cookie.
    pub(crate) fn tell(&self, response: &mut Response<Payload>) {
        if let Some(cookie) = &self.cookie {
            response.headers_mut().append(SET_COOKIE, cookie.clone());
        }
    }
}

/// The value of a cookie, without quotes.
///
/// **Source**: RFC 6265, section 4.2.1.
fn cookie<'a>(asked: &Asked<'a>, name: &str) -> Option<&'a str> {
    let headers = asked.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let value = headers.flat_map(|value| value.split(';')).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; user=\"x y\"; ab=2"));
        headers.append(COOKIE, HeaderValue::from_static("late=3"));
        let asked = Asked { method: &Method::GET, scheme: "http", host: "a", path: "/", query: "", headers: &headers };
        let found = ["a", "user", "ab", "late", "b"].map(|name| cookie(&asked, name));
        assert_eq!(found, [Some("1"), Some("x y"), Some("2"), Some("3"), None]);
    }
}

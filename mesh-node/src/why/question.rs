//! Who asks whom, and for what, as people write it.
//!
//! In:  words.
//! Out: a [`Question`]; its request, understood.
//! Invariant: what is written back is what was read, in its longest form.
//! Source: kubectl for the short names of kinds.

use super::WhyError;
use crate::api::apps::Maker;
use crate::model::Name;
use crate::policy;
use crate::route::matching::Asked;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Uri, request};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Who asks whom, and for what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Who dials.
    pub source: Place,
    /// Whom it dials.
    pub destination: Place,
    /// The port that it dials; without one the only one that the destination has.
    pub port: Option<u16>,
    /// The request, if one is asked about.
    pub request: Option<Request>,
    /// The server name that the source asks for in TLS of its own, if it is said.
    #[serde(default)]
    pub sni: Option<String>,
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path, with its query if it has one.
    pub path: String,
    /// The host that it names; by default the destination's.
    pub host: Option<String>,
    /// Its headers, by name.
    pub headers: Vec<(String, String)>,
}

/// A request that is understood.
#[derive(Clone)]
pub(super) struct Understood {
    pub(super) head: request::Parts,
    pub(super) authority: Authority,
    /// By which it comes.
    pub(super) scheme: &'static str,
}

impl Request {
    /// What is asked by `scheme`, of `host` unless it names another.
    ///
    /// **Errors**: it is no request.
    pub(super) fn understood(&self, host: &str, scheme: &'static str) -> Result<Understood, WhyError> {
        let wrong = |what: &str| WhyError::Request { what: what.to_owned() };
        if !self.path.starts_with('/') {
            return Err(wrong("a path begins with /"));
        }
        let path: PathAndQuery = self.path.parse().map_err(|_| wrong("the path has characters that none has"))?;
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.uri = Uri::from(path);
        head.method = self.method.parse().map_err(|_| wrong("the method is none"))?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_str(name).map_err(|_| wrong(&format!("`{name}` names no header")))?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong(&format!("{name} has no such value")))?;
            head.headers.append(name, value);
        }
        let authority = self.host.as_deref().unwrap_or(host).parse().map_err(|_| wrong("the host is none"))?;
        Ok(Understood { head, authority, scheme })
    }
}

impl Understood {
    /// As routes are compared with it.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked::of(&self.head, &self.authority, self.scheme)
    }

    /// As policies judge it.
    pub(super) fn judged(&self) -> policy::Request<'_> {
        let head = &self.head;
        policy::Request::new(head.method.as_str(), self.authority.as_str(), head.uri.path(), &head.headers)
    }
}

/// One end, as people name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// A pod, else a service of that name: `namespace/name`.
    Named(Name),
    /// One of a kind: `kind/namespace/name`, or `kind/name` in the namespace `default`.
    Kind(Noun, Name),
    /// A host that gateways serve.
    Host(String),
    /// An address, of whomever.
    Address(IpAddr),
    /// Whoever is outside the mesh, at an address that nobody knows.
    Outside,
}

/// A kind of which something may be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// A gateway, of the Gateway API or of Istio.
    Gateway,
    /// What pods are made by, which is asked about as one of these.
    Maker(Maker),
}

impl Noun {
    const ALL: [(Self, &[&str]); 9] = [
        (Self::Pod, &["pod", "pods", "po"]),
        (Self::Service, &["service", "services", "svc"]),
        (Self::Gateway, &["gateway", "gateways", "gtw", "gw"]),
        (Self::Maker(Maker::Deployment), &["deployment", "deployments", "deploy"]),
        (Self::Maker(Maker::StatefulSet), &["statefulset", "statefulsets", "sts"]),
        (Self::Maker(Maker::DaemonSet), &["daemonset", "daemonsets", "ds"]),
        (Self::Maker(Maker::ReplicaSet), &["replicaset", "replicasets", "rs"]),
        (Self::Maker(Maker::Job), &["job", "jobs"]),
        (Self::Maker(Maker::CronJob), &["cronjob", "cronjobs", "cj"]),
    ];

    fn find(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, words)| words.iter().any(|known| word.eq_ignore_ascii_case(known)));
        found.map(|(noun, _)| *noun)
    }

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(noun, _)| *noun == self);
        found.and_then(|(_, words)| words.first()).copied().unwrap_or_default()
    }
}

/// Who is outside.
const OUTSIDE: &str = "outside";
/// Where things are that name no namespace.
const DEFAULT_NAMESPACE: &str = "default";

impl FromStr for Place {
    type Err = WhyError;

    /// See [`Place`].
    fn from_str(text: &str) -> Result<Self, WhyError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let is_host = |host: &str| {
            host.contains('.') && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        };
        match (&*parts, parts.first().and_then(|first| Noun::find(first))) {
            _ if parts.contains(&"") => {}
            ([_, namespace, name], Some(noun)) => return Ok(Self::Kind(noun, Name::new(*namespace, *name))),
            ([_, name], Some(noun)) => return Ok(Self::Kind(noun, Name::new(DEFAULT_NAMESPACE, *name))),
            ([namespace, name], None) => return Ok(Self::Named(Name::new(*namespace, *name))),
            ([OUTSIDE], _) => return Ok(Self::Outside),
            ([host], _) if is_host(host) => return Ok(Self::Host(host.to_ascii_lowercase())),
            _ => {}
        }
        Err(WhyError::Place { text: text.to_owned() })
    }
}

impl TryFrom<String> for Place {
    type Error = WhyError;

    fn try_from(text: String) -> Result<Self, WhyError> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "{name}"),
            Self::Kind(noun, name) => write!(f, "{}/{name}", noun.word()),
            Self::Host(host) => f.write_str(host),
            Self::Address(address) => write!(f, "{address}"),
            Self::Outside => f.write_str(OUTSIDE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_back_is_what_was_read() {
        for (text, long) in [
            ("shop/web", "shop/web"),
            ("pod/job/web", "pod/job/web"),
            ("gtw/shop/front", "gateway/shop/front"),
            ("svc/web", "service/default/web"),
            ("deploy/web", "deployment/default/web"),
            ("cj/shop/web", "cronjob/shop/web"),
            ("Shop.Example", "shop.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "fd00::1"),
            ("outside", "outside"),
        ] {
            let place: Place = text.parse().expect("a place");
            assert_eq!(place.to_string(), long);
            assert_eq!(long.parse::<Place>().expect("a place"), place);
        }
        for none in ["", "web", "/", "shop/", "/web", "a/b/c", "gateway//front", "pod/a/b/c", "a b.c", "\u{1b}.x"] {
            assert!(none.parse::<Place>().is_err(), "{none}");
        }
    }
}

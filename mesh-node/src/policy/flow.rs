//! What is judged: a connection, or a request on one.
//!
//! Out: [`Flow`], made of what the network shows, what the source proved, and what is spoken.
//! Invariant: nothing is known of an end that was not proved or told by discovery.

use super::path::Readings;
use crate::model::{Identity, Subject};
use http::HeaderMap;
use http::header::HeaderName;
use std::net::IpAddr;
use std::sync::Arc;

pub use crate::model::policy::TCP;

/// A connection or request.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Who dialled.
    pub source: Party<'a>,
    /// Who was dialled.
    pub destination: Party<'a>,
    /// Is one end the node that the other runs on? Policies of the network do not come between a pod and its node.
    pub with_node: bool,
    /// IANA's number of what carries it.
    pub protocol: u8,
    /// Who the source proved to be.
    pub proof: Option<Proof<'a>>,
    /// The server name that the client asked for in TLS of its own.
    pub sni: &'a Sni,
    /// What is spoken.
    pub spoken: Spoken<'a>,
}

/// One end of it.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// Its address.
    pub address: IpAddr,
    /// Its port, where it is known.
    pub port: Option<u16>,
    /// Who is there, as discovery says.
    pub subject: Option<&'a Arc<Subject>>,
}

/// An identity that was proved.
#[derive(Clone, Copy, Debug)]
pub struct Proof<'a> {
    /// The identity.
    pub identity: &'a Identity,
    /// Its principal, as [`Identity::principal`] makes it.
    pub principal: &'a str,
}

/// The server name that a client asked for in TLS of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sni {
    /// Nobody read it, or nobody could.
    #[default]
    Unread,
    /// There is none: the client asked for none, or speaks no TLS.
    Absent,
    /// This one, in small letters.
    Name(Arc<str>),
}

impl Sni {
    /// The name. A dot at its end makes no other.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::Name(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into())
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug)]
pub enum Spoken<'a> {
    /// No HTTP, or none that anybody reads.
    Opaque,
    /// HTTP, and this is the request.
    Http(&'a Request<'a>),
    /// Nothing has been read yet. What is denied so is denied whatever will be read; what is allowed so must be judged again then.
    Unread,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) authority: Readings<'a>,
    pub(super) path: Readings<'a>,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> Request<'a> {
    /// The request with this head; `path` has no query.
    #[must_use]
    pub fn new(method: &'a str, authority: &'a str, path: &'a str, headers: &'a HeaderMap) -> Self {
        Self { method, authority: Readings::of_authority(authority), path: Readings::of_path(path), headers }
    }

    /// What it is for, as it was written.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.written()
    }

    /// The address of whoever the last hop saw, or `Ok(None)` if no hop says.
    ///
    /// **Errors**: what it says is no address.
    pub(super) fn forwarded_for(&self) -> Result<Option<IpAddr>, ()> {
        const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        let Some(last) = self.headers.get_all(FORWARDED_FOR).iter().next_back() else { return Ok(None) };
        let text = last.to_str().map_err(|_| ())?;
        let last = text.rsplit(',').next().unwrap_or_default().trim();
        last.parse().map(Some).map_err(|_| ())
    }
}

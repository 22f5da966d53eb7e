//! What daemons tell of the listeners of gateways, so that users can be told.
//!
//! Out: [`Daemon`], [`Told`], [`Closed`].
//! Invariant: what is told is of one gateway, told apart from its successors, and of one generation of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Why a listener is not listened on at a node, although its object would allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closed {
    /// Its port is being opened.
    Opening,
    /// Its port cannot be listened on there.
    PortUnavailable,
    /// Its certificate is not there, or cannot be shown.
    InvalidCertificate,
    /// Another gateway has its port or its host.
    Conflict,
}

impl Closed {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Opening, Self::PortUnavailable, Self::InvalidCertificate, Self::Conflict];

    /// The reason in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opening => "Opening",
            Self::PortUnavailable => "PortUnavailable",
            Self::InvalidCertificate => "InvalidCertificate",
            Self::Conflict => "Conflict",
        }
    }
}

/// What a daemon tells of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The generation of the gateway of which this holds.
    pub generation: i64,
    /// Its listeners that are not listened on, by name. On the others of which its object allows it, is listened.
    pub closed: BTreeMap<String, Closed>,
}

/// What a daemon tells of gateways, by their UIDs.
pub type Listening = BTreeMap<String, Told>;

/// A daemon that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its node.
    pub node: String,
    /// The addresses of its node.
    pub addresses: Vec<IpAddr>,
    /// What it tells.
    pub listening: Listening,
}

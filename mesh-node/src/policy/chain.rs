//! Policies as they are asked: in order, with nothing left to look up.
//!
//! Out: [`Chains`]: what holds for a workload in one direction.
//! **Shape**: a chain is tiers, a tier is policies, a policy is rules, each in the order in which they are asked.
//! Invariant: selectors and services have become groups and addresses.

use super::group::Group;
use crate::model::policy::{Action, End, PortRange, Prefixes, RuleOrigin, Side, Texts, TierKey};
use crate::model::{Name, ObjectRef, Text};
use http::HeaderName;
use std::net::SocketAddr;
use std::sync::Arc;

/// What holds for a workload in one direction: both must allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// What decides.
    pub enforced: Both,
    /// What would decide if policies that are on trial were in force; `None` without any.
    pub trial: Option<Box<Both>>,
    /// Ports on which a rule asks what a request is that arrives, in order.
    pub http: Box<[PortRange]>,
    /// Ports on which a rule asks for the server name in TLS, the same way.
    pub sni: Box<[PortRange]>,
}

/// The two chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Both {
    /// The network's.
    pub network: Box<[Tier]>,
    /// The mesh's.
    pub mesh: Box<[Tier]>,
}

impl Both {
    /// Is everything allowed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.network.is_empty() && self.mesh.is_empty()
    }
}

impl Chains {
    /// Does any rule ask what requests to this port of the destination are?
    #[must_use]
    pub fn reads_http(&self, port: u16) -> bool {
        self.http.iter().any(|range| range.contains(&port))
    }

    /// Does any rule ask for which server name a client of this port of the destination asks in TLS?
    #[must_use]
    pub fn reads_sni(&self, port: u16) -> bool {
        self.sni.iter().any(|range| range.contains(&port))
    }

    /// Is there nothing to ask?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.enforced.is_empty() && self.trial.is_none()
    }
}

/// A tier, one of whose policies selects the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub key: TierKey,
    /// What becomes of what no rule of it decided.
    pub end: End,
    /// The policies that select the workload, at least one.
    pub policies: Box<[Arc<Policy>]>,
}

/// A policy that selects the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The object.
    pub object: ObjectRef,
    /// Is it on trial?
    pub on_trial: bool,
    /// Its rules for one direction.
    pub rules: Box<[Rule]>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub origin: RuleOrigin,
    /// What follows if it is met.
    pub action: Action,
    /// All must be met.
    pub clauses: Box<[Clause]>,
}

/// Of these alternatives one must be met, of which all must be met.
pub type Clause = Box<[Box<[Atom]>]>;

/// A check, or its contrary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// Is it met where the check is not?
    pub negated: bool,
    /// The check.
    pub check: Check,
}

/// A [`Test`](crate::model::policy::Test) of which nothing is left to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Not understood.
    Unknown,
    /// That end is one of these.
    Member(Side, Arc<Group>),
    /// The destination is one of these endpoints, in order.
    Endpoint(Arc<[SocketAddr]>),
    /// The address of that end is among these.
    Address(Side, Prefixes),
    /// The port of that end is among these, by number, or by the name that whoever is there gives it.
    Port(Side, Box<[PortRange]>, Box<[Text]>),
    /// The protocol is one of these numbers of IANA, in order.
    Protocol(Box<[u8]>),
    /// The principal of the source.
    Principal(Texts),
    /// The namespace of the source's identity.
    PrincipalNamespace(Texts),
    /// The source proved to be one of these, in order.
    PrincipalAccount(Box<[Name]>),
    /// The server name in TLS.
    Sni(Texts),
    /// HTTP is spoken.
    Http,
    /// The method.
    Method(Texts),
    /// The authority, in small letters.
    Host(Texts),
    /// The path.
    Path(Texts),
    /// The path is escaped well and once.
    PathIsPlain,
    /// A header.
    Header(HeaderName, Texts),
    /// The last address in `X-Forwarded-For`.
    ForwardedFor(Prefixes),
}

//! What may speak to what: policies of every API in one form.
//!
//! Out: [`Policy`], its [`Rule`]s and their conditions; [`Tier`]; [`AddressSet`].
//! **Shape**: a connection or request must be allowed by two chains, the network's and the mesh's. A chain is tiers in order, a tier
//! is policies in order, a policy is rules in order. The first rule that is met and decides, decides.
//! Invariant: what a reader does not understand is [`Test::Unknown`]: it is met in rules that deny, and in no other.
//! Source: Calico's tiers; Kubernetes `NetworkPolicy` and `ClusterNetworkPolicy`; Istio `AuthorizationPolicy`.

mod address;
mod path;
mod port;
mod text;

pub use address::{Prefix, PrefixError, Prefixes};
pub use path::{segments, unescaped, without_parameters};
pub use port::{PortRange, Ports};
pub use text::{Text, Texts};

use super::{Labels, Name, ObjectRef, Selector};
use ::http::HeaderName;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// TCP, as IANA numbers it.
pub const TCP: u8 = 6;

/// One of the two chains that must both allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Calico, Kubernetes and ClusterNetworkPolicy. What no tier decides is allowed.
    Network,
    /// Istio. What no tier decides is allowed.
    Mesh,
}

/// Names a tier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TierKey {
    /// The chain that it is part of.
    pub chain: Chain,
    /// Its name there.
    pub name: Arc<str>,
}

impl TierKey {
    /// Where rules are told, and nothing is decided: Istio's `AUDIT`.
    pub const AUDIT: &'static str = "audit";
    /// Istio's `DENY`.
    pub const DENY: &'static str = "deny";
    /// Istio's `ALLOW`.
    pub const ALLOW: &'static str = "allow";
    /// Where those are that do not say clearly which is theirs.
    pub const NOWHERE: &'static str = "(nowhere)";
    /// Where Kubernetes' policies are, and Calico's that name no tier.
    pub const DEFAULT: &'static str = "default";
    /// `Admin` of ClusterNetworkPolicy.
    pub const KUBE_ADMIN: &'static str = "kube-admin";
    /// Its `Baseline`.
    pub const KUBE_BASELINE: &'static str = "kube-baseline";

    /// A tier of the network's chain.
    pub fn network(name: impl Into<Arc<str>>) -> Self {
        Self { chain: Chain::Network, name: name.into() }
    }

    /// A tier of the mesh's chain.
    pub fn mesh(name: impl Into<Arc<str>>) -> Self {
        Self { chain: Chain::Mesh, name: name.into() }
    }
}

/// Policies that are asked together, before or after those of other tiers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier {
    /// When it is asked; of equals the one whose name is the least comes first. If that is not understood (`None`), it comes first of
    /// all, and denies whatever is about a workload that one of its policies selects.
    pub order: Option<Order>,
    /// What becomes of what no rule of it decided, in a direction in which one of its policies selects the workload. A tier none of
    /// whose policies selects the workload in that direction passes.
    pub end: End,
}

impl Tier {
    /// The tiers of the mesh's chain.
    #[must_use]
    pub fn of_mesh() -> [(TierKey, Self); 3] {
        [(TierKey::AUDIT, 0.0, End::Pass), (TierKey::DENY, 1.0, End::Pass), (TierKey::ALLOW, 2.0, End::Deny)]
            .map(|(name, order, end)| (TierKey::mesh(name), Self { order: Some(Order::at(order)), end }))
    }

    /// The tiers of the network's chain that are there whether an object describes them or not.
    #[must_use]
    pub fn of_network() -> [(TierKey, Self); 4] {
        [
            (TierKey::NOWHERE, None, End::Deny),
            (TierKey::KUBE_ADMIN, Some(1_000.0), End::Pass),
            (TierKey::DEFAULT, Some(1_000_000.0), End::Deny),
            (TierKey::KUBE_BASELINE, Some(10_000_000.0), End::Pass),
        ]
        .map(|(name, order, end)| (TierKey::network(name), Self { order: order.map(Order::at), end }))
    }
}

/// What becomes of what no rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The next tier decides.
    Pass,
    /// It is allowed.
    Allow,
    /// It is denied.
    Deny,
}

/// A place in an order; the default is the last.
#[derive(Clone, Copy, Debug)]
pub struct Order(f64);

impl Order {
    /// Before everything else.
    pub const FIRST: Self = Self(f64::NEG_INFINITY);

    /// Behind everything that says where it stands.
    pub const LAST: Self = Self(f64::INFINITY);

    /// This place; what is no number is the last.
    #[must_use]
    pub const fn at(order: f64) -> Self {
        if order.is_nan() { Self::LAST } else { Self(order) }
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::LAST
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl std::hash::Hash for Order {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// One object that says what is allowed.
///
/// **Shape**: policies of a tier are asked by order, then by name, namespace and kind, compared as one text with slashes between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The object.
    pub object: ObjectRef,
    /// The tier that it is part of. One that does not exist is asked last and ends with a denial.
    pub tier: TierKey,
    /// Its place in the tier.
    pub order: Order,
    /// The workloads that it is about.
    pub scope: PolicyScope,
    /// What arrives there; `None` if it does not speak of that, which is not the same as no rules.
    pub ingress: Option<Vec<Rule>>,
    /// What leaves from there.
    pub egress: Option<Vec<Rule>>,
    /// Is it in force?
    pub stage: Stage,
}

/// What a policy is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyScope {
    /// Those that are selected, by namespace too where the policy has one.
    Selected(Selector),
    /// The pods behind these services, and what enters through these gateways.
    Targets {
        /// Services.
        services: BTreeSet<Name>,
        /// Gateways of the Gateway API.
        gateways: BTreeSet<Name>,
    },
}

impl PolicyScope {
    /// The services behind which are the pods that it is about.
    #[must_use]
    pub fn services(&self) -> &BTreeSet<Name> {
        match self {
            Self::Targets { services, .. } => services,
            Self::Selected(_) => const { &BTreeSet::new() },
        }
    }

    /// The gateways that it is about.
    #[must_use]
    pub fn gateways(&self) -> &BTreeSet<Name> {
        match self {
            Self::Targets { gateways, .. } => gateways,
            Self::Selected(_) => const { &BTreeSet::new() },
        }
    }
}

/// Is a policy in force?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It decides.
    #[default]
    Enforced,
    /// It decides nothing; what it would have decided is told.
    DryRun {
        /// The policy in whose place it would be. With neither direction, it would take that policy away.
        replaces: Option<ObjectRef>,
    },
}

/// Something that is looked for, and what follows if it is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, or its place in the object, as in `rules[1]` or `ingress[0]`.
    pub name: String,
    /// What follows.
    pub action: Action,
    /// What must be met.
    pub condition: Condition,
}

/// What follows from a rule that is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The chain allows it.
    Allow,
    /// It is denied.
    Deny,
    /// The next tier decides.
    Pass,
    /// It is told, and the next rule decides.
    Log,
}

/// All of these must be met; the default is met by everything.
///
/// **Shape**: *all* of the clauses, in each *any* of the alternatives, in each *all* of the tests. Istio's `from`, `to` and each entry of
/// `when` are clauses, their entries alternatives; so are Kubernetes' peers and ports; a rule of Calico is one clause with one
/// alternative, and clauses of ports that have names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The clauses.
    pub clauses: Vec<Clause>,
}

/// Any of these must be met; without any it is never met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// The alternatives: of each, all tests must be met.
    pub alternatives: Vec<Vec<Atom>>,
}

impl Condition {
    /// All of these tests.
    #[must_use]
    pub fn all(atoms: Vec<Atom>) -> Self {
        let clauses = if atoms.is_empty() { Vec::new() } else { vec![Clause { alternatives: vec![atoms] }] };
        Self { clauses }
    }

    /// Nothing meets it.
    #[must_use]
    pub fn never() -> Self {
        Self { clauses: vec![Clause::default()] }
    }
}

/// A test, or its contrary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// Is it met where the test is not?
    pub negated: bool,
    /// The test.
    pub test: Test,
}

impl Atom {
    /// The test must be met.
    #[must_use]
    pub const fn is(test: Test) -> Self {
        Self { negated: false, test }
    }

    /// The test must not be met.
    #[must_use]
    pub const fn is_not(test: Test) -> Self {
        Self { negated: true, test }
    }

    /// The same where the test must not be met.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::is_not(self.test)
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who dialled.
    Source,
    /// Who was dialled.
    Destination,
}

/// Something that is true of a connection or request, or is not.
///
/// **Shape**: the tests of HTTP are those from [`Test::Method`] on. Where no HTTP is spoken they are met in rules that deny and in no
/// other, negated or not: Istio ignores them there in `DENY`, and the whole rule in `ALLOW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Not understood: met in rules that deny and in no other, negated or not.
    Unknown,
    /// That end is a workload which is selected, or an address of an [`AddressSet`] that is.
    Selected(Side, Selector),
    /// That end is an endpoint of the service; of a source its address alone counts.
    Service(Side, Name),
    /// The address of that end is among these.
    Address(Side, Prefixes),
    /// The port of that end is among these. Names are those of the ports of a destination's containers.
    Port(Side, Ports),
    /// The protocol is one of these numbers of IANA.
    Protocol(BTreeSet<u8>),
    /// The source proved an identity whose principal, `<trust domain>/ns/<namespace>/sa/<account>`, is like this.
    Principal(Texts),
    /// The namespace of the identity that the source proved is like this.
    PrincipalNamespace(Texts),
    /// The source proved to be one of these service accounts: namespace and name.
    PrincipalAccount(BTreeSet<Name>),
    /// The server name that the client asked for in TLS is like this.
    Sni(Texts),
    /// HTTP is spoken. This one is plainly false where it is not.
    Http,
    /// The method.
    Method(Texts),
    /// The authority, without regard to case: as it stands where a rule allows what is like this. A rule that denies is met by it with
    /// its port and without, and one that allows what is not like this if neither is.
    Host(Texts),
    /// The path, without its query. A rule that denies is met if any reading of the path is like this, others if all are:
    /// as it stands; decoded and without `.`, `..` and doubled slashes; and so without parameters of segments.
    Path(Texts),
    /// The path is escaped well and once, so that whoever decodes it once more, or ends it at a zero, reads nothing else.
    PathIsPlain,
    /// A header's values, joined by commas. An absent header is like nothing.
    Header(HeaderName, Texts),
    /// The last address in `X-Forwarded-For`, or the source's without that header: Istio's `remoteIpBlocks` of a proxy that trusts no hop.
    ForwardedFor(Prefixes),
}

impl Test {
    /// Is it about HTTP?
    #[must_use]
    pub const fn is_of_http(&self) -> bool {
        match self {
            Self::Method(_)
            | Self::Host(_)
            | Self::Path(_)
            | Self::PathIsPlain
            | Self::Header(..)
            | Self::ForwardedFor(_) => true,
            Self::Unknown
            | Self::Selected(..)
            | Self::Service(..)
            | Self::Address(..)
            | Self::Port(..)
            | Self::Protocol(_)
            | Self::Principal(_)
            | Self::PrincipalNamespace(_)
            | Self::PrincipalAccount(_)
            | Self::Sni(_)
            | Self::Http => false,
        }
    }
}

/// Addresses with labels, which selectors of peers select: Calico's `NetworkSet` and `GlobalNetworkSet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSet {
    /// The namespace; `None` if it is in none.
    pub namespace: Option<Arc<str>>,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// Its addresses.
    pub addresses: Prefixes,
}

/// The rule that decided, or that would have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleOrigin {
    /// The object.
    pub object: ObjectRef,
    /// The rule's name or place.
    pub rule: String,
}

impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.object, self.rule)
    }
}

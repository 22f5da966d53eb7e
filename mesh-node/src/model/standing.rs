//! How routes and gateways stand, as whoever reports it to users needs to know.
//!
//! Out: [`RouteStanding`], [`GatewayStanding`], [`ListenerStanding`], [`Heard`], [`Attachment`].
//! Source: Gateway API `RouteParentStatus`, `GatewayStatus`.

use super::{Closed, Daemon, Issue, Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What became of one reference of a route to a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Another controller's, or nobody's.
    Others,
    /// It is attached.
    Attached,
    /// It is not, for this reason.
    Refused(Issue),
}

/// How a route stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStanding {
    /// What became of each reference to a parent, in the order written.
    pub parents: Vec<Attachment>,
    /// How many rules it has.
    pub rules: usize,
    /// What is wrong in it, but for its references to parents.
    pub issues: Vec<Issue>,
}

impl RouteStanding {
    /// What is wrong in it and closes what it belongs to.
    pub fn refusals(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter().filter(|issue| closes(issue))
    }

    /// Is nothing left of it that is open?
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let rules: BTreeSet<_> = self.refusals().map(|issue| rule_of(&issue.field)).collect();
        rules.contains(&None) || (!rules.is_empty() && rules.len() >= self.rules)
    }
}

/// Where rules are, in the paths of issues.
const RULES: &str = "spec.rules[";

/// The rule that a path is in.
fn rule_of(field: &str) -> Option<&str> {
    field.strip_prefix(RULES)?.split(']').next()
}

/// Does it close what it belongs to?
fn closes(issue: &Issue) -> bool {
    matches!(issue.reason, Reason::Unsupported | Reason::IncompatibleFilters)
}

/// How a gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStanding {
    /// Those of its listeners that are understood, in the order written.
    pub listeners: Vec<ListenerStanding>,
    /// The addresses of nodes at which all of it is listened on that can be, in order.
    pub addresses: Vec<IpAddr>,
    /// What is wrong in what is written.
    pub issues: Vec<Issue>,
}

/// How a listener stands that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStanding {
    /// Its place among the gateway's, from 0 on.
    pub at: usize,
    /// The kinds of routes that may attach to it.
    pub kinds: Vec<&'static str>,
    /// How many routes are attached to it.
    pub attached: usize,
    /// Why it is not listened on, as far as objects say.
    pub refusal: Option<Issue>,
    /// What the daemons say of it; `None` where they cannot be heard.
    pub heard: Option<Heard>,
}

/// What the daemons that are ready say of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// At how many nodes it is listened on.
    pub open: usize,
    /// The nodes that have told nothing of it as it is now.
    pub silent: Vec<String>,
    /// The nodes at which it is not listened on, and why.
    pub closed: BTreeMap<Closed, Vec<String>>,
}

impl Heard {
    /// What these daemons say of a listener of a gateway, as it is in this generation.
    #[must_use]
    pub fn of(daemons: &[Daemon], (uid, generation): (&str, i64), listener: &str) -> Self {
        let mut heard = Self::default();
        for daemon in daemons {
            match daemon.listening.get(uid).filter(|told| told.generation == generation) {
                None => heard.silent.push(daemon.node.clone()),
                Some(told) => match told.closed.get(listener) {
                    None => heard.open += 1,
                    Some(why) => heard.closed.entry(*why).or_default().push(daemon.node.clone()),
                },
            }
        }
        heard
    }

    /// Is it listened on at every node?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open > 0 && self.silent.is_empty() && self.closed.is_empty()
    }

    /// Is this why it is listened on nowhere?
    #[must_use]
    pub fn is_closed_by(&self, why: Closed) -> bool {
        self.open == 0 && self.silent.is_empty() && self.closed.len() == 1 && self.closed.contains_key(&why)
    }
}

//! How routes and gateways stand, as whoever reports it to users needs to know.
//!
//! Out: [`RouteStanding`], [`GatewayStanding`], [`ListenerStanding`], [`Attachment`].
//! Source: Gateway API `RouteParentStatus`, `GatewayStatus`.

use super::{Issue, Reason};
use std::collections::BTreeSet;

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
}

//! How routes and gateways stand, as whoever reports it to users needs to know.
//!
//! Out: [`RouteStanding`], [`GatewayStanding`], [`Attachment`].
//! Source: Gateway API `RouteParentStatus`, `GatewayStatus`.

use super::Issue;

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

/// How a gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStanding {
    /// How many listeners are understood.
    pub listeners: usize,
    /// What is wrong in it.
    pub issues: Vec<Issue>,
}

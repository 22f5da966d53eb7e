//! What is wrong, by what it was found in, so that it can be replaced piece by piece.
//!
//! In:  the issues of one unit at a time.
//! Out: all issues, ordered and without duplicates.
//! Invariant: the list depends on the issues of each unit as they are now; it stays the same `Arc` while they do.

use crate::model::{Issue, Name, ObjectRef, Text};
use crate::world::Kind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What issues are found in, together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// An object, be it alone or with those that it meets.
    Object(Kind, Name),
    /// The policies of a namespace whose scope is the same.
    Scope(Text),
    /// A policy, for the pods that it selects.
    Selected(Name),
    /// What a source could not read, by its origin.
    Faults(String),
    /// The sandboxes of this node.
    Sandboxes,
    /// Routes and traffic policies, where they meet what is compiled with them.
    Traffic(TrafficUnit),
    /// Routes and traffic policies among themselves.
    Routing,
    /// The forms in which an object is stored.
    Stored(ObjectRef),
    /// A policy, where it meets what it refers to.
    Policy(ObjectRef),
}

/// What is compiled together of traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficUnit {
    /// Every external host.
    Hosts,
    /// The ports of a service.
    Service(Name),
    /// What enters through gateways.
    Edge,
}

/// The issues of every unit.
#[derive(Clone, Debug, Default)]
pub struct IssueBook {
    units: BTreeMap<Unit, Vec<Arc<Issue>>>,
    /// Every issue, with how often it was found.
    all: BTreeMap<Arc<Issue>, usize>,
    list: Arc<[Arc<Issue>]>,
    is_listed: bool,
}

impl IssueBook {
    /// The issues of `unit` are these and no others.
    pub fn set(&mut self, unit: Unit, issues: Vec<Issue>) {
        let known = self.units.get(&unit).map_or(&[][..], Vec::as_slice);
        if known.iter().map(|issue| &**issue).eq(&issues) {
            return;
        }
        self.is_listed = false;
        for issue in self.units.remove(&unit).unwrap_or_default() {
            if let Some(times) = self.all.get_mut(&issue) {
                *times -= 1;
                if *times == 0 {
                    self.all.remove(&issue);
                }
            }
        }
        if issues.is_empty() {
            return;
        }
        let issues: Vec<Arc<Issue>> = issues.into_iter().map(Arc::new).collect();
        for issue in &issues {
            *self.all.entry(Arc::clone(issue)).or_default() += 1;
        }
        self.units.insert(unit, issues);
    }

    /// The issues of `unit`.
    pub fn of(&self, unit: &Unit) -> impl Iterator<Item = &Issue> + use<'_> {
        self.units.get(unit).into_iter().flatten().map(|issue| &**issue)
    }

    /// All issues, ordered and without duplicates.
    pub fn list(&mut self) -> Arc<[Arc<Issue>]> {
        if !self.is_listed {
            self.list = self.all.keys().cloned().collect();
            self.is_listed = true;
        }
        Arc::clone(&self.list)
    }
}

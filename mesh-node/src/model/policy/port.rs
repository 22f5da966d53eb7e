//! Ports, by number and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Ports from one to another, both among them.
pub type PortRange = RangeInclusive<u16>;

/// Ports by number and by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Ranges of numbers.
    pub ranges: Vec<PortRange>,
    /// Names that a pod gives to ports of its containers.
    pub names: BTreeSet<String>,
}

impl Ports {
    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.names.is_empty()
    }

    /// The same with numbers for the names that `named` has; the others are nobody's.
    #[must_use]
    pub fn resolved(&self, named: &BTreeMap<String, u16>) -> Vec<PortRange> {
        let known = self.names.iter().filter_map(|name| named.get(name)).map(|&port| port..=port);
        let mut ranges: Vec<PortRange> = self.ranges.iter().cloned().chain(known).collect();
        ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
        ranges.dedup();
        ranges
    }
}

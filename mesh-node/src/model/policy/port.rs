//! Ports, by number and by name.

use std::collections::BTreeSet;
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

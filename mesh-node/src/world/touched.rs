//! What changes made different.
//!
//! In:  what each change touched, with what was there before.
//! Out: [`Touched`]: each key once, with what was there before the first change.
//! Invariant: with the world as it is now, this is the whole difference to what the world was.

use super::{Kind, Object};
use crate::model::Name;
use std::collections::{BTreeMap, btree_map};

/// Something that changes are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A user's object.
    Object(Kind, Name),
    /// The sandboxes that a pod has on this node.
    Sandboxes(Name),
    /// What a source could not read, by its origin.
    Faults(String),
    /// How far the sources are.
    Sources,
}

/// What is different in the world, and what was there before: nothing, or something that is no object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched(BTreeMap<Key, Option<Box<Object>>>);

impl Touched {
    /// Is nothing different?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, objects first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    /// Adds what was touched after.
    pub fn extend(&mut self, later: Self) {
        for (key, before) in later.0 {
            if let btree_map::Entry::Vacant(entry) = self.0.entry(key) {
                entry.insert(before);
            }
        }
    }

    pub(super) fn one_if(is_touched: bool, key: Key) -> Self {
        is_touched.then_some((key, None)).into_iter().collect()
    }
}

impl FromIterator<(Key, Option<Object>)> for Touched {
    fn from_iter<I: IntoIterator<Item = (Key, Option<Object>)>>(touched: I) -> Self {
        Self(touched.into_iter().map(|(key, before)| (key, before.map(Box::new))).collect())
    }
}

impl IntoIterator for Touched {
    type Item = (Key, Option<Box<Object>>);
    type IntoIter = btree_map::IntoIter<Key, Option<Box<Object>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

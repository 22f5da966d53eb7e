//! One place for equal values.
//!
//! In:  values, many of them equal.
//! Out: [`Interner::share`]: an `Arc` or a text that equal values have in common.
//! Invariant: what nobody else holds is forgotten, at a cost in proportion to what is shared.

use arcstr::ArcStr;
use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Below this many values nothing is looked for that nobody holds.
const FEW: usize = 64;

/// One of several holders of a value.
pub trait Handle: Borrow<Self::Value> + Clone + Eq + Hash {
    /// What is held.
    type Value: ?Sized + Eq + Hash;

    /// Does somebody else hold it too?
    fn is_shared(&self) -> bool;
}

impl<T: ?Sized + Eq + Hash> Handle for Arc<T> {
    type Value = T;

    fn is_shared(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

impl Handle for ArcStr {
    type Value = str;

    fn is_shared(&self) -> bool {
        Self::strong_count(self) != Some(1)
    }
}

/// Gives equal values one place.
#[derive(Clone, Debug)]
pub struct Interner<H> {
    known: HashSet<H>,
    /// How many values there may be before those that nobody holds are forgotten.
    most: usize,
}

impl<H> Default for Interner<H> {
    fn default() -> Self {
        Self { known: HashSet::new(), most: FEW }
    }
}

impl<H: Handle> Interner<H> {
    /// The one place of `value`.
    pub fn share<V: Borrow<H::Value> + Into<H>>(&mut self, value: V) -> H {
        if let Some(known) = self.known.get(value.borrow()) {
            return known.clone();
        }
        if self.known.len() >= self.most {
            self.known.retain(H::is_shared);
            self.known.shrink_to(self.known.len() * 2);
            self.most = FEW.max(self.known.len() * 2);
        }
        let shared = value.into();
        self.known.insert(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_place_and_unheld_ones_none() {
        let mut interner = Interner::<ArcStr>::default();
        let held = interner.share("held");
        assert!(ArcStr::ptr_eq(&held, &interner.share(String::from("held"))));
        for n in 0..10_000 {
            interner.share(n.to_string());
        }
        assert!(interner.known.len() <= FEW + 1, "{} are known", interner.known.len());
        assert!(ArcStr::ptr_eq(&held, &interner.share("held")));
    }
}

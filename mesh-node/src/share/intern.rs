//! One place for equal values.
//!
//! In:  values, many of them equal.
//! Out: [`Interner::share`]: an `Arc` that equal values have in common.
//! Invariant: what nobody else holds is forgotten, at a cost in proportion to what is shared.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Below this many values nothing is looked for that nobody holds.
const FEW: usize = 64;

/// Gives equal values one place.
#[derive(Debug)]
pub struct Interner<T: ?Sized + Eq + Hash> {
    known: HashSet<Arc<T>>,
    /// How many values there may be before those that nobody holds are forgotten.
    most: usize,
}

impl<T: ?Sized + Eq + Hash> Clone for Interner<T> {
    fn clone(&self) -> Self {
        Self { known: self.known.clone(), most: self.most }
    }
}

impl<T: ?Sized + Eq + Hash> Default for Interner<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), most: FEW }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The one place of `value`.
    pub fn share<V>(&mut self, value: V) -> Arc<T>
    where
        V: std::borrow::Borrow<T> + Into<Arc<T>>,
    {
        if let Some(known) = self.known.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.most {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.known.shrink_to(self.known.len() * 2);
            self.most = FEW.max(self.known.len() * 2);
        }
        let shared = value.into();
        self.known.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_place_and_unheld_ones_none() {
        let mut interner = Interner::<str>::default();
        let held = interner.share("held");
        assert!(Arc::ptr_eq(&held, &interner.share(String::from("held"))));
        for n in 0..10_000 {
            interner.share(n.to_string());
        }
        assert!(interner.known.len() <= FEW + 1, "{} are known", interner.known.len());
        assert!(Arc::ptr_eq(&held, &interner.share("held")));
    }
}

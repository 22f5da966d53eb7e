//! Who claims which address, where each has one holder.
//!
//! In:  claims and their withdrawal, in any order.
//! Out: [`Claims`]: of each address the least of its claimants, and the next.
//! Invariant: the result depends on the claims that stand, not on their history.

use super::{Address, AddressMap};
use std::collections::BTreeMap;

/// The claimants of each address, ordered.
#[derive(Clone, Debug)]
pub struct Claims<K: Address, C> {
    first: AddressMap<K, C>,
    /// The others, ordered, where there are any.
    others: BTreeMap<K, Vec<C>>,
}

impl<K: Address, C> Default for Claims<K, C> {
    fn default() -> Self {
        Self { first: AddressMap::default(), others: BTreeMap::new() }
    }
}

impl<K: Address, C: Ord + Clone> Claims<K, C> {
    /// `claimant` claims `key`, if it does not already.
    pub fn add(&mut self, key: &K, claimant: C) {
        let Some(first) = self.first.get(key) else { return self.first.insert(*key, claimant) };
        if *first == claimant {
            return;
        }
        let other = if claimant < *first {
            let other = first.clone();
            self.first.insert(*key, claimant);
            other
        } else {
            claimant
        };
        let others = self.others.entry(*key).or_default();
        if let Err(at) = others.binary_search(&other) {
            others.insert(at, other);
        }
    }

    /// `claimant` no longer claims `key`, if it did.
    pub fn withdraw(&mut self, key: &K, claimant: &C) {
        let Some(first) = self.first.get(key) else { return };
        let is_first = first == claimant;
        let Some(others) = self.others.get_mut(key) else {
            if is_first {
                self.first.remove(key);
            }
            return;
        };
        if is_first {
            self.first.insert(*key, others.remove(0));
        } else if let Ok(at) = others.binary_search(claimant) {
            others.remove(at);
        }
        if others.is_empty() {
            self.others.remove(key);
        }
    }

    /// See [`Map::compact`](super::Map::compact).
    pub fn compact(&mut self) {
        self.first.compact();
    }

    /// The least of the claimants of each key.
    #[must_use]
    pub fn firsts(&self) -> &AddressMap<K, C> {
        &self.first
    }

    /// The two least claimants of `key`, if it has two.
    #[must_use]
    pub fn rivals(&self, key: &K) -> Option<(&C, &C)> {
        // Few keys have several claimants, so these are asked first.
        let second = self.others.get(key)?.first()?;
        Some((self.first.get(key)?, second))
    }

    /// Every claimant of `key`, ordered.
    pub fn claimants(&self, key: &K) -> impl Iterator<Item = &C> {
        self.first.get(key).into_iter().chain(self.others.get(key).into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    #[test]
    fn claims_are_a_set_whatever_their_history() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut claims, mut expected) = (Claims::default(), BTreeMap::<IpAddr, BTreeSet<u8>>::new());
        for _ in 0..20_000 {
            let (number, claimant) = (rng.u8(..10), rng.u8(..6));
            let key = if rng.bool() { [10, 0, 0, number].into() } else { [u16::from(number); 8].into() };
            if rng.bool() {
                claims.add(&key, claimant);
                expected.entry(key).or_default().insert(claimant);
            } else {
                claims.withdraw(&key, &claimant);
                expected.entry(key).or_default().remove(&claimant);
            }
            let of_key = &expected[&key];
            assert!(claims.claimants(&key).eq(of_key));
            assert_eq!(claims.firsts().get(&key), of_key.first());
            assert_eq!(claims.rivals(&key).map(|(_, second)| second), of_key.iter().nth(1));
        }
    }
}

//! A map whose copies share what is equal in them.
//!
//! Out: [`Map`].
//! **Shape**: a trie of two levels over the hash of a key, 64 ways each; a leaf is a sorted slice. At 100,000 entries a leaf
//! has 25 of them, and a change copies one leaf and two nodes: a few microseconds, however large the map is.
//! Invariant: equal content has an equal shape, so that comparing two copies looks at what differs and nothing else.
//! Source: P. Bagwell, "Ideal Hash Trees", for the idea; of fixed depth here, for at most some millions of entries.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

#[cfg(test)]
mod tests;

const BITS: u32 = 6;
const WAYS: usize = 1 << BITS;

type Leaf<K, V> = Arc<[(K, V)]>;
type Branch<K, V> = Arc<[Leaf<K, V>; WAYS]>;

/// A map of which a copy costs nothing, and a changed copy little.
pub struct Map<K, V> {
    len: usize,
    root: Arc<[Option<Branch<K, V>>; WAYS]>,
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { len: self.len, root: Arc::clone(&self.root) }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { len: 0, root: Arc::new([const { None }; WAYS]) }
    }
}

impl<K, V> Map<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every entry, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let leaves = self.root.iter().flatten().flat_map(|branch| branch.iter());
        leaves.flat_map(|leaf| leaf.iter()).map(|(key, value)| (key, value))
    }

    /// Every key, in no order that means anything.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Every value, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

/// The ways to the leaf of `key`.
fn ways(key: &(impl Hash + ?Sized)) -> (usize, usize) {
    // Its keys are constant: copies must have one shape. A leaf that somebody fills on purpose is still searched by halves.
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let [first, second, ..] = hasher.finish().to_le_bytes();
    (usize::from(first) % WAYS, usize::from(second) % WAYS)
}

impl<K: Hash + Ord, V> Map<K, V> {
    /// The value of `key`.
    #[must_use]
    pub fn get<Q: Hash + Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (first, second) = ways(key);
        let leaf = &self.root[first].as_ref()?[second];
        let at = leaf.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
        Some(&leaf[at].1)
    }

    /// Is there a value of `key`?
    #[must_use]
    pub fn contains_key<Q: Hash + Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Hash + Ord + Clone, V: Clone> Map<K, V> {
    /// Sets the value of `key`.
    pub fn insert(&mut self, key: K, value: V) {
        let (first, second) = ways(&key);
        let branch = Arc::make_mut(&mut self.root)[first]
            .get_or_insert_with(|| Arc::new(std::array::from_fn(|_| Leaf::from([]))));
        let leaf = &mut Arc::make_mut(branch)[second];
        match leaf.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => match Arc::get_mut(leaf) {
                Some(leaf) => leaf[at].1 = value,
                None => *leaf = replaced(leaf, at..at + 1, Some((key, value))),
            },
            Err(at) => {
                *leaf = replaced(leaf, at..at, Some((key, value)));
                self.len += 1;
            }
        }
    }

    /// Removes `key`. Returns whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        let (first, second) = ways(key);
        let found = |branch: &Branch<K, V>| branch[second].binary_search_by(|(known, _)| known.cmp(key)).ok();
        let Some(at) = self.root[first].as_ref().and_then(found) else { return false };
        let slot = &mut Arc::make_mut(&mut self.root)[first];
        if let Some(branch) = slot {
            let leaf = &mut Arc::make_mut(branch)[second];
            *leaf = replaced(leaf, at..at + 1, None);
            if branch.iter().all(|leaf| leaf.is_empty()) {
                *slot = None;
            }
        }
        self.len -= 1;
        true
    }

    /// Gives every leaf a place of its own anew. While a map grew, its leaves had every size in turn, and what they left is in
    /// pages of which a few blocks are still used.
    pub fn compact(&mut self) {
        for branch in Arc::make_mut(&mut self.root).iter_mut().flatten() {
            for leaf in Arc::make_mut(branch).iter_mut() {
                *leaf = leaf.iter().cloned().collect();
            }
        }
    }
}

/// `leaf` with other entries in the place of `range`.
fn replaced<K: Clone, V: Clone>(leaf: &[(K, V)], range: std::ops::Range<usize>, entry: Option<(K, V)>) -> Leaf<K, V> {
    let (before, after) = (&leaf[..range.start], &leaf[range.end..]);
    before.iter().cloned().chain(entry).chain(after.iter().cloned()).collect()
}

impl<K: Hash + Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Hash + Ord + Clone, V: Clone> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

impl<K: Eq, V: Eq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        fn same<T: ?Sized>(one: &Arc<T>, other: &Arc<T>, equal: impl Fn(&T, &T) -> bool) -> bool {
            Arc::ptr_eq(one, other) || equal(one, other)
        }
        let leaves = |one: &Leaf<K, V>, other: &Leaf<K, V>| same(one, other, |one, other| one == other);
        let branches = |one: &Branch<K, V>, other: &Branch<K, V>| {
            same(one, other, |one, other| one.iter().zip(other).all(|(one, other)| leaves(one, other)))
        };
        self.len == other.len
            && same(&self.root, &other.root, |one, other| {
                one.iter().zip(other).all(|pair| match pair {
                    (Some(one), Some(other)) => branches(one, other),
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                })
            })
    }
}

impl<K: Eq, V: Eq> Eq for Map<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

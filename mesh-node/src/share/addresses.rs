//! A [`Map`] by address.
//!
//! Out: [`AddressMap`].
//! **Shape**: one map for each family, since an IPv4 address takes a quarter of the room that one of either family does.
//! Invariant: those of [`Map`].

use super::Map;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An address of one of two families.
pub trait Address: Copy + Ord {
    /// One of IPv4.
    type V4: Copy + Hash + Ord + Into<Self>;
    /// One of IPv6.
    type V6: Copy + Hash + Ord + Into<Self>;

    /// The address, which is of one of them.
    fn family(self) -> Family<Self::V4, Self::V6>;
}

/// One of two families.
#[derive(Clone, Copy, Debug)]
pub enum Family<V4, V6> {
    /// IPv4.
    V4(V4),
    /// IPv6.
    V6(V6),
}

impl Address for IpAddr {
    type V4 = Ipv4Addr;
    type V6 = Ipv6Addr;

    fn family(self) -> Family<Ipv4Addr, Ipv6Addr> {
        match self {
            Self::V4(address) => Family::V4(address),
            Self::V6(address) => Family::V6(address),
        }
    }
}

impl Address for SocketAddr {
    type V4 = SocketAddrV4;
    type V6 = SocketAddrV6;

    fn family(self) -> Family<SocketAddrV4, SocketAddrV6> {
        match self {
            Self::V4(address) => Family::V4(address),
            Self::V6(address) => Family::V6(address),
        }
    }
}

/// A map by address, of which a copy costs nothing, and a changed copy little.
pub struct AddressMap<A: Address, V> {
    v4: Map<A::V4, V>,
    v6: Map<A::V6, V>,
}

impl<A: Address, V> Clone for AddressMap<A, V> {
    fn clone(&self) -> Self {
        Self { v4: self.v4.clone(), v6: self.v6.clone() }
    }
}

impl<A: Address, V> Default for AddressMap<A, V> {
    fn default() -> Self {
        Self { v4: Map::default(), v6: Map::default() }
    }
}

impl<A: Address, V> AddressMap<A, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (A, &V)> {
        let v4 = self.v4.iter().map(|(address, value)| ((*address).into(), value));
        v4.chain(self.v6.iter().map(|(address, value)| ((*address).into(), value)))
    }

    /// Every address, in no order that means anything.
    pub fn keys(&self) -> impl Iterator<Item = A> {
        self.iter().map(|(address, _)| address)
    }

    /// Every value, in no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The value of `address`.
    #[must_use]
    pub fn get(&self, address: &A) -> Option<&V> {
        match address.family() {
            Family::V4(address) => self.v4.get(&address),
            Family::V6(address) => self.v6.get(&address),
        }
    }

    /// Is there a value of `address`?
    #[must_use]
    pub fn contains_key(&self, address: &A) -> bool {
        self.get(address).is_some()
    }
}

impl<A: Address, V: Clone> AddressMap<A, V> {
    /// Sets the value of `address`.
    pub fn insert(&mut self, address: A, value: V) {
        match address.family() {
            Family::V4(address) => self.v4.insert(address, value),
            Family::V6(address) => self.v6.insert(address, value),
        }
    }

    /// Removes `address`. Returns whether it was there.
    pub fn remove(&mut self, address: &A) -> bool {
        match address.family() {
            Family::V4(address) => self.v4.remove(&address),
            Family::V6(address) => self.v6.remove(&address),
        }
    }

    /// See [`Map::compact`].
    pub fn compact(&mut self) {
        self.v4.compact();
        self.v6.compact();
    }
}

impl<A: Address, V: Clone> FromIterator<(A, V)> for AddressMap<A, V> {
    fn from_iter<I: IntoIterator<Item = (A, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<A: Address, V: Clone> Extend<(A, V)> for AddressMap<A, V> {
    fn extend<I: IntoIterator<Item = (A, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(address, value)| self.insert(address, value));
    }
}

impl<A: Address, V: Eq> PartialEq for AddressMap<A, V> {
    fn eq(&self, other: &Self) -> bool {
        self.v4 == other.v4 && self.v6 == other.v6
    }
}

impl<A: Address, V: Eq> Eq for AddressMap<A, V> {}

impl<A: Address + fmt::Debug, V: fmt::Debug> fmt::Debug for AddressMap<A, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_found() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let all = ["10.0.0.1:80", "10.0.0.1:81", "[::ffff:10.0.0.1]:80", "[fd00::1]:80", "[fd00::1%3]:80"].map(address);
        let mut map: AddressMap<SocketAddr, usize> = all.into_iter().zip(0..).collect();
        assert_eq!((map.len(), map.keys().count()), (all.len(), all.len()));
        for (number, address) in all.iter().enumerate() {
            assert_eq!(map.get(address), Some(&number));
            assert_eq!(map.iter().find(|(known, _)| known == address), Some((*address, &number)));
        }
        let other = map.clone();
        assert!(map.remove(&all[2]) && !map.remove(&all[2]) && !map.contains_key(&all[2]));
        assert!(map.contains_key(&all[0]) && map != other);
        map.insert(all[2], 2);
        assert_eq!(map, other);
    }
}

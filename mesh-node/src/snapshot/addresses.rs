//! Addresses and ports in little room, since a cluster has many.
//!
//! Out: [`AddressList`].
//! **Shape**: six bytes for an endpoint of IPv4, where one of either family takes 32.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// Addresses and ports, ordered and without duplicates.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AddressList {
    v4: Box<[SocketAddrV4]>,
    v6: Box<[SocketAddrV6]>,
}

impl AddressList {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each of them, in order: those of IPv4 first.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SocketAddr> + Clone {
        let (v4, v6) = (&self.v4, &self.v6);
        (0..self.len()).map(|at| v4.get(at).map_or_else(|| v6[at - v4.len()].into(), |&address| address.into()))
    }
}

impl FromIterator<SocketAddr> for AddressList {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                SocketAddr::V4(address) => v4.push(address),
                SocketAddr::V6(address) => v6.push(address),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        Self { v4: v4.into(), v6: v6.into() }
    }
}

impl fmt::Debug for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ordered_and_told_once() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let all = ["[fd00::1]:80", "10.0.0.2:80", "10.0.0.1:81", "10.0.0.2:80", "10.0.0.1:80", "[fd00::1]:80"];
        let list: AddressList = all.into_iter().map(address).collect();
        let expected = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[fd00::1]:80"].map(address);
        assert!(list.iter().eq(expected) && expected.is_sorted());
        assert_eq!((list.len(), list.iter().len()), (4, 4));
        assert!(AddressList::default().is_empty() && AddressList::default().iter().next().is_none());
    }
}

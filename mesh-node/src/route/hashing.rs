//! Consistent hashing: one key keeps to one endpoint while the set of endpoints holds.
//!
//! In:  endpoints with their weights, in a fixed order; the hash of a request's key.
//! Out: [`Ring`] and [`Maglev`], which give the order in which endpoints are tried.
//! Invariant: pure; equal sets give equal tables on every node.
//! Source: Karger et al., "Consistent Hashing and Random Trees" (1997); Eisenbud et al., "Maglev" (NSDI 2016),
//! section 3.4.

use std::net::SocketAddr;

/// The most places on a ring.
const MOST: usize = 1 << 20;

/// What [`fnv`] begins with.
pub(super) const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a of what was hashed to `hash`, followed by `bytes`.
pub(super) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A well-mixed number of some bytes: FNV-1a, then a finalizer.
#[must_use]
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = fnv(FNV_START ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), bytes);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Endpoints on a circle; a key belongs to the first that follows it.
#[derive(Clone, Debug)]
pub struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// A ring with at least `minimum` places, shared by weight.
    #[must_use]
    pub fn new(endpoints: &[(SocketAddr, u32)], minimum: u32) -> Self {
        let total: u64 = endpoints.iter().map(|&(_, weight)| u64::from(weight.max(1))).sum();
        // A power of two for each unit of weight: another endpoint then changes no place of those that are there, but
        // where the number of places doubles.
        let unit = u64::from(minimum).div_ceil(total.max(1)).next_power_of_two();
        let mut places = Vec::new();
        for (at, &(address, weight)) in (0_u32..).zip(endpoints) {
            let share = unit.saturating_mul(u64::from(weight.max(1)));
            let text = address.to_string();
            places.extend((0..share).map(|place| (hash(text.as_bytes(), place + 1), at)));
            if places.len() > MOST {
                places.truncate(MOST);
                break;
            }
        }
        places.sort_unstable();
        Self(places)
    }

    /// The index of the endpoint that `key` belongs to, then of those that follow.
    pub fn order(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.0.partition_point(|&(place, _)| place < key);
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|&(_, at)| at as usize)
    }
}

/// Maglev's table, which spreads keys evenly and moves few when an endpoint leaves.
#[derive(Clone, Debug)]
pub struct Maglev(Vec<u32>);

impl Maglev {
    /// A table of `size` places; a prime, many times the number of endpoints.
    #[must_use]
    pub fn new(endpoints: &[(SocketAddr, u32)], size: u32) -> Self {
        const NOBODY: u32 = u32::MAX;
        let size = u64::from(size.clamp(3, 5_000_011));
        let mut table = vec![NOBODY; usize::try_from(size).unwrap_or_default()];
        let most = endpoints.iter().map(|&(_, weight)| weight.max(1)).max().unwrap_or(1);
        // Where each endpoint begins, by how much it goes on, how far it has come, and what share it is owed.
        let mut wishes: Vec<(u64, u64, u64, u64)> = endpoints
            .iter()
            .map(|(address, _)| {
                let text = address.to_string();
                (hash(text.as_bytes(), 1) % size, hash(text.as_bytes(), 2) % (size - 1) + 1, 0, 0)
            })
            .collect();
        let mut free = if endpoints.is_empty() { 0 } else { size };
        while free > 0 {
            for (at, (offset, skip, next, owed)) in (0_u32..).zip(wishes.iter_mut()) {
                // The heaviest takes a place each round, one of half its weight every other.
                *owed += u64::from(endpoints[at as usize].1.max(1));
                if *owed < u64::from(most) || free == 0 {
                    continue;
                }
                *owed -= u64::from(most);
                loop {
                    let place = usize::try_from((*offset + *next * *skip) % size).unwrap_or_default();
                    *next += 1;
                    if table[place] == NOBODY {
                        table[place] = at;
                        free -= 1;
                        break;
                    }
                    if *next > size {
                        // Only with a size that is no prime; the rest is filled in order.
                        if let Some(place) = table.iter_mut().find(|place| **place == NOBODY) {
                            *place = at;
                            free -= 1;
                        }
                        break;
                    }
                }
            }
        }
        table.retain(|&at| at != NOBODY);
        Self(table)
    }

    /// The index of the endpoint that `key` belongs to, then of those that follow.
    pub fn order(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = usize::try_from(key % (self.0.len().max(1) as u64)).unwrap_or_default();
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|&at| at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u8) -> Vec<(SocketAddr, u32)> {
        (1..=count).map(|n| (SocketAddr::from(([10, 0, 0, n], 9080)), 1)).collect()
    }

    fn owners(count: u8, of: impl Fn(u64) -> Option<usize>) -> (Vec<usize>, Vec<u32>) {
        let mut counts = vec![0; usize::from(count)];
        let owners: Vec<usize> = (0..10_000_u64).map(|n| of(hash(&n.to_be_bytes(), 0)).expect("an endpoint")).collect();
        owners.iter().for_each(|&at| counts[at] += 1);
        (owners, counts)
    }

    fn moved(before: &[usize], after: &[usize], gone: usize) -> usize {
        before.iter().zip(after).filter(|(before, after)| **before != gone && before != after).count()
    }

    #[test]
    fn keys_spread_and_stay() {
        let (five, four) = (Ring::new(&endpoints(5), 4096), Ring::new(&endpoints(4), 4096));
        let (before, counts) = owners(5, |key| five.order(key).next());
        assert!(counts.iter().all(|count| (1_600..2_400).contains(count)), "{counts:?}");
        let (after, _) = owners(4, |key| four.order(key).next());
        assert_eq!(moved(&before, &after, 4), 0);

        let (five, four) = (Maglev::new(&endpoints(5), 65_537), Maglev::new(&endpoints(4), 65_537));
        let (before, counts) = owners(5, |key| five.order(key).next());
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
        let (after, _) = owners(4, |key| four.order(key).next());
        // Maglev trades a little movement for evenness.
        assert!(moved(&before, &after, 4) < 1_500, "{}", moved(&before, &after, 4));
    }

    #[test]
    fn weights_count() {
        let mut three = endpoints(3);
        three[0].1 = 2;
        let maglev = Maglev::new(&three, 65_537);
        let (_, counts) = owners(3, |key| maglev.order(key).next());
        assert!((4_700..5_300).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(Ring::new(&[], 1024).order(7).next(), None);
        assert_eq!(Maglev::new(&[], 65_537).order(7).next(), None);
        assert!(Maglev::new(&endpoints(3), 4).order(7).next().is_some());
    }
}

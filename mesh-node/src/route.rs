//! What becomes of a connection or a request: which route, which endpoint, and how it is changed.
//!
//! In:  endpoints in a fixed order, a random number or the client's address; a request, and what a rule says of it.
//! Out: a choice; in the modules, whether a condition is met and what a request becomes.
//! Invariant: pure; the same input gives the same choice.
//! Source: kube-proxy's random choice; Kubernetes `Service.spec.sessionAffinity`.

pub mod cors;
pub mod hashing;
pub mod matching;
pub mod rewriting;

use std::net::{IpAddr, SocketAddr};

/// The endpoint for one connection by chance: uniform for a uniform `random`. `None` if there are none.
#[must_use]
pub fn by_chance(mut endpoints: impl ExactSizeIterator<Item = SocketAddr>, random: u64) -> Option<SocketAddr> {
    let at = below(u64::try_from(endpoints.len()).ok()?, random);
    endpoints.nth(usize::try_from(at).ok()?)
}

/// One of `items` by chance, by their weights: as likely as its share for a uniform `random`. `None` if none has a weight.
#[must_use]
pub fn by_weight<T>(items: impl Iterator<Item = T> + Clone, weight: impl Fn(&T) -> u32, random: u64) -> Option<T> {
    let total = items.clone().map(|item| u64::from(weight(&item))).sum();
    let mut at = below(total, random);
    let mut items = items;
    items.find(|item| {
        let weight = u64::from(weight(item));
        let found = at < weight;
        at = at.saturating_sub(weight);
        found
    })
}

/// A number that is uniform over `0..bound` for a uniform `random`: the high half of the product, without a division.
fn below(bound: u64, random: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(bound)) >> 64).unwrap_or_default()
}

/// The endpoint that `client` keeps to while the set of endpoints holds: rendezvous hashing, so that a
/// change of the set moves only the clients of endpoints that left or came. `None` if there are none.
#[must_use]
pub fn by_client(endpoints: impl Iterator<Item = SocketAddr>, client: IpAddr) -> Option<SocketAddr> {
    endpoints.max_by_key(|endpoint| weight(client, *endpoint))
}

/// A well-mixed number of the pair: FNV-1a over the bytes, then a finalizer.
fn weight(client: IpAddr, endpoint: SocketAddr) -> u64 {
    let mut hash = hashing::FNV_START;
    let mut eat = |bytes: &[u8]| hash = hashing::fnv(hash, bytes);
    for address in [client, endpoint.ip()] {
        match address {
            IpAddr::V4(address) => eat(&address.octets()),
            IpAddr::V6(address) => eat(&address.octets()),
        }
    }
    eat(&endpoint.port().to_be_bytes());
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|n| SocketAddr::from(([10, 0, 0, n], 9080))).collect()
    }

    #[test]
    fn chance_covers_all_and_only_the_endpoints() {
        let endpoints = endpoints(3);
        assert_eq!(by_chance([].into_iter(), 7), None);
        assert_eq!(by_chance(endpoints.iter().copied(), 0), Some(endpoints[0]));
        assert_eq!(by_chance(endpoints.iter().copied(), u64::MAX / 2), Some(endpoints[1]));
        assert_eq!(by_chance(endpoints.iter().copied(), u64::MAX), Some(endpoints[2]));
    }

    #[test]
    fn weights_are_shares_and_nobody_without_one_is_chosen() {
        let items = [("none", 0), ("one", 1), ("three", 3)];
        let chosen = |random| by_weight(items.iter(), |item| item.1, random).map(|item| item.0);
        let quarter = u64::MAX / 4;
        assert_eq!(
            [0, quarter - 1, quarter + 1, u64::MAX].map(chosen),
            [Some("one"), Some("one"), Some("three"), Some("three")]
        );
        assert_eq!(by_weight(items[..1].iter(), |item| item.1, 7), None);
    }

    #[test]
    fn a_client_moves_only_when_its_endpoint_leaves() {
        let (before, after) = (endpoints(5), endpoints(4));
        for n in 0..=255_u8 {
            let client = IpAddr::from([10, 1, 0, n]);
            let choice = by_client(before.iter().copied(), client).expect("there are endpoints");
            if choice != before[4] {
                assert_eq!(by_client(after.iter().copied(), client), Some(choice));
            }
        }
    }

    #[test]
    fn clients_spread_over_the_endpoints() {
        let endpoints = endpoints(4);
        let mut counts = [0_u32; 4];
        for n in 0..1024_u32 {
            let [_, _, high, low] = n.to_be_bytes();
            let choice =
                by_client(endpoints.iter().copied(), IpAddr::from([10, 1, high, low])).expect("there are endpoints");
            counts[usize::from(choice.ip().to_string().as_bytes()[7] - b'1')] += 1;
        }
        assert!(counts.iter().all(|&count| (180..340).contains(&count)), "{counts:?}");
    }
}

use super::Map;
use fastrand::Rng;
use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

#[test]
fn it_is_a_map_whatever_happens_to_it() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let keys = rng.u32(1..20_000);
        let (mut map, mut expected) = (Map::default(), HashMap::new());
        let mut earlier = Vec::new();
        for step in 0..20_000 {
            let key = rng.u32(..keys);
            if rng.u8(..3) == 0 {
                assert_eq!(map.remove(&key), expected.remove(&key).is_some(), "seed {seed}");
            } else {
                map.insert(key, step);
                expected.insert(key, step);
            }
            if step % 5_000 == 0 {
                earlier.push((map.clone(), expected.clone()));
            }
        }
        for (map, expected) in earlier.iter().chain([&(map, expected)]) {
            assert_eq!(map.len(), expected.len(), "seed {seed}");
            assert!(map.iter().all(|(key, value)| expected.get(key) == Some(value)), "seed {seed}");
            assert!((0..keys).all(|key| map.get(&key) == expected.get(&key)), "seed {seed}");
            let mut fresh: Vec<_> = expected.iter().map(|(&key, &value)| (key, value)).collect();
            rng.shuffle(&mut fresh);
            assert_eq!(*map, fresh.into_iter().collect(), "seed {seed}: equal content is equal");
            let mut compact = map.clone();
            compact.compact();
            assert_eq!(*map, compact, "seed {seed}: it has the same content elsewhere");
        }
        let (last, other) = (&earlier[1].0, &earlier[2].0);
        assert_ne!(last, other, "seed {seed}");
    }
}

#[test]
fn a_changed_copy_leaves_the_original_as_it_was() {
    let original: Map<u32, u32> = (0..1_000).map(|n| (n, n)).collect();
    let mut copy = original.clone();
    copy.insert(7, 8);
    copy.remove(&9);
    assert_eq!((original.get(&7), original.get(&9), original.len()), (Some(&7), Some(&9), 1_000));
    assert_eq!((copy.get(&7), copy.get(&9), copy.len()), (Some(&8), None, 999));
    copy.insert(7, 7);
    copy.insert(9, 9);
    assert_eq!(copy, original);
    (0..1_000).for_each(|n| assert!(copy.remove(&n)));
    assert_eq!(copy, Map::default());
}

/// `cargo test --release -- --nocapture lookups` prints what a lookup costs beside the standard library's map.
#[test]
fn lookups_cost_about_what_a_hash_map_asks() {
    const ENTRIES: u32 = 100_000;
    let address = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0001 + n));
    let hash_map: HashMap<IpAddr, Arc<u32>> = (0..ENTRIES).map(|n| (address(n), Arc::new(n))).collect();
    let map: Map<IpAddr, Arc<u32>> = hash_map.iter().map(|(key, value)| (*key, Arc::clone(value))).collect();
    let mut rng = Rng::with_seed(1);
    let asked: Vec<IpAddr> = (0..ENTRIES).map(|_| address(rng.u32(..ENTRIES))).collect();
    let timed = |lookup: &dyn Fn(&IpAddr) -> bool| {
        let run = |_| {
            let start = Instant::now();
            assert!(asked.iter().all(lookup));
            start.elapsed() / ENTRIES
        };
        (0..5).map(run).min().expect("five")
    };
    let theirs = timed(&|key| black_box(hash_map.get(key)).is_some());
    let ours = timed(&|key| black_box(map.get(key)).is_some());
    let start = Instant::now();
    let mut changed = map.clone();
    for key in &asked[..10_000] {
        let copy = changed.clone();
        changed.insert(*key, Arc::new(1));
        drop(copy);
    }
    let change = start.elapsed() / 10_000;
    println!("a lookup among {ENTRIES}: {ours:?}, in a HashMap {theirs:?}; a changed copy: {change:?}");
    assert!(ours < theirs * 6, "{ours:?}, in a HashMap {theirs:?}");
}

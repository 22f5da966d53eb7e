//! Decisions of steering that need no kernel.

use super::*;

#[test]
fn ports_excluded_on_both_sides_are_one_entry() {
    let ports = excluded_ports(&[53, 9000], &[9000, 15020]);
    let expected = [(53, EXCLUDE_OUTBOUND), (9000, EXCLUDE_OUTBOUND | EXCLUDE_INBOUND), (15020, EXCLUDE_INBOUND)];
    assert_eq!(ports, BTreeMap::from(expected));
}

#[test]
fn addresses_are_words_in_network_order() {
    let v4 = maps::address("10.65.0.1".parse().expect("an address"));
    assert_eq!(v4, [0, 0, mesh_common::map::MAPPED_PREFIX, u32::from_ne_bytes([10, 65, 0, 1])]);
    let v6 = maps::address("fd00::1".parse().expect("an address"));
    assert_eq!(v6, [u32::from_ne_bytes([0xfd, 0, 0, 0]), 0, 0, 1_u32.to_be()]);
}

#[test]
fn a_pod_has_slots_for_the_families_it_has() {
    let slots = |addresses: &[&str]| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        maps::slots(&maps::pod(&addresses)).map(|(side, v6, _)| (side, v6)).collect::<Vec<_>>()
    };
    assert_eq!(slots(&["10.65.0.1"]), [(Side::Outbound, false), (Side::Inbound, false)]);
    assert_eq!(slots(&["fd00::1"]), [(Side::Outbound, true), (Side::Inbound, true)]);
    assert_eq!(slots(&["10.65.0.1", "fd00::1"]).len(), 4);
    assert!(slots(&[]).is_empty());
}

#[test]
fn steering_may_live_on_a_thread_of_its_own() {
    fn is_send<T: Send>() {}
    is_send::<Steering>();
}

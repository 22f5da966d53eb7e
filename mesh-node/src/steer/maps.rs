//! The pinned maps, with their types.
//!
//! In:  pins; pods, listeners and exclusions in the daemon's own types.
//! Out: what the programs see.
//! Invariant: keys and values are those of `mesh-common`; byte order has its home here.

use super::pins::Pins;
use super::{Prefix, SteerError};
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData, MapError, PerCpuArray, SockHash};
use mesh_common::map::{Address, ExcludedSides, Fate, ListenerKey, PodConfig, Side};
use mesh_common::pin;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsRawFd;

/// Every pinned map but the counters.
pub(super) struct Maps {
    pods: HashMap<MapData, u64, PodConfig>,
    listeners: SockHash<MapData, ListenerKey>,
    ports: HashMap<MapData, u32, ExcludedSides>,
    prefixes: LpmTrie<MapData, Address, u32>,
}

/// `BPF_NOEXIST`: only if there is none.
const IF_MISSING: u64 = 1;

impl Maps {
    /// The maps, which [`super::programs::load`] has made.
    pub(super) fn open(pins: &Pins) -> Result<Self, SteerError> {
        Ok(Self {
            pods: typed(pins, pin::PODS, |data| aya::maps::Map::HashMap(data).try_into())?,
            listeners: typed(pins, pin::LISTENERS, |data| aya::maps::Map::SockHash(data).try_into())?,
            ports: typed(pins, pin::EXCLUDED_PORTS, |data| aya::maps::Map::HashMap(data).try_into())?,
            prefixes: typed(pins, pin::EXCLUDED_PREFIXES, |data| aya::maps::Map::LpmTrie(data).try_into())?,
        })
    }

    /// The pod whose namespace has this cookie.
    pub(super) fn pod(&self, cookie: u64) -> Result<Option<PodConfig>, SteerError> {
        match self.pods.get(&cookie, 0) {
            Ok(pod) => Ok(Some(pod)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(failed(pin::PODS)(source)),
        }
    }

    /// Makes connections of this namespace captured from now on.
    pub(super) fn set_pod(&mut self, cookie: u64, pod: &PodConfig) -> Result<(), SteerError> {
        self.pods.insert(&cookie, pod, 0).map_err(failed(pin::PODS))
    }

    /// Makes connections of this namespace captured no more.
    pub(super) fn remove_pod(&mut self, cookie: u64) -> Result<(), SteerError> {
        absent_is_fine(self.pods.remove(&cookie)).map_err(failed(pin::PODS))
    }

    /// Every namespace with an enrolled pod.
    pub(super) fn cookies(&self) -> Result<Vec<u64>, SteerError> {
        self.pods.keys().collect::<Result<_, _>>().map_err(failed(pin::PODS))
    }

    /// Puts a listener into its slot, in place of any other.
    pub(super) fn set_listener(&mut self, key: &ListenerKey, listener: &TcpListener) -> Result<(), SteerError> {
        self.listeners.insert(key, listener.as_raw_fd(), 0).map_err(failed(pin::LISTENERS))
    }

    /// Puts a listener into its slot if that is empty; true if it was.
    pub(super) fn fill_listener(&mut self, key: &ListenerKey, listener: &TcpListener) -> Result<bool, SteerError> {
        match self.listeners.insert(key, listener.as_raw_fd(), IF_MISSING) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(false),
            Err(source) => Err(failed(pin::LISTENERS)(source)),
        }
    }

    /// Empties a slot.
    pub(super) fn remove_listener(&mut self, key: &ListenerKey) -> Result<(), SteerError> {
        absent_is_fine(self.listeners.remove(key)).map_err(failed(pin::LISTENERS))
    }

    /// Every slot with a listener.
    pub(super) fn listeners(&self) -> Result<Vec<ListenerKey>, SteerError> {
        self.listeners.keys().collect::<Result<_, _>>().map_err(failed(pin::LISTENERS))
    }

    /// Makes the excluded ports and prefixes exactly these; how many had to be changed.
    pub(super) fn set_exclusions(
        &mut self,
        ports: &BTreeMap<u32, ExcludedSides>,
        prefixes: &[Prefix],
    ) -> Result<u32, SteerError> {
        Ok(self.set_ports(ports)? + self.set_prefixes(prefixes)?)
    }

    fn set_ports(&mut self, wanted: &BTreeMap<u32, ExcludedSides>) -> Result<u32, SteerError> {
        let refused = failed(pin::EXCLUDED_PORTS);
        let mut changes = 0;
        let actual: BTreeMap<u32, ExcludedSides> = self.ports.iter().collect::<Result<_, _>>().map_err(refused)?;
        for port in actual.keys().filter(|port| !wanted.contains_key(port)) {
            absent_is_fine(self.ports.remove(port)).map_err(refused)?;
            changes += 1;
        }
        for (port, sides) in wanted.iter().filter(|&(port, sides)| actual.get(port) != Some(sides)) {
            self.ports.insert(port, sides, 0).map_err(refused)?;
            changes += 1;
        }
        Ok(changes)
    }

    fn set_prefixes(&mut self, wanted: &[Prefix]) -> Result<u32, SteerError> {
        let refused = failed(pin::EXCLUDED_PREFIXES);
        let mut changes = 0;
        let wanted: Vec<(u32, Address)> = wanted.iter().map(|prefix| prefix.key()).collect();
        let keys: Vec<Key<Address>> = self.prefixes.keys().collect::<Result<_, _>>().map_err(refused)?;
        let actual: Vec<(u32, Address)> = keys.iter().map(|key| (key.prefix_len(), key.data())).collect();
        for &(length, address) in actual.iter().filter(|prefix| !wanted.contains(prefix)) {
            absent_is_fine(self.prefixes.remove(&Key::new(length, address))).map_err(refused)?;
            changes += 1;
        }
        for &(length, address) in wanted.iter().filter(|prefix| !actual.contains(prefix)) {
            self.prefixes.insert(&Key::new(length, address), &1, 0).map_err(refused)?;
            changes += 1;
        }
        Ok(changes)
    }
}

/// The counters, by [`Fate`].
pub(super) struct Fates(PerCpuArray<MapData, u64>);

impl Fates {
    /// The pinned counters.
    pub(super) fn open(pins: &Pins) -> Result<Self, SteerError> {
        typed(pins, pin::FATES, |data| aya::maps::Map::PerCpuArray(data).try_into()).map(Self)
    }

    /// Each counter, summed over the processors.
    pub(super) fn read(&self) -> Result<[u64; Fate::ALL.len()], SteerError> {
        let mut sums = [0; Fate::ALL.len()];
        for (index, sum) in (0..).zip(&mut sums) {
            *sum = self.0.get(&index, 0).map_err(failed(pin::FATES))?.iter().sum();
        }
        Ok(sums)
    }
}

/// An address as the programs compare it.
pub(super) fn address(address: IpAddr) -> Address {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

/// A pod as the programs see it.
pub(super) fn pod(addresses: &[IpAddr]) -> PodConfig {
    let first = |v6: bool| addresses.iter().find(|address| address.is_ipv6() == v6);
    PodConfig {
        address4: first(false).map_or([0; 4], |&found| address(found)),
        address6: first(true).map_or([0; 4], |&found| address(found)),
    }
}

/// The slots of a pod, and whether each is for IPv6.
pub(super) fn slots(pod: &PodConfig) -> impl Iterator<Item = (Side, bool, ListenerKey)> {
    [(Side::Outbound, false), (Side::Outbound, true), (Side::Inbound, false), (Side::Inbound, true)]
        .into_iter()
        .map(|(side, v6)| (side, v6, if v6 { pod.address6 } else { pod.address4 }))
        .filter(|(_, _, address)| *address != [0; 4])
        .map(|(side, v6, address)| (side, v6, ListenerKey { address, side: side as u32 }))
}

fn typed<T>(
    pins: &Pins,
    name: &'static str,
    convert: impl FnOnce(MapData) -> Result<T, MapError>,
) -> Result<T, SteerError> {
    MapData::from_pin(pins.node(name)).and_then(convert).map_err(failed(name))
}

fn failed(name: &'static str) -> impl Fn(MapError) -> SteerError + Copy {
    move |source| SteerError::Map { name, source: Box::new(source) }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn errno(error: &MapError) -> Option<i32> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        source = error.source();
    }
    None
}

//! What a compiled thing depends on, and who depends on what.
//!
//! In:  what was looked up while something was compiled.
//! Out: [`Reads`]; [`Readers`], by which it is found when what it depends on changes.

use crate::model::{Name, Text};
use crate::translate::TrafficUnit as Unit;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Services, be they there or not.
    pub(super) services: BTreeSet<Name>,
    /// Addresses of which it was asked which labels the pod has that is there.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Namespaces of which every pod was asked for its labels and its address.
    pub(super) namespaces: BTreeSet<Text>,
}

impl Reads {
    pub(super) fn extend(&mut self, other: &Self) {
        self.services.extend(other.services.iter().cloned());
        self.addresses.extend(&other.addresses);
        self.namespaces.extend(other.namespaces.iter().cloned());
    }
}

/// Who looked up what.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    services: BTreeSet<(Name, Unit)>,
    addresses: BTreeSet<(IpAddr, Unit)>,
    namespaces: BTreeSet<(Text, Unit)>,
}

impl Readers {
    pub(super) fn add(&mut self, unit: &Unit, reads: &Reads) {
        self.services.extend(reads.services.iter().map(|name| (name.clone(), unit.clone())));
        self.addresses.extend(reads.addresses.iter().map(|address| (*address, unit.clone())));
        self.namespaces.extend(reads.namespaces.iter().map(|namespace| (namespace.clone(), unit.clone())));
    }

    pub(super) fn remove(&mut self, unit: &Unit, reads: &Reads) {
        for name in &reads.services {
            self.services.remove(&(name.clone(), unit.clone()));
        }
        for address in &reads.addresses {
            self.addresses.remove(&(*address, unit.clone()));
        }
        for namespace in &reads.namespaces {
            self.namespaces.remove(&(namespace.clone(), unit.clone()));
        }
    }

    /// Has anything been asked of pods?
    pub(super) fn know_pods(&self) -> bool {
        !self.addresses.is_empty() || !self.namespaces.is_empty()
    }

    pub(super) fn of_service(&self, name: &Name) -> impl Iterator<Item = &Unit> + use<'_> {
        of(&self.services, name)
    }

    pub(super) fn of_address(&self, address: IpAddr) -> impl Iterator<Item = &Unit> + use<'_> {
        of(&self.addresses, &address)
    }

    pub(super) fn of_namespace(&self, namespace: &Text) -> impl Iterator<Item = &Unit> + use<'_> {
        of(&self.namespaces, namespace)
    }
}

/// The readers of `key`, the hosts first.
fn of<'r, K: Ord + Clone>(readers: &'r BTreeSet<(K, Unit)>, key: &K) -> impl Iterator<Item = &'r Unit> + use<'r, K> {
    let key = key.clone();
    let from = readers.range((key.clone(), Unit::Hosts)..);
    from.take_while(move |(of, _)| *of == key).map(|(_, unit)| unit)
}

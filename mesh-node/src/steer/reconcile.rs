//! Checks that the kernel is as it was made, and puts right what is not.
//!
//! In:  one call a second.
//! Out: repairs, counted by kind.
//! Invariant: each call checks the node and a share of the pods, so that four calls check every pod.
//! Invariant: a daemon that no longer steers repairs nothing.

use super::{Hook, SteerError, Steering, listener, maps, metrics, network, programs};
use crate::snapshot::PodKey;
use crate::sys::bpf::PinnedLink;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// The number of calls in which every pod is checked.
const SHARES: usize = 4;

/// What was not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// A program's link was not pinned, or no longer attached.
    Link,
    /// A pod's entry in `PODS`.
    Pod,
    /// A listener's slot.
    Listener,
    /// An excluded port or prefix.
    Exclusion,
    /// A routing rule.
    Rule,
    /// A route.
    Route,
    /// A kernel setting.
    Sysctl,
}

impl Repair {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Link, Self::Pod, Self::Listener, Self::Exclusion, Self::Rule, Self::Route, Self::Sysctl];

    /// The name used as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Pod => "pod",
            Self::Listener => "listener",
            Self::Exclusion => "exclusion",
            Self::Rule => "rule",
            Self::Route => "route",
            Self::Sysctl => "sysctl",
        }
    }
}

/// What one call of [`Steering::reconcile`] did.
#[derive(Debug, Default)]
pub struct Repairs {
    /// How often each kind was put right.
    pub made: BTreeMap<Repair, u32>,
    /// What could not be checked or put right; it is tried again at the next turn. The node itself has no key.
    pub failed: Vec<(Option<PodKey>, SteerError)>,
}

impl Steering {
    /// Checks the node and a share of the pods, and puts right what is not as it was made. A daemon that does not
    /// steer does nothing.
    pub fn reconcile(&mut self) -> Repairs {
        let mut repairs = Repairs::default();
        let _turn = match self.owner.turn() {
            Ok(turn) => turn,
            Err(SteerError::NotOwner) => return repairs,
            Err(error) => {
                repairs.failed.push((None, error));
                return repairs;
            }
        };
        let mut made = Vec::new();
        if let Err(error) = self.check_node(&mut made) {
            repairs.failed.push((None, error));
        }
        for key in self.share() {
            if let Err(error) = self.check_pod(&key, &mut made) {
                repairs.failed.push((Some(key), error));
            }
        }
        for repair in made {
            self.repairs.get_or_create(&metrics::label(repair)).inc();
            *repairs.made.entry(repair).or_default() += 1;
        }
        repairs
    }

    /// The pods whose turn it is.
    fn share(&mut self) -> Vec<PodKey> {
        let count = self.pods.len().div_ceil(SHARES);
        let after = self.checked.take().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.pods.range::<PodKey, _>((after, Bound::Unbounded)).map(|(key, _)| key);
        let share: Vec<PodKey> = rest.chain(self.pods.keys()).take(count).cloned().collect();
        self.checked = share.last().cloned();
        share
    }

    fn check_node(&mut self, made: &mut Vec<Repair>) -> Result<(), SteerError> {
        let changes = self.maps.set_exclusions(&self.excluded_ports, &self.excluded_prefixes)?;
        made.extend((0..changes).map(|_| Repair::Exclusion));
        if let Hook::Cgroup(_) = self.hook {
            let lost = lost(programs::of_node(&self.hook), |name| self.pins.node(name))?;
            if !lost.is_empty() {
                self.attach_node(&lost)?;
                made.extend(lost.iter().map(|_| Repair::Link));
            }
        }
        Ok(())
    }

    fn check_pod(&mut self, key: &PodKey, made: &mut Vec<Repair>) -> Result<(), SteerError> {
        let Some(steered) = self.pods.get(key) else { return Ok(()) };
        made.extend(network::ensure((&steered.ns, &self.settings), &self.hook, &steered.addresses)?);
        if let Some(net) = steered.net.upgrade() {
            for (side, v6, slot) in maps::slots(&steered.config) {
                let Some(listener) = listener(&net.listeners, side, v6) else { continue };
                if self.maps.fill_listener(&slot, listener)? {
                    made.push(Repair::Listener);
                }
            }
        }
        let lost = lost(programs::of_pod(&self.hook), |name| self.pins.pod(key, name))?;
        if !lost.is_empty() {
            self.attach_pod(key, steered, &lost)?;
            made.extend(lost.iter().map(|_| Repair::Link));
        }
        let (cookie, config, leaving) = (steered.ns.cookie(), steered.config, steered.leaving);
        if !leaving && self.maps.pod(cookie)? != Some(config) {
            self.maps.set_pod(cookie, &config)?;
            made.push(Repair::Pod);
        }
        Ok(())
    }
}

/// Those of the links that are not pinned, or not attached.
fn lost(names: &[&'static str], path: impl Fn(&'static str) -> PathBuf) -> Result<Vec<&'static str>, SteerError> {
    let mut lost = Vec::new();
    for &name in names {
        let path = path(name);
        if !is_attached(&path)? {
            lost.push(name);
        }
    }
    Ok(lost)
}

fn is_attached(path: &Path) -> Result<bool, SteerError> {
    let state = || PinnedLink::open(path)?.map(|link| link.state()).transpose();
    let state = state().map_err(|source| SteerError::Pin { path: path.to_owned(), source })?;
    Ok(state.is_some_and(|state| state.attached))
}

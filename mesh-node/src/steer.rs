//! Makes the kernel steer pods' traffic as the snapshot says.
//!
//! In:  pods of this node with their namespaces and listeners, one call at a time.
//! Out: programs, links, map entries, rules, routes and settings; counters of connections and repairs.
//! Invariant: a pod's entry in `PODS` is written last and removed first: no connection is captured before all that
//! serves it stands.
//! Invariant: fail closed. What is pinned outlives the daemon; without a listener, captured connections wait.
//! Invariant: only the daemon that the file `owner` names changes the kernel.
//! Source: `mesh-common` for names and layouts; `sk_lookup`, `cgroup/connect` and TCX in `bpf(2)`.

mod error;
mod hook;
mod maps;
mod metrics;
mod network;
mod owner;
mod pins;
mod prefix;
pub mod programs;
mod reconcile;
mod saved;

pub use error::SteerError;
pub use hook::Mode;
pub use prefix::{Prefix, PrefixError};
pub use reconcile::{Repair, Repairs};

use crate::snapshot::{LocalPod, PodKey};
use crate::sys::netns::NetNs;
use crate::sys::socket::PodListeners;
use crate::sys::sysctl;
use crate::telemetry::Metrics;
use hook::Hook;
use maps::{Fates, Maps};
use mesh_common::map::{EXCLUDE_INBOUND, EXCLUDE_OUTBOUND, ExcludedSides, Fate, PodConfig, Side};
use mesh_common::pin;
use owner::Owner;
use pins::Pins;
use programs::Constants;
use saved::{Records, Saved};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// How much of the host this process has: all of it, or what a container is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where settings are written: `/proc/sys`, or where a container that has it read-only has the host's.
    pub settings: PathBuf,
    /// May the BPF file system be mounted where there is none? What a container mounts goes with it, and all that is pinned there.
    pub may_mount: bool,
}

impl Default for Host {
    /// All of it.
    fn default() -> Self {
        Self { settings: PathBuf::from(sysctl::ALL), may_mount: true }
    }
}

/// What steering is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much of the host this process has.
    pub host: Host,
    /// The daemon's directory of the BPF file system.
    pub bpf_dir: PathBuf,
    /// The daemon's directory for what must outlive it.
    pub state_dir: PathBuf,
    /// The root of cgroup v2; `None` looks for it among the mounts.
    pub cgroup: Option<PathBuf>,
    /// How connections are captured.
    pub mode: Mode,
    /// Connections that pods make to these ports are left alone.
    pub excluded_outbound_ports: Vec<u16>,
    /// Connections to pods on these ports are left alone.
    pub excluded_inbound_ports: Vec<u16>,
    /// Connections that pods make to these addresses are left alone.
    pub excluded_prefixes: Vec<Prefix>,
}

/// A pod's namespace and the daemon's listeners in it.
#[derive(Debug)]
pub struct PodNet {
    /// The namespace.
    pub ns: Arc<NetNs>,
    /// The listeners.
    pub listeners: PodListeners,
}

/// The kernel, as far as it steers.
pub struct Steering {
    hook: Hook,
    settings: PathBuf,
    excluded_ports: BTreeMap<u32, ExcludedSides>,
    excluded_prefixes: Vec<Prefix>,
    pins: Pins,
    maps: Maps,
    fates: Arc<Fates>,
    owner: Owner,
    records: Records,
    repairs: metrics::Repairs,
    pods: BTreeMap<PodKey, Steered>,
    /// The last pod that was checked.
    checked: Option<PodKey>,
}

/// One pod that this daemon steers.
struct Steered {
    name: String,
    ifname: String,
    addresses: Vec<IpAddr>,
    config: PodConfig,
    ns: Arc<NetNs>,
    /// Whoever serves the listeners may close them.
    net: Weak<PodNet>,
    leaving: bool,
}

impl Steering {
    /// Opens or makes the maps. Nothing is steered before [`Self::take_over`].
    ///
    /// **Errors**: no cgroup v2 where it is demanded, no BPF file system, an unusable directory, or maps that another
    /// layout left.
    pub fn start(config: Config, metrics: &Metrics) -> Result<Self, SteerError> {
        std::fs::create_dir_all(&config.state_dir).map_err(owner::failed(&config.state_dir))?;
        let hook = hook::choose(config.mode, config.cgroup)?;
        let pins = Pins::open(&config.bpf_dir, config.host.may_mount)?;
        let owner = Owner::open(&config.state_dir)?;
        let object = {
            // Two daemons that start together make each map once.
            let _alone = owner.alone()?;
            programs::load(&pins, None)?
        };
        let maps = Maps::open(&pins)?;
        let fates = Arc::new(Fates::open(&pins)?);
        drop(object);
        Ok(Self {
            hook,
            settings: config.host.settings,
            excluded_ports: excluded_ports(&config.excluded_outbound_ports, &config.excluded_inbound_ports),
            excluded_prefixes: config.excluded_prefixes,
            pins,
            maps,
            repairs: metrics::register(metrics, Arc::clone(&fates)),
            fates,
            owner,
            records: Records::open(&config.state_dir)?,
            pods: BTreeMap::new(),
            checked: None,
        })
    }

    /// Becomes the daemon that steers this node: attaches this daemon's programs in place of the old one's. Pods are
    /// still served by the old daemon, each until it is enrolled here.
    ///
    /// **Errors**: a program is refused, or a pin cannot be replaced.
    pub fn take_over(&mut self) -> Result<(), SteerError> {
        let _turn = self.owner.take_over()?;
        self.maps.set_exclusions(&self.excluded_ports, &self.excluded_prefixes)?;
        self.attach_node(programs::of_node(&self.hook))?;
        for stale in [pin::CONNECT4, pin::CONNECT6] {
            if !programs::of_node(&self.hook).contains(&stale) {
                pins::remove(&self.pins.node(stale))?;
            }
        }
        Ok(())
    }

    /// Is this the daemon that steers?
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.owner.is_self()
    }

    /// Opens a pod's namespace, and listeners in it. Nothing is steered yet.
    ///
    /// **Errors**: the namespace is not there, or is not the pod's.
    pub fn open(&self, pod: &LocalPod) -> Result<Arc<PodNet>, SteerError> {
        let refused = |source| SteerError::Namespace { path: pod.netns.clone(), source };
        let ns = NetNs::open(&pod.netns).map_err(refused)?;
        let wrong = |problem: String| SteerError::WrongNamespace { path: pod.netns.clone(), problem };
        let own = NetNs::open("/proc/thread-self/ns/net").map_err(refused)?;
        if ns.cookie() == own.cookie() {
            return Err(wrong("is the node's own".to_owned()));
        }
        if pod.addresses.is_empty() {
            return Err(wrong("cannot be told: the pod has no address".to_owned()));
        }
        let held = network::addresses(&ns)?;
        if let Some(missing) = pod.addresses.iter().find(|address| !held.contains(address)) {
            return Err(wrong(format!("does not hold {missing}")));
        }
        let listeners = PodListeners::open(&ns, &pod.addresses).map_err(refused)?;
        Ok(Arc::new(PodNet { ns: Arc::new(ns), listeners }))
    }

    /// Steers a pod's traffic to the listeners of `net`. What another daemon left is taken over; a pod that this
    /// daemon steers already gets the new listeners.
    ///
    /// **Errors**: [`SteerError::NotOwner`], or the kernel refuses; the pod is then not captured, unless it was.
    pub fn enrol(&mut self, pod: &LocalPod, net: &Arc<PodNet>) -> Result<(), SteerError> {
        let _turn = self.owner.turn()?;
        let steered = Steered {
            name: pod.name.to_string(),
            ifname: pod.ifname.clone(),
            config: maps::pod(&pod.addresses),
            addresses: pod.addresses.clone(),
            ns: Arc::clone(&net.ns),
            net: Arc::downgrade(net),
            leaving: false,
        };
        self.save(pod, &net.ns)?;
        network::ensure((&steered.ns, &self.settings), &self.hook, &steered.addresses)?;
        for (side, v6, key) in maps::slots(&steered.config) {
            if let Some(listener) = listener(&net.listeners, side, v6) {
                self.maps.set_listener(&key, listener)?;
            }
        }
        self.attach_pod(&pod.key, &steered, programs::of_pod(&self.hook))?;
        self.maps.set_pod(steered.ns.cookie(), &steered.config)?;
        self.pods.insert(Arc::clone(&pod.key), steered);
        Ok(())
    }

    /// Captures nothing new of this pod. Open connections go on: rules and listeners stay until [`Self::restore`].
    ///
    /// **Errors**: the kernel refuses.
    pub fn leave(&mut self, key: &PodKey) -> Result<(), SteerError> {
        let _turn = self.owner.turn()?;
        let Some(mut steered) = self.pods.remove(key) else { return Ok(()) };
        steered.leaving = true;
        let left = self
            .maps
            .remove_pod(steered.ns.cookie())
            .and_then(|()| self.attach_pod(key, &steered, programs::of_pod(&self.hook)));
        self.pods.insert(Arc::clone(key), steered);
        left
    }

    /// Gives the pod's namespace back as it was before the mesh.
    ///
    /// **Errors**: the kernel refuses; everything was tried, and may be tried again.
    pub fn restore(&mut self, key: &PodKey) -> Result<(), SteerError> {
        let _turn = self.owner.turn()?;
        let saved = self.records.read(key);
        let ns = match self.pods.get(key) {
            Some(steered) => Some(Arc::clone(&steered.ns)),
            None => saved.as_ref().and_then(Saved::namespace).map(Arc::new),
        };
        let addresses = self.addresses(key, saved.as_ref());
        let cookie = ns.as_ref().map(|ns| ns.cookie()).or(saved.as_ref().map(|saved| saved.cookie));
        let swept = self.remove_objects(key, &addresses, cookie);
        let sysctls = saved.map(|saved| saved.sysctls).unwrap_or_default();
        let restored = ns.map_or(Ok(()), |ns| network::restore((&ns, &self.settings), &addresses, &sysctls));
        swept.and(restored)?;
        self.records.remove(key)?;
        self.pods.remove(key);
        Ok(())
    }

    /// Forgets a pod whose namespace is gone: pins, map entries and records.
    ///
    /// **Errors**: the kernel refuses; everything was tried, and may be tried again.
    pub fn forget(&mut self, key: &PodKey) -> Result<(), SteerError> {
        let _turn = self.owner.turn()?;
        let saved = self.records.read(key);
        let addresses = self.addresses(key, saved.as_ref());
        let cookie = self.pods.get(key).map(|steered| steered.ns.cookie()).or(saved.map(|saved| saved.cookie));
        self.remove_objects(key, &addresses, cookie)?;
        self.records.remove(key)?;
        self.pods.remove(key);
        Ok(())
    }

    /// Removes what belongs to pods that are not kept. Call it only when every source is in sync.
    ///
    /// **Errors**: the kernel refuses; everything was tried, and may be tried again.
    pub fn sweep(&mut self, keep: &BTreeSet<PodKey>) -> Result<(), SteerError> {
        let known = self.pins.pods()?.into_iter().chain(self.records.pods()?);
        let unknown: BTreeSet<PodKey> = known.filter(|key| !keep.contains(key)).collect();
        let results: Vec<_> = unknown.iter().map(|key| self.restore(key)).collect();
        let _turn = self.owner.turn()?;
        let kept: Vec<(u64, PodConfig)> = keep.iter().filter_map(|key| self.expected(key)).collect();
        for cookie in self.maps.cookies()? {
            if !kept.iter().any(|&(kept, _)| kept == cookie) {
                self.maps.remove_pod(cookie)?;
            }
        }
        for slot in self.maps.listeners()? {
            if !kept.iter().any(|(_, pod)| [pod.address4, pod.address6].contains(&slot.address)) {
                self.maps.remove_listener(&slot)?;
            }
        }
        results.into_iter().collect()
    }

    /// Captures nothing new of any pod; open connections go on.
    ///
    /// **Errors**: the kernel refuses; everything was tried.
    pub fn leave_all(&mut self) -> Result<(), SteerError> {
        let keys: Vec<PodKey> = self.pods.keys().cloned().collect();
        let results: Vec<_> = keys.iter().map(|key| self.leave(key)).collect();
        results.into_iter().collect()
    }

    /// Takes the mesh out of this node's kernel: gives back every pod's namespace, also of pods that only a record on disk
    /// knows, and removes all that is pinned. Becomes the daemon that steers, so that another one stops.
    ///
    /// **Errors**: the kernel refuses; what could be removed is, and it may be tried again.
    pub fn uninstall(&mut self) -> Result<(), SteerError> {
        drop(self.owner.take_over()?);
        self.sweep(&BTreeSet::new())?;
        let _turn = self.owner.turn()?;
        self.pins.remove_all()
    }

    /// How many connections met each [`Fate`], in its order.
    ///
    /// **Errors**: the counters cannot be read.
    pub fn fates(&self) -> Result<[u64; Fate::ALL.len()], SteerError> {
        self.fates.read()
    }

    /// What steers, for people.
    #[must_use]
    pub fn describe(&self) -> serde_json::Value {
        let fates: BTreeMap<&str, u64> =
            self.fates().map(|counts| Fate::ALL.into_iter().map(Fate::name).zip(counts).collect()).unwrap_or_default();
        let pods: BTreeMap<&str, serde_json::Value> = self
            .pods
            .iter()
            .map(|(key, pod)| {
                let described = serde_json::json!({
                    "name": pod.name,
                    "addresses": pod.addresses,
                    "netns_cookie": pod.ns.cookie(),
                    "netns_inode": pod.ns.inode(),
                    "leaving": pod.leaving,
                });
                (&**key, described)
            })
            .collect();
        serde_json::json!({
            "hook": match &self.hook {
                Hook::Cgroup(path) => format!("cgroup {}", path.display()),
                Hook::Tcx => "tcx".to_owned(),
            },
            "owner": self.is_owner(),
            "id": self.owner.id(),
            "fates": fates,
            "pods": pods,
        })
    }

    /// Writes down what the namespace is like, unless an earlier enrolment did.
    fn save(&self, pod: &LocalPod, ns: &NetNs) -> Result<(), SteerError> {
        let mut saved = Saved {
            netns: pod.netns.clone(),
            cookie: ns.cookie(),
            addresses: pod.addresses.clone(),
            sysctls: network::read(ns, &network::settings(&self.hook, &pod.addresses))?,
        };
        if let Some(earlier) = self.records.read(&pod.key).filter(|earlier| earlier.cookie == saved.cookie) {
            // What was read just now may be the mesh's own values.
            saved.sysctls.extend(earlier.sysctls);
        }
        self.records.write(&pod.key, &saved)
    }

    /// The addresses that a pod was enrolled with.
    fn addresses(&self, key: &PodKey, saved: Option<&Saved>) -> Vec<IpAddr> {
        let steered = self.pods.get(key).map(|steered| &steered.addresses);
        steered.or(saved.map(|saved| &saved.addresses)).cloned().unwrap_or_default()
    }

    /// The entry in `PODS` that a pod has.
    fn expected(&self, key: &PodKey) -> Option<(u64, PodConfig)> {
        match self.pods.get(key) {
            Some(steered) => Some((steered.ns.cookie(), steered.config)),
            None => self.records.read(key).map(|saved| (saved.cookie, maps::pod(&saved.addresses))),
        }
    }

    /// Removes map entries and links. Everything is tried; the first error is told.
    fn remove_objects(&mut self, key: &PodKey, addresses: &[IpAddr], cookie: Option<u64>) -> Result<(), SteerError> {
        // Addresses are given again, and cookies are counted from boot: a record of an earlier one may bear those of a pod that is
        // steered now.
        let others = || self.pods.iter().filter(|(other, _)| *other != key).map(|(_, pod)| pod);
        let mut results = Vec::new();
        let own = cookie.filter(|cookie| others().all(|pod| pod.ns.cookie() != *cookie));
        results.extend(own.map(|cookie| self.maps.remove_pod(cookie)));
        results.push(self.pins.remove_pod(key));
        let config = maps::pod(addresses);
        let has = |pod: &Steered, address| [pod.config.address4, pod.config.address6].contains(&address);
        let slots = maps::slots(&config).map(|(_, _, slot)| slot);
        let own: Vec<_> = slots.filter(|slot| others().all(|pod| !has(pod, slot.address))).collect();
        results.extend(own.iter().map(|slot| self.maps.remove_listener(slot)));
        results.into_iter().collect()
    }

    /// Attaches these of the node's programs.
    fn attach_node(&self, names: &[&'static str]) -> Result<(), SteerError> {
        let Hook::Cgroup(path) = &self.hook else { return Ok(()) };
        let cgroup =
            std::fs::File::open(path).map_err(|source| SteerError::Cgroup { at: Some(path.clone()), source })?;
        let mut object = programs::load(&self.pins, None)?;
        names.iter().try_for_each(|name| programs::attach_to_cgroup(&mut object, &self.pins, name, &cgroup))
    }

    /// Attaches these of a pod's programs, and detaches those of another mode.
    fn attach_pod(&self, key: &PodKey, steered: &Steered, names: &[&'static str]) -> Result<(), SteerError> {
        self.pins.make_pod(key)?;
        let constants = Constants { pod: steered.config, leaving: steered.leaving };
        let mut object = programs::load(&self.pins, Some(constants))?;
        for name in names {
            let target = (&*steered.ns, steered.ifname.as_str());
            programs::attach_to_pod(&mut object, &self.pins.pod(key, name), name, target)?;
        }
        for stale in [pin::TC_EGRESS, pin::TC_LO] {
            if !programs::of_pod(&self.hook).contains(&stale) {
                pins::remove(&self.pins.pod(key, stale))?;
            }
        }
        Ok(())
    }
}

/// The listener for one side and family.
fn listener(listeners: &PodListeners, side: Side, v6: bool) -> Option<&TcpListener> {
    match (side, v6) {
        (Side::Outbound, false) => listeners.outbound4.as_ref(),
        (Side::Outbound, true) => listeners.outbound6.as_ref(),
        (Side::Inbound, false) => listeners.inbound4.as_ref(),
        (Side::Inbound, true) => listeners.inbound6.as_ref(),
    }
}

fn excluded_ports(outbound: &[u16], inbound: &[u16]) -> BTreeMap<u32, ExcludedSides> {
    let mut ports = BTreeMap::new();
    for (side, list) in [(EXCLUDE_OUTBOUND, outbound), (EXCLUDE_INBOUND, inbound)] {
        for &port in list {
            *ports.entry(u32::from(port)).or_default() |= side;
        }
    }
    ports
}

#[cfg(test)]
mod tests;

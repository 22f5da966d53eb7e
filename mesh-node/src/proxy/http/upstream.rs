//! How a pod stands with each of its upstreams: what is under way there, and which endpoints are left out.
//!
//! In:  the upstream as the snapshot has it; how each attempt went.
//! Out: an endpoint for the next attempt.
//! Invariant: what is known of an upstream stays over snapshots; of an endpoint that left, it goes with it.
//! Invariant: never is nobody chosen while there are endpoints that were not tried.
//! Source: Envoy, "Outlier detection" and "Circuit breaking", whose notions Istio's `DestinationRule` has.

use super::budget::Budget;
use crate::model::http::{Balance, OutlierDetection};
use crate::route;
use crate::route::hashing::{Maglev, Ring};
use crate::snapshot::http::{Endpoints, Upstream, UpstreamEndpoint};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest that an endpoint is left out.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// How long an answer about a name holds.
const RESOLVED: Duration = Duration::from_secs(5);
/// How long an answer about one name is waited for.
const ASKING: Duration = Duration::from_secs(5);

/// Every upstream of one pod.
#[derive(Default)]
pub(crate) struct Upstreams(RefCell<HashMap<Arc<str>, Rc<Standing>>>);

/// How a pod stands with one upstream.
#[derive(Default)]
pub(crate) struct Standing {
    /// Requests under way.
    pub(crate) requests: Cell<u32>,
    /// Attempts beyond the first that are under way.
    pub(crate) retries: Cell<u32>,
    /// How many of those may follow one another.
    pub(crate) budget: Budget,
    /// Connections.
    pub(crate) connections: Cell<u32>,
    turn: Cell<usize>,
    endpoints: RefCell<HashMap<SocketAddr, Rc<EndpointStanding>>>,
    table: RefCell<Option<(Arc<Upstream>, Rc<Table>)>>,
    /// Where names led, and when that was asked.
    resolved: RefCell<Option<(Instant, Vec<SocketAddr>)>>,
    resolving: tokio::sync::Mutex<()>,
}

/// Does an endpoint offer itself?
type Offers<'a> = &'a dyn Fn(&UpstreamEndpoint) -> bool;

enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

/// How a pod stands with one endpoint.
#[derive(Default)]
pub(crate) struct EndpointStanding {
    /// Requests under way.
    pub(crate) requests: Cell<u32>,
    errors: Cell<u32>,
    gateway_errors: Cell<u32>,
    /// Until when it is left out.
    out_until: Cell<Option<Instant>>,
    times_out: Cell<u32>,
}

/// How an attempt went, as far as its endpoint is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// It was answered with this status.
    Answered(u16),
    /// There was no answer.
    Unanswered,
}

impl Upstreams {
    /// How the pod stands with an upstream.
    pub(crate) fn standing(&self, key: &Arc<str>) -> Rc<Standing> {
        if let Some(standing) = self.0.borrow().get(key) {
            return Rc::clone(standing);
        }
        let standing = Rc::<Standing>::default();
        self.0.borrow_mut().insert(Arc::clone(key), Rc::clone(&standing));
        standing
    }

    /// Forgets upstreams at which nothing is under way and nobody is left out.
    pub(crate) fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|_, standing| Rc::strong_count(standing) > 1 || !standing.is_at_rest(now));
    }
}

impl Standing {
    fn is_at_rest(&self, now: Instant) -> bool {
        let endpoints = self.endpoints.borrow();
        let rests = |endpoint: &EndpointStanding| {
            endpoint.requests.get() == 0 && !endpoint.is_out(now) && endpoint.times_out.get() == 0
        };
        self.requests.get() == 0 && self.connections.get() == 0 && endpoints.values().all(|endpoint| rests(endpoint))
    }

    /// How the pod stands with an endpoint.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Rc<EndpointStanding> {
        Rc::clone(self.endpoints.borrow_mut().entry(address).or_default())
    }

    /// The endpoint for the next attempt: none of `tried` as long as there is another. `None` if the upstream has none.
    pub(crate) fn choose(
        &self,
        upstream: &Arc<Upstream>,
        key: Option<u64>,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Option<SocketAddr> {
        let Endpoints::Static(all) = &upstream.endpoints else { return None };
        self.forget_all_but(all);
        let ignores_outliers = upstream.outliers.is_none_or(|detection| self.too_few_left(all, &detection, now));
        let known = self.endpoints.borrow();
        let takes = |endpoint: &UpstreamEndpoint| {
            ignores_outliers || !known.get(&endpoint.address).is_some_and(|standing| standing.is_out(now))
        };
        let fresh = |endpoint: &UpstreamEndpoint| takes(endpoint) && !tried.contains(&endpoint.address);
        // Endpoints of the least distance that has any to offer; those tried before rather than nobody.
        for offers in [&fresh as Offers<'_>, &takes, &|_| true] {
            let nearest = all.iter().filter(|endpoint| offers(endpoint)).map(|endpoint| endpoint.distance).min();
            if let Some(distance) = nearest {
                let offers = |endpoint: &UpstreamEndpoint| endpoint.distance == distance && offers(endpoint);
                let load = |address: &SocketAddr| known.get(address).map_or(0, |standing| standing.requests.get());
                return self.among(upstream, all, key, (&offers, &load));
            }
        }
        None
    }

    /// One of those that offer themselves, of whom there is one at least.
    fn among(
        &self,
        upstream: &Arc<Upstream>,
        all: &[UpstreamEndpoint],
        key: Option<u64>,
        (offers, load): (Offers<'_>, &dyn Fn(&SocketAddr) -> u32),
    ) -> Option<SocketAddr> {
        if let (Some(key), Some(table)) = (key, self.table(upstream, all)) {
            let chosen = match &*table {
                Table::Ring(ring) => ring.order(key).find(|&at| all.get(at).is_some_and(offers)),
                Table::Maglev(maglev) => maglev.order(key).find(|&at| all.get(at).is_some_and(offers)),
            };
            return chosen.map(|at| all[at].address);
        }
        let offered = || all.iter().filter(|endpoint| offers(endpoint));
        let by_chance = || route::by_weight(offered(), |endpoint| endpoint.weight.max(1), fastrand::u64(..));
        let chosen = match upstream.balance {
            Balance::RoundRobin => {
                let turn = self.turn.get();
                self.turn.set(turn.wrapping_add(1));
                offered().nth(turn % offered().count().max(1))
            }
            Balance::LeastRequest => {
                let (one, other) = (by_chance(), by_chance());
                one.zip(other).map(|(one, other)| if load(&other.address) < load(&one.address) { other } else { one })
            }
            Balance::Random | Balance::Passthrough | Balance::RingHash { .. } | Balance::Maglev { .. } => by_chance(),
        };
        chosen.map(|endpoint| endpoint.address)
    }

    /// The table of a consistent hash; made anew when the upstream is another.
    fn table(&self, upstream: &Arc<Upstream>, all: &[UpstreamEndpoint]) -> Option<Rc<Table>> {
        let mut held = self.table.borrow_mut();
        if let Some((of, table)) = &*held
            && (Arc::ptr_eq(of, upstream) || (of.endpoints == upstream.endpoints && of.balance == upstream.balance))
        {
            return Some(Rc::clone(table));
        }
        let endpoints = || all.iter().map(|endpoint| (endpoint.address, endpoint.weight)).collect::<Vec<_>>();
        let table = match upstream.balance {
            Balance::RingHash { minimum, .. } => Table::Ring(Ring::new(&endpoints(), minimum)),
            Balance::Maglev { size, .. } => Table::Maglev(Maglev::new(&endpoints(), size)),
            Balance::LeastRequest | Balance::RoundRobin | Balance::Random | Balance::Passthrough => return None,
        };
        let table = Rc::new(table);
        *held = Some((Arc::clone(upstream), Rc::clone(&table)));
        Some(table)
    }

    /// One of the addresses that names lead to, as the node resolves them: none of `tried` as long as there is another, and of
    /// the family that the client dialled if there is one. `None` if they lead nowhere.
    pub(crate) async fn resolve(&self, names: &[(String, u16)], tried: &[SocketAddr], v6: bool) -> Option<SocketAddr> {
        let addresses = self.addresses(names).await;
        let fresh = |address: &&SocketAddr| !tried.contains(*address);
        let same = |address: &&SocketAddr| address.is_ipv6() == v6;
        let offers: [Vec<_>; 3] = [
            addresses.iter().filter(fresh).filter(same).copied().collect(),
            addresses.iter().filter(fresh).copied().collect(),
            addresses,
        ];
        let offers = offers.iter().find(|offers| !offers.is_empty())?;
        route::by_chance(offers.iter().copied(), fastrand::u64(..))
    }

    /// Where names lead. They are asked for once at a time; while nobody answers, what was answered last holds.
    async fn addresses(&self, names: &[(String, u16)]) -> Vec<SocketAddr> {
        let fresh = || {
            let known = self.resolved.borrow();
            known.as_ref().filter(|(asked, _)| asked.elapsed() < RESOLVED).map(|(_, addresses)| addresses.clone())
        };
        if let Some(known) = fresh() {
            return known;
        }
        let _one_at_a_time = self.resolving.lock().await;
        if let Some(known) = fresh() {
            return known;
        }
        let mut addresses = Vec::new();
        for (name, port) in names {
            let asked = tokio::time::timeout(ASKING, tokio::net::lookup_host((name.as_str(), *port))).await;
            addresses.extend(asked.into_iter().flatten().flatten());
        }
        let mut known = self.resolved.borrow_mut();
        if let Some((_, before)) = known.as_ref().filter(|_| addresses.is_empty()) {
            addresses.clone_from(before);
        }
        *known = Some((Instant::now(), addresses.clone()));
        addresses
    }

    fn forget_all_but(&self, all: &[UpstreamEndpoint]) {
        let mut known = self.endpoints.borrow_mut();
        // More than are there: some have left.
        if known.len() > all.len() {
            known.retain(|address, standing| {
                Rc::strong_count(standing) > 1 || all.binary_search_by_key(address, |endpoint| endpoint.address).is_ok()
            });
        }
    }

    /// Are so few endpoints left that judging them does more harm than good?
    fn too_few_left(&self, all: &[UpstreamEndpoint], detection: &OutlierDetection, now: Instant) -> bool {
        let known = self.endpoints.borrow();
        let out = all.iter().filter(|endpoint| known.get(&endpoint.address).is_some_and(|one| one.is_out(now))).count();
        out > 0 && percent(all.len() - out, all.len()) < u64::from(detection.min_health_percent)
    }

    /// Judges an endpoint by how an attempt there went; true if it is left out from now on.
    pub(crate) fn judge(&self, upstream: &Upstream, address: SocketAddr, went: Went, now: Instant) -> bool {
        let Some(detection) = &upstream.outliers else { return false };
        let Endpoints::Static(all) = &upstream.endpoints else { return false };
        let endpoint = self.endpoint(address);
        let (error, gateway_error) = match went {
            Went::Unanswered => (true, true),
            Went::Answered(status) => ((500..600).contains(&status), (502..=504).contains(&status)),
        };
        let count = |cell: &Cell<u32>, failed: bool| cell.set(if failed { cell.get().saturating_add(1) } else { 0 });
        count(&endpoint.errors, error);
        count(&endpoint.gateway_errors, gateway_error);
        let reached =
            |cell: &Cell<u32>, limit: Option<u32>| limit.is_some_and(|limit| limit > 0 && cell.get() >= limit);
        if endpoint.is_out(now)
            || !(reached(&endpoint.errors, detection.consecutive_errors)
                || reached(&endpoint.gateway_errors, detection.consecutive_gateway_errors))
        {
            return false;
        }
        let out = self.endpoints.borrow().values().filter(|other| other.is_out(now)).count();
        // One may always be left out, and beyond that as many as the share allows.
        if out > 0 && percent(out + 1, all.len()) > u64::from(detection.max_ejection_percent) {
            return false;
        }
        endpoint.times_out.set(endpoint.times_out.get().saturating_add(1));
        endpoint.errors.set(0);
        endpoint.gateway_errors.set(0);
        let rest =
            detection.ejection.saturating_mul(endpoint.times_out.get()).min(LONGEST_EJECTION.max(detection.ejection));
        // Endpoints come back at the ends of intervals.
        let interval = detection.interval.max(Duration::from_millis(1));
        let rest =
            interval.saturating_mul(u32::try_from(rest.as_nanos().div_ceil(interval.as_nanos())).unwrap_or(u32::MAX));
        endpoint.out_until.set(Some(now + rest));
        true
    }
}

fn percent(part: usize, whole: usize) -> u64 {
    u64::try_from(100 * part / whole.max(1)).unwrap_or(u64::MAX)
}

impl EndpointStanding {
    fn is_out(&self, now: Instant) -> bool {
        self.out_until.get().is_some_and(|until| now < until)
    }
}

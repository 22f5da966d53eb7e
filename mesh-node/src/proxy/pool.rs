//! Idle connections between nodes, kept for the next stream of the same pod to the same endpoint.
//!
//! In:  wires after a clean stream.
//! Out: a wire that proved the wanted identity, is not expired and said nothing since.
//! Invariant: a wire never serves another pod than the one whose certificate opened it.
//! Invariant: bounded in number for each endpoint and in time.

use super::wire::Wire;
use crate::model::Identity;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Idle wires to one endpoint.
const PER_ENDPOINT: usize = 64;
/// How long a wire may idle.
const IDLE: Duration = Duration::from_secs(60);

/// An established wire with what was proved when it opened.
pub(crate) struct Peered {
    /// The connection.
    pub(crate) wire: Wire,
    /// Who the other side proved to be.
    pub(crate) identity: Arc<Identity>,
    /// When the first of the two certificates expires.
    pub(crate) expires: SystemTime,
}

/// One pod's idle wires.
#[derive(Default)]
pub(crate) struct Pool(HashMap<SocketAddr, Vec<(Instant, Peered)>>);

impl Pool {
    /// The most recently used wire to `endpoint` that can serve another stream.
    pub(crate) fn take(&mut self, endpoint: SocketAddr, identity: &Identity) -> Option<Peered> {
        let idle = self.0.get_mut(&endpoint)?;
        let now = SystemTime::now();
        while let Some((_, peered)) = idle.pop() {
            if *peered.identity == *identity && peered.expires > now && peered.wire.is_quiet() {
                return Some(peered);
            }
        }
        None
    }

    /// Keeps a wire for later.
    pub(crate) fn put(&mut self, endpoint: SocketAddr, peered: Peered) {
        let idle = self.0.entry(endpoint).or_default();
        if idle.len() < PER_ENDPOINT {
            idle.push((Instant::now(), peered));
        }
    }

    /// Takes out the wires that idled too long or that the other side has ended.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Wire> {
        let mut expired = Vec::new();
        self.0.retain(|_, idle| {
            for (since, peered) in std::mem::take(idle) {
                if now.duration_since(since) < IDLE && peered.wire.is_quiet() {
                    idle.push((since, peered));
                } else {
                    expired.push(peered.wire);
                }
            }
            !idle.is_empty()
        });
        expired
    }

    /// Takes out every wire.
    pub(crate) fn clear(&mut self) -> Vec<Wire> {
        self.0.drain().flat_map(|(_, idle)| idle).map(|(_, peered)| peered.wire).collect()
    }
}

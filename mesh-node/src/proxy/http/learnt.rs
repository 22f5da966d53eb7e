//! What ports were seen to speak that do not say so, for people.
//!
//! In:  what workers saw.
//! Out: [`Lesson`]s, in the order of their addresses.
//! Invariant: so many at most as are told apart here. Nothing is decided by them: each worker decides by what it saw itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Addresses that are remembered; later ones are not.
const REMEMBERED: usize = 1024;

/// What was seen at an address that pods dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The address.
    pub address: SocketAddr,
    /// When HTTP was first seen there.
    pub http: Option<SystemTime>,
    /// When a connection was first served there as bytes: its client began with something else, or waited for its server.
    pub other: Option<SystemTime>,
}

/// What all workers saw; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Learnt(Arc<Mutex<BTreeMap<SocketAddr, Lesson>>>);

impl Learnt {
    /// Notes what was seen. The first time counts.
    pub(crate) fn note(&self, address: SocketAddr, is_http: bool, now: SystemTime) {
        let mut lessons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lessons.len() >= REMEMBERED && !lessons.contains_key(&address) {
            return;
        }
        let lesson = lessons.entry(address).or_insert(Lesson { address, http: None, other: None });
        let time = if is_http { &mut lesson.http } else { &mut lesson.other };
        time.get_or_insert(now);
    }

    /// All that was seen.
    pub(crate) fn lessons(&self) -> Vec<Lesson> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_first_time_counts_of_each_and_the_number_is_bounded() {
        let learnt = Learnt::default();
        let port = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (is_http, seconds) in [(false, 1), (true, 2), (true, 3), (false, 4)] {
            learnt.note(port(80), is_http, at(seconds));
        }
        assert_eq!(learnt.lessons(), [Lesson { address: port(80), http: Some(at(2)), other: Some(at(1)) }]);
        (1..=2000).for_each(|number| learnt.note(port(number), true, at(5)));
        assert_eq!(learnt.lessons().len(), REMEMBERED);
        // What is known goes on to be.
        learnt.note(port(1), false, at(6));
        assert_eq!(learnt.lessons()[0].other, Some(at(6)));
    }
}

//! Threads of `tiny_http` that hang for good, and how their number is known.
//!
//! Some requests make a thread of `tiny_http` wait for itself; nothing outside can end that. Such threads are counted,
//! so that the process can say when it had better be started anew. It must not know what was asked.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::refused::Refused;

/// Parked connections after which the process says that it is not well, so that it is started anew: each costs a thread
/// (30 kB) and two descriptors.
const MAX_PARKED: u64 = 2000;

/// Or after so many times fewer than there may be descriptors: a quarter of these is then gone for good.
const DESCRIPTORS_PER_PARKED: u64 = 8;

/// Counts the threads that peers have made hang for good.
#[derive(Debug)]
pub struct ParkedThreads {
    forgotten: AtomicU64,
    parked: AtomicU64,
    max: u64,
    refused: Refused,
}

impl ParkedThreads {
    /// No cost yet, in a process that may have so many descriptors.
    #[must_use]
    pub fn new(descriptors: u64) -> Self {
        let max = MAX_PARKED.min(descriptors / DESCRIPTORS_PER_PARKED).max(1);
        Self { forgotten: AtomicU64::new(0), parked: AtomicU64::new(0), max, refused: Refused::default() }
    }

    /// How many are borne, as tests of the service's limits want to know.
    #[cfg(test)]
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Counts a connection from this address whose request must never be dropped: its thread is parked from now on.
    pub(super) fn add_forgotten(&self, address: IpAddr) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        self.refused.add(address, Instant::now());
    }

    /// Whose connections are not taken any more, since they have cost too much.
    pub(super) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// So many connections look parked: they should have ended long ago. Those that were counted one by one as
    /// forgotten come to be among them with time, so the two counts are not added.
    pub(super) fn set_parked(&self, count: usize) {
        self.parked.store(count as u64, Ordering::Relaxed);
    }

    /// How many requests there were that must never be dropped.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Threads that hang for good.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.forgotten().max(self.parked.load(Ordering::Relaxed))
    }

    /// What made them hang: so many by bodies that were announced, and so many by request lines of HTTP/2.0 or 3.0, of
    /// which nothing is seen but that their connections never go.
    #[must_use]
    pub fn by_kind(&self) -> (u64, u64) {
        let forgotten = self.forgotten();
        (forgotten, self.parked().saturating_sub(forgotten))
    }

    /// Whether the process had better be started anew.
    #[must_use]
    pub fn is_worn_out(&self) -> bool {
        self.parked() >= self.max
    }
}

/// Sockets that are closed and that nobody has let go of yet, by their cookies. A closed socket does not tell any more
/// which connection it was.
#[derive(Debug, Default)]
pub(super) struct ClosedSockets {
    since: HashMap<u64, Instant>,
}

impl ClosedSockets {
    /// Compares with those there are now: how many have been there so long that they will be for ever?
    pub(super) fn count_parked(&mut self, closed: &HashSet<u64>, limit: Duration, now: Instant) -> usize {
        self.since.retain(|cookie, _| closed.contains(cookie));
        for cookie in closed {
            self.since.entry(*cookie).or_insert(now);
        }
        self.since.values().filter(|since| now.saturating_duration_since(**since) >= limit).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_after_it_was_closed_is_parked() {
        let (mut closed_sockets, start) = (ClosedSockets::default(), Instant::now());
        let mut count = |cookies: &[u64], time| {
            let closed = cookies.iter().copied().collect();
            closed_sockets.count_parked(&closed, Duration::from_secs(30), start + Duration::from_secs(time))
        };
        assert_eq!(count(&[1, 2], 0), 0);
        assert_eq!(count(&[1, 2, 3], 29), 0);
        assert_eq!(count(&[1, 3, 4], 30), 1);
        assert_eq!(count(&[1, 2, 3], 60), 2, "what has gone in between begins anew");
        assert_eq!(count(&[], 90), 0);
    }

    #[test]
    fn parked_threads_never_take_more_than_a_quarter_of_the_descriptors() {
        for (descriptors, bearable) in [(0, 0), (200, 24), (1024, 127), (16_000, 1999), (u64::MAX, 1999)] {
            let parked = ParkedThreads::new(descriptors);
            let count = (0..=MAX_PARKED).take_while(|_| {
                parked.add_forgotten([127, 0, 0, 1].into());
                !parked.is_worn_out()
            });
            assert_eq!(count.count(), bearable, "{descriptors}");
            let parked = ParkedThreads::new(descriptors);
            parked.set_parked(bearable);
            assert!(!parked.is_worn_out(), "{descriptors}");
            parked.set_parked(bearable + 1);
            assert!(parked.is_worn_out());
            parked.add_forgotten([127, 0, 0, 1].into());
            assert_eq!(parked.by_kind(), (1, bearable as u64));
        }
    }
}

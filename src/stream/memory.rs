//! What all backlogs may keep together.
//!
//! Each hub says what its backlog holds. When that is too much in all, the largest gives up its oldest chunks, whichever
//! stream it was that grew. Nothing here knows what a chunk holds or who waits for it.
//!
//! Lock rule: the one lock guards the list of hubs; a hub's own lock is taken under it, never the other way round. What
//! is given up is dropped after both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::fanout::Fanout;

/// Less than this is not worth a look at what the allocator keeps.
const MUCH_BYTES: u64 = 4 * 1024 * 1024;

/// A bound for the backlogs of all hubs that were made with it.
#[derive(Debug)]
pub struct Memory {
    limit_bytes: u64,
    kept_bytes: AtomicU64,
    /// The most that was held since much was freed last.
    peak_bytes: AtomicU64,
    hubs: Mutex<Vec<Weak<Fanout>>>,
}

impl Memory {
    /// Backlogs may hold so many bytes of packets together.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        let (kept_bytes, peak_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { limit_bytes, kept_bytes, peak_bytes, hubs: Mutex::default() })
    }

    /// What all backlogs hold now.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// One more hub has a share.
    pub(super) fn add(&self, hub: &Arc<Fanout>) {
        let mut hubs = self.hubs.lock();
        hubs.retain(|hub| hub.strong_count() > 0);
        hubs.push(Arc::downgrade(hub));
    }

    /// A hub that held so much holds so much now.
    pub(super) fn change(&self, before: u64, after: u64) {
        // Wraps round for what was given up, and back: the sum is never below zero.
        self.kept_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Whether much was freed since this last said so: more than half, and enough to care about.
    pub(super) fn has_shrunk(&self) -> bool {
        let kept = self.kept_bytes();
        let peak = self.peak_bytes.fetch_max(kept, Ordering::Relaxed).max(kept);
        let is_much = peak - kept >= MUCH_BYTES && kept < peak / 2;
        if is_much {
            self.peak_bytes.store(kept, Ordering::Relaxed);
        }
        is_much
    }

    /// Takes from the largest what is too much. A newest chunk is never taken.
    pub(super) fn settle(&self) {
        if self.kept_bytes() <= self.limit_bytes {
            return;
        }
        let (mut chunks, mut exhausted) = (Vec::new(), Vec::new());
        let hubs = self.hubs.lock();
        let mut sharing: Vec<_> = hubs.iter().filter_map(Weak::upgrade).collect();
        while let excess @ 1.. = self.kept_bytes().saturating_sub(self.limit_bytes) {
            let by_size = |index: &usize| sharing[*index].kept_bytes();
            let Some(largest) = (0..sharing.len()).max_by_key(by_size) else { break };
            let given_up = sharing[largest].give_up(excess);
            if given_up.is_empty() {
                exhausted.push(sharing.swap_remove(largest));
            }
            chunks.extend(given_up);
        }
        drop(hubs);
        // Outside the lock: the last of a chunk or of a hub may be among them.
        drop((chunks, exhausted, sharing));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::backlog::Bounds;
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1_000_000, age: Duration::from_secs(600) };

    fn publish(hub: &Fanout, kilobytes: usize) {
        for _ in 0..kilobytes {
            hub.publish(&[0x47; 1000], &mut Vec::new(), Instant::now());
        }
    }

    #[test]
    fn the_largest_gives_up_whoever_grows() {
        let memory = Memory::new(300_000);
        let [one, two, three] = [(); 3].map(|()| Fanout::new(BOUNDS, &memory));
        let kept = || [&one, &two, &three].map(|hub| hub.kept_bytes() / 1000);
        publish(&one, 250);
        publish(&two, 50);
        assert_eq!(kept(), [250, 50, 0]);
        publish(&three, 10);
        assert_eq!(kept(), [240, 50, 10], "one has said nothing since");
        publish(&three, 200);
        assert_eq!((kept(), memory.kept_bytes()), ([125, 50, 125], 300_000));
        publish(&two, 200);
        assert_eq!(kept(), [100, 100, 100]);
    }

    #[test]
    fn a_hub_that_goes_leaves_its_share() {
        let memory = Memory::new(100_000);
        let hub = Fanout::new(BOUNDS, &memory);
        publish(&hub, 90);
        hub.clear();
        assert_eq!(memory.kept_bytes(), 0);
        publish(&hub, 90);
        drop(hub);
        assert_eq!(memory.kept_bytes(), 0);
        let hub = Fanout::new(BOUNDS, &memory);
        assert_eq!(memory.hubs.lock().len(), 1, "who has gone is forgotten");
        publish(&hub, 200);
        assert_eq!(memory.kept_bytes(), 100_000);
    }

    #[test]
    fn it_is_told_once_that_much_was_freed() {
        let memory = Memory::new(u64::MAX);
        let [one, two] = [(); 2].map(|()| {
            let hub = Fanout::new(Bounds { bytes: 100 << 20, ..BOUNDS }, &memory);
            publish(&hub, 3000);
            hub
        });
        let tell = || [memory.has_shrunk(), memory.has_shrunk()];
        assert_eq!(tell(), [false, false]);
        one.clear();
        assert_eq!(tell(), [false, false], "half of it is still there");
        two.clear();
        assert_eq!(tell(), [true, false]);
        publish(&one, 1000);
        one.clear();
        assert_eq!(tell(), [false, false], "it was little");
    }

    #[test]
    fn a_chunk_above_the_limit_is_kept_alone() {
        let memory = Memory::new(1000);
        let [one, two] = [(); 2].map(|()| Fanout::new(BOUNDS, &memory));
        for _ in 0..3 {
            one.publish(&[0x47; 5000], &mut Vec::new(), Instant::now());
            two.publish(&[0x47; 2000], &mut Vec::new(), Instant::now());
        }
        assert_eq!((one.kept_bytes(), two.kept_bytes()), (5000, 2000));
    }
}

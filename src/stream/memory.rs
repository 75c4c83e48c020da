//! What all backlogs may keep together.
//!
//! When they hold too much in all, the largest gives up its oldest chunks, whichever stream it was that grew. Nothing here
//! knows what a chunk holds or who waits for it.
//!
//! Lock rule: the one lock guards the list of hubs; a hub's own lock is taken under it, never the other way round. What
//! is given up is dropped after both.

use std::sync::{Arc, Weak};

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

use super::budget::Budget;
use super::fanout::Fanout;

/// A bound for the backlogs of all hubs that are listed with it.
#[derive(Debug)]
pub struct Memory {
    limit_bytes: AtomicU64,
    budget: Arc<Budget>,
    hubs: Mutex<Vec<Weak<Fanout>>>,
}

impl Memory {
    /// Backlogs may hold so many bytes of packets together.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes: limit_bytes.into(), budget: Arc::default(), hubs: Mutex::default() })
    }

    /// Backlogs may hold so many from now on; what is too much is taken when the next chunk comes.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    /// What all backlogs hold; hubs are made with it.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// One more hub may be asked to give up what it keeps.
    pub fn add(&self, hub: &Arc<Fanout>) {
        let mut hubs = self.hubs.lock();
        hubs.retain(|hub| hub.strong_count() > 0);
        hubs.push(Arc::downgrade(hub));
    }

    /// Takes from the largest what is too much. A newest chunk is never taken.
    pub fn settle(&self) {
        let limit_bytes = self.limit_bytes.load(Ordering::Relaxed);
        if self.budget.kept_bytes() <= limit_bytes {
            return;
        }
        let (mut chunks, mut exhausted) = (Vec::new(), Vec::new());
        let hubs = self.hubs.lock();
        let mut sharing: Vec<_> = hubs.iter().filter_map(Weak::upgrade).collect();
        while let excess @ 1.. = self.budget.kept_bytes().saturating_sub(limit_bytes) {
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

    fn hub_in(memory: &Memory, bounds: Bounds) -> Arc<Fanout> {
        let hub = Fanout::new(bounds, memory.budget());
        memory.add(&hub);
        hub
    }

    fn publish(memory: &Memory, hub: &Fanout, bytes: usize) {
        hub.publish(&vec![0x47; bytes], &mut Vec::new(), Instant::now());
        memory.settle();
    }

    fn publish_many(memory: &Memory, hub: &Fanout, kilobytes: usize) {
        for _ in 0..kilobytes {
            publish(memory, hub, 1000);
        }
    }

    #[test]
    fn the_largest_gives_up_whoever_grows() {
        let memory = Memory::new(300_000);
        let [one, two, three] = [(); 3].map(|()| hub_in(&memory, BOUNDS));
        let kept = || [&one, &two, &three].map(|hub| hub.kept_bytes() / 1000);
        publish_many(&memory, &one, 250);
        publish_many(&memory, &two, 50);
        assert_eq!(kept(), [250, 50, 0]);
        publish_many(&memory, &three, 10);
        assert_eq!(kept(), [240, 50, 10], "one has said nothing since");
        publish_many(&memory, &three, 200);
        assert_eq!((kept(), memory.budget().kept_bytes()), ([125, 50, 125], 300_000));
        publish_many(&memory, &two, 200);
        assert_eq!(kept(), [100, 100, 100]);
        memory.set_limit(90_000);
        publish_many(&memory, &two, 1);
        assert_eq!(memory.budget().kept_bytes(), 90_000);
    }

    #[test]
    fn a_hub_that_goes_leaves_its_share() {
        let memory = Memory::new(100_000);
        let hub = hub_in(&memory, BOUNDS);
        publish_many(&memory, &hub, 90);
        hub.clear();
        assert_eq!(memory.budget().kept_bytes(), 0);
        publish_many(&memory, &hub, 90);
        drop(hub);
        assert_eq!(memory.budget().kept_bytes(), 0);
        let hub = hub_in(&memory, BOUNDS);
        assert_eq!(memory.hubs.lock().len(), 1, "who has gone is forgotten");
        publish_many(&memory, &hub, 200);
        assert_eq!(memory.budget().kept_bytes(), 100_000);
    }

    #[test]
    fn it_is_told_once_that_much_was_freed() {
        let memory = Memory::new(u64::MAX);
        let [one, two] = [(); 2].map(|()| {
            let hub = hub_in(&memory, Bounds { bytes: 100 << 20, ..BOUNDS });
            publish_many(&memory, &hub, 3000);
            hub
        });
        let tell = || [memory.budget().has_shrunk(), memory.budget().has_shrunk()];
        assert_eq!(tell(), [false, false]);
        one.clear();
        assert_eq!(tell(), [false, false], "half of it is still there");
        two.clear();
        assert_eq!(tell(), [true, false]);
        publish_many(&memory, &one, 1000);
        one.clear();
        assert_eq!(tell(), [false, false], "it was little");
    }

    #[test]
    fn a_chunk_above_the_limit_is_kept_alone() {
        let memory = Memory::new(1000);
        let [one, two] = [(); 2].map(|()| hub_in(&memory, BOUNDS));
        for _ in 0..3 {
            publish(&memory, &one, 5000);
            publish(&memory, &two, 2000);
        }
        assert_eq!((one.kept_bytes(), two.kept_bytes()), (5000, 2000));
    }
}

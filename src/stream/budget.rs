//! How many bytes all backlogs hold together, and how many they held at most.
//!
//! Each hub reports its own changes. It must not know who gives up what when it is too much.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Less than this is not worth a look at what the allocator keeps.
const MUCH_BYTES: u64 = 4 * 1024 * 1024;

/// What backlogs hold. Each number stands for itself, so there is no lock.
#[derive(Debug, Default)]
pub struct Budget {
    kept_bytes: AtomicU64,
    /// The most that was held since much was freed last.
    peak_bytes: AtomicU64,
}

impl Budget {
    /// What all backlogs hold now, in bytes of packets.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
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
}

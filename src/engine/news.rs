//! What is told of engines to whoever waits for one: that one came up, that a check is over.
//!
//! It must not know how an engine is found to be up. Lock rule: the one lock here is taken alone.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Who waits looks so often whether it is still wanted.
const LOOK: Duration = Duration::from_millis(250);

/// News of all engines of a pool.
#[derive(Debug, Default)]
pub(super) struct News {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    ups: u64,
    /// Everything that was told.
    total: u64,
}

impl News {
    /// A check is over.
    pub(super) fn tell_check(&self) {
        self.tell(0);
    }

    /// An engine came up.
    pub(super) fn tell_up(&self) {
        self.tell(1);
    }

    fn tell(&self, ups: u64) {
        let mut told = self.told.lock();
        told.ups += ups;
        told.total += 1;
        drop(told);
        self.changed.notify_all();
    }

    /// How often an engine came up.
    pub(super) fn ups(&self) -> u64 {
        self.told.lock().ups
    }

    /// Waits until `is_met`, which is looked at after each piece of news, outside the lock. Tells whether it is; not if the
    /// deadline came first, or the wait was not wanted any more.
    pub(super) fn wait_until_met(
        &self,
        deadline: Instant,
        is_met: impl Fn() -> bool,
        is_wanted: impl Fn() -> bool,
    ) -> bool {
        loop {
            let total = self.told.lock().total;
            if is_met() {
                return true;
            }
            let now = Instant::now();
            if now >= deadline || !is_wanted() {
                return false;
            }
            let mut told = self.told.lock();
            if told.total == total {
                self.changed.wait_until(&mut told, deadline.min(now + LOOK));
            }
        }
    }
}

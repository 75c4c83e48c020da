//! A halt that stays: one thread calls it, others stop waiting for it.
//!
//! It must not know what is halted.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Called once, and then for good.
#[derive(Debug, Default)]
pub(super) struct Halt {
    is_called: Mutex<bool>,
    called: Condvar,
}

impl Halt {
    /// Ends every wait, now and from now on. Does not block.
    pub(super) fn call(&self) {
        *self.is_called.lock() = true;
        self.called.notify_all();
    }

    /// Whether it was called.
    pub(super) fn is_called(&self) -> bool {
        *self.is_called.lock()
    }

    /// Waits until then, or until it is called: whether it was.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
        let mut is_called = self.is_called.lock();
        while !*is_called && !self.called.wait_until(&mut is_called, deadline).timed_out() {}
        *is_called
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::threads::{SMALL_STACK_BYTES, Threads};

    #[test]
    fn a_wait_ends_by_its_time_or_by_the_call() {
        let halt = Arc::new(Halt::default());
        assert!(!halt.wait_until(Instant::now()));
        let (threads, caller) = (Threads::new(), Arc::clone(&halt));
        threads.spawn("caller", SMALL_STACK_BYTES, move || caller.call()).expect("a thread");
        let far = Instant::now() + Duration::from_secs(60);
        assert!(halt.wait_until(far) && halt.is_called() && halt.wait_until(far));
        threads.join_all(far).expect("it has ended");
    }
}

//! Shuttle's locks with the methods of `parking_lot`'s, as far as they are used.
//!
//! Nobody waits in vain here: a wait ends when somebody calls, or at once if its deadline has passed. Who is not called waits
//! for ever, and where all do, shuttle says so.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Instant;

use shuttle::sync;

/// A lock that no panic poisons.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

/// The lock, held. `None` only while it waits.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

/// Where holders of a lock wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

/// How a wait ended.
pub(crate) struct WaitTimeoutResult {
    is_late: bool,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it does not wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it does not wait")
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        if Instant::now() >= deadline {
            return WaitTimeoutResult { is_late: true };
        }
        let held = guard.0.take().expect("it does not wait yet");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        WaitTimeoutResult { is_late: false }
    }
}

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.is_late
    }
}

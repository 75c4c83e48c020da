//! Stops engine sessions: each that was opened once, whatever became of it.
//!
//! It must not know why a session is to be stopped.

use std::time::Duration;

use crate::engine::api::EngineSession;
use crate::engine::pool::Reservation;
use crate::threads::{LARGE_STACK_BYTES, Threads};

/// A stop can hang for good (engine-contract.md section 4); nobody should wait for it.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The same at a shutdown, so that a call before it and the stop fit into the time that is left.
pub(super) const LAST_STOP_LIMIT: Duration = Duration::from_secs(2);

/// Stops a session; its place is free as soon as the stop is on its way.
pub(super) fn stop(id: &str, mut reservation: Reservation, opened: EngineSession, limit: Duration) {
    reservation.free_place();
    let engine = &reservation.engine;
    if let Err(error) = engine.api.stop(opened, limit) {
        log::warn!("Engine {} did not confirm the stop of {id}: {error}", engine.settings.name);
    }
}

/// Stops a session without waiting for it.
pub(super) fn stop_beside(threads: &Threads, id: &str, reservation: Reservation, opened: EngineSession) {
    let beside = Beside { id: id.to_owned(), lost: Some((reservation, opened)) };
    let name = format!("stop-{id:.8}");
    // Without a thread the closure is dropped here, and with it what it was to drop there.
    if let Err(error) = threads.spawn(&name, LARGE_STACK_BYTES, move || drop(beside)) {
        log::warn!("No thread to stop a session beside: {error}");
    }
}

/// A session to be stopped by whoever drops this.
struct Beside {
    id: String,
    lost: Option<(Reservation, EngineSession)>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((reservation, opened)) = self.lost.take() {
            stop(&self.id, reservation, opened, STOP_LIMIT);
        }
    }
}

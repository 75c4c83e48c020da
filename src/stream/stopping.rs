//! Stops engine sessions: each that was opened once, whatever became of it.
//!
//! It must not know why a session is to be stopped.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::api::EngineSession;
use crate::engine::pool::{Engine, Reservation};
use crate::threads::{LARGE_STACK_BYTES, Threads};

/// A stop can hang for good (engine-contract.md section 4); nobody should wait for it.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The same at a shutdown, so that a call before it and the stop fit into the time that is left.
pub(super) const LAST_STOP_LIMIT: Duration = Duration::from_secs(2);

/// An engine session with its place. Whoever drops it stops it, and waits for that.
#[must_use = "dropping an engine session stops it"]
pub(super) struct Opened {
    stream_id: String,
    limit: Duration,
    parts: Option<(Reservation, EngineSession)>,
}

impl Opened {
    /// The session that was opened for this stream at the place that was reserved.
    pub(super) fn new(stream_id: &str, reservation: Reservation, session: EngineSession) -> Self {
        Self { stream_id: stream_id.to_owned(), limit: STOP_LIMIT, parts: Some((reservation, session)) }
    }

    /// The session.
    pub(super) fn session(&self) -> Option<&EngineSession> {
        self.parts.as_ref().map(|(_, session)| session)
    }

    /// Its place.
    pub(super) fn reservation(&mut self) -> Option<&mut Reservation> {
        self.parts.as_mut().map(|(reservation, _)| reservation)
    }

    /// Where it was opened.
    pub(super) fn engine(&self) -> Option<&Arc<Engine>> {
        self.parts.as_ref().map(|(reservation, _)| &reservation.engine)
    }

    /// Stops it, and waits for that no longer than this.
    pub(super) fn stop_within(mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Stops it without waiting for it.
    pub(super) fn stop_beside(self, threads: &Threads) {
        let name = format!("stop-{:.8}", self.stream_id);
        // Without a thread the closure is dropped here, and with it what it was to drop there.
        if let Err(error) = threads.spawn(&name, LARGE_STACK_BYTES, move || drop(self)) {
            log::warn!("No thread to stop a session beside: {error}");
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some((mut reservation, session)) = self.parts.take() else { return };
        // Its place is free as soon as the stop is on its way.
        reservation.free_place();
        let engine = &reservation.engine;
        match engine.api.stop(session, self.limit) {
            Ok(()) => {}
            // The session has gone with its engine, whose end is told of elsewhere.
            Err(error) if error.is_nobody() => {
                log::debug!("Nobody to stop {} at engine {}: {error}", self.stream_id, engine.settings.name);
            }
            Err(error) => log::warn!(
                "Engine {} did not confirm the stop of {}: {error}",
                engine.settings.name,
                self.stream_id
            ),
        }
    }
}

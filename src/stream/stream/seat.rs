//! A client's place on a stream.
//!
//! It must not know why streams start and end: it asks the life for the outcome, and its drop is the leaving.

use std::sync::Arc;
use std::time::Instant;

use crate::stream::backlog::Bounds;
use crate::stream::client::ClientRecord;
use crate::stream::fanout::{JoinAt, Pieces, Subscription};
use crate::stream::state::Why;

use super::Stream;

/// A client's place on a stream, from its request to its end. Dropping it is leaving.
pub struct Seat {
    pub(super) stream: Arc<Stream>,
    pub(super) client: Arc<ClientRecord>,
    pub(super) join_at: JoinAt,
    /// Of the stream, when the seat was taken.
    pub(super) activations: u32,
}

impl Seat {
    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Arc<ClientRecord> {
        &self.client
    }

    /// Waits for the outcome of the start, at most until `deadline`; `None` when it is not known by then. Everybody who
    /// waits for one start gets the same outcome.
    ///
    /// # Errors
    ///
    /// Why the stream did not start.
    pub fn wait_started(&self, deadline: Instant) -> Option<Result<(), Why>> {
        let mut core = self.stream.core.lock();
        loop {
            if let Some(outcome) = core.life.outcome_since(self.activations) {
                return Some(outcome);
            }
            if self.stream.changed.wait_until(&mut core, deadline).timed_out() {
                return core.life.outcome_since(self.activations);
            }
        }
    }

    /// From now on it is the next outcome that is waited for, if the stream looks for a source.
    pub fn wait_anew(&mut self) {
        self.activations = self.stream.core.lock().life.activations;
    }

    /// Waits until an engine has opened a session for the stream, which is before it plays, or until it is known that none
    /// does; at most until `deadline`, `None` if neither is known by then.
    ///
    /// # Errors
    ///
    /// Why the stream did not start.
    pub fn wait_opened(&self, deadline: Instant) -> Option<Result<(), Why>> {
        let mut core = self.stream.core.lock();
        loop {
            let is_opened = core.current.is_opened || core.life.state.is_active();
            let outcome = core.life.outcome_since(self.activations).or_else(|| is_opened.then_some(Ok(())));
            if outcome.is_some() || Instant::now() >= deadline {
                return outcome;
            }
            self.stream.changed.wait_until(&mut core, deadline);
        }
    }

    /// Begins to stream.
    #[must_use]
    pub fn join(&self) -> Subscription {
        let subscription = self.stream.fanout.join(self.join_at);
        let _first = self.client.progress.set(Arc::clone(subscription.progress()));
        subscription
    }

    /// Begins to take pieces, for which as much is kept as these bounds say.
    #[must_use]
    pub fn join_in_pieces(&self, bounds: Bounds) -> Pieces {
        let pieces = self.stream.fanout.take_pieces(bounds);
        let _first = self.client.progress.set(Arc::clone(pieces.progress()));
        pieces
    }

    /// The client, to be kept beyond the seat.
    #[must_use]
    pub fn record(&self) -> Arc<ClientRecord> {
        Arc::clone(&self.client)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stream.leave(&self.client);
    }
}

//! A client's place on a stream, and what is known of who has it.
//!
//! It must not know why streams start and end: it asks the life for the outcome, and its drop is the leaving.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use crate::stream::fanout::{JoinAt, Progress, Subscription};
use crate::stream::state::Why;

use super::Session;

/// What is known of a client.
#[derive(Debug)]
pub struct ClientRecord {
    /// Its number, unique in the process.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it calls itself, as it came: to be escaped when shown.
    pub user_agent: Option<String>,
    /// When it asked.
    pub connected_at: SystemTime,
    /// Set once it streams.
    pub(super) progress: OnceLock<Arc<Progress>>,
}

impl ClientRecord {
    /// A client that has just asked.
    #[must_use]
    pub fn new(id: u64, address: SocketAddr, user_agent: Option<String>) -> Self {
        Self { id, address, user_agent, connected_at: SystemTime::now(), progress: OnceLock::new() }
    }
}

/// A client's place on a stream, from its request to its end. Dropping it is leaving.
pub struct Seat {
    pub(super) session: Arc<Session>,
    pub(super) client: Arc<ClientRecord>,
    pub(super) join_at: JoinAt,
    /// Of the stream, when the seat was taken.
    pub(super) activations: u32,
}

impl Seat {
    /// The stream.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &ClientRecord {
        &self.client
    }

    /// Waits for the outcome of the start, at most until `deadline`; `None` when it is not known by then. Everybody who
    /// waits for one start gets the same outcome.
    ///
    /// # Errors
    ///
    /// Why the stream did not start.
    pub fn wait_started(&self, deadline: Instant) -> Option<Result<(), Why>> {
        let mut core = self.session.core.lock();
        loop {
            if let Some(outcome) = core.life.outcome_since(self.activations) {
                return Some(outcome);
            }
            if self.session.changed.wait_until(&mut core, deadline).timed_out() {
                return core.life.outcome_since(self.activations);
            }
        }
    }

    /// Begins to stream.
    #[must_use]
    pub fn join(&self) -> Subscription {
        let subscription = self.session.fanout.join(self.join_at);
        let _first = self.client.progress.set(Arc::clone(subscription.progress()));
        subscription
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.session.leave(&self.client);
    }
}

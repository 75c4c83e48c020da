//! What every request handler needs, in one place: streams, engines, limits.
//!
//! Lock rule: the locks here are held for a look-up each, alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::pool::Pool;
use crate::stats::Stats;
use crate::stream::registry::Registry;
use crate::threads::Threads;

use super::socket::Handle;

/// The state behind all request handlers.
pub struct Front {
    /// All streams.
    pub registry: Arc<Registry>,
    /// All engines.
    pub pool: Arc<Pool>,
    /// Totals.
    pub stats: Arc<Stats>,
    /// When the process began to serve.
    pub started: Instant,
    /// Streaming clients at once.
    pub clients: Turnstile,
    /// Quiet time after which a client is sent null packets.
    pub keepalive: Option<Duration>,
    /// A client that takes no byte for so long is closed.
    pub write_timeout: Duration,
    /// The longest a start may take, all its phases together.
    pub start_limit: Duration,
    /// The connections of streaming clients, by client number.
    pub connections: Connections,
    /// Everything that runs, to be counted.
    pub threads: Vec<Threads>,
}

/// Lets so many in at once. A [`Pass`] is given back when dropped.
#[derive(Debug)]
pub struct Turnstile {
    max: usize,
    passes: Arc<()>,
    entering: Mutex<()>,
}

/// Somebody is in.
#[derive(Debug)]
pub struct Pass {
    _pass: Arc<()>,
}

impl Turnstile {
    /// A turnstile for `max` at once.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, passes: Arc::new(()), entering: Mutex::new(()) }
    }

    /// A pass, if there is one left.
    pub fn enter(&self) -> Option<Pass> {
        let _entering = self.entering.lock();
        let inside = Arc::strong_count(&self.passes) - 1;
        (inside < self.max).then(|| Pass { _pass: Arc::clone(&self.passes) })
    }
}

/// The connections of streaming clients, so that they can be ended from outside.
#[derive(Debug, Default)]
pub struct Connections {
    by_client: Mutex<HashMap<u64, Arc<Handle>>>,
}

impl Connections {
    /// Keeps a client's connection until the returned guard is dropped.
    pub fn keep(&self, client: u64, handle: Arc<Handle>) -> Kept<'_> {
        self.by_client.lock().insert(client, handle);
        Kept { connections: self, client }
    }

    /// Ends every connection.
    pub fn shutdown_all(&self) {
        let handles: Vec<_> = self.by_client.lock().values().cloned().collect();
        for handle in handles {
            handle.shutdown();
        }
    }
}

/// Forgets a client's connection when dropped.
#[derive(Debug)]
pub struct Kept<'a> {
    connections: &'a Connections,
    client: u64,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let handle = self.connections.by_client.lock().remove(&self.client);
        drop(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turnstile_lets_in_as_many_as_it_may() {
        let turnstile = Turnstile::new(2);
        let first = turnstile.enter().expect("room");
        let _second = turnstile.enter().expect("room");
        assert!(turnstile.enter().is_none());
        drop(first);
        assert!(turnstile.enter().is_some());
    }
}

//! What every request handler needs, in one place: streams, engines, limits.
//!
//! Lock rule: the locks here are held for a look-up each, alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::engine::pool::Pool;
use crate::stats::Stats;
use crate::stream::registry::Registry;
use crate::threads::Threads;

use super::admin::Admin;
use super::guard::Wear;
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
    /// The same by the clock on the wall, as it was then.
    pub started_at: SystemTime,
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
    /// Who may change something.
    pub admin: Admin,
    /// What peers have cost for good.
    pub wear: Arc<Wear>,
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
    max_per_address: Option<NonZeroUsize>,
    by_client: Mutex<HashMap<u64, Arc<Client>>>,
}

#[derive(Debug)]
struct Client {
    address: IpAddr,
    handle: Arc<Handle>,
    is_asked_to_leave: AtomicBool,
}

impl Connections {
    /// No connections, and room for so many of one address.
    #[must_use]
    pub fn new(max_per_address: Option<NonZeroUsize>) -> Self {
        Self { max_per_address, by_client: Mutex::default() }
    }

    /// Keeps a client's connection until the returned guard is dropped; `None` if its address has as many as it may.
    pub fn keep(&self, client: u64, address: IpAddr, handle: Arc<Handle>) -> Option<Kept<'_>> {
        let address = address.to_canonical();
        let entry = Arc::new(Client { address, handle, is_asked_to_leave: AtomicBool::new(false) });
        let mut clients = self.by_client.lock();
        let of_address = || clients.values().filter(|other| other.address == address).count();
        if self.max_per_address.is_some_and(|max| of_address() >= max.get()) {
            return None;
        }
        clients.insert(client, Arc::clone(&entry));
        Some(Kept { connections: self, client, entry })
    }

    /// Asks a client's thread to end its stream, as soon as it looks; tells whether there is such a client.
    pub fn ask_to_leave(&self, client: u64) -> bool {
        let clients = self.by_client.lock();
        let entry = clients.get(&client);
        entry.inspect(|entry| entry.is_asked_to_leave.store(true, Ordering::Relaxed)).is_some()
    }

    /// Ends every connection.
    pub fn shutdown_all(&self) {
        let entries: Vec<_> = self.by_client.lock().values().cloned().collect();
        for entry in entries {
            entry.handle.shutdown();
        }
    }
}

/// Forgets a client's connection when dropped.
#[derive(Debug)]
pub struct Kept<'a> {
    connections: &'a Connections,
    client: u64,
    entry: Arc<Client>,
}

impl Kept<'_> {
    /// Whether somebody wants this client to leave.
    #[must_use]
    pub fn is_asked_to_leave(&self) -> bool {
        self.entry.is_asked_to_leave.load(Ordering::Relaxed)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let entry = self.connections.by_client.lock().remove(&self.client);
        drop(entry);
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

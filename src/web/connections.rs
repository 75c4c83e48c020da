//! The connections of streaming clients, so that they can be ended from outside.
//!
//! It must not know what is sent on them.
//!
//! Lock rule: the one lock is held for a look-up, alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::http::socket::Handle;

/// The connections of streaming clients, so that they can be ended from outside.
#[derive(Debug, Default)]
pub struct Connections {
    by_client: Mutex<HashMap<u64, Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    handle: Arc<Handle>,
    is_asked_to_leave: AtomicBool,
}

impl Connections {
    /// Keeps a client's connection until the returned guard is dropped; `None` if its address has `max_per_address`.
    pub fn keep(
        &self,
        client: u64,
        address: IpAddr,
        handle: Arc<Handle>,
        max_per_address: Option<NonZeroUsize>,
    ) -> Option<Registration<'_>> {
        let address = address.to_canonical();
        let entry = Arc::new(Connection { address, handle, is_asked_to_leave: AtomicBool::new(false) });
        let mut clients = self.by_client.lock();
        let of_address = || clients.values().filter(|other| other.address == address).count();
        if max_per_address.is_some_and(|max| of_address() >= max.get()) {
            return None;
        }
        clients.insert(client, Arc::clone(&entry));
        Some(Registration { connections: self, client, entry })
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
pub struct Registration<'a> {
    connections: &'a Connections,
    client: u64,
    entry: Arc<Connection>,
}

impl Registration<'_> {
    /// Whether somebody wants this client to leave.
    #[must_use]
    pub fn is_asked_to_leave(&self) -> bool {
        self.entry.is_asked_to_leave.load(Ordering::Relaxed)
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let entry = self.connections.by_client.lock().remove(&self.client);
        drop(entry);
    }
}

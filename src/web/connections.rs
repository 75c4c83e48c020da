//! The connections of streaming clients, so that they can be ended from outside.
//!
//! It must not know what is sent on them.
//!
//! Lock rule: the one lock is held for a look-up, alone.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::http::socket::Handle;

/// The connections of streaming clients, so that they can be ended from outside.
#[derive(Debug, Default)]
pub struct Connections {
    by_client: Arc<Mutex<ByClient>>,
}

type ByClient = HashMap<u64, Arc<Connection>>;

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    /// `None` for a client that has one for each request.
    handle: Mutex<Option<Arc<Handle>>>,
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
    ) -> Option<Registration> {
        let address = household_of(address);
        let handle = Mutex::new(Some(handle));
        let entry = Arc::new(Connection { address, handle, is_asked_to_leave: AtomicBool::new(false) });
        let mut clients = self.by_client.lock();
        let of_address = || clients.values().filter(|other| other.address == address).count();
        if max_per_address.is_some_and(|max| of_address() >= max.get()) {
            return None;
        }
        clients.insert(client, Arc::clone(&entry));
        Some(Registration { connections: Arc::clone(&self.by_client), client, entry })
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
            let handle = entry.handle.lock().clone();
            if let Some(handle) = handle {
                handle.shutdown();
            }
        }
    }
}

/// What counts as one address: of IPv6 the network of 64 bits that a house has for itself, in which a device takes another
/// address every day (RFC 8981).
fn household_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

/// Forgets a client's connection when dropped.
#[derive(Debug)]
pub struct Registration {
    connections: Arc<Mutex<ByClient>>,
    client: u64,
    entry: Arc<Connection>,
}

impl Registration {
    /// The connection is not the client's any more; the client stays.
    pub fn forget_connection(&self) {
        let handle = self.entry.handle.lock().take();
        drop(handle);
    }

    /// Whether somebody wants this client to leave.
    #[must_use]
    pub fn is_asked_to_leave(&self) -> bool {
        self.entry.is_asked_to_leave.load(Ordering::Relaxed)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let entry = self.connections.lock().remove(&self.client);
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_house_is_one_address() {
        let check = |one: &str, other: &str, is_same| {
            let [one, other] = [one, other].map(|text| text.parse().expect("an address"));
            assert_eq!(household_of(one) == household_of(other), is_same, "{one} {other}");
        };
        check("2001:db8:0:1::1", "2001:db8:0:1:a:b:c:d", true);
        check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("::ffff:192.0.2.1", "::ffff:192.0.2.2", false);
    }
}

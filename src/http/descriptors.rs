//! What there is of descriptors: which connections are among them, how many there are, and a few kept in reserve.
//!
//! It must not know what a connection is for.
//!
//! Lock rule: the reserve's lock guards its list alone; descriptors are opened and closed outside it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use parking_lot::Mutex;

use super::socket::{Handle, cookie_if_closed, descriptors, has_port, peer_of, received_bytes};

/// Descriptors kept for the moment when there are none: for a listener, a connection to itself with its two ends and
/// their duplicates, and a look at the list of descriptors, several times over.
pub(crate) const SPARE_DESCRIPTORS: usize = 16;

/// A connection among the descriptors of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    /// What came on it so far.
    pub(super) received_bytes: u64,
    number: RawFd,
    local_port: u16,
}

impl Seen {
    #[cfg(test)]
    pub(super) fn new(peer: SocketAddr, received_bytes: u64) -> Self {
        Self { peer, received_bytes, number: -1, local_port: 0 }
    }

    /// Breaks the connection off, if it is still there.
    ///
    /// # Errors
    ///
    /// When there is no descriptor to do it with.
    pub(super) fn abort(&self) -> io::Result<()> {
        if let Some(handle) = Handle::at(self.number, self.peer, self.local_port)? {
            handle.abort();
        }
        Ok(())
    }
}

/// What there is of descriptors.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// The connections to our port.
    pub(super) connections: Vec<Seen>,
    /// The cookies of connections that are closed for both sides, and that nobody has let go of yet.
    pub(super) closed: HashSet<u64>,
    /// All of them.
    pub(super) count: usize,
}

/// Looks at all descriptors. About 2 µs each.
///
/// # Errors
///
/// When there is no descriptor to look at the list with.
pub(super) fn look(local_port: u16) -> io::Result<Descriptors> {
    let mut seen = HashMap::new();
    let mut found = Descriptors::default();
    for number in descriptors()? {
        found.count += 1;
        let Some(peer) = peer_of(number).filter(|_| has_port(number, local_port)) else {
            found.closed.extend(cookie_if_closed(number, local_port));
            continue;
        };
        seen.entry(peer).or_insert_with(|| Seen {
            peer,
            received_bytes: received_bytes(number).unwrap_or(0),
            number,
            local_port,
        });
    }
    found.connections = seen.into_values().collect();
    Ok(found)
}

/// Raises the number of descriptors that the process may have as far as the system allows; tells how many.
///
/// # Errors
///
/// When the system does not tell.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

/// Descriptors that lie ready for the moment when there are no others.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    spare: Mutex<Vec<File>>,
}

impl Reserve {
    /// Does something that needs descriptors, and does it again with those of the reserve if there are none else.
    ///
    /// # Errors
    ///
    /// When that does not help either, or it fails for another reason.
    pub(super) fn lend<T>(&self, mut need: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match need() {
            Err(error) if is_shortage(&error) => {
                let spare = std::mem::take(&mut *self.spare.lock());
                drop(spare);
                need()
            }
            other => other,
        }
    }

    /// Fills it up again, as far as there are descriptors.
    pub(super) fn fill(&self) {
        let missing = SPARE_DESCRIPTORS - self.spare.lock().len();
        let more: Vec<_> = (0..missing).map_while(|_| File::open("/dev/null").ok()).collect();
        self.spare.lock().extend(more);
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::super::socket::backlog;
    use super::*;

    #[test]
    fn connections_are_seen_with_what_they_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let local = listener.local_addr().expect("it listens");
        let mut clients = [(); 3].map(|()| TcpStream::connect(local).expect("a connection"));
        assert_eq!(backlog(&listener).expect("a count"), 3);
        let mut accepted: Vec<_> = (0..3).map(|_| listener.accept().expect("a connection").0).collect();
        assert_eq!(backlog(&listener).expect("a count"), 0);
        clients[1].write_all(&[b'x'; 1000]).expect("room in the buffer");
        accepted[1].read_exact(&mut [0; 1000]).expect("what was sent");
        let Descriptors { connections: mut seen, count, .. } = look(local.port()).expect("a list");
        seen.sort_by_key(|seen| seen.received_bytes);
        let told: Vec<_> = seen.iter().map(|seen| (seen.peer, seen.received_bytes)).collect();
        assert_eq!((told.len(), told[2]), (3, (clients[1].local_addr().expect("an address"), 1000)));
        assert!(count >= 7, "{count}");
        seen[2].abort().expect("a descriptor");
        assert_eq!(clients[1].read(&mut [0; 1]).expect("an end"), 0);
        // Closed by both sides, but not let go of.
        clients[1].shutdown(Shutdown::Write).expect("a live socket");
        let deadline = Instant::now() + Duration::from_secs(20);
        let found = loop {
            let found = look(local.port()).expect("a list");
            if found.connections.len() == 2 {
                break found;
            }
            assert!(Instant::now() < deadline, "{found:?}");
        };
        assert_eq!(found.closed.len(), 1, "{found:?}");
        let duplicate = accepted[1].try_clone().expect("a descriptor");
        assert_eq!(look(local.port()).expect("a list").closed, found.closed, "a duplicate is the same");
        drop((accepted, duplicate));
        let found = look(local.port()).expect("a list");
        assert!(found.connections.is_empty() && found.closed.is_empty(), "{found:?}");
        seen[2].abort().expect("it has gone already");
    }

    #[test]
    fn the_reserve_is_lent_once_and_filled_again() {
        let reserve = Reserve::default();
        reserve.fill();
        assert_eq!(reserve.spare.lock().len(), SPARE_DESCRIPTORS);
        let mut tries = 0;
        let lent = reserve.lend(|| {
            tries += 1;
            if tries == 1 { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(tries) }
        });
        assert_eq!((lent.expect("it worked then"), reserve.spare.lock().len()), (2, 0));
        reserve.lend(|| Err::<(), _>(io::ErrorKind::NotConnected.into())).expect_err("no shortage");
        reserve.fill();
        assert_eq!(reserve.spare.lock().len(), SPARE_DESCRIPTORS);
    }
}

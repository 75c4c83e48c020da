//! Raw sockets: the options of connections, and a handle on a client's connection.
//!
//! `tiny_http` hides the sockets of its connections, so a connection is found again among the process's descriptors by
//! its two addresses. All `unsafe` of the crate that touches sockets is here.

#![expect(unsafe_code, reason = "descriptors by number and TCP_INFO have no safe interface")]

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{SockAddr, SockRef, Socket, TcpKeepalive};

/// Requests are small. Without this bound the kernel takes in megabytes of requests that wait behind another one.
const RECEIVE_BUFFER_BYTES: usize = 32 * 1024;

/// What lies unsent in the kernel for a client: measured, a stalled client so costs 283 KiB in place of 4.2 MB, and a
/// flowing one the least CPU.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// A peer whose machine is gone is noticed after 60 + 3 * 10 s, also while nothing is sent to it.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);

/// From the kernel's list of states.
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// How a peer stands to its connection, as far as the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has not ended anything.
    There,
    /// It says nothing more. Whether it still listens, or has closed both halves and is gone, only a write tells: one that
    /// is gone answers it by a reset.
    Mute,
    /// It has reset the connection, or we have ended it.
    Gone,
}

/// Where the kernel's `struct tcp_info` has the unacknowledged segments, of a listener the connections that wait to be
/// accepted (`tcpi_unacked`), and the bytes that came (`tcpi_bytes_received`, since Linux 4.1).
const INFO_UNACKED: usize = 24;
const INFO_BYTES_RECEIVED: usize = 128;
const INFO_BYTES: usize = 136;

/// What every connection has. A listener hands on what was set there to those that come from then on.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a peer may say nothing while it is its turn.
    pub read_limit: Duration,
    /// How long one write waits for a client that takes nothing.
    pub write_slice: Duration,
}

impl Options {
    /// Sets them all.
    pub(super) fn set(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(self.read_limit))?;
        socket.set_write_timeout(Some(self.write_slice))?;
        let (idle, interval, retries) = KEEPALIVE;
        socket.set_tcp_keepalive(
            &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries),
        )?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
    }
}

/// While many come and go, a number may have become free below that of a connection that has just come; so, beside
/// those below the lowest free number, so many above it are tried before the whole list is read.
const LOOK_ABOVE: RawFd = 32;

/// A duplicate of a client's connection, to ask after its state and to shut it down.
#[derive(Debug)]
pub struct Handle {
    socket: OwnedFd,
}

impl Handle {
    /// Finds the connection from `peer` to our `local_port`. A new descriptor has the lowest number that is free, so
    /// what came lately is near that one, and most often right below it: measured with 3000 descriptors, 8 µs for the
    /// newest connection and 2 ms for the oldest.
    ///
    /// # Errors
    ///
    /// When there is no such connection (it is gone already), or no descriptor for the duplicate.
    pub fn find(peer: SocketAddr, local_port: u16) -> io::Result<Self> {
        let at = |number| Self::at(number, peer, local_port).transpose();
        let lowest_free = File::open("/dev/null")?.as_raw_fd();
        let mut near = (lowest_free..lowest_free + LOOK_ABOVE).chain((0..lowest_free).rev());
        if let Some(found) = near.find_map(at) {
            return found;
        }
        let mut others = descriptors()?.filter(|number| *number >= lowest_free + LOOK_ABOVE);
        others.find_map(at).unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// The connection from `peer` to our `local_port`, if this descriptor is one of it.
    ///
    /// # Errors
    ///
    /// When it is, but there is no descriptor for the duplicate.
    pub(super) fn at(number: RawFd, peer: SocketAddr, local_port: u16) -> io::Result<Option<Self>> {
        if !is_connection(number, peer, local_port) {
            return Ok(None);
        }
        // Another thread may close it before it is duplicated, and its number may go to another file. So the duplicate is
        // looked at once more.
        let socket = duplicate(number)?;
        Ok(is_connection(socket.as_raw_fd(), peer, local_port).then_some(Self { socket }))
    }

    /// The number of its descriptor: the kernel gives the lowest that is free, so this tells how many are taken.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.socket.as_raw_fd().unsigned_abs().into()
    }

    /// How the peer stands to it. Only the TCP state tells: of a client that said `Connection: close`, `tiny_http` has shut
    /// the reading side, so that reading and polling say nothing.
    #[must_use]
    pub fn presence(&self) -> Presence {
        match info(self.socket.as_raw_fd()).map(|info| info[0]) {
            Ok(TCP_ESTABLISHED) => Presence::There,
            Ok(TCP_CLOSE_WAIT) => Presence::Mute,
            _ => Presence::Gone,
        }
    }

    /// Whether it is closed for both sides, as after a reset: its peer's port may belong to a new connection by now.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        info(self.socket.as_raw_fd()).is_ok_and(|info| info[0] == TCP_CLOSE)
    }

    /// Sets the options of one that came before its listener had them.
    ///
    /// # Errors
    ///
    /// When the peer has ended it.
    pub(super) fn set(&self, options: Options) -> io::Result<()> {
        options.set(&SockRef::from(&self.socket))
    }

    /// The peer may from now on say nothing for so long, while it is its turn.
    pub(super) fn set_read_limit(&self, limit: Duration) {
        // An error means that the peer has ended it.
        let _set = SockRef::from(&self.socket).set_read_timeout(Some(limit));
    }

    /// Breaks the connection off: as [`Handle::shutdown`], but the peer is told by a reset. One that has filled its own
    /// buffers would else keep waiting for room.
    pub(super) fn abort(&self) {
        // An error means that the peer has ended it.
        let _ended = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        self.shutdown();
    }

    /// Nothing more is waited for from the peer; what has come is still read.
    pub(super) fn shutdown_read(&self) {
        // An error means that the peer has ended it.
        let _ended = SockRef::from(&self.socket).shutdown(Shutdown::Read);
    }

    /// Ends the connection: what was written is still delivered, nothing more is read, and whoever is blocked in a read
    /// or write of it returns.
    pub fn shutdown(&self) {
        // An error means that the peer has ended it.
        let _ended = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

fn is_connection(number: RawFd, peer: SocketAddr, local_port: u16) -> bool {
    peer_of(number) == Some(peer) && has_port(number, local_port)
}

// What follows takes descriptors by number. Should another thread close one, or none have this number, the call fails
// or tells of another file; whoever acts on what it told looks again at a duplicate of his own.

/// Where a connection comes from.
pub(super) fn peer_of(number: RawFd) -> Option<SocketAddr> {
    address(|address, length| {
        // SAFETY: the kernel writes no more than `length` bytes to `address`, and says how many.
        unsafe { libc::getpeername(number, address, length) }
    })
}

/// Whether our end of a connection has this port.
pub(super) fn has_port(number: RawFd, port: u16) -> bool {
    let local = address(|address, length| {
        // SAFETY: the kernel writes no more than `length` bytes to `address`, and says how many.
        unsafe { libc::getsockname(number, address, length) }
    });
    local.is_some_and(|local| local.port() == port)
}

/// The address that the kernel fills in, if it is one of IP.
fn address(fill: impl Fn(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int) -> Option<SocketAddr> {
    // SAFETY: storage and length fit each other, and the kernel fills in both when it says 0.
    let filled = unsafe {
        SockAddr::try_init(|storage, length| match fill(storage.cast(), length) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    };
    filled.ok()?.1.as_socket()
}

/// # Errors
///
/// When there is no descriptor for it, or none of this number.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it takes no pointers; what it returns is new and nobody else's.
    unsafe {
        match libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            new => Ok(OwnedFd::from_raw_fd(new)),
        }
    }
}

/// What tells this connection from all others, if it was one to our port and is closed for both sides: it has no peer
/// any more. The kernel numbers sockets, not descriptors, and uses no number twice.
pub(super) fn cookie_if_closed(number: RawFd, local_port: u16) -> Option<u64> {
    let is_closed = info(number).is_ok_and(|info| info[0] == TCP_CLOSE);
    if !is_closed || !has_port(number, local_port) {
        return None;
    }
    option(number, libc::SOL_SOCKET, libc::SO_COOKIE).ok().map(u64::from_ne_bytes)
}

/// The numbers of all descriptors there are.
pub(super) fn descriptors() -> io::Result<impl Iterator<Item = RawFd>> {
    let number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    Ok(std::fs::read_dir("/proc/self/fd")?.filter_map(number))
}

/// The beginning of the kernel's `struct tcp_info`; zero where an old kernel has less of it.
fn info(number: RawFd) -> io::Result<[u8; INFO_BYTES]> {
    option(number, libc::IPPROTO_TCP, libc::TCP_INFO)
}

/// An option of a socket, as far as it fits; zero behind what the kernel has of it.
fn option<const BYTES: usize>(
    number: RawFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[u8; BYTES]> {
    let mut value = [0_u8; BYTES];
    let mut length = BYTES as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes to the buffer.
    let result = unsafe { libc::getsockopt(number, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn field<const N: usize>(info: &[u8; INFO_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&info[at..at + N]);
    bytes
}

/// How many bytes came on a connection so far.
///
/// # Errors
///
/// When the system does not tell.
pub(super) fn received_bytes(number: RawFd) -> io::Result<u64> {
    info(number).map(|info| u64::from_ne_bytes(field(&info, INFO_BYTES_RECEIVED)))
}

/// How many connections wait to be accepted.
///
/// # Errors
///
/// When the system does not tell.
pub(super) fn backlog(listener: &TcpListener) -> io::Result<u32> {
    info(listener.as_raw_fd()).map(|info| u32::from_ne_bytes(field(&info, INFO_UNACKED)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn open(address: &str) -> TcpListener {
        TcpListener::bind(address).expect("a free port")
    }

    fn check(address: &str) {
        let listener = open(address);
        let local = listener.local_addr().expect("it listens");
        let mut client = TcpStream::connect(local).expect("a connection");
        let (mut accepted, peer) = listener.accept().expect("the connection");
        let handle = Handle::find(peer, local.port()).expect("it is there");
        assert_eq!(handle.presence(), Presence::There);
        // A stranger's port is not ours, and the client's own end is not the server's.
        assert!(Handle::find(peer, local.port() ^ 1).is_err());
        accepted.write_all(b"last words").expect("room in the buffer");
        handle.shutdown();
        let mut text = String::new();
        client.read_to_string(&mut text).expect("what was written before is delivered");
        assert_eq!(text, "last words");
        assert_eq!(handle.presence(), Presence::Gone);
        drop(accepted);
        drop(handle);
        assert!(Handle::find(peer, local.port()).is_err(), "the last duplicate is closed");
    }

    #[test]
    fn a_connection_is_found_by_its_addresses() {
        check("127.0.0.1:0");
        check("[::1]:0");
        check("[::]:0");
    }

    #[test]
    fn a_write_tells_a_peer_that_only_says_nothing_more_from_one_that_left() {
        let listener = open("127.0.0.1:0");
        let local = listener.local_addr().expect("it listens");
        for is_gone in [false, true] {
            let client = TcpStream::connect(local).expect("a connection");
            let (mut accepted, peer) = listener.accept().expect("the connection");
            let handle = Handle::find(peer, local.port()).expect("it is there");
            let held = if is_gone {
                drop(client);
                None
            } else {
                client.shutdown(Shutdown::Write).expect("a live socket");
                Some(client)
            };
            // Its end has arrived when a read says so.
            assert_eq!(accepted.read(&mut [0; 1]).expect("an end"), 0);
            assert_eq!(handle.presence(), Presence::Mute);
            accepted.write_all(b"H").expect("room in the buffer");
            // On the loopback interface the answer has arrived when the write returns.
            assert_eq!(handle.presence(), if is_gone { Presence::Gone } else { Presence::Mute });
            drop(held);
        }
    }

    #[test]
    fn options_are_set_on_a_connection_that_came_before_its_listener_had_them() {
        let listener = open("127.0.0.1:0");
        let local = listener.local_addr().expect("it listens");
        let _client = TcpStream::connect(local).expect("a connection");
        let second = Duration::from_secs(1);
        let options = Options { read_limit: 2 * second, write_slice: second };
        options.set(&SockRef::from(&listener)).expect("a live socket");
        let (early, peer) = listener.accept().expect("the connection");
        assert_eq!(early.write_timeout().expect("a live socket"), None);
        Handle::find(peer, local.port()).expect("it is there").set(options).expect("it is alive");
        let _other = TcpStream::connect(local).expect("a connection");
        for accepted in [early, listener.accept().expect("the connection").0] {
            assert_eq!(accepted.read_timeout().expect("a live socket"), Some(2 * second));
            assert_eq!(accepted.write_timeout().expect("a live socket"), Some(second));
            assert!(accepted.nodelay().expect("a live socket"));
            let socket = SockRef::from(&accepted);
            assert!(socket.keepalive().expect("a live socket"));
            assert_eq!(socket.tcp_notsent_lowat().expect("a live socket"), NOTSENT_LOWAT_BYTES);
        }
    }
}

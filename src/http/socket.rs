//! Raw sockets: the listener's options, and a handle on a client's connection.
//!
//! `tiny_http` hides the sockets of its connections, so a connection is found again among the process's descriptors by
//! its two addresses. All `unsafe` of the crate is here.

#![expect(unsafe_code, reason = "descriptors by number and TCP_INFO have no safe interface")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted: a house that switches on at once, or a storm of resets.
const ACCEPT_BACKLOG: i32 = 1024;

/// A peer that says nothing while it is its turn costs a thread no longer than this.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What lies unsent in the kernel for a client: measured, a stalled client so costs 283 KiB in place of 4.2 MB, and a
/// flowing one the least CPU.
const NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;

/// A peer whose machine is gone is noticed after 60 + 3 * 10 s, also while nothing is sent to it.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);

/// `TCP_ESTABLISHED` of the kernel's list of states.
const TCP_ESTABLISHED: u8 = 1;

/// Opens the port. Accepted connections inherit the options set here. `write_slice` is how long one write waits for a
/// client that takes nothing.
///
/// # Errors
///
/// When the address is taken, or not ours.
pub fn listen(address: SocketAddr, write_slice: Duration) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // `[::]` means every address of the box, as people expect of it.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    socket.set_write_timeout(Some(write_slice))?;
    let (idle, interval, retries) = KEEPALIVE;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries),
    )?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

/// Ends a listener for good: a pending `accept` returns, and connects are refused.
pub(super) fn close_listener(listener: &TcpListener) {
    // An error means that it is closed.
    let _closed = SockRef::from(listener).shutdown(Shutdown::Both);
}

/// Where a listener can be reached from this machine.
#[must_use]
pub fn loopback_of(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// A duplicate of a client's connection, to ask after its state and to shut it down.
#[derive(Debug)]
pub struct Handle {
    socket: OwnedFd,
}

impl Handle {
    /// Finds the connection from `peer` to our `local_port`. 50 to 90 µs in a small process, growing with the number of
    /// descriptors: once a stream, not once a request.
    ///
    /// # Errors
    ///
    /// When there is no such connection (it is gone already), or no descriptor for the duplicate.
    pub fn find(peer: SocketAddr, local_port: u16) -> io::Result<Self> {
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
                continue;
            };
            // SAFETY: the descriptor is borrowed for the two calls below only. Should another thread close it in
            // between, they fail or see another file, which the look at the duplicate finds out.
            let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
            if !is_connection(borrowed, peer, local_port) {
                continue;
            }
            let socket = borrowed.try_clone_to_owned()?;
            if is_connection(socket.as_fd(), peer, local_port) {
                return Ok(Self { socket });
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }

    /// Whether the peer is still there. Only the TCP state tells: of a client that said `Connection: close`,
    /// `tiny_http` has shut the reading side, so that reading and polling say nothing.
    #[must_use]
    pub fn is_established(&self) -> bool {
        // The state is the first byte of the answer, and the kernel gives as much of it as there is room for.
        let mut state = 0_u8;
        let mut length: libc::socklen_t = 1;
        // SAFETY: descriptor, buffer and length are ours and live over the call; the kernel writes at most `length`
        // bytes.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut state).cast(),
                &raw mut length,
            )
        };
        result == 0 && state == TCP_ESTABLISHED
    }

    /// Ends the connection: what was written is still delivered, nothing more is read, and whoever is blocked in a read
    /// or write of it returns.
    pub fn shutdown(&self) {
        // An error means that the peer has ended it.
        let _ended = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }
}

fn is_connection(descriptor: BorrowedFd<'_>, peer: SocketAddr, local_port: u16) -> bool {
    let socket = SockRef::from(&descriptor);
    let peer_of = || socket.peer_addr().ok().and_then(|address| address.as_socket());
    let port_of =
        || socket.local_addr().ok().and_then(|address| address.as_socket()).map(|address| address.port());
    peer_of() == Some(peer) && port_of() == Some(local_port)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn check(address: &str) {
        let listener =
            listen(address.parse().expect("an address"), Duration::from_secs(1)).expect("a free port");
        let local = listener.local_addr().expect("it listens");
        let mut client = TcpStream::connect(loopback_of(local)).expect("a connection");
        let (mut accepted, peer) = listener.accept().expect("the connection");
        let handle = Handle::find(peer, local.port()).expect("it is there");
        assert!(handle.is_established());
        // A stranger's port is not ours, and the client's own end is not the server's.
        assert!(Handle::find(peer, local.port() ^ 1).is_err());
        accepted.write_all(b"last words").expect("room in the buffer");
        handle.shutdown();
        let mut text = String::new();
        client.read_to_string(&mut text).expect("what was written before is delivered");
        assert_eq!(text, "last words");
        assert!(!handle.is_established());
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
    fn a_closed_listener_refuses() {
        let listener =
            listen("127.0.0.1:0".parse().expect("an address"), Duration::from_secs(1)).expect("a port");
        let local = listener.local_addr().expect("it listens");
        close_listener(&listener);
        assert!(listener.accept().is_err());
        assert!(TcpStream::connect(local).is_err());
    }

    #[test]
    fn a_peer_that_leaves_is_noticed_by_state() {
        let listener =
            listen("127.0.0.1:0".parse().expect("an address"), Duration::from_secs(1)).expect("a port");
        let local = listener.local_addr().expect("it listens");
        let client = TcpStream::connect(local).expect("a connection");
        let (mut accepted, peer) = listener.accept().expect("the connection");
        let handle = Handle::find(peer, local.port()).expect("it is there");
        drop(client);
        // Its end has arrived when a read says so.
        assert_eq!(accepted.read(&mut [0; 1]).expect("an end"), 0);
        assert!(!handle.is_established());
    }
}

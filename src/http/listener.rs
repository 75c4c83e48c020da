//! The port: opened here, or by the service manager, who passes it to one process after the other.
//!
//! A port of our own is shut down at the end. One that the service manager holds too is not, since that would end it
//! for the next process as well. It is left: it no longer waits in `accept`, so that this fails when nobody is there,
//! and whoever connects from then on waits in the backlog for the next process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::RawFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::filter;
use super::socket::{self, Options};

/// Connections that may wait to be accepted: a house that switches on at once, or a storm of resets.
const ACCEPT_BACKLOG: i32 = 1024;

/// A TCP listener of the service manager's.
#[derive(Debug)]
pub struct Inherited {
    socket: Socket,
}

impl Inherited {
    /// Takes the descriptor with this number. It stays open beside ours, as it is at the service manager's.
    ///
    /// # Errors
    ///
    /// When it is no TCP listener.
    pub fn take(number: RawFd) -> io::Result<Self> {
        let socket = Socket::from(socket::duplicate(number)?);
        let is_ip = [Domain::IPV4, Domain::IPV6].contains(&socket.domain()?);
        let is_tcp = socket.r#type()? == Type::STREAM && socket.protocol()? == Some(Protocol::TCP);
        if is_ip && is_tcp && socket.is_listener()? {
            return Ok(Self { socket });
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP socket that listens"))
    }
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    options: Options,
    is_inherited: bool,
}

impl Listener {
    /// Opens the port. Connections get these options.
    ///
    /// # Errors
    ///
    /// When the address is taken, or not ours.
    pub fn open(address: SocketAddr, options: Options) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            // `[::]` means every address of the box, as people expect of it.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        options.set(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG)?;
        Self::new(socket, options, false)
    }

    /// Serves one that is open. Connections get these options, but for those that wait already.
    ///
    /// # Errors
    ///
    /// When the system does not let it be set up.
    pub fn inherit(inherited: Inherited, options: Options) -> io::Result<Self> {
        options.set(&inherited.socket)?;
        // Whoever had it before us may have ended before it could say that all are welcome again.
        filter::drop_packets_of(&inherited.socket, &[])?;
        Self::new(inherited.socket, options, true)
    }

    fn new(socket: Socket, options: Options, is_inherited: bool) -> io::Result<Self> {
        let socket = TcpListener::from(socket);
        Ok(Self { address: socket.local_addr()?, socket, options, is_inherited })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it can be reached from this machine.
    pub(super) fn loopback(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    /// Whether it outlives this process.
    pub(super) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// What connections get.
    pub(super) fn options(&self) -> Options {
        self.options
    }

    /// A duplicate whose `accept` waits.
    ///
    /// # Errors
    ///
    /// When there is no descriptor for it.
    pub(super) fn duplicate(&self) -> io::Result<TcpListener> {
        if self.is_inherited {
            // All who hold a socket share whether it waits; a process that had it before us may have left it not
            // waiting.
            self.socket.set_nonblocking(false)?;
        }
        self.socket.try_clone()
    }

    /// From now on nobody of these networks, and of no others, can connect.
    ///
    /// # Errors
    ///
    /// When the system does not let it.
    pub(super) fn refuse(&self, networks: &[IpAddr]) -> io::Result<()> {
        filter::drop_packets_of(&self.socket, networks)
    }

    /// Connections that wait to be accepted.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub(super) fn backlog(&self) -> io::Result<u32> {
        socket::backlog(&self.socket)
    }

    /// From now on an `accept` that finds nobody fails; one that waits already needs one more connection to notice.
    ///
    /// # Errors
    ///
    /// When the system does not let it.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Ends one of our own for good: a pending `accept` returns, and connects are refused.
    pub(super) fn close(&self) {
        if !self.is_inherited {
            // An error means that it is closed.
            let _closed = SockRef::from(&self.socket).shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    const OPTIONS: Options =
        Options { read_limit: Duration::from_secs(10), write_slice: Duration::from_secs(10) };

    fn check(address: &str) {
        let listener = Listener::open(address.parse().expect("an address"), OPTIONS).expect("a free port");
        let mut client = TcpStream::connect(listener.loopback()).expect("a connection");
        assert_eq!(listener.backlog().expect("a count"), 1);
        let (mut accepted, _) = listener.duplicate().expect("a descriptor").accept().expect("the connection");
        client.write_all(b"x").expect("room in the buffer");
        accepted.read_exact(&mut [0; 1]).expect("it came");
        listener.close();
        assert!(listener.duplicate().expect("a descriptor").accept().is_err());
        assert!(TcpStream::connect(listener.loopback()).is_err());
    }

    #[test]
    fn one_of_our_own_is_open_until_it_is_closed() {
        check("127.0.0.1:0");
        check("[::1]:0");
        check("0.0.0.0:0");
        check("[::]:0");
    }

    #[test]
    fn an_inherited_one_is_left_and_served_again() {
        let manager = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut clients = Vec::new();
        for _ in 0..2 {
            let inherited = Inherited::take(manager.as_raw_fd()).expect("it listens");
            let listener = Listener::inherit(inherited, OPTIONS).expect("it can be set up");
            assert_eq!(listener.address(), manager.local_addr().expect("it listens"));
            let accepting = listener.duplicate().expect("a descriptor");
            clients.push(TcpStream::connect(listener.address()).expect("a connection"));
            for _ in 0..listener.backlog().expect("a count") {
                accepting.accept().expect("a connection");
            }
            listener.leave().expect("a live socket");
            let error = accepting.accept().expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            listener.close();
            // Who comes now waits for the next.
            clients.push(TcpStream::connect(listener.address()).expect("a connection"));
        }
        assert_eq!(socket::backlog(&manager).expect("a count"), 1);
    }

    #[test]
    fn only_a_tcp_listener_is_taken() {
        let local = "127.0.0.1:0";
        let listener = TcpListener::bind(local).expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("it listens")).expect("a connection");
        let datagrams = UdpSocket::bind(local).expect("a free port");
        let path = std::env::temp_dir().join(format!("acerelay-{}-listener", std::process::id()));
        let unix = UnixListener::bind(&path).expect("a path that is free");
        std::fs::remove_file(&path).expect("it is there");
        let file = std::fs::File::open("/dev/null").expect("a file");
        for number in [&stream as &dyn AsRawFd, &datagrams, &unix, &file].map(AsRawFd::as_raw_fd) {
            Inherited::take(number).expect_err("it is something else");
        }
        Inherited::take(RawFd::MAX).expect_err("there is none");
        Inherited::take(listener.as_raw_fd()).expect("it is one");
    }
}

//! Answers whoever looks for HDHomeRun tuners in this network, by UDP: the one file that knows UDP.
//!
//! A datagram can come from anybody in anybody's name. So only a well-formed question is answered, only one for us, only to
//! addresses of a house, not more often than a house asks, and never with much more than was asked (an answer has some
//! hundred bytes). It must not know what the tuner plays.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::device::{AUTH, Device};
use super::packet::{MAX_QUESTION_BYTES, answer, asks_for, is_question};

/// Where every client asks.
pub const PORT: u16 = 65001;

/// How often the thread looks whether the proxy ends, and beats.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// While somebody else has the port it is tried so often: a proxy that is started anew meets the one before it.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The thread beats each `LOOK_INTERVAL` and makes no call that waits.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Answers a second, and as many at once: clients ask twice, and a house has a few.
const ANSWERS_PER_SECOND: u32 = 10;

/// Answers questions on UDP port `port` until `stop` is closed, as the tuner that `device` gives, and calls `beat` all the
/// while. The proxy listens on `listen`. A port that is taken is a warning, and tried again.
pub fn run(
    port: u16,
    listen: SocketAddr,
    device: impl Fn() -> Option<Device>,
    stop: &Receiver<()>,
    beat: impl Fn(),
) {
    let mut is_told = false;
    loop {
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(socket) => {
                log::info!("The tuner answers discovery on UDP port {port}");
                match serve(&socket, listen, &device, stop, &beat) {
                    Ok(()) => return,
                    Err(error) => log::warn!("Discovery of the tuner has to begin anew: {error}"),
                }
            }
            Err(error) if is_told => log::debug!("UDP port {port}: {error}"),
            Err(error) => {
                is_told = true;
                log::warn!(
                    "The tuner cannot be discovered yet, UDP port {port}: {error}; it can be added by its address"
                );
            }
        }
        let again = Instant::now() + RETRY_PAUSE;
        while Instant::now() < again {
            beat();
            if !matches!(stop.recv_timeout(LOOK_INTERVAL), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }
}

/// The same as [`run`], on a socket that is open.
///
/// # Errors
///
/// When the socket fails for good.
pub fn serve(
    socket: &UdpSocket,
    listen: SocketAddr,
    device: impl Fn() -> Option<Device>,
    stop: &Receiver<()>,
    beat: impl Fn(),
) -> io::Result<()> {
    socket.set_read_timeout(Some(LOOK_INTERVAL))?;
    let mut allowance = Allowance::new(Instant::now());
    // One more than a question may have, so that a longer one is not taken for one.
    let mut packet = [0; MAX_QUESTION_BYTES + 1];
    while stop.try_recv() == Err(TryRecvError::Empty) {
        beat();
        let (length, from) = match socket.recv_from(&mut packet) {
            Ok(received) => received,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        let packet = &packet[..length];
        if !is_of_a_house(from.ip()) || !is_question(packet) || !allowance.take(Instant::now()) {
            continue;
        }
        if let Some(device) = device().filter(|device| asks_for(packet, device.id))
            && let Some(base) = base_for(from, listen)
        {
            let answer = answer(device.id, device.tuners, &base, AUTH);
            if let Err(error) = socket.send_to(&answer, from) {
                log::debug!("{from} looks for tuners and cannot be answered: {error}");
            }
        }
    }
    Ok(())
}

/// Where the one who asks reaches us; `None` when the proxy does not listen there.
fn base_for(from: SocketAddr, listen: SocketAddr) -> Option<String> {
    let unbound = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    // Sends nothing: the system only looks which of our addresses it would send from.
    let way = UdpSocket::bind(unbound).and_then(|socket| {
        socket.connect(from)?;
        socket.local_addr()
    });
    let (address, listens) = (way.ok()?.ip(), listen.ip().to_canonical());
    let is_served = listens.is_unspecified() || listens == address;
    is_served.then(|| format!("http://{}", SocketAddr::new(address, listen.port())))
}

/// What says nothing of the socket: nothing came, or an answer of ours found nobody.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// Whether the address can be one of this house: private, link-local or this machine (RFC 1918, RFC 3927).
fn is_of_a_house(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_link_local() || address.is_loopback(),
        IpAddr::V6(_) => false,
    }
}

/// How many answers may go out now.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: ANSWERS_PER_SECOND, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or_default();
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_house_is_answered() {
        for (address, is_ours) in [
            ("192.168.1.7", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("169.254.0.9", true),
            ("127.0.0.1", true),
            ("::ffff:192.168.1.7", true),
            ("172.32.0.1", false),
            ("8.8.8.8", false),
            ("255.255.255.255", false),
            ("0.0.0.0", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_of_a_house(address.parse().expect("an address")), is_ours, "{address}");
        }
    }

    #[test]
    fn a_flood_is_answered_ten_times_a_second() {
        let began = Instant::now();
        let mut allowance = Allowance::new(began);
        let given = |allowance: &mut Allowance, at| {
            (0..1000).filter(|_| allowance.take(began + Duration::from_millis(at))).count()
        };
        assert_eq!([0, 999, 1000, 1001, 5000].map(|at| given(&mut allowance, at)), [10, 0, 10, 0, 10]);
    }

    #[test]
    fn the_base_is_where_the_proxy_listens_or_nothing() {
        for (listen, base) in [
            ("0.0.0.0:8000", Some("http://127.0.0.1:8000")),
            ("127.0.0.1:80", Some("http://127.0.0.1:80")),
            ("[::]:8000", Some("http://127.0.0.1:8000")),
            ("192.168.77.77:8000", None),
            ("[::1]:8000", None),
        ] {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
            let found = base_for(from, listen.parse().expect("an address"));
            assert_eq!(found.as_deref(), base, "{listen}");
        }
    }
}

//! Who sent something that `tiny_http` swallowed: a blank in the URL, a letter that is not ASCII, lines that end with LF alone.
//!
//! It closes such connections without a word, or with one that explains nothing, and nothing of it reaches us. Whoever wonders
//! why a player shows nothing finds the address here, at intervals. Two things tell: a connection that was looked at had sent
//! bytes, and has gone without a request; or it came and went between two looks, and the kernel remembers for a minute that
//! it was ended by our side. It must not know what was sent: nobody does any more.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::guard::Departed;

/// How often the kernel's list is read. It forgets after 60 s; to read it takes 2 ms, since it looks through a table made for
/// 262,144 connections.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is told at most.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Lines at a time; more addresses are told as a number.
const MAX_LINES: usize = 8;

/// Addresses that are counted one by one.
const MAX_ADDRESSES: usize = 256;

/// Connections that may end from one reading to the next, some 2000 a second: in a storm of more nobody is told apart.
const MAX_RECENT: usize = 10_000;

/// What is read of the kernel's list, 150 bytes a connection.
const MAX_LIST_BYTES: u64 = 4 << 20;

/// What was wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// `tiny_http` has ended it at once.
    Refused,
    /// It never came to the end of a request.
    Unfinished,
}

impl Fault {
    const fn text(self) -> &'static str {
        match self {
            Self::Refused => {
                "sent something that is no HTTP request (a blank in the URL, or a letter that is not ASCII?)"
            }
            Self::Unfinished => {
                "sent no whole HTTP request (lines that end with LF alone, or HTTPS, or a head that stopped halfway?)"
            }
        }
    }
}

/// Who it was, until it is told.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Those that ended since the last reading and are accounted for.
    recent: HashSet<SocketAddr>,
    /// What the kernel's list had at the last reading; `None` after one that was of no use.
    known: Option<HashSet<SocketAddr>>,
    next_reading: Instant,
    found: BTreeMap<(IpAddr, Fault), u64>,
    /// Of more addresses than are counted one by one.
    others: u64,
    next_telling: Instant,
}

impl Strangers {
    /// Before anybody is served; `closed` are those that the kernel's list has from before.
    pub(super) fn new(closed: io::Result<HashSet<SocketAddr>>, now: Instant) -> Self {
        Self {
            recent: HashSet::new(),
            known: closed.ok(),
            next_reading: now + READ_INTERVAL,
            found: BTreeMap::new(),
            others: 0,
            next_telling: now,
        }
    }

    /// These connections are there no more.
    pub(super) fn add_departed(&mut self, departed: &[Departed]) {
        for Departed { peer, has_asked, has_spoken } in departed {
            if *has_spoken && !*has_asked {
                self.count(peer.ip(), Fault::Unfinished);
            }
            self.recent.insert(plain(*peer));
        }
    }

    /// Looks at the kernel's list, if it is time to: `closed` gives those that our side has ended, and `is_known` tells whether
    /// a connection is accounted for.
    pub(super) fn look(
        &mut self,
        closed: impl FnOnce() -> io::Result<HashSet<SocketAddr>>,
        is_known: impl Fn(SocketAddr) -> bool,
        now: Instant,
    ) {
        if now < self.next_reading {
            return;
        }
        self.next_reading = now + READ_INTERVAL;
        let recent = std::mem::take(&mut self.recent);
        let closed = closed().ok().filter(|_| recent.len() <= MAX_RECENT);
        if let (Some(closed), Some(known)) = (&closed, self.known.take()) {
            for peer in closed {
                if !known.contains(peer) && !recent.contains(peer) && !is_known(*peer) {
                    self.count(peer.ip(), Fault::Refused);
                }
            }
        }
        self.known = closed;
    }

    fn count(&mut self, ip: IpAddr, fault: Fault) {
        let key = (ip.to_canonical(), fault);
        if self.found.len() < MAX_ADDRESSES || self.found.contains_key(&key) {
            *self.found.entry(key).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    /// What is to be told now, line by line.
    pub(super) fn tell(&mut self, now: Instant) -> Vec<String> {
        if self.found.is_empty() || now < self.next_telling {
            return Vec::new();
        }
        self.next_telling = now + TELL_INTERVAL;
        let connections =
            |count| if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") };
        let mut found: Vec<_> = std::mem::take(&mut self.found).into_iter().collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let rest = found.split_off(MAX_LINES.min(found.len()));
        let others = std::mem::take(&mut self.others) + rest.iter().map(|(_, count)| count).sum::<u64>();
        let line = |((ip, fault), count): ((IpAddr, Fault), u64)| {
            format!("{} from {ip} {}", connections(count), fault.text())
        };
        let mut lines: Vec<_> = found.into_iter().map(line).collect();
        if others > 0 {
            lines.push(format!("{} from other addresses sent no HTTP request", connections(others)));
        }
        lines
    }
}

/// Without what only one of the two sources tells of an address, the zone of a link-local one.
fn plain(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip(), peer.port())
}

/// States of connections that our side has ended first, in the kernel's numbers: `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`,
/// `TCP_TIME_WAIT`.
const ENDED_BY_US: [&str; 3] = ["04", "05", "06"];

/// The peers of connections to this address of ours that our side has ended in the last minute.
///
/// # Errors
///
/// When the kernel does not tell, or there are too many.
pub(super) fn closed_by_us(local: SocketAddr) -> io::Result<HashSet<SocketAddr>> {
    let path = if local.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let mut list = String::new();
    if File::open(path)?.take(MAX_LIST_BYTES).read_to_string(&mut list)? as u64 == MAX_LIST_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(list.lines().filter_map(|line| peer_in(line, local.port())).collect())
}

/// The peer in a line of the kernel's list (proc(5)), if our side has ended it: number, our address, the other one, state.
fn peer_in(line: &str, local_port: u16) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, port) = local.rsplit_once(':')?;
    let is_meant = u16::from_str_radix(port, 16) == Ok(local_port) && ENDED_BY_US.contains(&state);
    let (ip, port) = peer.rsplit_once(':').filter(|_| is_meant)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Four bytes at a time, each as a number of this machine's.
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
                four.copy_from_slice(&word);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], port))
    }

    #[test]
    fn whoever_was_ended_without_a_request_is_told_at_intervals() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let old = [peer(1, 1), peer(1, 2)];
        let mut strangers = Strangers::new(Ok(old.into()), start);
        let look = |strangers: &mut Strangers, peers: &[SocketAddr], time| {
            strangers.look(|| Ok(peers.iter().copied().collect()), |peer| peer.port() == 99, at(time));
            strangers.tell(at(time))
        };
        strangers.add_departed(&[
            Departed { peer: peer(2, 1), has_asked: true, has_spoken: true },
            Departed { peer: peer(3, 1), has_asked: false, has_spoken: false },
            Departed { peer: peer(4, 1), has_asked: false, has_spoken: true },
        ]);
        let now =
            [&old[..], &[peer(2, 1), peer(3, 1), peer(4, 1), peer(5, 1), peer(5, 2), peer(6, 99)]].concat();
        let told = look(&mut strangers, &now, 5);
        let expected =
            ["2 connections from 192.0.2.5 sent something", "1 connection from 192.0.2.4 sent no whole"];
        assert!(
            told.len() == 2 && told.iter().zip(expected).all(|(line, begin)| line.starts_with(begin)),
            "{told:?}"
        );
        let more = [&now[..], &[peer(7, 1)]].concat();
        assert!(look(&mut strangers, &more, 10).is_empty(), "not so soon");
        let told = look(&mut strangers, &more, 65);
        assert!(told.len() == 1 && told[0].starts_with("1 connection from 192.0.2.7 "), "{told:?}");
        assert!(look(&mut strangers, &[], 130).is_empty());
        // A list that cannot be had, and then one that has nothing to be compared with.
        strangers.look(|| Err(io::ErrorKind::NotFound.into()), |_| false, at(140));
        assert!(look(&mut strangers, &more, 200).is_empty());
    }

    #[test]
    fn many_addresses_are_few_lines() {
        let start = Instant::now();
        let mut strangers = Strangers::new(Ok(HashSet::new()), start);
        for number in 0..1000_u16 {
            let [high, low] = number.to_be_bytes();
            let peer = SocketAddr::from(([10, 0, high, low], 1));
            strangers.add_departed(&[Departed { peer, has_asked: false, has_spoken: true }]);
        }
        let told = strangers.tell(start);
        assert_eq!(told.len(), MAX_LINES + 1);
        assert!(told[MAX_LINES].starts_with("992 connections from other addresses"), "{told:?}");
    }

    #[test]
    fn the_kernel_remembers_whom_we_have_closed() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("a free port");
            let local = listener.local_addr().expect("it listens");
            let [ours, theirs] = [true, false].map(|is_ours| {
                let client = TcpStream::connect(local).expect("a connection");
                let (accepted, peer) = listener.accept().expect("the connection");
                let (first, second) = if is_ours { (accepted, client) } else { (client, accepted) };
                first.shutdown(Shutdown::Write).expect("a live socket");
                drop((first, second));
                plain(peer)
            });
            let closed = closed_by_us(local).expect("a list");
            assert!(closed.contains(&ours) && !closed.contains(&theirs), "{address}: {closed:?}");
        }
    }

    #[test]
    fn other_lines_name_nobody() {
        let line = "12: 0100007F:1F90 0100007F:C93A 06 00000000:00000000 03:000016B1 00000000 0 0 0 3 0";
        assert_eq!(peer_in(line, 0x1f90).map(|peer| peer.port()), Some(0xc93a));
        assert_eq!(peer_in(line, 0x1f91), None);
        for other in [
            "",
            "sl local_address rem_address st",
            "1: x y 06",
            "1: 0:1F90 0:1 06",
            &line.replace(" 06 ", " 01 "),
        ] {
            assert_eq!(peer_in(other, 0x1f90), None, "{other}");
        }
    }
}

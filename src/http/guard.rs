//! Who is connected, what each connection has in work, and who has to go.
//!
//! One request of a connection is in work at a time; those behind it wait in the table here, on nobody's thread. A
//! connection has to go
//!
//! - when too many of its requests wait, or when any waits behind a stream: within its first ten seconds, for then `tiny_http`
//!   has given up reading, and the connection ends with the stream;
//! - when it takes too long for a request, or has sent more than its requests and one that is on its way can have;
//! - when descriptors are short, and it is among those that have waited longest without a request in work.
//!
//! The guard decides, and others act: they run the jobs and end the connections. What time it is and which sockets
//! there are is handed in; a socket is only ever asked whether it is closed.
//!
//! Lock rule: the one lock is held for look-ups; jobs are run and dropped outside it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::descriptors::Seen;
use super::parked::ParkedThreads;
use super::socket::Handle;

/// Requests that may wait behind another one of their connection; players send none, browsers one or two.
const MAX_WAITING: usize = 64;

/// What a connection may have sent beyond the heads of its requests: a head that is on its way, and a small body.
const SPARE_BYTES: u64 = 64 * 1024;

/// Connections without a request in work that may be there at once, however few streams are allowed: each costs a
/// thread of `tiny_http`.
pub(crate) const MIN_IDLE: usize = 1024;

/// While descriptors are short, a connection is left alone for so long after it was opened or its last request was
/// done: its next request may be on its way.
const SPARED: Duration = Duration::from_secs(2);

/// How long peers may take for what they have to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Saying nothing at all.
    pub silence: Duration,
    /// Saying a whole request, from the connection or the last answer on. Longer than `silence`.
    pub head: Duration,
    /// Ending a connection that we have cut. One that is still there after this time stays for ever, and is counted as
    /// parked: a thread of `tiny_http` waits in it for itself. A peer brings that about with a request line that says
    /// `HTTP/2.0` or `HTTP/3.0`: `tiny_http` means to answer it once that request has had its turn to write, and the
    /// thread that waits for this holds the request.
    pub end: Duration,
}

impl Default for Patience {
    /// A slow phone sends its request within a second; the rest is for packets that are lost and sent again.
    fn default() -> Self {
        let [silence, head, end] = [10, 15, 30].map(Duration::from_secs);
        Self { silence, head, end }
    }
}

/// A request that has come and waits for its turn. Dropped, it is let go without an answer.
pub(super) struct Job {
    /// Whether it can be turned away with an answer; else its connection has to end.
    pub(super) is_answerable: bool,
    /// Does with it what was decided.
    pub(super) carry_out: Box<dyn FnOnce(Decision) + Send>,
}

/// What is decided about a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// It is its connection's turn.
    Serve,
    /// There is no room for it, for this reason.
    TurnAway(&'static str),
}

/// All connections, by their peers' addresses. `J` is a request that waits for its turn: a [`Job`].
pub(super) struct Guard<J> {
    patience: Patience,
    max_head_bytes: u64,
    table: Mutex<HashMap<SocketAddr, Connection<J>>>,
    opened: AtomicU64,
    parked: Arc<ParkedThreads>,
}

struct Connection<J> {
    /// When it was first seen, or its last request was done.
    idle_since: Instant,
    requests: u64,
    /// One of its requests is in work.
    is_busy: bool,
    waiting: VecDeque<J>,
    /// What ends it, while it streams.
    stream: Option<Arc<Handle>>,
    /// Nothing it asks for is answered any more.
    is_condemned: bool,
    /// The request in work is its last.
    is_last: bool,
    /// Since when a body is read that was not announced with a length.
    reading_since: Option<Instant>,
    /// When it was said to have to go.
    cut_at: Option<Instant>,
    /// What had come on it at the last look.
    seen_bytes: u64,
    /// Since when it has had nothing in work, and what had come on it at the first look from then on.
    idle_bytes: Option<(Instant, u64)>,
}

impl<J> Connection<J> {
    fn new(now: Instant) -> Self {
        Self {
            idle_since: now,
            requests: 0,
            is_busy: false,
            waiting: VecDeque::new(),
            stream: None,
            is_condemned: false,
            is_last: false,
            reading_since: None,
            cut_at: None,
            seen_bytes: 0,
            idle_bytes: None,
        }
    }
}

/// What becomes of a request that has just come.
#[derive(Debug)]
pub(super) enum Arrival<J> {
    /// It is the connection's turn.
    Now(J),
    /// It waits behind another.
    Later,
    /// It waits, but its connection has to be ended: by this handle if there is one.
    Excess(Option<Arc<Handle>>),
}

/// What came of an inspection of all connections.
#[derive(Debug)]
pub(super) struct Inspection {
    /// These have to go.
    pub(super) to_end: Vec<ToEnd>,
    /// So many had to go longer ago than [`Patience::end`], and are still there.
    pub(super) stuck: usize,
    /// These are there no more.
    pub(super) departed: Vec<Departed>,
}

/// A connection that has to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToEnd {
    pub(super) seen: Seen,
    /// It has nothing in work and has said nothing since: it may end as any other, and a proxy that keeps connections does
    /// not take it for an accident. Any other is reset, so that it does not wait for an answer or for room.
    pub(super) owes_nothing: bool,
}

/// A connection that is there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departed {
    pub(super) peer: SocketAddr,
    /// It has asked for something.
    pub(super) has_asked: bool,
    /// It had sent something, when it was last looked at.
    pub(super) has_spoken: bool,
}

/// What is next on a connection whose request is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextJob<J> {
    /// To be served.
    Serve(J),
    /// To be let go without an answer.
    Drop(J),
}

impl<J> Guard<J> {
    /// No connections yet.
    pub(super) fn new(patience: Patience, max_head_bytes: u64, parked: Arc<ParkedThreads>) -> Self {
        Self { patience, max_head_bytes, table: Mutex::default(), opened: AtomicU64::new(0), parked }
    }

    /// A request came on the connection from this peer.
    pub(super) fn arrive(&self, peer: SocketAddr, job: J, now: Instant) -> Arrival<J> {
        let mut table = self.table.lock();
        let connection = table.entry(peer).or_insert_with(|| Connection::new(now));
        let is_over = connection.cut_at.is_some() || connection.is_condemned || connection.is_last;
        if is_over && !connection.is_busy {
            // Its peer has closed it and opened a new one from the same port, before a look has seen that it is gone.
            *connection = Connection::new(now);
        }
        if connection.requests == 0 {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        connection.requests += 1;
        if !connection.is_busy {
            connection.is_busy = true;
            return Arrival::Now(job);
        }
        connection.waiting.push_back(job);
        // A peer that has reset its stream may use the port for a new connection at once. The thread of the stream will
        // notice that it is over, and then it is the turn of this request.
        let is_streaming = connection.stream.as_ref().is_some_and(|stream| !stream.is_closed());
        if is_streaming || connection.waiting.len() > MAX_WAITING {
            connection.is_condemned = true;
            return Arrival::Excess(connection.stream.clone());
        }
        Arrival::Later
    }

    /// Where it is counted what peers have cost for good.
    pub(super) fn parked(&self) -> &ParkedThreads {
        &self.parked
    }

    /// Connections that asked for something so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The peers that have a request in work.
    pub(super) fn busy(&self) -> Vec<SocketAddr> {
        let table = self.table.lock();
        table.iter().filter(|(_, connection)| connection.is_busy).map(|(peer, _)| *peer).collect()
    }

    /// Requests that this connection has sent.
    pub(super) fn requests_of(&self, peer: SocketAddr) -> u64 {
        self.table.lock().get(&peer).map_or(0, |connection| connection.requests)
    }

    /// Whether a connection from this address and port is in the table, whatever its zone.
    pub(super) fn knows(&self, peer: SocketAddr) -> bool {
        self.table.lock().keys().any(|known| known.ip() == peer.ip() && known.port() == peer.port())
    }

    /// Gives up the request in work and drops those that wait behind it, in the order in which they came: the answers
    /// of a connection go out in that order, too.
    pub(super) fn abandon(&self, peer: SocketAddr) {
        while let Some(job) = self.next(peer, Instant::now()) {
            drop(job);
        }
    }

    /// The request in work is done: what is next? After `None` the connection has nothing in work.
    pub(super) fn next(&self, peer: SocketAddr, now: Instant) -> Option<NextJob<J>> {
        let mut table = self.table.lock();
        let connection = table.get_mut(&peer)?;
        connection.stream = None;
        match connection.waiting.pop_front() {
            Some(job) if connection.is_condemned || connection.is_last => Some(NextJob::Drop(job)),
            Some(job) => Some(NextJob::Serve(job)),
            None => {
                connection.is_busy = false;
                connection.idle_since = now;
                None
            }
        }
    }

    /// The body of the request in work is being read, which has to be done within [`Patience::head`]. Nothing behind that
    /// request can be trusted to be one, so it is the connection's last.
    pub(super) fn begin_reading(&self, peer: SocketAddr, now: Instant) {
        if let Some(connection) = self.table.lock().get_mut(&peer) {
            connection.is_last = true;
            connection.reading_since = Some(now);
        }
    }

    /// The body was read.
    pub(super) fn end_reading(&self, peer: SocketAddr) {
        if let Some(connection) = self.table.lock().get_mut(&peer) {
            connection.reading_since = None;
        }
    }

    /// The request in work becomes a stream. Tells whether it may: nothing waits behind it.
    pub(super) fn begin_stream(&self, peer: SocketAddr, handle: &Arc<Handle>) -> bool {
        let mut table = self.table.lock();
        let Some(connection) = table.get_mut(&peer) else {
            return false;
        };
        connection.stream = Some(Arc::clone(handle));
        connection.is_condemned |= !connection.waiting.is_empty();
        !connection.is_condemned
    }

    /// The stream in work is over but for its last bytes; what comes now may wait for its turn.
    pub(super) fn end_stream(&self, peer: SocketAddr) {
        let stream = self.table.lock().get_mut(&peer).and_then(|connection| connection.stream.take());
        drop(stream);
    }

    /// Compares the table with the connections that were `seen` among the descriptors. `too_many` descriptors are to be
    /// won back by ending those that have waited longest without a request in work; but all of so many `streams` may be
    /// asked for at once, so as many may wait.
    pub(super) fn inspect(&self, seen: &[Seen], too_many: usize, streams: usize, now: Instant) -> Inspection {
        let (mut to_end, mut stuck) = (Vec::new(), 0);
        let mut idle = Vec::new();
        let mut table = self.table.lock();
        let known: HashMap<_, _> = seen.iter().map(|seen| (seen.peer, seen)).collect();
        let has_gone = |peer: &SocketAddr, connection: &mut Connection<J>| {
            !connection.is_busy && !known.contains_key(peer)
        };
        let departed = table.extract_if(has_gone).map(|(peer, connection)| Departed {
            peer,
            has_asked: connection.requests > 0,
            has_spoken: connection.seen_bytes > 0,
        });
        let departed = departed.collect();
        for seen in seen {
            let connection = table.entry(seen.peer).or_insert_with(|| Connection::new(now));
            connection.seen_bytes = seen.received_bytes;
            if connection.idle_bytes.is_none_or(|(since, _)| since != connection.idle_since) {
                connection.idle_bytes = Some((connection.idle_since, seen.received_bytes));
            }
            let is_quiet = connection.idle_bytes.is_some_and(|(_, bytes)| bytes == seen.received_bytes);
            let owes_nothing =
                !connection.is_busy && is_quiet && (connection.requests > 0 || seen.received_bytes == 0);
            let end = ToEnd { seen: *seen, owes_nothing };
            let allowed = SPARE_BYTES + connection.requests * self.max_head_bytes;
            let idle_for = now.saturating_duration_since(connection.idle_since);
            let is_late = |since| now.saturating_duration_since(since) >= self.patience.head;
            let reads_too_long = connection.reading_since.is_some_and(is_late);
            if let Some(at) = connection.cut_at {
                let is_over = now.saturating_duration_since(at) >= self.patience.end;
                stuck += usize::from(is_over && !connection.is_busy);
            } else if seen.received_bytes > allowed
                || reads_too_long
                || !connection.is_busy && idle_for >= self.patience.head
            {
                connection.cut_at = Some(now);
                to_end.push(end);
            } else if !connection.is_busy {
                idle.push((connection.idle_since, end));
            }
        }
        // Each connection that ends gives two descriptors back.
        let (wanted, surplus) = (too_many.div_ceil(2), idle.len().saturating_sub(streams.max(MIN_IDLE)));
        idle.sort_unstable_by_key(|(since, _)| *since);
        let has_to_go = |(number, (since, _)): &(usize, (Instant, ToEnd))| {
            *number < surplus || *number < wanted && now.saturating_duration_since(*since) >= SPARED
        };
        for (_, (_, end)) in idle.into_iter().enumerate().take_while(has_to_go) {
            if let Some(connection) = table.get_mut(&end.seen.peer) {
                connection.cut_at = Some(now);
            }
            to_end.push(end);
        }
        Inspection { to_end, stuck, departed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u16; 0] = [];

    fn guard() -> Guard<u32> {
        Guard::new(Patience::default(), 1000, Arc::new(ParkedThreads::new(u64::MAX)))
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn requests_of_a_connection_take_turns() {
        let (guard, now) = (guard(), Instant::now());
        assert!(matches!(guard.arrive(peer(1), 10, now), Arrival::Now(10)));
        assert!(matches!(guard.arrive(peer(1), 11, now), Arrival::Later));
        assert!(matches!(guard.arrive(peer(2), 20, now), Arrival::Now(20)), "another one's turn is its own");
        assert_eq!(guard.next(peer(1), now), Some(NextJob::Serve(11)));
        assert_eq!(guard.next(peer(1), now), None);
        assert!(matches!(guard.arrive(peer(1), 12, now), Arrival::Now(12)));
        assert_eq!((guard.opened(), guard.requests_of(peer(1))), (2, 3));
    }

    #[test]
    fn too_many_that_wait_condemn_their_connection() {
        let (guard, now) = (guard(), Instant::now());
        for number in 0..=MAX_WAITING as u32 {
            assert!(!matches!(guard.arrive(peer(1), number, now), Arrival::Excess(_)), "{number}");
        }
        assert!(matches!(guard.arrive(peer(1), 99, now), Arrival::Excess(None)));
        assert_eq!(guard.next(peer(1), now), Some(NextJob::Drop(1)));
        guard.abandon(peer(1));
        assert!(guard.table.lock()[&peer(1)].waiting.is_empty());
    }

    fn handle() -> (std::net::TcpListener, std::net::TcpStream, Arc<Handle>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let local = listener.local_addr().expect("it listens");
        let client = std::net::TcpStream::connect(local).expect("a connection");
        let (accepted, peer) = listener.accept().expect("a connection");
        let handle = Handle::find(peer, local.port()).expect("it is there");
        drop(accepted);
        (listener, client, Arc::new(handle))
    }

    #[test]
    fn nothing_waits_behind_a_stream() {
        let (guard, now) = (guard(), Instant::now());
        let (_listener, _client, handle) = handle();
        guard.arrive(peer(1), 10, now);
        assert!(guard.begin_stream(peer(1), &handle));
        assert!(matches!(guard.arrive(peer(1), 11, now), Arrival::Excess(Some(_))));
        assert_eq!(guard.next(peer(1), now), Some(NextJob::Drop(11)));
        // Whether the other came before or after.
        guard.arrive(peer(2), 20, now);
        guard.arrive(peer(2), 21, now);
        assert!(!guard.begin_stream(peer(2), &handle));
        // But behind its end.
        guard.arrive(peer(3), 30, now);
        assert!(guard.begin_stream(peer(3), &handle));
        guard.end_stream(peer(3));
        assert!(matches!(guard.arrive(peer(3), 31, now), Arrival::Later));
        assert_eq!(guard.next(peer(3), now), Some(NextJob::Serve(31)));
    }

    #[test]
    fn behind_a_stream_that_was_reset_waits_the_next_connection_from_its_port() {
        let (guard, now) = (guard(), Instant::now());
        let (_listener, client, handle) = handle();
        guard.arrive(peer(1), 10, now);
        assert!(guard.begin_stream(peer(1), &handle));
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a live socket");
        drop(client);
        // On the loopback interface a reset has arrived when the close returns.
        assert!(handle.is_closed());
        assert!(matches!(guard.arrive(peer(1), 11, now), Arrival::Later));
        assert_eq!(guard.next(peer(1), now), Some(NextJob::Serve(11)));
        assert!(guard.begin_stream(peer(1), &handle), "nothing is held against it");
        assert_eq!(guard.next(peer(1), now), None);
    }

    fn cut(guard: &Guard<u32>, seen: &[Seen], too_many: usize, now: Instant) -> Vec<u16> {
        let mut ports: Vec<_> =
            guard.inspect(seen, too_many, 0, now).to_end.iter().map(|end| end.seen.peer.port()).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn who_takes_too_long_for_a_request_has_to_go_and_who_streams_has_not() {
        let (guard, start) = (guard(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen = [1, 2, 3].map(|port| Seen::new(peer(port), 50));
        assert_eq!(cut(&guard, &seen, 0, at(0)), NOBODY);
        guard.arrive(peer(2), 20, at(1));
        guard.arrive(peer(3), 30, at(1));
        guard.next(peer(3), at(10));
        assert_eq!(cut(&guard, &seen, 0, at(14)), NOBODY);
        assert_eq!(cut(&guard, &seen, 0, at(15)), [1]);
        assert_eq!(cut(&guard, &seen, 0, at(24)), NOBODY, "once");
        assert_eq!(cut(&guard, &seen, 0, at(25)), [3]);
        assert_eq!(cut(&guard, &seen[1..], 0, at(26)), NOBODY);
        assert_eq!(guard.table.lock().len(), 2, "the first has gone");
    }

    #[test]
    fn only_who_has_said_something_since_its_last_answer_is_reset() {
        let (guard, start) = (guard(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen =
            |bytes: [u64; 4]| [1, 2, 3, 4].map(|port| Seen::new(peer(port), bytes[usize::from(port) - 1]));
        for port in [1, 2] {
            guard.arrive(peer(port), 10, start);
            guard.next(peer(port), start);
        }
        // An answered request; one with half a head behind it; half a head alone; nothing.
        guard.inspect(&seen([50, 50, 20, 0]), 0, 0, start);
        let mut to_end = guard.inspect(&seen([50, 70, 20, 0]), 0, 0, at(15)).to_end;
        to_end.sort_by_key(|end| end.seen.peer);
        let owes_nothing: Vec<_> = to_end.iter().map(|end| end.owes_nothing).collect();
        assert_eq!(owes_nothing, [true, false, false, true]);
    }

    #[test]
    fn who_sends_too_much_has_to_go_whatever_it_does() {
        let (guard, now) = (guard(), Instant::now());
        guard.arrive(peer(1), 10, now);
        assert_eq!(cut(&guard, &[Seen::new(peer(1), SPARE_BYTES + 1000)], 0, now), NOBODY);
        assert_eq!(cut(&guard, &[Seen::new(peer(1), SPARE_BYTES + 1001)], 0, now), [1]);
        assert_eq!(cut(&guard, &[Seen::new(peer(2), SPARE_BYTES + 1)], 0, now), [2]);
    }

    #[test]
    fn who_waited_longest_goes_when_descriptors_are_short() {
        let (guard, start) = (guard(), Instant::now());
        let seen: Vec<_> = (1..=4).map(|port| Seen::new(peer(port), 0)).collect();
        for count in 1..=4 {
            cut(&guard, &seen[..count], 0, start + Duration::from_millis(count as u64));
        }
        guard.arrive(peer(1), 10, start);
        assert_eq!(cut(&guard, &seen, 3, start + Duration::from_secs(1)), NOBODY, "they may be about to ask");
        assert_eq!(cut(&guard, &seen, 3, start + Duration::from_millis(2002)), [2]);
        assert_eq!(cut(&guard, &seen, 3, start + Duration::from_secs(3)), [3, 4]);
        let many: Vec<_> = (1..=1500).map(|port| Seen::new(peer(port), 0)).collect();
        assert_eq!(cut(&self::guard(), &many, 0, start).len(), 1500 - MIN_IDLE);
        let many_streams = self::guard().inspect(&many, 0, 1400, start);
        assert_eq!(many_streams.to_end.len(), 100, "so many streams are allowed");
    }

    #[test]
    fn what_stays_after_it_was_cut_is_stuck() {
        let (guard, start) = (guard(), Instant::now());
        let seen: Vec<_> = (1..=9).map(|port| Seen::new(peer(port), 0)).collect();
        guard.inspect(&seen, 0, 0, start);
        guard.inspect(&seen, 0, 0, start + Duration::from_secs(15));
        // One of them was only late.
        guard.arrive(peer(5), 50, start + Duration::from_secs(16));
        let stuck =
            [44, 45, 46].map(|time| guard.inspect(&seen, 0, 0, start + Duration::from_secs(time)).stuck);
        assert_eq!(stuck, [0, 8, 8]);
        assert_eq!(guard.inspect(&seen[7..], 0, 0, start + Duration::from_secs(47)).stuck, 2);
    }
}

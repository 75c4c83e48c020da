//! Seats of viewers that have no connection: who watches in pieces comes back every few seconds, and in between nothing but
//! its token says that it is there.
//!
//! A [`Lease`] owns a seat, and a stream whose only viewers hold leases is watched like any other. It ends when its token was
//! not seen for some time; the housekeeper sees to that. It must not know what viewers ask for, nor how they are told apart.
//!
//! Lock rule: the one lock guards the table and is taken alone. Seats are given back outside it, since that is the leaving of
//! a stream.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::stream::Seat;

/// Names a lease: 128 bits, 32 hex digits in text. It is drawn so that no two viewers have the same, not so that nobody can
/// guess it: who knows it can keep a stream running that anybody may ask for anyway.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u128);

/// What is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoToken;

impl Token {
    /// One that nobody has.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u128(..))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Token {
    type Err = NoToken;

    /// Reads 32 hex digits, and nothing else.
    fn from_str(text: &str) -> Result<Self, NoToken> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoToken);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NoToken)
    }
}

/// What whoever serves a viewer keeps with its lease; it is dropped with it, behind the seat.
pub type Companion = Box<dyn Any + Send + Sync>;

/// A seat without a connection. Whoever serves its viewer holds it for as long as that takes, and so long it does not end.
pub struct Lease {
    token: Token,
    seat: Seat,
    /// It ends after so long without a sign of life.
    idle_limit: Duration,
    companion: Companion,
    /// Milliseconds from the table's begin to the last sign of life.
    seen_ms: AtomicU64,
}

impl Lease {
    /// Its name.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// The seat.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// What is kept with it, if it is of this type.
    #[must_use]
    pub fn companion<T: Any>(&self) -> Option<&T> {
        self.companion.downcast_ref()
    }
}

/// Why there is no lease: there are as many as there may be. The seat is given back by dropping it.
#[allow(dead_code, reason = "all but tests drop the seat without a look at it")]
pub struct NoLease(pub Seat);

impl fmt::Debug for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoLease")
    }
}

/// All leases, by their tokens.
pub struct Leases {
    idle_limit: Duration,
    max: usize,
    begin: Instant,
    table: Mutex<HashMap<Token, Arc<Lease>>>,
}

impl Leases {
    /// No leases yet, and room for so many; each ends after so long without a sign of life.
    #[must_use]
    pub fn new(idle_limit: Duration, max: usize) -> Self {
        Self { idle_limit, max, begin: Instant::now(), table: Mutex::default() }
    }

    /// Gives this seat to the viewer of this token. A viewer that has a lease on the same stream keeps it; one on another
    /// stream it leaves.
    ///
    /// # Errors
    ///
    /// Gives the seat back when there are as many leases as there may be.
    pub fn grant(&self, token: Token, seat: Seat, now: Instant) -> Result<Arc<Lease>, NoLease> {
        self.grant_with(token, seat, self.idle_limit, Box::new(()), now)
    }

    /// The same, with a patience of its own, and with what is kept as long as the lease.
    ///
    /// # Errors
    ///
    /// Like [`Leases::grant`].
    pub fn grant_with(
        &self,
        token: Token,
        seat: Seat,
        idle_limit: Duration,
        companion: Companion,
        now: Instant,
    ) -> Result<Arc<Lease>, NoLease> {
        let seen_ms = AtomicU64::new(self.since_begin_ms(now));
        let lease = Arc::new(Lease { token, seat, idle_limit, companion, seen_ms });
        let mut table = self.table.lock();
        let is_full = table.len() >= self.max;
        // What is not needed any more is returned by the lock's block and dropped behind it.
        let (granted, _left) = match table.entry(token) {
            Entry::Occupied(entry) if Arc::ptr_eq(entry.get().seat.stream(), lease.seat.stream()) => {
                entry.get().seen_ms.fetch_max(self.since_begin_ms(now), Ordering::Relaxed);
                (Arc::clone(entry.get()), Some(lease))
            }
            Entry::Occupied(mut entry) => (Arc::clone(&lease), Some(entry.insert(lease))),
            Entry::Vacant(_) if is_full => {
                drop(table);
                return Err(NoLease(Arc::into_inner(lease).expect("nobody else has it").seat));
            }
            Entry::Vacant(entry) => (Arc::clone(entry.insert(lease)), None),
        };
        drop(table);
        Ok(granted)
    }

    /// The viewer of this token gives a sign of life. `None` if it has no lease (any more). The sign of a viewer whose stream is
    /// over does not count: it may have what is left, within the usual time.
    #[must_use]
    pub fn renew(&self, token: Token, now: Instant) -> Option<Arc<Lease>> {
        let lease = self.table.lock().get(&token).cloned()?;
        if lease.seat.stream().state().is_open() {
            lease.seen_ms.fetch_max(self.since_begin_ms(now), Ordering::Relaxed);
        }
        Some(lease)
    }

    /// The first lease that is so, in no order. It gets no sign of life by that.
    #[must_use]
    pub fn find(&self, is_meant: impl Fn(&Lease) -> bool) -> Option<Arc<Lease>> {
        self.table.lock().values().find(|lease| is_meant(lease)).cloned()
    }

    /// Since when this lease has had no sign of life.
    #[must_use]
    pub fn idle_for(&self, lease: &Lease, now: Instant) -> Duration {
        Duration::from_millis(self.since_begin_ms(now).saturating_sub(lease.seen_ms.load(Ordering::Relaxed)))
    }

    /// Whether this token has a lease. To ask is no sign of life.
    #[must_use]
    pub fn holds(&self, token: Token) -> bool {
        self.table.lock().contains_key(&token)
    }

    /// Ends a lease now. Tells whether there was one.
    pub fn end(&self, token: Token) -> bool {
        let ended = self.table.lock().remove(&token);
        ended.is_some()
    }

    /// Ends the leases that gave no sign of life for too long. Being served is one.
    pub fn expire(&self, now: Instant) {
        let now_ms = self.since_begin_ms(now);
        let is_over = |lease: &Arc<Lease>| {
            // The table's own handle is the only one: nobody serves it.
            let is_idle = Arc::strong_count(lease) == 1;
            if !is_idle {
                lease.seen_ms.fetch_max(now_ms, Ordering::Relaxed);
            }
            is_idle
                && now_ms.saturating_sub(lease.seen_ms.load(Ordering::Relaxed))
                    >= lease.idle_limit.as_millis() as u64
        };
        let mut table = self.table.lock();
        let ended: Vec<_> = table.extract_if(|_, lease| is_over(lease)).collect();
        drop(table);
        drop(ended);
    }

    /// Ends all leases.
    pub fn clear(&self) {
        let ended = std::mem::take(&mut *self.table.lock());
        drop(ended);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.lock().len()
    }

    fn since_begin_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begin).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::client::{ClientRecord, Protocol};
    use super::super::memory::Memory;
    use super::super::state::{Event, State, Why};
    use super::super::stream::Stream;
    use super::*;
    use crate::config;
    use crate::engine::pool::Pool;
    use crate::id::ContentKey;

    fn no_engines() -> Arc<Pool> {
        Arc::new(Pool::new(Vec::new()))
    }

    fn is_empty(stream: &Stream) -> bool {
        let view = stream.view();
        view.waiting + view.clients.len() == 0
    }

    const IDLE: Duration = Duration::from_secs(20);

    fn client(id: u64) -> Arc<ClientRecord> {
        Arc::new(ClientRecord::new(id, Protocol::Ts, SocketAddr::from(([127, 0, 0, 1], 1)), None))
    }

    /// A stream that plays, and its first seat.
    fn playing(digit: char) -> Seat {
        let id: String = std::iter::repeat_n(digit, 40).collect();
        let key = ContentKey::from_query(None, [("id", id.as_str())]).expect("a good key");
        let settings = config::Stream { linger: Duration::from_secs(600), ..config::Stream::default() };
        let seat = Stream::begin(
            key.into(),
            &settings,
            Arc::default(),
            client(1),
            &Memory::new(0),
            no_engines(),
            Arc::default(),
        );
        seat.stream().apply(&Event::FirstPackets(0));
        seat
    }

    #[test]
    fn a_token_is_32_hex_digits() {
        let token = Token::random();
        assert_eq!(token.to_string().parse(), Ok(token));
        assert_eq!(
            "0123456789ABCDEFfedcba9876543210".parse(),
            Ok(Token(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210))
        );
        for wrong in
            ["", "0", "+123456789abcdef0123456789abcdef", &"0".repeat(33), "0123456789abcdef0123456789abcdeg"]
        {
            assert_eq!(wrong.parse::<Token>(), Err(NoToken), "{wrong}");
        }
        assert_ne!(Token::random(), Token::random());
    }

    #[test]
    fn a_seat_is_held_while_its_lease_is_renewed_and_then_the_stream_lingers() {
        let leases = Leases::new(IDLE, 10);
        let seat = playing('a');
        let stream = Arc::clone(seat.stream());
        let begin = Instant::now();
        let token = Token::random();
        assert_eq!(leases.grant(token, seat, begin).expect("there is room").token(), token);
        for round in 1..5 {
            let now = begin + round * (IDLE - Duration::from_secs(1));
            leases.expire(now);
            assert!(leases.renew(token, now).is_some());
            assert_eq!(stream.state(), State::Active);
        }
        let last = begin + 4 * (IDLE - Duration::from_secs(1));
        leases.expire(last + IDLE - Duration::from_secs(1));
        assert!(stream.has_seat_of(1));
        leases.expire(last + IDLE);
        assert!(matches!(stream.state(), State::Lingering { .. }) && is_empty(&stream));
        assert!(leases.renew(token, last + IDLE).is_none() && leases.count() == 0);
    }

    #[test]
    fn who_is_being_served_is_there_however_long_it_takes() {
        let leases = Leases::new(IDLE, 10);
        let seat = playing('a');
        let stream = Arc::clone(seat.stream());
        let begin = Instant::now();
        let token = Token::random();
        let served = leases.grant(token, seat, begin).expect("there is room");
        leases.expire(begin + 10 * IDLE);
        assert_eq!((leases.count(), served.seat().client().id), (1, 1));
        drop(served);
        leases.expire(begin + 11 * IDLE - Duration::from_secs(1));
        assert_eq!(stream.state(), State::Active, "the time counts from the end of the last piece");
        leases.expire(begin + 11 * IDLE);
        assert!(is_empty(&stream));
    }

    #[test]
    fn there_are_no_more_leases_than_there_may_be() {
        let leases = Leases::new(IDLE, 2);
        let first = playing('a');
        let stream = Arc::clone(first.stream());
        let seat = |id| stream.take_seat(client(id)).expect("it plays");
        let now = Instant::now();
        let [one, two, three] = [(); 3].map(|()| Token::random());
        let _one = leases.grant(one, first, now).expect("there is room");
        let _two = leases.grant(two, seat(2), now).expect("there is room");
        let NoLease(refused) = leases.grant(three, seat(3), now).err().expect("it is full");
        assert_eq!(refused.client().id, 3);
        drop(refused);
        assert!(!stream.has_seat_of(3) && leases.count() == 2);
        assert!(leases.end(one) && !leases.end(one));
        let _three = leases.grant(three, seat(4), now).expect("there is room again");
    }

    #[test]
    fn a_token_has_one_lease() {
        let leases = Leases::new(IDLE, 1);
        let first = playing('a');
        let stream = Arc::clone(first.stream());
        let now = Instant::now();
        let token = Token::random();
        drop(leases.grant(token, first, now));
        let again =
            leases.grant(token, stream.take_seat(client(2)).expect("it plays"), now).expect("its own");
        assert_eq!((again.seat().client().id, stream.has_seat_of(2)), (1, false), "it has one already");
        drop(again);
        let other = leases.grant(token, playing('b'), now).expect("its own");
        assert!(is_empty(&stream), "it has left for another stream");
        assert!(!Arc::ptr_eq(other.seat().stream(), &stream));
    }

    #[test]
    fn the_lease_of_a_stream_that_is_over_cannot_be_renewed() {
        let leases = Leases::new(IDLE, 10);
        let seat = playing('a');
        let stream = Arc::clone(seat.stream());
        let begin = Instant::now();
        let token = Token::random();
        drop(leases.grant(token, seat, begin));
        stream.apply(&Event::Stop(Why::Asked));
        stream.apply(&Event::FetcherGone);
        let soon = begin + IDLE - Duration::from_secs(1);
        let lease = leases.renew(token, soon).expect("it may have what is left");
        assert!(!lease.seat().stream().state().is_open());
        drop(lease);
        leases.expire(begin + IDLE);
        assert!(leases.renew(token, begin + IDLE).is_none() && is_empty(&stream));
    }

    #[test]
    fn a_lease_has_a_patience_and_a_companion_of_its_own() {
        let leases = Leases::new(IDLE, 10);
        let seat = playing('a');
        let stream = Arc::clone(seat.stream());
        let (token, begin, short) = (Token::random(), Instant::now(), Duration::from_secs(3));
        let companion = Arc::new(7_u8);
        let kept = Box::new(Arc::clone(&companion));
        let lease = leases.grant_with(token, seat, short, kept, begin).expect("there is room");
        assert_eq!(lease.companion::<Arc<u8>>().map(|kept| **kept), Some(7));
        assert!(lease.companion::<u8>().is_none());
        assert_eq!(leases.idle_for(&lease, begin + short), short);
        assert!(
            leases.find(|lease| lease.seat().client().id == 1).is_some_and(|found| found.token() == token)
        );
        assert!(leases.find(|lease| lease.seat().client().id == 2).is_none());
        drop(lease);
        leases.expire(begin + short);
        assert!(is_empty(&stream) && Arc::strong_count(&companion) == 1);
    }

    #[test]
    fn all_leases_end_at_once() {
        let leases = Leases::new(IDLE, 10);
        let seat = playing('a');
        let stream = Arc::clone(seat.stream());
        drop(leases.grant(Token::random(), seat, Instant::now()));
        leases.clear();
        assert!(is_empty(&stream) && leases.count() == 0);
    }
}

//! Who plays what by an engine's URLs: the playbacks that getstream has started, by the token in their URLs.
//!
//! A playback holds a place on its stream all the time: as a lease while nobody plays it, which ends after a while, and as
//! the seat of each player while somebody does. It is over when it has neither, when it is stopped, or when its player starts
//! another. It must not know how it is played.
//!
//! Lock rule: the one lock guards the table and is taken alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::http::turnstile::Turnstile;
use crate::id::ContentKey;
use crate::stream::lease::{Leases, Token};
use crate::stream::stream::Stream;

/// A playback, as it was asked for.
#[derive(Debug)]
pub(super) struct Playback {
    pub(super) token: Token,
    pub(super) key: ContentKey,
    /// Who plays; none for one that gave no player id, which replaces nothing and is never replaced.
    pub(super) player: Option<Player>,
    /// What an engine calls the session: 40 hex digits.
    pub(super) session_id: String,
    /// The client's own number for it; -1 for none.
    pub(super) client_session_id: i64,
}

/// A player, by its address and the id that it gives itself: a program may use the same id in every house, and the id of
/// some is a hash of what they play.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Player {
    pub(super) address: IpAddr,
    pub(super) pid: String,
}

struct Entry {
    playback: Arc<Playback>,
    stream: Weak<Stream>,
    /// The numbers of the clients that play it now.
    readers: Vec<u64>,
    is_start_told: bool,
}

/// A playback that is over now: what is left to do for it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its lease and its readers are to be ended"]
pub(super) struct Ended {
    pub(super) token: Token,
    pub(super) readers: Vec<u64>,
}

impl From<Entry> for Ended {
    fn from(entry: Entry) -> Self {
        Self { token: entry.playback.token, readers: entry.readers }
    }
}

/// All playbacks.
#[derive(Default)]
pub struct Playbacks {
    table: Mutex<HashMap<Token, Entry>>,
    changed: Condvar,
    /// Counts who waits for an event.
    pub(super) listeners: Turnstile,
}

impl Playbacks {
    /// Adds a playback of this stream that has its lease already, and ends the one that its player had before.
    pub(super) fn add(&self, playback: Playback, stream: &Arc<Stream>, leases: &Leases) -> Vec<Ended> {
        self.sweep(leases);
        let mut table = self.table.lock();
        let of_the_player =
            |other: &mut Entry| playback.player.is_some() && other.playback.player == playback.player;
        let replaced: Vec<_> =
            table.extract_if(|_, other| of_the_player(other)).map(|(_, entry)| entry).collect();
        let (token, stream) = (playback.token, Arc::downgrade(stream));
        let entry = Entry { playback: Arc::new(playback), stream, readers: Vec::new(), is_start_told: false };
        table.insert(token, entry);
        drop(table);
        self.changed.notify_all();
        replaced.into_iter().map(Ended::from).collect()
    }

    /// The playback of this token and its stream, if it is not over.
    pub(super) fn find(&self, token: Token, leases: &Leases) -> Option<(Arc<Playback>, Weak<Stream>)> {
        let (found, is_read) = {
            let table = self.table.lock();
            let entry = table.get(&token)?;
            ((Arc::clone(&entry.playback), entry.stream.clone()), !entry.readers.is_empty())
        };
        (is_read || leases.holds(token) || self.is_kept(token)).then_some(found)
    }

    /// Forgets the playback of this token, which had no lease a moment ago, unless somebody has begun to play it since.
    fn is_kept(&self, token: Token) -> bool {
        let mut table = self.table.lock();
        let is_read = table.get(&token).is_some_and(|entry| !entry.readers.is_empty());
        let forgotten = if is_read { None } else { table.remove(&token) };
        drop(table);
        drop(forgotten);
        is_read
    }

    /// Forgets the playbacks that are over, so that there are never more than leases and readers.
    fn sweep(&self, leases: &Leases) {
        let unread: Vec<_> = {
            let table = self.table.lock();
            let unread = table.values().filter(|entry| entry.readers.is_empty());
            unread.map(|entry| entry.playback.token).collect()
        };
        for token in unread {
            if !leases.holds(token) {
                self.is_kept(token);
            }
        }
    }

    /// This client plays it now, on this stream. Tells whether it may: not if the playback is over.
    pub(super) fn begin_reading(&self, token: Token, client: u64, stream: &Arc<Stream>) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.get_mut(&token) else { return false };
        entry.readers.push(client);
        entry.stream = Arc::downgrade(stream);
        drop(table);
        self.changed.notify_all();
        true
    }

    /// This client plays it no more.
    pub(super) fn end_reading(&self, token: Token, client: u64) {
        if let Some(entry) = self.table.lock().get_mut(&token) {
            entry.readers.retain(|reader| *reader != client);
        }
    }

    /// Ends the playback of this token, if it is not over.
    pub(super) fn end(&self, token: Token) -> Option<Ended> {
        let ended = self.table.lock().remove(&token);
        self.changed.notify_all();
        ended.map(Ended::from)
    }

    /// Whether the playback of this token is listed.
    pub(super) fn has(&self, token: Token) -> bool {
        self.table.lock().contains_key(&token)
    }

    /// Notes that the start is told; false if it was before.
    pub(super) fn tell_start(&self, token: Token) -> bool {
        let mut table = self.table.lock();
        table.get_mut(&token).is_some_and(|entry| !std::mem::replace(&mut entry.is_start_told, true))
    }

    /// Waits until then, or until the playback of this token is over.
    pub(super) fn wait_over(&self, token: Token, until: Instant) {
        let mut table = self.table.lock();
        while table.contains_key(&token) {
            if self.changed.wait_until(&mut table, until).timed_out() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use crate::config;
    use crate::engine::pool::Pool;
    use crate::stream::client::{ClientRecord, Protocol};
    use crate::stream::memory::Memory;
    use crate::stream::stream::Seat;

    use super::*;

    const IDLE: Duration = Duration::from_secs(20);

    fn key() -> ContentKey {
        ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")])
            .expect("a good key")
    }

    fn seat() -> Seat {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let client = Arc::new(ClientRecord::new(1, Protocol::Ts, address, None));
        let pool = Arc::new(Pool::new(Vec::new()));
        Stream::begin(
            key().into(),
            &config::Stream::default(),
            Arc::default(),
            client,
            &Memory::new(0),
            pool,
            Arc::default(),
        )
    }

    /// A playback of a player of this id at this address, with its lease.
    fn started(playbacks: &Playbacks, leases: &Leases, player: Option<(u8, &str)>) -> (Token, Vec<Ended>) {
        let seat = seat();
        let (token, stream) = (Token::random(), Arc::clone(seat.stream()));
        drop(leases.grant(token, seat, Instant::now()));
        let player = player.map(|(last, pid)| Player {
            address: Ipv4Addr::new(192, 0, 2, last).into(),
            pid: pid.to_owned(),
        });
        let playback =
            Playback { token, key: key(), player, session_id: String::new(), client_session_id: -1 };
        (token, playbacks.add(playback, &stream, leases))
    }

    #[test]
    fn a_player_has_one_playback_and_players_are_told_apart_by_address_and_id() {
        let (playbacks, leases) = (Playbacks::default(), Leases::new(IDLE, 10));
        let (first, replaced) = started(&playbacks, &leases, Some((1, "a")));
        assert_eq!(replaced, []);
        for other in [Some((2, "a")), Some((1, "b")), None, None] {
            assert_eq!(started(&playbacks, &leases, other).1, [], "{other:?}");
        }
        assert!(playbacks.begin_reading(first, 7, seat().stream()));
        let (second, replaced) = started(&playbacks, &leases, Some((1, "a")));
        assert_eq!(replaced, [Ended { token: first, readers: vec![7] }]);
        assert!(playbacks.find(first, &leases).is_none() && playbacks.find(second, &leases).is_some());
        assert!(!playbacks.begin_reading(first, 8, seat().stream()));
    }

    #[test]
    fn a_playback_is_over_when_it_has_neither_lease_nor_reader() {
        let (playbacks, leases) = (Playbacks::default(), Leases::new(IDLE, 10));
        let (token, _) = started(&playbacks, &leases, None);
        assert!(playbacks.begin_reading(token, 7, seat().stream()));
        leases.clear();
        assert!(playbacks.find(token, &leases).is_some());
        playbacks.end_reading(token, 7);
        assert!(playbacks.has(token) && playbacks.find(token, &leases).is_none() && !playbacks.has(token));
        let (forgotten, _) = started(&playbacks, &leases, None);
        leases.clear();
        let _another = started(&playbacks, &leases, None);
        assert!(!playbacks.has(forgotten), "the next start sweeps it out");
        assert_eq!(playbacks.end(forgotten), None);
    }

    #[test]
    fn a_start_is_told_once() {
        let (playbacks, leases) = (Playbacks::default(), Leases::new(IDLE, 10));
        let (token, _) = started(&playbacks, &leases, None);
        assert_eq!([(); 2].map(|()| playbacks.tell_start(token)), [true, false]);
        assert!(!playbacks.tell_start(Token::random()));
    }
}

//! All streams: who asks for the same content gets the same one.
//!
//! Lock rule: the registry's lock is the first to be taken and held for look-ups only; sessions may be asked for a seat
//! under it. Threads are started, and streams stopped, outside it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use crate::config;
use crate::engine::pool::{Pool, Unavailable};
use crate::id::{ContentKey, ContentName, Digest};
use crate::stats::Stats;
use crate::threads::Threads;

use super::fetcher;
use super::memory::Memory;
use super::session::{ClientRecord, Seat, Session};
use super::state::{Event, State, Why};

/// Ended streams are listed for so long ...
const ENDED_LISTED_FOR: Duration = Duration::from_secs(60);

/// ... and at most so many.
const MAX_ENDED: usize = 50;

/// How often deadlines are looked at: often enough for limits of seconds, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(250);

/// ureq and JSON on the fetcher's thread want more than the small stack in a debug build.
pub(super) const FETCHER_STACK_BYTES: usize = 512 * 1024;

/// Who asks again for what has just failed is told so at once, for so long: an impatient player must not keep an engine
/// busy with a channel that is offline.
const FAILURE_REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// How often who waits for a place is looked after: is it still there?
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Failures and names that are remembered at most; the requests of a house stay far below.
const MAX_REMEMBERED: usize = 256;

/// All streams of the process.
pub struct Registry {
    settings: config::Stream,
    pool: Arc<Pool>,
    stats: Arc<Stats>,
    threads: Threads,
    memory: Arc<Memory>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<ContentKey, Arc<Session>>,
    /// Newest first, with the time of its end.
    ended: VecDeque<(Instant, Arc<Session>)>,
    /// Starts that failed lately.
    failed: HashMap<ContentKey, (Instant, Why)>,
    /// Which infohash is behind a content id, oldest first.
    infohashes: VecDeque<(Digest, Digest)>,
    is_closed: bool,
}

impl Table {
    /// The stream of this content, under whichever of its names.
    fn find(&self, key: &ContentKey) -> Option<&Arc<Session>> {
        let same_content = || {
            let infohash = self.infohash_of(&key.name)?;
            let is_same = |session: &&Arc<Session>| {
                session.key().params == key.params && session.infohash() == Some(infohash)
            };
            self.live.values().find(is_same)
        };
        self.live.get(key).or_else(same_content)
    }

    fn infohash_of(&self, name: &ContentName) -> Option<Digest> {
        match name {
            ContentName::Infohash(infohash) => Some(*infohash),
            ContentName::Id(id) => {
                self.infohashes.iter().find(|(of, _)| of == id).map(|(_, infohash)| *infohash)
            }
        }
    }
}

/// Why a request got no seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// There are as many streams as there may be.
    AtCapacity,
    /// The proxy shuts down.
    ShuttingDown,
    /// The stream's previous session was not stopped in time.
    StillStopping,
    /// It failed to start a moment ago.
    Failed(Why),
    /// Who asked has left meanwhile.
    Gone,
}

impl fmt::Display for NoSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtCapacity => {
                f.write_str("there are as many streams as the configuration allows (max_streams)")
            }
            Self::ShuttingDown => f.write_str("the proxy is shutting down"),
            Self::StillStopping => f.write_str("the previous session of this stream is still being stopped"),
            Self::Failed(why) => fmt::Display::fmt(why, f),
            Self::Gone => f.write_str("the client has left"),
        }
    }
}

impl Registry {
    /// No streams yet.
    #[must_use]
    pub fn new(settings: config::Stream, pool: Arc<Pool>, stats: Arc<Stats>, threads: Threads) -> Arc<Self> {
        let memory = Memory::new(settings.memory_bytes);
        Arc::new(Self { settings, pool, stats, threads, memory, table: Mutex::default() })
    }

    /// A seat on the stream of this key, which is started if it is not there: one start, however many ask at once.
    /// Waits while a previous session of the key is being stopped.
    ///
    /// # Errors
    ///
    /// When there is no room for a stream, or the proxy shuts down.
    pub fn seat(self: &Arc<Self>, key: &ContentKey, client: &Arc<ClientRecord>) -> Result<Seat, NoSeat> {
        self.seat_while(key, client, || true)
    }

    /// The same, but waits only while who asks is there.
    ///
    /// # Errors
    ///
    /// When there is no room for a stream, the proxy shuts down, or nobody is there any more.
    pub fn seat_while(
        self: &Arc<Self>,
        key: &ContentKey,
        client: &Arc<ClientRecord>,
        is_there: impl Fn() -> bool,
    ) -> Result<Seat, NoSeat> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        loop {
            let closing = {
                let mut table = self.table.lock();
                if table.is_closed {
                    return Err(NoSeat::ShuttingDown);
                }
                match table.find(key) {
                    Some(session) => match session.take_seat(Arc::clone(client)) {
                        Ok(seat) => return Ok(seat),
                        Err(_closing) => Arc::clone(session),
                    },
                    None => {
                        if let Some((at, why)) = table.failed.get(key)
                            && at.elapsed() < FAILURE_REMEMBERED_FOR
                        {
                            return Err(NoSeat::Failed(why.clone()));
                        }
                        if let Some(unwatched) = self.make_room(&table)? {
                            drop(table);
                            // Unless somebody has just come to watch it: then it is another one's turn.
                            unwatched.apply(&Event::GiveWay);
                            continue;
                        }
                        let stats = Arc::clone(&self.stats);
                        let client = Arc::clone(client);
                        let seat = Session::begin(key.clone(), &self.settings, stats, client, &self.memory);
                        let session = Arc::clone(seat.session());
                        if let Some(infohash) = table.infohash_of(&key.name) {
                            session.record_infohash(infohash);
                        }
                        table.live.insert(key.clone(), Arc::clone(&session));
                        drop(table);
                        self.start(&session);
                        return Ok(seat);
                    }
                }
            };
            let now = Instant::now();
            if !closing.wait_stopped(deadline.min(now + LOOK_INTERVAL)) {
                if !is_there() {
                    return Err(NoSeat::Gone);
                }
                if now >= deadline {
                    return Err(NoSeat::StillStopping);
                }
                continue;
            }
            // Its own thread retires it a moment after it stopped; be sure not to meet it again.
            self.retire(&closing);
        }
    }

    /// The stream that has to go for a new one, if one has to. A stream that is being stopped takes no room.
    fn make_room(&self, table: &Table) -> Result<Option<Arc<Session>>, NoSeat> {
        let open = table.live.values().filter(|session| session.state().is_open()).count();
        if open < self.settings.max_streams {
            return Ok(None);
        }
        unwatched(table.live.values()).map(Some).ok_or(NoSeat::AtCapacity)
    }

    /// Has a stream that nobody watches give way to one that found no place on an engine, and gives it.
    pub(super) fn displace(&self, by: &Session, unavailable: Unavailable) -> Option<Arc<Session>> {
        let is_candidate = |session: &&Arc<Session>| match unavailable {
            Unavailable::AllDown => false,
            Unavailable::AllFull => true,
            Unavailable::AllStarting => matches!(session.state(), State::Starting { .. }),
            Unavailable::OtherVariant => session.infohash() == by.infohash(),
        };
        let displaced = unwatched(self.table.lock().live.values().filter(is_candidate))?;
        displaced.apply(&Event::GiveWay);
        (!displaced.state().is_open()).then_some(displaced)
    }

    /// Whether a stream is being stopped, so that room is to be expected.
    pub(super) fn expects_room(&self) -> bool {
        self.table.lock().live.values().any(|session| matches!(session.state(), State::Stopping(_)))
    }

    /// Ends the starts on this engine that nobody waits for, since another stream wants to start there.
    pub(super) fn cut_abandoned(&self, engine: &str, by: &Session) {
        let live: Vec<_> = self.table.lock().live.values().cloned().collect();
        for session in live {
            let is_abandoned = matches!(session.state(), State::Starting { abandon_at: Some(_), .. });
            let is_other = session.stream_id() != by.stream_id();
            if is_abandoned && is_other && session.engine_name().as_deref() == Some(engine) {
                session.apply(&Event::GiveWay);
            }
        }
    }

    /// Whether it is worth asking an engine for the infohash behind an id: only if there is a stream it could be.
    pub(super) fn wants_infohash(&self, session: &Session) -> Option<Digest> {
        let ContentName::Id(id) = session.key().name else {
            return None;
        };
        let table = self.table.lock();
        let has_others = table.live.len() > 1;
        (has_others && table.infohash_of(&session.key().name).is_none()).then_some(id)
    }

    /// Remembers which infohash is behind the session's name, and makes the session the stream of that content, unless there
    /// is one already: then it gives that one. Of two that start together one has the content, never both, never none.
    pub(super) fn claim(&self, session: &Arc<Session>, infohash: Digest) -> Option<Arc<Session>> {
        let mut table = self.table.lock();
        if let ContentName::Id(id) = session.key().name
            && table.infohash_of(&session.key().name) != Some(infohash)
        {
            table.infohashes.retain(|(of, _)| *of != id);
            if table.infohashes.len() >= MAX_REMEMBERED {
                table.infohashes.pop_front();
            }
            table.infohashes.push_back((id, infohash));
        }
        let has_it = |other: &&Arc<Session>| {
            !Arc::ptr_eq(other, session)
                && other.key().params == session.key().params
                && other.infohash() == Some(infohash)
                && other.state().is_open()
        };
        let holder = table.live.values().find(has_it).cloned();
        if holder.is_none() {
            session.record_infohash(infohash);
        }
        holder
    }

    /// The streams of the same content with other parameters.
    pub(super) fn variants(&self, session: &Session) -> Vec<Arc<Session>> {
        let table = self.table.lock();
        let is_variant = |other: &&Arc<Session>| {
            other.key().params != session.key().params && other.infohash() == session.infohash()
        };
        table.live.values().filter(is_variant).cloned().collect()
    }

    fn start(self: &Arc<Self>, session: &Arc<Session>) {
        self.stats.add_session();
        let name = format!("fetch-{:.8}", session.stream_id());
        let (registry, fetched) = (Arc::clone(self), Arc::clone(session));
        let body = move || {
            let _retire = Retire { registry: &registry, session: &fetched };
            fetcher::run(&fetched, &registry);
        };
        if let Err(error) = self.threads.spawn(&name, FETCHER_STACK_BYTES, body) {
            log::error!("No thread for stream {}: {error}", session.stream_id());
            session.apply(&Event::Stop(Why::NoThread));
            session.apply(&Event::FetcherGone);
            self.retire(session);
        }
    }

    /// Takes a stream that is over off the table of the live ones; only this very one, never a newer one of its key.
    fn retire(&self, session: &Arc<Session>) {
        let mut table = self.table.lock();
        if !table.live.get(session.key()).is_some_and(|live| Arc::ptr_eq(live, session)) {
            return;
        }
        table.live.remove(session.key());
        if let State::Stopped(outcome) = session.state()
            && !outcome.had_started
            && outcome.why.will_last()
            && table.failed.len() < MAX_REMEMBERED
        {
            table.failed.insert(session.key().clone(), (Instant::now(), outcome.why));
        }
        table.ended.push_front((Instant::now(), Arc::clone(session)));
        let listed = MAX_ENDED.min(table.ended.len());
        let dropped_later = table.ended.split_off(listed);
        drop(table);
        drop(dropped_later);
    }

    /// What all backlogs hold.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.memory.kept_bytes()
    }

    /// The streams there are, live ones first, newest first, then those that ended lately.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let (mut sessions, ended): (Vec<_>, Vec<_>) = {
            let table = self.table.lock();
            let ended = table.ended.iter().map(|(_, session)| Arc::clone(session));
            (table.live.values().cloned().collect(), ended.collect())
        };
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created()));
        sessions.extend(ended);
        sessions
    }

    /// The stream that runs under this stream id, else content id or infohash as asked, else infohash.
    #[must_use]
    pub fn live(&self, id: &str) -> Option<Arc<Session>> {
        let id = id.to_ascii_lowercase();
        let live: Vec<_> = self.table.lock().live.values().cloned().collect();
        let by = |is_meant: &dyn Fn(&Session) -> bool| live.iter().find(|session| is_meant(session)).cloned();
        by(&|session| session.stream_id() == id)
            .or_else(|| by(&|session| session.key().name.digest().to_string() == id))
            .or_else(|| by(&|session| session.infohash().is_some_and(|infohash| infohash.to_string() == id)))
    }

    /// Takes no new streams any more and stops all there are. Their threads end by themselves.
    pub fn close(&self) {
        let sessions: Vec<_> = {
            let mut table = self.table.lock();
            table.is_closed = true;
            table.live.values().cloned().collect()
        };
        for session in sessions {
            session.apply(&Event::Stop(Why::Shutdown));
        }
    }

    /// The engines.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Where work goes that a fetcher does not wait for.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Whether [`Registry::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.table.lock().is_closed
    }

    fn tick(&self) {
        let now = Instant::now();
        let (live, dropped_later) = {
            let mut table = self.table.lock();
            table.failed.retain(|_, (at, _)| now.saturating_duration_since(*at) < FAILURE_REMEMBERED_FOR);
            let listed =
                table.ended.partition_point(|(at, _)| now.saturating_duration_since(*at) < ENDED_LISTED_FOR);
            let dropped_later = table.ended.split_off(listed);
            (table.live.values().cloned().collect::<Vec<_>>(), dropped_later)
        };
        drop(dropped_later);
        for session in live {
            session.tick();
        }
        self.threads.reap();
    }
}

/// Of these streams the one that is missed least: a start that everybody left, else the one that lingers longest.
fn unwatched<'a>(sessions: impl Iterator<Item = &'a Arc<Session>>) -> Option<Arc<Session>> {
    let since = |session: &Arc<Session>| match session.state() {
        State::Starting { abandon_at: Some(at), .. } => Some((false, at)),
        State::Lingering { until } => Some((true, until)),
        _ => None,
    };
    sessions
        .filter_map(|session| Some((since(session)?, session)))
        .min_by_key(|(since, _)| *since)
        .map(|(_, session)| Arc::clone(session))
}

/// Drives every deadline of every stream, until `stop` is closed; `give_back` is called when much memory has become free.
pub fn keep_house(registry: &Registry, stop: &Receiver<()>, give_back: impl Fn()) {
    while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        registry.tick();
        if registry.memory.has_shrunk() {
            give_back();
        }
    }
}

/// Takes the stream off the table when its thread ends, whichever way.
struct Retire<'a> {
    registry: &'a Registry,
    session: &'a Arc<Session>,
}

impl Drop for Retire<'_> {
    fn drop(&mut self) {
        debug_assert!(matches!(self.session.state(), State::Stopped(_)), "a fetcher ended without saying so");
        self.registry.retire(self.session);
    }
}

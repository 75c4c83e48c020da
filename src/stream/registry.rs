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
use crate::engine::pool::Pool;
use crate::id::ContentKey;
use crate::stats::Stats;
use crate::threads::Threads;

use super::fetcher;
use super::session::{ClientRecord, Seat, Session};
use super::state::{Event, State, Why};

/// Ended streams are listed for so long ...
const ENDED_LISTED_FOR: Duration = Duration::from_secs(60);

/// ... and at most so many.
const MAX_ENDED: usize = 50;

/// How often deadlines are looked at: often enough for limits of seconds, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(250);

/// ureq and JSON on the fetcher's thread want more than the small stack in a debug build.
const FETCHER_STACK_BYTES: usize = 512 * 1024;

/// All streams of the process.
pub struct Registry {
    settings: config::Stream,
    pool: Arc<Pool>,
    stats: Arc<Stats>,
    threads: Threads,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    live: HashMap<ContentKey, Arc<Session>>,
    /// Newest first, with the time of its end.
    ended: VecDeque<(Instant, Arc<Session>)>,
    is_closed: bool,
}

/// Why a request got no seat.
#[derive(Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// There are as many streams as there may be.
    AtCapacity,
    /// The proxy shuts down.
    ShuttingDown,
    /// The stream's previous session was not stopped in time.
    StillStopping,
}

impl fmt::Display for NoSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtCapacity => "there are as many streams as the configuration allows (max_streams)",
            Self::ShuttingDown => "the proxy is shutting down",
            Self::StillStopping => "the previous session of this stream is still being stopped",
        })
    }
}

impl Registry {
    /// No streams yet.
    #[must_use]
    pub fn new(settings: config::Stream, pool: Arc<Pool>, stats: Arc<Stats>, threads: Threads) -> Arc<Self> {
        Arc::new(Self { settings, pool, stats, threads, table: Mutex::default() })
    }

    /// A seat on the stream of this key, which is started if it is not there: one start, however many ask at once.
    /// Waits while a previous session of the key is being stopped.
    ///
    /// # Errors
    ///
    /// When there is no room for a stream, or the proxy shuts down.
    pub fn seat(self: &Arc<Self>, key: &ContentKey, client: &Arc<ClientRecord>) -> Result<Seat, NoSeat> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        loop {
            let closing = {
                let mut table = self.table.lock();
                if table.is_closed {
                    return Err(NoSeat::ShuttingDown);
                }
                match table.live.get(key) {
                    Some(session) => match session.take_seat(Arc::clone(client)) {
                        Ok(seat) => return Ok(seat),
                        Err(_closing) => Arc::clone(session),
                    },
                    None if table.live.len() >= self.settings.max_streams => return Err(NoSeat::AtCapacity),
                    None => {
                        let session = Session::new(key.clone(), &self.settings, Arc::clone(&self.stats));
                        let Ok(seat) = session.take_seat(Arc::clone(client)) else {
                            return Err(NoSeat::StillStopping);
                        };
                        table.live.insert(key.clone(), Arc::clone(&session));
                        drop(table);
                        self.start(&session);
                        return Ok(seat);
                    }
                }
            };
            if !closing.wait_stopped(deadline) {
                return Err(NoSeat::StillStopping);
            }
            // Its own thread retires it a moment after it stopped; be sure not to meet it again.
            self.retire(&closing);
        }
    }

    fn start(self: &Arc<Self>, session: &Arc<Session>) {
        self.stats.add_session();
        let name = format!("fetch-{:.8}", session.stream_id());
        let (registry, fetched) = (Arc::clone(self), Arc::clone(session));
        let body = move || {
            let _retire = Retire { registry: &registry, session: &fetched };
            fetcher::run(&fetched, &registry.pool);
        };
        if let Err(error) = self.threads.spawn(&name, FETCHER_STACK_BYTES, body) {
            log::error!("No thread for stream {}: {error}", session.stream_id());
            session.apply(&Event::SourceLost(Why::NoThread));
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
        table.ended.push_front((Instant::now(), Arc::clone(session)));
        let listed = MAX_ENDED.min(table.ended.len());
        let dropped_later = table.ended.split_off(listed);
        drop(table);
        drop(dropped_later);
    }

    /// The streams there are, live ones first, newest first, then those that ended lately.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let table = self.table.lock();
        let mut sessions: Vec<_> = table.live.values().cloned().collect();
        sessions.sort_by_key(|session| std::cmp::Reverse(session.connect_deadline()));
        sessions.extend(table.ended.iter().map(|(_, session)| Arc::clone(session)));
        sessions
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

    /// Whether [`Registry::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.table.lock().is_closed
    }

    fn tick(&self) {
        let now = Instant::now();
        let (live, dropped_later) = {
            let mut table = self.table.lock();
            let listed = table.ended.partition_point(|(at, _)| now.duration_since(*at) < ENDED_LISTED_FOR);
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

/// Drives every deadline of every stream, until `stop` is closed.
pub fn keep_house(registry: &Registry, stop: &Receiver<()>) {
    while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        registry.tick();
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

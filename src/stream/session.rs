//! One stream: its guarded state, its seats, what is known of it.
//!
//! The state lives behind a mutex and a Condvar. Only [`super::state::step`] decides what it becomes; the fetcher
//! alone reports the first packets, and every change, on every way out of the fetcher's thread, wakes all who wait.
//! A request holds a [`Seat`] from its arrival to its end, waiting or streaming, so "nobody is left" always means that
//! there is no seat.
//!
//! Lock rule: the session's lock may be taken under the registry's, never the other way round, and the fan-out's under
//! neither. Nothing is interrupted, closed or logged under it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};

use crate::config;
use crate::engine::api::{Liveness, OpenSession};
use crate::engine::playback::Interrupter;
use crate::engine::pool::Engine;
use crate::id::{ContentKey, Digest};
use crate::stats::Stats;

use super::backlog::Bounds;
use super::fanout::{Fanout, JoinAt, Progress, Subscription};
use super::state::{Event, Limits, State, Why, step};

/// One stream.
pub struct Session {
    key: ContentKey,
    stream_id: String,
    limits: Limits,
    start_behind: Duration,
    created: Instant,
    fanout: Arc<Fanout>,
    stats: Arc<Stats>,
    bytes_in: AtomicU64,
    bytes_out_of_gone: AtomicU64,
    /// When the last bytes came, in milliseconds since `created`.
    last_bytes_ms: AtomicU64,
    core: Mutex<Core>,
    changed: Condvar,
    /// Ends the fetcher's pauses; held so that it is never disconnected.
    stop: (Sender<()>, Receiver<()>),
}

struct Core {
    state: State,
    seats: BTreeMap<u64, Arc<ClientRecord>>,
    /// Ends the fetcher's reading.
    interrupter: Option<Interrupter>,
    last_seat_left: Option<Instant>,
    facts: Facts,
}

/// What is known of a stream beyond its state.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The engine's name, host and port.
    pub engine: Option<(String, String, u16)>,
    /// The content's infohash, as the engine tells it.
    pub infohash: Option<Digest>,
    /// The engine's name for its session.
    pub playback_session_id: Option<String>,
    /// Live or not.
    pub liveness: Liveness,
    /// When it was asked for.
    pub created_at: SystemTime,
    /// When its first packets came.
    pub started_at: Option<SystemTime>,
    /// When it was over.
    pub ended_at: Option<SystemTime>,
    /// First request to first packets.
    pub first_data_after: Option<Duration>,
}

/// What is known of a client.
#[derive(Debug)]
pub struct ClientRecord {
    /// Its number, unique in the process.
    pub id: u64,
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it calls itself, as it came: to be escaped when shown.
    pub user_agent: Option<String>,
    /// When it asked.
    pub connected_at: SystemTime,
    /// Set once it streams.
    progress: OnceLock<Arc<Progress>>,
}

impl ClientRecord {
    /// A client that has just asked.
    #[must_use]
    pub fn new(id: u64, address: SocketAddr, user_agent: Option<String>) -> Self {
        Self { id, address, user_agent, connected_at: SystemTime::now(), progress: OnceLock::new() }
    }
}

/// A stream as it is at one moment, for status and metrics.
#[derive(Debug)]
pub struct View {
    /// What it is shared by.
    pub key: ContentKey,
    /// Its name in paths.
    pub stream_id: String,
    /// Its state.
    pub state: State,
    /// What else is known.
    pub facts: Facts,
    /// Its streaming clients.
    pub clients: Vec<ClientView>,
    /// Clients that wait for the start.
    pub waiting: usize,
    /// Since the last client left; zero while there is one.
    pub idle_for: Duration,
    /// Bytes read off the engine.
    pub bytes_in: u64,
    /// Bytes of packets sent to clients, those that left included.
    pub bytes_out: u64,
    /// Of the last seconds.
    pub bitrate_bps: u64,
    /// Between the last two keyframes.
    pub keyframe_interval: Option<Duration>,
}

/// A streaming client at one moment.
#[derive(Debug)]
pub struct ClientView {
    /// Who it is.
    pub record: Arc<ClientRecord>,
    /// Bytes of packets sent to it.
    pub sent_bytes: u64,
    /// Age by arrival of its next unsent chunk.
    pub lag: Duration,
    /// How often it was moved ahead.
    pub skips: u64,
}

/// A newcomer found the stream on its way out.
#[derive(Debug)]
pub struct Closing;

/// The session was stopped before the fetcher got this far.
#[derive(Debug)]
pub struct AlreadyStopped;

impl Session {
    /// A stream that starts now.
    #[must_use]
    pub fn new(key: ContentKey, settings: &config::Stream, stats: Arc<Stats>) -> Arc<Self> {
        let limits = Limits {
            connect: settings.connect_timeout,
            first_data: settings.first_data_timeout,
            stall: settings.stall_timeout,
            linger: settings.linger,
            abandon: settings.abandon,
        };
        let now = Instant::now();
        let facts = Facts {
            engine: None,
            infohash: None,
            playback_session_id: None,
            liveness: Liveness::Unknown,
            created_at: SystemTime::now(),
            started_at: None,
            ended_at: None,
            first_data_after: None,
        };
        let core = Core {
            state: State::new(now, &limits),
            seats: BTreeMap::new(),
            interrupter: None,
            last_seat_left: None,
            facts,
        };
        Arc::new(Self {
            stream_id: key.stream_id(),
            key,
            limits,
            start_behind: settings.start_behind,
            created: now,
            fanout: Arc::new(Fanout::new(Bounds { bytes: settings.backlog_bytes, age: settings.backlog })),
            stats,
            bytes_in: AtomicU64::new(0),
            bytes_out_of_gone: AtomicU64::new(0),
            last_bytes_ms: AtomicU64::new(0),
            core: Mutex::new(core),
            changed: Condvar::new(),
            stop: crossbeam_channel::bounded(1),
        })
    }

    /// What the stream is shared by.
    #[must_use]
    pub fn key(&self) -> &ContentKey {
        &self.key
    }

    /// Its name in paths and logs.
    #[must_use]
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// Where its chunks go.
    #[must_use]
    pub fn fanout(&self) -> &Arc<Fanout> {
        &self.fanout
    }

    /// When the playback connection must be there.
    #[must_use]
    pub fn connect_deadline(&self) -> Instant {
        self.created + self.limits.connect
    }

    /// Takes a seat.
    ///
    /// # Errors
    ///
    /// When the stream is on its way out: a newcomer needs another one.
    pub fn take_seat(self: &Arc<Self>, client: Arc<ClientRecord>) -> Result<Seat, Closing> {
        let mut core = self.core.lock();
        if !core.state.is_open() {
            return Err(Closing);
        }
        let join_at = match core.state {
            State::Starting { .. } => JoinAt::First,
            _ => JoinAt::Behind(self.start_behind),
        };
        core.state = step(&core.state, &Event::SeatTaken, Instant::now(), &self.limits);
        core.seats.insert(client.id, Arc::clone(&client));
        Ok(Seat { session: Arc::clone(self), client, join_at })
    }

    /// Lets an event happen. Wakes everybody if it changed something, and ends the fetcher's work if it is time.
    pub fn apply(&self, event: &Event) {
        let now = Instant::now();
        let mut core = self.core.lock();
        let next = step(&core.state, event, now, &self.limits);
        if next == core.state {
            return;
        }
        let was_open = core.state.is_open();
        core.state = next;
        if matches!(event, Event::FirstPackets) {
            core.facts.started_at = Some(SystemTime::now());
            core.facts.first_data_after = Some(now.saturating_duration_since(self.created));
        }
        let mut ended = None;
        if let State::Stopping(outcome) | State::Stopped(outcome) = &core.state
            && was_open
        {
            ended = Some((outcome.why.ending(), core.interrupter.take()));
            core.facts.ended_at = Some(SystemTime::now());
        }
        let is_free = matches!(core.state, State::Stopped(_)) && core.seats.is_empty();
        drop(core);
        self.changed.notify_all();
        if let Some((ending, interrupter)) = ended {
            self.fanout.close(ending);
            // Full means that it was told before.
            let _told = self.stop.0.try_send(());
            if let Some(interrupter) = interrupter {
                interrupter.interrupt();
            }
        }
        if is_free {
            self.fanout.clear();
        }
    }

    /// Lets time pass: deadlines and silence.
    pub fn tick(&self) {
        let silent_since = self.created + Duration::from_millis(self.last_bytes_ms.load(Ordering::Relaxed));
        self.apply(&Event::Tick { silent_for: silent_since.elapsed() });
    }

    /// Publishes what ends the fetcher's reading, before it begins to read.
    ///
    /// # Errors
    ///
    /// When the stream was stopped in the meantime: the fetcher must not begin.
    pub fn arm(&self, interrupter: Interrupter) -> Result<(), AlreadyStopped> {
        let mut core = self.core.lock();
        if !core.state.is_open() {
            return Err(AlreadyStopped);
        }
        core.interrupter = Some(interrupter);
        Ok(())
    }

    /// Is ready once the fetcher is to stop; for its pauses.
    #[must_use]
    pub fn stopped(&self) -> &Receiver<()> {
        &self.stop.1
    }

    /// Records which engine was chosen.
    pub fn record_engine(&self, engine: &Engine) {
        let settings = &engine.settings;
        let engine = (settings.name.clone(), settings.host.as_str().to_owned(), settings.port);
        self.core.lock().facts.engine = Some(engine);
    }

    /// Records what the engine told about its session.
    pub fn record_opened(&self, opened: &OpenSession) {
        let mut core = self.core.lock();
        core.facts.infohash = opened.infohash;
        core.facts.playback_session_id.clone_from(&opened.playback_session_id);
        core.facts.liveness = opened.liveness;
    }

    /// Records that so many bytes came; none for a fetcher that lets the engine wait.
    pub fn record_bytes_in(&self, bytes: u64) {
        self.last_bytes_ms.store(self.created.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        self.stats.add_bytes_in(bytes);
    }

    /// The state as it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.core.lock().state.clone()
    }

    /// Time from the request to the first packets, once they came.
    #[must_use]
    pub fn first_data_after(&self) -> Option<Duration> {
        self.core.lock().facts.first_data_after
    }

    /// Waits until the stream is over and its engine session stopped, at most until `deadline`. Tells whether it is.
    pub fn wait_stopped(&self, deadline: Instant) -> bool {
        let mut core = self.core.lock();
        while !matches!(core.state, State::Stopped(_)) {
            if self.changed.wait_until(&mut core, deadline).timed_out() {
                return matches!(core.state, State::Stopped(_));
            }
        }
        true
    }

    /// The stream as it is now.
    #[must_use]
    pub fn view(&self) -> View {
        let now = Instant::now();
        let (state, facts, seats, last_seat_left) = {
            let core = self.core.lock();
            let seats: Vec<_> = core.seats.values().cloned().collect();
            (core.state.clone(), core.facts.clone(), seats, core.last_seat_left)
        };
        let idle_for = match last_seat_left {
            Some(left) if seats.is_empty() => now.saturating_duration_since(left),
            _ => Duration::ZERO,
        };
        let mut clients = Vec::with_capacity(seats.len());
        let mut waiting = 0;
        for record in seats {
            let Some(progress) = record.progress.get() else {
                waiting += 1;
                continue;
            };
            let (sent_bytes, skips) = (progress.sent_bytes(), progress.skips());
            let lag = self.fanout.lag_of(progress, now);
            clients.push(ClientView { record, sent_bytes, lag, skips });
        }
        let sent: u64 = clients.iter().map(|client| client.sent_bytes).sum();
        View {
            key: self.key.clone(),
            stream_id: self.stream_id.clone(),
            state,
            facts,
            clients,
            waiting,
            idle_for,
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: sent + self.bytes_out_of_gone.load(Ordering::Relaxed),
            bitrate_bps: self.fanout.bitrate_bps(now),
            keyframe_interval: self.fanout.keyframe_interval(),
        }
    }

    fn leave(&self, client: &ClientRecord) {
        if let Some(progress) = client.progress.get() {
            self.bytes_out_of_gone.fetch_add(progress.sent_bytes(), Ordering::Relaxed);
            self.stats.add_bytes_out(progress.sent_bytes());
        }
        let now = Instant::now();
        let mut core = self.core.lock();
        core.seats.remove(&client.id);
        if !core.seats.is_empty() {
            return;
        }
        core.last_seat_left = Some(now);
        core.state = step(&core.state, &Event::LastSeatLeft, now, &self.limits);
        let is_free = matches!(core.state, State::Stopped(_));
        drop(core);
        if is_free {
            self.fanout.clear();
        }
    }
}

/// A client's place on a stream, from its request to its end. Dropping it is leaving.
pub struct Seat {
    session: Arc<Session>,
    client: Arc<ClientRecord>,
    join_at: JoinAt,
}

impl Seat {
    /// The stream.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &ClientRecord {
        &self.client
    }

    /// Waits for the outcome of the start, at most until `deadline`; `None` when it is not known by then. Everybody who
    /// waits for one start gets the same outcome.
    ///
    /// # Errors
    ///
    /// Why the stream did not start.
    pub fn wait_started(&self, deadline: Instant) -> Option<Result<(), Why>> {
        let mut core = self.session.core.lock();
        loop {
            if let Some(outcome) = core.state.start_outcome() {
                return Some(outcome);
            }
            if self.session.changed.wait_until(&mut core, deadline).timed_out() {
                return core.state.start_outcome();
            }
        }
    }

    /// Begins to stream.
    #[must_use]
    pub fn join(&self) -> Subscription {
        let subscription = self.session.fanout.join(self.join_at);
        let _first = self.client.progress.set(Arc::clone(subscription.progress()));
        subscription
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.session.leave(&self.client);
    }
}

//! One stream: its guarded state, its seats, what is known of it.
//!
//! The state lives behind a mutex and a Condvar. Only [`Life::step`] decides what it becomes; the fetcher
//! alone reports the first packets, and every change, on every way out of the fetcher's thread, wakes all who wait.
//! A request holds a [`Seat`] from its arrival to its end, waiting or streaming, so "nobody is left" always means that
//! there is no seat.
//!
//! Lock rule: the stream's lock may be taken under the directory's, never the other way round, and the fan-out's under
//! neither. Nothing is interrupted, closed or logged under it.

mod attempts;
mod judging;
mod seat;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use crate::config;
use crate::engine::api::Liveness;
use crate::engine::pool::Pool;
use crate::id::{ContentKey, ContentName, Digest};
use crate::stats::Stats;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::wanted::{Slug, StreamKey, Wanted};

use super::backlog::Bounds;
use super::candidates::Candidates;
use super::client::ClientRecord;
use super::fanout::{Fanout, JoinAt};
use super::flow::Flow;
use super::marks::Mark;
use super::memory::Memory;
use super::past::Past;
use super::state::{Event, Life, MAX_BARREN, State, TimeLimits, Why};
use super::stopping::Opened;
use super::view::Facts;

use self::attempts::Current;
pub(super) use self::attempts::{Lost, NextAttempt};
pub use self::seat::Seat;

/// One stream.
pub struct Stream {
    wanted: Wanted,
    stream_id: Arc<str>,
    /// What it can be played from: what was wanted, and what others who joined it brought along. It only grows.
    sources: Mutex<Arc<[ContentKey]>>,
    /// The channel that it plays, if somebody asks for it as one.
    channel: Mutex<Option<Slug>>,
    /// Which of these the current attempt is about.
    source: AtomicUsize,
    past: Arc<Past>,
    limits: TimeLimits,
    start_behind: Duration,
    created: Instant,
    fanout: Arc<Fanout>,
    memory: Arc<Memory>,
    pool: Arc<Pool>,
    stats: Arc<Stats>,
    flow: Flow,
    bytes_out_of_gone: AtomicU64,
    /// The life's attempt, for those who only want to know whether they are still meant.
    attempt: AtomicU32,
    core: Mutex<Core>,
    changed: Condvar,
    /// Ends the fetcher's pauses; held so that it is never disconnected.
    stop: (Sender<()>, Receiver<()>),
    /// Tells whoever drives the deadlines that there are others now.
    changes: OnceLock<Sender<()>>,
}

struct Core {
    life: Life,
    seats: BTreeMap<u64, Arc<ClientRecord>>,
    current: Current,
    /// What was tried since the last picture.
    candidates: Candidates,
    /// Sessions of this very content that other names of it had opened on the same engine: stopping one would stop all.
    adopted: Vec<Opened>,
    last_seat_left: Option<Instant>,
    /// The engine that played last.
    played_on: Option<String>,
    /// When the first packets of the current source came, and whether it has since been told to be good.
    plays_since: Option<(Instant, bool)>,
    /// Views share it; while one does, what is recorded goes into a copy.
    facts: Arc<Facts>,
}

/// More sources than a start could ever try.
const MAX_SOURCES: usize = 256;

/// A newcomer found the stream on its way out.
#[derive(Debug)]
pub struct Closing;

impl Stream {
    /// A stream that starts now, its backlog with a share in this memory.
    #[must_use]
    pub fn new(
        wanted: Wanted,
        settings: &config::Stream,
        stats: Arc<Stats>,
        memory: &Arc<Memory>,
        pool: Arc<Pool>,
        past: Arc<Past>,
    ) -> Arc<Self> {
        let limits = TimeLimits {
            connect: settings.connect_timeout,
            first_data: settings.first_data_timeout,
            stall: settings.stall_timeout,
            recover: settings.recover_timeout,
            linger: settings.linger,
            abandon: settings.abandon,
            max_barren: MAX_BARREN * pool.engines().len().max(1) as u32,
        };
        let now = Instant::now();
        let facts = Arc::new(Facts {
            engine: None,
            infohash: match wanted.sources()[0].name {
                ContentName::Infohash(infohash) => Some(infohash),
                ContentName::Id(_) => None,
            },
            playback_session_id: None,
            liveness: Liveness::Unknown,
            created_at: SystemTime::now(),
            started_at: None,
            ended_at: None,
            first_data_after: None,
            media: None,
            film: None,
            files: Arc::default(),
            ran_for: None,
        });
        let core = Core {
            life: Life::new(now, &limits),
            seats: BTreeMap::new(),
            current: Current::default(),
            candidates: Candidates::default(),
            adopted: Vec::new(),
            last_seat_left: None,
            played_on: None,
            plays_since: None,
            facts,
        };
        let channel = match &wanted.key {
            StreamKey::Channel(slug) => Some(slug.clone()),
            StreamKey::Content(_) => None,
        };
        let bounds = Bounds { bytes: settings.backlog_bytes, age: settings.backlog };
        let fanout = Fanout::new(bounds, memory.budget());
        memory.add(&fanout);
        Arc::new(Self {
            stream_id: wanted.key.stream_id().into(),
            sources: Mutex::new(wanted.sources().into()),
            channel: Mutex::new(channel),
            wanted,
            source: AtomicUsize::new(0),
            past,
            limits,
            start_behind: settings.start_behind,
            created: now,
            fanout,
            memory: Arc::clone(memory),
            pool,
            stats,
            flow: Flow::new(now),
            bytes_out_of_gone: AtomicU64::new(0),
            attempt: AtomicU32::new(0),
            core: Mutex::new(core),
            changed: Condvar::new(),
            stop: crossbeam_channel::bounded(1),
            changes: OnceLock::new(),
        })
    }

    /// A stream that starts now, for this client: who is the first always has a seat.
    #[must_use]
    pub fn begin(
        wanted: Wanted,
        settings: &config::Stream,
        stats: Arc<Stats>,
        client: Arc<ClientRecord>,
        memory: &Arc<Memory>,
        pool: Arc<Pool>,
        past: Arc<Past>,
    ) -> Seat {
        let stream = Self::new(wanted, settings, stats, memory, pool, past);
        stream.sit(&mut stream.core.lock(), client)
    }

    /// What the stream is shared by.
    #[must_use]
    pub fn key(&self) -> &StreamKey {
        &self.wanted.key
    }

    /// What has to be asked for to get this stream.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The content that the current attempt is about.
    #[must_use]
    pub fn content(&self) -> ContentKey {
        self.sources.lock()[self.source.load(Ordering::Acquire)].clone()
    }

    /// The channel that it plays, if somebody asks for it as one.
    #[must_use]
    pub fn channel(&self) -> Option<Slug> {
        self.channel.lock().clone()
    }

    /// What it can be played from.
    #[must_use]
    pub(super) fn sources(&self) -> Arc<[ContentKey]> {
        Arc::clone(&self.sources.lock())
    }

    /// Takes over what else a channel can be played from, since who asked for the channel gets this stream.
    pub(super) fn join_channel(&self, wanted: &Wanted) {
        let StreamKey::Channel(slug) = &wanted.key else { return };
        self.channel.lock().get_or_insert_with(|| slug.clone());
        let mut sources = self.sources.lock();
        let is_new = |content: &&ContentKey| !sources.contains(content);
        let more: Vec<_> = wanted.sources().iter().filter(is_new).cloned().collect();
        if !more.is_empty() && sources.len() + more.len() <= MAX_SOURCES {
            *sources = sources.iter().cloned().chain(more).collect();
        }
    }

    /// Its name in paths and logs.
    #[must_use]
    pub fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// When it was asked for.
    #[must_use]
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Where its chunks go.
    #[must_use]
    pub fn fanout(&self) -> &Arc<Fanout> {
        &self.fanout
    }

    /// Takes a seat.
    ///
    /// # Errors
    ///
    /// When the stream is on its way out: a newcomer needs another one.
    pub fn take_seat(self: &Arc<Self>, client: Arc<ClientRecord>) -> Result<Seat, Closing> {
        let mut core = self.core.lock();
        if core.life.state.is_open() { Ok(self.sit(&mut core, client)) } else { Err(Closing) }
    }

    fn sit(self: &Arc<Self>, core: &mut Core, client: Arc<ClientRecord>) -> Seat {
        let join_at = match core.life.state {
            State::Active | State::Lingering { .. } => JoinAt::Behind(self.start_behind),
            _ => JoinAt::First,
        };
        let activations = core.life.activations;
        core.life = core.life.step(&Event::SeatTaken, Instant::now(), &self.limits);
        core.seats.insert(client.id, Arc::clone(&client));
        Seat { stream: Arc::clone(self), client, join_at, activations }
    }

    /// Lets an event happen. Wakes everybody if it changed something, and ends the fetcher's work if it is time.
    pub fn apply(&self, event: &Event) {
        self.commit(self.core.lock(), event);
    }

    fn commit(&self, mut core: MutexGuard<'_, Core>, event: &Event) {
        let now = Instant::now();
        let mut limits = self.limits;
        if core.facts.liveness == Liveness::Vod {
            // Another source of a film begins at its beginning, and nobody watches that again from where he was.
            limits.recover = Duration::ZERO;
        }
        let next = core.life.step(event, now, &limits);
        if next == core.life {
            return;
        }
        let is_other_state = discriminant(&next.state) != discriminant(&core.life.state);
        let before = std::mem::replace(&mut core.life, next);
        self.attempt.store(core.life.attempt, Ordering::Release);
        if core.life.activations > before.activations {
            core.plays_since = Some((now, false));
            let engine = core.facts.engine.as_ref().map(|(name, ..)| name.clone());
            let played_on = std::mem::replace(&mut core.played_on, engine);
            if before.activations == 0 {
                let facts = Arc::make_mut(&mut core.facts);
                facts.started_at = Some(SystemTime::now());
                let first_data_after = now.saturating_duration_since(self.created);
                facts.first_data_after = Some(first_data_after);
                self.stats.add_first_data(first_data_after);
            } else {
                self.stats.add_recovery();
                if played_on != core.played_on {
                    self.stats.add_failover();
                }
            }
        }
        let is_recovering = |life: &Life| matches!(life.state, State::Recovering { .. });
        if is_recovering(&core.life) && !is_recovering(&before) {
            self.stats.add_loss();
        }
        let is_lost = core.life.losses() != before.losses();
        let was_active = before.state.is_active() && !is_recovering(&before);
        let loss = if is_lost { self.note_loss(&mut core, was_active, before.attempt) } else { None };
        let sources = self.sources();
        let tried = core.candidates.summary(|source| {
            let content = sources.get(source).filter(|_| sources.len() > 1)?;
            Some(format!("{:.8}", content.name.digest().to_string()))
        });
        if let State::Stopping(outcome) = &mut core.life.state
            && !outcome.had_started
            && outcome.why.failure().is_some()
            && let Some(tried) = tried
        {
            outcome.why = Why::Tried(Box::new(outcome.why.clone()), tried.into());
        }
        // Nobody asks about the session of an attempt that is over.
        let is_over =
            core.life.attempt != before.attempt || before.state.is_open() && !core.life.state.is_open();
        let gone = if is_over { std::mem::take(&mut core.current) } else { Current::default() };
        let mut ending = None;
        if let State::Stopping(outcome) | State::Stopped(outcome) = &core.life.state
            && before.state.is_open()
        {
            ending = Some(outcome.why.ending());
            if !outcome.had_started && outcome.why.is_trouble() {
                self.stats.add_failed_start();
            }
            let facts = Arc::make_mut(&mut core.facts);
            facts.ended_at = Some(SystemTime::now());
            facts.ran_for = facts.first_data_after.map(|after| self.created.elapsed().saturating_sub(after));
        }
        let is_free = matches!(core.life.state, State::Stopped(_)) && core.seats.is_empty();
        if before.state == State::Active
            && matches!(
                core.life.state.why(),
                Some(Why::Stalled(..) | Why::PictureLost(_) | Why::EngineDead(_))
            )
        {
            self.stats.add_stall();
        }
        drop(core);
        self.changed.notify_all();
        if is_other_state {
            self.tell_change();
        }
        if let Some(ending) = ending {
            self.fanout.close(ending);
            // Full means that it was told before.
            let _told = self.stop.0.try_send(());
        }
        if let Some(loss) = loss {
            loss.tell(&self.stream_id);
        }
        if let Some(cut) = gone.cut {
            cut();
        }
        if is_free {
            self.close_book();
        }
    }

    /// Whenever the state has become another one this is told so from now on, and once now; see [`Stream::tick`].
    pub(super) fn tell_changes(&self, to: Sender<()>) {
        // A stream has one housekeeper.
        let _first = self.changes.set(to);
        self.tell_change();
    }

    fn tell_change(&self) {
        if let Some(changes) = self.changes.get() {
            // Full means that it was told of another change and has not looked yet.
            let _told = changes.try_send(());
        }
    }

    /// The number of the current source.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Acquire)
    }

    /// Takes over a session of the same content on the same engine, to be stopped together with this stream's own.
    ///
    /// # Errors
    ///
    /// Gives it back when this stream is on its way out itself.
    pub(super) fn adopt(&self, opened: Opened) -> Result<(), Box<Opened>> {
        let mut core = self.core.lock();
        if !core.life.state.is_open() {
            return Err(Box::new(opened));
        }
        core.adopted.push(opened);
        Ok(())
    }

    /// The sessions that were taken over.
    pub(super) fn take_adopted(&self) -> Vec<Opened> {
        std::mem::take(&mut self.core.lock().adopted)
    }

    /// Is ready once the fetcher is to stop; for its pauses.
    #[must_use]
    pub fn stopped(&self) -> &Receiver<()> {
        &self.stop.1
    }

    /// Has the engine asked about the session now, since it has begun to play.
    pub fn ask_about_it(&self) {
        let (engine, session) = {
            let current = &self.core.lock().current;
            (current.engine.clone(), current.session.clone())
        };
        if let (Some(engine), Some(session)) = (engine, session) {
            engine.ask_now(&session);
        }
    }

    /// Records that so many bytes came.
    pub fn record_bytes_in(&self, bytes: u64) {
        self.flow.add(bytes);
        self.stats.add_bytes_in(bytes);
    }

    /// Records that so many bytes of a film came, for whichever client.
    pub fn record_film_bytes(&self, bytes: u64) {
        self.record_bytes_in(bytes);
        // It is not silent.
        self.flow.hold();
    }

    /// Gives whole packets to everybody, with the marks that were found in them. Tells whether it did so: a stream that is over
    /// takes nothing any more.
    pub(super) fn publish(&self, packets: &[u8], marks: &mut Vec<Mark>, arrived: Instant) -> bool {
        let is_taken = self.fanout.publish(packets, marks, arrived);
        self.memory.settle();
        is_taken
    }

    /// How the bytes come in.
    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The state as it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.core.lock().life.state.clone()
    }

    /// Whether this client has a seat.
    #[must_use]
    pub fn has_seat_of(&self, client: u64) -> bool {
        self.core.lock().seats.contains_key(&client)
    }

    /// The content's infohash, once it is known.
    #[must_use]
    pub fn infohash(&self) -> Option<Digest> {
        self.core.lock().facts.infohash
    }

    /// The name of the engine that was chosen.
    #[must_use]
    pub fn engine_name(&self) -> Option<String> {
        self.core.lock().facts.engine.as_ref().map(|(name, ..)| name.clone())
    }

    /// Time from the request to the first packets, once they came.
    #[must_use]
    pub fn first_data_after(&self) -> Option<Duration> {
        self.core.lock().facts.first_data_after
    }

    /// Waits until the stream is over and its engine session stopped, at most until `deadline`. Tells whether it is.
    pub fn wait_stopped(&self, deadline: Instant) -> bool {
        let mut core = self.core.lock();
        while !matches!(core.life.state, State::Stopped(_)) {
            if self.changed.wait_until(&mut core, deadline).timed_out() {
                return matches!(core.life.state, State::Stopped(_));
            }
        }
        true
    }

    fn leave(&self, client: &ClientRecord) {
        let mut core = self.core.lock();
        if core.seats.remove(&client.id).is_none() {
            // A client with two seats has one entry; the first seat that it gave back has taken it.
            return;
        }
        if let Some(sent) = client.sent_bytes() {
            // Under the lock, so that a view counts it once: with the seats or with those that are gone.
            self.bytes_out_of_gone.fetch_add(sent, Ordering::Relaxed);
        }
        if !core.seats.is_empty() {
            return;
        }
        core.last_seat_left = Some(Instant::now());
        let is_free = matches!(core.life.state, State::Stopped(_));
        // Under the same lock: nobody can take a seat between the last one's leaving and its meaning.
        self.commit(core, &Event::LastSeatLeft);
        if is_free {
            self.close_book();
        }
    }

    /// It is over and nobody has a seat any more: whoever was the last, client or fetcher, does this, once.
    fn close_book(&self) {
        self.fanout.clear();
        self.log_totals();
    }
}

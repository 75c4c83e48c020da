//! One stream: its guarded state, its seats, what is known of it.
//!
//! The state lives behind a mutex and a Condvar. Only [`Life::step`] decides what it becomes; the fetcher
//! alone reports the first packets, and every change, on every way out of the fetcher's thread, wakes all who wait.
//! A request holds a [`Seat`] from its arrival to its end, waiting or streaming, so "nobody is left" always means that
//! there is no seat.
//!
//! Lock rule: the session's lock may be taken under the registry's, never the other way round, and the fan-out's under
//! neither. Nothing is interrupted, closed or logged under it.

mod seat;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::config;
use crate::engine::api::{Liveness, OpenSession};
use crate::engine::playback::Interrupter;
use crate::id::{ContentKey, ContentName, Digest};
use crate::stats::Stats;

use crate::engine::pool::{Engine, Reservation};
use crate::engine::stat::Watched;

use super::backlog::Bounds;
use super::fanout::{Fanout, JoinAt};
use super::flow::Flow;
use super::memory::Memory;
use super::state::{Event, Hint, Life, Limits, Source, State, Why};
use super::view::Facts;

pub use self::seat::{ClientRecord, Seat};

/// After so much silence, an engine that does not know the session is believed; one that flows is not given up for a word.
const ASK_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// One stream.
pub struct Session {
    key: ContentKey,
    stream_id: Arc<str>,
    limits: Limits,
    start_behind: Duration,
    created: Instant,
    fanout: Arc<Fanout>,
    stats: Arc<Stats>,
    flow: Flow,
    bytes_out_of_gone: AtomicU64,
    /// The life's attempt, for those who only want to know whether they are still meant.
    attempt: AtomicU32,
    core: Mutex<Core>,
    changed: Condvar,
    /// Ends the fetcher's pauses; held so that it is never disconnected.
    stop: (Sender<()>, Receiver<()>),
}

struct Core {
    life: Life,
    seats: BTreeMap<u64, Arc<ClientRecord>>,
    /// Ends the fetcher's reading of the current attempt.
    interrupter: Option<Interrupter>,
    /// Where the engine's word on the current attempt's session is found.
    source: Option<(Arc<Engine>, Option<Arc<Watched>>)>,
    /// The engine's words when it was asked to play and was not ready.
    refusal: Option<String>,
    /// Sessions of this very content that other names of it had opened on the same engine: stopping one would stop all.
    adopted: Vec<(Reservation, OpenSession)>,
    last_seat_left: Option<Instant>,
    /// The engine that played last.
    played_on: Option<String>,
    /// Views share it; while one does, what is recorded goes into a copy.
    facts: Arc<Facts>,
}

/// What an engine says of a source.
struct Word {
    attempt: u32,
    is_unknown: bool,
    engine_is_well: bool,
    is_filling: bool,
    hint: Hint,
    refusal: Option<String>,
}

/// A newcomer found the stream on its way out.
#[derive(Debug)]
pub struct Closing;

/// An attempt was given up before the fetcher got this far.
#[derive(Debug)]
pub struct Superseded;

impl Session {
    /// A stream that starts now, its backlog with a share in this memory.
    #[must_use]
    pub fn new(
        key: ContentKey,
        settings: &config::Stream,
        stats: Arc<Stats>,
        memory: &Arc<Memory>,
    ) -> Arc<Self> {
        let limits = Limits {
            connect: settings.connect_timeout,
            first_data: settings.first_data_timeout,
            stall: settings.stall_timeout,
            recover: settings.recover_timeout,
            linger: settings.linger,
            abandon: settings.abandon,
        };
        let now = Instant::now();
        let facts = Arc::new(Facts {
            engine: None,
            infohash: match key.name {
                ContentName::Infohash(infohash) => Some(infohash),
                ContentName::Id(_) => None,
            },
            playback_session_id: None,
            liveness: Liveness::Unknown,
            created_at: SystemTime::now(),
            started_at: None,
            ended_at: None,
            first_data_after: None,
        });
        let core = Core {
            life: Life::new(now, &limits),
            seats: BTreeMap::new(),
            interrupter: None,
            source: None,
            refusal: None,
            adopted: Vec::new(),
            last_seat_left: None,
            played_on: None,
            facts,
        };
        Arc::new(Self {
            stream_id: key.stream_id().into(),
            key,
            limits,
            start_behind: settings.start_behind,
            created: now,
            fanout: Fanout::new(Bounds { bytes: settings.backlog_bytes, age: settings.backlog }, memory),
            stats,
            flow: Flow::new(now),
            bytes_out_of_gone: AtomicU64::new(0),
            attempt: AtomicU32::new(0),
            core: Mutex::new(core),
            changed: Condvar::new(),
            stop: crossbeam_channel::bounded(1),
        })
    }

    /// A stream that starts now, for this client: who is the first always has a seat.
    #[must_use]
    pub fn begin(
        key: ContentKey,
        settings: &config::Stream,
        stats: Arc<Stats>,
        client: Arc<ClientRecord>,
        memory: &Arc<Memory>,
    ) -> Seat {
        let session = Self::new(key, settings, stats, memory);
        session.sit(&mut session.core.lock(), client)
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
        Seat { session: Arc::clone(self), client, join_at, activations }
    }

    /// Lets an event happen. Wakes everybody if it changed something, and ends the fetcher's work if it is time.
    pub fn apply(&self, event: &Event) {
        self.commit(self.core.lock(), event);
    }

    fn commit(&self, mut core: MutexGuard<'_, Core>, event: &Event) {
        let now = Instant::now();
        let next = core.life.step(event, now, &self.limits);
        if next == core.life {
            return;
        }
        let before = std::mem::replace(&mut core.life, next);
        self.attempt.store(core.life.attempt, Ordering::Release);
        if core.life.activations > before.activations {
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
        let mut interrupter = None;
        if core.life.attempt != before.attempt {
            interrupter = core.interrupter.take();
            core.source = None;
        }
        let mut ending = None;
        if let State::Stopping(outcome) | State::Stopped(outcome) = &core.life.state
            && before.state.is_open()
        {
            ending = Some(outcome.why.ending());
            if !outcome.had_started && outcome.why.is_trouble() {
                self.stats.add_failed_start();
            }
            interrupter = interrupter.or(core.interrupter.take());
            // Nobody asks about its session any more.
            core.source = None;
            Arc::make_mut(&mut core.facts).ended_at = Some(SystemTime::now());
        }
        let is_free = matches!(core.life.state, State::Stopped(_)) && core.seats.is_empty();
        if before.state == State::Active && matches!(core.life.state.why(), Some(Why::Stalled(..))) {
            self.stats.add_stall();
        }
        let lost = match &core.life.state {
            State::Recovering { lost, .. } if before.state == State::Active => Some(lost.clone()),
            _ => None,
        };
        drop(core);
        self.changed.notify_all();
        if let Some(lost) = lost {
            log::warn!("Stream {} lost its source: {lost}", self.stream_id);
        }
        if let Some(ending) = ending {
            self.fanout.close(ending);
            // Full means that it was told before.
            let _told = self.stop.0.try_send(());
        }
        if let Some(interrupter) = interrupter {
            interrupter.interrupt();
        }
        if is_free {
            self.close_book();
        }
    }

    /// Lets time pass: deadlines and silence.
    pub fn tick(&self) {
        self.judge(self.hear());
    }

    /// What the engine says of the current source.
    fn hear(&self) -> Word {
        let (attempt, source, refusal) = {
            let core = self.core.lock();
            (core.life.attempt, core.source.clone(), core.refusal.clone())
        };
        let last_picture = self.flow.last_picture();
        let watched = source.as_ref().and_then(|(_, watched)| watched.as_ref());
        Word {
            attempt,
            is_unknown: watched.is_some_and(|watched| watched.is_unknown_since(last_picture)),
            engine_is_well: source.as_ref().is_none_or(|(engine, _)| engine.is_usable()),
            is_filling: watched.is_some_and(|watched| watched.is_filling(last_picture, Instant::now())),
            hint: Hint::of(watched.and_then(|watched| watched.last()).as_deref()),
            refusal,
        }
    }

    fn judge(&self, word: Word) {
        let core = self.core.lock();
        // Looked at under the lock: first packets are seen before they are reported, so whoever finds the stream active
        // does not find the silence before its recovery.
        let silent_for = Instant::now().saturating_duration_since(self.flow.last_picture());
        let given = self.flow.given();
        let event = if word.is_unknown && silent_for >= ASK_AFTER_SILENCE {
            Event::SourceLost { attempt: word.attempt, why: Why::SessionLost, given }
        } else {
            let Word { engine_is_well, is_filling, hint, refusal, .. } = word;
            Event::Tick(Source { silent_for, given, engine_is_well, is_filling, hint, refusal })
        };
        self.commit(core, &event);
    }

    /// The number of the current source.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Acquire)
    }

    /// When the playback connection of the current attempt must be there, and how long to wait before it is begun. `None`
    /// when there is nothing more to attempt.
    #[must_use]
    pub fn next_attempt(&self) -> Option<(Instant, Duration)> {
        let core = self.core.lock();
        match &core.life.state {
            State::Starting { deadline, .. } => Some((*deadline, Duration::ZERO)),
            State::Recovering { until, .. } => {
                let pause = core.life.back_off();
                Some(((Instant::now() + pause + self.limits.connect).min(*until), pause))
            }
            _ => None,
        }
    }

    /// What is said of an engine that did not begin to play in time.
    #[must_use]
    pub(super) fn connect_timeout(&self) -> Why {
        let Word { hint, refusal, .. } = self.hear();
        Why::connect_timeout(self.limits.connect, hint, refusal)
    }

    /// Whether this attempt is the one to recover the source.
    #[must_use]
    pub(super) fn is_recovering(&self, attempt: u32) -> bool {
        let life = &self.core.lock().life;
        life.attempt == attempt && matches!(life.state, State::Recovering { .. })
    }

    /// Whether this attempt is still to be made.
    #[must_use]
    pub fn is_current(&self, attempt: u32) -> bool {
        let core = self.core.lock();
        core.life.attempt == attempt && core.life.state.is_open()
    }

    /// Publishes what ends the reading of this attempt, before it begins.
    ///
    /// # Errors
    ///
    /// When the attempt was given up in the meantime: it must not begin.
    pub fn arm(&self, attempt: u32, interrupter: Interrupter) -> Result<(), Superseded> {
        let mut core = self.core.lock();
        if core.life.attempt != attempt || !core.life.state.is_open() {
            return Err(Superseded);
        }
        core.interrupter = Some(interrupter);
        Ok(())
    }

    /// Takes over a session of the same content on the same engine, to be stopped together with this stream's own.
    ///
    /// # Errors
    ///
    /// Gives it back when this stream is on its way out itself.
    pub fn adopt(
        &self,
        reservation: Reservation,
        opened: OpenSession,
    ) -> Result<(), Box<(Reservation, OpenSession)>> {
        let mut core = self.core.lock();
        if !core.life.state.is_open() {
            return Err(Box::new((reservation, opened)));
        }
        core.adopted.push((reservation, opened));
        Ok(())
    }

    /// The sessions that were taken over.
    #[must_use]
    pub fn take_adopted(&self) -> Vec<(Reservation, OpenSession)> {
        std::mem::take(&mut self.core.lock().adopted)
    }

    /// Is ready once the fetcher is to stop; for its pauses.
    #[must_use]
    pub fn stopped(&self) -> &Receiver<()> {
        &self.stop.1
    }

    /// Has the engine asked about the session now, since it has begun to play.
    pub(super) fn ask_about_it(&self) {
        let source = self.core.lock().source.clone();
        if let Some((engine, Some(watched))) = source {
            engine.ask_now(&watched);
        }
    }

    /// Records that so many bytes came.
    pub fn record_bytes_in(&self, bytes: u64) {
        self.flow.add(bytes);
        self.stats.add_bytes_in(bytes);
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

    /// Whether nobody has a seat.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.core.lock().seats.is_empty()
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
            // Its other seat on this stream has left for both.
            return;
        }
        if let Some(progress) = client.progress.get() {
            // Under the lock, so that a view counts it once: with the seats or with those that are gone.
            self.bytes_out_of_gone.fetch_add(progress.sent_bytes(), Ordering::Relaxed);
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

//! One engine of the pool: its settings, its calls, its health, who uses it.
//!
//! How many streams an engine has is never counted by hand: it is the number of [`Reservation`]s that live. It must not know
//! of other engines.
//!
//! Lock rule: each of an engine's locks is taken alone, and none is held over a call to it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::config;
use crate::id::{ContentName, Digest, EngineParams};
use crate::stats::Histogram;

use super::api::Api;
use super::blame::Fault;
use super::choose::EngineView;
use super::error::Failed;
use super::health::Tolerance;
use super::news::News;
use super::pulse::Pulse;
use super::relays::Relays;
use super::stat::Watched;
use super::url::Target;

pub use super::health::{Change, Health};

/// A start that has been silent for so long is waiting for its swarm, and does not count as work of the engine.
const SILENT_START: Duration = Duration::from_secs(2);

/// An engine that gave neither an answer nor packets for so long stands behind the others, long before it counts as down.
const SILENCE: Duration = Duration::from_secs(5);

/// One engine.
pub struct Engine {
    /// Its settings.
    pub settings: config::Engine,
    /// Its control calls.
    pub api: Api,
    /// How long its health checks took that it passed.
    pub check_times: Histogram,
    pub(super) health: Mutex<Health>,
    news: Arc<News>,
    pulse: Arc<Pulse>,
    checks: Mutex<Checks>,
    /// One clone for each reservation.
    pub(super) places: Arc<()>,
    /// One for each start, with its time.
    pub(super) starts: Mutex<Vec<Weak<Instant>>>,
    /// What its streams play, as far as it is known.
    contents: Mutex<Vec<Weak<Content>>>,
    /// Sessions that the watch thread asks about.
    watched: Mutex<Vec<Weak<Watched>>>,
    /// Tells the watch thread that there is something to do.
    nudge: (Sender<()>, Receiver<()>),
}

/// How far its health checks are.
#[derive(Debug, Default)]
struct Checks {
    done: u64,
    /// Somebody waits for the next one.
    is_wanted: bool,
}

/// What a stream plays. On one engine a content is played with one set of parameters only: a stop of one such session would
/// end the picture of the other (engine-contract.md section 8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which content.
    pub infohash: Digest,
    /// Which variant of it.
    pub params: EngineParams,
}

impl Content {
    fn is_variant_of(&self, other: &Self) -> bool {
        self.infohash == other.infohash && self.params != other.params
    }
}

/// What a stream looks for a place for.
pub struct Wish<'a> {
    /// The name under which the content is asked for.
    pub name: ContentName,
    /// What that is, once it is known.
    pub content: Option<Content>,
    /// The engine whose picture the stream has lost; its own place there does not stand in its way.
    pub preferred: Option<&'a Arc<Engine>>,
    /// How often the engine of this name was asked since the last picture; `None` if it is not to be asked again.
    pub tries: &'a dyn Fn(&str) -> Option<u32>,
}

/// A place on an engine, given back when dropped.
pub struct Reservation {
    /// The engine.
    pub engine: Arc<Engine>,
    pub(super) name: ContentName,
    pub(super) place: Option<Arc<()>>,
    pub(super) start: Option<Arc<Instant>>,
    pub(super) content: Option<Arc<Content>>,
}

impl Reservation {
    /// The start is over and went well: another one may begin, and what was held against this content here is forgotten.
    pub fn record_start(&mut self) {
        self.end_start();
        self.engine.health.lock().blame.succeed(self.name);
    }

    /// The start is over: another one may begin.
    pub fn end_start(&mut self) {
        self.start = None;
    }

    /// The stream is over, another one may have its place. What it played stays taken until this is dropped.
    pub fn free_place(&mut self) {
        self.start = None;
        self.place = None;
    }
}

impl Engine {
    pub(super) fn new(settings: config::Engine, news: Arc<News>, relays: Arc<Relays>) -> Self {
        let api = Api::of(&settings.authority(), relays);
        let pulse = Arc::clone(api.pulse());
        Self {
            settings,
            api,
            news,
            pulse,
            checks: Mutex::default(),
            check_times: Histogram::default(),
            health: Mutex::default(),
            places: Arc::new(()),
            starts: Mutex::default(),
            contents: Mutex::default(),
            watched: Mutex::default(),
            nudge: crossbeam_channel::bounded(1),
        }
    }

    /// Streams this engine has, those just starting included.
    #[must_use]
    pub fn streams(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }

    /// What is known of its health.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    pub(super) fn view(&self, wish: &Wish<'_>) -> EngineView {
        let now = Instant::now();
        let tries = (wish.tries)(&self.settings.name);
        let is_preferred = wish.preferred.is_some_and(|preferred| std::ptr::eq(&**preferred, self));
        let health = self.health.lock();
        EngineView {
            is_usable: health.is_up != Some(false),
            is_forwarded: self.settings.forwarded,
            streams: self.streams().saturating_sub(usize::from(is_preferred)),
            max_streams: self.settings.max_streams,
            starts: self.starts(now),
            max_starts: self.settings.max_starts,
            is_penalised: health.blame.is_penalised(wish.name, now) || self.is_silent_for(SILENCE),
            is_preferred,
            has_other_variant: wish.content.as_ref().is_some_and(|content| self.has_variant_of(content)),
            tries,
        }
    }

    pub(super) fn has_variant_of(&self, content: &Content) -> bool {
        let mut contents = self.contents.lock();
        contents.retain(|known| known.strong_count() > 0);
        contents.iter().filter_map(Weak::upgrade).any(|known| known.is_variant_of(content))
    }

    pub(super) fn add_content(&self, content: Content) -> Arc<Content> {
        let content = Arc::new(content);
        self.contents.lock().push(Arc::downgrade(&content));
        content
    }

    /// Starts in progress. One that has been silent for long does not count, so that dead channels cannot starve live ones.
    fn starts(&self, now: Instant) -> usize {
        let mut starts = self.starts.lock();
        let counts = |since: Arc<Instant>| now.saturating_duration_since(*since) < SILENT_START;
        starts.retain(|start| start.upgrade().is_some_and(counts));
        starts.len()
    }

    /// When it was last found well after it had been down.
    #[must_use]
    pub fn came_back_at(&self) -> Option<Instant> {
        self.health.lock().came_back_at
    }

    /// Whether it is not known to be down.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.health.lock().is_up != Some(false)
    }

    /// Has the watch thread ask about a session, at once and then again and again while the result lives.
    #[must_use]
    pub fn watch(&self, session: Target) -> Arc<Watched> {
        let watched = Watched::new(session);
        self.watched.lock().push(Arc::downgrade(&watched));
        self.nudge();
        watched
    }

    /// Has the watch thread ask about a session now, since something has changed.
    pub fn ask_now(&self, session: &Watched) {
        session.set_due(None);
        self.nudge();
    }

    /// The sessions to ask about, those first that have waited longest.
    pub(super) fn watched(&self) -> Vec<Arc<Watched>> {
        let mut watched: Vec<_> = {
            let mut watched = self.watched.lock();
            watched.retain(|session| session.strong_count() > 0);
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        watched.sort_by_key(|session| session.due());
        watched
    }

    /// Is ready when there is a new session to ask about.
    pub(super) fn nudged(&self) -> &Receiver<()> {
        &self.nudge.1
    }

    /// Whether it is up and has passed its last check.
    pub(super) fn is_well(&self) -> bool {
        let health = self.health.lock();
        health.is_up == Some(true) && health.failures() == 0
    }

    /// Whether it has left several questions in a row without an answer, and sends nothing.
    #[must_use]
    pub fn is_mute(&self) -> bool {
        self.pulse.is_mute(Instant::now())
    }

    /// If it is mute, ends the calls that wait there for what it may give or not: in vain, most likely. Once, until it answers
    /// again.
    pub(super) fn cut_if_mute(&self) {
        if self.pulse.has_fallen_silent(Instant::now()) {
            // The check that it failed is told of by its watch.
            log::debug!("Calls that wait at engine {} are given up: it answers nothing", self.settings.name);
            self.api.interrupt_calls();
        }
    }

    /// Has the watch thread look at what there is to do.
    pub(super) fn nudge(&self) {
        // Full means that it was told before.
        let _told = self.nudge.0.try_send(());
    }

    /// Asks for a health check now; gives how many were over before.
    pub(super) fn want_check(&self) -> u64 {
        let done = {
            let mut checks = self.checks.lock();
            checks.is_wanted = true;
            checks.done
        };
        self.nudge();
        done
    }

    /// Whether somebody waits for a health check.
    pub(super) fn is_check_wanted(&self) -> bool {
        self.checks.lock().is_wanted
    }

    /// Health checks that are over.
    pub(super) fn checks(&self) -> u64 {
        self.checks.lock().done
    }

    /// Records the outcome of a health check: up at the first success; down after `failures` in a row, or at once when it is
    /// certain that nobody is there, but not while packets came within the last `interval`. Whoever waits for an answer of an
    /// engine that is found to give none is told. Gives whether it went up or down, and how many checks in a row it failed.
    pub(super) fn record_check(
        &self,
        outcome: Result<Option<String>, Failed>,
        rhythm: config::Health,
    ) -> (Option<Change>, u32) {
        let now = Instant::now();
        let is_late = |at| now.saturating_duration_since(at) < rhythm.interval;
        let plays = self.pulse.last_packets().is_some_and(is_late);
        let tolerance = Tolerance { failures: rhythm.failures, plays };
        let (change, failures) = {
            let mut health = self.health.lock();
            let was_down = health.is_up == Some(false);
            let change = health.check(outcome, tolerance);
            if was_down && change == Some(Change::Up) {
                health.came_back_at = Some(now);
            }
            (change, health.failures())
        };
        if change == Some(Change::Down) {
            self.api.interrupt_calls();
        }
        self.cut_if_mute();
        {
            // Who asked while it was under way is served by it.
            let mut checks = self.checks.lock();
            checks.done += 1;
            checks.is_wanted = false;
        }
        match change {
            Some(Change::Up) => self.news.tell_up(),
            _ => self.news.tell_check(),
        }
        (change, failures)
    }

    /// Records that a start of this content failed, which puts the engine, or this content on it, behind the others for a
    /// while; one that is certainly not there is down at once, until a health check finds it well, which follows soon.
    pub fn record_failure(&self, content: ContentName, failed: &Failed, fault: Fault) {
        let change = self.health.lock().fail_start(content, failed, fault, Instant::now());
        if change == Some(Change::Down) {
            log::warn!("Engine {} is down: {failed}; asked until it answers", self.settings.name);
            self.api.interrupt_calls();
        }
        if fault == Fault::Engine {
            // Whether it is there at all is worth knowing now.
            self.want_check();
        }
    }

    /// Records that this content did not come from it, which has done what it could.
    pub fn doubt(&self, content: ContentName) {
        self.health.lock().blame.fail(content, Fault::Content, Instant::now());
    }

    /// Whether it was asked something that is answered at once, and has given neither an answer to anything nor packets for so
    /// long. A getstream that takes its time is no silence.
    #[must_use]
    pub fn is_silent_for(&self, limit: Duration) -> bool {
        self.pulse.is_silent_for(limit, Instant::now())
    }
}

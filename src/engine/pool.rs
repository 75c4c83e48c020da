//! Several engines: how each is, and which one takes the next stream.
//!
//! The choice is a pure function of plain values ([`choose`]); the place on the chosen engine is taken in the same
//! lock, so that two streams starting together cannot both take the last one. How many streams an engine has is
//! never counted by hand: it is the number of [`Reservation`]s that live.
//!
//! Lock rule: the pool's lock is taken alone and never held over a call to an engine.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;

use crate::config;
use crate::id::{ContentName, Digest, EngineParams};
use crate::stats::Histogram;

use super::api::Api;
use super::blame::{Blame, Fault};
use super::choose::{EngineView, Unavailable, choose};
use super::error::EngineError;
use super::stat::Watched;
use super::url::Target;

/// A start that has been silent for so long is waiting for its swarm, and does not count as work of the engine.
const SILENT_START: Duration = Duration::from_secs(2);

/// All engines of the configuration, in its order.
pub struct Pool {
    engines: Vec<Arc<Engine>>,
    /// Taken while choosing, so that choice and reservation are one step.
    choosing: Mutex<()>,
}

/// One engine.
pub struct Engine {
    /// Its settings.
    pub settings: config::Engine,
    /// Its control calls.
    pub api: Api,
    /// How long its health checks took that it passed.
    pub check_times: Histogram,
    health: Mutex<Health>,
    /// One clone for each reservation.
    places: Arc<()>,
    /// One for each start, with its time.
    starts: Mutex<Vec<Weak<Instant>>>,
    /// What its streams play, as far as it is known.
    contents: Mutex<Vec<Weak<Content>>>,
    /// Sessions that the watch thread asks about.
    watched: Mutex<Vec<Weak<Watched>>>,
    /// Tells the watch thread that there is a new one.
    nudge: (Sender<()>, Receiver<()>),
}

/// What is known of an engine's health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// `None` until it was first asked; such an engine is used.
    pub is_up: Option<bool>,
    /// Its version, once it told it.
    pub version: Option<String>,
    /// Its last trouble, also after it is well again.
    pub last_error: Option<String>,
    /// When it was last asked.
    pub last_checked_at: Option<SystemTime>,
    /// Health checks that it failed, since the start.
    pub failed_checks: u64,
    failures: u32,
    blame: Blame,
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
    place: Option<Arc<()>>,
    start: Option<Arc<Instant>>,
    content: Option<Arc<Content>>,
}

impl Reservation {
    /// The start is over and went well: another one may begin.
    pub fn record_start(&mut self) {
        self.end_start();
        self.engine.health.lock().blame.succeed();
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

impl Pool {
    /// A pool of these engines, none of them asked yet.
    #[must_use]
    pub fn new(engines: Vec<config::Engine>) -> Self {
        let engines = engines.into_iter().map(|settings| Arc::new(Engine::new(settings))).collect();
        Self { engines, choosing: Mutex::new(()) }
    }

    /// The engines, in the order of the configuration.
    #[must_use]
    pub fn engines(&self) -> &[Arc<Engine>] {
        &self.engines
    }

    /// Takes a place on the best engine for this wish.
    ///
    /// # Errors
    ///
    /// When every engine is down, full, busy starting, plays another variant of the content, or was tried in vain.
    pub fn reserve(&self, wish: &Wish<'_>) -> Result<Reservation, Unavailable> {
        let _choosing = self.choosing.lock();
        let views: Vec<_> = self.engines.iter().map(|engine| engine.view(wish)).collect();
        let engine = Arc::clone(&self.engines[choose(&views)?]);
        let (place, start) = (Arc::clone(&engine.places), Arc::new(Instant::now()));
        engine.starts.lock().push(Arc::downgrade(&start));
        let content = wish.content.clone().map(|content| engine.add_content(content));
        Ok(Reservation { engine, place: Some(place), start: Some(start), content })
    }

    /// The names of the engines that are not down and have room.
    #[must_use]
    pub fn at_hand(&self) -> Vec<String> {
        let is_at_hand =
            |engine: &&Arc<Engine>| engine.is_usable() && engine.streams() < engine.settings.max_streams;
        self.engines.iter().filter(is_at_hand).map(|engine| engine.settings.name.clone()).collect()
    }

    /// Whether the engine of this name is not known to be down.
    #[must_use]
    pub fn is_usable(&self, name: &str) -> bool {
        self.engines.iter().any(|engine| engine.settings.name == name && engine.is_usable())
    }

    /// Records what the stream with this place plays, once it is known. Tells whether it may: not if the engine plays another
    /// variant of it.
    #[must_use]
    pub fn claim(&self, reservation: &mut Reservation, content: Content) -> bool {
        let _choosing = self.choosing.lock();
        if reservation.content.as_deref() == Some(&content) {
            return true;
        }
        if reservation.engine.has_variant_of(&content) {
            return false;
        }
        reservation.content = Some(reservation.engine.add_content(content));
        true
    }
}

impl Engine {
    fn new(settings: config::Engine) -> Self {
        let api = Api::new(settings.authority());
        Self {
            settings,
            api,
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

    fn view(&self, wish: &Wish<'_>) -> EngineView {
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
            is_penalised: health.blame.is_penalised(wish.name, now),
            is_preferred,
            has_other_variant: wish.content.as_ref().is_some_and(|content| self.has_variant_of(content)),
            tries,
        }
    }

    fn has_variant_of(&self, content: &Content) -> bool {
        let mut contents = self.contents.lock();
        contents.retain(|known| known.strong_count() > 0);
        contents.iter().filter_map(Weak::upgrade).any(|known| known.is_variant_of(content))
    }

    fn add_content(&self, content: Content) -> Arc<Content> {
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
        // Full means that it was told before.
        let _told = self.nudge.0.try_send(());
        watched
    }

    /// Has the watch thread ask about a session now, since something has changed.
    pub fn ask_now(&self, session: &Watched) {
        session.set_due(None);
        let _told = self.nudge.0.try_send(());
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

    /// Records the outcome of a health check: up at the first success, down after `failures` in a row, or at once
    /// when it is certain that nobody is there. Tells whether it went up or down.
    pub fn record_check(
        &self,
        outcome: Result<Option<String>, EngineError>,
        failures: u32,
    ) -> Option<Change> {
        let mut health = self.health.lock();
        health.last_checked_at = Some(SystemTime::now());
        let was_up = health.is_up;
        match outcome {
            Ok(version) => {
                health.version = version.or(health.version.take());
                health.failures = 0;
                health.is_up = Some(true);
            }
            Err(error) => {
                health.failures = health.failures.saturating_add(1);
                health.failed_checks += 1;
                health.last_error = Some(error.to_string());
                if error.is_refused() || health.failures >= failures {
                    health.is_up = Some(false);
                }
            }
        }
        match (was_up, health.is_up) {
            (Some(true) | None, Some(false)) => Some(Change::Down),
            (Some(false) | None, Some(true)) => Some(Change::Up),
            _ => None,
        }
    }

    /// Records that this content did not come from this engine, which has done what it could.
    pub fn doubt(&self, content: ContentName) {
        self.health.lock().blame.fail(content, Fault::Content, Instant::now());
    }

    /// Whether it was asked, and has not answered anything for so long.
    #[must_use]
    pub fn is_silent_for(&self, _time: Duration) -> bool {
        false
    }

    /// Records that it neither sends nor answers.
    pub fn record_dead(&self, content: ContentName, words: &impl std::fmt::Display) {
        let mut health = self.health.lock();
        health.blame.fail(content, Fault::Engine, Instant::now());
        health.last_error = Some(words.to_string());
    }

    /// Records that a start of this content failed, which puts the engine behind the others for a while; one that is certainly
    /// not there is down at once, until a health check finds it well.
    pub fn record_failure(&self, content: ContentName, error: &EngineError, fault: Fault) {
        let mut health = self.health.lock();
        if health.blame.fail(content, fault, Instant::now()) {
            health.last_error = Some(error.to_string());
        }
        if error.is_refused() {
            health.is_up = Some(false);
        }
    }
}

/// A change of an engine's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is well now.
    Up,
    /// It is not.
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::NoConnection;

    #[test]
    fn one_connect_without_an_answer_is_not_the_end_of_an_engine() {
        const FAILURES: u32 = 3;
        let engine = Engine::new(config::Engine::at("127.0.0.1".parse().expect("a host"), 6878));
        let unanswered =
            || Err(EngineError::Unreachable(NoConnection::Unanswered("no answer to the connect")));
        let refused = || Err(EngineError::Unreachable(NoConnection::Refused("refused".to_owned())));
        assert_eq!(engine.record_check(Ok(None), FAILURES), Some(Change::Up));
        assert_eq!(engine.record_check(unanswered(), FAILURES), None);
        assert_eq!(engine.record_check(unanswered(), FAILURES), None);
        assert_eq!(engine.record_check(unanswered(), FAILURES), Some(Change::Down));
        assert_eq!(engine.record_check(Ok(None), FAILURES), Some(Change::Up));
        assert_eq!(engine.record_check(refused(), FAILURES), Some(Change::Down));
    }
}

//! Several engines: how each is, and which one takes the next stream.
//!
//! The choice is a pure function of plain values ([`choose`]); the place on the chosen engine is taken in the same
//! lock, so that two streams starting together cannot both take the last one. How many streams an engine has is
//! never counted by hand: it is the number of [`Reservation`]s that live.
//!
//! Lock rule: the pool's lock is taken alone and never held over a call to an engine.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::config;

use super::api::Api;
use super::error::EngineError;

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
    health: Mutex<Health>,
    /// One clone for each reservation.
    places: Arc<()>,
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
    failures: u32,
}

/// What the choice is made of.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Not known to be down.
    pub is_usable: bool,
    /// Its P2P port is reachable from outside: it finds more peers.
    pub is_forwarded: bool,
    /// Streams it has, those just starting included.
    pub streams: usize,
    /// Streams it may have.
    pub max_streams: usize,
}

/// Why no engine can take a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Every engine is down.
    AllDown,
    /// Every engine that is up has as many streams as it may.
    AllFull,
}

/// The engine for the next stream, as an index: of those that are up and have a place, a forwarded one first,
/// then the one with the fewest streams, then the first.
///
/// # Errors
///
/// When there is none.
pub fn choose(views: &[View]) -> Result<usize, Unavailable> {
    let usable = || views.iter().enumerate().filter(|(_, view)| view.is_usable);
    let with_place = usable().filter(|(_, view)| view.streams < view.max_streams);
    let best = with_place.min_by_key(|(_, view)| (!view.is_forwarded, view.streams));
    match best {
        Some((index, _)) => Ok(index),
        None if usable().next().is_none() => Err(Unavailable::AllDown),
        None => Err(Unavailable::AllFull),
    }
}

/// A place on an engine, given back when dropped.
pub struct Reservation {
    /// The engine.
    pub engine: Arc<Engine>,
    _place: Arc<()>,
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

    /// Takes a place on the best engine.
    ///
    /// # Errors
    ///
    /// When every engine is down or full.
    pub fn reserve(&self) -> Result<Reservation, Unavailable> {
        let _choosing = self.choosing.lock();
        let views: Vec<_> = self.engines.iter().map(|engine| engine.view()).collect();
        let engine = Arc::clone(&self.engines[choose(&views)?]);
        let place = Arc::clone(&engine.places);
        Ok(Reservation { engine, _place: place })
    }
}

impl Engine {
    fn new(settings: config::Engine) -> Self {
        let api = Api::new(settings.authority());
        Self { settings, api, health: Mutex::default(), places: Arc::new(()) }
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

    fn view(&self) -> View {
        View {
            is_usable: self.health.lock().is_up != Some(false),
            is_forwarded: self.settings.forwarded,
            streams: self.streams(),
            max_streams: self.settings.max_streams,
        }
    }

    /// Records the outcome of a health check: up at the first success, down after `failures` in a row, or at once
    /// when it cannot be reached. Tells whether it went up or down.
    pub fn record_check(&self, outcome: Result<Option<String>, EngineError>, failures: u32) -> Option<Change> {
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
                health.last_error = Some(error.to_string());
                if matches!(error, EngineError::Unreachable(_)) || health.failures >= failures {
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

    /// Records that a call for a stream failed; an engine that cannot be reached is down at once, until a health
    /// check finds it well.
    pub fn record_failure(&self, error: &EngineError) {
        let mut health = self.health.lock();
        health.last_error = Some(error.to_string());
        if matches!(error, EngineError::Unreachable(_)) {
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

    fn view(is_usable: bool, is_forwarded: bool, streams: usize) -> View {
        View { is_usable, is_forwarded, streams, max_streams: 4 }
    }

    #[test]
    fn a_forwarded_engine_beats_a_plain_one() {
        assert_eq!(choose(&[view(true, false, 0), view(true, true, 0)]), Ok(1));
    }

    #[test]
    fn a_forwarded_engine_with_streams_still_beats_an_idle_plain_one() {
        assert_eq!(choose(&[view(true, false, 0), view(true, true, 2)]), Ok(1));
    }

    #[test]
    fn an_unhealthy_engine_is_never_chosen() {
        assert_eq!(choose(&[view(false, true, 0), view(true, false, 3)]), Ok(1));
    }

    #[test]
    fn of_equals_the_least_loaded_is_chosen_then_the_first() {
        assert_eq!(choose(&[view(true, true, 3), view(true, true, 1), view(true, true, 2)]), Ok(1));
        assert_eq!(choose(&[view(true, true, 1), view(true, true, 1)]), Ok(0));
    }

    #[test]
    fn none_is_chosen_when_all_are_down_or_full() {
        assert_eq!(choose(&[]), Err(Unavailable::AllDown));
        assert_eq!(choose(&[view(false, true, 0), view(false, false, 0)]), Err(Unavailable::AllDown));
        assert_eq!(choose(&[view(false, true, 0), view(true, false, 4)]), Err(Unavailable::AllFull));
    }
}

//! One thread per engine that asks it how it is, and how its sessions are.
//!
//! It tells the pool, the sessions that want to know, and the log; it knows nothing of streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};

use crate::config;

use super::api::Api;
use super::pool::{Change, Engine};

/// How often an engine is asked about its sessions; its own clients get news every two seconds, so more is useless.
const STAT_INTERVAL: Duration = Duration::from_secs(3);

/// A session that was just created has nothing to say yet (engine-contract.md section 3); it is asked again sooner.
const EMPTY_STAT_INTERVAL: Duration = Duration::from_secs(1);

/// For each of these calls.
const STAT_LIMIT: Duration = Duration::from_secs(2);

/// Watches one engine.
pub struct Watch {
    engine: Arc<Engine>,
    /// Its own, so that ending the watch ends no stop call of a stream.
    api: Api,
    rhythm: config::Health,
}

impl Watch {
    /// A watch of this engine in this rhythm.
    #[must_use]
    pub fn new(engine: Arc<Engine>, rhythm: config::Health) -> Self {
        let api = Api::new(engine.settings.authority());
        Self { engine, api, rhythm }
    }

    /// How long one turn takes at most, when the engine answers nothing: all calls, and the pause.
    #[must_use]
    pub fn longest_turn(&self) -> Duration {
        self.rhythm.timeout + STAT_LIMIT + STAT_INTERVAL
    }

    /// Asks again and again, until `stop` is closed; says so by `beat` each time.
    pub fn run(&self, stop: &Receiver<()>, beat: impl Fn()) {
        let mut next_check = Instant::now();
        loop {
            beat();
            if Instant::now() >= next_check {
                self.check_health();
                next_check = Instant::now() + self.rhythm.interval;
            }
            let next_stat = self.ask_about_a_session();
            let pause = next_check.min(next_stat).saturating_duration_since(Instant::now());
            select! {
                recv(stop) -> _ => return,
                recv(self.engine.nudged()) -> _ => {}
                default(pause) => {}
            }
        }
    }

    /// Ends a call in progress. To be used after `stop` was closed.
    pub fn interrupt(&self) {
        self.api.interrupt();
    }

    fn check_health(&self) {
        let name = &self.engine.settings.name;
        let began = Instant::now();
        let outcome = self.api.check_health(self.rhythm.timeout);
        if outcome.is_ok() {
            self.engine.check_times.record(began.elapsed());
        }
        let error = outcome.as_ref().err().map(ToString::to_string);
        match (self.engine.record_check(outcome, self.rhythm.failures), error) {
            (Some(Change::Up), _) => log::info!("Engine {name} is up"),
            (Some(Change::Down), Some(error)) => log::warn!("Engine {name} is down: {error}"),
            _ => {}
        }
    }

    /// Asks about the session that has waited longest, if its time has come; when it has to be done again. One at a time,
    /// so that sessions that hang delay neither the others nor the health checks by more than one call.
    fn ask_about_a_session(&self) -> Instant {
        let now = Instant::now();
        let watched = self.engine.watched();
        if let Some(next) = watched.first().filter(|next| next.due().is_none_or(|due| due <= now)) {
            next.set_due(Some(now + STAT_INTERVAL));
            let outcome = self.api.stat(&next.target, STAT_LIMIT);
            if outcome.as_ref().is_ok_and(|stat| stat.status.is_empty()) {
                next.set_due(Some(now + EMPTY_STAT_INTERVAL));
            }
            next.record(outcome, Instant::now());
            return watched.iter().filter_map(|watched| watched.due().or(Some(now))).min().unwrap_or(now);
        }
        watched.first().and_then(|next| next.due()).unwrap_or(now + STAT_INTERVAL)
    }
}

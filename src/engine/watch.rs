//! One thread per engine that asks it how it is, and how its sessions are.
//!
//! It tells the pool, the sessions that want to know, and the log; it knows nothing of streams.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};

use crate::config;

use super::api::Api;
use super::member::{Change, Engine};

/// How often an engine is asked about its sessions; its own clients get news every two seconds, so more is useless.
const STAT_INTERVAL: Duration = Duration::from_secs(3);

/// A session that was just created has nothing to say yet (engine-contract.md section 3); it is asked again sooner.
const EMPTY_STAT_INTERVAL: Duration = Duration::from_secs(1);

/// A health check asks so many questions at most.
const MAX_QUESTIONS: u32 = 3;

/// For each of these calls.
const STAT_LIMIT: Duration = Duration::from_secs(2);

/// An engine that is down, or has just failed a check, is asked this often: a refused connect costs nothing, and who waits
/// for its return waits no longer than that.
const TROUBLED_INTERVAL: Duration = Duration::from_secs(1);

/// After a panic, which has been logged.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

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
        let api = engine.api.another();
        Self { engine, api, rhythm }
    }

    /// How long one turn takes at most, when the engine answers nothing: all calls, and the pause.
    #[must_use]
    pub fn longest_turn(&self) -> Duration {
        MAX_QUESTIONS * self.rhythm.timeout + STAT_LIMIT + STAT_INTERVAL
    }

    /// Asks again and again, until `stop` is closed; says so by `beat` each time. A panic is not the end of it.
    pub fn run(&self, stop: &Receiver<()>, beat: impl Fn()) {
        undaunted(&self.engine.settings.name, stop, || self.watch(stop, &beat));
    }

    fn watch(&self, stop: &Receiver<()>, beat: &impl Fn()) {
        let mut last_check = None;
        loop {
            beat();
            let is_due = last_check.is_none_or(|last| self.next_check(last) <= Instant::now());
            let last = match last_check {
                Some(last) if !is_due && !self.engine.is_check_wanted() => last,
                _ => {
                    self.check_health();
                    Instant::now()
                }
            };
            last_check = Some(last);
            let next_stat = self.ask_about_a_session();
            let next_check = self.next_check(last);
            let next = next_stat.map_or(next_check, |next_stat| next_stat.min(next_check));
            let pause = next.saturating_duration_since(Instant::now());
            select! {
                recv(stop) -> _ => return,
                recv(self.engine.nudged()) -> _ => {}
                default(pause) => {}
            }
        }
    }

    /// In its rhythm, and soon where something is wrong.
    fn next_check(&self, last: Instant) -> Instant {
        let interval = self.rhythm.interval;
        let is_well = self.engine.is_well() && !self.engine.is_silent_for(STAT_LIMIT);
        last + if is_well { interval } else { interval.min(TROUBLED_INTERVAL) }
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
        let error = outcome.as_ref().err().cloned();
        let was_up = self.engine.is_usable();
        let (change, failures) = self.engine.record_check(outcome, self.rhythm);
        let again = self.rhythm.interval.min(TROUBLED_INTERVAL).as_secs_f32();
        match (change, error) {
            (Some(Change::Up), _) => log::info!("Engine {name} is up"),
            (Some(Change::Down), Some(error)) => {
                log::warn!("Engine {name} is down: {error}; asked every {again} s until it answers");
            }
            // Enough said of one that is down, or that plays whatever it says.
            (None, Some(error)) if was_up && failures <= self.rhythm.failures => {
                let of = self.rhythm.failures;
                log::info!(
                    "Engine {name} failed a check ({failures} of {of}): {error}; asked again in {again} s"
                );
            }
            _ => {}
        }
    }

    /// Asks about the session that has waited longest, if its time has come; when it has to be done again, if nothing
    /// begins before. One at a time, so that sessions that hang delay neither the others nor the health checks by more than
    /// one call.
    fn ask_about_a_session(&self) -> Option<Instant> {
        let now = Instant::now();
        let watched = self.engine.watched();
        if let Some(next) = watched.first().filter(|next| next.due().is_none_or(|due| due <= now)) {
            next.set_due(Some(now + STAT_INTERVAL));
            let outcome = self.api.stat(&next.target, STAT_LIMIT);
            if outcome.as_ref().is_ok_and(|stat| stat.status.is_empty()) {
                next.set_due(Some(now + EMPTY_STAT_INTERVAL));
            }
            next.record(outcome, Instant::now());
            self.engine.cut_if_mute();
            return watched.iter().map(|watched| watched.due().unwrap_or(now)).min();
        }
        match watched.first() {
            Some(next) => Some(next.due().unwrap_or(now)),
            // It may be asked something by others, and fall silent: that is to be seen in time.
            None if self.engine.streams() > 0 => Some(now + STAT_INTERVAL),
            None => None,
        }
    }
}

/// Does something until it returns, however often it panics, or until `stop` is closed.
fn undaunted(name: &str, stop: &Receiver<()>, mut body: impl FnMut()) {
    while catch_unwind(AssertUnwindSafe(&mut body)).is_err() {
        log::error!("The watch of engine {name} begins anew after a panic");
        if stop.recv_timeout(PANIC_PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_panics_goes_on() {
        let (_stop, stopped) = crossbeam_channel::bounded(0);
        let mut times = 0;
        undaunted("box", &stopped, || {
            times += 1;
            assert!(times == 2, "on purpose");
        });
        assert_eq!(times, 2);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        drop(stop);
        undaunted("box", &stopped, || panic!("on purpose"));
    }
}

//! What is known of an engine's health: a value, changed by checks and by starts that failed.
//!
//! It must not know how an engine is asked, nor what becomes of a change.

use std::time::{Instant, SystemTime};

use crate::id::ContentName;

use super::blame::{Blame, Fault};
use super::error::{EngineError, Failed};

/// What is known of an engine's health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// `None` until it was first asked; such an engine is used.
    pub is_up: Option<bool>,
    /// Its version, once it told it.
    pub version: Option<String>,
    /// Its last trouble, also after it is well again, with the question that it failed.
    pub last_error: Option<String>,
    /// When it was last asked.
    pub last_checked_at: Option<SystemTime>,
    /// Health checks that it failed, since the start.
    pub failed_checks: u64,
    /// Those in a row.
    failures: u32,
    /// How many of these in a row were closed before an answer.
    closed: u32,
    /// When it was last found well after it had been down.
    pub(super) came_back_at: Option<Instant>,
    pub(super) blame: Blame,
}

/// A change of an engine's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is well now.
    Up,
    /// It is not.
    Down,
}

/// A port that closes what it accepted twice in a row has nobody behind it; once may happen to an engine that restarts.
const CLOSED_IN_A_ROW: u32 = 2;

/// What counts beside a failed check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// Failed checks in a row that it takes.
    pub(super) failures: u32,
    /// Packets came from it lately: whatever it says, it is not down.
    pub(super) plays: bool,
}

impl Health {
    /// Failed checks in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Records the outcome of a check: up at the first success; down after some failures in a row unless it plays, or at once
    /// when it is certain that nobody is there. Tells whether it went up or down.
    pub(super) fn check(
        &mut self,
        outcome: Result<Option<String>, Failed>,
        tolerance: Tolerance,
    ) -> Option<Change> {
        self.last_checked_at = Some(SystemTime::now());
        match outcome {
            Ok(version) => {
                self.version = version;
                (self.failures, self.closed) = (0, 0);
                self.set(true)
            }
            Err(failed) => {
                self.failures = self.failures.saturating_add(1);
                self.closed = match failed.error {
                    EngineError::Closed(_) => self.closed.saturating_add(1),
                    _ => 0,
                };
                self.failed_checks += 1;
                self.last_error = Some(failed.to_string());
                let is_certain = failed.error.is_refused() || self.closed >= CLOSED_IN_A_ROW;
                let is_enough = self.failures >= tolerance.failures && !tolerance.plays;
                if is_certain || is_enough { self.set(false) } else { None }
            }
        }
    }

    /// Records that a start failed. Tells whether that took it down.
    pub(super) fn fail_start(
        &mut self,
        content: ContentName,
        failed: &Failed,
        fault: Fault,
        now: Instant,
    ) -> Option<Change> {
        self.blame.fail(content, fault, now);
        if fault == Fault::Engine {
            self.last_error = Some(failed.to_string());
        }
        if failed.error.is_refused() { self.set(false) } else { None }
    }

    fn set(&mut self, is_up: bool) -> Option<Change> {
        let was_up = self.is_up.replace(is_up);
        match (was_up, is_up) {
            (Some(true) | None, false) => Some(Change::Down),
            (Some(false) | None, true) => Some(Change::Up),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::error::NoConnection;
    use crate::id::Digest;

    const SILENT: EngineError = EngineError::Silent(Duration::from_secs(5));
    const WITHOUT_PACKETS: Tolerance = Tolerance { failures: 3, plays: false };
    const WITH_PACKETS: Tolerance = Tolerance { failures: 3, plays: true };

    fn refused() -> EngineError {
        EngineError::Unreachable(NoConnection::Refused("refused".to_owned()))
    }

    fn closed() -> EngineError {
        EngineError::Closed("end of file".to_owned())
    }

    fn fail(health: &mut Health, error: EngineError, tolerance: Tolerance) -> Option<Change> {
        health.check(Err(Failed { question: "get_status", error }), tolerance)
    }

    fn healthy() -> Health {
        let mut health = Health::default();
        assert_eq!(health.check(Ok(None), WITHOUT_PACKETS), Some(Change::Up));
        health
    }

    #[test]
    fn one_connect_without_an_answer_is_not_the_end_of_an_engine() {
        let unanswered = || EngineError::Unreachable(NoConnection::Unanswered("no answer to the connect"));
        let mut health = healthy();
        assert_eq!(fail(&mut health, unanswered(), WITHOUT_PACKETS), None);
        assert_eq!(fail(&mut health, unanswered(), WITHOUT_PACKETS), None);
        assert_eq!(fail(&mut health, unanswered(), WITHOUT_PACKETS), Some(Change::Down));
        assert_eq!(health.check(Ok(None), WITHOUT_PACKETS), Some(Change::Up));
        assert_eq!(fail(&mut health, refused(), WITHOUT_PACKETS), Some(Change::Down));
    }

    #[test]
    fn an_engine_from_which_packets_come_is_not_down_unless_it_refuses() {
        let mut health = healthy();
        for _ in 0..10 {
            assert_eq!(fail(&mut health, SILENT, WITH_PACKETS), None);
        }
        assert_eq!((health.is_up, health.failed_checks), (Some(true), 10));
        assert!(health.last_error.as_ref().is_some_and(|error| error.starts_with("get_status: ")));
        assert_eq!(fail(&mut health, refused(), WITH_PACKETS), Some(Change::Down));
        assert_eq!(fail(&mut healthy(), SILENT, Tolerance { failures: 1, plays: false }), Some(Change::Down));
    }

    #[test]
    fn a_port_that_closes_twice_has_nobody_behind_it() {
        let mut health = healthy();
        assert_eq!(fail(&mut health, closed(), WITHOUT_PACKETS), None);
        assert_eq!(fail(&mut health, closed(), WITHOUT_PACKETS), Some(Change::Down));
        let mut health = healthy();
        assert_eq!(fail(&mut health, closed(), WITHOUT_PACKETS), None);
        assert_eq!(fail(&mut health, SILENT, WITHOUT_PACKETS), None);
        assert_eq!(fail(&mut health, closed(), Tolerance { failures: 9, plays: false }), None);
    }

    #[test]
    fn a_dead_link_is_not_held_against_a_healthy_engine() {
        let mut health = healthy();
        let now = Instant::now();
        let names = [1, 2, 3].map(|number| ContentName::Id(Digest::new([number; 20])));
        let missing = Failed::playback(EngineError::Status(404, String::new()));
        for name in names {
            assert_eq!(health.fail_start(name, &missing, Fault::of(&missing.error), now), None);
        }
        assert_eq!((health.is_up, &health.last_error), (Some(true), &None));
        assert!(names.iter().all(|name| health.blame.is_penalised(*name, now)));
        let late = Failed::getstream(SILENT);
        assert_eq!(health.fail_start(names[0], &late, Fault::Engine, now), None);
        assert_eq!(health.last_error.as_deref(), Some("getstream: no answer within 5.0 s"));
        let refused = Failed::getstream(refused());
        assert_eq!(health.fail_start(names[0], &refused, Fault::Engine, now), Some(Change::Down));
    }

    #[test]
    fn a_version_that_is_told_no_more_is_forgotten() {
        let mut health = healthy();
        assert_eq!(health.check(Ok(Some("3.2.3".to_owned())), WITHOUT_PACKETS), None);
        assert_eq!(health.version.as_deref(), Some("3.2.3"));
        assert_eq!(health.check(Ok(None), WITHOUT_PACKETS), None);
        assert_eq!(health.version, None);
    }
}

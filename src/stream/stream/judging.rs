//! How a stream judges its source: what the engine says of it, how long it has been silent, which attempt comes next.
//!
//! It must not know how a source is obtained or read.

use std::time::{Duration, Instant};

use crate::engine::playback::Interrupter;
use crate::stream::state::{Event, Hint, SourceReport, State, Why};

use super::Stream;

/// After so much silence, an engine that does not know the session is believed; one that flows is not given up for a word.
const ASK_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// What an engine says of a source.
pub(super) struct EngineReport {
    attempt: u32,
    is_unknown: bool,
    engine_is_well: bool,
    is_filling: bool,
    hint: Hint,
    refusal: Option<String>,
}

/// An attempt was given up before the fetcher got this far.
#[derive(Debug)]
pub struct Superseded;

impl Stream {
    /// Lets time pass: deadlines and silence.
    pub fn tick(&self) {
        self.judge(self.hear());
    }

    /// What the engine says of the current source.
    pub(super) fn hear(&self) -> EngineReport {
        let (attempt, asked, refusal) = {
            let core = self.core.lock();
            (core.life.attempt, core.asked.clone(), core.refusal.clone())
        };
        let last_picture = self.flow.last_picture();
        let watched = asked.as_ref().and_then(|(_, watched)| watched.as_ref());
        EngineReport {
            attempt,
            is_unknown: watched.is_some_and(|watched| watched.is_unknown_since(last_picture)),
            engine_is_well: asked.as_ref().is_none_or(|(engine, _)| engine.is_usable()),
            is_filling: watched.is_some_and(|watched| watched.is_filling(last_picture, Instant::now())),
            hint: Hint::of(watched.and_then(|watched| watched.last()).as_deref()),
            refusal,
        }
    }

    pub(super) fn judge(&self, report: EngineReport) {
        let core = self.core.lock();
        // Looked at under the lock: first packets are seen before they are reported, so whoever finds the stream active
        // does not find the silence before its recovery.
        let silent_for = Instant::now().saturating_duration_since(self.flow.last_picture());
        let given = self.flow.given();
        let event = if report.is_unknown && silent_for >= ASK_AFTER_SILENCE {
            Event::SourceLost { attempt: report.attempt, why: Why::SessionLost, given }
        } else {
            let EngineReport { engine_is_well, is_filling, hint, refusal, .. } = report;
            Event::Tick(SourceReport { silent_for, given, engine_is_well, is_filling, hint, refusal })
        };
        self.commit(core, &event);
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
    pub(in crate::stream) fn connect_timeout(&self) -> Why {
        let EngineReport { hint, refusal, .. } = self.hear();
        Why::connect_timeout(self.limits.connect, hint, refusal)
    }

    /// Whether this attempt is the one to recover the source.
    #[must_use]
    pub(in crate::stream) fn is_recovering(&self, attempt: u32) -> bool {
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
}

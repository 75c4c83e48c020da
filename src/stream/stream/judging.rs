//! How a stream judges its source: what the engine says of it, how long it has been silent, what else could be tried.
//!
//! It must not know how a source is obtained or read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::stat::Watched;
use crate::stream::candidates::{Failure, Others};
use crate::stream::flow::PictureNews;
use crate::stream::past::GOOD_AFTER;
use crate::stream::state::{EngineState, Event, Hint, SourceReport, State, Why};

use super::Stream;

/// After so much silence, an engine that does not know the session is believed; one that flows is not given up for a word.
const ASK_AFTER_SILENCE: Duration = Duration::from_secs(5);

/// A picture that is missing for so long is told of in the log.
const TELL_OF_PICTURE_AFTER: Duration = Duration::from_secs(5);

/// An engine that sends no packet and answers no question for so long is dead: it is asked about its sessions every three
/// seconds, and each question waits two.
const DEAD_AFTER: Duration = Duration::from_secs(8);

/// What an engine said longer ago explains nothing any more; it is asked every three seconds.
const HINT_AGE: Duration = Duration::from_secs(10);
/// Deadlines of a stream that starts, ends or is in trouble are looked at so often: often enough for limits of seconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// One that flows is looked at so often: silence counts from the last packet, so it is seen early enough all the same.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// What an engine says of the source of one attempt.
pub(super) struct EngineReport {
    attempt: u32,
    is_unknown: bool,
    is_down: bool,
    has_fallen_silent: bool,
    is_mute: bool,
    is_filling: bool,
    hint: Hint,
    refusal: Option<String>,
}

impl Stream {
    /// Lets time pass: deadlines and silence. Tells when that has to be done again, if the state does not change before.
    pub fn tick(&self) -> Instant {
        self.judge(self.hear());
        self.tell_of_picture();
        self.praise();
        self.next_look(Instant::now())
    }

    /// Has it remembered that the current source plays well.
    fn praise(&self) {
        let now = Instant::now();
        let content = {
            let mut core = self.core.lock();
            let is_playing = matches!(core.life.state, State::Active | State::Lingering { .. });
            match &mut core.plays_since {
                Some((since, is_good))
                    if is_playing && now.saturating_duration_since(*since) >= GOOD_AFTER =>
                {
                    *is_good = true;
                    self.content()
                }
                _ => return,
            }
        };
        self.past.praise(self.key(), &content, now);
    }

    fn next_look(&self, now: Instant) -> Instant {
        let calm = CALM_INTERVAL.min(self.limits.stall / 2).max(LOOK_INTERVAL);
        let is_calm = now.saturating_duration_since(self.flow.last_picture()) < calm
            && self.flow.picture_overdue().is_zero();
        match self.state() {
            State::Active if is_calm => now + calm,
            State::Lingering { until } if is_calm => until.min(now + calm),
            _ => now + LOOK_INTERVAL,
        }
    }

    /// What the engine says of the current source.
    pub(super) fn hear(&self) -> EngineReport {
        let (attempt, engine, session, opened_at, refusal) = {
            let core = self.core.lock();
            let current = &core.current;
            let session: Option<Arc<Watched>> = current.session.clone();
            (core.life.attempt, current.engine.clone(), session, current.opened_at, current.refusal.clone())
        };
        // What was said before the session was there is not said of it.
        let since = opened_at.map_or_else(Instant::now, |at| at.max(self.flow.last_picture()));
        let now = Instant::now();
        let is_mute = engine.as_ref().is_some_and(|engine| engine.is_mute());
        let word = session.as_ref().and_then(|session| session.last_within(HINT_AGE, now));
        EngineReport {
            attempt,
            is_unknown: session.as_ref().is_some_and(|session| {
                session.is_unknown_since(since) && now.saturating_duration_since(since) >= ASK_AFTER_SILENCE
            }),
            is_down: engine.as_ref().is_some_and(|engine| !engine.is_usable()),
            has_fallen_silent: engine.as_ref().is_some_and(|engine| engine.is_silent_for(DEAD_AFTER)),
            is_mute,
            is_filling: session.as_ref().is_some_and(|session| session.is_filling(since, now)),
            hint: if is_mute { Hint::Mute } else { Hint::of(word.as_deref()) },
            refusal,
        }
    }

    pub(super) fn judge(&self, report: EngineReport) {
        let at_hand = self.pool.at_hand();
        let core = self.core.lock();
        if core.life.attempt != report.attempt {
            // It was said of a source that is gone; the present one is looked at a moment later.
            return;
        }
        // Looked at under the lock: the fetcher sees first packets before it reports them, so that a housekeeper that finds
        // the stream active does not find the silence before its recovery.
        let silent_for = Instant::now().saturating_duration_since(self.flow.last_picture());
        // Who has paused a film takes nothing of it for hours, and a part that is not loaded yet is waited for. Only if the
        // engine does not answer either, the silence says something.
        let is_quiet = core.current.film.is_some() && !report.is_down && !report.has_fallen_silent;
        let given = self.flow.given();
        let others = self.others_after(&core, Some(Failure::Open), at_hand);
        let event = if report.is_unknown && silent_for >= ASK_AFTER_SILENCE {
            Event::SourceLost { attempt: report.attempt, why: Why::SessionLost, given, others }
        } else {
            let engine = match report {
                EngineReport { is_down: true, .. } => EngineState::Down,
                EngineReport { has_fallen_silent: true, .. } if silent_for >= DEAD_AFTER => EngineState::Dead,
                EngineReport { is_mute: true, .. } => EngineState::Mute,
                _ => EngineState::Well,
            };
            let silent_for = if is_quiet { Duration::ZERO } else { silent_for };
            let EngineReport { is_filling, hint, refusal, .. } = report;
            let picture_overdue = self.flow.picture_overdue();
            Event::Tick(SourceReport {
                silent_for,
                picture_overdue,
                given,
                engine,
                others,
                is_filling,
                hint,
                refusal,
            })
        };
        self.commit(core, &event);
    }

    fn tell_of_picture(&self) {
        match self.flow.news_of_picture(TELL_OF_PICTURE_AFTER) {
            Some(PictureNews::Gone) => {
                log::warn!("Stream {} has sound, but its picture does not come any more", self.stream_id);
            }
            Some(PictureNews::Back) => log::info!("Stream {} has its picture again", self.stream_id),
            None => {}
        }
    }

    /// The source of this attempt is lost, or was not to be had, for this reason.
    pub(in crate::stream) fn lose_source(&self, attempt: u32, why: Why) {
        let at_hand = self.pool.at_hand();
        let core = self.core.lock();
        let others = match why.failure() {
            // What ends a stream for a reason of its own is not mended by another engine.
            None if !core.life.state.is_active() => Others::None,
            failure => self.others_after(&core, failure, at_hand),
        };
        // Whoever was the last to be asked had all the time that was left.
        let others = match others {
            Others::Again if why.is_late() && !core.life.state.is_active() => Others::None,
            others => others,
        };
        let given = self.flow.given();
        self.commit(core, &Event::SourceLost { attempt, why, given, others });
    }

    /// What is said of an engine that did not begin to play in time.
    #[must_use]
    pub(in crate::stream) fn connect_timeout(&self) -> Why {
        let EngineReport { hint, refusal, .. } = self.hear();
        Why::connect_timeout(self.limits.connect, hint, refusal)
    }
}

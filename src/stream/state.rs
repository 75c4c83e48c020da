//! The life of a stream as a pure function.
//!
//! ```text
//! Starting --first packets--> Active <--seat taken-- Lingering
//!  ^ | |                      |  ^ '----last seat left---^ |
//!  '-' |         source lost  v  | first packets           |
//!  next|                    Recovering                     |
//!  try | no try left,           | deadline, unstable,      | time over, source lost,
//!      | abandoned, stopped     | nobody left, stopped     | stopped
//!      '----------------> Stopping <-----------------------'
//!                            | the engine's session is stopped
//!                            v
//!                         Stopped
//! ```
//!
//! Each try to get a source is an *attempt* with a number, and what is said of an attempt that is no longer the current
//! one is not heard. A start is one deadline and as many attempts as fit, and so is a recovery. It takes values and `now`;
//! it reads no clock, holds no lock, does no I/O, and does not know which engine is asked.

mod report;
mod why;

use std::time::{Duration, Instant};

use crate::engine::error::{EngineError, Failed};

use super::candidates::Others;
use super::ending::Ending;

pub use self::report::{EngineState, SourceReport, TimeLimits, Yield};
pub use self::why::{Hint, Why};

/// Pauses before the attempts of a recovery: at once, then with more and more patience.
const BACK_OFF: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// So many sources in a row that gave next to nothing are too many, for each engine that could be asked.
pub(super) const MAX_BARREN: u32 = 3;

/// An attempt has so long to its first packets while another engine could be asked: an engine that has the content gives
/// its picture within seconds, and what is left of a start is enough for the other one. One whose buffer fills has longer.
pub(super) const TRY: Duration = Duration::from_secs(10);

/// Where a stream is in its life, and what led there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// The number of the current source.
    pub attempt: u32,
    /// How often first packets came: 1 for a start that succeeded, one more for each recovery.
    pub activations: u32,
    /// Rounds of failed attempts in a row, each engine asked once in each, for the back-off.
    failures: u32,
    /// The current attempt goes to another engine within the same round: there is no pause before it.
    is_within_round: bool,
    /// Sources in a row that gave next to nothing.
    barren: u32,
    /// Attempts that were lost, and why the last of them.
    losses: u32,
    last_loss: Option<Why>,
}

/// Where a stream is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The fetcher is on its way to the first packets; nobody may treat the stream as there.
    Starting(Start),
    /// The first whole packets are here, and somebody has a seat.
    Active,
    /// The source is lost; its clients are kept while the fetcher looks for another.
    Recovering {
        /// What was lost.
        lost: Why,
        /// When to give up.
        until: Instant,
        /// When the current attempt began, its pause included.
        began: Instant,
        /// Once connected: when the attempt has failed.
        data_by: Option<Instant>,
    },
    /// It runs without anybody, in case somebody comes back.
    Lingering {
        /// Until then.
        until: Instant,
    },
    /// It is over; the engine's session is being stopped. The key stays taken, so that this late stop cannot end a newer
    /// session of the same content.
    Stopping(Outcome),
    /// It is over, for good.
    Stopped(Outcome),
}

/// A start: one deadline, and as many attempts as fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What is being waited for.
    pub phase: StartPhase,
    /// When the phase has failed.
    pub deadline: Instant,
    /// When the whole start has failed, whatever could still be tried.
    pub until: Instant,
    /// When nobody waits: until when the start lives on.
    pub abandon_at: Option<Instant>,
    /// When the first attempt, and when the current one began.
    first_began: Instant,
    began: Instant,
    /// A getstream is in flight. It is not to be cut, since only its answer tells how to stop the session that it opens.
    is_asking: bool,
    /// Why the start ends at the answer of that getstream, unless somebody comes back before.
    leaving: Option<Why>,
}

/// The two halves of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPhase {
    /// Until the engine has answered the playback request.
    Connecting,
    /// From there to the first packets.
    AwaitingData,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub why: Why,
    /// Whether its first packets had come.
    pub had_started: bool,
}

/// What can happen to a stream.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody took a seat.
    SeatTaken,
    /// The last seat was given back.
    LastSeatLeft,
    /// The getstream of this attempt is on its way.
    Asking(u32),
    /// The engine answered the getstream of this attempt: there is a session to stop.
    Opened(u32),
    /// The engine answered the playback request of this attempt.
    Connected(u32),
    /// The first whole packets of this attempt are published.
    FirstPackets(u32),
    /// This attempt failed, or its source is lost.
    SourceLost {
        /// Which attempt.
        attempt: u32,
        /// How.
        why: Why,
        /// How much it had given.
        given: Yield,
        /// What else there is to try.
        others: Others,
    },
    /// Stop it: a person or the shutdown.
    Stop(Why),
    /// Another stream needs the room, or the engine's attention. Who is watched does not give way.
    GiveWay,
    /// Time has passed.
    Tick(SourceReport),
    /// The fetcher has ended and stopped the engine's session.
    FetcherGone,
}

impl State {
    /// Whether it has started and goes on, with a source or without.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active | Self::Recovering { .. } | Self::Lingering { .. })
    }

    /// Whether a newcomer may take a seat.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Stopping(_) | Self::Stopped(_))
    }

    /// Why nothing plays, if something did or was to.
    #[must_use]
    pub fn why(&self) -> Option<&Why> {
        match self {
            Self::Recovering { lost, .. } => Some(lost),
            Self::Stopping(outcome) | Self::Stopped(outcome) => Some(&outcome.why),
            Self::Starting(_) | Self::Active | Self::Lingering { .. } => None,
        }
    }

    /// Whether it counts among the streams that there may be at once: one that is being stopped does not, nor one that only
    /// waits for an engine's answer to be stopped.
    #[must_use]
    pub fn takes_room(&self) -> bool {
        match self {
            Self::Starting(start) => start.leaving.is_none(),
            state => state.is_open(),
        }
    }

    /// Until when a start that everybody has left lives on.
    #[must_use]
    pub fn abandoned_until(&self) -> Option<Instant> {
        match self {
            Self::Starting(start) if start.leaving.is_none() => start.abandon_at,
            _ => None,
        }
    }
}

impl Life {
    /// A stream that was just asked for, by somebody with a seat.
    #[must_use]
    pub fn new(now: Instant, limits: &TimeLimits) -> Self {
        let start = Start {
            phase: StartPhase::Connecting,
            deadline: now + limits.connect,
            until: now + limits.connect + limits.first_data,
            abandon_at: None,
            first_began: now,
            began: now,
            is_asking: false,
            leaving: None,
        };
        Self {
            state: State::Starting(start),
            attempt: 0,
            activations: 0,
            failures: 0,
            is_within_round: false,
            barren: 0,
            losses: 0,
            last_loss: None,
        }
    }

    /// What somebody is told who has waited since there were so many activations: nothing yet, success, or why not. A
    /// success is one for everybody who waited for it, however short it was.
    #[must_use]
    pub fn outcome_since(&self, activations: u32) -> Option<Result<(), Why>> {
        if self.activations > activations {
            return Some(Ok(()));
        }
        match &self.state {
            State::Starting(_) | State::Recovering { .. } => None,
            State::Active | State::Lingering { .. } => Some(Ok(())),
            State::Stopping(outcome) | State::Stopped(outcome) => Some(Err(outcome.why.clone())),
        }
    }

    /// The pause before the current attempt begins.
    #[must_use]
    pub fn back_off(&self) -> Duration {
        if self.is_within_round {
            return Duration::ZERO;
        }
        BACK_OFF[(self.failures as usize).min(BACK_OFF.len() - 1)]
    }

    /// How many attempts were lost so far.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// Why the last attempt that was lost was.
    #[must_use]
    pub fn last_loss(&self) -> Option<&Why> {
        self.last_loss.as_ref()
    }

    /// Whether the last source gave next to nothing.
    #[must_use]
    pub fn is_barren(&self) -> bool {
        self.barren > 0
    }

    /// The life after an event. One that means nothing now leaves it as it is.
    #[must_use]
    pub fn step(&self, event: &Event, now: Instant, limits: &TimeLimits) -> Self {
        use State::{Active, Lingering, Recovering, Starting, Stopped, Stopping};
        let mut next = self.clone();
        match (&mut next.state, event) {
            (Stopped(_), _) => {}
            (Stopping(outcome), Event::FetcherGone) => next.state = Stopped(outcome.clone()),
            (Stopping(_), _) => {}

            (_, Event::Stop(why)) => next.end(why),
            // A fetcher that is gone without having said why has panicked.
            (_, Event::FetcherGone) => next.state = Stopped(self.outcome(&Why::Panicked)),
            (_, Event::SourceLost { attempt, why, given, others }) => {
                if *attempt == self.attempt {
                    next.lose(why, *given, *others, now, limits);
                }
            }

            (Starting(start), Event::SeatTaken) => (start.abandon_at, start.leaving) = (None, None),
            (Starting(start), Event::LastSeatLeft) => start.abandon_at = Some(now + limits.abandon),
            (Starting(Start { abandon_at: Some(_), .. }), Event::GiveWay) => next.leave(&Why::GaveWay),
            (Lingering { .. }, Event::GiveWay) => next.end(&Why::GaveWay),
            (_, Event::GiveWay) => {}
            (Lingering { .. }, Event::SeatTaken) => next.state = Active,
            (Active, Event::LastSeatLeft) => next.state = Lingering { until: now + limits.linger },
            (Recovering { .. }, Event::LastSeatLeft) => next.end(&Why::Idle),
            (_, Event::SeatTaken | Event::LastSeatLeft) => {}

            (
                _,
                Event::Asking(attempt)
                | Event::Opened(attempt)
                | Event::Connected(attempt)
                | Event::FirstPackets(attempt),
            ) if *attempt != self.attempt => {}
            (Starting(start), Event::Asking(_)) => start.is_asking = true,
            (Starting(start), Event::Opened(_)) => {
                start.is_asking = false;
                if let Some(why) = start.leaving.take() {
                    next.end(&why);
                }
            }
            (Starting(start), Event::Connected(_)) if start.phase == StartPhase::Connecting => {
                start.phase = StartPhase::AwaitingData;
                start.deadline = (now + limits.first_data).min(start.until);
            }
            (Recovering { data_by: data_by @ None, .. }, Event::Connected(_)) => {
                *data_by = Some(now + limits.first_data);
            }
            (Starting(Start { abandon_at: Some(_), .. }), Event::FirstPackets(_)) => {
                next.state = Lingering { until: now + limits.linger };
                next.activations += 1;
            }
            (Starting(_) | Recovering { .. }, Event::FirstPackets(_)) => {
                next.state = Active;
                next.activations += 1;
            }
            (_, Event::Asking(_) | Event::Opened(_) | Event::Connected(_) | Event::FirstPackets(_)) => {}

            (_, Event::Tick(source)) => next.pass_time(source, now, limits),
        }
        next
    }

    fn outcome(&self, why: &Why) -> Outcome {
        Outcome { why: why.clone(), had_started: self.activations > 0 }
    }

    fn end(&mut self, why: &Why) {
        self.state = State::Stopping(self.outcome(why));
    }

    /// Ends a start that nobody waits for: at once, or when the answer to its getstream is here.
    fn leave(&mut self, why: &Why) {
        match &mut self.state {
            State::Starting(start) if start.is_asking => {
                start.leaving.get_or_insert_with(|| why.clone());
            }
            _ => self.end(why),
        }
    }

    /// The current attempt is over. Another follows if there is something to try, if there is time, and if somebody waits.
    fn lose(&mut self, why: &Why, given: Yield, others: Others, now: Instant, limits: &TimeLimits) {
        self.losses += 1;
        self.last_loss = Some(why.clone());
        match &mut self.state {
            State::Starting(start) => {
                if let Some(leaving) = start.leaving.take() {
                    return self.end(&leaving);
                }
                if others == Others::None || now >= start.until {
                    return self.end(why);
                }
                start.phase = StartPhase::Connecting;
                start.began = now;
                start.is_asking = false;
                // The last one to be asked has all the time that is left, and any other one its try.
                start.deadline = (start.first_began + limits.connect).max(now + TRY).min(start.until);
                self.attempt += 1;
            }
            State::Active => {
                match given {
                    Yield::Some => (self.failures, self.barren) = (0, 0),
                    Yield::Barren => {
                        self.barren += 1;
                        self.failures += u32::from(others != Others::Fresh);
                    }
                }
                self.is_within_round = given == Yield::Barren && others == Others::Fresh;
                if *why == Why::SourceEnded(Ending::Complete) || limits.recover.is_zero() {
                    self.end(why);
                } else if self.barren >= limits.max_barren {
                    self.end(&Why::Unstable(limits.max_barren));
                } else {
                    self.attempt += 1;
                    self.state = State::Recovering {
                        lost: why.clone(),
                        until: now + limits.recover,
                        began: now,
                        data_by: None,
                    };
                }
            }
            State::Recovering { data_by, began, .. } => {
                if data_by.take().is_some() {
                    self.barren = if given == Yield::Barren { self.barren + 1 } else { 0 };
                }
                *began = now;
                if self.barren >= limits.max_barren {
                    return self.end(&Why::Unstable(limits.max_barren));
                }
                // However much came of it: nothing of it could be published.
                self.is_within_round = others == Others::Fresh;
                self.failures += u32::from(!self.is_within_round);
                self.attempt += 1;
            }
            _ => self.end(why),
        }
    }

    fn pass_time(&mut self, source: &SourceReport, now: Instant, limits: &TimeLimits) {
        let is_slow = |began: Instant, pause: Duration| {
            source.others == Others::Fresh && !source.is_filling && now >= began + pause + TRY
        };
        let pause = self.back_off();
        // Nothing is to be expected of the engine that is asked. Its answer, if one comes, is not lost.
        let is_in_vain = match source.engine {
            EngineState::Well => false,
            EngineState::Mute | EngineState::Dead | EngineState::Down => source.others == Others::Fresh,
        };
        let given_up = || {
            let is_opened = match &self.state {
                State::Starting(start) => start.phase == StartPhase::AwaitingData || !start.is_asking,
                State::Recovering { data_by, .. } => data_by.is_some(),
                _ => true,
            };
            let failed = if is_opened { Failed::playback } else { Failed::getstream };
            Why::Engine(failed(EngineError::Down))
        };
        match &self.state {
            State::Starting(start) if now >= start.deadline || is_slow(start.began, Duration::ZERO) => {
                let waited = now.saturating_duration_since(start.began);
                let why = match start.phase {
                    StartPhase::Connecting => {
                        let limit = if self.attempt == 0 { waited.min(limits.connect) } else { waited };
                        Why::connect_timeout(limit, source.hint, source.refusal.clone())
                    }
                    StartPhase::AwaitingData => {
                        let limit = if now >= start.deadline { limits.first_data } else { waited };
                        Why::FirstDataTimeout(limit, source.hint)
                    }
                };
                // The time of whoever had all that was left is over.
                let others = if source.others == Others::Fresh { Others::Fresh } else { Others::None };
                self.lose(&why, Yield::Barren, others, now, limits);
            }
            State::Starting(_) if is_in_vain => {
                self.lose(&given_up(), Yield::Barren, source.others, now, limits);
            }
            State::Starting(Start { abandon_at: Some(at), leaving: None, .. }) if now >= *at => {
                self.leave(&Why::Abandoned);
            }
            State::Lingering { until } if now >= *until => self.end(&Why::Idle),
            State::Recovering { lost, until, .. } if now >= *until => {
                self.end(&Why::NotRecovered(Box::new(lost.clone()), limits.recover));
            }
            // Where nobody else is, it is asked anew as soon as it is up.
            State::Recovering { .. } if is_in_vain || source.engine == EngineState::Down => {
                self.lose(&given_up(), Yield::Barren, source.others, now, limits);
            }
            State::Recovering { data_by: Some(by), .. } if now >= *by => {
                let why = Why::FirstDataTimeout(limits.first_data, source.hint);
                self.lose(&why, Yield::Barren, source.others, now, limits);
            }
            State::Recovering { began, data_by, .. } if is_slow(*began, pause) => {
                let waited = now.saturating_duration_since(*began + pause);
                let why = match data_by {
                    None => Why::connect_timeout(waited, source.hint, source.refusal.clone()),
                    Some(_) => Why::FirstDataTimeout(waited, source.hint),
                };
                self.lose(&why, Yield::Barren, source.others, now, limits);
            }
            State::Active | State::Lingering { .. } if source.silent_for >= source.patience(limits) => {
                let why = match source.engine {
                    EngineState::Dead => Why::EngineDead(source.silent_for),
                    _ => Why::Stalled(source.silent_for, source.hint),
                };
                self.lose(&why, source.given, source.others, now, limits);
            }
            State::Active | State::Lingering { .. } if source.picture_overdue >= limits.stall => {
                let why = Why::PictureLost(source.picture_overdue);
                self.lose(&why, source.given, source.others, now, limits);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;

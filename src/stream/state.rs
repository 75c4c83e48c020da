//! The life of a stream as a pure function.
//!
//! ```text
//! Starting --first packets--> Active <--seat taken-- Lingering
//!    |                        |  ^ '----last seat left---^ |
//!    |           source lost  v  | first packets           |
//!    |                      Recovering                     |
//!    | failed, deadline,        | deadline, unstable,      | time over, source lost,
//!    | abandoned, stopped       | nobody left, stopped     | stopped
//!    '------------------> Stopping <-----------------------'
//!                            | the engine's session is stopped
//!                            v
//!                         Stopped
//! ```
//!
//! Each source of a stream is an *attempt* with a number, and what is said of an attempt that is no longer the current
//! one is not heard. It takes values and `now`; it reads no clock, holds no lock, does no I/O.

mod why;

use std::time::{Duration, Instant};

use super::ending::Ending;

pub use self::why::{Hint, Why};

/// Pauses before the attempts of a recovery: at once, then with more and more patience.
const BACK_OFF: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// So many sources in a row that gave next to nothing end the stream.
const MAX_BARREN: u32 = 3;

/// Silence of a source whose engine is not well.
const STALL_OF_ILL_ENGINE: Duration = Duration::from_secs(3);

/// Where a stream is in its life, and what led there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: State,
    /// The number of the current source.
    pub attempt: u32,
    /// How often first packets came: 1 for a start that succeeded, one more for each recovery.
    pub activations: u32,
    /// Failed attempts in a row, for the back-off.
    failures: u32,
    /// Sources in a row that gave next to nothing.
    barren: u32,
}

/// Where a stream is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The fetcher is on its way to the first packets; nobody may treat the stream as there.
    Starting {
        /// What is being waited for.
        phase: StartPhase,
        /// When the phase has failed.
        deadline: Instant,
        /// When nobody waits: until when the start lives on.
        abandon_at: Option<Instant>,
    },
    /// The first whole packets are here, and somebody has a seat.
    Active,
    /// The source is lost; its clients are kept while the fetcher looks for another.
    Recovering {
        /// What was lost.
        lost: Why,
        /// When to give up.
        until: Instant,
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

/// How much a source gave before it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// Next to nothing, or less.
    Barren,
    /// A stream.
    Some,
}

/// How the source is, as far as can be seen from outside.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Time since picture or sound came.
    pub silent_for: Duration,
    /// How much it had given.
    pub given: Yield,
    /// Whether its engine is well.
    pub engine_is_well: bool,
    /// Whether the engine says that it is filling its buffer, and it is.
    pub is_filling: bool,
    /// What the engine knows of the swarm.
    pub hint: Hint,
    /// With which words it has refused to play, as long as it only was not ready.
    pub refusal: Option<String>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// Request to playback connection.
    pub connect: Duration,
    /// From there to the first packets.
    pub first_data: Duration,
    /// Silence of a running source.
    pub stall: Duration,
    /// A stream whose source is lost; zero: not at all.
    pub recover: Duration,
    /// A stream without seats.
    pub linger: Duration,
    /// A start without seats.
    pub abandon: Duration,
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
            Self::Starting { .. } | Self::Active | Self::Lingering { .. } => None,
        }
    }
}

impl Life {
    /// A stream that was just asked for, by somebody with a seat.
    #[must_use]
    pub fn new(now: Instant, limits: &TimeLimits) -> Self {
        let state = State::Starting {
            phase: StartPhase::Connecting,
            deadline: now + limits.connect,
            abandon_at: None,
        };
        Self { state, attempt: 0, activations: 0, failures: 0, barren: 0 }
    }

    /// What somebody is told who has waited since there were so many activations: nothing yet, success, or why not. A
    /// success is one for everybody who waited for it, however short it was.
    #[must_use]
    pub fn outcome_since(&self, activations: u32) -> Option<Result<(), Why>> {
        if self.activations > activations {
            return Some(Ok(()));
        }
        match &self.state {
            State::Starting { .. } | State::Recovering { .. } => None,
            State::Active | State::Lingering { .. } => Some(Ok(())),
            State::Stopping(outcome) | State::Stopped(outcome) => Some(Err(outcome.why.clone())),
        }
    }

    /// The pause before the current attempt begins.
    #[must_use]
    pub fn back_off(&self) -> Duration {
        BACK_OFF[(self.failures as usize).min(BACK_OFF.len() - 1)]
    }

    /// The life after an event. One that means nothing now leaves it as it is.
    #[must_use]
    pub fn step(&self, event: &Event, now: Instant, limits: &TimeLimits) -> Self {
        use State::{Active, Lingering, Recovering, Starting, Stopped, Stopping};
        let mut next = self.clone();
        match (&self.state, event) {
            (Stopped(_), _) => {}
            (Stopping(outcome), Event::FetcherGone) => next.state = Stopped(outcome.clone()),
            (Stopping(_), _) => {}

            (_, Event::Stop(why)) => next.end(why),
            // A fetcher that is gone without having said why has panicked.
            (_, Event::FetcherGone) => next.state = Stopped(self.outcome(&Why::Panicked)),
            (_, Event::SourceLost { attempt, why, given }) => {
                if *attempt == self.attempt {
                    next.lose(why, *given, now, limits);
                }
            }

            (Starting { phase, deadline, .. }, Event::SeatTaken) => {
                next.state = Starting { phase: *phase, deadline: *deadline, abandon_at: None };
            }
            (Starting { phase, deadline, .. }, Event::LastSeatLeft) => {
                let abandon_at = Some(now + limits.abandon);
                next.state = Starting { phase: *phase, deadline: *deadline, abandon_at };
            }
            (Lingering { .. } | Starting { abandon_at: Some(_), .. }, Event::GiveWay) => {
                next.end(&Why::GaveWay);
            }
            (_, Event::GiveWay) => {}
            (Lingering { .. }, Event::SeatTaken) => next.state = Active,
            (Active, Event::LastSeatLeft) => next.state = Lingering { until: now + limits.linger },
            (Recovering { .. }, Event::LastSeatLeft) => next.end(&Why::Idle),
            (_, Event::SeatTaken | Event::LastSeatLeft) => {}

            (_, Event::Connected(attempt) | Event::FirstPackets(attempt)) if *attempt != self.attempt => {}
            (Starting { phase: StartPhase::Connecting, abandon_at, .. }, Event::Connected(_)) => {
                let (phase, deadline) = (StartPhase::AwaitingData, now + limits.first_data);
                next.state = Starting { phase, deadline, abandon_at: *abandon_at };
            }
            (Recovering { lost, until, data_by: None }, Event::Connected(_)) => {
                let data_by = Some(now + limits.first_data);
                next.state = Recovering { lost: lost.clone(), until: *until, data_by };
            }
            (Starting { abandon_at: Some(_), .. }, Event::FirstPackets(_)) => {
                next.state = Lingering { until: now + limits.linger };
                next.activations += 1;
            }
            (Starting { .. } | Recovering { .. }, Event::FirstPackets(_)) => {
                next.state = Active;
                next.activations += 1;
            }
            (_, Event::Connected(_) | Event::FirstPackets(_)) => {}

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

    /// The current attempt is over. Clients are kept if there are any, if there is hope, and if there is time.
    fn lose(&mut self, why: &Why, given: Yield, now: Instant, limits: &TimeLimits) {
        match &self.state {
            State::Active => {
                match given {
                    Yield::Some => (self.failures, self.barren) = (0, 0),
                    Yield::Barren => (self.failures, self.barren) = (self.failures + 1, self.barren + 1),
                }
                if *why == Why::SourceEnded(Ending::Complete) || limits.recover.is_zero() {
                    self.end(why);
                } else if self.barren >= MAX_BARREN {
                    self.end(&Why::Unstable(MAX_BARREN));
                } else {
                    self.attempt += 1;
                    self.state =
                        State::Recovering { lost: why.clone(), until: now + limits.recover, data_by: None };
                }
            }
            State::Recovering { lost, until, data_by } => {
                if data_by.is_some() {
                    self.barren = if given == Yield::Barren { self.barren + 1 } else { 0 };
                }
                if self.barren >= MAX_BARREN {
                    return self.end(&Why::Unstable(MAX_BARREN));
                }
                // However much came of it: nothing of it could be published.
                self.failures += 1;
                self.attempt += 1;
                self.state = State::Recovering { lost: lost.clone(), until: *until, data_by: None };
            }
            _ => self.end(why),
        }
    }

    fn pass_time(&mut self, source: &SourceReport, now: Instant, limits: &TimeLimits) {
        match &self.state {
            State::Starting { phase, deadline, .. } if now >= *deadline => match phase {
                StartPhase::Connecting => {
                    let refusal = source.refusal.clone();
                    self.end(&Why::connect_timeout(limits.connect, source.hint, refusal));
                }
                StartPhase::AwaitingData => self.end(&Why::FirstDataTimeout(limits.first_data, source.hint)),
            },
            State::Starting { abandon_at: Some(at), .. } if now >= *at => self.end(&Why::Abandoned),
            State::Lingering { until } if now >= *until => self.end(&Why::Idle),
            State::Recovering { lost, until, .. } if now >= *until => {
                self.end(&Why::NotRecovered(Box::new(lost.clone()), limits.recover));
            }
            State::Recovering { data_by: Some(by), .. } if now >= *by => {
                self.lose(&Why::FirstDataTimeout(limits.first_data, source.hint), Yield::Barren, now, limits);
            }
            State::Active | State::Lingering { .. } if source.silent_for >= source.patience(limits) => {
                self.lose(&Why::Stalled(source.silent_for, source.hint), source.given, now, limits);
            }
            _ => {}
        }
    }
}

impl SourceReport {
    /// How long this source may be silent.
    fn patience(&self, limits: &TimeLimits) -> Duration {
        if !self.engine_is_well {
            STALL_OF_ILL_ENGINE.min(limits.stall)
        } else if self.is_filling {
            limits.stall.max(limits.recover)
        } else {
            limits.stall
        }
    }
}

#[cfg(test)]
mod tests;

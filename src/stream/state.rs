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

use std::fmt;
use std::time::{Duration, Instant};

use crate::engine::error::EngineError;
use crate::engine::pool::Unavailable;
use crate::engine::stat::Stat;
use crate::escape::Escaped;
use crate::id::ContentKey;

use super::fanout::Ending;

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
        phase: Phase,
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
pub enum Phase {
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

/// Why a stream ended, or never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No engine can take it.
    NoEngine(Unavailable),
    /// The engine refused, failed or broke off.
    Engine(EngineError),
    /// No playback connection in time.
    ConnectTimeout(Duration, Hint),
    /// The engine was still warming up when the time was over; its last text.
    NotReady(Duration, String),
    /// No packets in time.
    FirstDataTimeout(Duration, Hint),
    /// The body ended before the first packets.
    EndedWithoutData,
    /// What came is no MPEG-TS.
    NotMpegTs,
    /// The body ended.
    SourceEnded(Ending),
    /// The source was silent for so long.
    Stalled(Duration, Hint),
    /// The engine does not know the session any more.
    SessionLost,
    /// The source was lost and did not come back within this time; first what was lost.
    NotRecovered(Box<Why>, Duration),
    /// Source after source gave next to nothing.
    Unstable,
    /// Nobody came back.
    Idle,
    /// Everybody left during the start.
    Abandoned,
    /// Nobody watched, and another stream needed the room.
    GaveWay,
    /// Somebody asked for it.
    Asked,
    /// The proxy shuts down.
    Shutdown,
    /// The fetcher panicked.
    Panicked,
    /// The system had no thread for the fetcher.
    NoThread,
    /// It is the same content as a stream that runs already, which has this key.
    SameAs(Box<ContentKey>),
}

impl Why {
    /// How this looks to the clients.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::SourceEnded(ending) => *ending,
            Self::Asked => Ending::Complete,
            _ => Ending::Broken,
        }
    }

    /// Whether something went wrong that a person may want to know of.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        !matches!(
            self,
            Self::Idle
                | Self::GaveWay
                | Self::Abandoned
                | Self::Asked
                | Self::Shutdown
                | Self::SameAs(_)
                | Self::SourceEnded(Ending::Complete)
        )
    }

    /// Whether the next request within seconds would find the same: worth remembering for so long.
    #[must_use]
    pub fn will_last(&self) -> bool {
        match self {
            Self::Engine(error) => !matches!(error, EngineError::Unreachable(_)),
            Self::ConnectTimeout(..)
            | Self::NotReady(..)
            | Self::FirstDataTimeout(..)
            | Self::EndedWithoutData
            | Self::NotMpegTs => true,
            _ => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEngine(Unavailable::AllDown) => {
                f.write_str("no AceStream engine is up; check that one runs at the configured host and port")
            }
            Self::NoEngine(Unavailable::AllFull) => {
                f.write_str("every AceStream engine has as many streams as it may")
            }
            Self::Engine(error) => fmt::Display::fmt(error, f),
            Self::NoEngine(Unavailable::AllStarting) => {
                f.write_str("every AceStream engine is busy starting other streams")
            }
            Self::NoEngine(Unavailable::OtherVariant) => {
                f.write_str("every AceStream engine with room plays this content with other parameters")
            }
            Self::ConnectTimeout(limit, hint) => {
                write!(f, "the engine did not begin to play within {:.1} s{hint}", limit.as_secs_f32())
            }
            Self::NotReady(limit, text) => {
                let limit = limit.as_secs_f32();
                write!(f, "the engine was not ready to play within {limit:.1} s: {}", Escaped(text))
            }
            Self::FirstDataTimeout(limit, hint) => {
                write!(f, "the engine answered but sent no picture within {:.1} s{hint}", limit.as_secs_f32())
            }
            Self::EndedWithoutData => f.write_str("the engine ended the stream before it sent any picture"),
            Self::NotMpegTs => f.write_str("the engine sent something that is not MPEG-TS"),
            Self::SourceEnded(Ending::Complete) => f.write_str("the content ended"),
            Self::SourceEnded(Ending::Broken) => f.write_str("the engine ended the stream"),
            Self::Stalled(limit, hint) => {
                write!(f, "the engine sent nothing for {:.1} s{hint}", limit.as_secs_f32())
            }
            Self::SessionLost => f.write_str("the engine does not know its playback session any more"),
            Self::NotRecovered(lost, limit) => {
                write!(f, "{lost}, and it did not come back within {:.1} s", limit.as_secs_f32())
            }
            Self::Unstable => write!(f, "the engine ended the stream {MAX_BARREN} times at once"),
            Self::Idle => f.write_str("nobody watches any more"),
            Self::GaveWay => f.write_str("nobody watched, and another stream needed the room"),
            Self::Abandoned => f.write_str("everybody left before it started"),
            Self::Asked => f.write_str("stopped on request"),
            Self::Shutdown => f.write_str("the proxy is shutting down"),
            Self::Panicked => f.write_str("the proxy failed on this stream; its log tells more"),
            Self::NoThread => f.write_str("the system has no thread for this stream"),
            Self::SameAs(_) => f.write_str("it is the same content as another stream"),
        }
    }
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
    Tick(Source),
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
#[derive(Clone, Copy, Debug)]
pub struct Source {
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
}

/// What an engine's word on its session explains to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It gave none.
    None,
    /// It has found nobody to load from.
    NoPeers,
    /// It has found so many.
    Peers(u64),
}

impl Hint {
    /// The hint in an engine's last word.
    #[must_use]
    pub fn of(stat: Option<&Stat>) -> Self {
        match stat.and_then(|stat| stat.peers) {
            None => Self::None,
            Some(0) => Self::NoPeers,
            Some(peers) => Self::Peers(peers),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::NoPeers => f.write_str("; it has found no peers"),
            Self::Peers(1) => f.write_str("; it has 1 peer, which is not enough"),
            Self::Peers(peers) => write!(f, "; it has {peers} peers, which is not enough"),
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
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
    /// Whether a newcomer may take a seat.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Stopping(_) | Self::Stopped(_))
    }
}

impl Life {
    /// A stream that was just asked for, by somebody with a seat.
    #[must_use]
    pub fn new(now: Instant, limits: &Limits) -> Self {
        let state =
            State::Starting { phase: Phase::Connecting, deadline: now + limits.connect, abandon_at: None };
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
    pub fn step(&self, event: &Event, now: Instant, limits: &Limits) -> Self {
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
            (Starting { phase: Phase::Connecting, abandon_at, .. }, Event::Connected(_)) => {
                let (phase, deadline) = (Phase::AwaitingData, now + limits.first_data);
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
    fn lose(&mut self, why: &Why, given: Yield, now: Instant, limits: &Limits) {
        match &self.state {
            State::Active => {
                match given {
                    Yield::Some => (self.failures, self.barren) = (0, 0),
                    Yield::Barren => (self.failures, self.barren) = (self.failures + 1, self.barren + 1),
                }
                if *why == Why::SourceEnded(Ending::Complete) || limits.recover.is_zero() {
                    self.end(why);
                } else if self.barren >= MAX_BARREN {
                    self.end(&Why::Unstable);
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
                    return self.end(&Why::Unstable);
                }
                // However much came of it: nothing of it could be published.
                self.failures += 1;
                self.attempt += 1;
                self.state = State::Recovering { lost: lost.clone(), until: *until, data_by: None };
            }
            _ => self.end(why),
        }
    }

    fn pass_time(&mut self, source: &Source, now: Instant, limits: &Limits) {
        match &self.state {
            State::Starting { phase, deadline, .. } if now >= *deadline => match phase {
                Phase::Connecting => self.end(&Why::ConnectTimeout(limits.connect, source.hint)),
                Phase::AwaitingData => self.end(&Why::FirstDataTimeout(limits.first_data, source.hint)),
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

impl Source {
    /// How long this source may be silent.
    fn patience(&self, limits: &Limits) -> Duration {
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

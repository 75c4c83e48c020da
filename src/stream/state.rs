//! The life of a stream as a pure function.
//!
//! ```text
//! Starting --first packets--> Active <--seat taken-- Lingering
//!    |                          |  '----last seat left---^ |
//!    | failed, deadline,        | source lost,             | time over, source lost,
//!    | abandoned, stopped       | stopped                  | stopped
//!    '------------------> Stopping <-----------------------'
//!                            | the engine's session is stopped
//!                            v
//!                         Stopped
//! ```
//!
//! It takes values and `now`; it reads no clock, holds no lock, does no I/O.

use std::fmt;
use std::time::{Duration, Instant};

use crate::engine::error::EngineError;
use crate::engine::pool::Unavailable;

use super::fanout::Ending;

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
    /// It runs without anybody, in case somebody comes back.
    Lingering {
        /// Until then.
        until: Instant,
    },
    /// It is over; the engine's session is being stopped. The key stays taken, so that this late stop cannot end a
    /// newer session of the same content.
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
    /// Whether its first packets had come: whoever waited for the start has had a success, however short.
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
    ConnectTimeout(Duration),
    /// No packets in time.
    FirstDataTimeout(Duration),
    /// The body ended before the first packets.
    EndedWithoutData,
    /// What came is no MPEG-TS.
    NotMpegTs,
    /// The body ended.
    SourceEnded(Ending),
    /// The source was silent for so long.
    Stalled(Duration),
    /// Nobody came back.
    Idle,
    /// Everybody left during the start.
    Abandoned,
    /// Somebody asked for it.
    Asked,
    /// The proxy shuts down.
    Shutdown,
    /// The fetcher panicked.
    Panicked,
    /// The system had no thread for the fetcher.
    NoThread,
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
            Self::Idle | Self::Abandoned | Self::Asked | Self::Shutdown | Self::SourceEnded(Ending::Complete)
        )
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEngine(Unavailable::AllDown) => {
                f.write_str("no AceStream engine is up; check that one runs at the configured host and port")
            }
            Self::NoEngine(Unavailable::AllFull) => f.write_str("every AceStream engine has as many streams as it may"),
            Self::Engine(error) => fmt::Display::fmt(error, f),
            Self::ConnectTimeout(limit) => write!(
                f,
                "the engine did not begin to play within {:.1} s; the channel may be offline",
                limit.as_secs_f32()
            ),
            Self::FirstDataTimeout(limit) => write!(
                f,
                "the engine answered but sent no picture within {:.1} s; the channel may have no peers",
                limit.as_secs_f32()
            ),
            Self::EndedWithoutData => f.write_str("the engine ended the stream before it sent any picture"),
            Self::NotMpegTs => f.write_str("the engine sent something that is not MPEG-TS"),
            Self::SourceEnded(Ending::Complete) => f.write_str("the content ended"),
            Self::SourceEnded(Ending::Broken) => f.write_str("the engine ended the stream"),
            Self::Stalled(limit) => write!(f, "the engine sent nothing for {:.1} s", limit.as_secs_f32()),
            Self::Idle => f.write_str("nobody watches any more"),
            Self::Abandoned => f.write_str("everybody left before it started"),
            Self::Asked => f.write_str("stopped on request"),
            Self::Shutdown => f.write_str("the proxy is shutting down"),
            Self::Panicked => f.write_str("the proxy failed on this stream; its log tells more"),
            Self::NoThread => f.write_str("the system has no thread for this stream"),
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
    /// The engine answered the playback request.
    Connected,
    /// The first whole packets are published.
    FirstPackets,
    /// The start failed or the source is lost.
    SourceLost(Why),
    /// Stop it: a person or the shutdown.
    Stop(Why),
    /// Time has passed; the source has been silent for so long.
    Tick {
        /// Time since the last bytes.
        silent_for: Duration,
    },
    /// The fetcher has ended and stopped the engine's session.
    FetcherGone,
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
    /// A stream without seats.
    pub linger: Duration,
    /// A start without seats.
    pub abandon: Duration,
}

impl State {
    /// A stream that was just asked for, by somebody with a seat.
    #[must_use]
    pub fn new(now: Instant, limits: &Limits) -> Self {
        Self::Starting { phase: Phase::Connecting, deadline: now + limits.connect, abandon_at: None }
    }

    /// Whether a newcomer may take a seat.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Active | Self::Lingering { .. })
    }

    /// What somebody who waits for the start is told: nothing yet, success, or why not.
    #[must_use]
    pub fn start_outcome(&self) -> Option<Result<(), Why>> {
        match self {
            Self::Starting { .. } => None,
            Self::Active | Self::Lingering { .. } => Some(Ok(())),
            Self::Stopping(outcome) | Self::Stopped(outcome) if outcome.had_started => Some(Ok(())),
            Self::Stopping(outcome) | Self::Stopped(outcome) => Some(Err(outcome.why.clone())),
        }
    }
}

/// The next state. An event that means nothing in a state leaves it as it is.
#[must_use]
pub fn step(state: &State, event: &Event, now: Instant, limits: &Limits) -> State {
    let outcome = |why: &Why| {
        let had_started = matches!(state, State::Active | State::Lingering { .. });
        Outcome { why: why.clone(), had_started }
    };
    let over = |why: &Why| State::Stopping(outcome(why));
    match (state, event) {
        (State::Stopped(_), _) => state.clone(),
        (State::Stopping(outcome), Event::FetcherGone) => State::Stopped(outcome.clone()),
        (State::Stopping(_), _) => state.clone(),

        (_, Event::SourceLost(why) | Event::Stop(why)) => over(why),
        // A fetcher that is gone without having said why has panicked.
        (_, Event::FetcherGone) => State::Stopped(outcome(&Why::Panicked)),

        (State::Starting { phase, deadline, .. }, Event::SeatTaken) => {
            State::Starting { phase: *phase, deadline: *deadline, abandon_at: None }
        }
        (State::Starting { phase, deadline, .. }, Event::LastSeatLeft) => {
            State::Starting { phase: *phase, deadline: *deadline, abandon_at: Some(now + limits.abandon) }
        }
        (State::Starting { phase: Phase::Connecting, abandon_at, .. }, Event::Connected) => State::Starting {
            phase: Phase::AwaitingData,
            deadline: now + limits.first_data,
            abandon_at: *abandon_at,
        },
        (State::Starting { abandon_at: None, .. }, Event::FirstPackets) => State::Active,
        (State::Starting { abandon_at: Some(_), .. }, Event::FirstPackets) => {
            State::Lingering { until: now + limits.linger }
        }
        (State::Starting { phase, deadline, .. }, Event::Tick { .. }) if now >= *deadline => match phase {
            Phase::Connecting => over(&Why::ConnectTimeout(limits.connect)),
            Phase::AwaitingData => over(&Why::FirstDataTimeout(limits.first_data)),
        },
        (State::Starting { abandon_at: Some(at), .. }, Event::Tick { .. }) if now >= *at => over(&Why::Abandoned),

        (State::Active, Event::LastSeatLeft) => State::Lingering { until: now + limits.linger },
        (State::Lingering { .. }, Event::SeatTaken) => State::Active,
        (State::Lingering { until }, Event::Tick { .. }) if now >= *until => over(&Why::Idle),
        (State::Active | State::Lingering { .. }, Event::Tick { silent_for }) if *silent_for >= limits.stall => {
            over(&Why::Stalled(limits.stall))
        }

        (State::Starting { .. } | State::Active | State::Lingering { .. }, _) => state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        connect: Duration::from_secs(30),
        first_data: Duration::from_secs(20),
        stall: Duration::from_secs(25),
        linger: Duration::from_secs(40),
        abandon: Duration::from_secs(15),
    };

    /// The states are written as they are thought of: seconds since the request.
    fn starting(begin: Instant, phase: Phase, deadline_s: u64, abandon_s: Option<u64>) -> State {
        let at = |seconds| begin + Duration::from_secs(seconds);
        State::Starting { phase, deadline: at(deadline_s), abandon_at: abandon_s.map(at) }
    }

    fn stopping(why: Why, had_started: bool) -> State {
        State::Stopping(Outcome { why, had_started })
    }

    #[test]
    fn every_transition_is_the_one_of_the_table() {
        use Event::*;
        use Phase::*;
        let begin = Instant::now();
        let starting = |phase, deadline, abandon| starting(begin, phase, deadline, abandon);
        let lingering = |until| State::Lingering { until: begin + Duration::from_secs(until) };
        let tick = |silent| Tick { silent_for: Duration::from_secs(silent) };
        let stopped = |why, had_started| State::Stopped(Outcome { why, had_started });
        let lost = || SourceLost(Why::SourceEnded(Ending::Broken));
        let connecting = || starting(Connecting, 30, None);
        let abandoned = || starting(Connecting, 30, Some(15));
        #[rustfmt::skip]
        let table = [
            // state, event, seconds since the request, next state
            (connecting(), SeatTaken, 1, connecting()),
            (connecting(), LastSeatLeft, 3, starting(Connecting, 30, Some(18))),
            (connecting(), Connected, 4, starting(AwaitingData, 24, None)),
            (connecting(), FirstPackets, 5, State::Active),
            (connecting(), tick(29), 29, connecting()),
            (connecting(), tick(30), 30, stopping(Why::ConnectTimeout(LIMITS.connect), false)),
            (connecting(), lost(), 2, stopping(Why::SourceEnded(Ending::Broken), false)),
            (connecting(), Stop(Why::Asked), 2, stopping(Why::Asked, false)),
            (connecting(), FetcherGone, 2, stopped(Why::Panicked, false)),
            (abandoned(), SeatTaken, 5, connecting()),
            (abandoned(), Connected, 5, starting(AwaitingData, 25, Some(15))),
            (abandoned(), FirstPackets, 5, lingering(45)),
            (abandoned(), tick(0), 14, abandoned()),
            (abandoned(), tick(0), 15, stopping(Why::Abandoned, false)),
            (starting(AwaitingData, 24, None), Connected, 6, starting(AwaitingData, 24, None)),
            (starting(AwaitingData, 24, None), FirstPackets, 6, State::Active),
            (starting(AwaitingData, 24, None), tick(0), 23, starting(AwaitingData, 24, None)),
            (starting(AwaitingData, 24, None), tick(0), 24, stopping(Why::FirstDataTimeout(LIMITS.first_data), false)),
            (State::Active, SeatTaken, 50, State::Active),
            (State::Active, Connected, 50, State::Active),
            (State::Active, FirstPackets, 50, State::Active),
            (State::Active, LastSeatLeft, 50, lingering(90)),
            (State::Active, tick(24), 50, State::Active),
            (State::Active, tick(25), 50, stopping(Why::Stalled(LIMITS.stall), true)),
            (State::Active, lost(), 50, stopping(Why::SourceEnded(Ending::Broken), true)),
            (State::Active, Stop(Why::Shutdown), 50, stopping(Why::Shutdown, true)),
            (State::Active, FetcherGone, 50, stopped(Why::Panicked, true)),
            (lingering(90), SeatTaken, 60, State::Active),
            (lingering(90), LastSeatLeft, 60, lingering(90)),
            (lingering(90), tick(0), 89, lingering(90)),
            (lingering(90), tick(0), 90, stopping(Why::Idle, true)),
            (lingering(90), tick(25), 70, stopping(Why::Stalled(LIMITS.stall), true)),
            (lingering(90), lost(), 70, stopping(Why::SourceEnded(Ending::Broken), true)),
            (stopping(Why::Asked, true), SeatTaken, 70, stopping(Why::Asked, true)),
            (stopping(Why::Asked, true), lost(), 70, stopping(Why::Asked, true)),
            (stopping(Why::Asked, true), FirstPackets, 70, stopping(Why::Asked, true)),
            (stopping(Why::Asked, true), tick(99), 70, stopping(Why::Asked, true)),
            (stopping(Why::Asked, false), FetcherGone, 70, stopped(Why::Asked, false)),
            (stopped(Why::Asked, true), FetcherGone, 70, stopped(Why::Asked, true)),
            (stopped(Why::Asked, true), SeatTaken, 70, stopped(Why::Asked, true)),
            (stopped(Why::Asked, true), FirstPackets, 70, stopped(Why::Asked, true)),
        ];
        for (state, event, seconds, expected) in table {
            let next = step(&state, &event, begin + Duration::from_secs(seconds), &LIMITS);
            assert_eq!(next, expected, "{state:?} after {event:?} at {seconds} s");
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::SeatTaken),
            Just(Event::LastSeatLeft),
            Just(Event::Connected),
            Just(Event::FirstPackets),
            Just(Event::SourceLost(Why::EndedWithoutData)),
            Just(Event::Stop(Why::Asked)),
            (0_u64..60).prop_map(|seconds| Event::Tick { silent_for: Duration::from_secs(seconds) }),
            Just(Event::FetcherGone),
        ]
    }

    fn rank(state: &State) -> u8 {
        match state {
            State::Starting { .. } => 0,
            State::Active | State::Lingering { .. } => 1,
            State::Stopping(_) => 2,
            State::Stopped(_) => 3,
        }
    }

    proptest! {
        /// Whatever happens in whatever order: a stream never goes back, its start has one outcome for everybody, and
        /// once its fetcher is gone it is stopped for good.
        #[test]
        fn no_order_of_events_breaks_a_life(events in proptest::collection::vec((any_event(), 0_u64..20), 0..40)) {
            let mut now = Instant::now();
            let mut state = State::new(now, &LIMITS);
            let mut outcome = None;
            let mut is_gone = false;
            for (event, seconds) in events {
                now += Duration::from_secs(seconds);
                let next = step(&state, &event, now, &LIMITS);
                prop_assert!(rank(&next) >= rank(&state), "{state:?} after {event:?} became {next:?}");
                if matches!(next, State::Active) && rank(&state) == 0 {
                    prop_assert!(matches!(event, Event::FirstPackets), "only the first packets make it active");
                }
                let told = next.start_outcome();
                if outcome.is_some() {
                    prop_assert_eq!(&told, &outcome, "{:?} after {:?}", &state, &event);
                }
                outcome = told;
                is_gone |= matches!(event, Event::FetcherGone);
                prop_assert_eq!(is_gone && !matches!(next, State::Stopped(_)), false);
                state = next;
            }
            // Nobody waits for ever: time alone ends every start.
            let later = now + LIMITS.connect + LIMITS.first_data;
            let state = step(&state, &Event::Tick { silent_for: Duration::ZERO }, later, &LIMITS);
            prop_assert!(state.start_outcome().is_some());
        }
    }
}

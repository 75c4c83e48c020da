//! What a stream's life is judged by: how its source is, and how long things may take. Values only.

use std::time::Duration;

use crate::stream::candidates::Others;

use super::why::Hint;

/// Silence of a source whose engine is down: its connection may yet hold what the kernel kept.
const STALL_OF_DOWN_ENGINE: Duration = Duration::from_secs(3);

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
    /// For how long sound has come without the picture that was there before.
    pub picture_overdue: Duration,
    /// How much it had given.
    pub given: Yield,
    /// How its engine is.
    pub engine: EngineState,
    /// What else there is to try.
    pub others: Others,
    /// Whether the engine says that it is filling its buffer, and it is.
    pub is_filling: bool,
    /// What the engine knows of the swarm.
    pub hint: Hint,
    /// With which words it has refused to play, as long as it only was not ready.
    pub refusal: Option<String>,
}

/// How the engine of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// It answers, or nothing is known against it.
    Well,
    /// It has left several questions in a row without an answer: too little to give up a picture for, but not a try.
    Mute,
    /// It was asked, and has not answered anything for long.
    Dead,
    /// It is down, by its health checks or a refused connection.
    Down,
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
    /// So many sources in a row that gave next to nothing end the stream.
    pub max_barren: u32,
}

impl SourceReport {
    /// How long this source may be silent.
    pub(super) fn patience(&self, limits: &TimeLimits) -> Duration {
        match self.engine {
            EngineState::Down => STALL_OF_DOWN_ENGINE.min(limits.stall),
            // It was found dead by as much silence; and if nobody else can be asked, it may yet wake.
            EngineState::Dead if self.others == Others::Fresh => Duration::ZERO,
            _ if self.is_filling => limits.stall.max(limits.recover),
            _ => limits.stall,
        }
    }
}

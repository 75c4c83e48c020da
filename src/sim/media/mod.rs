//! What a simulated broadcast is made of: packets that carry their number, or the clip.
//!
//! It must not know how it is asked for, nor who looks at it. Packets are written here by hand, not with the proxy's
//! parser: neither is to agree with the other on a mistake.

mod broadcast;
mod clip;
mod file;
pub(in crate::sim) mod numbered;
pub(in crate::sim) mod packet;

use std::time::Duration;

pub(in crate::sim) use self::broadcast::Broadcast;
pub use self::broadcast::Restart;
pub use self::file::FileBytes;
pub use self::numbered::{Numbered, now_us};

/// What is in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// The real clip, repeated for ever; any player shows it.
    Clip,
    /// Packets with numbers, for the [`Checker`](super::Checker).
    Numbered(Numbered),
}

impl Media {
    /// When packet `number` is due, since the beginning.
    pub(in crate::sim) fn due(&self, number: u64) -> Duration {
        match self {
            Self::Clip => clip::due(number),
            Self::Numbered(shape) => shape.due(number),
        }
    }

    /// How many packets are due once `time` has passed since the beginning; never more than there are.
    pub(in crate::sim) fn due_by(&self, time: Duration) -> u64 {
        match self {
            Self::Clip => clip::due_by(time),
            Self::Numbered(shape) => shape.due_by(time).min(self.packets()),
        }
    }

    /// Packets in the whole stream; `u64::MAX` if it never ends.
    pub(in crate::sim) fn packets(&self) -> u64 {
        match self {
            Self::Clip => u64::MAX,
            Self::Numbered(shape) => shape.packets().unwrap_or(u64::MAX),
        }
    }

    /// How many of the first packets carry numbers.
    fn numbers_by(&self, packets: u64) -> u64 {
        match self {
            Self::Clip => 0,
            Self::Numbered(shape) => shape.numbers_by(packets),
        }
    }
}

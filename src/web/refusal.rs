//! Which error has which status.
//!
//! It must not know how an error came about.

use crate::engine::choose::Unavailable;
use crate::engine::error::EngineError;
use crate::http::response::Code;
use crate::id::KeyError;
use crate::stream::directory::NoSeat;
use crate::stream::state::Why;

use super::admin::Denied;

impl From<&Why> for Code {
    fn from(why: &Why) -> Self {
        match why {
            Why::NoEngine(Unavailable::AllDown) => Self::NoEngine,
            Why::Engine(failed) => match failed.error.cause() {
                EngineError::Unreachable(_) | EngineError::Down => Self::NoEngine,
                EngineError::Silent(_) => Self::StartTimeout,
                _ => Self::EngineError,
            },
            Why::Tried(last, _) => Self::from(&**last),
            Why::NoEngine(Unavailable::AllTried) => Self::EngineError,
            Why::NoEngine(_) | Why::NoThread => Self::AtCapacity,
            Why::ConnectTimeout(..) | Why::NotReady(..) | Why::FirstDataTimeout(..) => Self::StartTimeout,
            Why::Shutdown => Self::ShuttingDown,
            // Whoever waits for a start that somebody has stopped should not ask again at once, as after a 503: there is
            // no such session any more.
            Why::Asked => Self::NotFound,
            // Nobody waits for these, but for one who comes at that very moment; there is room in the next.
            Why::Idle | Why::GaveWay | Why::Abandoned => Self::AtCapacity,
            Why::EndedWithoutData
            | Why::NotMpegTs(_)
            | Why::SourceEnded(_)
            | Why::Stalled(..)
            | Why::PictureLost(_)
            | Why::SessionLost
            | Why::EngineDead(_)
            | Why::NotRecovered(..)
            | Why::Unstable(_)
            | Why::SameAs(_)
            | Why::Panicked => Self::EngineError,
        }
    }
}

impl From<&NoSeat> for Code {
    fn from(no_seat: &NoSeat) -> Self {
        match no_seat {
            NoSeat::AtCapacity => Self::AtCapacity,
            NoSeat::ShuttingDown | NoSeat::Gone => Self::ShuttingDown,
            NoSeat::StillStopping => Self::StartTimeout,
            NoSeat::Failed(why) => Self::from(why),
        }
    }
}

impl From<&Denied> for Code {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::ForeignHost | Denied::ForeignOrigin => Self::Forbidden,
            Denied::NoToken | Denied::WrongToken => Self::Unauthorized,
        }
    }
}

impl From<&KeyError> for Code {
    fn from(_: &KeyError) -> Self {
        Self::BadRequest
    }
}

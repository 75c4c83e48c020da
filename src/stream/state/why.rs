//! Why a stream ends: each reason once for the code, once as a sentence for a person.
//!
//! It must not know which reason leads where.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::blame::Fault;
use crate::engine::choose::Unavailable;
use crate::engine::error::{EngineError, Failed};
use crate::engine::stat::Stat;
use crate::escape::Escaped;
use crate::stream::candidates::Failure;
use crate::stream::ending::Ending;
use crate::wanted::Wanted;

/// Why a stream ended, or never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No engine can take it.
    NoEngine(Unavailable),
    /// The engine refused, failed or broke off.
    Engine(Failed),
    /// No playback connection in time.
    ConnectTimeout(Duration, Hint),
    /// The engine was still warming up when the time was over; its last text.
    NotReady(Duration, String),
    /// No packets in time.
    FirstDataTimeout(Duration, Hint),
    /// The body ended before the first packets.
    EndedWithoutData,
    /// What came is no MPEG-TS; or it is, but in packets of so many bytes.
    NotMpegTs(Option<usize>),
    /// The body ended.
    SourceEnded(Ending),
    /// The source was silent for so long.
    Stalled(Duration, Hint),
    /// The sound has gone on without the picture for so long.
    PictureLost(Duration),
    /// Neither packet nor answer for so long.
    EngineDead(Duration),
    /// The engine does not know the session any more.
    SessionLost,
    /// The last of several tries failed so; then what was tried, and how each failed.
    Tried(Box<Why>, Arc<[String]>),
    /// The source was lost and did not come back within this time; first what was lost.
    NotRecovered(Box<Why>, Duration),
    /// So many sources in a row gave next to nothing.
    Unstable(u32),
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
    /// It is the same content as a stream that runs already, which is wanted in its place.
    SameAs(Box<Wanted>),
}

impl Why {
    /// There was no playback connection in time: with the engine's own words, if it had any.
    #[must_use]
    pub fn connect_timeout(limit: Duration, hint: Hint, refusal: Option<String>) -> Self {
        match refusal {
            Some(text) => Self::NotReady(limit, text),
            None => Self::ConnectTimeout(limit, hint),
        }
    }

    /// What it means that a body cannot be read, or not any further.
    #[must_use]
    pub fn of_body(error: EngineError) -> Self {
        if error.is_unknown_session() { Self::SessionLost } else { Self::Engine(Failed::playback(error)) }
    }

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

    /// What it says of the engine and the content that were tried; `None` if it says nothing of them.
    #[must_use]
    pub(in crate::stream) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Engine(failed) => match Fault::of(&failed.error) {
                Fault::Engine => Some(Failure::Engine),
                Fault::Content => Some(Failure::Content),
            },
            Self::EngineDead(_) => Some(Failure::Engine),
            Self::EndedWithoutData | Self::NotMpegTs(_) => Some(Failure::Content),
            Self::ConnectTimeout(..)
            | Self::NotReady(..)
            | Self::FirstDataTimeout(..)
            | Self::SourceEnded(Ending::Broken)
            | Self::Stalled(..)
            | Self::PictureLost(_)
            | Self::SessionLost => Some(Failure::Open),
            _ => None,
        }
    }

    /// Whether the engine has done what it could, and it is the content that does not come.
    #[must_use]
    pub(in crate::stream) fn is_content_s(&self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout(..)
                | Self::NotReady(..)
                | Self::FirstDataTimeout(..)
                | Self::Stalled(..)
                | Self::PictureLost(_)
                | Self::EndedWithoutData
                | Self::NotMpegTs(_)
        )
    }

    /// Whether its time was over.
    #[must_use]
    pub(in crate::stream) fn is_late(&self) -> bool {
        matches!(self, Self::ConnectTimeout(..) | Self::NotReady(..) | Self::FirstDataTimeout(..))
    }

    /// Whether it is told of the stream that came, or did not come, from an engine.
    #[must_use]
    pub(in crate::stream) fn is_stream_s(&self) -> bool {
        match self {
            Self::Tried(last, _) => last.is_stream_s(),
            Self::Engine(_) | Self::SessionLost => true,
            why => why.is_content_s(),
        }
    }

    /// Whether the next request within seconds would find the same, if no other engine can be asked: worth remembering for so
    /// long.
    #[must_use]
    pub fn will_last(&self) -> bool {
        match self {
            Self::Tried(last, _) => last.will_last(),
            // Nobody was there, or not any more: that may be over the next moment.
            Self::Engine(failed) if failed.error.is_nobody() => false,
            Self::Engine(failed) => !matches!(failed.error.cause(), EngineError::Lost(_) | EngineError::Down),
            Self::ConnectTimeout(..)
            | Self::NotReady(..)
            | Self::FirstDataTimeout(..)
            | Self::SessionLost
            | Self::EndedWithoutData
            | Self::NotMpegTs(_) => true,
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
            Self::Engine(Failed { question, error }) => write!(f, "{error} ({question})"),
            Self::NoEngine(Unavailable::AllStarting) => {
                f.write_str("every AceStream engine is busy starting other streams")
            }
            Self::NoEngine(Unavailable::AllTried) => {
                f.write_str("every AceStream engine was asked, and none can play it")
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
            Self::NotMpegTs(None) => f.write_str("the engine sent something that is not MPEG-TS"),
            Self::NotMpegTs(Some(bytes)) => {
                write!(
                    f,
                    "the engine sent MPEG-TS in packets of {bytes} bytes; only those of 188 bytes can be played"
                )
            }
            Self::SourceEnded(Ending::Complete) => f.write_str("the content ended"),
            Self::SourceEnded(Ending::Broken) => f.write_str("the engine ended the stream"),
            Self::Stalled(limit, hint) => {
                write!(f, "the engine sent nothing for {:.1} s{hint}", limit.as_secs_f32())
            }
            Self::PictureLost(time) => {
                write!(
                    f,
                    "the picture has not come for {:.1} s, though the sound goes on",
                    time.as_secs_f32()
                )
            }
            Self::EngineDead(limit) => {
                write!(
                    f,
                    "the engine has neither sent nor answered anything for {:.1} s",
                    limit.as_secs_f32()
                )
            }
            Self::Tried(last, tried) => write!(f, "{last}; tried were {}", tried.join("; ")),
            Self::SessionLost => f.write_str("the engine does not know its playback session any more"),
            Self::NotRecovered(lost, limit) => {
                write!(f, "{lost}, and it did not come back within {:.1} s", limit.as_secs_f32())
            }
            Self::Unstable(times) => write!(f, "the engine ended the stream {times} times at once"),
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

/// What an engine's word on its session explains to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It gave none.
    None,
    /// The engine answers nothing any more.
    Mute,
    /// It has found nobody to load from.
    NoPeers,
    /// It has found so many.
    Peers(u64),
}

impl Hint {
    /// The hint in an engine's last word, if it is not too old.
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
            Self::Mute => f.write_str("; it answers nothing either"),
            Self::NoPeers => f.write_str("; it has found no peers"),
            Self::Peers(1) => f.write_str("; it has 1 peer, which is not enough"),
            Self::Peers(peers) => write!(f, "; it has {peers} peers, which is not enough"),
        }
    }
}

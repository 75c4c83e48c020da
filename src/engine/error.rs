//! What can go wrong with an engine, in words a person can act on.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::escape::Escaped;

use super::m3u8::ListError;
use super::url::TargetError;

/// Why an engine did not give what it was asked for. Texts of the engine are kept as it said them; they are
/// escaped when shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// No connection.
    Unreachable(NoConnection),
    /// Connected, but no answer within this time.
    Silent(Duration),
    /// The engine's own error text.
    Said(String),
    /// A status that is no success, with the beginning of its body.
    Status(u16, String),
    /// An answer that is none: HTML, broken JSON, no playback URL.
    NoAnswer(&'static str),
    /// A URL that is not followed.
    Target(TargetError),
    /// More redirects than any engine makes.
    TooManyRedirects,
    /// The connection broke.
    Lost(String),
    /// The channel is an HLS list at the engine, and the list cannot be followed.
    Hls(HlsFault),
}

/// Why an HLS list cannot be followed (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HlsFault {
    /// For what it says.
    Unfit(ListError),
    /// It does not come, or its playback session is over.
    List(Box<EngineError>),
    /// What it names does not come.
    Segment(Box<EngineError>),
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// It was refused, there is no route or no such host: nobody is there.
    Refused(String),
    /// There was no answer in time: nobody is there, or somebody who has too much to do.
    Unanswered(&'static str),
}

/// The engine's words for a session that is stopped, expired or superseded (engine-contract.md section 2).
const UNKNOWN_SESSION: &str = "unknown playback session id";

/// Its words for a content it cannot find under the name given.
const NOT_LOADED: &str = "failed to load content";

impl EngineError {
    /// Whether it is certain that there is no engine at all.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Unreachable(NoConnection::Refused(_)))
    }

    /// Whether the engine says that it does not know the session.
    #[must_use]
    pub fn is_unknown_session(&self) -> bool {
        match self {
            Self::Said(text) | Self::Status(_, text) if text.contains(UNKNOWN_SESSION) => true,
            // That is how an engine says it to who follows a list (engine-contract.md section 8.2).
            Self::Hls(HlsFault::List(error) | HlsFault::Segment(error)) => {
                matches!(**error, Self::Status(403, _)) || error.is_unknown_session()
            }
            _ => false,
        }
    }

    /// Why the reading of a body failed.
    #[must_use]
    pub fn of_body(error: &io::Error) -> Self {
        let own = error.get_ref().and_then(|cause| cause.downcast_ref::<Self>());
        own.cloned().unwrap_or_else(|| Self::Lost(error.to_string()))
    }

    /// Whether the engine says that there is no such content; often it is there under its other name.
    #[must_use]
    pub fn is_unknown_content(&self) -> bool {
        matches!(self, Self::Said(text) if text.contains(NOT_LOADED))
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(NoConnection::Refused(why)) => {
                write!(f, "the engine cannot be reached: {}", Escaped(why))
            }
            Self::Unreachable(NoConnection::Unanswered(what)) => {
                write!(f, "the engine cannot be reached: {what}")
            }
            Self::Silent(limit) => write!(f, "the engine gave no answer within {:.1} s", limit.as_secs_f32()),
            Self::Said(text) => write!(f, "the engine says: {}", Escaped(text)),
            Self::Status(status, text) if text.is_empty() => {
                write!(f, "the engine answered with status {status}")
            }
            Self::Status(status, text) => {
                write!(f, "the engine answered with status {status}: {}", Escaped(text))
            }
            Self::NoAnswer(what) => write!(f, "the engine's answer cannot be used: {what}"),
            Self::Target(error) => fmt::Display::fmt(error, f),
            Self::TooManyRedirects => f.write_str("the engine redirects in a loop"),
            Self::Lost(why) => write!(f, "the connection to the engine broke: {}", Escaped(why)),
            Self::Hls(fault) => write!(f, "this channel is HLS at the engine, and {fault}"),
        }
    }
}

impl fmt::Display for HlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(error) => fmt::Display::fmt(error, f),
            Self::List(error) => write!(f, "its list does not come: {error}"),
            Self::Segment(error) => write!(f, "a segment of it does not come: {error}"),
        }
    }
}

impl std::error::Error for EngineError {}

impl From<EngineError> for io::Error {
    /// [`EngineError::of_body`] undoes it.
    fn from(error: EngineError) -> Self {
        Self::other(error)
    }
}

impl From<TargetError> for EngineError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

/// Sorts a `ureq` error by what the caller can do about it. `limit` is the time the call had.
pub(super) fn classify(error: ureq::Error, limit: Duration) -> EngineError {
    let refused = |why: String| EngineError::Unreachable(NoConnection::Refused(why));
    let unanswered = |what| EngineError::Unreachable(NoConnection::Unanswered(what));
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect) => unanswered("no answer to the connect"),
        ureq::Error::Timeout(ureq::Timeout::Resolve) => unanswered("its host name was not looked up in time"),
        ureq::Error::Timeout(_) => EngineError::Silent(limit),
        ureq::Error::HostNotFound => refused("its host name is not known".to_owned()),
        ureq::Error::ConnectionFailed => refused("the connect failed".to_owned()),
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => refused(error.to_string()),
            io::ErrorKind::AddrNotAvailable => unanswered("this system has no port left for it"),
            _ => EngineError::Lost(error.to_string()),
        },
        error @ (ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..)) => {
            log::debug!("an engine's answer is not HTTP: {error}");
            EngineError::NoAnswer("it is not HTTP")
        }
        error => EngineError::Lost(error.to_string()),
    }
}

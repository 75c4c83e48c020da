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
    /// The connection was closed or reset before any answer: what a port forwarder does whose engine is gone.
    Closed(String),
    /// The connection broke in the middle of an answer.
    Lost(String),
    /// The engine was found to be down, or to answer nothing at all, while this call waited.
    Down,
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

/// Its words for a content it cannot find under the name given.
const NOT_LOADED: &str = "failed to load content";

impl EngineError {
    /// Whether it is certain that there is no engine at all.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.cause(), Self::Unreachable(NoConnection::Refused(_)))
    }

    /// Whether nobody is there, for all that can be seen: no connection, or one that is closed before any answer. A call that
    /// fails so has opened no session.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        matches!(self.cause(), Self::Unreachable(_) | Self::Closed(_))
    }

    /// Whether the fault is the engine's, so that another one may do better; else it is the content's, on this engine. A
    /// status of 404 is that of what is played: whoever has no getstream is told otherwise. What a list says is what its
    /// broadcaster made of it.
    #[must_use]
    pub fn is_engines(&self) -> bool {
        let is_content_s =
            |error: &Self| matches!(error, Self::Status(404 | 410, _) | Self::Hls(HlsFault::Unfit(_)));
        !self.is_unknown_content() && !is_content_s(self.cause())
    }

    /// Whether the engine says that it does not know the session, in its own words (engine-contract.md section 2) or in
    /// those of another implementation.
    #[must_use]
    pub fn is_unknown_session(&self) -> bool {
        match self {
            Self::Said(text) | Self::Status(_, text) => {
                let text = text.to_ascii_lowercase();
                text.contains("session")
                    && ["unknown", "invalid", "expired"].iter().any(|word| text.contains(word))
            }
            // That is how an engine says it to who follows a list (engine-contract.md section 8.2).
            Self::Hls(HlsFault::List(error) | HlsFault::Segment(error)) => {
                matches!(**error, Self::Status(403, _)) || error.is_unknown_session()
            }
            _ => false,
        }
    }

    /// Whether it says that what a session plays is not to be had from it any more: the engine does not know the session, has
    /// no such place, or is not there.
    #[must_use]
    pub fn is_loss_of_session(&self) -> bool {
        self.is_unknown_session() || self.is_nobody() || matches!(self, Self::Status(404, _) | Self::Down)
    }

    /// What went wrong in the end: of a list or a segment that did not come, why not.
    #[must_use]
    pub fn cause(&self) -> &Self {
        match self {
            Self::Hls(HlsFault::List(error) | HlsFault::Segment(error)) => error.cause(),
            error => error,
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

    /// Whether the engine said nothing at all in the time it had.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Unreachable(NoConnection::Unanswered(_)))
    }
}

/// A question that an engine failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The question's name.
    pub question: &'static str,
    /// What came in place of a good answer.
    pub error: EngineError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = self.question;
        match &self.error {
            EngineError::Status(status, text) if text.is_empty() => write!(f, "{question}: status {status}"),
            EngineError::Status(status, text) => write!(f, "{question}: status {status}: {}", Escaped(text)),
            EngineError::Silent(limit) => {
                write!(f, "{question}: no answer within {:.1} s", limit.as_secs_f32())
            }
            error => write!(f, "{question}: {error}"),
        }
    }
}

impl Failed {
    /// A session was to be opened.
    #[must_use]
    pub fn getstream(error: EngineError) -> Self {
        Self { question: "getstream", error }
    }

    /// A session was to be played, or was being played.
    #[must_use]
    pub fn playback(error: EngineError) -> Self {
        Self { question: "playback", error }
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
            Self::Closed(why) => {
                write!(f, "the connection to the engine broke before any answer: {}", Escaped(why))
            }
            Self::Down => f.write_str("the engine is down, or answers nothing any more"),
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

/// Sorts a `ureq` error in the middle of an answer.
pub(super) fn classify_body(error: ureq::Error, limit: Duration) -> EngineError {
    match classify(error, limit) {
        EngineError::Closed(why) => EngineError::Lost(why),
        other => other,
    }
}

/// Sorts a `ureq` error before the answer by what the caller can do about it. `limit` is the time the call had.
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
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => EngineError::Closed(error.to_string()),
            _ => EngineError::Lost(error.to_string()),
        },
        error @ (ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..)) => {
            log::debug!("an engine's answer is not HTTP: {}", Escaped(&error.to_string()));
            EngineError::NoAnswer("it is not HTTP")
        }
        error => EngineError::Lost(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> EngineError {
        EngineError::Said(text.to_owned())
    }

    #[test]
    fn every_wording_of_a_lost_session_is_one() {
        let texts = [
            "unknown playback session id",
            "invalid or expired playback session",
            "Session expired",
            "no session: UNKNOWN",
        ];
        for text in texts {
            assert!(said(text).is_unknown_session(), "{text}");
            assert!(EngineError::Status(403, text.to_owned()).is_unknown_session(), "{text}");
        }
        for text in ["", "session", "unknown method", "expired", "failed to load content"] {
            assert!(!said(text).is_unknown_session(), "{text}");
        }
        assert!(!EngineError::Lost("unknown session".to_owned()).is_unknown_session());
    }

    #[test]
    fn a_fault_is_the_engine_s_unless_the_content_is_not_to_be_found() {
        for error in [said("failed to load content"), EngineError::Status(404, String::new())] {
            assert!(!error.is_engines(), "{error}");
        }
        let why = || "why".to_owned();
        let closed = EngineError::Closed(why());
        let refused = EngineError::Unreachable(NoConnection::Refused(why()));
        let nobody = [closed, refused, EngineError::Unreachable(NoConnection::Unanswered("late"))];
        assert!(nobody.iter().all(|error| error.is_nobody() && error.is_engines()), "{nobody:?}");
        for error in [
            said("out of order"),
            EngineError::Silent(Duration::from_secs(1)),
            EngineError::Status(500, String::new()),
            EngineError::NoAnswer("it is HTML"),
            EngineError::Lost(why()),
            EngineError::Down,
        ] {
            assert!(error.is_engines() && !error.is_nobody(), "{error}");
        }
    }

    #[test]
    fn of_a_list_it_is_what_went_wrong_in_the_end_that_counts() {
        let faults: [fn(Box<EngineError>) -> HlsFault; 2] = [HlsFault::List, HlsFault::Segment];
        for fault in faults {
            let hls = |error| EngineError::Hls(fault(Box::new(error)));
            let refused = hls(EngineError::Unreachable(NoConnection::Refused("why".to_owned())));
            assert!(refused.is_refused() && refused.is_nobody() && refused.is_engines());
            let late = hls(EngineError::Silent(Duration::from_secs(10)));
            assert!(late.is_engines() && !late.is_nobody() && !late.is_unknown_session());
            assert!(!hls(EngineError::Status(404, String::new())).is_engines());
            assert!(hls(EngineError::Status(403, String::new())).is_unknown_session());
            assert!(hls(said("Session expired")).is_unknown_session());
        }
        let unfit = EngineError::Hls(HlsFault::Unfit(ListError::Encrypted));
        assert!(!unfit.is_engines() && !unfit.is_nobody() && !unfit.is_refused());
    }

    #[test]
    fn a_failed_check_names_its_question() {
        for (error, expected) in [
            (EngineError::Status(503, String::new()), "get_status: status 503"),
            (EngineError::Status(500, "a\nb".to_owned()), r"get_status: status 500: a\nb"),
            (EngineError::Silent(Duration::from_secs(5)), "get_status: no answer within 5.0 s"),
            (said("no"), "get_status: the engine says: no"),
        ] {
            assert_eq!(Failed { question: "get_status", error }.to_string(), expected);
        }
    }
}

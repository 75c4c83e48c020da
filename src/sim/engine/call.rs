//! One call to the engine: what was asked, over which connection, and what every answer may need.
//!
//! It must not know which calls there are.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::HostName;
use super::counts::RequestRecord;
use super::http::{Answer, Connection};
use super::script::Call;
use super::state::{Shared, State, WaitEnd};
use crate::id::Digest;

/// What becomes of the connection once a request was dealt with.
pub(super) enum Reply {
    /// This is answered.
    Answer(Answer),
    /// Everything is said; the connection ends.
    Close,
    /// The connection is reset.
    Reset,
}

impl Reply {
    pub(super) fn error_text(text: &str) -> Self {
        Self::Answer(Answer::json("response", &Value::Null, Some(&json!(text))))
    }

    pub(super) fn response(value: &Value) -> Self {
        Self::Answer(Answer::json("response", value, Some(&Value::Null)))
    }
}

/// A request and where it came in.
pub(super) struct Request<'a> {
    pub(super) shared: &'a Shared,
    pub(super) connection: &'a Connection,
    pub(super) record: &'a RequestRecord,
    /// It came while the engine was frozen.
    pub(super) is_late: bool,
}

/// What a query names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Nothing at all.
    Nothing,
    /// This content, by its place in the engine's list.
    Known(usize),
    /// Something that is not there, which takes the engine so long to find out.
    Unknown(Duration),
}

impl Request<'_> {
    /// The engine's own base URL, as this request is to see it.
    pub(super) fn base_url(&self) -> io::Result<String> {
        let host = match (&self.shared.settings.host, self.record.header("Host")) {
            (HostName::Fixed(host), _) => host.clone(),
            (HostName::OfRequest, Some(host)) => host.to_owned(),
            (HostName::OfRequest, None) => self.connection.local_addr()?.to_string(),
        };
        Ok(format!("http://{host}"))
    }

    pub(super) fn hold(&self, until: Option<Instant>, is_released: impl FnMut(&State) -> bool) -> WaitEnd {
        self.shared.hold(self.connection.socket(), until, is_released)
    }

    /// Says nothing, until the client goes or `is_over`.
    pub(super) fn hang(&self, is_over: impl FnMut(&State) -> bool) -> Reply {
        self.hold(None, is_over);
        Reply::Close
    }

    /// Waits so long, if the client stays.
    pub(super) fn wait(&self, time: Duration) -> WaitEnd {
        self.hold(Instant::now().checked_add(time), |_| false)
    }

    /// Applies a scripted fault; `None` if the call is to be answered as usual.
    pub(super) fn fault(&self, step: &Call) -> Option<Reply> {
        match step {
            Call::Normal | Call::Prebuffering | Call::Filling(_) | Call::Hollow | Call::Without(_) => None,
            Call::Slow(time) => {
                self.wait(*time);
                None
            }
            Call::Hang => Some(self.hang(|_| false)),
            Call::Reset => Some(Reply::Reset),
            Call::Text(text) => Some(Reply::Answer(Answer::plain(200, text))),
            Call::Status(status, text) => Some(Reply::Answer(Answer::plain(*status, text))),
            Call::Error(text) => Some(Reply::error_text(text)),
        }
    }

    /// What all calls say of a session that is not there.
    pub(super) fn unknown_session(&self) -> Reply {
        Reply::error_text(&self.shared.settings.dialect.session_words)
    }

    /// The content that is named so in a path.
    pub(super) fn by_path(&self, name: &str) -> Option<usize> {
        let dialect = &self.shared.settings.dialect;
        let state = self.shared.lock();
        if dialect.has_colon_in_paths {
            return state.by_id(name.strip_prefix("cid:")?.parse().ok()?);
        }
        let digest = name.parse().ok()?;
        if dialect.infohash_is_content_id { state.by_id(digest) } else { state.by_infohash(digest) }
    }

    /// The content that the query names, by the documented precedence.
    pub(super) fn named(&self) -> Named {
        let settings = &self.shared.settings;
        let state = self.shared.lock();
        let param = |name| self.record.param(name).filter(|value| !value.is_empty());
        let digest = |text: &str| text.parse::<Digest>().ok();
        if let Some(id) = param("content_id").or_else(|| param("id")) {
            let found = digest(id).and_then(|id| state.by_id(id));
            return found.map_or(Named::Unknown(settings.unknown_id_delay), Named::Known);
        }
        let infohash = param("infohash").or_else(|| {
            // A URL takes precedence over a magnet link, and none is known here.
            let magnet = param("magnet").filter(|_| param("url").is_none())?;
            magnet.split_once("btih:")?.1.split('&').next()
        });
        if let Some(infohash) = infohash {
            let found = digest(infohash).and_then(|infohash| state.by_infohash(infohash));
            return found.map_or(Named::Unknown(settings.unknown_infohash_delay), Named::Known);
        }
        if param("url").is_some() || param("magnet").is_some() {
            Named::Unknown(settings.unknown_id_delay)
        } else {
            Named::Nothing
        }
    }
}

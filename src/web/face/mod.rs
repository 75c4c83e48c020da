//! The face of an engine: programs that want an AceStream engine find one here, and share its streams with everybody.
//!
//! `Question` reads which of an engine's questions a request is; `start` answers getstream, `session` what is asked about a
//! playback, `service` what is asked about the engine; `playbacks` knows who plays what, and `envelope` how an engine writes
//! its answers. How a player is fed is the matter of `live`, and without `format=json` getstream is a stream at once, as ever.
//! What an engine answers stands in engine-contract.md.

mod envelope;
pub mod playbacks;
mod service;
mod session;
mod start;

use crate::http::request::Request;
use crate::http::response::Response;
use crate::id::{ContentKey, KeyError};
use crate::stream::lease::Token;

use self::envelope::Envelope;
use self::service::Service;
use self::session::Command;
use self::start::Start;

use super::context::Context;

/// What is asked of an engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// To start a playback, and to be told where it is.
    Start(Start),
    /// For the stream of a playback. A token that is none is like one that is not known.
    Play(Option<Token>),
    /// How a playback is.
    Stat(Option<Token>),
    /// To do something with a playback.
    Command(Option<Token>, Command),
    /// For the next event of a playback.
    Event(Option<Token>),
    /// About the engine itself.
    Service(Service),
}

impl Question {
    /// Which question it is, if it is one. `key` reads a content out of pairs.
    pub(super) fn of(
        names: &[&str],
        pairs: &[(String, String)],
        key: impl Fn(&[&(String, String)]) -> Result<ContentKey, KeyError>,
    ) -> Option<Self> {
        let named = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let token = |text: &str| {
            let text = text.strip_suffix(".ts").unwrap_or(text);
            text.parse().ok()
        };
        let envelope = match named("api_version").and_then(|version| version.parse::<u32>().ok()) {
            Some(2..) => Envelope::ResultAlone,
            _ => Envelope::Response,
        };
        Some(match *names {
            ["ace", "getstream"] => Self::Start(Start::of(pairs, false, key)?),
            ["ace" | "hls", "manifest.m3u8"] => Self::Start(Start::of(pairs, true, key)?),
            ["ace", "r", _, text] => Self::Play(token(text)),
            ["ace", "stat", _, text] => Self::Stat(token(text)),
            ["ace", "event", _, text] => Self::Event(token(text)),
            ["ace", "cmd", _, text] => {
                let command = match named("method") {
                    Some("stop") => Command::Stop(envelope),
                    _ => Command::Other,
                };
                Self::Command(token(text), command)
            }
            ["webui", "api", "service"] => Self::Service(Service::of(pairs, Envelope::Result, key)),
            ["server", "api"] => {
                let envelope = if envelope == Envelope::ResultAlone { envelope } else { Envelope::Result };
                Self::Service(Service::of(pairs, envelope, key))
            }
            _ => return None,
        })
    }
}

/// Answers a GET. Not inlined, for the stack of streams: see `live`.
#[inline(never)]
pub(super) fn serve(context: &Context, request: Request, question: Question) {
    match question {
        Question::Start(start) => start::serve(context, request, start),
        Question::Play(token) => session::play(context, request, token),
        Question::Stat(token) => request.respond(session::stat(context, token)),
        Question::Command(token, command) => request.respond(session::command(context, token, command)),
        Question::Event(token) => session::event(context, request, token),
        Question::Service(service) => request.respond(service.answer(context)),
    }
}

/// Answers a HEAD, which starts and ends nothing.
pub(super) fn serve_head(request: Request, question: &Question) {
    if let Question::Play(_) = question {
        request.stream_head(&super::live::HEADERS, None);
    } else {
        request.respond(Response::empty(200).with("Content-Type", "application/json").for_every_page());
    }
}

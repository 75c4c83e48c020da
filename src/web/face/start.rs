//! `getstream` and `manifest.m3u8` as a program asks an engine for them: where is the playback?
//!
//! The answer comes as an engine's does: once the content is loaded, long before the first picture, or once it is clear that
//! it cannot be. From then on the playback has a place on its stream. It must not know how it is played.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::error::{EngineError, Failed};
use crate::http::request::{Request, StreamConnection};
use crate::http::response::{Code, Response};
use crate::id::{ContentKey, KeyError};
use crate::stream::client::{ClientRecord, Protocol};
use crate::stream::directory::NoSeat;
use crate::stream::lease::Token;
use crate::stream::state::Why;
use crate::stream::stream::Seat;
use crate::stream::streams::LOOK_INTERVAL;
use crate::wanted::Wanted;
use crate::web::base::base_url_as_asked;
use crate::web::context::Context;

use super::envelope::{Envelope, answer, bad, good, is_live};
use super::playbacks::{Playback, Player};
use super::session::carry_out;

/// An engine's words for a content that it does not find, or that is no content at all (engine-contract.md section 2).
const NOT_LOADED: &str = "failed to load content";

/// A start is given up here so long after the stream should have done so by itself.
const MARGIN: Duration = Duration::from_secs(2);

/// The keys of a content in the order in which an engine takes the first that it finds (engine-contract.md section 1.1).
const KEYS: [&str; 3] = ["content_id", "id", "infohash"];

/// Longer player ids are cut: a hash in hex has 40 to 64 characters.
const MAX_PID_CHARACTERS: usize = 128;

/// A wish to play something.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::web) struct Start {
    key: Result<ContentKey, KeyError>,
    form: Form,
    is_hls: bool,
    pid: Option<String>,
    client_session_id: i64,
    has_events: bool,
}

/// How it is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Redirect,
}

impl Start {
    /// Reads it; `None` when it is to be a stream at once.
    pub(super) fn of(
        pairs: &[(String, String)],
        is_hls: bool,
        key: impl Fn(&[&(String, String)]) -> Result<ContentKey, KeyError>,
    ) -> Option<Self> {
        let named = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let form = match named("format")? {
            "json" => Form::Json,
            "redirect" => Form::Redirect,
            _ => return None,
        };
        let first = KEYS.into_iter().find(|key| named(key).is_some());
        let is_other_key = |name: &str| KEYS.contains(&name) && Some(name) != first;
        let of_content: Vec<_> = pairs.iter().filter(|(name, _)| !is_other_key(name)).collect();
        let pid = named("pid").or_else(|| named("sid")).filter(|pid| !pid.is_empty());
        Some(Self {
            key: key(&of_content),
            form,
            is_hls,
            pid: pid.map(|pid| pid.chars().take(MAX_PID_CHARACTERS).collect()),
            client_session_id: named("client_session_id").and_then(|id| id.parse().ok()).unwrap_or(-1),
            has_events: named("use_api_events") == Some("1"),
        })
    }
}

/// Why there is no playback.
enum NotStarted {
    /// The request names no content.
    Key(KeyError),
    /// It names no host that URLs could begin with.
    NoHost,
    /// There is HTTP Live Streaming here only once it is built in.
    NoHls,
    /// There is no place for it.
    Full(&'static str),
    /// There is no stream.
    NoSeat(NoSeat),
    /// It did not start.
    Why(Why),
    /// It did not start in time, and nobody has said why.
    Late,
    /// Nobody waits for the answer any more.
    ClientLeft,
}

impl NotStarted {
    /// As an engine words it: in the engine's own words, if it was the engine that said no.
    fn text(&self) -> String {
        match self {
            Self::Key(KeyError::Malformed) => NOT_LOADED.to_owned(),
            Self::Key(error) => error.to_string(),
            Self::NoHost => "the request names no host".to_owned(),
            Self::NoHls => "HLS is not there yet; use /ace/getstream with this id".to_owned(),
            Self::Full(what) => (*what).to_owned(),
            Self::NoSeat(NoSeat::Failed(why)) | Self::Why(why) => words_of(why),
            Self::NoSeat(no_seat) => no_seat.to_string(),
            Self::Late | Self::ClientLeft => "start timeout".to_owned(),
        }
    }

    /// As everybody else is told.
    fn response(&self) -> Response {
        match self {
            Self::Key(error) => Response::from(error),
            Self::NoHost => Response::error(Code::BadRequest, &self.text()),
            Self::NoHls => Response::error(Code::NotImplemented, &self.text()),
            Self::Full(what) => Response::error(Code::AtCapacity, what),
            Self::NoSeat(no_seat) => Response::from(no_seat),
            Self::Why(why) => Response::from(why),
            Self::Late | Self::ClientLeft => {
                Response::error(Code::StartTimeout, &"the stream did not start in time")
            }
        }
    }
}

/// What the engine said, if it did: a relay in front of this one, and other programs, know its words. Else a sentence.
fn words_of(why: &Why) -> String {
    match why {
        Why::Tried(last, _) => words_of(last),
        Why::Engine(Failed { error: EngineError::Said(text), .. }) => text.clone(),
        why => why.to_string(),
    }
}

/// The answer to a good start; the first field is the one that old clients look for (engine-contract.md section 2).
#[derive(Serialize)]
struct Started {
    #[serde(skip_serializing_if = "Option::is_none")]
    event_url: Option<String>,
    playback_url: String,
    stat_url: String,
    command_url: String,
    infohash: String,
    playback_session_id: String,
    is_live: i8,
    is_encrypted: i8,
    client_session_id: i64,
}

/// Starts a playback and tells where it is.
pub(super) fn serve(context: &Context, request: Request, start: Start) {
    let form = start.form;
    let response = match begin(context, &request, start) {
        Ok(started) => match form {
            Form::Json => answer(good(Envelope::Response, &started)),
            Form::Redirect => Response::empty(302).with("Location", started.playback_url),
        },
        // Nobody reads what it is answered.
        Err(NotStarted::ClientLeft) => return drop(request),
        Err(not_started) => {
            let response = not_started.response();
            if let Some(code) = response.code {
                context.stats.add_refusal(code.name());
            }
            match form {
                Form::Json => answer(bad(Envelope::Response, not_started.text())),
                Form::Redirect => response,
            }
        }
    };
    request.respond(response.for_every_page());
}

fn begin(context: &Context, request: &Request, start: Start) -> Result<Started, NotStarted> {
    let Start { key, form: _, is_hls, pid, client_session_id, has_events } = start;
    let key = key.map_err(NotStarted::Key)?;
    if is_hls {
        return Err(NotStarted::NoHls);
    }
    let public_url = context.server.get().public_url.clone();
    let base = base_url_as_asked(public_url.as_ref(), request).ok_or(NotStarted::NoHost)?;
    // This fails when the client has left, or when the process runs short of descriptors.
    let connection =
        request.hold().map_err(|_| NotStarted::Full("the proxy has no room for this connection"))?;
    let seat = seat(context, request, &connection, &key)?;
    drop(connection);

    let stream = Arc::clone(seat.stream());
    let facts = stream.view().facts;
    let token = Token::random();
    let leases = context.streams.leases();
    let lease = leases.grant(token, seat, Instant::now());
    lease.map_err(|_| NotStarted::Full("there are as many playbacks as there may be"))?;
    // By the name that was asked for: who sends each content to a node of its own finds it in every URL.
    let stream_id = key.stream_id();
    let player = pid.map(|pid| Player { address: request.peer().ip(), pid });
    let session_id: String =
        std::iter::repeat_with(|| fastrand::u64(..)).take(3).map(|part| format!("{part:016x}")).collect();
    let session_id = session_id[..40].to_owned();
    let playback =
        Playback { token, key: key.clone(), player, session_id: session_id.clone(), client_session_id };
    for replaced in context.playbacks.add(playback, &stream, leases) {
        log::info!("Playback {} of stream {stream_id} takes the place of {}", token, replaced.token);
        carry_out(context, &replaced);
    }
    let url = |what: &str| format!("{base}/ace/{what}/{stream_id}/{token}");
    Ok(Started {
        event_url: has_events.then(|| url("event")),
        playback_url: url("r"),
        stat_url: url("stat"),
        command_url: url("cmd"),
        infohash: facts.infohash.unwrap_or_else(|| key.name.digest()).to_string(),
        playback_session_id: session_id,
        is_live: is_live(facts.liveness),
        is_encrypted: 0,
        client_session_id,
    })
}

/// A seat on the stream of this content, once an engine has opened it.
fn seat(
    context: &Context,
    request: &Request,
    connection: &StreamConnection,
    key: &ContentKey,
) -> Result<Seat, NotStarted> {
    let settings = context.stream.get();
    let deadline = Instant::now() + settings.connect_timeout + settings.first_data_timeout + MARGIN;
    let user_agent = request.header("User-Agent").map(str::to_owned);
    let number = context.stats.next_client();
    let record = Arc::new(ClientRecord::new(number, Protocol::Ts, request.peer(), user_agent));
    let mut wanted = Wanted::from(key.clone());
    loop {
        let seat = context.streams.seat(&wanted, &record, || request.is_awaited(connection));
        let seat = seat.map_err(|no_seat| match no_seat {
            NoSeat::Gone => NotStarted::ClientLeft,
            no_seat => NotStarted::NoSeat(no_seat),
        })?;
        wanted = loop {
            let now = Instant::now();
            match seat.wait_opened(deadline.min(now + LOOK_INTERVAL)) {
                Some(Ok(())) => return Ok(seat),
                // The engine has told that this is the content of another stream.
                Some(Err(Why::SameAs(other))) if now < deadline => break *other,
                Some(Err(why)) => return Err(NotStarted::Why(why)),
                None if !request.is_awaited(connection) => {
                    connection.handle().shutdown();
                    return Err(NotStarted::ClientLeft);
                }
                None if now >= deadline => return Err(NotStarted::Late),
                None => {}
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";
    const OTHER: &str = "76543210fedcba9876543210fedcba9876543210";

    fn start(query: &str) -> Option<Start> {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Start::of(&pairs, false, |pairs| {
            ContentKey::from_query(None, pairs.iter().map(|(name, value)| (name, value)))
        })
    }

    #[test]
    fn only_who_asks_for_an_answer_gets_one() {
        for query in ["", "id=1", "format=", "format=xml", "format=JSON"] {
            assert_eq!(start(query), None, "{query}");
        }
        let found = start(&format!("id={ID}&format=redirect")).expect("a start");
        assert_eq!((found.form, found.pid, found.client_session_id), (Form::Redirect, None, -1));
    }

    #[test]
    fn of_several_contents_the_first_in_the_engines_order_is_taken() {
        let key = |query: &str| start(&format!("{query}&format=json")).expect("a start").key;
        let [id, infohash] =
            [("id", ID), ("infohash", OTHER)].map(|pair| ContentKey::from_query(None, [pair]));
        assert_eq!(key(&format!("infohash={OTHER}&id={ID}")), id);
        assert_eq!(key(&format!("id={OTHER}&content_id={ID}")), id);
        assert_eq!(key(&format!("infohash={OTHER}")), infohash);
        assert_eq!(key("id=7"), Err(KeyError::Malformed));
        assert_eq!(key("url=http://x/y.acelive"), Err(KeyError::Missing));
    }

    #[test]
    fn what_else_a_client_says_is_read_leniently() {
        let found = start(&format!("id={ID}&format=json&sid=s&use_api_events=1&client_session_id=7"));
        let found = found.expect("a start");
        assert_eq!((found.pid.as_deref(), found.has_events, found.client_session_id), (Some("s"), true, 7));
        let found = start(&format!("id={ID}&format=json&pid=p&sid=s&client_session_id=x")).expect("a start");
        assert_eq!((found.pid.as_deref(), found.has_events, found.client_session_id), (Some("p"), false, -1));
        let found = start(&format!("id={ID}&format=json&pid={}", "ü".repeat(500))).expect("a start");
        assert_eq!(found.pid.map(|pid| pid.chars().count()), Some(MAX_PID_CHARACTERS));
    }
}

//! What the URLs of a playback lead to: its stream, how it is, its stop, its events.
//!
//! It must not know how a playback was started.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::stat::Stat as EngineStat;
use crate::http::request::Request;
use crate::http::response::{Code, Response};
use crate::stream::client::{ClientRecord, Protocol};
use crate::stream::lease::Token;
use crate::stream::state::{State, Why};
use crate::stream::stream::{Seat, Stream};
use crate::stream::streams::LOOK_INTERVAL;
use crate::web::context::Context;
use crate::web::{hls, live};

use super::envelope::{Envelope, answer, bad, good, is_live};
use super::playbacks::{Ended, Playback};

/// An engine's words for a playback that there is not, or not any more (engine-contract.md section 2).
const UNKNOWN_SESSION: &str = "unknown playback session id";

/// A poll for events is held so long, then answered with none: clients ask again at once, and what stands between drops
/// connections on which nothing happens for a minute.
const EVENT_HOLD: Duration = Duration::from_secs(30);

/// So many polls are held at once; a poll above them is answered at once. Each has a thread, and status pages need some of
/// those that are left beside streams.
const MAX_LISTENERS: usize = 32;

/// What is to be done with a playback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::web) enum Command {
    /// End it; told so in this envelope.
    Stop(Envelope),
    /// Something else.
    Other,
}

fn unknown_session() -> Response {
    answer(bad(Envelope::Response, UNKNOWN_SESSION))
}

/// Does what is left to do for a playback that is over: its lease ends, and its players leave.
pub(super) fn carry_out(context: &Context, ended: &Ended) {
    hls::dismiss_token(context, ended.token);
    for reader in &ended.readers {
        context.connections.ask_to_leave(*reader);
    }
}

fn find(context: &Context, token: Option<Token>) -> Option<(Arc<Playback>, Option<Arc<Stream>>)> {
    let (playback, stream) = context.playbacks.find(token?, context.streams.leases())?;
    Some((playback, stream.upgrade()))
}

/// The stream of a playback.
pub(super) fn play(context: &Context, request: Request, token: Option<Token>) {
    let Some((playback, _)) = find(context, token) else {
        let why = "there is no such playback, or not any more: ask getstream for another";
        return request.respond(Response::error(Code::NotFound, &why).for_every_page());
    };
    let token = playback.token;
    let begin = |seat: &Seat| {
        let (client, stream) = (seat.client(), Arc::clone(seat.stream()));
        let (address, user_agent) = (client.address, client.user_agent.clone());
        let reading = Reading { context, token, client: client.id, address, user_agent, stream };
        context.playbacks.begin_reading(token, client.id, &reading.stream).then(|| {
            // From here on the player's own seat keeps the place.
            context.streams.leases().end(token);
            reading
        })
    };
    live::serve(context, request, playback.key.clone().into(), begin, as_of_a_content);
}

/// What does not come is the content's fault, as a status of 404 tells a relay in front of this one: other contents may do.
fn as_of_a_content(refusal: Response) -> Response {
    match refusal.code {
        Some(Code::EngineError | Code::StartTimeout) => Response { status: 404, ..refusal },
        _ => refusal,
    }
}

/// A player of a playback; dropped while it still has its seat.
struct Reading<'a> {
    context: &'a Context,
    token: Token,
    client: u64,
    address: SocketAddr,
    user_agent: Option<String>,
    stream: Arc<Stream>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let Self { context, token, client, address, user_agent, stream } = self;
        let leases = context.streams.leases();
        if context.playbacks.has(*token) {
            // It may come back: most players open a URL twice.
            let number = context.stats.next_client();
            let record = Arc::new(ClientRecord::new(number, Protocol::Ts, *address, user_agent.take()));
            if let Ok(seat) = stream.take_seat(record) {
                drop(leases.grant(*token, seat, Instant::now()));
            }
        }
        context.playbacks.end_reading(*token, *client);
        if !context.playbacks.has(*token) {
            // Stopped in between.
            leases.end(*token);
        }
    }
}

/// How a playback is, as an engine tells it (engine-contract.md section 3).
#[derive(Serialize)]
struct Stat {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u64>,
    peers: u64,
    speed_down: u64,
    speed_up: u64,
    downloaded: u64,
    uploaded: u64,
    total_progress: u64,
    is_live: i8,
    is_encrypted: i8,
    infohash: String,
    playback_session_id: String,
    client_session_id: i64,
    selected_file_index: i8,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    livepos: BTreeMap<&'static str, String>,
}

/// The stat of a playback: out of our stream, and the engine's last word on its own session.
pub(super) fn stat(context: &Context, token: Option<Token>) -> Response {
    let Some((playback, Some(stream))) = find(context, token) else {
        return unknown_session();
    };
    let view = stream.view();
    let swarm = view.swarm.as_deref();
    let (status, error_message) = match &view.state {
        State::Starting(_) => {
            // Who asks now waits for the picture before it opens a player; from then on only a player counts.
            drop(context.streams.leases().renew(playback.token, Instant::now()));
            ("prebuf", None)
        }
        State::Active | State::Lingering { .. } => ("dl", None),
        State::Recovering { .. } => ("buf", None),
        State::Stopping(outcome) | State::Stopped(outcome) => match &outcome.why {
            // Another stream plays it, where the player finds it.
            Why::SameAs(_) => ("prebuf", None),
            Why::Asked | Why::Shutdown => return unknown_session(),
            why => ("err", Some(why.to_string())),
        },
    };
    let kilobytes = |bits_per_second: u64| bits_per_second / 8 / 1024;
    let number = |field: fn(&EngineStat) -> Option<u64>| swarm.and_then(field);
    let infohash = view.facts.infohash.unwrap_or_else(|| playback.key.name.digest());
    answer(good(
        Envelope::Response,
        Stat {
            status,
            error_message,
            progress: number(|swarm| swarm.progress).filter(|_| matches!(status, "prebuf" | "buf")),
            peers: number(|swarm| swarm.peers).unwrap_or(0),
            speed_down: number(|swarm| swarm.speed_down_kbps).unwrap_or_else(|| kilobytes(view.bitrate_bps)),
            speed_up: number(|swarm| swarm.speed_up_kbps).unwrap_or(0),
            downloaded: number(|swarm| swarm.downloaded).unwrap_or(view.bytes_in),
            uploaded: number(|swarm| swarm.uploaded).unwrap_or(0),
            total_progress: 0,
            is_live: is_live(view.facts.liveness),
            is_encrypted: 0,
            infohash: infohash.to_string(),
            playback_session_id: playback.session_id.clone(),
            client_session_id: playback.client_session_id,
            selected_file_index: -1,
            livepos: swarm.map(|swarm| swarm.live_position.iter().cloned().collect()).unwrap_or_default(),
        },
    ))
}

/// Does something with a playback. A stop ends this one alone: its stream goes on for everybody else.
pub(super) fn command(context: &Context, token: Option<Token>, command: Command) -> Response {
    let Some((playback, _)) = find(context, token) else {
        return unknown_session();
    };
    match command {
        Command::Other => answer(bad(Envelope::Response, "unknown method")),
        Command::Stop(envelope) => match context.playbacks.end(playback.token) {
            Some(ended) => {
                log::info!("Playback {} of stream {} is stopped", ended.token, playback.key.stream_id());
                carry_out(context, &ended);
                answer(good(envelope, "ok"))
            }
            None => unknown_session(),
        },
    }
}

/// What has happened to a playback.
#[derive(Serialize)]
struct Happened {
    name: &'static str,
    params: BTreeMap<&'static str, String>,
}

impl Happened {
    fn answer(name: &'static str, params: impl IntoIterator<Item = (&'static str, String)>) -> Response {
        answer(good(Envelope::Response, Self { name, params: params.into_iter().collect() }))
    }
}

/// Tells the next event of a playback, once there is one (engine-contract.md section 5).
pub(super) fn event(context: &Context, request: Request, token: Option<Token>) {
    let Some((playback, _)) = find(context, token) else {
        return request.respond(unknown_session());
    };
    let nothing = || answer(good(Envelope::Response, BTreeMap::<&str, &str>::new()));
    let Some(_listener) = context.playbacks.listeners.enter(MAX_LISTENERS) else {
        return request.respond(nothing());
    };
    let Ok(connection) = request.hold() else {
        return request.respond(nothing());
    };
    let deadline = Instant::now() + EVENT_HOLD;
    let response = loop {
        if let Some(response) = happened(context, playback.token) {
            break response;
        }
        let now = Instant::now();
        if now >= deadline || context.streams.is_closed() {
            break nothing();
        }
        context.playbacks.wait_over(playback.token, deadline.min(now + LOOK_INTERVAL));
        if !request.is_awaited(&connection) {
            connection.handle().shutdown();
            return drop(request);
        }
    };
    drop(connection);
    request.respond(response);
}

/// What has happened to a playback that was there a moment ago, and was not told before.
fn happened(context: &Context, token: Token) -> Option<Response> {
    let stopped = |reason: String| Happened::answer("download_stopped", [("reason", reason)]);
    let Some((_, stream)) = find(context, Some(token)) else {
        return Some(stopped("stopped".to_owned()));
    };
    let state = stream.map(|stream| stream.state());
    match &state {
        Some(State::Active) => {
            context.playbacks.tell_start(token).then(|| Happened::answer("download_started", []))
        }
        Some(State::Stopping(outcome) | State::Stopped(outcome))
            if !matches!(outcome.why, Why::SameAs(_)) =>
        {
            if let Some(ended) = context.playbacks.end(token) {
                carry_out(context, &ended);
            }
            Some(stopped(outcome.why.to_string()))
        }
        _ => None,
    }
}

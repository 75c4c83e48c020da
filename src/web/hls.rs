//! HLS: the same stream as for everybody else, in lists and segments.
//!
//! The way of a player: the first list names a second by a token, which is the player's own from then on; the second names the
//! segments. Who asks for a first list takes a seat like any client and waits for the start like any client; from then on a lease
//! holds the seat, and every request with the token renews it. Segments are cut out of the backlog when they are asked for.
//!
//! `broadcast` keeps the segments of a stream, `viewer` is who watches, `dismissed` remembers who is to come back no more. What
//! is listed, and how lists are written, is decided in [`crate::hls`].

mod broadcast;
mod dismissed;
pub mod kept;
mod viewer;

use std::convert::identity;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hls::playlist;
use crate::http::body::Part;
use crate::http::request::{Method, Request};
use crate::http::response::{Code, Response};
use crate::id::ContentKey;
use crate::stream::client::Protocol;
use crate::stream::ending::Ending;
use crate::stream::lease::{Lease, Token};
use crate::stream::state::Why;
use crate::stream::stream::Stream;
use crate::stream::streams::LOOK_INTERVAL;
use crate::wanted::Wanted;

use self::viewer::Viewer;
use super::context::Context;
use super::live;
use super::place::{ClientPlace, NotAdmitted, turn_away};

/// So long a list waits for its first segment. hls.js gives a request up after 20 s, most players earlier, and all ask again.
const LIST_LIMIT: Duration = Duration::from_secs(18);

/// Segments in a player's first list: Chromium's own HLS takes one with fewer for broken.
const FIRST_SEGMENTS: usize = 3;

/// A first list with fewer is given all the same after so long: ExoPlayer gives a request up that brings nothing within 8 s. A
/// source that comes no faster than it plays mostly has three segments by then, since the first ones are short.
const FIRST_LIMIT: Duration = Duration::from_millis(7500);

/// A stream is started and has a bit rate to go by after so long.
const YOUNG: Duration = Duration::from_secs(10);

/// Segments never change, and are asked for once by each player: caches may keep them about as long as we do.
const SEGMENT_CACHE: &str = "max-age=30, immutable";

/// A name below `/ace/m/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) stream_id: String,
    pub(super) token: Token,
    /// The number of a segment; `None` is the list.
    pub(super) sequence: Option<u64>,
}

impl Piece {
    /// Reads what stands behind `/ace/m/`.
    pub(super) fn of(stream_id: &str, names: &[&str]) -> Option<Self> {
        let (token, sequence) = match names {
            [list] => (list.strip_suffix(".m3u8")?, None),
            [token, segment] => (*token, Some(segment.strip_suffix(".ts")?.parse().ok()?)),
            _ => return None,
        };
        Some(Self { stream_id: stream_id.to_ascii_lowercase(), token: token.parse().ok()?, sequence })
    }
}

/// Answers with the first list of what is wanted, once it runs.
pub(super) fn serve(context: &Context, request: Request, wanted: Wanted) {
    // Players look before they play; that must neither wait nor start anything.
    if request.method() == Method::Head {
        return request.respond(list_response(""));
    }
    match enter(context, &request, wanted) {
        Ok(lease) => {
            let stream = lease.seat().stream();
            let uri = format!("{}{}", way_to_root(request.target()), path_of(&lease));
            let size = stream.media().and_then(|media| media.video).and_then(|video| video.format);
            let size = size.map(|format| (format.width, format.height));
            // Of a stream that has just begun, the last seconds say nothing.
            let is_young = stream.created().elapsed() < YOUNG;
            let rate = if is_young { 0 } else { stream.fanout().bitrate_bps(Instant::now()) };
            request.respond(list_response(&playlist::multivariant(&uri, rate, size)));
        }
        Err(not_admitted) => turn_away(context, request, not_admitted, identity),
    }
}

/// The path of a viewer's own list, without a slash in front.
pub(super) fn path_of(lease: &Lease) -> String {
    format!("ace/m/{}/{}.m3u8", lease.seat().stream().stream_id(), lease.token())
}

/// A lease on what is wanted, once it runs: one that the same player has and does not use, or a new one.
///
/// # Errors
///
/// Why there is none.
pub(super) fn enter(context: &Context, request: &Request, wanted: Wanted) -> Result<Arc<Lease>, NotAdmitted> {
    let now = Instant::now();
    let (address, agent) = (request.peer().ip(), request.header("User-Agent"));
    let leases = context.streams.leases();
    let is_its_own = |lease: &Lease| {
        let (client, stream) = (lease.seat().client(), lease.seat().stream());
        let is_free = lease.companion().is_some_and(|viewer: &Viewer| {
            viewer.is_unused() || leases.idle_for(lease, now) > viewer::AWAY_AFTER
        });
        is_free
            && client.address.ip() == address
            && client.user_agent.as_deref() == agent
            && *stream.key() == wanted.key
    };
    if let Some(lease) = leases.find(is_its_own)
        && lease.seat().stream().state().is_active()
        && leases.renew(lease.token(), now).is_some()
    {
        return Ok(lease);
    }
    admit(context, request, wanted, Token::random())
}

fn admit(
    context: &Context,
    request: &Request,
    wanted: Wanted,
    token: Token,
) -> Result<Arc<Lease>, NotAdmitted> {
    let ClientPlace { seat, registration, pass, connection } =
        live::admit(context, request, wanted, Protocol::Hls)?;
    if seat.stream().is_film() {
        let why = "this is a film, which has parts and no segments: ask /ace/getstream for it";
        return Err(NotAdmitted::Refused(Response::error(Code::NotFound, &why)));
    }
    // The connection goes its own ways from here on.
    registration.forget_connection();
    drop(connection);
    let settings = context.stream.get();
    let broadcast = context.hls.broadcasts.of(seat.stream());
    let viewer = Viewer::new(&seat, broadcast, &settings, registration, pass);
    viewer.log_arrival();
    context.stats.add_join();
    let leases = context.streams.leases();
    leases.end(token);
    leases.grant_with(token, seat, settings.hls_idle, Box::new(viewer), Instant::now()).map_err(|_| {
        NotAdmitted::Refused(Response::error(
            Code::AtCapacity,
            &"there are too many viewers without connections",
        ))
    })
}

/// Answers with a viewer's list, or with one of its segments.
pub(super) fn serve_piece(context: &Context, request: Request, piece: &Piece) {
    if context.hls.dismissed.meets(piece.token, Instant::now()) {
        return respond_gone(request);
    }
    let lease = context.streams.leases().renew(piece.token, Instant::now());
    if lease.as_deref().is_some_and(is_sent_away) {
        dismiss_token(context, piece.token);
        return respond_gone(request);
    }
    match piece.sequence {
        Some(sequence) => serve_segment(context, request, lease.as_deref(), sequence),
        None => serve_list(context, request, lease, piece),
    }
}

/// Whether its stream was stopped on request, or it was itself.
fn is_sent_away(lease: &Lease) -> bool {
    let is_asked = lease.companion().is_some_and(|viewer: &Viewer| viewer.is_asked_to_leave());
    let state = lease.seat().stream().state();
    is_asked || !state.is_open() && matches!(state.why(), Some(Why::Asked))
}

fn serve_list(context: &Context, request: Request, lease: Option<Arc<Lease>>, piece: &Piece) {
    if request.method() == Method::Head {
        let response = match viewer_of(lease.as_deref()) {
            Some((stream, viewer)) => list_response(&viewer.list(stream.fanout(), piece.token).text),
            None => not_there(),
        };
        return request.respond(response);
    }
    // Who was told that the stream is lost, and asks again, may have another one.
    let is_served = viewer_of(lease.as_deref())
        .is_some_and(|(stream, viewer)| !is_lost(stream) || !viewer.was_told_of_its_loss());
    let lease = match lease {
        Some(lease) if is_served => Ok(lease),
        // What else holds a place under this token keeps it until there is a viewer.
        kept => {
            let stream = kept.as_deref().map(|lease| lease.seat().stream());
            let wanted =
                stream.filter(|stream| stream.state().is_open()).map(|stream| stream.wanted().clone());
            match wanted.or_else(|| wanted_of(context, &piece.stream_id)) {
                Some(wanted) => admit(context, &request, wanted, piece.token),
                None => Err(NotAdmitted::Refused(not_there())),
            }
        }
    };
    match lease {
        Ok(lease) => {
            let response = wait_for_list(&lease, piece.token);
            request.respond(response);
        }
        Err(not_admitted) => turn_away(context, request, not_admitted, identity),
    }
}

fn viewer_of(lease: Option<&Lease>) -> Option<(&Arc<Stream>, &Viewer)> {
    let lease = lease?;
    Some((lease.seat().stream(), lease.companion()?))
}

/// Whether a stream is over and did not come to its own end.
fn is_lost(stream: &Stream) -> bool {
    let state = stream.state();
    !state.is_open() && state.why().is_some_and(|why| why.ending() == Ending::Broken)
}

/// What a player wants that comes with a path of another life: the proxy was started anew, or it was away for long.
fn wanted_of(context: &Context, stream_id: &str) -> Option<Wanted> {
    let live = context
        .streams
        .list()
        .into_iter()
        .find(|stream| stream.stream_id() == stream_id && stream.state().is_open());
    if let Some(stream) = live {
        return Some(stream.wanted().clone());
    }
    // What a name with something behind stands for is not known any more.
    let is_bare = stream_id.len() == 40;
    let key = is_bare.then(|| ContentKey::from_query::<&str, &str>(Some(stream_id), []))?;
    key.ok().map(Wanted::from)
}

/// A viewer's list, once there is something in it.
fn wait_for_list(lease: &Lease, token: Token) -> Response {
    let Some((stream, viewer)) = viewer_of(Some(lease)) else { return not_there() };
    let (deadline, patience) = (Instant::now() + LIST_LIMIT, Instant::now() + FIRST_LIMIT);
    loop {
        let seen = stream.fanout().event();
        if is_lost(stream) {
            viewer.tell_of_its_loss();
            return stream.state().why().map_or_else(not_there, Response::from).for_every_page();
        }
        let list = viewer.list(stream.fanout(), token);
        let now = Instant::now();
        let is_enough =
            list.segments >= FIRST_SEGMENTS || list.is_ended || now >= patience || viewer.has_listed();
        if list.segments > 0 && is_enough {
            viewer.note_listed();
            return list_response(&list.text);
        }
        if list.is_ended {
            return Response::error(Code::EngineError, &"the stream ended before there was anything to list")
                .for_every_page();
        }
        if now >= deadline {
            let detail = "the stream runs, but has shown nothing yet that could be listed";
            return Response::error(Code::StartTimeout, &detail).for_every_page();
        }
        stream.fanout().wait_event(seen, deadline.min(now + LOOK_INTERVAL));
    }
}

fn serve_segment(context: &Context, request: Request, lease: Option<&Lease>, sequence: u64) {
    let Some((stream, viewer)) = viewer_of(lease) else { return request.respond(not_there()) };
    let Some(cut) = viewer.cut(stream.fanout(), sequence) else { return request.respond(not_there()) };
    let (end, is_to_head) = (cut.end, request.method() == Method::Head);
    let bytes = cut.parts.iter().map(Part::length).sum();
    let response = Response::empty(200)
        .with("Content-Type", "video/mp2t")
        .with("Cache-Control", SEGMENT_CACHE)
        .with("Accept-Ranges", "none")
        .for_every_page()
        .with_body(cut.parts);
    if request.deliver(response) && !is_to_head {
        if viewer.record_sent(sequence, end, bytes) {
            context.stats.add_skips(1);
        }
        context.stats.add_segment(bytes);
    }
}

/// Disconnects this client, if it is a viewer.
pub(super) fn dismiss(context: &Context, client: u64) {
    let leases = context.streams.leases();
    let is_it = |lease: &Lease| lease.seat().client().id == client && lease.companion::<Viewer>().is_some();
    if let Some(lease) = leases.find(is_it) {
        dismiss_token(context, lease.token());
    }
}

pub(super) fn dismiss_token(context: &Context, token: Token) {
    // First: between the two it would come back as somebody new.
    context.hls.dismissed.add(token, Instant::now());
    context.streams.leases().end(token);
}

fn list_response(text: &str) -> Response {
    Response::empty(200)
        .with("Content-Type", playlist::CONTENT_TYPE)
        .with("Cache-Control", "no-store")
        .for_every_page()
        .with_body(text.as_bytes().to_vec())
}

fn not_there() -> Response {
    let detail = "there is no such list or segment, or not any more; ask for /ace/manifest.m3u8?id=... again";
    Response::error(Code::NotFound, &detail).for_every_page()
}

fn respond_gone(request: Request) {
    let detail = "this viewer was disconnected, or its stream was stopped, on request";
    request.respond(Response::error(Code::Gone, &detail).for_every_page());
}

/// From the directory that the target names up to the root, as a relative URI: whatever stands in front of the path outside, it
/// stays there.
fn way_to_root(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    "../".repeat(path.matches('/').count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_a_list_or_a_segment() {
        let token = "0123456789abcdef0123456789abcdef";
        let of = |names: &[&str]| Piece::of("AB", names);
        let list = of(&["0123456789abcdef0123456789abcdef.m3u8"]).expect("a list");
        assert_eq!(
            (list.stream_id.as_str(), list.token.to_string(), list.sequence),
            ("ab", token.into(), None)
        );
        assert_eq!(of(&[token, "17.ts"]).and_then(|piece| piece.sequence), Some(17));
        for wrong in [
            &["x.m3u8"][..],
            &[token],
            &[token, "17"],
            &[token, "-1.ts"],
            &[token, ".ts"],
            &[],
            &["", "", ""],
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_way_up_is_as_long_as_the_path() {
        for (target, way) in [
            ("/ace/manifest.m3u8?id=/x/y", "../"),
            ("/ch/canal-faro.m3u8", "../"),
            ("http://box:8000/ace/manifest.m3u8", "../"),
            ("/ace/manifest.m3u8/?id=1", "../../"),
            ("//ace/manifest.m3u8", "../../"),
            ("/x.m3u8", ""),
        ] {
            assert_eq!(way_to_root(target), way, "{target}");
        }
    }
}

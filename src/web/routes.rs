//! Which path is what.
//!
//! Pure routing: `Route::of` reads method and target, [`handle`] hands over. A target's text goes no further than
//! here.

use std::convert::identity;
use std::time::Instant;

use crate::channels::playlist::Choice;
use crate::http::request::{Method, Request};
use crate::http::response::{Code, Response};
use crate::id::{ContentKey, KeyError};
use crate::stream::state::{Event, Why};
use crate::wanted::Wanted;

use super::admin::{Admin, Claim};
use super::channels;
use super::context::Context;
use super::face::{self, Question};
use super::guide;
use super::hls::{self, Piece};
use super::live;
use super::metrics;
use super::page;
use super::process::Usage;
use super::sessions;
use super::status::Snapshot;
use super::target::{Target, authority_of};
use super::tuner;

/// The paths there are, for the person who asked for another.
const PATHS: &str = "/ace/getstream?id=..., /ace/<id>.ts, /ace/manifest.m3u8?id=..., /ace/<id>.m3u8, /ace/status, \
                     /webui/api/service, /server/api, /playlist.m3u, /epg.xml, /ch/{slug}.ts, /ch/{slug}.m3u8, /proxy/status, \
                     /proxy/sessions, /proxy/sessions/{id}, /proxy/channels, /proxy/engines, /metrics, /healthz, /readyz, /";

/// Told to a relay that asks us and whom we ask ourselves.
const LOOP: &str =
    "this acerelay is its own engine, by itself or by way of others: take one of them out of [[engines]]\n";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Stream(Result<ContentKey, KeyError>),
    Engine(Question),
    /// The first list of HLS.
    Hls(Result<ContentKey, KeyError>),
    HlsPiece(Piece),
    AceStatus(Option<String>),
    Status,
    Sessions,
    Session(String),
    Client(String, String),
    Engines,
    Playlist(Choice),
    Channel(String),
    ChannelHls(String),
    Channels,
    ChannelStatus(String),
    Metrics,
    Tuner(tuner::Asked),
    Guide,
    Page,
    Health,
    Ready,
    Unknown,
}

impl Route {
    fn is_deletable(&self) -> bool {
        matches!(self, Self::Session(_) | Self::Client(..))
    }

    /// Whether it tells who watches what. Players ask for streams under every name there is, and whoever looks after the
    /// proxy asks for its health by any; for these a page that was rebound to our address gains nothing.
    fn is_private(&self) -> bool {
        match self {
            Self::AceStatus(_)
            | Self::Status
            | Self::Sessions
            | Self::Session(_)
            | Self::Client(..)
            | Self::Engines
            | Self::Channels
            | Self::ChannelStatus(_)
            | Self::Metrics
            | Self::Page => true,
            Self::Stream(_)
            | Self::Engine(_)
            | Self::Hls(_)
            | Self::HlsPiece(_)
            | Self::Tuner(_)
            | Self::Guide
            | Self::Playlist(_)
            | Self::Channel(_)
            | Self::ChannelHls(_)
            | Self::Health
            | Self::Ready
            | Self::Unknown => false,
        }
    }

    /// Whether a page of another site may read the answer: it may play, and read why it cannot.
    fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Stream(_)
                | Self::Engine(_)
                | Self::Hls(_)
                | Self::HlsPiece(_)
                | Self::Channel(_)
                | Self::ChannelHls(_)
        )
    }

    // Not inlined, for the stack of streams: see `live`.
    #[inline(never)]
    fn of(target: &str) -> Self {
        let Target { names, pairs } = Target::of(target);
        let Some(names) = names else {
            return Self::Unknown;
        };
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let content = |path_id| ContentKey::from_query(path_id, pairs.iter().map(tidied));
        let key = |path_id| Self::Stream(content(path_id));
        let of_content =
            |pairs: &[&(String, String)]| ContentKey::from_query(None, pairs.iter().map(|pair| tidied(pair)));
        if let Some(question) = Question::of(&names, &pairs, of_content) {
            return Self::Engine(question);
        }
        match names[..] {
            [] => Self::Page,
            ["ace", name] if is_named(name, "getstream") => key(None),
            ["ace" | "hls", "manifest.m3u8"] => Self::Hls(content(None)),
            ["ace", name] if list_of(name).is_some() => Self::Hls(content(list_of(name))),
            ["ace", "m", stream_id, ref names @ ..] => {
                Piece::of(stream_id, names).map_or(Self::Unknown, Self::HlsPiece)
            }
            ["ace", "status"] => {
                let id = pairs.into_iter().find(|(name, _)| name == "id").map(|(_, value)| value);
                Self::AceStatus(id)
            }
            // A link behind the path that a player adds to everything.
            ["ace", scheme, id] if scheme.eq_ignore_ascii_case("acestream:") => {
                key(Some(&format!("acestream://{}", without_suffix(id))))
            }
            ["ace", name] if is_id(without_suffix(name)) || is_link(name) => key(Some(without_suffix(name))),
            ["proxy", "status"] => Self::Status,
            ["proxy", "sessions"] => Self::Sessions,
            ["proxy", "sessions", id] => Self::Session(id.to_owned()),
            ["proxy", "sessions", id, "clients", client] => Self::Client(id.to_owned(), client.to_owned()),
            ["proxy", "engines"] => Self::Engines,
            ["proxy", "channels"] => Self::Channels,
            ["proxy", "channels", slug] => Self::ChannelStatus(slug.to_owned()),
            ["playlist.m3u" | "playlist.m3u8"] => Self::Playlist(channels::choice(&pairs)),
            // Players add to a path what they add to all of them.
            ["ch", name] => match name.split('|').next().and_then(|name| name.trim().rsplit_once('.')) {
                Some((slug, suffix)) if suffix.eq_ignore_ascii_case("ts") => Self::Channel(slug.to_owned()),
                Some((slug, suffix)) if suffix.eq_ignore_ascii_case("m3u8") => {
                    Self::ChannelHls(slug.to_owned())
                }
                _ => Self::Unknown,
            },
            ["metrics"] => Self::Metrics,
            ["epg.xml"] => Self::Guide,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            _ => tuner::Asked::of(&names).map_or(Self::Unknown, Self::Tuner),
        }
    }
}

/// The suffix that some players want to see, in any case.
const SUFFIX: &str = ".ts";

/// The suffix of lists, in any case.
const LIST_SUFFIX: &str = ".m3u8";

fn without<'a>(suffix: &str, name: &'a str) -> Option<&'a str> {
    let (rest, end) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    end.eq_ignore_ascii_case(suffix).then_some(rest)
}

fn without_suffix(name: &str) -> &str {
    without(SUFFIX, name).unwrap_or(name)
}

/// The id in the name of a list.
fn list_of(name: &str) -> Option<&str> {
    without(LIST_SUFFIX, name).filter(|id| is_id(id))
}

fn is_named(name: &str, wanted: &str) -> bool {
    without_suffix(name) == wanted
}

fn is_id(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_link(name: &str) -> bool {
    name.get(.."acestream:".len()).is_some_and(|head| head.eq_ignore_ascii_case("acestream:"))
}

/// A pair of a query. What was added to an id as if it were a path goes.
fn tidied((name, value): &(String, String)) -> (&str, &str) {
    match name.as_str() {
        "id" | "content_id" | "infohash" => {
            let value = value.trim_end_matches('/');
            (name, list_of(value).unwrap_or_else(|| without_suffix(value)))
        }
        _ => (name, value),
    }
}

/// Answers a request.
pub fn handle(context: &Context, request: Request) {
    if let Some(via) = request.header("Via")
        && context.pool.relays().has_come_through_us(via, Instant::now())
    {
        return request.respond(Response::text(508, LOOP));
    }
    let route = Route::of(request.target());
    match (request.method(), route) {
        (Method::Get, Route::Engine(question)) => face::serve(context, request, question),
        (Method::Head, Route::Engine(question)) => face::serve_head(request, &question),
        (Method::Get | Method::Head, Route::Stream(Ok(key))) => play(context, request, key.into(), identity),
        (Method::Get | Method::Head, Route::Channel(slug)) => match channels::wanted(context, &slug) {
            Ok(wanted) => play(context, request, wanted, identity),
            Err(response) => request.respond(response.for_every_page()),
        },
        (Method::Get | Method::Head, Route::Hls(Ok(key))) => hls::serve(context, request, key.into()),
        (Method::Get | Method::Head, Route::ChannelHls(slug)) => match channels::wanted(context, &slug) {
            Ok(wanted) => hls::serve(context, request, wanted),
            Err(response) => request.respond(response.for_every_page()),
        },
        (Method::Get | Method::Head, Route::HlsPiece(piece)) => hls::serve_piece(context, request, &piece),
        (Method::Get | Method::Head, Route::Tuner(tuner::Asked::Channel(number)))
            if context.tuner.is_some() =>
        {
            match tuner::wanted(context, number) {
                Ok(wanted) => play(context, request, wanted, tuner::said_as_a_device),
                Err(response) => request.respond(response),
            }
        }
        (_, route) => {
            let is_open = route.is_open();
            let response = answer(context, &request, route);
            request.respond(if is_open { response.for_every_page() } else { response });
        }
    }
}

/// Gives what is wanted; `told` makes of a refusal what its client is told. Players look before they play, by a HEAD, and that must
/// neither wait nor start anything.
fn play(context: &Context, request: Request, wanted: Wanted, told: fn(Response) -> Response) {
    match request.method() {
        Method::Head => live::head(context, request, &wanted),
        _ => live::serve(context, request, wanted, |_| Some(()), told),
    }
}

/// The answer to a request for something that is no stream. Not inlined, for the stack of streams: see [`live`].
#[inline(never)]
fn answer(context: &Context, request: &Request, route: Route) -> Response {
    let claim = Claim {
        host: authority_of(request.target()).or_else(|| request.header("Host")),
        origin: request.header("Origin"),
        authorization: request.header("Authorization"),
    };
    let route = match route {
        Route::Tuner(asked) => match tuner::answer(context, request, asked) {
            Some(response) => return response,
            None => Route::Unknown,
        },
        Route::Guide if matches!(request.method(), Method::Get | Method::Head) => {
            return guide::answer(&context.guide.get(), request);
        }
        route => route,
    };
    let server = context.server.get();
    let admin = Admin::from(&*server);
    match request.method() {
        Method::Get | Method::Head if route.is_private() => match admin.check_reader(claim) {
            Ok(()) => show(context, request, route),
            Err(denied) => {
                log::debug!("A question from {} was refused: {denied}", request.peer());
                Response::from(&denied)
            }
        },
        Method::Get | Method::Head => show(context, request, route),
        Method::Options => cors(Response::empty(204)),
        Method::Delete if route.is_deletable() => match admin.check(claim) {
            Ok(()) => delete(context, route),
            Err(denied) => {
                log::warn!("A DELETE from {} was refused: {denied}", request.peer());
                Response::from(&denied)
            }
        },
        Method::Delete | Method::Post | Method::Other if route == Route::Unknown => {
            show(context, request, route)
        }
        Method::Delete | Method::Post | Method::Other => {
            let (detail, allow) = if route.is_deletable() {
                ("only GET, HEAD, DELETE and OPTIONS are answered here", "GET, HEAD, DELETE, OPTIONS")
            } else {
                ("only GET, HEAD and OPTIONS are answered here", "GET, HEAD, OPTIONS")
            };
            Response::error(Code::MethodNotAllowed, &detail).with("Allow", allow)
        }
    }
}

fn cors(response: Response) -> Response {
    response
        .with("Allow", "GET, HEAD, OPTIONS")
        .for_every_page()
        .with("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        .with("Access-Control-Allow-Headers", "Range, Icy-MetaData, Content-Type, Accept-Encoding")
        .with("Access-Control-Max-Age", "86400")
}

/// Does what a DELETE asks for.
fn delete(context: &Context, route: Route) -> Response {
    let is_done = match route {
        Route::Session(id) => sessions::live(context, &id).first().is_some_and(|stream| {
            log::info!("Stream {} is stopped on request", stream.stream_id());
            stream.apply(&Event::Stop(Why::Asked));
            true
        }),
        Route::Client(id, client) => client.parse().is_ok_and(|client| {
            let has_it = sessions::live(context, &id).iter().any(|stream| stream.has_seat_of(client));
            let is_asked = has_it && context.connections.ask_to_leave(client);
            if is_asked {
                hls::dismiss(context, client);
            }
            is_asked
        }),
        _ => false,
    };
    if is_done {
        Response::empty(204)
    } else {
        Response::error(Code::NotFound, &"there is no such session or client, or not any more")
    }
}

fn show(context: &Context, request: &Request, route: Route) -> Response {
    match route {
        Route::Stream(Ok(_))
        | Route::Engine(_)
        | Route::Hls(Ok(_))
        | Route::HlsPiece(_)
        | Route::Client(..)
        | Route::Channel(_)
        | Route::ChannelHls(_)
        | Route::Tuner(_)
        | Route::Guide
        | Route::Unknown => {
            Response::error(Code::NotFound, &format_args!("there is no such path here; there are {PATHS}"))
        }
        Route::Stream(Err(error)) | Route::Hls(Err(error)) => {
            context.stats.add_refusal(Code::BadRequest.name());
            Response::from(&error)
        }
        Route::Playlist(choice) => channels::playlist(context, request, choice),
        Route::Channels => channels::all(context, request),
        Route::ChannelStatus(slug) => channels::one(context, request, &slug),
        Route::Health => match context.trouble() {
            Some(trouble) => Response::text(503, &format!("{trouble}\n")),
            None => Response::text(200, "ok\n"),
        },
        Route::Ready => {
            let is_ready = context.pool.engines().iter().any(|engine| engine.health().is_up == Some(true));
            if is_ready {
                Response::text(200, "ready\n")
            } else {
                Response::error(Code::NoEngine, &"no engine has answered its last health check")
            }
        }
        Route::AceStatus(None) => Snapshot::take(context).ace_status(),
        Route::AceStatus(Some(id)) => sessions::ace_status(context, &id),
        Route::Status => Snapshot::take(context).status(),
        Route::Sessions => Snapshot::take(context).sessions(),
        Route::Session(id) => sessions::session(context, &id),
        Route::Engines => Snapshot::take(context).engines(),
        Route::Metrics => metrics::render(&Snapshot::take(context), &Usage::read()),
        Route::Page => page::page(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn every_spelling_of_a_stream_is_one() {
        let stream = Route::Stream(ContentKey::from_query(None, [("id", ID)]));
        for target in [
            format!("/ace/getstream?id={ID}"),
            format!("/ace/getstream/?id={ID}"),
            format!("/ace/getstream?content_id={ID}&pid=5&x=y"),
            format!("/ace/{ID}"),
            format!("/ace/{ID}.ts"),
            format!("/ace/{ID}.ts?cache=1"),
            format!("/%61ce/getstream?id={ID}#t=10"),
            format!("http://box:8000/ace/getstream?id={ID}"),
            format!("/ace/getstream?id={}", ID.to_uppercase()),
            format!("//ace///getstream?id={ID}"),
            format!("/ace/getstream.TS?id={ID}.ts"),
            format!("/ace/{ID}.TS/"),
            format!("/ace/{ID}%20"),
            format!("/ace/getstream?id={ID}/"),
            format!("/ace/getstream?id={ID}|User-Agent=VLC&_idx=2"),
            format!("/ace/{ID}.ts%7CUser-Agent=VLC"),
            format!("/ace/acestream://{ID}"),
            format!("/ace/AceStream:/{ID}.ts"),
            format!("/ace/acestream%3A%2F%2F{ID}"),
            format!("/ace/acestream:%3Fcontent_id={ID}"),
            format!("/ace/getstream%3Fid%3D{ID}"),
            format!("/ace/getstream?id=acestream:/{ID}"),
        ] {
            assert_eq!(Route::of(&target), stream, "{target}");
        }
    }

    #[test]
    fn every_other_path_is_what_it_is() {
        for (target, expected) in [
            ("/proxy/status", Route::Status),
            ("/proxy/status/?x", Route::Status),
            ("/proxy/sessions", Route::Sessions),
            ("/proxy/sessions/", Route::Sessions),
            ("/proxy/sessions/abc", Route::Session("abc".into())),
            ("/proxy/sessions/a/b", Route::Unknown),
            ("/proxy/sessions/a/clients/7", Route::Client("a".into(), "7".into())),
            ("/proxy/sessions/a/clients/7/", Route::Client("a".into(), "7".into())),
            ("/proxy/sessions/a/clients/7/8", Route::Unknown),
            ("/proxy/sessions/a/clients", Route::Unknown),
            ("/proxy/engines", Route::Engines),
            ("/proxy/channels", Route::Channels),
            ("/proxy/channels/canal-faro/", Route::ChannelStatus("canal-faro".into())),
            ("/playlist.m3u", Route::Playlist(Choice::default())),
            ("/playlist.m3u8?x=y", Route::Playlist(Choice::default())),
            (
                "/playlist.m3u?group=A%20b&search=x&hls=1",
                Route::Playlist(Choice {
                    group: Some("A b".into()),
                    search: Some("x".into()),
                    is_hls: true,
                    has_guide: false,
                }),
            ),
            ("/ch/canal-faro.ts", Route::Channel("canal-faro".into())),
            ("/ch/canal-faro.TS?transcode=none", Route::Channel("canal-faro".into())),
            ("/ch/canal-faro.ts%7CUser-Agent=x", Route::Channel("canal-faro".into())),
            ("/ch/canal-faro.m3u8", Route::ChannelHls("canal-faro".into())),
            ("/ch/canal-faro", Route::Unknown),
            ("/ch/", Route::Unknown),
            ("/healthz", Route::Health),
            ("/ace/manifest.m3u8?id=1", Route::Hls(Err(KeyError::Malformed))),
            ("/ace/status", Route::AceStatus(None)),
            ("/ace/status?id=7", Route::AceStatus(Some("7".into()))),
            ("/ace/getstream", Route::Stream(Err(KeyError::Missing))),
            ("/ace/0123", Route::Unknown),
            ("/metrics", Route::Metrics),
            ("/epg.xml", Route::Guide),
            ("/lineup.json", Route::Tuner(tuner::Asked::Lineup(tuner::Spelling::Json))),
            ("/auto/v101?transcode=none", Route::Tuner(tuner::Asked::Channel(Some(101)))),
            ("/lineup.post?scan=start&source=Cable", Route::Tuner(tuner::Asked::Scan)),
            ("/metrics/?x=y", Route::Metrics),
            ("/", Route::Page),
            ("/?x", Route::Page),
            ("http://box", Route::Page),
            ("//", Route::Unknown),
            ("", Route::Unknown),
            ("*", Route::Unknown),
            ("/%ff", Route::Unknown),
            ("/proxy%2Fstatus", Route::Unknown),
            ("/proxy/sessions/a%2Fclients%2F7", Route::Session("a/clients/7".into())),
            ("/ACE/getstream", Route::Unknown),
            ("//proxy//status", Route::Status),
        ] {
            assert_eq!(Route::of(target), expected, "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_target_makes_the_router_panic(target in "\\PC{0,80}|(/|/ace/|/proxy/sessions/|http://)?[a-f0-9%/?&=:.]{0,90}") {
            let _route = Route::of(&target);
        }
    }
}

//! Which path is what.
//!
//! Pure routing: `Route::of` reads method and target, [`handle`] hands over. A target's text goes no further than
//! here.

use std::borrow::Cow;

use crate::http::request::{Method, Request};
use crate::http::response::{Code, Response};
use crate::id::{ContentKey, KeyError};
use crate::stream::state::{Event, Why};

use super::admin::{Admin, Claim};
use super::context::Context;
use super::live;
use super::metrics;
use super::page;
use super::process::Usage;
use super::status::Snapshot;

/// The paths there are, for the person who asked for another.
const PATHS: &str = "/ace/getstream?id=..., /ace/<id>.ts, /ace/status, /proxy/status, /proxy/sessions, \
                     /proxy/sessions/{id}, /proxy/engines, /metrics, /healthz, /readyz, /";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Stream(Result<ContentKey, KeyError>),
    Hls,
    AceStatus(Option<String>),
    Status,
    Sessions,
    Session(String),
    Client(String, String),
    Engines,
    Metrics,
    Page,
    Health,
    Ready,
    Unknown,
}

impl Route {
    fn is_deletable(&self) -> bool {
        matches!(self, Self::Session(_) | Self::Client(..))
    }

    // Not inlined, for the stack of streams: see `live`.
    #[inline(never)]
    fn of(target: &str) -> Self {
        let (path, query) = split_target(target);
        let pairs = || form_urlencoded::parse(query.as_bytes());
        let Some(path) = decode_path(path) else {
            return Self::Unknown;
        };
        let path = path.strip_suffix('/').filter(|rest| !matches!(*rest, "" | "/")).unwrap_or(&path);
        match path {
            "/ace/getstream" | "/ace/getstream.ts" => Self::Stream(ContentKey::from_query(None, pairs())),
            "/ace/manifest.m3u8" => Self::Hls,
            "/ace/status" => {
                let id = pairs().find(|(name, _)| name == "id").map(|(_, value)| value.into_owned());
                Self::AceStatus(id)
            }
            "/proxy/status" => Self::Status,
            "/proxy/sessions" => Self::Sessions,
            "/proxy/engines" => Self::Engines,
            "/metrics" => Self::Metrics,
            "/" => Self::Page,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            _ => {
                if let Some(rest) = path.strip_prefix("/proxy/sessions/") {
                    match rest.split('/').collect::<Vec<_>>()[..] {
                        [id] => Self::Session(id.to_owned()),
                        [id, "clients", client] => Self::Client(id.to_owned(), client.to_owned()),
                        _ => Self::Unknown,
                    }
                } else if let Some(name) = path.strip_prefix("/ace/")
                    && let id = name.strip_suffix(".ts").unwrap_or(name)
                    && id.len() == 40
                    && id.bytes().all(|byte| byte.is_ascii_hexdigit())
                {
                    Self::Stream(ContentKey::from_query(Some(id), pairs()))
                } else {
                    Self::Unknown
                }
            }
        }
    }
}

/// What follows the scheme of a target in absolute form (RFC 9112 section 3.2.2).
fn behind_scheme(target: &str) -> Option<&str> {
    let scheme = ["http://", "https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))?;
    target.get(scheme.len()..)
}

/// The authority of a target in absolute form, which stands above the `Host` header.
fn authority_of(target: &str) -> Option<&str> {
    behind_scheme(target)?.split(['/', '?', '#']).next()
}

/// Path and query of a request target, also of one in absolute form.
fn split_target(target: &str) -> (&str, &str) {
    let target = match behind_scheme(target) {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    target.split_once('?').unwrap_or((target, ""))
}

fn decode_path(path: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(path).decode_utf8().ok()
}

/// Answers a request.
pub fn handle(context: &Context, request: Request) {
    let route = Route::of(request.target());
    match (request.method(), route) {
        (Method::Get, Route::Stream(Ok(key))) => live::serve(context, request, &key),
        // Players look before they play; that must neither wait nor start anything.
        (Method::Head, Route::Stream(Ok(_))) => request.stream_head(&live::HEADERS),
        (_, route) => {
            let response = answer(context, &request, route);
            request.respond(response);
        }
    }
}

/// The answer to a request for something that is no stream. Not inlined, for the stack of streams: see [`live`].
#[inline(never)]
fn answer(context: &Context, request: &Request, route: Route) -> Response {
    match request.method() {
        Method::Get | Method::Head => show(context, route),
        Method::Options => cors(Response::empty(204)),
        Method::Delete if route.is_deletable() => {
            let claim = Claim {
                host: authority_of(request.target()).or_else(|| request.header("Host")),
                origin: request.header("Origin"),
                authorization: request.header("Authorization"),
            };
            match Admin::from(&*context.server.get()).check(claim) {
                Ok(()) => delete(context, route),
                Err(denied) => {
                    log::warn!("A DELETE from {} was refused: {denied}", request.peer());
                    Response::from(&denied)
                }
            }
        }
        Method::Delete | Method::Other => {
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
        .with("Access-Control-Allow-Origin", "*")
        .with("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        .with("Access-Control-Allow-Headers", "Range, Icy-MetaData")
        .with("Access-Control-Max-Age", "86400")
}

/// Does what a DELETE asks for.
fn delete(context: &Context, route: Route) -> Response {
    let is_done = match route {
        Route::Session(id) => context.streams.live(&id).is_some_and(|stream| {
            log::info!("Stream {} is stopped on request", stream.stream_id());
            stream.apply(&Event::Stop(Why::Asked));
            true
        }),
        Route::Client(id, client) => context.streams.live(&id).is_some_and(|stream| {
            let client = client.parse().ok().filter(|client| stream.has_seat_of(*client));
            client.is_some_and(|client| context.connections.ask_to_leave(client))
        }),
        _ => false,
    };
    if is_done {
        Response::empty(204)
    } else {
        Response::error(Code::NotFound, &"there is no such session or client, or not any more")
    }
}

fn show(context: &Context, route: Route) -> Response {
    match route {
        Route::Stream(Ok(_)) | Route::Client(..) | Route::Unknown => {
            Response::error(Code::NotFound, &format_args!("there is no such path here; there are {PATHS}"))
        }
        Route::Stream(Err(error)) => {
            context.stats.add_refusal(Code::BadRequest.name());
            Response::from(&error)
        }
        Route::Hls => {
            Response::error(Code::NotImplemented, &"HLS is not there yet; use /ace/getstream with this id")
        }
        Route::Health if context.parked.is_worn_out() => {
            Response::text(503, "hostile connections have used up too many threads; start the proxy anew\n")
        }
        Route::Health => Response::text(200, "ok\n"),
        Route::Ready => {
            let is_ready = context.pool.engines().iter().any(|engine| engine.health().is_up == Some(true));
            if is_ready {
                Response::text(200, "ready\n")
            } else {
                Response::error(Code::NoEngine, &"no engine has answered its last health check")
            }
        }
        Route::AceStatus(id) => Snapshot::take(context).ace_status(id.as_deref()),
        Route::Status => Snapshot::take(context).status(),
        Route::Sessions => Snapshot::take(context).sessions(),
        Route::Session(id) => Snapshot::take(context).session(&id),
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
            ("/healthz", Route::Health),
            ("/ace/manifest.m3u8?id=1", Route::Hls),
            ("/ace/status", Route::AceStatus(None)),
            ("/ace/status?id=7", Route::AceStatus(Some("7".into()))),
            ("/ace/getstream", Route::Stream(Err(KeyError::Missing))),
            ("/ace/0123", Route::Unknown),
            ("/metrics", Route::Metrics),
            ("/metrics/?x=y", Route::Metrics),
            ("/", Route::Page),
            ("/?x", Route::Page),
            ("http://box", Route::Page),
            ("//", Route::Unknown),
            ("", Route::Unknown),
            ("*", Route::Unknown),
            ("/%ff", Route::Unknown),
        ] {
            assert_eq!(Route::of(target), expected, "{target}");
        }
    }

    #[test]
    fn a_target_in_absolute_form_names_the_host() {
        for (target, authority) in [
            ("http://box:8000/proxy/sessions/1", Some("box:8000")),
            ("HTTP://evil.example", Some("evil.example")),
            ("https://a?b", Some("a")),
            ("http://", Some("")),
            ("/http://box", None),
            ("*", None),
        ] {
            assert_eq!(authority_of(target), authority, "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_target_makes_the_router_panic(target in "\\PC{0,80}|(/|/ace/|/proxy/sessions/|http://)?[a-f0-9%/?&=:.]{0,90}") {
            let _route = Route::of(&target);
        }
    }
}

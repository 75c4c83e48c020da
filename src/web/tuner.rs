//! What is answered to those who take us for a HDHomeRun.
//!
//! Which paths such a device has, and how what we have to say is said in its words. All of it is there only where the
//! configuration switches it on.

use crate::http::request::{Method, Request};
use crate::http::response::{Code, Response};
use crate::tuner::answers::{Discover, JSON, LineupStatus, description};
use crate::tuner::lineup::{self, Entry};
use crate::wanted::Wanted;

use super::base::base_url;
use super::context::Context;

/// What of a tuner is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Who it is.
    Discover,
    /// What it plays.
    Lineup(Spelling),
    /// Whether it looks for channels.
    LineupStatus,
    /// That it look for channels.
    Scan,
    /// Who it is, in the words of UPnP.
    Description,
    /// The channel of this number; `None` for what is no number of a channel.
    Channel(Option<u32>),
}

/// How a lineup is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Json,
    Xml,
    M3u,
}

impl Asked {
    /// What this path of a device asks for.
    pub(super) fn of(names: &[&str]) -> Option<Self> {
        Some(match names {
            ["discover.json"] => Self::Discover,
            ["lineup.json"] => Self::Lineup(Spelling::Json),
            ["lineup.xml"] => Self::Lineup(Spelling::Xml),
            ["lineup.m3u"] => Self::Lineup(Spelling::M3u),
            ["lineup_status.json"] => Self::LineupStatus,
            ["lineup.post"] => Self::Scan,
            ["device.xml" | "capability"] => Self::Description,
            // A tuner of its own choosing, or any that is free: ours are all the same.
            [tuner, channel] if is_tuner(tuner) => Self::Channel(number_of(channel)),
            _ => return None,
        })
    }

    /// What answers it beside OPTIONS, as `Allow` has it.
    fn methods(self) -> &'static str {
        if self == Self::Scan { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" }
    }
}

fn is_tuner(name: &str) -> bool {
    let number = name.strip_prefix("tuner");
    name == "auto"
        || number.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The number of `v101`.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('v')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// What has to be asked for to play the channel of this number.
///
/// # Errors
///
/// What to answer when there is none.
pub(super) fn wanted(context: &Context, number: Option<u32>) -> Result<Wanted, Response> {
    let list = context.channels.get();
    let channel = number.and_then(|number| list.by_number(number));
    channel.and_then(|channel| channel.wanted()).ok_or_else(|| {
        let detail = "there is no channel of this number; /lineup.json lists them";
        said_as_a_device(Response::error(Code::NotFound, &detail))
    })
}

/// Answers what a tuner is asked. `None` where none is switched on, and for what is answered as everywhere.
pub(super) fn answer(context: &Context, request: &Request, asked: Asked) -> Option<Response> {
    let tuner = context.tuner.as_ref()?;
    match request.method() {
        // As everywhere.
        Method::Options => return None,
        Method::Post if asked == Asked::Scan => {}
        Method::Get | Method::Head if asked != Asked::Scan => {}
        _ => {
            let detail = format!("only {} are answered here", asked.methods());
            return Some(Response::error(Code::MethodNotAllowed, &detail).with("Allow", asked.methods()));
        }
    }
    let Some(base) = base_url(context.server.get().public_url.as_ref(), request) else {
        let detail = "the request's Host is none that a URL can have; set public_url";
        return Some(Response::error(Code::BadRequest, &detail));
    };
    Some(match asked {
        Asked::Discover => json(&Discover::of(&tuner.device(context.max_channels()), &base)),
        Asked::Lineup(spelling) => {
            let list = context.channels.get();
            let playable = list.channels().iter().filter(|channel| !channel.sources.is_empty());
            let entries = playable.map(|channel| Entry { number: channel.number, name: &channel.name });
            match spelling {
                Spelling::Json => of_type(JSON, lineup::json(&base, entries)),
                Spelling::Xml => of_type(XML, lineup::xml(&base, entries)),
                Spelling::M3u => of_type(M3U, lineup::m3u(&base, entries)),
            }
        }
        Asked::LineupStatus => json(&LineupStatus::IDLE),
        Asked::Description => of_type(XML, description(&tuner.device(context.max_channels()), &base)),
        Asked::Scan | Asked::Channel(_) => of_type(JSON, b"{}\n".to_vec()),
    })
}

const XML: &str = "application/xml; charset=\"utf-8\"";
const M3U: &str = "audio/x-mpegurl; charset=utf-8";

fn json(value: &impl serde::Serialize) -> Response {
    let mut response = Response::json(200, value);
    response.headers.retain(|(name, _)| *name != "Content-Type");
    response.with("Content-Type", JSON)
}

fn of_type(kind: &'static str, body: Vec<u8>) -> Response {
    Response::empty(200).with("Content-Type", kind).with("Cache-Control", "no-store").with_body(body)
}

/// A refusal as a device says it: its own code in a header, and 503 for all that is wrong with a channel it knows
/// (playlist-facts.md section 3.1). The body stays.
pub(super) fn said_as_a_device(mut response: Response) -> Response {
    let Some(code) = response.code else { return response };
    let said = match code {
        Code::NotFound | Code::BadRequest => "801 Unknown Channel",
        Code::AtCapacity => "805 All Tuners In Use",
        Code::ShuttingDown => "803 System Busy",
        Code::StartTimeout => "807 No Video Data",
        _ => "806 Tune Failed",
    };
    if response.status > 503 || response.status == 502 {
        response.status = 503;
    }
    response.with("X-HDHomeRun-Error", said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_device_is_what_it_is() {
        for (path, asked) in [
            ("discover.json", Some(Asked::Discover)),
            ("lineup.json", Some(Asked::Lineup(Spelling::Json))),
            ("lineup.xml", Some(Asked::Lineup(Spelling::Xml))),
            ("lineup.m3u", Some(Asked::Lineup(Spelling::M3u))),
            ("lineup_status.json", Some(Asked::LineupStatus)),
            ("lineup.post", Some(Asked::Scan)),
            ("device.xml", Some(Asked::Description)),
            ("capability", Some(Asked::Description)),
            ("auto/v101", Some(Asked::Channel(Some(101)))),
            ("tuner0/v7", Some(Asked::Channel(Some(7)))),
            ("auto/v", Some(Asked::Channel(None))),
            ("auto/v+7", Some(Asked::Channel(None))),
            ("auto/v7.1", Some(Asked::Channel(None))),
            ("auto/101", Some(Asked::Channel(None))),
            ("auto/v99999999999", Some(Asked::Channel(None))),
            ("tuner/v7", None),
            ("tunerx/v7", None),
            ("auto", None),
            ("lineup.json/x", None),
        ] {
            assert_eq!(Asked::of(&path.split('/').collect::<Vec<_>>()), asked, "{path}");
        }
    }

    #[test]
    fn a_refusal_has_the_code_of_a_device() {
        for (code, status, said) in [
            (Code::NotFound, 404, "801 Unknown Channel"),
            (Code::AtCapacity, 503, "805 All Tuners In Use"),
            (Code::NoEngine, 503, "806 Tune Failed"),
            (Code::EngineError, 503, "806 Tune Failed"),
            (Code::StartTimeout, 503, "807 No Video Data"),
            (Code::ShuttingDown, 503, "803 System Busy"),
        ] {
            let response = said_as_a_device(Response::error(code, &"why"));
            assert_eq!(response.status, status, "{code:?}");
            assert!(response.headers.contains(&("X-HDHomeRun-Error", said.to_owned())), "{response:?}");
        }
    }
}

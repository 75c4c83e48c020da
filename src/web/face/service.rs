//! What an engine is asked about itself: its version, whether it is well, what files a content has (engine-contract.md
//! section 6).
//!
//! It answers for the engines behind: it is well when one of them is.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::engine::error::EngineError;
use crate::http::response::Response;
use crate::id::{ContentKey, KeyError};
use crate::web::context::Context;

use super::envelope::{Envelope, answer, bad, good};

/// The engine whose questions these are; told where no engine behind tells a version of its own line.
const VERSION: (u32, u32, u32) = (3, 2, 3);

/// What is known of a content takes milliseconds; else an engine asks its network, 5 s as measured (engine-contract.md
/// section 2).
const FILES_LIMIT: Duration = Duration::from_secs(8);

/// A name of a function, for JSONP: nothing else may be put into a page.
const MAX_CALLBACK_BYTES: usize = 64;

/// A question about the engine.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::web) struct Service {
    method: Method,
    envelope: Envelope,
    callback: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Method {
    Version,
    Status,
    Network,
    Token,
    Files(Result<ContentKey, KeyError>),
    Unknown,
}

impl Service {
    pub(super) fn of(
        pairs: &[(String, String)],
        envelope: Envelope,
        key: impl Fn(&[&(String, String)]) -> Result<ContentKey, KeyError>,
    ) -> Self {
        let named = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let method = match named("method") {
            Some("get_version") => Method::Version,
            Some("get_status") => Method::Status,
            Some("get_network_connection_status") => Method::Network,
            Some("get_api_access_token") => Method::Token,
            Some("get_media_files") => Method::Files(key(&pairs.iter().collect::<Vec<_>>())),
            _ => Method::Unknown,
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte);
        let is_name =
            |name: &&str| (1..=MAX_CALLBACK_BYTES).contains(&name.len()) && name.bytes().all(is_plain);
        let callback = named("callback").filter(|_| named("format") == Some("jsonp")).filter(is_name);
        Self { method, envelope, callback: callback.map(str::to_owned) }
    }

    /// The answer.
    pub(super) fn answer(&self, context: &Context) -> Response {
        let bad = |text: &str| bad(self.envelope, text);
        let text = match &self.method {
            Method::Version => good(self.envelope, Version::of(context)),
            Method::Status => {
                let status = Status { playlist_loaded: is_well(context), version: Version::of(context) };
                good(self.envelope, status)
            }
            Method::Network => good(self.envelope, serde_json::json!({ "connected": is_well(context) })),
            // It opens nothing: what needs a token at an engine is not there.
            Method::Token => {
                let parts: String =
                    std::iter::repeat_with(|| format!("{:016x}", fastrand::u64(..))).take(4).collect();
                good(self.envelope, serde_json::json!({ "token": parts }))
            }
            Method::Files(Ok(key)) => match files(context, key) {
                Ok(files) => good(self.envelope, files),
                Err(text) => bad(&text),
            },
            Method::Files(Err(_)) => bad(NO_FILE),
            Method::Unknown => bad("unknown method"),
        };
        match &self.callback {
            Some(name) => {
                let body = [name.as_bytes(), b"(", &text, b");"].concat();
                answer(Vec::new()).with_body(body).with_type("application/javascript")
            }
            None => answer(text),
        }
    }
}

/// An engine's words when it does not know a content's files.
const NO_FILE: &str = "cannot get transport file";

/// What an engine tells of how it is.
#[derive(Serialize)]
struct Status {
    playlist_loaded: bool,
    version: Version,
}

/// What an engine tells of its version.
#[derive(Serialize)]
struct Version {
    code: u32,
    platform: &'static str,
    version: String,
    /// Ours, beside the engine's.
    acerelay: &'static str,
}

impl Version {
    fn of(context: &Context) -> Self {
        let engines = context.pool.engines();
        let told =
            engines.iter().filter_map(|engine| engine.health().version).find_map(|text| numbers(&text));
        let (major, minor, patch) = told.unwrap_or(VERSION);
        Self {
            code: major * 1_000_000 + minor * 10_000 + patch * 100,
            platform: "linux",
            version: format!("{major}.{minor}.{patch}"),
            acerelay: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// The numbers of a version of the official line, `3.1.75rc4`: by it clients tell what they may ask.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end.min(3)].parse().ok()
    });
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
    (major == VERSION.0 && minor < 100 && patch < 100).then_some((major, minor, patch))
}

/// Whether an engine behind is well.
fn is_well(context: &Context) -> bool {
    context.pool.engines().iter().any(|engine| engine.health().is_up == Some(true))
}

/// What the first engine that knows it tells of the files of a content; else why the last one did not.
fn files(context: &Context, key: &ContentKey) -> Result<Value, String> {
    let mut error = NO_FILE.to_owned();
    for engine in context.pool.engines().iter().filter(|engine| engine.is_usable()) {
        match engine.api.media_files(key.name, FILES_LIMIT) {
            Ok(files) => return Ok(files),
            Err(EngineError::Said(text)) => error = text,
            Err(_) => {}
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_of_the_official_line_is_told() {
        for (text, expected) in [
            ("3.1.75rc4", Some((3, 1, 75))),
            ("3.2.3", Some((3, 2, 3))),
            ("3.2.11.1", Some((3, 2, 11))),
            ("0.2.0", None),
            ("3.2", None),
            ("", None),
            ("3.x.1", None),
            ("3.4294967295.1", None),
        ] {
            assert_eq!(numbers(text), expected, "{text}");
        }
    }
}

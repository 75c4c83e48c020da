//! The engine's control calls: open a session, stop it (engine-contract.md sections 1, 2 and 4).
//!
//! Every call has a deadline and a connection of its own. Answers are read leniently, since they differ from
//! version to version: errors as text or object, numbers as text, missing fields, two kinds of envelope.

use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

use crate::id::{ContentKey, Digest};

use super::agent::base_config;
use super::answer::{envelope, integer_of, text_of};
use super::error::{EngineError, classify};
use super::stat::Stat;
use super::url::Target;

/// Far more than any answer of an engine.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// The control side of one engine.
pub struct Api {
    authority: String,
    agent: Agent,
}

/// Whether a content is live; an engine may say so late or change its mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// A broadcast: its end is the loss of the source.
    Live,
    /// A file: its end is the end.
    Vod,
    /// The engine does not say.
    Unknown,
}

/// A session that an engine has opened and that must be stopped. It cannot be cloned, and [`Api::stop`]
/// takes it by value: one owner, one stop.
#[derive(Debug)]
#[must_use = "an opened session must be stopped"]
pub struct EngineSession {
    /// Where the stream is played from, or why it cannot be: the session is open, and to be stopped, all the same.
    pub playback: Result<Target, EngineError>,
    /// Which content the engine found behind the name asked for.
    pub infohash: Option<Digest>,
    /// The engine's name for the session, for people; it may change while the session lives.
    pub playback_session_id: Option<String>,
    /// Live or not.
    pub liveness: Liveness,
    /// Where the session is asked about, if it can be.
    pub stat: Option<Target>,
    command: Option<Target>,
}

impl Api {
    /// The control side of the engine at this `host:port`.
    #[must_use]
    pub fn new(authority: String) -> Self {
        // One connection a call: an engine restarted in between must not be met on a stale one.
        let agent = base_config().max_idle_connections(0).build().new_agent();
        Self { authority, agent }
    }

    /// The engine's `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Opens a session (`getstream`, `format=json`) under a fresh player id, so that no session of another
    /// content is replaced by it.
    ///
    /// # Errors
    ///
    /// When the engine does not answer until `deadline`, or its answer is an error or none.
    pub fn open(&self, key: &ContentKey, deadline: Instant) -> Result<EngineSession, EngineError> {
        let pid = format!("{:016x}", fastrand::u64(..));
        let limit = deadline.saturating_duration_since(Instant::now());
        let (status, text) = self.get(&Target::getstream(key, &pid), limit)?;
        read_engine_session(status, &text)
    }

    /// The infohash behind a content id, which opens no session.
    ///
    /// # Errors
    ///
    /// When the engine does not know it within `limit`.
    pub fn infohash_of(&self, id: Digest, limit: Duration) -> Result<Option<Digest>, EngineError> {
        let (status, text) = self.get(&Target::media_files(id), limit)?;
        let answer = envelope(status, &text)?;
        Ok(answer.get("infohash").and_then(Value::as_str).and_then(|hash| hash.parse().ok()))
    }

    /// Ends a session on the engine. That it does not know the session any more is a success.
    ///
    /// # Errors
    ///
    /// When the engine did not confirm within `limit`; the session is never asked to stop again, whatever the answer.
    pub fn stop(&self, session: EngineSession, limit: Duration) -> Result<(), EngineError> {
        let Some(command) = session.command else {
            // Sessions that bypass the network have none (`is_direct`, engine-contract.md section 2).
            return Ok(());
        };
        let (status, text) = self.get(&command.with("method=stop"), limit)?;
        match envelope(status, &text) {
            Ok(_) => Ok(()),
            Err(error) if error.is_unknown_session() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends a call in progress and refuses further ones.
    pub fn interrupt(&self) {
        self.agent.clone().shutdown();
    }

    fn get(&self, target: &Target, limit: Duration) -> Result<(u16, String), EngineError> {
        let request = self.agent.get(target.on(&self.authority)).config();
        let request = request.timeout_global(Some(limit)).build();
        let response = request.call().map_err(|error| classify(error, limit))?;
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let body = match body {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(EngineError::NoAnswer("it does not end")),
            Err(error) => return Err(classify(error, limit)),
        };
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn read_engine_session(status: u16, text: &str) -> Result<EngineSession, EngineError> {
    let answer = envelope(status, text)?;
    let target =
        |field| answer.get(field).and_then(Value::as_str).filter(|url| !url.is_empty()).map(Target::rebase);
    let playback = match target("playback_url") {
        Some(playback) => playback.map_err(EngineError::from),
        None => Err(EngineError::NoAnswer("it names no playback URL")),
    };
    let command = target("command_url").and_then(Result::ok);
    let (playback, command) = match (playback, command) {
        // Neither to be played nor to be stopped.
        (Err(error), None) => return Err(error),
        both => both,
    };
    Ok(EngineSession {
        playback,
        stat: target("stat_url").and_then(Result::ok),
        command,
        infohash: answer.get("infohash").and_then(Value::as_str).and_then(|hash| hash.parse().ok()),
        playback_session_id: answer.get("playback_session_id").and_then(text_of),
        liveness: match answer.get("is_live").and_then(integer_of) {
            Some(1) => Liveness::Live,
            Some(0) => Liveness::Vod,
            _ => Liveness::Unknown,
        },
    })
}

impl Api {
    /// Asks about a session, without counting as its player's activity.
    ///
    /// # Errors
    ///
    /// When the engine does not answer within `limit`, or does not know the session.
    pub fn stat(&self, session: &Target, limit: Duration) -> Result<Stat, EngineError> {
        let (status, text) = self.get(&session.with("skip_player_activity=1"), limit)?;
        Ok(Stat::read(&envelope(status, &text)?))
    }
}

/// Asks an engine how it is (engine-contract.md section 6). Both calls are needed: a hung engine still tells its
/// version.
impl Api {
    /// The engine's version, if it is well: `get_version` and `get_status` both answer with a result, and its
    /// playlist is not expressly still loading.
    ///
    /// # Errors
    ///
    /// When one of the two does not answer within `limit`, or not well.
    pub fn check_health(&self, limit: Duration) -> Result<Option<String>, EngineError> {
        let (status, text) = self.get(&Target::GET_VERSION, limit)?;
        let version = envelope(status, &text)?.get("version").and_then(text_of);
        let (status, text) = self.get(&Target::GET_STATUS, limit)?;
        match envelope(status, &text)?.get("playlist_loaded") {
            Some(Value::Bool(false)) => Err(EngineError::NoAnswer("its playlist is still loading")),
            _ => Ok(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(status: u16, text: &str, expected: Result<(&str, Liveness), EngineError>) {
        let session = read_engine_session(status, text);
        let found = session.and_then(|session| Ok((session.playback?.on("box:1"), session.liveness)));
        assert_eq!(found, expected.map(|(url, live)| (format!("http://box:1{url}"), live)), "{text}");
    }

    #[test]
    fn every_shape_of_a_good_answer_is_read() {
        check(
            200,
            r#"{"response": {"playback_url": "http://x/ace/r/a/b", "is_live": 1}, "error": null}"#,
            Ok(("/ace/r/a/b", Liveness::Live)),
        );
        check(
            200,
            r#"{"response": {"playback_url": "http://x/ace/r/a/b", "is_live": "0"}}"#,
            Ok(("/ace/r/a/b", Liveness::Vod)),
        );
        check(
            200,
            r#"{"result": {"playback_url": "/ace/r/a/b", "is_live": -1}, "error": ""}"#,
            Ok(("/ace/r/a/b", Liveness::Unknown)),
        );
        check(
            200,
            r#"{"result": {"playback_url": "/ace/r/a/b", "is_live": true}}"#,
            Ok(("/ace/r/a/b", Liveness::Live)),
        );
        let text = format!(
            r#"{{"response": {{"playback_url": "http://x/ace/r/a/b", "command_url": "http://y:9/ace/cmd/a/b",
                "infohash": "{HASH}", "playback_session_id": 77}}, "error": null}}"#
        );
        let session = read_engine_session(200, &text).expect("a good answer");
        assert_eq!(session.infohash, HASH.parse().ok());
        assert_eq!(session.playback_session_id.as_deref(), Some("77"));
        let stop = session.command.expect("a command URL").with("method=stop").on("box:1");
        assert_eq!(stop, "http://box:1/ace/cmd/a/b?method=stop");
    }

    #[test]
    fn a_session_that_cannot_be_played_can_still_be_stopped() {
        for url in ["null", "\"/etc/passwd\""] {
            let text = format!(r#"{{"response": {{"playback_url": {url}, "command_url": "/ace/cmd/a/b"}}}}"#);
            let session = read_engine_session(200, &text).expect("an opened session");
            assert!(session.playback.is_err() && session.command.is_some(), "{session:?}");
        }
    }

    #[test]
    fn every_shape_of_a_bad_answer_has_its_error() {
        let said = |text: &str| Err(EngineError::Said(text.to_owned()));
        check(
            200,
            r#"{"response": null, "error": "failed to load content"}"#,
            said("failed to load content"),
        );
        check(200, r#"{"error": {"message": "no such thing", "code": 0}}"#, said("no such thing"));
        check(500, r#"{"error": "out of memory"}"#, said("out of memory"));
        check(200, r#"{"error": {"code": 3}}"#, said(r#"{"code":3}"#));
        check(
            500,
            "Internal  Server\r\nError",
            Err(EngineError::Status(500, "Internal Server Error".into())),
        );
        check(404, "", Err(EngineError::Status(404, String::new())));
        check(302, "", Err(EngineError::Status(302, String::new())));
        check(200, "<html></html>", Err(EngineError::NoAnswer("it is HTML where JSON was expected")));
        check(200, r#"{"response": {"#, Err(EngineError::NoAnswer("it is not JSON")));
        check(200, "[]", Err(EngineError::NoAnswer("it is no JSON object")));
        check(200, r#"{"response": null, "error": null}"#, Err(EngineError::NoAnswer("it is empty")));
        check(200, r#"{"response": {}}"#, Err(EngineError::NoAnswer("it names no playback URL")));
        check(
            200,
            r#"{"response": {"playback_url": null}}"#,
            Err(EngineError::NoAnswer("it names no playback URL")),
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(status in 0_u16..1000, text in "\\PC{0,80}|\\{\"(response|result|error)\": ?[{\\[\"a-z0-9:,}\\] ]{0,60}") {
            let _session = read_engine_session(status, &text);
        }
    }
}

//! The engine's control calls: open a session, stop it (engine-contract.md sections 1, 2 and 4).
//!
//! Every call has a deadline and a connection of its own. Answers are read leniently, since they differ from
//! version to version: errors as text or object, numbers as text, missing fields, two kinds of envelope.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use crate::id::{ContentKey, ContentName, Digest};

use super::agent::{Bounded, Line};
use super::answer::{envelope, excerpt, integer_of, text_of};
use super::error::{EngineError, Failed, classify_body};
use super::host::Host;
use super::pulse::Pulse;
use super::relays::Relays;
use super::stat::Stat;
use super::url::Target;

/// Far more than any answer of an engine.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// The control side of one engine.
pub struct Api {
    host: Arc<Host>,
    pulse: Arc<Pulse>,
    lines: Mutex<Lines>,
}

/// Calls are cut by the line. Those that open or stop a session are never cut because their engine is down: they may yet be
/// heard, and only the answer to a getstream tells how its session is stopped.
struct Lines {
    calls: Arc<Line>,
    opens: Arc<Line>,
    stops: Arc<Line>,
    is_closed: bool,
}

/// How a session is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// As the engine sees fit: it may give again what it has of this content.
    Plain,
    /// What the engine still has of this content is begun anew: the way out of a download that is stuck.
    Restart,
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
    /// The control side of the engine at this `host:port`, for a relay that nobody asks.
    #[must_use]
    #[allow(dead_code, reason = "tests ask an engine without a pool")]
    pub fn new(authority: &str) -> Self {
        Self::of(authority, Arc::default())
    }

    /// The control side of the engine at this `host:port`, for one of these relays.
    pub(super) fn of(authority: &str, relays: Arc<Relays>) -> Self {
        Self::with(Host::new(authority, relays), Arc::new(Pulse::new(Instant::now())))
    }

    fn with(host: Arc<Host>, pulse: Arc<Pulse>) -> Self {
        let [calls, opens, stops] = [(); 3].map(|()| Arc::new(Line::new(&host)));
        Self { host, pulse, lines: Mutex::new(Lines { calls, opens, stops, is_closed: false }) }
    }

    /// Another one of the same engine, to be interrupted apart from this.
    #[must_use]
    pub(super) fn another(&self) -> Self {
        Self::with(Arc::clone(&self.host), Arc::clone(&self.pulse))
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The engine's `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.host.authority()
    }

    /// Opens a session (`getstream`, `format=json`) under a fresh player id, so that no session of another
    /// content is replaced by it. It waits on when the engine goes down.
    ///
    /// # Errors
    ///
    /// When the engine does not answer until `deadline`, or its answer is an error or none.
    pub fn open(
        &self,
        key: &ContentKey,
        opening: Opening,
        deadline: Instant,
    ) -> Result<EngineSession, EngineError> {
        let pid = format!("{:016x}", fastrand::u64(..));
        let target = Target::getstream(key, &pid);
        let target = match opening {
            Opening::Plain => target,
            Opening::Restart => target.with("force_session_restart=1"),
        };
        let line = Arc::clone(&self.lines.lock().opens);
        self.ask(&line, &target, deadline, |status, text| match read_engine_session(status, text) {
            // Of a playback URL this would tell of the content.
            Err(EngineError::Status(404, _)) => {
                Err(EngineError::NoAnswer("it does not know getstream (status 404)"))
            }
            outcome => outcome,
        })
    }

    /// What the engine tells of the files of a content, which opens no session: the answer itself.
    ///
    /// # Errors
    ///
    /// When it does not answer within `limit`, or with an error.
    pub fn media_files(&self, name: ContentName, limit: Duration) -> Result<Value, EngineError> {
        let line = Arc::clone(&self.lines.lock().calls);
        self.ask(&line, &Target::media_files(name), Instant::now() + limit, envelope)
    }

    /// The infohash behind a content id, which opens no session.
    ///
    /// # Errors
    ///
    /// When the engine does not know it within `limit`.
    pub fn infohash_of(&self, id: Digest, limit: Duration) -> Result<Option<Digest>, EngineError> {
        let line = Arc::clone(&self.lines.lock().calls);
        self.ask(&line, &Target::media_files(ContentName::Id(id)), Instant::now() + limit, |status, text| {
            let answer = envelope(status, text)?;
            Ok(answer.get("infohash").and_then(Value::as_str).and_then(|hash| hash.parse().ok()))
        })
    }

    /// The names of the files that a content consists of, which opens no session.
    ///
    /// # Errors
    ///
    /// When the engine does not know them within `limit`.
    pub fn files_of(&self, name: ContentName, limit: Duration) -> Result<Vec<String>, EngineError> {
        let line = Arc::clone(&self.lines.lock().calls);
        self.ask(&line, &Target::media_files(name), Instant::now() + limit, |status, text| {
            let answer = envelope(status, text)?;
            let files = answer.get("files").and_then(Value::as_array);
            let name = |file: &Value| file.get("filename").and_then(text_of);
            Ok(files.map(|files| files.iter().filter_map(name).collect()).unwrap_or_default())
        })
    }

    /// Ends a session on the engine. That it does not know the session any more is a success. It does not panic, since it may
    /// be called in a drop.
    ///
    /// # Errors
    ///
    /// When the engine did not confirm within `limit`; the session is never asked to stop again, whatever the answer.
    pub fn stop(&self, session: EngineSession, limit: Duration) -> Result<(), EngineError> {
        let Some(command) = session.command else {
            // Sessions that bypass the network have none (`is_direct`, engine-contract.md section 2).
            return Ok(());
        };
        let line = Arc::clone(&self.lines.lock().stops);
        let ask = || self.get(&line, &command.with("method=stop"), Instant::now() + limit);
        let (status, text) = catch_unwind(AssertUnwindSafe(ask))
            .unwrap_or_else(|_| Err(EngineError::Lost("the stop could not be sent".to_owned())))?;
        match envelope(status, &text) {
            Ok(_) => Ok(()),
            Err(error) if error.is_unknown_session() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends all calls in progress but those that open or stop a session; they fail with [`EngineError::Down`]. Later ones work.
    pub fn interrupt_calls(&self) {
        let cut = {
            let mut lines = self.lines.lock();
            if lines.is_closed {
                return;
            }
            std::mem::replace(&mut lines.calls, Arc::new(Line::new(&self.host)))
        };
        cut.cut();
    }

    /// Ends all calls in progress and refuses further ones.
    pub fn interrupt(&self) {
        let cut = {
            let mut lines = self.lines.lock();
            lines.is_closed = true;
            [&lines.calls, &lines.opens, &lines.stops].map(Arc::clone)
        };
        cut.iter().for_each(|line| line.cut());
    }

    /// Asks something on this line, and reads the answer.
    fn ask<T>(
        &self,
        line: &Line,
        target: &Target,
        deadline: Instant,
        read: impl FnOnce(u16, &str) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let outcome = self.get(line, target, deadline).and_then(|(status, text)| read(status, &text));
        // An answer that was cut short can look like any error; that nobody is there is known better here.
        outcome.map_err(|error| if line.is_cut() && !error.is_refused() { EngineError::Down } else { error })
    }

    /// The same of a question that an engine in good health answers at once.
    fn ask_briefly<T>(
        &self,
        target: &Target,
        limit: Duration,
        read: impl FnOnce(u16, &str) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let line = Arc::clone(&self.lines.lock().calls);
        let now = Instant::now();
        self.pulse.ask(now);
        let outcome = self.ask(&line, target, now + limit, read);
        match &outcome {
            Err(error) if error.is_silence() => self.pulse.miss(),
            // Nobody there is no silence; it has its own consequences.
            Err(error) if error.is_nobody() => self.pulse.reset(),
            _ => {}
        }
        outcome
    }

    fn get(&self, line: &Line, target: &Target, deadline: Instant) -> Result<(u16, String), EngineError> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let response = line.get(target, deadline, Bounded::Answer)?;
        self.pulse.answer(Instant::now());
        let status = response.status().as_u16();
        let body = response.into_body().into_with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let body = match body {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(EngineError::NoAnswer("it does not end")),
            Err(error) => return Err(classify_body(error, limit)),
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
        let target = session.with("skip_player_activity=1");
        self.ask_briefly(&target, limit, |status, text| Ok(Stat::read(&envelope(status, text)?)))
    }
}

/// What an engine said of its health.
enum Word {
    /// It answered well.
    Well(Value),
    /// It has no such question: an answer, but not to it.
    Unknown,
    /// Something that no engine says.
    Unusable(EngineError),
}

/// A version is good to know, but nobody waits long for it.
const VERSION_LIMIT: Duration = Duration::from_secs(2);

/// Asks an engine how it is (engine-contract.md sections 6 and 13).
impl Api {
    /// The engine's version, if it is well and tells it. It is well when `get_status` answers well, since a hung engine
    /// still tells its version; or, where there is no such question, when it tells its version in either place, or has an
    /// answer at all. Only silence, a connection that fails, a status of 5xx and an express `playlist_loaded: false` count
    /// against it.
    ///
    /// # Errors
    ///
    /// When one of these speaks against it, each question asked for `limit` at most, or when nothing it says is an engine's.
    pub fn check_health(&self, limit: Duration) -> Result<Option<String>, Failed> {
        let versions = || [("get_version", Target::GET_VERSION), ("get_version", Target::GET_VERSION_OF_API)];
        let failed = |question| move |error| Failed { question, error };
        let mut is_engine = false;
        let mut unusable = None;
        match self.question(&Target::GET_STATUS, limit).map_err(failed("get_status"))? {
            Word::Well(status) if status.get("playlist_loaded") == Some(&Value::Bool(false)) => {
                let error = EngineError::NoAnswer("its playlist is still loading");
                return Err(Failed { question: "get_status", error });
            }
            Word::Well(status) => {
                // Whatever becomes of these, the engine is well.
                let told = versions().into_iter().find_map(|(_, target)| {
                    match self.question(&target, limit.min(VERSION_LIMIT)) {
                        Ok(Word::Well(answer)) => version_of(&answer),
                        _ => None,
                    }
                });
                return Ok(told.or_else(|| status.get("version").and_then(version_of)));
            }
            Word::Unknown => is_engine = true,
            Word::Unusable(error) => unusable = Some(Failed { question: "get_status", error }),
        }
        for (question, target) in versions() {
            match self.question(&target, limit).map_err(failed(question))? {
                Word::Well(answer) => return Ok(version_of(&answer)),
                Word::Unknown => is_engine = true,
                Word::Unusable(error) => {
                    unusable.get_or_insert(Failed { question, error });
                }
            }
        }
        match unusable {
            Some(failed) if !is_engine => Err(failed),
            _ => Ok(None),
        }
    }

    fn question(&self, target: &Target, limit: Duration) -> Result<Word, EngineError> {
        self.ask_briefly(target, limit, |status, text| match envelope(status, text) {
            _ if status >= 500 => Err(EngineError::Status(status, excerpt(text))),
            Ok(answer) => Ok(Word::Well(answer)),
            Err(EngineError::Status(..) | EngineError::Said(_)) => Ok(Word::Unknown),
            Err(error) => Ok(Word::Unusable(error)),
        })
    }
}

/// The version in an answer: `{"version": "3.2.3"}`, or that within another.
fn version_of(answer: &Value) -> Option<String> {
    let version = answer.get("version")?;
    text_of(version).or_else(|| version.get("version").and_then(text_of))
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

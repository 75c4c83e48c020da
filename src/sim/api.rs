//! The calls of the engine's HTTP interface: which path does what, and what it answers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::HostName;
use super::counts::{Counts, RequestRecord};
use super::http::{Answer, Connection};
use super::playback;
use super::script::{Call, Getstream, Health};
use super::sessions::{Opened, Session, Wish};
use super::state::{Held, Playable, Shared, State};
use crate::id::Digest;

/// What all calls say of a session that is not there (engine-contract.md 2).
const UNKNOWN_SESSION: &str = "unknown playback session id";
/// What getstream says of content that is not there.
const UNKNOWN_CONTENT: &str = "failed to load content";
/// Engines count in pieces of this size.
const PIECE_BYTES: u64 = 16_384;

/// What becomes of the connection once a request was dealt with.
pub(super) enum Reply {
    /// This is answered.
    Answer(Answer),
    /// Everything is said; the connection ends.
    Close,
    /// The connection is reset.
    Reset,
}

impl Reply {
    pub(super) fn error_text(text: &str) -> Self {
        Self::Answer(Answer::json("response", &Value::Null, Some(&json!(text))))
    }

    fn response(value: &Value) -> Self {
        Self::Answer(Answer::json("response", value, Some(&Value::Null)))
    }
}

/// A request and where it came in.
pub(super) struct Request<'a> {
    pub(super) shared: &'a Shared,
    pub(super) connection: &'a Connection,
    pub(super) record: &'a RequestRecord,
}

/// Serves a connection to its end.
pub(super) fn serve(shared: &Arc<Shared>, mut connection: Connection, number: u64) -> io::Result<()> {
    while let Some(record) = connection.read_request(shared.started.elapsed())? {
        log::trace!(
            "simulated engine, connection {number}: {} {}",
            record.method,
            record.path
        );
        shared.update(|state| state.requests.push(record.clone()));
        let length = record
            .header("Content-Length")
            .and_then(|value| value.parse().ok());
        connection.skip_body(length.unwrap_or(0))?;
        let request = Request {
            shared,
            connection: &connection,
            record: &record,
        };
        match request.dispatch()? {
            Reply::Answer(answer) => {
                connection.send(&answer)?;
                let keeps = record.minor_version == 1
                    && !record
                        .header("Connection")
                        .is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if answer.is_redirect() && keeps {
                    // Without a length the redirect's body ends with the connection: whoever says more on it
                    // has taken it for a finished answer.
                    if connection.wait_for_end() {
                        shared.update(|state| state.totals.after_redirect += 1);
                    }
                    return Ok(());
                }
                if answer.closes() || !keeps {
                    connection.end_cleanly();
                    return Ok(());
                }
            }
            Reply::Close => {
                connection.end_cleanly();
                return Ok(());
            }
            Reply::Reset => {
                connection.reset_on_close();
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Request<'_> {
    fn dispatch(&self) -> io::Result<Reply> {
        let health = self.shared.lock().health.clone();
        if health == Health::Hangs {
            return Ok(self.hang(|state| state.health != Health::Hangs));
        }
        match self.record.method.as_str() {
            "GET" => {}
            // A POST carries a transport file, which this engine does not read.
            "POST" => return Ok(Reply::Answer(Answer::error(405, "Method Not Allowed"))),
            "HEAD" => {
                let refusal = Answer::error(501, "Unsupported method ('HEAD')");
                return Ok(Reply::Answer(refusal.without_body()));
            }
            other => {
                let reason = format!("Unsupported method ('{other}')");
                return Ok(Reply::Answer(Answer::error(501, &reason)));
            }
        }
        let parts: Vec<_> = self.record.path.split('/').skip(1).collect();
        let reply = match *parts.as_slice() {
            ["ace", "getstream"] => self.getstream(),
            ["ace", "manifest.m3u8"] => {
                // HLS output needs a segmenter that some engines lack (engine-contract.md 8.2).
                Reply::Answer(Answer::plain(
                    500,
                    "Internal Server Error, couldn't find resource",
                ))
            }
            ["ace", "stat", infohash, token] => self.stat(infohash, token),
            ["ace", "cmd", infohash, token] => self.command(infohash, token),
            ["ace", "r", infohash, token] => return playback::entry(self, infohash, token),
            ["content", infohash, name] => return playback::content(self, infohash, name),
            ["webui", "api", "service"] => self.service(&health),
            ["server", "api"] => self.server_api(&health),
            _ => Reply::Answer(Answer::error(404, "File not found")),
        };
        Ok(reply)
    }

    /// The engine's own base URL, as this request is to see it.
    pub(super) fn base_url(&self) -> io::Result<String> {
        let host = match (&self.shared.settings.host, self.record.header("Host")) {
            (HostName::Fixed(host), _) => host.clone(),
            (HostName::OfRequest, Some(host)) => host.to_owned(),
            (HostName::OfRequest, None) => self.connection.local_addr()?.to_string(),
        };
        Ok(format!("http://{host}"))
    }

    pub(super) fn hold(&self, until: Option<Instant>, is_released: impl FnMut(&State) -> bool) -> Held {
        self.shared.hold(self.connection.socket(), until, is_released)
    }

    /// Says nothing, until the client goes or `is_over`.
    pub(super) fn hang(&self, is_over: impl FnMut(&State) -> bool) -> Reply {
        self.hold(None, is_over);
        Reply::Close
    }

    fn wait(&self, time: Duration) -> Held {
        self.hold(Instant::now().checked_add(time), |_| false)
    }

    /// The content that a request names, by the documented precedence; `Err` if it names none that is known.
    fn content(&self) -> Option<Result<usize, Duration>> {
        let settings = &self.shared.settings;
        let state = self.shared.lock();
        let param = |name| self.record.param(name).filter(|value| !value.is_empty());
        let digest = |text: &str| text.parse::<Digest>().ok();
        if let Some(id) = param("content_id").or_else(|| param("id")) {
            let found = digest(id).and_then(|id| state.by_id(id));
            return Some(found.ok_or(settings.unknown_id_delay));
        }
        let infohash = param("infohash").or_else(|| {
            // A URL takes precedence over a magnet link, and none is known here.
            let magnet = param("magnet").filter(|_| param("url").is_none())?;
            magnet.split_once("btih:")?.1.split('&').next()
        });
        if let Some(infohash) = infohash {
            let found = digest(infohash).and_then(|infohash| state.by_infohash(infohash));
            return Some(found.ok_or(settings.unknown_infohash_delay));
        }
        let names_something = param("url").is_some() || param("magnet").is_some();
        names_something.then_some(Err(settings.unknown_id_delay))
    }

    fn getstream(&self) -> Reply {
        let is_json = self.record.param("format") == Some("json");
        let named = self.content();
        let content = named.and_then(Result::ok);
        let step = self.shared.update(|state| {
            state.count(content, |counts| {
                counts.getstreams += 1;
                counts.getstreams_now += 1;
                counts.getstreams_max = counts.getstreams_max.max(counts.getstreams_now);
            });
            content.map_or(Getstream::Normal, |content| {
                let known = &mut state.contents[content];
                known.attempts.getstream += 1;
                known.script.getstream.at(known.attempts.getstream - 1).clone()
            })
        });
        let _pending = Pending {
            shared: self.shared,
            content,
        };
        let failed = |text: &str| {
            if is_json {
                Reply::error_text(text)
            } else {
                Reply::Answer(Answer::plain(500, text))
            }
        };
        let content = match named {
            None => return Reply::Answer(Answer::plain(500, "Internal Server Error")),
            Some(Err(delay)) => {
                self.wait(delay);
                return failed(UNKNOWN_CONTENT);
            }
            Some(Ok(content)) => content,
        };
        match &step {
            Getstream::Slow(time) => drop(self.wait_to_the_end(*time)),
            Getstream::Hang => return self.hang(|_| false),
            Getstream::Reset => return Reply::Reset,
            Getstream::Error(text) => return failed(text),
            Getstream::ErrorObject(text) => {
                let error = json!({"message": text, "code": 0});
                return Reply::Answer(Answer::json("response", &Value::Null, Some(&error)));
            }
            Getstream::Html => {
                let page = "<html><head><title>Ace Stream</title></head><body>Welcome</body></html>";
                return Reply::Answer(Answer::text(200, "text/html", page));
            }
            Getstream::Status(status, text) => return Reply::Answer(Answer::plain(*status, text)),
            _ => {}
        }
        debug_assert!(step.opens());
        let (opened, session, known) = self.open_session(content);
        if super::http::is_gone(self.connection.socket()) && opened.is_new {
            self.shared
                .update(|state| state.count(Some(content), |counts| counts.sessions_leaked += 1));
        }
        let Ok(base) = self.base_url() else {
            return Reply::Close;
        };
        let tail = format!("{}/{}", known.infohash, opened.token);
        if !is_json {
            return Reply::Answer(Answer::redirect(format!("{base}/ace/r/{tail}")));
        }
        let mut start = json!({
            "playback_url": format!("{base}/ace/r/{tail}"),
            "stat_url": format!("{base}/ace/stat/{tail}"),
            "command_url": format!("{base}/ace/cmd/{tail}"),
            "infohash": known.infohash.to_string(),
            "playback_session_id": session.id,
            "is_live": i32::from(known.is_live),
            "is_encrypted": 0,
            "client_session_id": session.client_session_id,
        });
        if self.record.param("use_api_events") == Some("1") {
            start["event_url"] = json!(format!("{base}/ace/event/{tail}"));
        }
        start_answer(&step, start)
    }

    /// Waits, however early the client goes: an engine at work does not look.
    fn wait_to_the_end(&self, time: Duration) -> Held {
        let until = Instant::now().checked_add(time);
        let held = self.hold(until, |_| false);
        let Some(until) = until else {
            return held;
        };
        self.shared.wait_for(until, |state| state.is_stopping);
        held
    }

    fn open_session(&self, content: usize) -> (Opened, Session, Arc<super::Content>) {
        let record = self.record;
        let flag = |name| record.param(name) == Some("1");
        let wish = Wish {
            content,
            player: record
                .param("pid")
                .or_else(|| record.param("sid"))
                .filter(|pid| !pid.is_empty())
                .map(str::to_owned),
            client_session_id: record
                .param("client_session_id")
                .and_then(|id| id.parse().ok())
                .unwrap_or(-1),
            newest_reads: flag("stop_prev_read_thread"),
            is_forced: flag("force_session_restart"),
        };
        self.shared.control(|state| {
            let rules = self.shared.settings.rules;
            let opened = state.sessions.open(wish, rules, Instant::now());
            state.count_ended(&opened.superseded, |counts| counts.sessions_superseded += 1);
            state.count(Some(content), |counts| {
                if opened.is_new {
                    counts.sessions_opened += 1;
                    counts.sessions_open += 1;
                } else {
                    counts.sessions_reused += 1;
                }
            });
            let session = state.sessions.get_mut(&opened.token, content).cloned();
            let session = session.expect("a session that was opened under this lock");
            (opened, session, Arc::clone(&state.contents[content].content))
        })
    }

    /// Applies a scripted fault; `None` if the call is to be answered as usual.
    fn fault(&self, step: &Call) -> Option<Reply> {
        match step {
            Call::Normal | Call::Prebuffering => None,
            Call::Slow(time) => {
                self.wait(*time);
                None
            }
            Call::Hang => Some(self.hang(|_| false)),
            Call::Reset => Some(Reply::Reset),
            Call::Text(text) => Some(Reply::Answer(Answer::plain(200, text))),
            Call::Status(status, text) => Some(Reply::Answer(Answer::plain(*status, text))),
            Call::Error(text) => Some(Reply::error_text(text)),
        }
    }

    fn command(&self, infohash: &str, token: &str) -> Reply {
        let content = self.by_path(infohash);
        let is_stop = self.record.param("method") == Some("stop");
        if !is_stop {
            let known = match (self.record.param("method"), content) {
                (Some("liveseek" | "set_stream" | "set_player_activity_timeout"), Some(content)) => {
                    self.touch(token, content)
                }
                (Some(_), Some(_)) => return Reply::error_text("unknown method"),
                _ => false,
            };
            return if known {
                Reply::response(&json!("ok"))
            } else {
                Reply::error_text(UNKNOWN_SESSION)
            };
        }
        let (step, stopped) = self.shared.control(|state| {
            state.count(content, |counts| counts.stops += 1);
            let step = content.map_or(Call::Normal, |content| {
                let known = &mut state.contents[content];
                known.attempts.stop += 1;
                known.script.stop.at(known.attempts.stop - 1).clone()
            });
            if !step.stops() {
                return (step, None);
            }
            let rules = self.shared.settings.rules;
            let stopped = content.and_then(|content| state.sessions.stop(token, content, rules));
            match (stopped, content) {
                (Some(others), Some(content)) => {
                    state.count_ended(&[content], |counts| counts.sessions_stopped += 1);
                    let others = vec![content; others];
                    state.count_ended(&others, |counts| counts.sessions_stopped_along += 1);
                }
                _ => state.count(content, |counts| counts.stops_unknown += 1),
            }
            (step, stopped)
        });
        if let Some(reply) = self.fault(&step) {
            return reply;
        }
        let is_second_version = self.record.param("api_version") == Some("2");
        match (stopped, is_second_version) {
            (Some(_), false) => Reply::response(&json!("ok")),
            (Some(_), true) => Reply::Answer(Answer::json("result", &json!("ok"), None)),
            (None, false) => Reply::error_text(UNKNOWN_SESSION),
            (None, true) => api_error(UNKNOWN_SESSION, true),
        }
    }

    /// Counts a call as activity of the session's player: whether it is there.
    fn touch(&self, token: &str, content: usize) -> bool {
        self.shared.control(|state| {
            let session = state.sessions.get_mut(token, content);
            session.map(|session| session.active = Instant::now()).is_some()
        })
    }

    pub(super) fn by_path(&self, infohash: &str) -> Option<usize> {
        let infohash = infohash.parse().ok()?;
        self.shared.lock().by_infohash(infohash)
    }

    fn stat(&self, infohash: &str, token: &str) -> Reply {
        let content = self.by_path(infohash);
        let step = self.shared.update(|state| {
            state.count(content, |counts| counts.stats += 1);
            content.map_or(Call::Normal, |content| {
                let known = &mut state.contents[content];
                known.attempts.stat += 1;
                known.script.stat.at(known.attempts.stat - 1).clone()
            })
        });
        if let Some(reply) = self.fault(&step) {
            return reply;
        }
        let Some(content) = content else {
            self.shared
                .update(|state| state.count(None, |counts| counts.stats_unknown += 1));
            return Reply::error_text(UNKNOWN_SESSION);
        };
        let is_activity = self.record.param("skip_player_activity") != Some("1");
        let is_prebuffering = step == Call::Prebuffering;
        let response = self.shared.control(|state| {
            let now = Instant::now();
            let Some(session) = state.sessions.get_mut(token, content) else {
                state.count(Some(content), |counts| counts.stats_unknown += 1);
                return None;
            };
            if is_activity {
                session.active = now;
            }
            let is_first = !session.was_asked;
            session.was_asked = true;
            let session = session.clone();
            let stat = stat_response(&mut state.contents[content], &session, is_prebuffering, now);
            Some(if is_first && stat["status"] != "dl" {
                json!({})
            } else {
                stat
            })
        });
        response.map_or_else(
            || Reply::error_text(UNKNOWN_SESSION),
            |stat| Reply::response(&stat),
        )
    }

    fn service(&self, health: &Health) -> Reply {
        match self.record.param("method") {
            Some("get_version") => {
                self.shared
                    .update(|state| state.count(None, |counts| counts.health_checks += 1));
                if let Health::Fails(status, text) = health {
                    return Reply::Answer(Answer::plain(*status, text));
                }
                Reply::Answer(Answer::json("result", &version(), Some(&Value::Null)))
            }
            _ => api_error("unknown method", false),
        }
    }

    fn server_api(&self, health: &Health) -> Reply {
        let is_newer = self
            .record
            .param("api_version")
            .and_then(|version| version.parse::<u32>().ok())
            .is_some_and(|version| version >= 2);
        match self.record.param("method") {
            Some("get_status") => {
                self.shared
                    .update(|state| state.count(None, |counts| counts.health_checks += 1));
                match health {
                    Health::Fails(status, text) => Reply::Answer(Answer::plain(*status, text)),
                    Health::StatusHangs => self.hang(|_| false),
                    _ => {
                        let is_loaded = *health != Health::Loading;
                        let status = json!({"playlist_loaded": is_loaded, "version": version()});
                        Reply::Answer(Answer::json("result", &status, None))
                    }
                }
            }
            Some("get_media_files") => match self.content() {
                Some(Ok(content)) => {
                    let known = Arc::clone(&self.shared.lock().contents[content].content);
                    Reply::Answer(Answer::json("result", &media_files(&known), None))
                }
                unknown => {
                    if let Some(Err(delay)) = unknown {
                        self.wait(delay);
                    }
                    api_error("cannot get transport file", is_newer)
                }
            },
            _ => api_error("unknown method", is_newer),
        }
    }
}

/// A getstream call that is being worked on.
struct Pending<'a> {
    shared: &'a Shared,
    content: Option<usize>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let over = |counts: &mut Counts| counts.getstreams_now -= 1;
        self.shared.update(|state| state.count(self.content, over));
    }
}

/// Bends a good start answer the way the script wants it.
fn start_answer(step: &Getstream, mut start: Value) -> Reply {
    match step {
        Getstream::BrokenJson => {
            let mut text = super::http::envelope("response", &start, Some(&Value::Null));
            text.truncate(text.len() / 2);
            return Reply::Answer(Answer::text(200, "application/json", text));
        }
        Getstream::EmptyResponse => start = json!({}),
        Getstream::NoPlaybackUrl => {
            if let Some(fields) = start.as_object_mut() {
                fields.remove("playback_url");
            }
        }
        Getstream::NumbersAsStrings => {
            for (_, field) in start.as_object_mut().into_iter().flatten() {
                if field.is_number() {
                    *field = json!(field.to_string());
                }
            }
        }
        Getstream::ResultEnvelope => {
            return Reply::Answer(Answer::json("result", &start, Some(&Value::Null)));
        }
        _ => {}
    }
    Reply::response(&start)
}

/// The error envelopes of `/server/api` and `/webui/api/service` (engine-contract.md 2).
fn api_error(text: &str, is_newer: bool) -> Reply {
    Reply::Answer(if is_newer {
        Answer::json("error", &json!({"message": text, "code": 0}), None)
    } else {
        Answer::json("result", &Value::Null, Some(&json!(text)))
    })
}

fn version() -> Value {
    json!({"version": "3.1.75", "code": 3_017_500, "platform": "linux"})
}

fn media_files(content: &super::Content) -> Value {
    json!({
        "files": [{"index": 0, "filename": content.name}],
        "name": content.name,
        "infohash": content.infohash.to_string(),
        "transport_type": "bt",
        "type": if content.is_live { "live" } else { "vod" },
        "transport_file_cache_key": null,
    })
}

/// The fields of section 3, from what was really sent.
fn stat_response(known: &mut Playable, session: &Session, is_prebuffering: bool, now: Instant) -> Value {
    let content = Arc::clone(&known.content);
    let waited = now.duration_since(session.opened);
    let prebuffer = content.delivery.prebuffer;
    let progress = if prebuffer.is_zero() {
        100
    } else {
        (waited.as_millis() * 100 / prebuffer.as_millis().max(1)).min(100)
    };
    let status = match progress {
        _ if is_prebuffering => "prebuf",
        0..5 => "idle",
        5..100 => "prebuf",
        _ => "dl",
    };
    let is_on = status == "dl";
    let pieces = |bytes: u64| bytes.next_multiple_of(PIECE_BYTES);
    let sent = known.counts.bytes_sent;
    // The burst is in the cache before anybody reads it.
    let downloaded = if is_on { pieces(sent.max(1)) } else { 0 };
    let (last, before) = std::mem::replace(&mut known.sample, (now, sent));
    let millis = now.duration_since(last).as_millis().max(1);
    let speed = u128::from(sent - before) * 1000 / millis / 1024;
    let mut stat = json!({
        "status": status,
        "progress": if is_on { 0 } else { progress.min(99) },
        "peers": if status == "idle" || is_prebuffering { 0 } else { 5 },
        "speed_down": u64::try_from(speed).unwrap_or(u64::MAX),
        "speed_up": 7,
        "downloaded": downloaded,
        "uploaded": PIECE_BYTES,
        "total_progress": 0,
        "immediate_progress": 0,
        "is_live": i32::from(content.is_live),
        "is_encrypted": 0,
        "infohash": content.infohash.to_string(),
        "playback_session_id": known.stat_id,
        "client_session_id": session.client_session_id,
        "selected_file_index": if content.is_live { -1 } else { 0 },
        "selected_stream_index": 0,
        "stream_status": -1,
        "manifest_access_mode": -1,
        "debug_level": 0,
        "network_monitor_status": -1,
        "network_monitor_started": false,
        "wan_connection_status": "connected",
        "disk_cache_stats": {
            "avail": 1_u64 << 33, "disk_cache_limit": 1_u64 << 33,
            "inactive_inuse": 0, "active_inuse": downloaded,
        },
    });
    if is_on && content.is_live {
        let wall = time::OffsetDateTime::now_utc().unix_timestamp();
        let text = |seconds: i64| seconds.to_string();
        stat["livepos"] = json!({
            "first_ts": text(wall - 60), "last_ts": text(wall), "pos": text(wall - 5), "last": text(wall),
            "live_first": text(wall - 60), "live_last": text(wall), "is_live": "1", "buffer_pieces": "30",
        });
    }
    stat
}

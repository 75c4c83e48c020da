//! The calls of the engine's HTTP interface: which path does what, and what it answers.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::call::{Named, Reply, Request};
use super::content::Content;
use super::dialect::Dialect;
use super::hls;
use super::http::{Answer, Connection};
use super::playback;
use super::script::{Call, CallKind, Health};
use super::state::Shared;

/// Serves a connection to its end.
pub(super) fn serve(shared: &Arc<Shared>, mut connection: Connection, number: u64) -> io::Result<()> {
    while let Some(record) = connection.read_request(shared.started.elapsed())? {
        // What came before a freeze is over is dealt with after it, whether the client is still there or not.
        let is_late = shared.pass()?;
        if kind(&record.path).is_some_and(|kind| shared.slams(kind)) {
            connection.end_cleanly();
            return Ok(());
        }
        log::trace!("simulated engine, connection {number}: {} {}", record.method, record.path);
        shared.update(|state| state.requests.push(record.clone()));
        let length = record.header("Content-Length").and_then(|value| value.parse().ok());
        connection.skip_body(length.unwrap_or(0))?;
        let request = Request { shared, connection: &connection, record: &record, is_late };
        match request.dispatch()? {
            Reply::Answer(answer) => {
                shared.pass()?;
                if kind(&record.path) == Some(CallKind::Getstream) {
                    shared.refuse_if_due();
                }
                connection.send(&answer)?;
                let keeps = record.minor_version == 1
                    && !record.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if answer.is_redirect() {
                    // Without a length the redirect's body ends with the connection, which stays open whatever
                    // was asked for: who drains it hangs. Who says more on it took it for a finished answer.
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

/// Which kind of call a path is.
fn kind(path: &str) -> Option<CallKind> {
    let parts: Vec<_> = path.split('/').skip(1).collect();
    match *parts.as_slice() {
        ["ace", "getstream" | "manifest.m3u8"] => Some(CallKind::Getstream),
        ["ace", "stat", ..] => Some(CallKind::Stat),
        ["ace", "cmd", ..] => Some(CallKind::Stop),
        ["ace", "r" | "c", ..] | ["content", ..] => Some(CallKind::Playback),
        ["webui", ..] | ["server", ..] => Some(CallKind::Check),
        _ => None,
    }
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
                Reply::Answer(Answer::plain(500, "Internal Server Error, couldn't find resource"))
            }
            ["ace", "stat", infohash, token] => self.stat(infohash, token),
            ["ace", "cmd", infohash, token] => self.command(infohash, token),
            ["ace", "event", infohash, token] => self.event(infohash, token),
            ["ace", "r", infohash, token] => return playback::entry(self, infohash, token),
            ["ace", "c", infohash, name] => return hls::segment(self, infohash, name),
            ["content", infohash, name] => return playback::content(self, infohash, name),
            ["webui", "api", "service"] => self.service(&health),
            ["server", "api"] => self.server_api(&health),
            _ => {
                let make = self.shared.lock().documents.get(self.record.path.as_str()).copied();
                Reply::Answer(match make {
                    Some(make) => Answer::text(200, "application/xml", make()),
                    None => Answer::error(404, "File not found"),
                })
            }
        };
        Ok(reply)
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
            return if known { Reply::response(&json!("ok")) } else { self.unknown_session() };
        }
        let (step, stopped) = self.shared.control(|state| {
            let was_opened = state.sessions.has_handed_out(token);
            state.count(content, |counts| {
                counts.stops += 1;
                counts.stops_never_opened += u64::from(!was_opened);
            });
            let step = content.map_or(Call::Normal, |content| {
                let known = &mut state.contents[content];
                known.attempts.stop += 1;
                known.script.stop.at(known.attempts.stop - 1).clone()
            });
            if !step.stops() {
                return (step, None);
            }
            let rules = self.shared.settings.rules;
            let stopped = content.and_then(|content| {
                let newest = state.sessions.newest(content).filter(|_| self.is_late);
                let newest = newest.filter(|_| rules.late_stop_ends_newest);
                state.sessions.stop(newest.as_deref().unwrap_or(token), content, rules)
            });
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
            (None, false) => self.unknown_session(),
            (None, true) => api_error(&self.shared.settings.dialect.session_words, true),
        }
    }

    /// A long poll for events: there are none but the session's end.
    fn event(&self, infohash: &str, token: &str) -> Reply {
        if self.by_path(infohash).is_some() {
            self.hold(None, |state| !state.sessions.contains(token));
        }
        self.unknown_session()
    }

    /// Counts a call as activity of the session's player: whether it is there.
    fn touch(&self, token: &str, content: usize) -> bool {
        self.shared.control(|state| {
            let session = state.sessions.get_mut(token, content);
            session.map(|session| session.active = Instant::now()).is_some()
        })
    }

    fn service(&self, health: &Health) -> Reply {
        match self.record.param("method") {
            Some("get_version") => {
                self.shared.update(|state| state.count(None, |counts| counts.health_checks += 1));
                match health {
                    Health::Fails(status, text) => Reply::Answer(Answer::plain(*status, text)),
                    Health::NoService | Health::NoPages | Health::OnlyServerVersion => not_found(),
                    _ => Reply::Answer(Answer::json("result", &version(), Some(&Value::Null))),
                }
            }
            _ if matches!(health, Health::NoService | Health::NoPages | Health::OnlyServerVersion) => {
                not_found()
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
            Some("get_version") if matches!(health, Health::NoService | Health::OnlyServerVersion) => {
                self.shared.update(|state| state.count(None, |counts| counts.health_checks += 1));
                Reply::Answer(Answer::json("result", &version(), Some(&Value::Null)))
            }
            Some("get_status") => {
                self.shared.update(|state| state.count(None, |counts| counts.health_checks += 1));
                match health {
                    Health::Fails(status, text) => Reply::Answer(Answer::plain(*status, text)),
                    Health::StatusHangs => self.hang(|_| false),
                    Health::NoStatus | Health::NoPages => not_found(),
                    Health::OnlyServerVersion => api_error("unknown method", is_newer),
                    _ => {
                        let is_loaded = *health != Health::Loading;
                        let status = json!({"playlist_loaded": is_loaded, "version": version()});
                        Reply::Answer(Answer::json("result", &status, None))
                    }
                }
            }
            _ if matches!(health, Health::NoStatus | Health::NoPages) => not_found(),
            Some("get_media_files") => match self.named() {
                Named::Known(content) => {
                    let (step, known) = self.shared.update(|state| {
                        let known = &mut state.contents[content];
                        known.attempts.files += 1;
                        (known.script.files.at(known.attempts.files - 1).clone(), Arc::clone(&known.content))
                    });
                    match step {
                        Call::Slow(time) => {
                            self.wait(time);
                        }
                        Call::Hang => return self.hang(|_| false),
                        _ => {}
                    }
                    Reply::Answer(Answer::json(
                        "result",
                        &media_files(&known, &self.shared.settings.dialect),
                        None,
                    ))
                }
                Named::Unknown(delay) => {
                    self.wait(delay);
                    api_error("cannot get transport file", is_newer)
                }
                Named::Nothing => api_error("cannot get transport file", is_newer),
            },
            _ => api_error("unknown method", is_newer),
        }
    }
}

/// The error envelopes of `/server/api` and `/webui/api/service` (engine-contract.md 2).
fn api_error(text: &str, is_newer: bool) -> Reply {
    Reply::Answer(if is_newer {
        Answer::json("error", &json!({"message": text, "code": 0}), None)
    } else {
        Answer::json("result", &Value::Null, Some(&json!(text)))
    })
}

/// What an engine says that lacks a page altogether: nothing but the status.
fn not_found() -> Reply {
    Reply::Answer(Answer::plain(404, ""))
}

fn version() -> Value {
    json!({"version": "3.1.75", "code": 3_017_500, "platform": "linux"})
}

fn media_files(content: &Content, dialect: &Dialect) -> Value {
    let names: Vec<&str> = match content.files.as_slice() {
        [] => vec![&content.name],
        files => files.iter().map(|file| file.name.as_str()).collect(),
    };
    let file = |(index, name)| json!({"index": index, "filename": name});
    let files: Vec<Value> = names.into_iter().enumerate().map(file).collect();
    json!({
        "files": files,
        "name": content.name,
        "infohash": dialect.infohash_of(content).to_string(),
        "transport_type": "bt",
        "type": if content.is_live { "live" } else { "vod" },
        "transport_file_cache_key": null,
    })
}

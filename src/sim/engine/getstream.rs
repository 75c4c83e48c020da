//! getstream: which content a request names, and the session it gets (engine-contract.md 1 and 2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::media::Media;
use super::call::{Named, Reply, Request};
use super::content::Content;
use super::counts::Counts;
use super::http::{Answer, envelope, is_gone};
use super::script::{Getstream, PlaybackStep, Script};
use super::sessions::{Opened, Session, Wish};
use super::state::{Shared, State};
use crate::id::Digest;

/// What getstream says of content that is not there.
const UNKNOWN_CONTENT: &str = "failed to load content";

/// Unknown ids that are taken for contents; more than any test asks for.
const MAX_MADE_UP: usize = 1024;

/// As good as for ever, and still within what an `Instant` can hold.
const AGES: Duration = Duration::from_secs(365 * 24 * 3600);

impl Request<'_> {
    pub(super) fn getstream(&self) -> Reply {
        let is_json = self.record.param("format") == Some("json");
        let named = self.named_or_made_up();
        let content = match named {
            Named::Known(content) => Some(content),
            Named::Unknown(_) | Named::Nothing => None,
        };
        let (step, crashes) = self.shared.update(|state| {
            let has_player =
                ["pid", "sid"].iter().any(|name| self.record.param(name).is_some_and(|id| !id.is_empty()));
            state.count(content, |counts| {
                counts.getstreams += 1;
                counts.getstreams_without_player += u64::from(!has_player);
                counts.getstreams_now += 1;
                counts.getstreams_max = counts.getstreams_max.max(counts.getstreams_now);
            });
            let step = content.map_or(Getstream::Normal, |content| {
                let known = &mut state.contents[content];
                known.attempts.getstream += 1;
                known.script.getstream.at(known.attempts.getstream - 1).clone()
            });
            (step, state.crashes)
        });
        let _pending = Pending { shared: self.shared, content };
        let failed = |text: &str| {
            if is_json { Reply::error_text(text) } else { Reply::Answer(Answer::plain(500, text)) }
        };
        let content = match named {
            Named::Nothing => return Reply::Answer(Answer::plain(500, "Internal Server Error")),
            Named::Unknown(delay) => {
                self.wait(delay);
                return failed(UNKNOWN_CONTENT);
            }
            Named::Known(content) => content,
        };
        match &step {
            // However early the client goes: an engine at work does not look.
            Getstream::Slow(time) => {
                let over = |state: &State| state.is_stopping || state.crashes != crashes;
                let is_over = self.shared.wait_for(Instant::now() + (*time).min(AGES), over);
                if is_over || self.shared.pass().is_err() {
                    return Reply::Close;
                }
            }
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
            Getstream::StatusAndClose(status, text) => return Reply::Answer(Answer::error(*status, text)),
            _ => {}
        }
        debug_assert!(step.opens());
        let (opened, session, known) = self.open_session(content);
        if is_gone(self.connection.socket()) && opened.is_new {
            self.shared.update(|state| state.count(Some(content), |counts| counts.sessions_leaked += 1));
        }
        let Ok(base) = self.base_url() else {
            return Reply::Close;
        };
        let dialect = &self.shared.settings.dialect;
        let tail = format!("{}/{}", dialect.path_name_of(&known), opened.token);
        if !is_json {
            return Reply::Answer(Answer::redirect(format!("{base}/ace/r/{tail}")));
        }
        let mut start = json!({
            "playback_url": format!("{base}/ace/r/{tail}"),
            "stat_url": format!("{base}/ace/stat/{tail}"),
            "command_url": format!("{base}/ace/cmd/{tail}"),
            "infohash": dialect.infohash_of(&known).to_string(),
            "playback_session_id": session.id,
            "is_live": if known.is_untold { -1 } else { i32::from(known.is_live) },
            "is_encrypted": 0,
            "client_session_id": session.client_session_id,
        });
        if self.record.param("use_api_events") == Some("1") {
            start["event_url"] = json!(format!("{base}/ace/event/{tail}"));
        }
        start_answer(&step, start)
    }

    /// What the query names; an engine that tells late knows anything that has the form of an id.
    fn named_or_made_up(&self) -> Named {
        let named = self.named();
        if !matches!(named, Named::Unknown(_)) || !self.shared.settings.dialect.tells_unknown_late {
            return named;
        }
        let ids = ["content_id", "id", "infohash"].iter().filter_map(|name| self.record.param(name));
        let Some(id) = ids.filter_map(|id| id.parse::<Digest>().ok()).next() else {
            return named;
        };
        self.shared.control(|state| {
            if state.made_up == MAX_MADE_UP {
                return named;
            }
            state.made_up += 1;
            let nothing = Script::new().playback(PlaybackStep::status(404, ""));
            state.add(Content::live(id, id, Media::Clip).script(nothing));
            Named::Known(state.contents.len() - 1)
        })
    }

    fn open_session(&self, content: usize) -> (Opened, Session, Arc<Content>) {
        let record = self.record;
        let flag = |name| record.param(name) == Some("1");
        let knows_pid = self.shared.settings.dialect.knows_pid;
        let now = Instant::now();
        let mut wish = Wish {
            content,
            file: record.param("_idx").and_then(|place| place.parse().ok()).unwrap_or(0),
            player: record
                .param("pid")
                .filter(|_| knows_pid)
                .or_else(|| record.param("sid"))
                .filter(|pid| !pid.is_empty())
                .map(str::to_owned),
            client_session_id: record.param("client_session_id").and_then(|id| id.parse().ok()).unwrap_or(-1),
            newest_reads: flag("stop_prev_read_thread"),
            is_forced: flag("force_session_restart"),
            buffers_since: now,
        };
        self.shared.control(|state| {
            let rules = self.shared.settings.rules;
            state.free_if_quiet(content, now);
            if wish.is_forced {
                state.restart_download(content, now);
            } else {
                wish.buffers_since =
                    state.join_download(content, now, self.shared.settings.download_outlives);
            }
            let opened = state.sessions.open(wish, rules, now);
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
            let mut text = envelope("response", &start, Some(&Value::Null));
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

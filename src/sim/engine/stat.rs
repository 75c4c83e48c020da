//! stat: how a session is getting on (engine-contract.md 3), from what was really sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::call::{Reply, Request};
use super::dialect::Dialect;
use super::script::{Call, Fill};
use super::sessions::Session;
use super::state::Playable;

/// Who has the content.
const PEERS: u32 = 5;

/// Engines count in pieces of this size.
const PIECE_BYTES: u64 = 16_384;

impl Request<'_> {
    pub(super) fn stat(&self, infohash: &str, token: &str) -> Reply {
        let content = self.by_path(infohash);
        let is_activity = self.record.param("skip_player_activity") != Some("1");
        let step = self.shared.update(|state| {
            state.count(content, |counts| {
                counts.stats += 1;
                counts.stats_as_player += u64::from(is_activity);
            });
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
            self.shared.update(|state| state.count(None, |counts| counts.stats_unknown += 1));
            return self.unknown_session();
        };
        let dialect = &self.shared.settings.dialect;
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
            let mut stat = stat_response(&mut state.contents[content], &session, &step, dialect, now);
            match &step {
                Call::Filling(fill) => fill_in(&mut stat, *fill, now.duration_since(session.opened)),
                Call::Hollow if session.sent == 0 => hollow_out(&mut stat),
                Call::Without(fields) => take_out(&mut stat, fields),
                _ => {}
            }
            if dialect.has_hollow_stat {
                take_out(&mut stat, &["speed_down", "speed_up", "livepos"]);
                if session.sent == 0 {
                    hollow_out(&mut stat);
                }
            }
            let is_new = is_first && matches!(stat["status"].as_str(), Some("idle" | "prebuf"));
            Some(if is_new { json!({}) } else { stat })
        });
        response.map_or_else(|| self.unknown_session(), |stat| Reply::response(&stat))
    }
}

/// The fields of an engine that fills its buffer, this long after the session was opened.
fn fill_in(stat: &mut Value, fill: Fill, since: Duration) {
    let (downloaded, progress) = match fill {
        Fill::Rises => (100_000 * since.as_millis() / 1000, 40),
        Fill::Progresses => (1_000_000, since.as_secs().min(99)),
        Fill::StandsStill => (1_000_000, 40),
    };
    let downloaded = u64::try_from(downloaded).unwrap_or(u64::MAX).next_multiple_of(PIECE_BYTES);
    (stat["status"], stat["peers"]) = (json!("buf"), json!(PEERS));
    (stat["downloaded"], stat["progress"]) = (json!(downloaded), json!(progress));
}

/// What an engine says that knows nothing yet, and does not say so.
fn hollow_out(stat: &mut Value) {
    (stat["status"], stat["progress"]) = (json!("dl"), json!(0));
    (stat["peers"], stat["downloaded"]) = (json!(0), json!(0));
    take_out(stat, &["speed_down", "speed_up", "livepos"]);
}

fn take_out(stat: &mut Value, fields: &[&str]) {
    let Some(stat) = stat.as_object_mut() else {
        return;
    };
    for field in fields {
        stat.remove(*field);
    }
}

/// The fields of section 3, from what was really sent.
fn stat_response(
    known: &mut Playable,
    session: &Session,
    step: &Call,
    dialect: &Dialect,
    now: Instant,
) -> Value {
    let is_prebuffering = *step == Call::Prebuffering;
    let content = Arc::clone(&known.content);
    let waited = now.duration_since(session.buffers_since);
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
        "peers": if status == "idle" || is_prebuffering { 0 } else { PEERS },
        "speed_down": u64::try_from(speed).unwrap_or(u64::MAX),
        "speed_up": 7,
        "downloaded": downloaded,
        "uploaded": PIECE_BYTES,
        "total_progress": 0,
        "immediate_progress": 0,
        "is_live": i32::from(content.is_live),
        "is_encrypted": 0,
        "infohash": dialect.infohash_of(&content).to_string(),
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

//! The shapes that the API gives to streams, clients and engines, in JSON.
//!
//! Users have these fields in their scripts: whatever the things behind them are called here, a field keeps its name.
//! Streams are written from their views without a copy of anything: a status is asked for often, and of many streams.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::api::Liveness;
use crate::engine::pool::Engine;
use crate::engine::stat::Stat;
use crate::id::Digest;
use crate::stats::Distribution;
use crate::stream::client::Protocol;
use crate::stream::state::{State, Why};
use crate::stream::view::{ClientView, StreamView};
use crate::ts::media::{Media, Video};
use crate::wanted::Slug;

/// An engine.
#[derive(Debug, Serialize)]
pub(super) struct EngineStatus {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) healthy: Option<bool>,
    pub(super) version: Option<String>,
    pub(super) forwarded: bool,
    pub(super) streams: usize,
    pub(super) max_streams: usize,
    pub(super) last_error: Option<String>,
    pub(super) last_checked_at: Option<Timestamp>,
    #[serde(skip)]
    pub(super) check_times: Distribution,
    #[serde(skip)]
    pub(super) failed_checks: u64,
}

/// A stream, which the API calls a session.
#[derive(Debug, Serialize)]
pub(super) struct SessionStatus<'a> {
    pub(super) stream_id: &'a str,
    pub(super) ace_id: Displayed<Digest>,
    pub(super) infohash: Option<Displayed<Digest>>,
    pub(super) channel: Option<&'a str>,
    pub(super) engine: Option<&'a str>,
    pub(super) engine_host: Option<&'a str>,
    pub(super) engine_port: Option<u16>,
    pub(super) playback_session_id: Option<&'a str>,
    pub(super) is_live: Option<bool>,
    pub(super) is_active: bool,
    pub(super) state: &'static str,
    pub(super) client_count: usize,
    pub(super) waiting_count: usize,
    pub(super) created_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) error: Option<Displayed<&'a Why>>,
    pub(super) idle_seconds: f64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) bitrate_bps: u64,
    pub(super) first_data_ms: Option<u64>,
    pub(super) restarts: u32,
    pub(super) keyframe_interval_s: Option<f64>,
    pub(super) picture_missing_s: Option<f64>,
    pub(super) media: Option<MediaStatus<'a>>,
    pub(super) swarm: Option<Swarm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) film: Option<FilmStatus<'a>>,
    pub(super) clients: &'a [ClientView],
}

/// What a stream consists of.
#[derive(Debug, Serialize)]
pub(super) struct MediaStatus<'a> {
    video: Option<VideoStatus>,
    audio: &'a [&'static str],
    text: &'a [&'static str],
}

/// Its picture.
#[derive(Debug, Serialize)]
struct VideoStatus {
    codec: &'static str,
    width: Option<u32>,
    height: Option<u32>,
    fps: Option<f64>,
}

/// The file that a film is.
#[derive(Debug, Serialize)]
pub(super) struct FilmStatus<'a> {
    length: Option<u64>,
    content_type: &'a str,
    is_seekable: bool,
    files: &'a [String],
}

/// What an engine says of its peers.
#[derive(Debug, Serialize)]
pub(super) struct Swarm<'a> {
    pub(super) status: &'a str,
    pub(super) peers: Option<u64>,
    pub(super) speed_down_kbps: Option<u64>,
    pub(super) speed_up_kbps: Option<u64>,
    pub(super) downloaded: Option<u64>,
    pub(super) uploaded: Option<u64>,
}

/// A client.
#[derive(Debug, Serialize)]
struct ClientStatus<'a> {
    client_id: Displayed<u64>,
    address: Displayed<SocketAddr>,
    user_agent: Option<&'a str>,
    connected_at: Option<Timestamp>,
    protocol: &'static str,
    bytes_sent: u64,
    lag_ms: u64,
    skipped: u64,
    /// Of a film alone, like its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
}

/// A value, written as the text in which it is displayed.
#[derive(Debug)]
pub(super) struct Displayed<T>(T);

/// A time as RFC 3339 has it: UTC, with milliseconds.
#[derive(Debug)]
pub(super) struct Timestamp(OffsetDateTime);

impl Serialize for StreamView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SessionStatus::from(self).serialize(serializer)
    }
}

impl Serialize for ClientView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ClientStatus::from(self).serialize(serializer)
    }
}

impl<T: fmt::Display> Serialize for Displayed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'a> From<&'a StreamView> for SessionStatus<'a> {
    fn from(view: &'a StreamView) -> Self {
        let facts = &*view.facts;
        let error = match &view.state {
            State::Stopping(outcome) | State::Stopped(outcome) if outcome.why.is_trouble() => {
                Some(Displayed(&outcome.why))
            }
            _ => None,
        };
        let (engine, engine_host, engine_port) = match &facts.engine {
            Some((name, host, port)) => (Some(name.as_str()), Some(host.as_str()), Some(*port)),
            None => (None, None, None),
        };
        Self {
            stream_id: &view.stream_id,
            ace_id: Displayed(view.content.name.digest()),
            infohash: facts.infohash.map(Displayed),
            channel: view.channel.as_ref().map(Slug::as_str),
            engine,
            engine_host,
            engine_port,
            playback_session_id: facts.playback_session_id.as_deref(),
            is_live: match facts.liveness {
                Liveness::Live => Some(true),
                Liveness::Vod => Some(false),
                Liveness::Unknown => None,
            },
            is_active: view.state.is_active(),
            state: match view.state {
                State::Starting { .. } => "starting",
                State::Active => "active",
                State::Recovering { .. } => "recovering",
                State::Lingering { .. } => "lingering",
                State::Stopping(_) => "stopping",
                State::Stopped(_) => "stopped",
            },
            client_count: view.clients.len(),
            waiting_count: view.waiting,
            created_at: Timestamp::of(facts.created_at),
            started_at: facts.started_at.and_then(Timestamp::of),
            ended_at: facts.ended_at.and_then(Timestamp::of),
            error,
            idle_seconds: seconds(view.idle_for),
            bytes_in: view.bytes_in,
            bytes_out: view.bytes_out,
            bitrate_bps: view.bitrate_bps,
            first_data_ms: facts.first_data_after.map(milliseconds),
            restarts: view.restarts,
            keyframe_interval_s: view.keyframe_interval.map(seconds),
            picture_missing_s: view.picture_missing.map(seconds),
            media: facts.media.as_deref().map(MediaStatus::from),
            swarm: view.swarm.as_deref().map(Swarm::from),
            film: facts.film.as_ref().map(|film| FilmStatus {
                length: film.length,
                content_type: &film.content_type,
                is_seekable: film.has_parts,
                files: &facts.files,
            }),
            clients: &view.clients,
        }
    }
}

impl<'a> From<&'a Media> for MediaStatus<'a> {
    fn from(media: &'a Media) -> Self {
        let video = media.video.map(|Video { codec, format }| VideoStatus {
            codec,
            width: format.map(|format| format.width),
            height: format.map(|format| format.height),
            // Three decimals tell 29.97 from 30.
            fps: format
                .and_then(|format| format.frames_per_second())
                .map(|fps| (fps * 1000.0).round() / 1000.0),
        });
        Self { video, audio: &media.audio, text: &media.text }
    }
}

impl<'a> From<&'a Stat> for Swarm<'a> {
    fn from(stat: &'a Stat) -> Self {
        let Stat { status, peers, speed_down_kbps, speed_up_kbps, downloaded, uploaded, .. } = stat;
        Self {
            status,
            peers: *peers,
            speed_down_kbps: *speed_down_kbps,
            speed_up_kbps: *speed_up_kbps,
            downloaded: *downloaded,
            uploaded: *uploaded,
        }
    }
}

impl<'a> From<&'a ClientView> for ClientStatus<'a> {
    fn from(client: &'a ClientView) -> Self {
        let record = &*client.record;
        Self {
            client_id: Displayed(record.id),
            address: Displayed(record.address),
            user_agent: record.user_agent.as_deref(),
            connected_at: Timestamp::of(record.connected_at),
            protocol: client.film.map_or(record.protocol, |_| Protocol::Film).name(),
            bytes_sent: client.sent_bytes,
            lag_ms: milliseconds(client.lag),
            skipped: client.skips,
            offset: client.film.map(|film| film.offset),
            length: client.film.and_then(|film| film.length),
        }
    }
}

impl From<&Engine> for EngineStatus {
    fn from(engine: &Engine) -> Self {
        let health = engine.health();
        let settings = &engine.settings;
        Self {
            name: settings.name.clone(),
            host: settings.host.as_str().to_owned(),
            port: settings.port,
            healthy: health.is_up,
            version: health.version,
            forwarded: settings.forwarded,
            streams: engine.streams(),
            max_streams: settings.max_streams,
            last_error: health.last_error,
            last_checked_at: health.last_checked_at.and_then(Timestamp::of),
            check_times: engine.check_times.distribution(),
            failed_checks: health.failed_checks,
        }
    }
}

impl Timestamp {
    /// `None` for a clock that is set before the year 0 or after 9999.
    pub(super) fn of(at: SystemTime) -> Option<Self> {
        let at = OffsetDateTime::from(at);
        let at = at.replace_nanosecond(at.nanosecond() / 1_000_000 * 1_000_000).ok()?;
        (0..=9999).contains(&at.year()).then_some(Self(at))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; "2000-01-01T00:00:00.000Z".len()];
        let mut free = &mut text[..];
        self.0.format_into(&mut free, &Rfc3339).map_err(S::Error::custom)?;
        let free = free.len();
        let written = &text[..text.len() - free];
        serializer.serialize_str(str::from_utf8(written).map_err(S::Error::custom)?)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds with three decimals.
pub(super) fn seconds(duration: Duration) -> f64 {
    milliseconds(duration) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use crate::id::{ContentKey, ContentName, EngineParams};
    use crate::stream::client::ClientRecord;
    use crate::stream::state::Outcome;
    use crate::stream::view::Facts;
    use crate::ts::media::PictureFormat;

    use super::*;

    #[test]
    fn a_time_is_told_in_milliseconds() {
        let check = |milliseconds: u64, expected: &str| {
            let time = Timestamp::of(UNIX_EPOCH + Duration::from_micros(milliseconds * 1000 + 999));
            assert_eq!(serde_json::to_value(time).expect("JSON"), json!(expected));
        };
        check(0, "1970-01-01T00:00:00Z");
        check(1_700_000_000_120, "2023-11-14T22:13:20.12Z");
        check(1_700_000_000_007, "2023-11-14T22:13:20.007Z");
        check(253_402_300_799_999, "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_session_has_the_shape_that_tools_know() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        let digest = Digest::new([0xA5; 20]);
        let agent = Some("a \"player\"".to_owned());
        let mut record =
            ClientRecord::new(7, Protocol::Ts, SocketAddr::from(([192, 168, 0, 2], 5000)), agent);
        record.connected_at = at;
        let client = ClientView {
            record: Arc::new(record),
            sent_bytes: 188,
            lag: Duration::from_millis(40),
            skips: 1,
            film: None,
        };
        let view = StreamView {
            content: ContentKey { name: ContentName::Id(digest), params: EngineParams::default() },
            channel: Some("canal-faro".parse().expect("a slug")),
            stream_id: "an-id".into(),
            state: State::Stopped(Outcome { why: Why::SessionLost, had_started: true }),
            restarts: 2,
            swarm: Some(Arc::new(Stat { status: "dl".to_owned(), peers: Some(3), ..Stat::default() })),
            facts: Arc::new(Facts {
                engine: Some(("engine".to_owned(), "::1".to_owned(), 6878)),
                infohash: None,
                playback_session_id: Some("playback".to_owned()),
                liveness: Liveness::Unknown,
                created_at: at,
                started_at: Some(at),
                ended_at: None,
                first_data_after: Some(Duration::from_micros(1999)),
                media: Some(Arc::new(Media {
                    video: Some(Video {
                        codec: "H.264",
                        format: Some(PictureFormat { width: 1920, height: 1080, rate: Some((30_000, 1001)) }),
                    }),
                    audio: vec!["AAC"],
                    text: Vec::new(),
                })),
                film: None,
                files: Arc::default(),
                ran_for: None,
            }),
            clients: vec![client],
            waiting: 1,
            idle_for: Duration::ZERO,
            bytes_in: 376,
            bytes_out: 188,
            bitrate_bps: 601,
            keyframe_interval: Some(Duration::from_millis(1040)),
            picture_missing: Some(Duration::ZERO),
        };
        let (digest, at) = (digest.to_string(), "2023-11-14T22:13:20.5Z");
        let expected = json!({
            "stream_id": "an-id", "ace_id": digest, "infohash": null, "channel": "canal-faro",
            "engine": "engine", "engine_host": "::1", "engine_port": 6878,
            "playback_session_id": "playback", "is_live": null, "is_active": false, "state": "stopped",
            "client_count": 1, "waiting_count": 1,
            "created_at": at, "started_at": at, "ended_at": null,
            "error": Why::SessionLost.to_string(), "idle_seconds": 0.0,
            "bytes_in": 376, "bytes_out": 188, "bitrate_bps": 601,
            "first_data_ms": 1, "restarts": 2, "keyframe_interval_s": 1.04,
            "picture_missing_s": 0.0,
            "media": {
                "video": { "codec": "H.264", "width": 1920, "height": 1080, "fps": 29.97 },
                "audio": ["AAC"], "text": [],
            },
            "swarm": {
                "status": "dl", "peers": 3, "speed_down_kbps": null, "speed_up_kbps": null,
                "downloaded": null, "uploaded": null,
            },
            "clients": [{
                "client_id": "7", "address": "192.168.0.2:5000", "user_agent": "a \"player\"",
                "connected_at": at, "protocol": "ts", "bytes_sent": 188, "lag_ms": 40, "skipped": 1,
            }],
        });
        assert_eq!(serde_json::to_value(view).expect("JSON"), expected);
    }
}

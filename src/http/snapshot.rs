//! The one picture of everything, taken at one moment, that status is rendered from.
//!
//! Nothing here holds a lock while it renders, and nothing that renders touches a live object.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::api::Liveness;
use crate::engine::pool::Engine;
use crate::engine::stat::Stat;
use crate::stream::state::State;
use crate::stream::view::{ClientView, View};

use super::front::Front;
use super::response::{Code, Response};

/// Everything, as plain values in the shape of the API.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    running: bool,
    version: &'static str,
    uptime_s: u64,
    total_sessions: u64,
    active_sessions: usize,
    total_clients: usize,
    bytes_in: u64,
    bytes_out: u64,
    engines: Vec<EngineStatus>,
    sessions: Vec<SessionStatus>,
}

#[derive(Debug, Serialize)]
struct EngineStatus {
    name: String,
    host: String,
    port: u16,
    healthy: Option<bool>,
    version: Option<String>,
    forwarded: bool,
    streams: usize,
    max_streams: usize,
    last_error: Option<String>,
    last_checked_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct SessionStatus {
    stream_id: String,
    ace_id: String,
    infohash: Option<String>,
    engine: Option<String>,
    engine_host: Option<String>,
    engine_port: Option<u16>,
    playback_session_id: Option<String>,
    is_live: Option<bool>,
    is_active: bool,
    state: &'static str,
    client_count: usize,
    waiting_count: usize,
    created_at: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    error: Option<String>,
    idle_seconds: f64,
    bytes_in: u64,
    bytes_out: u64,
    bitrate_bps: u64,
    first_data_ms: Option<u64>,
    restarts: u32,
    keyframe_interval_s: Option<f64>,
    swarm: Option<Swarm>,
    clients: Vec<ClientStatus>,
}

#[derive(Debug, Serialize)]
struct Swarm {
    status: String,
    peers: Option<u64>,
    speed_down_kbps: Option<u64>,
    speed_up_kbps: Option<u64>,
    downloaded: Option<u64>,
    uploaded: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ClientStatus {
    client_id: String,
    address: String,
    user_agent: Option<String>,
    connected_at: Option<String>,
    bytes_sent: u64,
    lag_ms: u64,
    skipped: u64,
}

impl Snapshot {
    /// The picture as it is now.
    #[must_use]
    pub fn take(front: &Front) -> Self {
        let views: Vec<_> = front.registry.sessions().iter().map(|session| session.view()).collect();
        let clients = views.iter().flat_map(|view| &view.clients);
        let (total_clients, bytes_out_now) =
            clients.fold((0, 0), |(count, bytes), client| (count + 1, bytes + client.sent_bytes));
        let sessions: Vec<_> = views.into_iter().map(SessionStatus::from).collect();
        Self {
            running: !front.registry.is_closed(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: front.started.elapsed().as_secs(),
            total_sessions: front.stats.sessions(),
            active_sessions: sessions.iter().filter(|session| session.is_active).count(),
            total_clients,
            bytes_in: front.stats.bytes_in(),
            bytes_out: front.stats.bytes_out() + bytes_out_now,
            engines: front.pool.engines().iter().map(|engine| EngineStatus::from(&**engine)).collect(),
            sessions,
        }
    }

    /// `/proxy/status`.
    #[must_use]
    pub fn status(&self) -> Response {
        Response::json(200, self)
    }

    /// `/proxy/sessions`.
    #[must_use]
    pub fn sessions(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            sessions: &'a [SessionStatus],
        }
        Response::json(200, &Body { sessions: &self.sessions })
    }

    /// `/proxy/engines`.
    #[must_use]
    pub fn engines(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            engines: &'a [EngineStatus],
        }
        Response::json(200, &Body { engines: &self.engines })
    }

    /// `/proxy/sessions/{id}`.
    #[must_use]
    pub fn session(&self, id: &str) -> Response {
        match self.find(id) {
            Some(session) => Response::json(200, session),
            None => Response::error(Code::NotFound, &"there is no such session"),
        }
    }

    /// `/ace/status`, in the shape that acexy gives it.
    #[must_use]
    pub fn ace_status(&self, id: Option<&str>) -> Response {
        #[derive(Serialize)]
        struct All {
            streams: usize,
        }
        #[derive(Serialize)]
        struct One<'a> {
            clients: usize,
            stream_id: &'a str,
            stat_url: String,
        }
        let Some(id) = id else {
            return Response::json(200, &All { streams: self.active_sessions });
        };
        match self.find(id).filter(|session| session.ended_at.is_none()) {
            Some(session) => {
                let stat_url = format!("/proxy/sessions/{}", session.stream_id);
                Response::json(
                    200,
                    &One { clients: session.client_count, stream_id: &session.stream_id, stat_url },
                )
            }
            None => Response::error(Code::NotFound, &"there is no such stream"),
        }
    }

    /// By stream id, else by the id asked for, else by infohash; live ones come first in the list.
    fn find(&self, id: &str) -> Option<&SessionStatus> {
        let id = id.to_ascii_lowercase();
        let by = |name: fn(&SessionStatus) -> Option<&str>| {
            self.sessions.iter().find(|session| name(session) == Some(id.as_str()))
        };
        by(|session| Some(&session.stream_id))
            .or_else(|| by(|session| Some(&session.ace_id)))
            .or_else(|| by(|session| session.infohash.as_deref()))
    }
}

impl From<View> for SessionStatus {
    fn from(view: View) -> Self {
        let facts = view.facts;
        let error = match &view.state {
            State::Stopping(outcome) | State::Stopped(outcome) if outcome.why.is_trouble() => {
                Some(outcome.why.to_string())
            }
            _ => None,
        };
        let (engine, engine_host, engine_port) = match facts.engine {
            Some((name, host, port)) => (Some(name), Some(host), Some(port)),
            None => (None, None, None),
        };
        Self {
            ace_id: view.key.name.digest().to_string(),
            stream_id: view.stream_id,
            infohash: facts.infohash.map(|infohash| infohash.to_string()),
            engine,
            engine_host,
            engine_port,
            playback_session_id: facts.playback_session_id,
            is_live: match facts.liveness {
                Liveness::Live => Some(true),
                Liveness::Vod => Some(false),
                Liveness::Unknown => None,
            },
            is_active: matches!(
                view.state,
                State::Active | State::Recovering { .. } | State::Lingering { .. }
            ),
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
            created_at: rfc_3339(facts.created_at),
            started_at: facts.started_at.and_then(rfc_3339),
            ended_at: facts.ended_at.and_then(rfc_3339),
            error,
            idle_seconds: seconds(view.idle_for),
            bytes_in: view.bytes_in,
            bytes_out: view.bytes_out,
            bitrate_bps: view.bitrate_bps,
            first_data_ms: facts.first_data_after.map(milliseconds),
            restarts: view.restarts,
            keyframe_interval_s: view.keyframe_interval.map(seconds),
            swarm: view.swarm.map(Swarm::from),
            clients: view.clients.into_iter().map(ClientStatus::from).collect(),
        }
    }
}

impl From<Stat> for Swarm {
    fn from(stat: Stat) -> Self {
        let Stat { status, peers, speed_down_kbps, speed_up_kbps, downloaded, uploaded, progress: _ } = stat;
        Self { status, peers, speed_down_kbps, speed_up_kbps, downloaded, uploaded }
    }
}

impl From<ClientView> for ClientStatus {
    fn from(client: ClientView) -> Self {
        Self {
            client_id: client.record.id.to_string(),
            address: client.record.address.to_string(),
            user_agent: client.record.user_agent.clone(),
            connected_at: rfc_3339(client.record.connected_at),
            bytes_sent: client.sent_bytes,
            lag_ms: milliseconds(client.lag),
            skipped: client.skips,
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
            last_checked_at: health.last_checked_at.and_then(rfc_3339),
        }
    }
}

/// RFC 3339, UTC, milliseconds. `None` for a clock that is set before the year 0 or after 9999.
fn rfc_3339(at: SystemTime) -> Option<String> {
    let at = OffsetDateTime::from(at);
    let at = at.replace_nanosecond(at.nanosecond() / 1_000_000 * 1_000_000).ok()?;
    at.format(&Rfc3339).ok()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds with three decimals.
fn seconds(duration: Duration) -> f64 {
    milliseconds(duration) as f64 / 1000.0
}

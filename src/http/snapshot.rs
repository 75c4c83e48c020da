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
use crate::stats::{Distribution, Totals};
use crate::stream::state::State;
use crate::stream::view::{ClientView, View};
use crate::threads::Threads;

use super::front::Front;
use super::response::{Code, Response};

/// Everything, as plain values in the shape of the API.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    pub(super) running: bool,
    pub(super) version: &'static str,
    pub(super) uptime_s: u64,
    pub(super) total_sessions: u64,
    pub(super) active_sessions: usize,
    pub(super) total_clients: usize,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) engines: Vec<EngineStatus>,
    pub(super) sessions: Vec<SessionStatus>,
    /// For metrics alone, like all that is skipped here.
    #[serde(skip)]
    pub(super) totals: Totals,
    /// Of all streams.
    #[serde(skip)]
    pub(super) backlog_bytes: u64,
    #[serde(skip)]
    pub(super) started_at: SystemTime,
    #[serde(skip)]
    pub(super) threads: usize,
    #[serde(skip)]
    pub(super) parked: u64,
    #[serde(skip)]
    pub(super) is_worn_out: bool,
}

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
    pub(super) last_checked_at: Option<String>,
    #[serde(skip)]
    pub(super) check_times: Distribution,
    #[serde(skip)]
    pub(super) failed_checks: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct SessionStatus {
    pub(super) stream_id: String,
    pub(super) ace_id: String,
    pub(super) infohash: Option<String>,
    pub(super) engine: Option<String>,
    pub(super) engine_host: Option<String>,
    pub(super) engine_port: Option<u16>,
    pub(super) playback_session_id: Option<String>,
    pub(super) is_live: Option<bool>,
    pub(super) is_active: bool,
    pub(super) state: &'static str,
    pub(super) client_count: usize,
    pub(super) waiting_count: usize,
    pub(super) created_at: Option<String>,
    pub(super) started_at: Option<String>,
    pub(super) ended_at: Option<String>,
    pub(super) error: Option<String>,
    pub(super) idle_seconds: f64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) bitrate_bps: u64,
    pub(super) first_data_ms: Option<u64>,
    pub(super) restarts: u32,
    pub(super) keyframe_interval_s: Option<f64>,
    pub(super) swarm: Option<Swarm>,
    pub(super) clients: Vec<ClientStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct Swarm {
    pub(super) status: String,
    pub(super) peers: Option<u64>,
    pub(super) speed_down_kbps: Option<u64>,
    pub(super) speed_up_kbps: Option<u64>,
    pub(super) downloaded: Option<u64>,
    pub(super) uploaded: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ClientStatus {
    pub(super) client_id: String,
    pub(super) address: String,
    pub(super) user_agent: Option<String>,
    pub(super) connected_at: Option<String>,
    pub(super) bytes_sent: u64,
    pub(super) lag_ms: u64,
    pub(super) skipped: u64,
}

impl Snapshot {
    /// The picture as it is now.
    #[must_use]
    pub fn take(front: &Front) -> Self {
        let views: Vec<_> = front.registry.sessions().iter().map(|session| session.view()).collect();
        let sessions: Vec<_> = views.into_iter().map(SessionStatus::from).collect();
        let totals = front.stats.totals();
        Self {
            running: !front.registry.is_closed(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: front.started.elapsed().as_secs(),
            total_sessions: totals.starts,
            active_sessions: sessions.iter().filter(|session| session.is_active).count(),
            total_clients: sessions.iter().map(|session| session.client_count).sum(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            engines: front.pool.engines().iter().map(|engine| EngineStatus::from(&**engine)).collect(),
            sessions,
            totals,
            backlog_bytes: front.registry.backlog_bytes(),
            started_at: front.started_at,
            threads: front.threads.iter().map(Threads::count).sum(),
            parked: front.wear.parked(),
            is_worn_out: front.wear.is_worn_out(),
        }
    }

    /// What the proxy does, in a few words for a person.
    #[must_use]
    pub fn headline(&self) -> String {
        let up = self.engines.iter().filter(|engine| engine.healthy == Some(true)).count();
        let (streams, clients) = (self.active_sessions, self.total_clients);
        let ending = |count| if count == 1 { "" } else { "s" };
        format!(
            "{streams} stream{}, {clients} client{}, {up} of {} engines up",
            ending(streams),
            ending(clients),
            self.engines.len()
        )
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
            check_times: engine.check_times.distribution(),
            failed_checks: health.failed_checks,
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

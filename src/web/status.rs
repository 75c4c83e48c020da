//! The one picture of everything, taken at one moment, that status, metrics and page are rendered from.
//!
//! Nothing here holds a lock while it renders, and nothing that renders touches a live object. How each thing is
//! written stands in `shapes`.

use std::time::SystemTime;

use serde::Serialize;

use crate::http::response::Response;
use crate::stats::Totals;
use crate::stream::view::StreamView;
use crate::threads::Threads;

use super::channels::oldest_list_s;
use super::context::Context;
use super::shapes::EngineStatus;

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
    pub(super) sessions: Vec<StreamView>,
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
    pub(super) is_well: bool,
    /// Since the oldest of the lists was fetched; `None` without a list.
    #[serde(skip)]
    pub(super) list_age_s: Option<f64>,
}

impl Snapshot {
    /// The picture as it is now.
    #[must_use]
    pub fn take(context: &Context) -> Self {
        let sessions: Vec<_> = context.streams.list().iter().map(|stream| stream.view()).collect();
        let totals = context.stats.totals();
        Self {
            running: !context.streams.is_closed(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: context.started.elapsed().as_secs(),
            total_sessions: totals.starts,
            active_sessions: sessions.iter().filter(|view| view.state.is_active()).count(),
            total_clients: sessions.iter().map(|view| view.clients.len()).sum(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            engines: context.pool.engines().iter().map(|engine| EngineStatus::from(&**engine)).collect(),
            sessions,
            totals,
            backlog_bytes: context.streams.backlog_bytes(),
            started_at: context.started_at,
            threads: context.threads.iter().map(Threads::count).sum(),
            parked: context.parked.parked(),
            is_well: context.trouble().is_none(),
            list_age_s: oldest_list_s(&context.channels.get()),
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
            sessions: &'a [StreamView],
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

    /// `/ace/status`, in the shape that acexy gives it.
    #[must_use]
    pub fn ace_status(&self) -> Response {
        #[derive(Serialize)]
        struct All {
            streams: usize,
        }
        Response::json(200, &All { streams: self.active_sessions })
    }
}

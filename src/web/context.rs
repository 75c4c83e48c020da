//! What every request handler needs, in one place: streams, engines, settings.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::channels::list::List;
use crate::channels::state::StateDir;
use crate::config::{self, Live};
use crate::engine::pool::Pool;
use crate::guide::current::Current;
use crate::http::parked::ParkedThreads;
use crate::http::turnstile::Turnstile;
use crate::stats::Stats;
use crate::stream::streams::Streams;
use crate::threads::Threads;
use crate::tuner::device::Tuner;

use super::connections::Connections;
use super::face::playbacks::Playbacks;
use super::hls::kept::Hls;

/// The state behind all request handlers.
pub struct Context {
    /// `[server]`, as it is now.
    pub server: Arc<Live<config::Server>>,
    /// `[stream]`, as it is now.
    pub stream: Arc<Live<config::Stream>>,
    /// The house's channels, as they are now.
    pub channels: Arc<Live<List>>,
    /// The guide, as it is now.
    pub guide: Arc<Live<Current>>,
    /// Where what outlives the process is kept.
    pub state: StateDir,
    /// All streams.
    pub streams: Arc<Streams>,
    /// All engines.
    pub pool: Arc<Pool>,
    /// The HDHomeRun that is played, if one is.
    pub tuner: Option<Tuner>,
    /// Totals.
    pub stats: Arc<Stats>,
    /// When the process began to serve.
    pub started: Instant,
    /// The same moment in wall-clock time.
    pub started_at: SystemTime,
    /// Counts streaming clients.
    pub clients: Turnstile,
    /// The connections of streaming clients, by client number.
    pub connections: Connections,
    /// What is kept for viewers by HLS.
    pub hls: Hls,
    /// Who plays by an engine's URLs.
    pub playbacks: Playbacks,
    /// Counts the threads that peers have made hang for good.
    pub parked: Arc<ParkedThreads>,
    /// All threads of the proxy, to be counted.
    pub threads: Vec<Threads>,
}

impl Context {
    /// How many channels can play at once, by what streams and engines may.
    #[must_use]
    pub fn max_channels(&self) -> usize {
        let engines = self.pool.engines();
        let all =
            engines.iter().map(|engine| engine.settings.max_streams).fold(0_usize, usize::saturating_add);
        all.min(self.stream.get().max_streams)
    }

    /// Why the process had better be started anew, if it had; for a person.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if self.parked.is_worn_out() {
            let (bodies, versions) = self.parked.by_kind();
            return Some(format!(
                "hostile connections have used up too many threads, {bodies} by announced bodies and {versions} by \
                 HTTP/2.0; start the proxy anew"
            ));
        }
        let silent = self.threads.iter().find_map(|threads| threads.heartbeats().silent())?;
        let (name, seconds) = (silent.name, silent.since.as_secs());
        Some(format!("the thread \"{name}\" has not done its work for {seconds} s; start the proxy anew"))
    }
}

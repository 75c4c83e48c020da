//! What every request handler needs, in one place: streams, engines, limits.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::engine::pool::Pool;
use crate::stats::Stats;
use crate::stream::streams::Streams;
use crate::threads::Threads;

use crate::http::parked::ParkedThreads;
use crate::http::turnstile::Turnstile;

use super::admin::Admin;
use super::connections::Connections;

/// The state behind all request handlers.
pub struct Context {
    /// All streams.
    pub streams: Arc<Streams>,
    /// All engines.
    pub pool: Arc<Pool>,
    /// Totals.
    pub stats: Arc<Stats>,
    /// When the process began to serve.
    pub started: Instant,
    /// The same by the clock on the wall, as it was then.
    pub started_at: SystemTime,
    /// Streaming clients at once.
    pub clients: Turnstile,
    /// Quiet time after which a client is sent null packets.
    pub keepalive: Option<Duration>,
    /// A client that takes no byte for so long is closed.
    pub write_timeout: Duration,
    /// The longest a start may take, all its phases together.
    pub start_limit: Duration,
    /// The connections of streaming clients, by client number.
    pub connections: Connections,
    /// Who may change something.
    pub admin: Admin,
    /// Threads that peers have cost for good.
    pub parked: Arc<ParkedThreads>,
    /// Everything that runs, to be counted.
    pub threads: Vec<Threads>,
}

//! An AceStream engine's HTTP interface, with what engines do to their clients.
//!
//! The way of a request: `listener` accepts, `http` reads heads and writes answers, `api` sorts the calls (a `call` is
//! one request with what was asked of it), `getstream` and `stat` answer them, `playback` sends bodies; `state` is what
//! they share, `sessions` holds the rules. It must not know what a proxy is, nor who judges what it sent.

mod api;
mod call;
mod content;
mod counts;
mod getstream;
mod hls;
mod http;
mod listener;
mod listing;
mod playback;
mod script;
mod sessions;
mod stat;
mod state;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::content::{Begin, Burst, Content, Delivery, Framing, Pace};
pub use self::counts::{Counts, RequestRecord};
pub use self::listing::{Hls, HlsKind};
pub use self::script::{Call, Entry, Event, Fill, Getstream, Head, Health, Order, Playback, Script, Steps};
pub use self::sessions::{EndedReaders, SessionRules};

use self::listener::Listener;
use self::state::Shared;
use crate::id::Digest;
use crate::threads::SMALL_STACK_BYTES;

/// How long the threads of an engine may take to end once their sockets are shut down.
const JOIN_LIMIT: Duration = Duration::from_secs(5);

/// How an engine behaves as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host in the URLs it hands out.
    pub host: HostName,
    /// Which session rules hold.
    pub rules: SessionRules,
    /// How long a session lives that nobody reads or asks for.
    pub idle_expiry: Duration,
    /// How long it looks for an unknown content id (4.6 s in real engines).
    pub unknown_id_delay: Duration,
    /// How long it looks for an unknown infohash (28 s in real engines).
    pub unknown_infohash_delay: Duration,
}

impl Default for Settings {
    /// Like a real engine, but quick to give up on what it does not know.
    fn default() -> Self {
        Self {
            host: HostName::OfRequest,
            rules: SessionRules::default(),
            idle_expiry: Duration::from_secs(60),
            unknown_id_delay: Duration::from_millis(50),
            unknown_infohash_delay: Duration::from_millis(300),
        }
    }
}

/// The host in the URLs that an engine hands out (engine-contract.md 8.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// What the request's `Host` header says; the engine's own address if there is none.
    OfRequest,
    /// Always this, with its port: a container's name, an address that leads nowhere.
    Fixed(String),
}

/// A simulated engine. Dropping it ends everything at once.
pub struct SimEngine {
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: Mutex<Listener>,
}

impl SimEngine {
    /// An engine with default settings, listening here; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound or a thread cannot be started.
    pub fn start(addr: SocketAddr) -> io::Result<Self> {
        Self::start_with(addr, Settings::default())
    }

    /// An engine with these settings.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound or a thread cannot be started.
    pub fn start_with(addr: SocketAddr, settings: Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(settings));
        let listener = Listener::open(addr, &shared)?;
        let engine =
            Self { addr: listener.addr(), shared: Arc::clone(&shared), listener: Mutex::new(listener) };
        engine.shared.threads.spawn("sim-expiry", SMALL_STACK_BYTES, move || {
            shared.expire_sessions();
        })?;
        Ok(engine)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://host:port`, without a slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Makes a content known. Its broadcast begins now.
    pub fn add(&self, content: Content) {
        self.shared.control(|state| state.add(content));
    }

    /// Replaces the script of the content with this content id or infohash, and counts its attempts anew.
    /// Bodies that run already keep theirs.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    pub fn set_script(&self, name: Digest, script: Script) {
        self.shared.control(|state| {
            let content = state.by_either(name);
            state.contents[content].script = script;
            state.contents[content].attempts = state::Attempts::default();
        });
    }

    /// Changes how the engine as a whole is.
    pub fn set_health(&self, health: Health) {
        self.shared.control(|state| state.health = health);
    }

    /// Changes how long a session lives that nobody reads or asks for, those that are open included.
    pub fn set_idle_expiry(&self, idle: Duration) {
        self.shared.control(|state| state.idle_expiry = idle);
    }

    /// Does this to all bodies of a content that run now: how many they were.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    pub fn order(&self, name: Digest, order: Order) -> usize {
        self.shared.control(|state| {
            let content = state.by_either(name);
            let bodies = state.bodies.values_mut().filter(|body| body.content == content);
            bodies.map(|body| body.order = order).count()
        })
    }

    /// Refuses new connections from now on; those that are open go on. The port stays taken.
    ///
    /// # Errors
    ///
    /// When the port cannot be kept.
    pub fn refuse(&self) -> io::Result<()> {
        self.listener.lock().close()
    }

    /// Accepts connections again.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn accept(&self) -> io::Result<()> {
        self.listener.lock().reopen(&self.shared)
    }

    /// Dies: refuses connections, resets all that are open, forgets all sessions. Contents and counters stay.
    /// [`SimEngine::accept`] is the restart.
    ///
    /// # Errors
    ///
    /// When the port cannot be kept.
    pub fn crash(&self) -> io::Result<()> {
        let refused = self.refuse();
        let sockets = self.shared.control(|state| {
            state.crashes += 1;
            let lost = state.sessions.lose_all();
            state.count_ended(&lost, |counts| counts.sessions_lost += 1);
            for body in state.bodies.values_mut() {
                body.order = Order::Reset;
            }
            // Bodies reset themselves; a shutdown before that would look like a clean end.
            let reading: Vec<_> = state.bodies.values().map(|body| body.socket.as_ptr()).collect();
            state.sockets(|socket| !reading.contains(&socket))
        });
        shut_down(&sockets);
        refused
    }

    /// Forgets all sessions, as a restart between two calls does; connections stay as they are.
    pub fn forget_sessions(&self) {
        self.shared.control(|state| {
            let lost = state.sessions.lose_all();
            state.count_ended(&lost, |counts| counts.sessions_lost += 1);
        });
    }

    /// Counters of the whole engine.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.lock().totals.clone()
    }

    /// Counters of the content with this content id or infohash.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    #[must_use]
    pub fn counts_of(&self, name: Digest) -> Counts {
        let state = self.shared.lock();
        let content = state.by_either(name);
        state.contents[content].counts.clone()
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.shared.lock().requests.all()
    }

    /// Waits until the counters of the engine are so: whether they came to be, within `limit`.
    pub fn wait_for(&self, limit: Duration, mut is_met: impl FnMut(&Counts) -> bool) -> bool {
        self.shared.wait_for(Instant::now() + limit, |state| is_met(&state.totals))
    }

    /// Waits until the counters of a content are so.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    pub fn wait_for_content(
        &self,
        name: Digest,
        limit: Duration,
        mut is_met: impl FnMut(&Counts) -> bool,
    ) -> bool {
        self.shared.wait_for(Instant::now() + limit, |state| {
            let content = state.by_either(name);
            is_met(&state.contents[content].counts)
        })
    }
}

/// Ends connections, outside the lock.
fn shut_down(sockets: &[Arc<TcpStream>]) {
    for socket in sockets {
        // It fails only for a socket that is closed already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

impl Drop for SimEngine {
    fn drop(&mut self) {
        self.shared.control(|state| state.is_stopping = true);
        if let Err(error) = self.listener.lock().close() {
            log::debug!("the simulated engine's port was not kept: {error}");
        }
        let sockets = self.shared.lock().sockets(|_| true);
        shut_down(&sockets);
        // A socket closes with its last handle.
        drop(sockets);
        if let Err(unfinished) = self.shared.threads.join_all(Instant::now() + JOIN_LIMIT) {
            log::error!("simulated engine: {unfinished}");
        }
    }
}

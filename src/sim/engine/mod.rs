//! An AceStream engine's HTTP interface, with what engines do to their clients.
//!
//! The way of a request: `listener` accepts, `http` reads heads and writes answers, `api` sorts the calls (a `call` is
//! one request with what was asked of it), `getstream`, `stat` and `playback` answer them; a `reader` has its place at a
//! session and a `sender` sends it the body, or `film` a part of a file; `state` is what they share, `sessions` holds the rules. It must not know what
//! a proxy is, nor who judges what it sent.

mod api;
mod call;
mod content;
mod counts;
mod dialect;
mod file;
mod film;
mod getstream;
mod hls;
mod http;
mod listener;
mod listing;
mod playback;
mod reader;
mod script;
mod sender;
mod sessions;
mod stat;
mod state;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::content::{Begin, Burst, Content, Delivery, Dress, Framing, Pace, Stuck};
pub use self::counts::{Counts, RequestRecord};
pub use self::dialect::Dialect;
pub use self::file::{FilmFile, Parts};
pub use self::listing::{Hls, HlsKind};
pub use self::script::{
    BodyEvent, Call, CallKind, Entry, Fill, Getstream, Head, Health, Order, PlaybackStep, Script, Steps,
};
pub use self::sessions::{EndedReaders, SessionRules};

use self::listener::Listener;
use self::state::{Shared, Slam};
use super::media::Restart;
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
    /// How its answers are worded.
    pub dialect: Dialect,
    /// How long a download goes on after the last session of its content has ended: a getstream in that time joins it,
    /// and waits for no prebuffer that is over. Zero: each session downloads for itself.
    pub download_outlives: Duration,
    /// How long a session lives, whoever reads it; `None` is for ever.
    pub session_lifetime: Option<Duration>,
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
            dialect: Dialect::default(),
            download_outlives: Duration::ZERO,
            session_lifetime: None,
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
    listener: Arc<Mutex<Listener>>,
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
        let addr = listener.addr();
        let engine = Self { addr, shared: Arc::clone(&shared), listener: Arc::new(Mutex::new(listener)) };
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

    /// Serves XML under this path as well, made for each who asks for it.
    pub fn serve(&self, path: &'static str, make: fn() -> String) {
        self.shared.control(|state| {
            state.documents.insert(path, make);
        });
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

    /// Changes how long a session lives, whoever reads it, those that are open included: it is lost then.
    pub fn set_session_lifetime(&self, lifetime: Option<Duration>) {
        self.shared.control(|state| state.session_lifetime = lifetime);
    }

    /// Has the download of a content get stuck now: sessions open as ever, playback answers, and not a byte comes, until
    /// it is free again ([`Stuck`]). Bodies that run fall silent; at the end they go on with all that fell due.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    pub fn stick(&self, name: Digest, stuck: Stuck) {
        self.shared.control(|state| {
            let content = state.by_either(name);
            state.contents[content].stick(stuck, Instant::now());
        });
    }

    /// Has the broadcaster of a content die and begin anew, for all readers, those who come later included: the last
    /// picture is torn, then nothing comes for a while, then another clock and other counters from the first table on.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    pub fn restart_broadcast(&self, name: Digest, restart: Restart) {
        self.shared.control(|state| {
            let content = state.by_either(name);
            state.contents[content].restart_broadcast(restart, Instant::now());
        });
    }

    /// Frees a content that is stuck.
    ///
    /// # Panics
    ///
    /// When there is no such content.
    pub fn free(&self, name: Digest) {
        self.shared.control(|state| {
            let content = state.by_either(name);
            state.contents[content].stuck = None;
        });
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

    /// Refuses new connections from the moment on at which the getstream call number `count` from now (1 is the next) is
    /// answered: whoever wants to play what it was promised finds nobody. What is open goes on until
    /// [`SimEngine::crash`].
    pub fn refuse_after_getstream(&self, count: u64) {
        let listener = Arc::downgrade(&self.listener);
        let refuse = move || {
            let closed = listener.upgrade().map_or(Ok(()), |listener| listener.lock().close());
            if let Err(error) = closed {
                log::error!("the simulated engine's port was not kept: {error}");
            }
        };
        self.shared.control(|state| state.refusal = Some((count, Box::new(refuse))));
    }

    /// Accepts connections and closes them at once, unread: a port forwarder in front of a dead engine. Those that are
    /// open go on: [`SimEngine::crash`] before it ends them too. [`SimEngine::accept`] is its end.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn slam(&self) -> io::Result<()> {
        self.shared.control(|state| state.slam = Slam::Everybodys);
        self.listener.lock().reopen(&self.shared)
    }

    /// Closes the connection of each of these calls without an answer, in place of those named before.
    pub fn slam_calls(&self, kinds: &[CallKind]) {
        self.shared.control(|state| state.slam = Slam::Of(kinds.to_vec()));
    }

    /// Freezes, as a process that is stopped (SIGSTOP): connections are made, nothing is answered, bodies are silent.
    pub fn freeze(&self) {
        self.shared.control(|state| state.is_frozen = true);
    }

    /// Ends the freeze: what was asked meanwhile takes effect now, also for clients that have gone, all answers go
    /// out at once, and bodies go on with all that fell due.
    pub fn thaw(&self) {
        self.shared.control(|state| state.is_frozen = false);
    }

    /// Accepts connections again, and serves them.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn accept(&self) -> io::Result<()> {
        self.shared.control(|state| {
            state.slam = Slam::Nobodys;
            state.refusal = None;
        });
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
            state.is_frozen = false;
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

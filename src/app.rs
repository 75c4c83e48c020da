//! Puts the parts together, and takes them apart again.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};

use crate::allocator;
use crate::channels::keeper::{self, Keeper, Reload, Settings};
use crate::channels::list::List;
use crate::channels::sources::Fetcher;
use crate::channels::state::StateDir;
use crate::config::{self, Config, Live};
use crate::engine::pool::Pool;
use crate::guide::current::Current;
use crate::guide::refresh::{self, GuideKeeper};
use crate::http::descriptors::raise_descriptor_limit;
use crate::http::guard::Patience;
use crate::http::listener::{Inherited, Listener};
use crate::http::parked::ParkedThreads;
use crate::http::server::{Server, ServerLimits};
use crate::http::socket::Options;
use crate::http::turnstile::Turnstile;
use crate::stats::Stats;
use crate::stream::streams::{self, Streams};
use crate::threads::{LARGE_STACK_BYTES, SMALL_STACK_BYTES, Threads, Unfinished};
use crate::tuner::device::{self, Tuner};
use crate::tuner::discover;
use crate::web::connections::Connections;
use crate::web::context::Context;
use crate::web::face::playbacks::Playbacks;
use crate::web::hls::kept::Hls;
use crate::web::routes;
use crate::web::status::Snapshot;

#[cfg(test)]
mod limits;

/// At shutdown a listener that outlives the proxy is left within this time; it takes milliseconds.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

/// At shutdown clients get what was published; who has not taken it by then is cut off.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// At shutdown engines are waited for so long: a getstream in flight has a session that only its answer tells how to
/// stop.
const ENGINE_LIMIT: Duration = Duration::from_secs(4);

/// At shutdown everything has ended by then, or is left behind.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(4500);

/// A client that takes nothing is looked after at least this often, so that shutting down never waits for its whole
/// time-out.
const MAX_WRITE_SLICE: Duration = Duration::from_secs(5);

/// The housekeeper beats several times a second and makes no calls; it waits for locks that are held for moments.
const HOUSEKEEPER_SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// The running proxy.
pub struct App {
    /// What it was started with; of `server` and `stream` the context has what is true now.
    config: Config,
    /// `[epg]`, as it is now.
    epg: Arc<Live<config::Epg>>,
    context: Arc<Context>,
    server: Arc<Server>,
    lists: Reload,
    /// Dropped to end the threads that wait for their next turn: housekeeper, self-check, lists.
    stop: Sender<()>,
    service_threads: Threads,
    fetcher_threads: Threads,
    client_threads: Threads,
}

/// Why the proxy did not start.
#[derive(Debug)]
pub enum StartError {
    /// The address cannot be listened to.
    Listen(SocketAddr, io::Error),
    /// The socket of the service manager cannot be set up.
    Inherit(io::Error),
    /// The system gives no thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Inherit(error) => write!(f, "cannot use the socket of the service manager: {error}"),
            Self::Thread(error) => write!(f, "the system gives no thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The limit of descriptors that systems have by custom; assumed where the system does not tell.
const USUAL_DESCRIPTORS: u64 = 1024;

/// As many descriptors as the system allows, since every client needs three.
fn descriptor_limit() -> u64 {
    raise_descriptor_limit().unwrap_or_else(|error| {
        log::warn!("The limit of descriptors cannot be raised: {error}");
        USUAL_DESCRIPTORS
    })
}

/// The directory for what lasts. Without one everything works, so that a wrong one is no reason not to start.
fn open_state(path: &Path) -> StateDir {
    StateDir::open(path).unwrap_or_else(|error| {
        log::error!("The state directory {} cannot be used: {error}; nothing will last", path.display());
        StateDir::default()
    })
}

/// What the tuner's id is kept as.
const TUNER_ID: &str = "tuner-id";

/// The id's file has nine bytes.
const MAX_TUNER_ID_BYTES: u64 = 64;

/// The tuner, under the id that it had before.
fn tuner_of(settings: config::Tuner, state: &StateDir, port: u16) -> Tuner {
    let kept = state.read(TUNER_ID, MAX_TUNER_ID_BYTES).unwrap_or_else(|error| {
        log::warn!("The tuner's id cannot be read: {error}");
        None
    });
    let made_id = device::lasting_id(kept.as_deref(), port);
    if let Err(error) = state.write(TUNER_ID, format!("{made_id}\n").as_bytes()) {
        log::warn!("The tuner's id cannot be kept: {error}");
    }
    Tuner { settings, made_id }
}

impl App {
    /// Starts the proxy: once this returns, the port is open. With a port that is passed, which is open already, the
    /// address of the configuration is not used.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened to, or there is no thread to be had.
    pub fn start(config: Config, passed: Option<Inherited>) -> Result<Self, StartError> {
        Self::start_with(config, passed, Patience::default())
    }

    /// Starts the proxy with another patience with its peers.
    ///
    /// # Errors
    ///
    /// As for [`App::start`].
    pub fn start_with(
        config: Config,
        passed: Option<Inherited>,
        patience: Patience,
    ) -> Result<Self, StartError> {
        let Config { server, engines, health, stream, epg, tuner, log: _, channels, playlists, state_dir } =
            config.clone();
        allocator::keep_no_large_memory();
        let write_slice = (server.write_timeout / 4).clamp(Duration::from_millis(50), MAX_WRITE_SLICE);
        let options = Options { read_limit: patience.silence, write_slice };
        let listener = match passed {
            Some(passed) => Listener::inherit(passed, options).map_err(StartError::Inherit)?,
            None => Listener::open(server.listen, options)
                .map_err(|error| StartError::Listen(server.listen, error))?,
        };

        let port = listener.address().port();
        let (service_threads, fetcher_threads, client_threads) =
            (Threads::new(), Threads::new(), Threads::new());
        let pool = Arc::new(Pool::new(engines));
        let stats = Arc::new(Stats::default());
        let descriptors = descriptor_limit();
        let parked = Arc::new(ParkedThreads::new(descriptors));
        let (server, stream) = (Live::new(server), Live::new(stream));
        let streams =
            Streams::new(Arc::clone(&stream), Arc::clone(&pool), Arc::clone(&stats), fetcher_threads.clone());
        let state = state_dir.map_or_else(StateDir::default, |path| open_state(&path));
        let tuner = tuner.enabled.then(|| tuner_of(tuner, &state, port));
        let list = Live::new(List::default());
        let (keeper, lists) = Keeper::new(Settings { channels, playlists }, state.clone(), Arc::clone(&list));
        // Before the first look at it, so that no player is told at the start that there is no guide.
        let has_guide = !epg.urls.is_empty() || !list.get().guides().is_empty();
        let guide = if has_guide { Current::Awaited } else { Current::None };
        let context = Arc::new(Context {
            channels: list,
            guide: Live::new(guide),
            state,
            streams,
            server: Arc::clone(&server),
            stream,
            pool,
            tuner,
            stats,
            started: Instant::now(),
            started_at: SystemTime::now(),
            clients: Turnstile::default(),
            connections: Connections::default(),
            hls: Hls::default(),
            playbacks: Playbacks::default(),
            parked: Arc::clone(&parked),
            threads: vec![service_threads.clone(), fetcher_threads.clone(), client_threads.clone()],
        });

        let handler = {
            let context = Arc::clone(&context);
            Arc::new(move |request| routes::handle(&context, request))
        };
        let limits = ServerLimits { descriptors, patience };
        let server = Server::start(
            listener,
            server,
            limits,
            parked,
            &service_threads,
            client_threads.clone(),
            handler,
        )
        .map_err(StartError::Thread)?;

        // Nothing is ever sent: the channel's end is the signal.
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let app = Self {
            config,
            epg: Live::new(epg),
            context,
            server: Arc::new(server),
            lists,
            stop,
            service_threads,
            fetcher_threads,
            client_threads,
        };
        app.start_services(health, keeper, &stopped).map_err(StartError::Thread)?;
        Ok(app)
    }

    fn start_services(
        &self,
        health: config::Health,
        keeper: Keeper,
        stopped: &Receiver<()>,
    ) -> io::Result<()> {
        let (streams, stop) = (Arc::clone(&self.context.streams), stopped.clone());
        let heartbeats = self.service_threads.heartbeats();
        let heartbeat = heartbeats.add("housekeeper", HOUSEKEEPER_SILENCE_LIMIT);
        let beat = move || heartbeat.beat();
        let keep_house = move || streams::keep_house(&streams, &stop, beat, allocator::give_memory_back);
        self.service_threads.spawn("housekeeper", SMALL_STACK_BYTES, keep_house)?;

        let (server, stop) = (Arc::clone(&self.server), stopped.clone());
        self.service_threads.spawn("self-check", SMALL_STACK_BYTES, move || server.check_itself(&stop))?;

        self.keep_guide(stopped.clone())?;
        if self.config.tuner.enabled && self.config.tuner.discovery {
            self.answer_discovery(stopped.clone())?;
        }
        let stop = stopped.clone();
        let heartbeat = heartbeats.add("lists", keeper::SILENCE_LIMIT);
        let keep_lists = move || keeper.run(&stop, || heartbeat.beat());
        self.service_threads.spawn("lists", LARGE_STACK_BYTES, keep_lists)?;

        self.context.pool.watch(health, self.service_threads.clone())
    }

    /// Keeps the guide of the channels.
    fn keep_guide(&self, stop: Receiver<()>) -> io::Result<()> {
        let context = &self.context;
        let keeper = GuideKeeper {
            channels: Arc::clone(&context.channels),
            epg: Arc::clone(&self.epg),
            current: Arc::clone(&context.guide),
            fetcher: Fetcher::new(stop.clone()),
            state: context.state.clone(),
        };
        let heartbeat = self.service_threads.heartbeats().add("guide", refresh::SILENCE_LIMIT);
        let keep = move || keeper.run(&stop, &|| heartbeat.beat());
        self.service_threads.spawn("guide", LARGE_STACK_BYTES, keep)
    }

    /// Lets the tuner be found by whoever looks for one.
    fn answer_discovery(&self, stop: Receiver<()>) -> io::Result<()> {
        let (context, listen) = (Arc::clone(&self.context), self.address());
        let heartbeat = self.service_threads.heartbeats().add("discovery", discover::SILENCE_LIMIT);
        let answer = move || {
            let device = || context.tuner.as_ref().map(|tuner| tuner.device(context.max_channels()));
            discover::run(discover::PORT, listen, device, &stop, || heartbeat.beat());
        };
        self.service_threads.spawn("discovery", SMALL_STACK_BYTES, answer)
    }

    /// Goes by other settings from now on, and tells the keys that differ and count only after a restart.
    ///
    /// An engine that is new is used at once, and one that is not there any more takes no more streams. A stream goes on by
    /// the settings it began with, a client by those it came under; all else goes by the new ones
    /// at once. A client that takes nothing is looked after as often as it was before, so a much shorter
    /// `write_timeout_s` may close it up to 5 s late.
    #[allow(dead_code, reason = "nothing but tests changes the settings of a running proxy yet")]
    pub fn reload(&self, config: Config) -> Vec<&'static str> {
        let Config {
            mut server,
            engines,
            health,
            stream,
            epg,
            tuner,
            log,
            channels,
            playlists,
            state_dir: _,
        } = config;
        let running = &self.config;
        let for_a_restart = [
            ("server.listen", server.listen != running.server.listen),
            ("health", health != running.health),
            ("tuner", tuner != running.tuner),
            ("log.level", log.level != running.log.level),
            ("log.file", log.file != running.log.file),
        ];
        server.listen = running.server.listen;
        self.context.server.replace(server);
        self.context.stream.replace(stream);
        self.epg.replace(epg);
        self.reload_lists(Settings { channels, playlists });
        if let Err(error) = self.context.pool.reconcile(engines) {
            log::error!("No thread to watch an engine: {error}");
        }
        for_a_restart.into_iter().filter_map(|(key, is_changed)| is_changed.then_some(key)).collect()
    }

    /// Makes the channel list anew by these settings, and fetches all lists again. Whoever plays goes on.
    pub fn reload_lists(&self, settings: Settings) {
        self.lists.reload(settings);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How often it has answered itself: while that grows, it lives.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.server.answers()
    }

    /// What it does, in a few words for a person.
    #[must_use]
    pub fn headline(&self) -> String {
        Snapshot::take(&self.context).headline()
    }

    /// The threads that must never stop.
    #[must_use]
    #[allow(dead_code, reason = "tests look at their beats, and add one that does not beat")]
    pub fn service_threads(&self) -> &Threads {
        &self.service_threads
    }

    /// All streams.
    #[must_use]
    #[allow(dead_code, reason = "tests take seats without a connection")]
    pub fn streams(&self) -> &Arc<Streams> {
        &self.context.streams
    }

    /// Ends the proxy: no new streams, every client gets what was published, every engine session is stopped, all
    /// threads are joined; within five seconds, whatever engines and clients do.
    ///
    /// # Errors
    ///
    /// The threads that did not end in time.
    pub fn shutdown(self) -> Result<(), Unfinished> {
        let now = Instant::now();
        let deadline = now + SHUTDOWN_LIMIT;
        drop(self.stop);
        // First of all: on a port that the next process takes over, who connects now waits for that one, and is not
        // answered that the proxy shuts down.
        self.server.leave(now + LEAVE_LIMIT);
        self.context.streams.close();
        self.context.pool.stop_watching();
        if self.client_threads.join_all(now + DRAIN_LIMIT).is_err() {
            self.context.connections.shutdown_all();
            self.server.cut_off();
        }
        let mut fetchers = self.fetcher_threads.join_all(now + ENGINE_LIMIT);
        if fetchers.is_err() {
            self.context.pool.engines().iter().for_each(|engine| engine.api.interrupt());
            fetchers = self.fetcher_threads.join_all(deadline);
        }
        // Only now: who asked for a stream meanwhile was answered that the proxy shuts down.
        self.server.stop();
        let clients = self.client_threads.join_all(deadline);
        let services = self.service_threads.join_all(deadline);
        let left: Vec<_> = [fetchers, clients, services]
            .into_iter()
            .filter_map(Result::err)
            .flat_map(|left| left.0)
            .collect();
        if left.is_empty() { Ok(()) } else { Err(Unfinished(left)) }
    }
}

//! Several engines, and which one takes the next stream.
//!
//! The choice is a pure function of plain values ([`choose`]); the place on the chosen engine is taken in the same
//! lock, so that two streams starting together cannot both take the last one. The pool owns the watches of its engines, and
//! tells whoever waits for an engine when one comes up.
//!
//! Lock rule: none of the pool's locks is held over a call to an engine; its list of engines is taken and let go at once.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use crate::config;
use crate::threads::heartbeat::Heartbeat;
use crate::threads::{LARGE_STACK_BYTES, Threads};

use super::choose::{Unavailable, choose};
use super::news::News;
use super::relays::Relays;
use super::watch::Watch;

pub use super::member::{Content, Engine, Reservation, Wish};

/// An engine's watch may be silent for so many of its longest turns, ...
const WATCH_TURNS: u32 = 3;

/// ... and as long as the system takes to say that a name cannot be resolved.
const WATCH_SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// All engines of the configuration, in its order.
pub struct Pool {
    engines: Mutex<Arc<[Arc<Engine>]>>,
    news: Arc<News>,
    relays: Arc<Relays>,
    watching: Mutex<Option<Watching>>,
    /// Taken while choosing, so that choice and reservation are one step.
    choosing: Mutex<()>,
}

/// The watches of a pool.
struct Watching {
    rhythm: config::Health,
    threads: Threads,
    /// How many were started, for the names of their threads.
    started: usize,
    running: Vec<Running>,
}

/// A watch that runs; its end is the drop of this.
struct Running {
    engine: Arc<Engine>,
    watch: Arc<Watch>,
    threads: Threads,
    heartbeat: Heartbeat,
    /// Nothing is ever sent: the channel's end is the signal.
    stop: Option<Sender<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        self.watch.interrupt();
        self.threads.heartbeats().forget(&self.heartbeat);
    }
}

impl Watching {
    fn start(&mut self, engine: &Arc<Engine>) -> io::Result<()> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let watch = Arc::new(Watch::new(Arc::clone(engine), self.rhythm));
        let name = format!("engine-{}", self.started);
        let limit = WATCH_SILENCE_LIMIT + WATCH_TURNS * watch.longest_turn();
        let heartbeat = self.threads.heartbeats().add(&name, limit);
        let (runs, beats) = (Arc::clone(&watch), heartbeat.clone());
        let running = Running {
            engine: Arc::clone(engine),
            watch,
            threads: self.threads.clone(),
            heartbeat,
            stop: Some(stop),
        };
        self.threads.spawn(&name, LARGE_STACK_BYTES, move || runs.run(&stopped, || beats.beat()))?;
        self.started += 1;
        self.running.push(running);
        Ok(())
    }

    fn watches(&self, engine: &Arc<Engine>) -> bool {
        self.running.iter().any(|running| Arc::ptr_eq(&running.engine, engine))
    }
}

impl Pool {
    /// A pool of these engines, none of them asked yet, nor watched.
    #[must_use]
    pub fn new(engines: Vec<config::Engine>) -> Self {
        let (news, relays) = (Arc::new(News::default()), Arc::new(Relays::default()));
        let engine = |settings| Arc::new(Engine::new(settings, Arc::clone(&news), Arc::clone(&relays)));
        let engines = engines.into_iter().map(engine).collect();
        Self {
            engines: Mutex::new(engines),
            news,
            relays,
            watching: Mutex::default(),
            choosing: Mutex::new(()),
        }
    }

    /// The engines as they are now, in the order of the configuration.
    #[must_use]
    pub fn engines(&self) -> Arc<[Arc<Engine>]> {
        Arc::clone(&self.engines.lock())
    }

    /// Who we are to the engines, and who asks us.
    #[must_use]
    pub fn relays(&self) -> &Relays {
        &self.relays
    }

    /// Has every engine watched in this rhythm, each on a thread of these, until [`Pool::stop_watching`].
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn watch(&self, rhythm: config::Health, threads: Threads) -> io::Result<()> {
        let mut watching = Watching { rhythm, threads, started: 0, running: Vec::new() };
        for engine in self.engines().iter() {
            watching.start(engine)?;
        }
        *self.watching.lock() = Some(watching);
        Ok(())
    }

    /// Ends all watches, calls in progress included; their threads end soon.
    pub fn stop_watching(&self) {
        let ended = self.watching.lock().take();
        drop(ended);
    }

    /// Takes over another list of engines. One that is in both goes on as it is; one that is new is watched and used from now
    /// on; one that is not there any more, or with other settings, takes no more streams, and those it has play on.
    ///
    /// # Errors
    ///
    /// When a new one is not watched, since there is no thread to be had; it is used all the same.
    pub fn reconcile(&self, settings: Vec<config::Engine>) -> io::Result<()> {
        let before = self.engines();
        let same = |settings: &config::Engine| before.iter().find(|engine| engine.settings == *settings);
        let engines: Arc<[_]> = settings
            .into_iter()
            .map(|settings| match same(&settings) {
                Some(engine) => Arc::clone(engine),
                None => {
                    let (news, relays) = (Arc::clone(&self.news), Arc::clone(&self.relays));
                    Arc::new(Engine::new(settings, news, relays))
                }
            })
            .collect();
        *self.engines.lock() = Arc::clone(&engines);
        let mut is_started = Ok(());
        let mut ended = Vec::new();
        if let Some(watching) = &mut *self.watching.lock() {
            let is_left =
                |running: &mut Running| !engines.iter().any(|engine| Arc::ptr_eq(engine, &running.engine));
            ended.extend(watching.running.extract_if(.., is_left));
            for engine in engines.iter() {
                if !watching.watches(engine) {
                    is_started = is_started.and(watching.start(engine));
                }
            }
        }
        drop(ended);
        // One that was never asked is used: that is as good as up.
        self.news.tell_up();
        is_started
    }

    /// How often an engine came up; for [`Pool::wait_up_while`].
    #[must_use]
    pub fn ups(&self) -> u64 {
        self.news.ups()
    }

    /// Waits until an engine has come up since [`Pool::ups`] gave `seen`, at most until `deadline` and while `is_wanted`, which
    /// is asked several times a second. Tells whether one has.
    pub fn wait_up_while(&self, seen: u64, deadline: Instant, is_wanted: impl Fn() -> bool) -> bool {
        self.news.wait_until_met(deadline, || self.ups() != seen, is_wanted)
    }

    /// Has every engine that is not known to be up checked now, once for all who ask at the same time, and waits for the
    /// outcome: until one is up, or all were asked, or `deadline`, or it is not wanted any more. Tells whether one is usable.
    pub fn check_now(&self, deadline: Instant, is_wanted: impl Fn() -> bool) -> bool {
        let engines = self.engines();
        let is_up = |engine: &Arc<Engine>| engine.health.lock().is_up == Some(true);
        if !engines.iter().any(is_up) {
            let is_watched = |engine: &&Arc<Engine>| {
                self.watching.lock().as_ref().is_some_and(|watching| watching.watches(engine))
            };
            let asked: Vec<_> =
                engines.iter().filter(is_watched).map(|engine| (engine, engine.want_check())).collect();
            let is_over = || {
                engines.iter().any(is_up) || asked.iter().all(|(engine, before)| engine.checks() > *before)
            };
            self.news.wait_until_met(deadline, is_over, is_wanted);
        }
        engines.iter().any(|engine| engine.is_usable())
    }

    /// Takes a place on the best engine for this wish.
    ///
    /// # Errors
    ///
    /// When every engine is down, full, busy starting, plays another variant of the content, or was tried in vain.
    pub fn reserve(&self, wish: &Wish<'_>) -> Result<Reservation, Unavailable> {
        let _choosing = self.choosing.lock();
        let engines = self.engines();
        let views: Vec<_> = engines.iter().map(|engine| engine.view(wish)).collect();
        let engine = Arc::clone(&engines[choose(&views)?]);
        let (place, start) = (Arc::clone(&engine.places), Arc::new(Instant::now()));
        engine.starts.lock().push(Arc::downgrade(&start));
        let content = wish.content.clone().map(|content| engine.add_content(content));
        // While nobody has a place on it, its watch sleeps until the next health check.
        engine.nudge();
        Ok(Reservation { engine, name: wish.name, place: Some(place), start: Some(start), content })
    }

    /// The names of the engines that are not down and have room.
    #[must_use]
    pub fn at_hand(&self) -> Vec<String> {
        let is_at_hand =
            |engine: &&Arc<Engine>| engine.is_usable() && engine.streams() < engine.settings.max_streams;
        self.engines().iter().filter(is_at_hand).map(|engine| engine.settings.name.clone()).collect()
    }

    /// Whether the engine of this name is not known to be down.
    #[must_use]
    pub fn is_usable(&self, name: &str) -> bool {
        self.engines().iter().any(|engine| engine.settings.name == name && engine.is_usable())
    }

    /// Records what the stream with this place plays, once it is known. Tells whether it may: not if the engine plays another
    /// variant of it.
    #[must_use]
    pub fn claim(&self, reservation: &mut Reservation, content: Content) -> bool {
        let _choosing = self.choosing.lock();
        if reservation.content.as_deref() == Some(&content) {
            return true;
        }
        if reservation.engine.has_variant_of(&content) {
            return false;
        }
        reservation.content = Some(reservation.engine.add_content(content));
        true
    }
}

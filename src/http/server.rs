//! `tiny_http`, contained: a thread per connection with a request in work, and nothing a peer does ends the server.
//!
//! Only this file and `incoming`, which judges what comes, name `tiny_http`. What it does when a peer or the system
//! misbehaves, and what is done about it here:
//!
//! - After one failed `accept` it never accepts again, and its accept thread dies without a word when there is no
//!   thread or descriptor for a connection. So it is built anew on the same listener, while the requests that still
//!   come through the old one are taken.
//! - Of connections that come in a burst it leaves some unread until another one ends. So each burst is followed by
//!   connections of our own, the self-checks.
//! - It waits as long as a peer likes for a head that never ends. So all connections are looked at every second, and
//!   [`super::guard`] says which of them have to go.
//!
//! The one thread that takes requests writes to no socket that could make it wait.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::config::{self, Live};
use crate::threads::heartbeat::Heartbeat;
use crate::threads::{SMALL_STACK_BYTES, Threads};

use super::descriptors::{self, Reserve, Seen};
use super::dispatch::Dispatcher;
use super::guard::{Guard, Inspection, Patience, ToEnd};
use super::incoming::{Handler, Incoming, MAX_HEAD_BYTES};
use super::leave::{Drain, Leave};
use super::listener::Listener;
use super::parked::{ClosedSockets, ParkedThreads};
use super::refused::Refused;
use super::request::ConnectionControl;
use super::selfcheck::{self, Signs};
use super::strangers::{self, Strangers};

/// How often the sockets are looked at: what a peer can send until then is what its endless head costs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often they are looked at while descriptors are short: each look wins some back, and `tiny_http`'s accept thread
/// dies without a word when it finds none left.
const SHORTAGE_INTERVAL: Duration = Duration::from_millis(100);

/// A server that was replaced is asked this often for requests of the connections that it had accepted.
const RETIRED_INTERVAL: Duration = Duration::from_millis(20);

/// A replaced server that gave no request for so long has no connection left: one that asks for nothing is ended
/// sooner.
const RETIRED_KEPT: Duration = Duration::from_secs(60);

/// The pause before a server is built anew doubles from the first to the second of these while it does not help: each
/// attempt costs five threads for five seconds.
const REBUILD_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The thread that takes requests beats each second, or more often, and never waits for a peer. Looking at 20,000
/// descriptors on a busy machine takes it a second.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Descriptors that streams leave to everything else: their sources, status, the log; a quarter where there are few.
pub(crate) const DESCRIPTOR_MARGIN: u64 = 64;

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Descriptors of the process.
    pub descriptors: u64,
    /// How long peers may take.
    pub patience: Patience,
}

/// A listening server.
pub struct Server {
    shared: Arc<Shared>,
    service_threads: Threads,
}

struct Shared {
    listener: Listener,
    limits: ServerLimits,
    leave: Leave,
    is_stopping: AtomicBool,
    dispatcher: Arc<Dispatcher>,
    /// Full when a request has come since the last self-check, or a connection was seen that has not asked for anything.
    came: (Sender<()>, Receiver<()>),
    /// Self-checks that were answered.
    answers: AtomicU64,
    /// Connections, at the last look, that were reset before anybody had read them.
    unread: AtomicUsize,
}

impl Server {
    /// Serves this listener: one thread of `service_threads` takes the requests, and each connection's are handled on
    /// one of `request_threads`, one after the other. What peers cost for good is counted in `parked`.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or descriptor.
    pub fn start(
        listener: Listener,
        settings: Arc<Live<config::Server>>,
        limits: ServerLimits,
        parked: Arc<ParkedThreads>,
        service_threads: &Threads,
        request_threads: Threads,
        handler: Arc<Handler>,
    ) -> io::Result<Self> {
        let control = Arc::new(ConnectionControl {
            guard: Guard::new(limits.patience, MAX_HEAD_BYTES, parked),
            reserve: Reserve::default(),
            local_port: listener.address().port(),
            stream_ceiling: limits.descriptors - DESCRIPTOR_MARGIN.min(limits.descriptors / 4),
            settings,
        });
        // A connection that waited in the backlog before the listener had its options does not have them. By this time
        // it has asked for something, or was cut.
        let options_due = listener.is_inherited().then(|| Instant::now() + 2 * limits.patience.head);
        let late_options = options_due.map(|until| (until, listener.options()));
        let dispatcher = Dispatcher::new(control, request_threads, handler, late_options);
        let shared = Arc::new(Shared {
            listener,
            limits,
            leave: Leave::default(),
            is_stopping: AtomicBool::new(false),
            dispatcher: Arc::new(dispatcher),
            came: crossbeam_channel::bounded(1),
            answers: AtomicU64::new(0),
            unread: AtomicUsize::new(0),
        });
        let strangers = Strangers::new(strangers::closed_by_us(shared.listener.address()), Instant::now());
        let server = shared.build()?;
        let serving = Arc::clone(&shared);
        let heartbeat = service_threads.heartbeats().add("http", SILENCE_LIMIT);
        let serve = move || Serving::new(serving, server, strangers).run(&heartbeat);
        service_threads.spawn("http", SMALL_STACK_BYTES, serve)?;
        Ok(Self { shared, service_threads: service_threads.clone() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.listener.address()
    }

    /// Takes no more connections from a listener that outlives this process: who connects from now on waits for the
    /// next one. Requests are taken as before. A listener of our own goes on until [`Server::stop`]. The self-checks
    /// have to be ending.
    pub fn leave(&self, deadline: Instant) {
        let Shared { listener, leave, .. } = &*self.shared;
        if listener.is_inherited()
            && let Err(error) = leave.run(listener, deadline)
        {
            log::warn!("The port is left to the next process late, and some clients may be refused: {error}");
        }
    }

    /// Takes no connections and no requests any more. Requests in work go on.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.listener.close();
    }

    /// Asks itself for `/healthz` every few seconds, and a moment after every request, until `stop` is closed.
    pub fn check_itself(&self, stop: &Receiver<()>) {
        let Shared { listener, came, unread, dispatcher, answers, leave, .. } = &*self.shared;
        let control = &dispatcher.control;
        let signs = Signs { came: &came.1, unread, opened: &|| control.guard.opened() };
        let heartbeat = self.service_threads.heartbeats().add("self-check", selfcheck::SILENCE_LIMIT);
        let accept_timeout = self.shared.limits.patience.silence;
        selfcheck::run(
            listener.loopback(),
            accept_timeout,
            &signs,
            &control.reserve,
            answers,
            &heartbeat,
            stop,
        );
        leave.checks_ended.set();
    }

    /// How often the server has answered itself: whoever sees that grow knows that it lives.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }
}

/// The thread that takes the requests.
struct Serving {
    shared: Arc<Shared>,
    server: tiny_http::Server,
    /// With the time of their last request.
    retired: Vec<(Instant, tiny_http::Server)>,
    next_look: Instant,
    closed_sockets: ClosedSockets,
    strangers: Strangers,
    /// Connections so far when some waited to be accepted at the last look.
    opened_at_backlog: Option<u64>,
    rebuild_at: Option<Instant>,
    rebuilt: Instant,
    pause: Duration,
    drain: Drain,
    /// Whose connections are not taken, since they have cost too much.
    refused: Vec<IpAddr>,
}

impl Serving {
    fn new(shared: Arc<Shared>, server: tiny_http::Server, strangers: Strangers) -> Self {
        let now = Instant::now();
        Self {
            shared,
            server,
            retired: Vec::new(),
            next_look: now,
            closed_sockets: ClosedSockets::default(),
            strangers,
            opened_at_backlog: None,
            rebuild_at: None,
            rebuilt: now,
            pause: Duration::ZERO,
            drain: Drain::default(),
            refused: Vec::new(),
        }
    }

    fn run(mut self, heartbeat: &Heartbeat) {
        while !self.shared.is_stopping.load(Ordering::Acquire) {
            heartbeat.beat();
            let now = Instant::now();
            if now >= self.next_look || self.shared.dispatcher.control.guard.parked().refused().has_grown() {
                self.refuse(now);
                let Self { shared, closed_sockets, strangers, refused, .. } = &mut self;
                let looked = shared.look(closed_sockets, strangers, refused, now);
                self.next_look = now + if looked.is_short { SHORTAGE_INTERVAL } else { LOOK_INTERVAL };
                if looked.ended > 0 {
                    // Descriptors have become free: what failed for want of them may work at once.
                    self.rebuild_at = self.rebuild_at.map(|_| now);
                }
                // A thread that has ended keeps its stack until it is joined.
                self.shared.dispatcher.threads.reap();
                self.replace_dead_acceptor(now);
            }
            if self.shared.leave.has_begun() {
                if self.rebuild_at.take().is_some() {
                    // Its accept thread had ended before, and now nobody is to replace it.
                    self.drain.begin(&self.shared.leave, now);
                }
                self.drain.look(&self.shared.leave, now, || self.shared.have_all_asked());
            }
            if self.rebuild_at.is_some_and(|at| now >= at) {
                self.rebuild(now);
            }
            match self.server.recv_timeout(self.next_event() - now) {
                Ok(Some(request)) => self.shared.dispatch(request),
                Ok(None) => {}
                Err(_) if self.shared.is_stopping.load(Ordering::Acquire) => break,
                Err(_) if self.shared.leave.has_begun() => {
                    self.drain.begin(&self.shared.leave, Instant::now());
                }
                Err(error) => {
                    log::debug!("accept failed ({error}); listening again");
                    let now = Instant::now();
                    self.next_look = self.next_look.min(now + SHORTAGE_INTERVAL);
                    self.plan_rebuild(now);
                }
            }
            self.take_from_retired();
        }
        if self.shared.listener.is_inherited() {
            self.refuse(Instant::now());
            // A server that is dropped connects to its own port. That connection would wait in the backlog, and systemd
            // would start the next process for it.
            mem::forget((self.server, self.retired));
        }
        // A listener of our own is closed by now, and that connect is refused at once.
    }

    /// Has the kernel take no connections of those who have cost too much; while the port is left to the next process, of
    /// everybody.
    fn refuse(&mut self, now: Instant) {
        let Shared { listener, leave, dispatcher, .. } = &*self.shared;
        let networks = if leave.has_begun() {
            Vec::new()
        } else {
            dispatcher.control.guard.parked().refused().networks(listener.loopback().ip(), now)
        };
        if networks == self.refused {
            return;
        }
        match listener.refuse(&networks) {
            Ok(()) if networks.is_empty() => log::info!("Everybody can connect again"),
            Ok(()) => log::warn!(
                "Nobody can connect from {networks:?} for a while: requests from there have cost threads for good"
            ),
            Err(error) => log::warn!("Nobody can be kept from connecting: {error}"),
        }
        self.refused = networks;
    }

    fn next_event(&self) -> Instant {
        let at = self.rebuild_at.map_or(self.next_look, |at| at.min(self.next_look));
        let now = Instant::now();
        // `Server::stop` wakes this thread by closing the listener; one that is left to the next process stays open, so
        // it has to look by itself.
        let is_left = self.shared.leave.has_begun();
        if self.retired.is_empty() && !is_left { at } else { at.min(now + RETIRED_INTERVAL) }.max(now)
    }

    /// Plans another server when the accept thread of this one is dead: connections wait to be accepted at two looks,
    /// and in between no connection has asked for anything, not even a self-check.
    fn replace_dead_acceptor(&mut self, now: Instant) {
        if self.shared.leave.has_begun() {
            return;
        }
        let has_backlog = self.shared.listener.backlog().is_ok_and(|count| count > 0);
        let opened = has_backlog.then(|| self.shared.dispatcher.control.guard.opened());
        if opened.is_some() && opened == self.opened_at_backlog && self.rebuild_at.is_none() {
            log::warn!("Nobody accepts connections; listening again");
            self.plan_rebuild(now);
        }
        self.opened_at_backlog = opened;
    }

    fn plan_rebuild(&mut self, now: Instant) {
        let (shortest, longest) = REBUILD_PAUSES;
        let is_first = now.saturating_duration_since(self.rebuilt) > 2 * longest;
        self.pause = if is_first { Duration::ZERO } else { (2 * self.pause).clamp(shortest, longest) };
        self.rebuild_at = Some(now + self.pause);
    }

    fn rebuild(&mut self, now: Instant) {
        self.rebuild_at = None;
        self.rebuilt = now;
        self.opened_at_backlog = None;
        match self.shared.build() {
            Ok(new) => self.retired.push((now, mem::replace(&mut self.server, new))),
            Err(error) => {
                log::warn!("The port cannot be listened to again yet: {error}");
                self.plan_rebuild(now);
            }
        }
    }

    /// Connections that a replaced server had accepted still send requests through it.
    fn take_from_retired(&mut self) {
        let now = Instant::now();
        for (last, old) in &mut self.retired {
            while let Ok(Some(request)) = old.try_recv() {
                *last = now;
                self.shared.dispatch(request);
            }
        }
        let is_over = |(last, _): &mut (Instant, _)| now.saturating_duration_since(*last) >= RETIRED_KEPT;
        for (_, old) in self.retired.extract_if(.., is_over) {
            // A server that is dropped connects to its own port, and may hang in that.
            mem::forget(old);
        }
    }
}

/// What came of a look at all connections.
struct Looked {
    /// Descriptors are short.
    is_short: bool,
    /// Connections that were ended.
    ended: usize,
}

impl Shared {
    fn build(&self) -> io::Result<tiny_http::Server> {
        let listener = self.dispatcher.control.reserve.lend(|| self.listener.duplicate())?;
        // `tiny_http` panics when the system has no thread for it.
        let built = catch_unwind(AssertUnwindSafe(|| tiny_http::Server::from_listener(listener, None)));
        built.map_err(|_| io::Error::other("there is no thread to do it"))?.map_err(io::Error::other)
    }

    /// Whether there is no connection that has not asked for anything yet.
    fn have_all_asked(&self) -> bool {
        let ConnectionControl { guard, reserve, local_port, .. } = &*self.dispatcher.control;
        let found = reserve.lend(|| descriptors::look(*local_port));
        found.is_ok_and(|found| found.connections.iter().all(|seen| guard.requests_of(seen.peer) > 0))
    }

    /// Looks at all connections and ends those that have to go.
    fn look(
        &self,
        closed_sockets: &mut ClosedSockets,
        strangers: &mut Strangers,
        refused: &[IpAddr],
        now: Instant,
    ) -> Looked {
        let ConnectionControl { guard, reserve, local_port, stream_ceiling, settings } =
            &*self.dispatcher.control;
        let found = match reserve.lend(|| descriptors::look(*local_port)) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("The connections cannot be looked at: {error}");
                return Looked { is_short: true, ended: 0 };
            }
        };
        let descriptors = found.count as u64;
        let too_many = descriptors.saturating_sub(*stream_ceiling);
        let streams = settings.get().max_clients;
        let Inspection { to_end, stuck, departed } =
            guard.inspect(&found.connections, too_many as usize, streams, now);
        let parked = closed_sockets.count_parked(&found.closed, self.limits.patience.end, now);
        guard.parked().set_parked(stuck + parked);
        // Connections whose thread hangs are closed and unread for ever; no self-check frees them.
        let unread = found.closed.len().saturating_sub(parked.max(guard.parked().forgotten() as usize));
        self.unread.store(unread, Ordering::Relaxed);
        // One that says nothing is looked at in time anyway; but it may have asked, and nobody has read it.
        let has_not_asked = |seen: &Seen| guard.requests_of(seen.peer) == 0;
        if unread > 0 || found.connections.iter().any(has_not_asked) {
            self.call_for_a_check();
        }
        strangers.add_departed(&departed, now);
        // What the next process answers on this port is not for us to judge.
        if !self.leave.has_begun() {
            let closed = || reserve.lend(|| strangers::closed_by_us(self.listener.address()));
            strangers.look(closed, |peer| guard.knows(peer), now);
        }
        for line in strangers.tell(now) {
            log::warn!("{line}");
        }
        for ToEnd { seen, owes_nothing } in &to_end {
            let end = || if *owes_nothing { seen.shutdown() } else { seen.abort() };
            if let Err(error) = reserve.lend(end) {
                log::warn!("The connection from {} cannot be ended: {error}", seen.peer);
            }
        }
        for seen in found.connections.iter().filter(|seen| Refused::has(refused, seen.peer.ip())) {
            if let Err(error) = reserve.lend(|| seen.abort()) {
                log::warn!("The connection from {} cannot be ended: {error}", seen.peer);
            }
        }
        if !to_end.is_empty() {
            log::debug!("{} connections ended that took too long, or too much", to_end.len());
        }
        if descriptors < self.limits.descriptors {
            reserve.fill();
        }
        Looked { is_short: too_many > 0, ended: to_end.len() }
    }

    fn call_for_a_check(&self) {
        // Full means that one is due already.
        let _due = self.came.0.try_send(());
    }

    fn dispatch(&self, request: tiny_http::Request) {
        let is_health = request.url() == selfcheck::TARGET;
        if !is_health {
            self.call_for_a_check();
        }
        if let Some(request) = Incoming::new(request) {
            self.dispatcher.dispatch(request, is_health);
        }
    }
}

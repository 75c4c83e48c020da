//! What the threads of a simulated engine share: contents, sessions, running bodies, counters.
//!
//! Lock rule: one mutex, held for table look-ups only. Two Condvars belong to it: `changed` wakes those who wait
//! for counters, `control` those who wait inside a request. The only system call under it is a peek that
//! does not block.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::super::media::{Broadcast, Restart};
use super::Settings;
use super::content::{Begin, Content, Pace, Stuck};
use super::counts::{Counts, RequestLog};
use super::http::is_gone;
use super::script::{CallKind, Health, Order, Script};
use super::sessions::{Sessions, random_hex};
use crate::id::Digest;
use crate::threads::Threads;

/// How often a request that waits looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) started: Instant,
    pub(super) threads: Threads,
    state: Mutex<State>,
    changed: Condvar,
    control: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) is_stopping: bool,
    pub(super) health: Health,
    /// Nothing is answered and nothing sent, as if the process were stopped.
    pub(super) is_frozen: bool,
    pub(super) slam: Slam,
    pub(super) contents: Vec<Playable>,
    /// What else is served, by its path; made for each who asks.
    pub(super) documents: HashMap<&'static str, fn() -> String>,
    pub(super) sessions: Sessions,
    pub(super) bodies: HashMap<u64, Body>,
    pub(super) connections: HashMap<u64, Weak<TcpStream>>,
    pub(super) totals: Counts,
    pub(super) requests: RequestLog,
    pub(super) idle_expiry: Duration,
    pub(super) session_lifetime: Option<Duration>,
    /// After how many more answers to getstream nobody is to be found here any more, and how that is done.
    pub(super) refusal: Option<(u64, Refuse)>,
    /// Contents that were made up for ids that nobody knows.
    pub(super) made_up: usize,
    /// How often the engine has died: what was begun before is not finished after.
    pub(super) crashes: u64,
    next_number: u64,
}

/// Closes the door; not to be called under the lock.
pub(super) type Refuse = Box<dyn FnOnce() + Send>;

/// Whose connections are closed without a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Slam {
    #[default]
    Nobodys,
    Everybodys,
    Of(Vec<CallKind>),
}

/// A content and what happens to it.
pub(super) struct Playable {
    pub(super) content: Arc<Content>,
    pub(super) added: Instant,
    /// The `playback_session_id` that stat gives; one for all sessions of the content.
    pub(super) stat_id: String,
    pub(super) script: Script,
    pub(super) attempts: Attempts,
    pub(super) counts: Counts,
    /// When stat was last asked, and the bytes sent until then: for the speed in between.
    pub(super) sample: (Instant, u64),
    /// Its media, and how often its broadcaster began anew.
    pub(super) broadcast: Arc<Broadcast>,
    /// The first packet that nobody was given yet.
    pub(super) given: u64,
    pub(super) stuck: Option<Stuck>,
    /// Pieces of its files that were downloaded for somebody: which file, which piece.
    pub(super) pieces: HashSet<(usize, u64)>,
    /// When its last reader left.
    last_read: Instant,
    download: Option<Download>,
}

/// A download, which sessions may share.
struct Download {
    since: Instant,
    /// When the last session that has ended so far did.
    left: Instant,
}

impl Playable {
    pub(super) fn stick(&mut self, stuck: Stuck, now: Instant) {
        self.stuck = Some(stuck);
        self.last_read = now;
    }

    /// Its broadcaster begins anew, where the reader who has most of it is now.
    pub(super) fn restart_broadcast(&mut self, restart: Restart, now: Instant) {
        let delivery = &self.content.delivery;
        let is_live = delivery.begin != Begin::Start && delivery.pace == Pace::RealTime;
        let ahead = delivery.ahead(&self.content.media);
        let live = self.broadcast.due_by(now.duration_since(self.added) + ahead).packet;
        let place = if is_live { live.max(self.given) } else { self.given };
        Arc::make_mut(&mut self.broadcast).restart(place, restart, now);
    }

    pub(super) fn note_reader_left(&mut self, now: Instant) {
        self.last_read = now;
    }
}

/// How many calls of each kind the script has seen.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) getstream: usize,
    pub(super) playback: usize,
    pub(super) stop: usize,
    pub(super) stat: usize,
    pub(super) files: usize,
}

/// A body that is being sent.
pub(super) struct Body {
    pub(super) content: usize,
    pub(super) token: String,
    pub(super) socket: Weak<TcpStream>,
    pub(super) order: Order,
}

/// How a wait inside a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    /// The time is up.
    TimeUp,
    /// What was waited for has come.
    Released,
    /// The client has gone, or the engine stops.
    Gone,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        let state = State {
            idle_expiry: settings.idle_expiry,
            session_lifetime: settings.session_lifetime,
            sessions: Sessions::new(settings.dialect.token_digits),
            ..State::default()
        };
        Self {
            settings,
            started: Instant::now(),
            threads: Threads::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            control: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes counters, and wakes those who wait for them.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.notify_all();
        result
    }

    /// Changes what waiting requests look at, and wakes them too.
    pub(super) fn control<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = self.update(change);
        self.control.notify_all();
        result
    }

    /// Waits until `is_met`, at most until `deadline`: whether it was.
    pub(super) fn wait_for(&self, deadline: Instant, mut is_met: impl FnMut(&State) -> bool) -> bool {
        let mut state = self.state.lock();
        loop {
            if is_met(&state) {
                return true;
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return is_met(&state);
            }
        }
    }

    /// Waits inside a request until `is_released`, at most until `until`.
    pub(super) fn hold(
        &self,
        socket: &TcpStream,
        until: Option<Instant>,
        mut is_released: impl FnMut(&State) -> bool,
    ) -> WaitEnd {
        let mut state = self.state.lock();
        loop {
            if state.is_frozen && !state.is_stopping {
                self.control.wait(&mut state);
                continue;
            }
            if state.is_stopping || is_gone(socket) {
                return WaitEnd::Gone;
            }
            if is_released(&state) {
                return WaitEnd::Released;
            }
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                return WaitEnd::TimeUp;
            }
            let look = now + LOOK;
            self.control.wait_until(&mut state, until.map_or(look, |until| until.min(look)));
        }
    }

    /// Waits while the engine is frozen: whether it was.
    ///
    /// # Errors
    ///
    /// When it died of that, or stops.
    pub(super) fn pass(&self) -> io::Result<bool> {
        let mut state = self.state.lock();
        let (is_late, crashes) = (state.is_frozen, state.crashes);
        if is_late {
            state.totals.kept_waiting += 1;
            self.changed.notify_all();
        }
        while state.is_frozen && !state.is_stopping {
            self.control.wait(&mut state);
        }
        if state.is_stopping || state.crashes != crashes {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(is_late)
    }

    /// Whether the connection of such a call is to be closed; it is counted.
    pub(super) fn slams(&self, kind: CallKind) -> bool {
        self.update(|state| {
            let slams = matches!(&state.slam, Slam::Of(kinds) if kinds.contains(&kind));
            state.totals.slammed += u64::from(slams);
            slams
        })
    }

    /// Closes the door, if so many getstream calls were answered.
    pub(super) fn refuse_if_due(&self) {
        let refuse = {
            let mut state = self.state.lock();
            match &mut state.refusal {
                Some((left, _)) if *left > 1 => {
                    *left -= 1;
                    None
                }
                due => due.take(),
            }
        };
        if let Some((_, refuse)) = refuse {
            refuse();
        }
    }

    /// Ends sessions that nobody uses, until the engine stops. Runs on a thread of its own.
    pub(super) fn expire_sessions(&self) {
        let mut state = self.state.lock();
        while !state.is_stopping {
            if state.is_frozen {
                self.control.wait(&mut state);
                continue;
            }
            let idle = state.idle_expiry;
            let lifetime = state.session_lifetime;
            let expired = state.sessions.expire(Instant::now(), idle);
            let forgotten = state.sessions.forget(Instant::now(), lifetime);
            if !expired.is_empty() || !forgotten.is_empty() {
                state.count_ended(&expired, |counts| counts.sessions_expired += 1);
                state.count_ended(&forgotten, |counts| counts.sessions_lost += 1);
                self.changed.notify_all();
                self.control.notify_all();
            }
            match state.sessions.next_expiry(idle, lifetime) {
                Some(next) => drop(self.control.wait_until(&mut state, next)),
                None => self.control.wait(&mut state),
            }
        }
    }
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn add(&mut self, content: Content) {
        let now = Instant::now();
        let script = content.script.clone();
        let broadcast = Arc::new(Broadcast::new(content.media.clone()));
        self.contents.push(Playable {
            content: Arc::new(content),
            added: now,
            stat_id: random_hex(40),
            script,
            attempts: Attempts::default(),
            counts: Counts::default(),
            sample: (now, 0),
            broadcast,
            given: 0,
            stuck: None,
            pieces: HashSet::new(),
            last_read: now,
            download: None,
        });
    }

    /// Whether a body of this session is open, and its client has not closed it.
    pub(super) fn is_read(&self, token: &str) -> bool {
        let is_there = |body: &Body| body.socket.upgrade().is_some_and(|socket| !is_gone(&socket));
        self.bodies.values().any(|body| body.token == token && is_there(body))
    }

    /// Frees a content that was left alone for long enough.
    pub(super) fn free_if_quiet(&mut self, content: usize, now: Instant) {
        let is_read = self.bodies.values().any(|body| body.content == content);
        let known = &mut self.contents[content];
        let is_quiet = |stuck: Stuck| known.last_read.checked_add(stuck.quiet).is_some_and(|at| at <= now);
        if !is_read && known.stuck.is_some_and(is_quiet) {
            known.stuck = None;
        }
    }

    /// Since when a session that is opened now is downloaded for: it joins a download that goes on, unless it is to
    /// be restarted.
    pub(super) fn join_download(&mut self, content: usize, now: Instant, outlives: Duration) -> Instant {
        let is_wanted = self.sessions.newest(content).is_some();
        let download = &mut self.contents[content].download;
        let goes_on = |download: &Download| {
            is_wanted || download.left.checked_add(outlives).is_none_or(|until| now < until)
        };
        match download {
            Some(download) if !outlives.is_zero() && goes_on(download) => download.since,
            _ => {
                *download = Some(Download { since: now, left: now });
                now
            }
        }
    }

    /// The next download of the content begins anew.
    pub(super) fn restart_download(&mut self, content: usize, now: Instant) {
        let known = &mut self.contents[content];
        known.download = Some(Download { since: now, left: now });
        if known.stuck.is_some_and(|stuck| stuck.is_freed_by_restart) {
            known.stuck = None;
        }
    }

    /// The place of a content by its content id.
    pub(super) fn by_id(&self, id: Digest) -> Option<usize> {
        self.contents.iter().position(|known| known.content.id == id)
    }

    /// The place of a content by its infohash.
    pub(super) fn by_infohash(&self, infohash: Digest) -> Option<usize> {
        self.contents.iter().position(|known| known.content.infohash == infohash)
    }

    /// The place of a content by either name, for the engine's owner.
    ///
    /// # Panics
    ///
    /// When there is none: the owner has added them, and a mistake would make tests pass for nothing.
    pub(super) fn by_either(&self, name: Digest) -> usize {
        let found = self.by_id(name).or_else(|| self.by_infohash(name));
        found.unwrap_or_else(|| panic!("the simulated engine has no content {name}"))
    }

    /// The open connections that are chosen.
    pub(super) fn sockets(&self, is_chosen: impl Fn(*const TcpStream) -> bool) -> Vec<Arc<TcpStream>> {
        let live = self.connections.values().filter_map(Weak::upgrade);
        live.filter(|socket| is_chosen(Arc::as_ptr(socket))).collect()
    }

    /// Changes the counters of the engine, and of a content if there is one.
    pub(super) fn count(&mut self, content: Option<usize>, change: impl Fn(&mut Counts)) {
        change(&mut self.totals);
        if let Some(known) = content.and_then(|content| self.contents.get_mut(content)) {
            change(&mut known.counts);
        }
    }

    /// Counts sessions of these contents as ended, each in its own way.
    pub(super) fn count_ended(&mut self, contents: &[usize], how: impl Fn(&mut Counts)) {
        let now = Instant::now();
        for content in contents {
            if let Some(download) = &mut self.contents[*content].download {
                download.left = now;
            }
            self.count(Some(*content), |counts| {
                counts.sessions_open -= 1;
                how(counts);
            });
        }
    }
}

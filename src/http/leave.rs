//! Leaving a port to the next process: who was accepted is served, and who connects from then on waits in the backlog.
//!
//! Three things have to happen, in this order, all before one deadline:
//!
//! 1. The self-checks end. One that stayed in the backlog would have systemd start the service again.
//! 2. The accept thread of `tiny_http` ends, because `accept` fails from now on.
//! 3. Whoever it has accepted asks for something.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::listener::Listener;
use super::selfcheck;

/// An accept thread that is not in `accept` at that moment ends within this time; one that waits there has to be woken
/// by a connection.
const AWAKE: Duration = Duration::from_millis(20);

/// Who was accepted asks for something within this time, or is not waited for: a browser opens connections to spare.
const FIRST_REQUEST_LIMIT: Duration = Duration::from_millis(200);

/// Something that happens once, and that one thread waits for.
pub(super) struct Latch {
    set: Sender<()>,
    is_set: Receiver<()>,
}

impl Default for Latch {
    fn default() -> Self {
        let (set, is_set) = crossbeam_channel::bounded(1);
        Self { set, is_set }
    }
}

impl Latch {
    /// It has happened.
    pub(super) fn set(&self) {
        // Full means that it was set before.
        let _set = self.set.try_send(());
    }

    /// # Errors
    ///
    /// When it does not happen in time.
    fn wait(&self, deadline: Instant) -> io::Result<()> {
        self.is_set.recv_deadline(deadline).map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

/// How far it has come.
#[derive(Default)]
pub(super) struct Leave {
    has_begun: AtomicBool,
    /// The self-checks are over.
    pub(super) checks_ended: Latch,
    /// Nobody accepts connections any more.
    pub(super) accepting_ended: Latch,
    /// All who were accepted have asked for something, or had the time to.
    pub(super) all_have_asked: Latch,
}

impl Leave {
    /// Whether a failing `accept` is what is wanted.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Leaves this listener, whose self-checks are ending.
    ///
    /// # Errors
    ///
    /// When that is not done in time.
    pub(super) fn run(&self, listener: &Listener, deadline: Instant) -> io::Result<()> {
        self.checks_ended.wait(deadline)?;
        self.has_begun.store(true, Ordering::Release);
        listener.leave()?;
        if self.accepting_ended.wait(Instant::now() + AWAKE).is_err() {
            let limit = deadline.saturating_duration_since(Instant::now()).max(AWAKE);
            let _wakes_it = selfcheck::ask(listener.loopback(), limit)?;
            self.accepting_ended.wait(deadline)?;
        }
        self.all_have_asked.wait(deadline)
    }
}

/// Since when nobody accepts connections; held by the thread that takes the requests.
#[derive(Default)]
pub(super) struct Drain {
    since: Option<Instant>,
}

impl Drain {
    /// The accept thread has ended.
    pub(super) fn begin(&mut self, leave: &Leave, now: Instant) {
        self.since = Some(now);
        leave.accepting_ended.set();
    }

    /// Looks whether it is over: `have_asked` tells whether all connections have asked for something.
    pub(super) fn look(&mut self, leave: &Leave, now: Instant, have_asked: impl FnOnce() -> bool) {
        let Some(since) = self.since else {
            return;
        };
        if now.saturating_duration_since(since) >= FIRST_REQUEST_LIMIT || have_asked() {
            self.since = None;
            leave.all_have_asked.set();
        }
    }
}

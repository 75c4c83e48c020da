//! Leaving a port to the next process: what was accepted is served, and who connects from then on waits in the backlog.
//!
//! In this order, each with the same deadline: the self-checks end, since a connection of theirs that was left in the
//! backlog would have systemd start the service again; the accept thread of `tiny_http` ends by an error; whoever it has
//! accepted says what he wants.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::listener::Listener;
use super::selfcheck;

/// An accept thread that is awake ends within this time; one that sleeps needs a connection.
const AWAKE: Duration = Duration::from_millis(20);

/// Who was accepted asks for something within this time, or is not waited for: a browser opens connections to spare.
const SETTLE_LIMIT: Duration = Duration::from_millis(200);

/// Something that happens once.
pub(super) struct Latch {
    tell: Sender<()>,
    told: Receiver<()>,
}

impl Default for Latch {
    fn default() -> Self {
        let (tell, told) = crossbeam_channel::bounded(1);
        Self { tell, told }
    }
}

impl Latch {
    /// It has happened.
    pub(super) fn tell(&self) {
        // Full means that it was told.
        let _told = self.tell.try_send(());
    }

    /// # Errors
    ///
    /// When it does not happen in time.
    fn wait(&self, deadline: Instant) -> io::Result<()> {
        self.told.recv_deadline(deadline).map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

/// How far it has come.
#[derive(Default)]
pub(super) struct Leave {
    has_begun: AtomicBool,
    /// The self-checks are over.
    pub(super) checked: Latch,
    /// Nobody accepts connections any more.
    pub(super) deaf: Latch,
    /// All who were accepted have asked for something, or had the time to.
    pub(super) settled: Latch,
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
        self.checked.wait(deadline)?;
        self.has_begun.store(true, Ordering::Release);
        listener.leave()?;
        if self.deaf.wait(Instant::now() + AWAKE).is_err() {
            let limit = deadline.saturating_duration_since(Instant::now()).max(AWAKE);
            let _wakes_it = selfcheck::ask(listener.loopback(), limit)?;
            self.deaf.wait(deadline)?;
        }
        self.settled.wait(deadline)
    }
}

/// Since when nobody accepts connections, as the thread knows that takes the requests.
#[derive(Default)]
pub(super) struct Drain {
    since: Option<Instant>,
}

impl Drain {
    /// The accept thread has ended.
    pub(super) fn begin(&mut self, leave: &Leave, now: Instant) {
        self.since = Some(now);
        leave.deaf.tell();
    }

    /// Looks whether it is over: `have_asked` tells whether all connections have asked for something.
    pub(super) fn look(&mut self, leave: &Leave, now: Instant, have_asked: impl FnOnce() -> bool) {
        let Some(since) = self.since else {
            return;
        };
        if now.saturating_duration_since(since) >= SETTLE_LIMIT || have_asked() {
            self.since = None;
            leave.settled.tell();
        }
    }
}

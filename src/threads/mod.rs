//! The one place where threads are started.
//!
//! Every thread has a name, reports its panic through the log ([`log_panics`]), and is kept by a [`Threads`] until it
//! was joined: finished ones by [`Threads::reap`], all of them at the end by [`Threads::join_all`]. No thread owns a
//! handle of its own, so none can ever wait for itself. Those that must never stop have a [`heartbeat`].
//!
//! Lock rule: the one lock here is taken last and held for a few instructions, never over a join of a thread
//! that still runs.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::Instant;
use std::{fmt, io, mem};

use parking_lot::{Condvar, Mutex};

use crate::escape::Escaped;

pub mod heartbeat;

use heartbeat::Heartbeats;

/// Stack of a thread that only moves chunks or waits. Measured: it costs address space, not memory, and a
/// quarter of a mebibyte holds JSON rendering in a debug build with room to spare.
pub const SMALL_STACK_BYTES: usize = 256 * 1024;

/// Stack of a thread that asks engines: ureq and JSON want more than the small stack in a debug build.
pub const LARGE_STACK_BYTES: usize = 512 * 1024;

/// From now on a panic is one line of the log: an error on a thread of ours; on any other, which has no name, the
/// affair of the crate that started it, since a peer can bring it about: `tiny_http` panics when a connection is reset
/// early.
pub fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = Escaped(message.unwrap_or("no message"));
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        match thread::current().name() {
            Some(name) => {
                log::error!("Thread {name} panicked at {place}: {message}");
                // It may be the last line of this process.
                log::logger().flush();
            }
            None => log::debug!("A thread without a name panicked at {place}: {message}"),
        }
    }));
}

/// A set of threads that can be joined together. Clones share the set.
#[derive(Clone, Default)]
pub struct Threads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    set: Mutex<Set>,
    one_finished: Condvar,
    heartbeats: Heartbeats,
}

#[derive(Default)]
struct Set {
    next: u64,
    running: HashMap<u64, Running>,
    finished: Vec<JoinHandle<()>>,
}

struct Running {
    name: String,
    /// `None` for the instant between the start of a thread and the return of its `spawn`.
    handle: Option<JoinHandle<()>>,
}

impl Threads {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `body` on a thread of this name (the kernel shows its first 15 bytes) and stack size.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub fn spawn<F>(&self, name: &str, stack_bytes: usize, body: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let number = {
            let mut set = self.shared.set.lock();
            set.next += 1;
            let number = set.next;
            set.running.insert(number, Running { name: name.to_owned(), handle: None });
            number
        };
        let finish = Finish { shared: Arc::clone(&self.shared), number };
        // A `Finish` that was never run tidies up after a spawn that failed: it is dropped with the closure.
        let handle = Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(move || {
            let _finish = finish;
            // The panic hook has told of it.
            let _panicked = catch_unwind(AssertUnwindSafe(body));
        })?;
        let mut set = self.shared.set.lock();
        match set.running.get_mut(&number) {
            Some(running) => running.handle = Some(handle),
            None => set.finished.push(handle),
        }
        Ok(())
    }

    /// Joins the threads that have ended. Cheap; called now and then so that handles do not pile up.
    pub fn reap(&self) {
        let finished = mem::take(&mut self.shared.set.lock().finished);
        for handle in finished {
            // Its closure caught any panic and has returned: this waits for the thread's last instructions.
            let _: Result<(), _> = handle.join();
        }
    }

    /// Waits until every thread has ended, at most until `deadline`, and joins them.
    ///
    /// # Errors
    ///
    /// The names of the threads that still ran at the deadline.
    pub fn join_all(&self, deadline: Instant) -> Result<(), Unfinished> {
        let mut set = self.shared.set.lock();
        while !set.running.is_empty() {
            if self.shared.one_finished.wait_until(&mut set, deadline).timed_out() {
                break;
            }
        }
        let names: Vec<_> = set.running.values().map(|running| running.name.clone()).collect();
        drop(set);
        self.reap();
        if names.is_empty() { Ok(()) } else { Err(Unfinished(names)) }
    }

    /// Who of them has to beat, and whether they do.
    #[must_use]
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.shared.heartbeats
    }

    /// How many threads run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.set.lock().running.len()
    }
}

/// Moves its thread from the running to the finished, whichever way the thread ends.
struct Finish {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Finish {
    fn drop(&mut self) {
        let mut set = self.shared.set.lock();
        if let Some(handle) = set.running.remove(&self.number).and_then(|running| running.handle) {
            set.finished.push(handle);
        }
        drop(set);
        self.shared.one_finished.notify_all();
    }
}

/// Threads that did not end in time.
#[derive(Debug)]
pub struct Unfinished(
    /// Their names.
    pub Vec<String>,
);

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still running: {}", self.0.join(", "))
    }
}

impl std::error::Error for Unfinished {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn all_threads_are_joined_also_one_that_panics() {
        let threads = Threads::new();
        for number in 0..10 {
            let body = move || assert_ne!(number, 5, "on purpose");
            threads.spawn("short", SMALL_STACK_BYTES, body).expect("a thread");
        }
        threads.join_all(soon()).expect("all end");
        assert_eq!(threads.count(), 0);
        assert!(threads.shared.set.lock().finished.is_empty());
    }

    #[test]
    fn a_thread_that_does_not_end_is_named_at_the_deadline() {
        let threads = Threads::new();
        let (release, wait) = crossbeam_channel::bounded::<()>(0);
        threads.spawn("stuck", SMALL_STACK_BYTES, move || assert!(wait.recv().is_err())).expect("a thread");
        let unfinished = threads.join_all(Instant::now()).expect_err("it cannot have ended");
        assert_eq!(unfinished.0, ["stuck"]);
        drop(release);
        threads.join_all(soon()).expect("it ends now");
    }

    #[test]
    fn a_thread_may_own_its_set() {
        let threads = Threads::new();
        let inner = threads.clone();
        let body = move || inner.spawn("child", SMALL_STACK_BYTES, || ()).expect("a thread");
        threads.spawn("parent", SMALL_STACK_BYTES, body).expect("a thread");
        threads.join_all(soon()).expect("both end");
    }
}

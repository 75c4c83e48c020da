//! A thread for each connection with a request in work: its requests are served there, one after the other.
//!
//! It must not know what is answered, nor that the server underneath has to be built anew now and then. Whoever hands
//! it a request is never made to wait.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::threads::{SMALL_STACK_BYTES, Threads};

use super::guard::{Arrival, Decision, Job, NextJob};
use super::incoming::{Handler, Incoming, Verdict};
use super::request::ConnectionControl;
use super::selfcheck;
use super::socket::Options;
use super::turnstile::{Pass, Turnstile};

/// Connections beside streams that may have requests in work at once: status pages, playlists, probes.
pub(crate) const SPARE_REQUESTS: usize = 64;

/// Questions after the server's health that may be in work at once, so that none is refused because of a rush: all of
/// the server's own, and as many of others.
pub(crate) const HEALTH_REQUESTS: usize = 2 * selfcheck::MAX_WAITING;

/// A connection's first requests can be answered by a thread that must not wait: the answers fit into its buffer.
const QUICK_REQUESTS: u64 = 8;

/// Gives requests to threads.
pub(super) struct Dispatcher {
    pub(super) control: Arc<ConnectionControl>,
    pub(super) threads: Threads,
    handler: Arc<Handler>,
    requests: Turnstile,
    health_requests: Turnstile,
    next_thread: AtomicU64,
    /// Until then connections may come without these options, which their listener has had only for a moment.
    late_options: Option<(Instant, Options)>,
}

impl Dispatcher {
    pub(super) fn new(
        control: Arc<ConnectionControl>,
        threads: Threads,
        handler: Arc<Handler>,
        late_options: Option<(Instant, Options)>,
    ) -> Self {
        Self {
            control,
            threads,
            handler,
            requests: Turnstile::default(),
            health_requests: Turnstile::default(),
            next_thread: AtomicU64::new(0),
            late_options,
        }
    }

    /// A request has come; `is_health` says that it asks after the server's health.
    pub(super) fn dispatch(self: &Arc<Self>, request: Incoming, is_health: bool) {
        let (peer, verdict) = (request.peer(), request.verdict());
        let control = &self.control;
        if verdict == Verdict::Cut && control.abort(peer).is_err() {
            mem::forget(request);
            control.guard.parked().add_forgotten(peer.ip());
            return;
        }
        match control.guard.arrive(peer, self.job(request, verdict), Instant::now()) {
            Arrival::Now(job) => {
                let pass = if is_health {
                    self.health_requests.enter(HEALTH_REQUESTS)
                } else {
                    self.requests.enter(self.control.settings.get().max_clients + SPARE_REQUESTS)
                };
                match pass {
                    Some(pass) => self.begin(peer, job, pass),
                    None => self.turn_away(peer, job, "there are too many requests at once"),
                }
            }
            Arrival::Later => {}
            Arrival::Excess(stream) => {
                let ended = match stream {
                    Some(handle) => {
                        handle.abort();
                        Ok(())
                    }
                    None => control.abort(peer),
                };
                if let Err(error) = ended {
                    log::debug!("The connection from {peer} cannot be ended: {error}");
                }
            }
        }
    }

    fn job(&self, request: Incoming, verdict: Verdict) -> Job {
        let pending = request.into_pending(verdict, &self.control);
        let handler = Arc::clone(&self.handler);
        let is_answerable = pending.is_answerable();
        let carry_out = move |decision| match decision {
            Decision::Serve => pending.serve(&*handler),
            Decision::TurnAway(why) => pending.turn_away(why),
        };
        Job { is_answerable, carry_out: Box::new(carry_out) }
    }

    /// Gives a connection a thread.
    fn begin(self: &Arc<Self>, peer: SocketAddr, job: Job, pass: Pass) {
        let number = self.next_thread.fetch_add(1, Ordering::Relaxed);
        let dispatcher = Arc::clone(self);
        // A closure that no thread takes is dropped, and the job in it; so it is shared, and answered here in that
        // case.
        let left_here = Arc::new(Mutex::new(Some(job)));
        let given = Arc::clone(&left_here);
        let body = move || {
            let _pass = pass;
            let job = given.lock().take();
            drop(given);
            if let Some(job) = job {
                dispatcher.work(peer, job);
            }
        };
        if let Err(error) = self.threads.spawn(&format!("client-{number}"), SMALL_STACK_BYTES, body) {
            log::warn!("No thread for a request: {error}");
            let job = left_here.lock().take();
            if let Some(job) = job {
                self.turn_away(peer, job, "the system has no thread for this request");
            }
        }
    }

    /// Answers that there is no room, without ever waiting.
    fn turn_away(&self, peer: SocketAddr, job: Job, why: &'static str) {
        let guard = &self.control.guard;
        if job.is_answerable && guard.requests_of(peer) <= QUICK_REQUESTS {
            (job.carry_out)(Decision::TurnAway(why));
        } else {
            // An answer might wait for a peer that reads nothing, and this thread must not: the connection ends
            // instead.
            match self.control.abort(peer) {
                Ok(()) => drop(job),
                Err(_) => {
                    mem::forget(job);
                    guard.parked().add_forgotten(peer.ip());
                }
            }
        }
        guard.abandon(peer);
    }

    /// Serves the requests of a connection until none is left.
    fn work(&self, peer: SocketAddr, first: Job) {
        if let Some((until, options)) = self.late_options
            && Instant::now() < until
            && let Err(error) = self.control.prepare(peer, options)
        {
            log::debug!("The connection from {peer} cannot be set up: {error}");
        }
        let abandon = Abandon { control: &self.control, peer };
        let mut next = Some(NextJob::Serve(first));
        while let Some(job) = next {
            match job {
                NextJob::Serve(job) => (job.carry_out)(Decision::Serve),
                NextJob::Drop(job) => drop(job),
            }
            next = self.control.guard.next(peer, Instant::now());
        }
        mem::forget(abandon);
    }
}

/// Gives up what a connection has in work when its thread panics.
struct Abandon<'a> {
    control: &'a ConnectionControl,
    peer: SocketAddr,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.control.guard.abandon(self.peer);
    }
}

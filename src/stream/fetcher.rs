//! The thread that pulls one stream: asks an engine for it, reads it, aligns it, publishes it.
//!
//! It alone reports the first packets. Whichever way it ends, by an error, a stop or a panic, [`Run`]'s drop tells the
//! session why, stops the engine's session and reports the end, in that order: nobody who waits for the start waits for
//! a thread that is gone, and no opened session is left behind.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::engine::api::{Liveness, OpenSession};
use crate::engine::error::EngineError;
use crate::engine::playback::{Playback, Player};
use crate::engine::pool::{Pool, Reservation};
use crate::engine::url::Target;
use crate::ts::align::Aligner;

use super::fanout::Ending;
use super::marks::{Mark, Marker};
use super::session::Session;
use super::state::{Event, State, Why};

/// One read, and so one chunk, at most: a millisecond's work for the clients' threads, and 64 ms of an 8 Mbit/s stream.
const READ_BYTES: usize = 64 * 1024;

/// More than any engine sends before the first packet; what has no five sync bytes in it is no MPEG-TS.
const MAX_GARBAGE_BYTES: u64 = 1024 * 1024;

/// The gather pause: longer means fewer, larger chunks. Together with the rule of [`Pacing`] it keeps up with any source;
/// a fixed long pause does not, since the kernel's receive window and the sleep fall into step.
const MAX_PAUSE: Duration = Duration::from_millis(20);
const MIN_PAUSE: Duration = Duration::from_millis(2);

/// The engine is made to wait for slow clients for no longer than this.
const MAX_HOLD: Duration = Duration::from_secs(10);

/// Fetches the stream until it is over, for whatever reason; then stops the engine's session.
pub fn run(session: &Arc<Session>, pool: &Pool) {
    let mut run = Run { session, opened: None };
    let why = run.fetch(pool);
    session.apply(&Event::SourceLost(why));
}

struct Run<'a> {
    session: &'a Arc<Session>,
    opened: Option<(Reservation, OpenSession)>,
}

impl Run<'_> {
    fn fetch(&mut self, pool: &Pool) -> Why {
        let session = self.session;
        let id = session.stream_id();
        log::info!("Selecting engine for stream {id}");
        let reservation = match pool.reserve() {
            Ok(reservation) => reservation,
            Err(unavailable) => return Why::NoEngine(unavailable),
        };
        let engine = Arc::clone(&reservation.engine);
        session.record_engine(&engine);
        log::info!("Initializing session for {id} on engine {}", engine.settings.name);
        let authority = engine.api.authority();
        log::info!("Fetching stream {id} from {}", Target::getstream_without_pid(session.key()).on(authority));

        let deadline = session.connect_deadline();
        let failed = |error: EngineError| {
            engine.record_failure(&error);
            Why::Engine(error)
        };
        let opened = match engine.api.open(session.key(), deadline) {
            Ok(opened) => opened,
            Err(error) => return failed(error),
        };
        session.record_opened(&opened);
        let (_, opened) = self.opened.insert((reservation, opened));

        let player = Player::new();
        if session.arm(player.interrupter()).is_err() {
            return Why::Asked;
        }
        log::info!("Started fetcher for {id}");
        let playback = match player.play(authority, opened, deadline) {
            Ok(playback) => playback,
            Err(error) => return failed(error),
        };
        log::info!("Stream response received for {id}, status: {}", playback.status());
        session.apply(&Event::Connected);
        log::info!("Stream {id} connected");
        let ending = match opened.liveness {
            Liveness::Vod => Ending::Complete,
            Liveness::Live | Liveness::Unknown => Ending::Broken,
        };
        Pump::new(session).run(playback, ending)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Nothing, if the reason is known; else this is a panic.
        self.session.apply(&Event::SourceLost(Why::Panicked));
        log_end(self.session);
        if let Some((reservation, opened)) = self.opened.take()
            && let Err(error) = reservation.engine.api.stop(opened)
        {
            let (name, id) = (&reservation.engine.settings.name, self.session.stream_id());
            log::warn!("Engine {name} did not confirm the stop of {id}: {error}");
        }
        self.session.apply(&Event::FetcherGone);
    }
}

/// The closing line of a stream, or why it never began.
fn log_end(session: &Session) {
    let view = session.view();
    let id = &view.stream_id;
    let (State::Stopping(outcome) | State::Stopped(outcome)) = &view.state else {
        return;
    };
    let why = &outcome.why;
    if outcome.had_started {
        let seconds = view.facts.started_at.and_then(|at| at.elapsed().ok()).unwrap_or_default().as_secs();
        let (bytes_in, bytes_out) = (view.bytes_in, view.bytes_out);
        log::info!("Stream {id} ended after {seconds} s, {bytes_in} bytes in, {bytes_out} bytes out, 0 restarts: {why}");
        return;
    }
    match why {
        Why::ConnectTimeout(limit) => {
            log::warn!("Timeout waiting for connection of {id} after {}s", limit.as_secs_f32());
        }
        Why::Engine(_) | Why::EndedWithoutData | Why::NotMpegTs | Why::FirstDataTimeout(_) => {
            log::warn!("HTTP error streaming {id}: {why}");
        }
        _ => {}
    }
    if why.is_trouble() {
        log::warn!("Failed to initialize session for {id}: {why}");
    } else {
        log::info!("Stream {id} ended before it started: {why}");
    }
}

/// Reads, aligns and publishes.
struct Pump<'a> {
    session: &'a Session,
    aligner: Aligner,
    aligned: Vec<u8>,
    marker: Marker,
    marks: Vec<Mark>,
    pacing: Pacing,
    has_published: bool,
}

impl<'a> Pump<'a> {
    fn new(session: &'a Session) -> Self {
        Self {
            session,
            aligner: Aligner::new(),
            aligned: Vec::with_capacity(2 * READ_BYTES),
            marker: Marker::new(),
            marks: Vec::new(),
            pacing: Pacing::new(),
            has_published: false,
        }
    }

    /// Until the body ends or breaks, or the session is stopped. `ending` is what a proper end of the body means.
    fn run(mut self, mut playback: Playback, ending: Ending) -> Why {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match playback.read(&mut buffer) {
                Ok(0) => return self.finish(Why::SourceEnded(ending)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.finish(Why::Engine(EngineError::Lost(error.to_string()))),
            };
            self.session.record_bytes_in(read as u64);
            self.aligner.push(&buffer[..read], &mut self.aligned);
            self.publish();
            if !self.has_published {
                if self.aligner.skipped_bytes() > MAX_GARBAGE_BYTES {
                    return Why::NotMpegTs;
                }
                continue;
            }
            if let Some(pause) = self.pacing.after_read(read)
                && self.is_stopped_within(pause)
            {
                return Why::Asked;
            }
            if self.hold_while_everybody_is_behind() {
                return Why::Asked;
            }
        }
    }

    /// The rest of the body, then why it is over.
    fn finish(&mut self, why: Why) -> Why {
        self.aligner.finish(&mut self.aligned);
        self.publish();
        match why {
            Why::SourceEnded(_) if !self.has_published && self.aligner.skipped_bytes() > 0 => Why::NotMpegTs,
            Why::SourceEnded(_) if !self.has_published => Why::EndedWithoutData,
            why => why,
        }
    }

    fn publish(&mut self) {
        if self.aligned.is_empty() {
            return;
        }
        let now = Instant::now();
        self.marker.observe(&self.aligned, now, &mut self.marks);
        self.session.fanout().publish(&self.aligned, &mut self.marks, now);
        self.aligned.clear();
        if !self.has_published {
            self.has_published = true;
            self.report_first_packets();
        }
    }

    fn report_first_packets(&self) {
        let id = self.session.stream_id();
        self.session.apply(&Event::FirstPackets);
        if let Some(after) = self.session.first_data_after() {
            log::info!("First data for {id} after {} ms", after.as_millis());
            log::info!("Session created for {id}");
        }
    }

    /// Lets TCP hold the engine back while no client keeps up. Tells whether the session was stopped.
    fn hold_while_everybody_is_behind(&mut self) -> bool {
        while self.pacing.may_hold(self.session.fanout().is_everybody_behind(), Instant::now()) {
            // A source that is made to wait is not silent.
            self.session.record_bytes_in(0);
            if self.is_stopped_within(MIN_PAUSE) {
                return true;
            }
        }
        false
    }

    fn is_stopped_within(&self, pause: Duration) -> bool {
        self.session.stopped().recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
    }
}

/// When to pause and when to hold; a plain value.
struct Pacing {
    pause: Duration,
    since_pause: usize,
    holding_since: Option<Instant>,
}

impl Pacing {
    fn new() -> Self {
        Self { pause: MAX_PAUSE, since_pause: 0, holding_since: None }
    }

    /// The pause after a read of so many bytes; none after a full one, since there is more.
    fn after_read(&mut self, read: usize) -> Option<Duration> {
        self.since_pause += read;
        if read == READ_BYTES {
            return None;
        }
        self.pause = if self.since_pause >= READ_BYTES {
            (self.pause / 2).max(MIN_PAUSE)
        } else {
            (self.pause + self.pause / 4).min(MAX_PAUSE)
        };
        self.since_pause = 0;
        Some(self.pause)
    }

    /// Whether to let the engine wait (on): not for longer than [`MAX_HOLD`], and then not again before somebody has
    /// caught up.
    fn may_hold(&mut self, is_everybody_behind: bool, now: Instant) -> bool {
        if !is_everybody_behind {
            self.holding_since = None;
            return false;
        }
        now.duration_since(*self.holding_since.get_or_insert(now)) < MAX_HOLD
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config;
    use crate::id::ContentKey;
    use crate::stats::Stats;
    use crate::stream::session::ClientRecord;
    use crate::threads::{SMALL_STACK_BYTES, Threads};

    #[test]
    fn a_fetcher_that_panics_tells_everybody_who_waits() {
        let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
        let session =
            Session::new(key.expect("a good key"), &config::Stream::default(), Arc::new(Stats::default()));
        let seat = |id| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let client = Arc::new(ClientRecord::new(id, address, None));
            session.take_seat(client).expect("it is starting")
        };
        let (first, second) = (seat(1), seat(2));
        let threads = Threads::new();
        let fetched = Arc::clone(&session);
        let body = move || {
            let _run = Run { session: &fetched, opened: None };
            panic!("on purpose");
        };
        threads.spawn("fetch", SMALL_STACK_BYTES, body).expect("a thread");
        let deadline = Instant::now() + Duration::from_secs(20);
        for seat in [first, second] {
            assert_eq!(seat.wait_started(deadline), Some(Err(Why::Panicked)));
        }
        assert!(session.wait_stopped(deadline));
        threads.join_all(deadline).expect("it has ended");
    }

    #[test]
    fn the_pause_shrinks_while_much_comes_and_grows_back() {
        let mut pacing = Pacing::new();
        assert_eq!(pacing.after_read(READ_BYTES), None, "there is more to read");
        assert_eq!(pacing.after_read(1000), Some(MAX_PAUSE / 2), "65 kB since the last pause");
        assert_eq!(pacing.after_read(1000), Some(MAX_PAUSE / 2 + MAX_PAUSE / 8));
        for _ in 0..10 {
            let _full = pacing.after_read(READ_BYTES);
            let _pause = pacing.after_read(1);
        }
        assert_eq!(pacing.pause, MIN_PAUSE);
        for _ in 0..20 {
            let _pause = pacing.after_read(1000);
        }
        assert_eq!(pacing.pause, MAX_PAUSE);
    }

    #[test]
    fn the_engine_is_made_to_wait_only_for_so_long() {
        let mut pacing = Pacing::new();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(pacing.may_hold(true, at(0)));
        assert!(pacing.may_hold(true, at(9)));
        assert!(!pacing.may_hold(true, at(10)));
        assert!(!pacing.may_hold(true, at(11)), "not again before somebody has caught up");
        assert!(!pacing.may_hold(false, at(12)));
        assert!(pacing.may_hold(true, at(13)));
    }
}

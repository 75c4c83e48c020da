//! The thread that pulls one stream: asks an engine for it, reads it, and does so again when the source is lost.
//!
//! It alone reports first packets. Whichever way it ends, by an error, a stop or a panic, `Run`'s drop tells the session
//! why, stops the engine's session and reports the end, in that order: nobody who waits for the start waits for a thread
//! that is gone, and no opened session is left behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::engine::api::{Liveness, OpenSession};
use crate::engine::error::EngineError;
use crate::engine::playback::{Playback, Player};
use crate::engine::pool::{Engine, Reservation, Unavailable};
use crate::engine::url::Target;
use crate::id::ContentKey;

use super::fanout::Ending;
use super::pump::Pump;
use super::registry::{FETCHER_STACK_BYTES, Registry};
use super::session::Session;
use super::state::{Event, State, Why};

/// How often a fetcher that waits for its turn on an engine looks again.
const TURN_INTERVAL: Duration = Duration::from_millis(50);

/// An engine that is warming up is asked to play this often.
const WARM_UP_INTERVAL: Duration = Duration::from_secs(1);

/// For a question whose answer is good to have but not needed.
const SIDE_QUESTION_LIMIT: Duration = Duration::from_secs(2);

/// Fetches the stream until it is over, for whatever reason; then stops the engine's session.
pub(super) fn run(session: &Arc<Session>, registry: &Arc<Registry>) {
    let mut run = Run { session, pump: Pump::new(session), opened: None };
    while let Some((deadline, pause)) = session.next_attempt() {
        let attempt = session.attempt();
        if attempt > 0 {
            let id = session.stream_id();
            log::info!("Recovering {id}: attempt {attempt} in {} s", pause.as_secs());
        }
        if !pause.is_zero() && run.is_stopped_within(pause) {
            break;
        }
        let Err(why) = run.attempt(registry, attempt, deadline);
        log::debug!("Attempt {attempt} at {} is over: {why}", session.stream_id());
        session.apply(&Event::SourceLost { attempt, why, given: run.pump.given() });
    }
}

struct Run<'a> {
    session: &'a Arc<Session>,
    pump: Pump<'a>,
    opened: Option<(Reservation, OpenSession)>,
}

/// There is no end without a reason.
enum Never {}

impl Run<'_> {
    /// One source, from the choice of the engine to its loss.
    fn attempt(&mut self, registry: &Arc<Registry>, attempt: u32, deadline: Instant) -> Result<Never, Why> {
        self.pump.begin(attempt);
        let session = self.session;
        let id = session.stream_id();
        let (engine, opened) = self.open(registry, deadline)?;
        session.record_opened(&engine, opened);
        let infohash = opened.infohash;
        let liveness = opened.liveness;
        if let Some(infohash) = infohash
            && attempt == 0
            && let Some(older) = registry.same_content(session, infohash)
        {
            self.hand_over(&older);
            return Err(Why::SameAs(Box::new(older.key().clone())));
        }
        log::info!("Started fetcher for {id}");
        let playback = self.play(&engine, attempt, deadline)?;
        log::info!("Stream response received for {id}, status: {}", playback.status());
        session.apply(&Event::Connected(attempt));
        log::info!("Stream {id} connected");
        let ending = match liveness {
            Liveness::Vod => Ending::Complete,
            Liveness::Live | Liveness::Unknown => Ending::Broken,
        };
        let started = self.opened.as_mut().map(|(reservation, _)| reservation);
        Err(self.pump.run(playback, ending, || started.into_iter().for_each(Reservation::end_start)))
    }

    /// Opens a session on the best engine, after the one that was lost is stopped.
    fn open(
        &mut self,
        registry: &Arc<Registry>,
        deadline: Instant,
    ) -> Result<(Arc<Engine>, &OpenSession), Why> {
        let session = self.session;
        let id = session.stream_id();
        loop {
            log::info!("Selecting engine for stream {id}");
            let reservation = self.reserve(registry, deadline)?;
            let engine = Arc::clone(&reservation.engine);
            self.stop_lost(registry, &engine);
            session.record_engine(&engine);
            registry.cut_abandoned(&engine.settings.name, session);
            log::info!("Initializing session for {id} on engine {}", engine.settings.name);
            self.ask_for_infohash(registry, &engine)?;
            let url = Target::getstream_without_pid(session.key()).on(engine.api.authority());
            log::info!("Fetching stream {id} from {url}");
            match open_under_either_name(&engine, session.key(), deadline) {
                Ok(opened) => {
                    let (_, opened) = self.opened.insert((reservation, opened));
                    return Ok((engine, opened));
                }
                Err(error) => {
                    engine.record_failure(&error);
                    let is_gone = matches!(error, EngineError::Unreachable(_));
                    let has_others = registry.pool().engines().iter().any(|other| other.is_usable());
                    if is_gone && has_others && !self.is_stopped_within(Duration::ZERO) {
                        log::warn!("Engine {} cannot take stream {id}: {error}", engine.settings.name);
                        continue;
                    }
                    return Err(Why::Engine(error));
                }
            }
        }
    }

    /// A place on an engine; waits for a turn, or for a lingering stream to give way, as long as there is time.
    fn reserve(&self, registry: &Registry, deadline: Instant) -> Result<Reservation, Why> {
        let preferred = self.opened.as_ref().map(|(reservation, _)| &reservation.engine);
        loop {
            let unavailable = match registry.pool().reserve(preferred) {
                Ok(reservation) => return Ok(reservation),
                Err(unavailable) => unavailable,
            };
            let is_worth_waiting = match unavailable {
                Unavailable::AllDown => false,
                Unavailable::AllFull => registry.give_way(),
                Unavailable::AllStarting => true,
            };
            if !is_worth_waiting || Instant::now() >= deadline || self.is_stopped_within(TURN_INTERVAL) {
                return Err(Why::NoEngine(unavailable));
            }
        }
    }

    /// Stops the session whose picture was lost. On the engine that is asked next this is waited for, since a stop ends
    /// all readers of a content there; on another one it runs beside.
    fn stop_lost(&mut self, registry: &Registry, next: &Arc<Engine>) {
        let Some((reservation, opened)) = self.opened.take() else {
            return;
        };
        let id = self.session.stream_id().to_owned();
        if Arc::ptr_eq(&reservation.engine, next) {
            stop(&id, &reservation, opened);
            return;
        }
        let beside = Beside { id, lost: Some((reservation, opened)) };
        let name = format!("stop-{:.8}", beside.id);
        // Without a thread the drop of what it was to do does it here.
        if let Err(error) = registry.threads().spawn(&name, FETCHER_STACK_BYTES, move || drop(beside)) {
            log::warn!("No thread to stop a session beside: {error}");
        }
    }

    /// If this id could be the content of a stream that runs already, finds out before a second session is opened.
    fn ask_for_infohash(&self, registry: &Registry, engine: &Engine) -> Result<(), Why> {
        let Some(id) = registry.wants_infohash(self.session) else {
            return Ok(());
        };
        let Ok(Some(infohash)) = engine.api.infohash_of(id, SIDE_QUESTION_LIMIT) else {
            return Ok(());
        };
        match registry.same_content(self.session, infohash) {
            Some(older) => Err(Why::SameAs(Box::new(older.key().clone()))),
            None => Ok(()),
        }
    }

    /// Gives the session just opened to the older stream of the same content, if it is on the same engine: stopping it now
    /// would end that one's picture.
    fn hand_over(&mut self, older: &Session) {
        let Some((reservation, opened)) = self.opened.take() else {
            return;
        };
        let is_on_same_engine = older.engine_name().as_ref() == Some(&reservation.engine.settings.name);
        let kept = if is_on_same_engine {
            older.adopt(reservation, opened).err().map(|refused| *refused)
        } else {
            Some((reservation, opened))
        };
        self.opened = kept;
    }

    /// Asks for the stream, again and again while the engine is warming up.
    fn play(&self, engine: &Engine, attempt: u32, deadline: Instant) -> Result<Playback, Why> {
        let began = Instant::now();
        let Some((_, opened)) = &self.opened else {
            return Err(Why::Panicked);
        };
        loop {
            let player = Player::new();
            if self.session.arm(attempt, player.interrupter()).is_err() {
                return Err(Why::Asked);
            }
            let error = match player.play(engine.api.authority(), opened, deadline) {
                Ok(playback) => return Ok(playback),
                Err(error) => error,
            };
            let text = match &error {
                EngineError::Status(500 | 403, _) if is_warming_up(engine, opened) => error.to_string(),
                _ => {
                    engine.record_failure(&error);
                    return Err(Why::Engine(error));
                }
            };
            if Instant::now() + WARM_UP_INTERVAL >= deadline {
                return Err(Why::NotReady(began.elapsed() + WARM_UP_INTERVAL, text));
            }
            if self.is_stopped_within(WARM_UP_INTERVAL) {
                return Err(Why::Asked);
            }
        }
    }

    fn is_stopped_within(&self, pause: Duration) -> bool {
        self.session.stopped().recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
    }
}

/// Whether a refusal to play is worth another try: the engine says that it is not there yet, or says nothing usable.
fn is_warming_up(engine: &Engine, opened: &OpenSession) -> bool {
    let stat = opened.stat.as_ref().map(|stat| engine.api.stat(stat, SIDE_QUESTION_LIMIT));
    !matches!(stat, Some(Ok(stat)) if !stat.is_warming_up())
}

fn open_under_either_name(
    engine: &Engine,
    key: &ContentKey,
    deadline: Instant,
) -> Result<OpenSession, EngineError> {
    let error = match engine.api.open(key, deadline) {
        Err(error) if error.is_unknown_content() => error,
        outcome => return outcome,
    };
    let other = ContentKey { name: key.name.other(), params: key.params.clone() };
    // The first answer is the one that fits what was asked for.
    engine.api.open(&other, deadline).map_err(|_| error)
}

fn stop(id: &str, reservation: &Reservation, opened: OpenSession) {
    if let Err(error) = reservation.engine.api.stop(opened) {
        log::warn!("Engine {} did not confirm the stop of {id}: {error}", reservation.engine.settings.name);
    }
}

/// A session to be stopped by whoever drops this.
struct Beside {
    id: String,
    lost: Option<(Reservation, OpenSession)>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((reservation, opened)) = self.lost.take() {
            stop(&self.id, &reservation, opened);
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Nothing, if the reason is known; else this is a panic.
        self.session.apply(&Event::Stop(Why::Panicked));
        log_end(self.session);
        let id = self.session.stream_id();
        let own = self.opened.take();
        for (reservation, opened) in own.into_iter().chain(self.session.take_adopted()) {
            stop(id, &reservation, opened);
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
        let (bytes_in, bytes_out, restarts) = (view.bytes_in, view.bytes_out, view.restarts);
        log::info!(
            "Stream {id} ended after {seconds} s, {bytes_in} bytes in, {bytes_out} bytes out, {restarts} restarts: {why}"
        );
        return;
    }
    match why {
        Why::ConnectTimeout(limit, _) => {
            log::warn!("Timeout waiting for connection of {id} after {}s", limit.as_secs_f32());
        }
        Why::Engine(_)
        | Why::EndedWithoutData
        | Why::NotMpegTs
        | Why::NotReady(..)
        | Why::FirstDataTimeout(..) => {
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
            let _run = Run { session: &fetched, pump: Pump::new(&fetched), opened: None };
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
}

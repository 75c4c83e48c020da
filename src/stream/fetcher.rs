//! The thread that pulls one stream: asks an engine for it, reads it, and does so again when the source is lost.
//!
//! It alone reports first packets. Whichever way it ends, by an error, a stop or a panic, the drop of `Run` tells the session
//! why, stops the engine's session and reports the end, in that order: nobody who waits for the start waits for a thread
//! that is gone, and no opened session is left behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use crate::engine::api::{EngineSession, Liveness, Opening};
use crate::engine::blame::Fault;
use crate::engine::choose::Unavailable;
use crate::engine::error::EngineError;
use crate::engine::playback::{Playback, Player};
use crate::engine::pool::{Content, Engine, Pool, Reservation};
use crate::engine::url::Target;
use crate::id::ContentKey;
use crate::threads::Threads;

use super::directory::Directory;
use super::ending::Ending;
use super::pump::Pump;
use super::state::{Event, Outcome, State, Why};
use super::stopping::{LAST_STOP_LIMIT, STOP_LIMIT, stop, stop_beside};
use super::stream::Stream;

/// How often a fetcher that waits for its turn on an engine looks again.
const TURN_INTERVAL: Duration = Duration::from_millis(50);

/// Who zaps leaves one stream for another, and that he left the first is noticed within half a second: so long even a place
/// that is not promised is waited for.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// An engine that is warming up is asked to play this often.
const WARM_UP_INTERVAL: Duration = Duration::from_secs(1);

/// For a question whose answer is good to have but not needed.
const SIDE_QUESTION_LIMIT: Duration = Duration::from_secs(2);

/// Fetches the stream until it is over, for whatever reason; then stops the engine's session.
pub(super) fn run(stream: &Arc<Stream>, resources: &Resources) {
    let mut run = Run { stream, pump: Pump::new(stream), opened: None };
    while let Some((deadline, pause)) = stream.next_attempt() {
        let attempt = stream.attempt();
        if attempt > 0 {
            let id = stream.stream_id();
            log::info!("Recovering {id}: attempt {attempt} in {} s", pause.as_secs());
        }
        if !pause.is_zero() && run.is_stopped_within(pause) {
            break;
        }
        let Err(why) = run.attempt(resources, attempt, deadline);
        // Of a source that was given up its end tells nothing.
        if attempt > 0 && stream.is_recovering(attempt) {
            log::warn!("Attempt {attempt} at {} failed: {why}", stream.stream_id());
        }
        stream.apply(&Event::SourceLost { attempt, why, given: stream.flow().given() });
    }
}

/// What fetchers work with.
pub(super) struct Resources {
    /// Which other streams there are.
    pub(super) directory: Directory,
    /// The engines.
    pub(super) pool: Arc<Pool>,
    /// Where work goes that a fetcher does not wait for.
    pub(super) threads: Threads,
}

struct Run<'a> {
    stream: &'a Arc<Stream>,
    pump: Pump<'a>,
    opened: Option<(Reservation, EngineSession)>,
}

/// There is no end without a reason.
enum Never {}

impl Run<'_> {
    /// One source, from the choice of the engine to its loss.
    fn attempt(&mut self, resources: &Resources, attempt: u32, deadline: Instant) -> Result<Never, Why> {
        self.pump.begin(attempt);
        let stream = self.stream;
        let id = stream.stream_id();
        let (mut engine, mut liveness) = self.open(resources, attempt, deadline)?;
        log::info!("Started fetcher for {id}");
        let playback = match self.play(&engine, attempt, deadline) {
            // The engine was restarted in between, or somebody stopped the content there: that takes a new session, not a
            // new player (engine-contract.md section 11). Once; an engine that forgets again is no better the third time.
            Err(Why::SessionLost) => {
                log::warn!("Engine {} lost the session of {id} before it played", engine.settings.name);
                (engine, liveness) = self.open(resources, attempt, deadline)?;
                self.play(&engine, attempt, deadline)?
            }
            outcome => outcome?,
        };
        log::info!("Stream response received for {id}, status: {}", playback.status());
        stream.apply(&Event::Connected(attempt));
        log::info!("Stream {id} connected");
        let ending = match liveness {
            Liveness::Vod => Ending::Complete,
            Liveness::Live | Liveness::Unknown => Ending::Broken,
        };
        let started = self.opened.as_mut().map(|(reservation, _)| reservation);
        Err(self.pump.run(playback, ending, || started.into_iter().for_each(Reservation::record_start)))
    }

    /// Opens a session on the best engine, after the one that was lost is stopped.
    fn open(
        &mut self,
        resources: &Resources,
        attempt: u32,
        deadline: Instant,
    ) -> Result<(Arc<Engine>, Liveness), Why> {
        let stream = self.stream;
        let id = stream.stream_id();
        let mut tried = 0;
        loop {
            log::info!("Selecting engine for stream {id}");
            let mut reservation = self.reserve(resources, deadline)?;
            let engine = Arc::clone(&reservation.engine);
            self.stop_lost(resources, &engine);
            stream.record_engine(&engine);
            resources.directory.cut_abandoned(&engine.settings.name, stream);
            log::info!("Initializing session for {id} on engine {}", engine.settings.name);
            self.ask_for_infohash(resources, &engine)?;
            if !may_play(resources, stream, &mut reservation) {
                continue;
            }
            // What came before may have taken long.
            if !stream.is_current(attempt) {
                return Err(Why::Asked);
            }
            let url = Target::getstream_without_pid(stream.content()).on(engine.api.authority());
            log::info!("Fetching stream {id} from {url}");
            let opened = match open_under_either_name(&engine, stream.content(), deadline) {
                Ok(opened) => opened,
                Err(error) => {
                    engine.record_failure(stream.content().name, &error, Fault::of(&error));
                    let is_gone = matches!(error, EngineError::Unreachable(_) | EngineError::Down);
                    tried += 1;
                    let engines = resources.pool.engines();
                    let is_other = |other: &Arc<Engine>| !Arc::ptr_eq(other, &engine) && other.is_usable();
                    // Each has one try: who does not answer stays up, and would be asked again and again.
                    let has_others = tried < engines.len() && engines.iter().any(is_other);
                    if is_gone && has_others && stream.is_current(attempt) {
                        log::warn!("Engine {} cannot take stream {id}: {error}", engine.settings.name);
                        continue;
                    }
                    return Err(Why::Engine(error));
                }
            };
            stream.record_opened(&engine, &opened);
            let (liveness, infohash) = (opened.liveness, opened.infohash);
            self.opened = Some((reservation, opened));
            let Some(infohash) = infohash else {
                return Ok((engine, liveness));
            };
            if let Some(holder) = resources.directory.claim(stream, infohash)
                && attempt == 0
            {
                self.hand_over(&[Arc::clone(&holder)]);
                return Err(Why::SameAs(Box::new(holder.wanted().clone())));
            }
            let reservation = self.opened.as_mut().map(|(reservation, _)| reservation);
            if reservation.is_none_or(|reservation| may_play(resources, stream, reservation)) {
                return Ok((engine, liveness));
            }
            log::info!("Engine {} plays {id} with other parameters", engine.settings.name);
            self.hand_over(&resources.directory.variants(stream));
        }
    }

    /// A place on an engine; waits for a turn, or for a stream that nobody watches to give way, as long as there is time.
    fn reserve(&mut self, resources: &Resources, deadline: Instant) -> Result<Reservation, Why> {
        if let Some((reservation, _)) = &mut self.opened {
            // What is lost must not take the turn of what follows it.
            reservation.end_start();
        }
        let preferred = self.opened.as_ref().map(|(reservation, _)| &reservation.engine);
        let name = self.stream.content().name;
        let mut displaced: Option<Arc<Stream>> = None;
        let patience = Instant::now() + ROOM_PATIENCE;
        loop {
            let unavailable = match resources.pool.reserve(name, content_of(self.stream), preferred) {
                Ok(reservation) => return Ok(reservation),
                Err(unavailable) => unavailable,
            };
            // One at a time: its place is free a moment later.
            if displaced.as_ref().is_none_or(|displaced| matches!(displaced.state(), State::Stopped(_))) {
                displaced = resources.directory.displace(self.stream, unavailable);
            }
            let is_worth_waiting = match unavailable {
                Unavailable::AllDown => false,
                Unavailable::AllFull | Unavailable::OtherVariant => {
                    resources.directory.expects_room() || Instant::now() < patience
                }
                Unavailable::AllStarting => true,
            };
            if !is_worth_waiting || Instant::now() >= deadline || self.is_stopped_within(TURN_INTERVAL) {
                return Err(Why::NoEngine(unavailable));
            }
        }
    }

    /// Stops the session whose picture was lost. On the engine that is asked next this is waited for, since a stop ends
    /// all readers of a content there; on another one it runs beside.
    fn stop_lost(&mut self, resources: &Resources, next: &Arc<Engine>) {
        let id = self.stream.stream_id().to_owned();
        // What was taken over played the same picture.
        let lost = self.opened.take().into_iter().chain(self.stream.take_adopted());
        for (reservation, opened) in lost {
            if Arc::ptr_eq(&reservation.engine, next) {
                stop(&id, reservation, opened, STOP_LIMIT);
            } else {
                stop_beside(&resources.threads, &id, reservation, opened);
            }
        }
    }

    /// If this id could be the content of a stream that runs already, finds out before a second session is opened.
    fn ask_for_infohash(&self, resources: &Resources, engine: &Engine) -> Result<(), Why> {
        let Some(id) = resources.directory.wants_infohash(self.stream) else {
            return Ok(());
        };
        let Ok(Some(infohash)) = engine.api.infohash_of(id, SIDE_QUESTION_LIMIT) else {
            return Ok(());
        };
        match resources.directory.claim(self.stream, infohash) {
            Some(holder) => Err(Why::SameAs(Box::new(holder.wanted().clone()))),
            None => Ok(()),
        }
    }

    /// Gives the session just opened to a stream of the same content, if one is on the same engine: stopping it now would end
    /// that one's picture.
    fn hand_over(&mut self, holders: &[Arc<Stream>]) {
        for holder in holders {
            let Some((reservation, opened)) = self.opened.take() else {
                return;
            };
            let is_on_same_engine = holder.engine_name().as_ref() == Some(&reservation.engine.settings.name);
            self.opened = if is_on_same_engine {
                holder.adopt(reservation, opened).err().map(|refused| *refused)
            } else {
                Some((reservation, opened))
            };
        }
    }

    /// Asks for the stream, again and again while the engine is warming up.
    fn play(&self, engine: &Engine, attempt: u32, deadline: Instant) -> Result<Playback, Why> {
        let began = Instant::now();
        let Some((_, opened)) = &self.opened else {
            return Err(Why::Panicked);
        };
        loop {
            let player = Player::new(&engine.api);
            if self.stream.arm(attempt, player.interrupter()).is_err() {
                return Err(Why::Asked);
            }
            let error = match player.play(opened, deadline) {
                Ok(playback) => return Ok(playback),
                Err(error) => error,
            };
            if !self.stream.is_current(attempt) {
                // Cut short: that tells of the engine only if its time was over.
                if let State::Stopping(Outcome { why: Why::ConnectTimeout(..), .. }) = self.stream.state() {
                    let silent = EngineError::Silent(began.elapsed());
                    engine.record_failure(self.stream.content().name, &silent, Fault::Content);
                }
                return Err(Why::Asked);
            }
            if let EngineError::Status(500 | 403, _) = &error {
                // To be told if the deadline comes before the next try.
                self.stream.record_refusal(&error.to_string());
            }
            let text = match &error {
                error if error.is_unknown_session() => return Err(Why::SessionLost),
                EngineError::Status(500 | 403, _) if is_warming_up(engine, opened)? => error.to_string(),
                EngineError::Silent(_) => {
                    // It has opened a session, so it is there: nobody sends this content, most likely.
                    engine.record_failure(self.stream.content().name, &error, Fault::Content);
                    return Err(self.stream.connect_timeout());
                }
                _ => {
                    engine.record_failure(self.stream.content().name, &error, Fault::Engine);
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
        self.stream.stopped().recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
    }
}

/// Whether a refusal to play is worth another try: the engine says that it is not there yet, or says nothing usable.
///
/// # Errors
///
/// When it does not even know the session.
fn is_warming_up(engine: &Engine, opened: &EngineSession) -> Result<bool, Why> {
    match opened.stat.as_ref().map(|stat| engine.api.stat(stat, SIDE_QUESTION_LIMIT)) {
        Some(Ok(stat)) => Ok(stat.is_warming_up()),
        Some(Err(error)) if error.is_unknown_session() => Err(Why::SessionLost),
        _ => Ok(true),
    }
}

fn open_under_either_name(
    engine: &Engine,
    key: &ContentKey,
    deadline: Instant,
) -> Result<EngineSession, EngineError> {
    let error = match engine.api.open(key, Opening::Plain, deadline) {
        Err(error) if error.is_unknown_content() => error,
        outcome => return outcome,
    };
    let other = ContentKey { name: key.name.other(), params: key.params.clone() };
    // The first answer is the one that fits what was asked for.
    engine.api.open(&other, Opening::Plain, deadline).map_err(|_| error)
}

/// What the session plays, once it is known.
fn content_of(stream: &Stream) -> Option<Content> {
    stream.infohash().map(|infohash| Content { infohash, params: stream.content().params.clone() })
}

/// Whether the engine of this place may play the session's content, as far as that is known.
fn may_play(resources: &Resources, stream: &Stream, reservation: &mut Reservation) -> bool {
    content_of(stream).is_none_or(|content| resources.pool.claim(reservation, content))
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Whatever happens here: nobody waits for a thread that is gone.
        let _gone = Gone(self.stream);
        // Nothing, if the reason is known; else this is a panic.
        self.stream.apply(&Event::Stop(Why::Panicked));
        log_failed_start(self.stream);
        let limit = match self.stream.state() {
            State::Stopping(outcome) if outcome.why == Why::Shutdown => LAST_STOP_LIMIT,
            _ => STOP_LIMIT,
        };
        let own = self.opened.take();
        for (reservation, opened) in own.into_iter().chain(self.stream.take_adopted()) {
            stop(self.stream.stream_id(), reservation, opened, limit);
        }
    }
}

/// Reports the end of the fetcher when dropped.
struct Gone<'a>(&'a Stream);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.apply(&Event::FetcherGone);
    }
}

/// Why a stream never began. The closing line of one that did is the session's, since its clients may yet be sent the rest.
fn log_failed_start(stream: &Stream) {
    let State::Stopping(Outcome { why, had_started: false }) = stream.state() else {
        return;
    };
    let id = stream.stream_id();
    match &why {
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
    use crate::stream::client::ClientRecord;
    use crate::stream::memory::Memory;
    use crate::threads::SMALL_STACK_BYTES;

    #[test]
    fn a_fetcher_that_panics_tells_everybody_who_waits() {
        let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
        let stream = Stream::new(
            key.expect("a good key").into(),
            &config::Stream::default(),
            Arc::default(),
            &Memory::new(0),
        );
        let seat = |id| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let client = Arc::new(ClientRecord::new(id, address, None));
            stream.take_seat(client).expect("it is starting")
        };
        let (first, second) = (seat(1), seat(2));
        let threads = Threads::new();
        let fetched = Arc::clone(&stream);
        let body = move || {
            let _run = Run { stream: &fetched, pump: Pump::new(&fetched), opened: None };
            panic!("on purpose");
        };
        threads.spawn("fetch", SMALL_STACK_BYTES, body).expect("a thread");
        let deadline = Instant::now() + Duration::from_secs(20);
        for seat in [first, second] {
            assert_eq!(seat.wait_started(deadline), Some(Err(Why::Panicked)));
        }
        assert!(stream.wait_stopped(deadline));
        threads.join_all(deadline).expect("it has ended");
    }
}

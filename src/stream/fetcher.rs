//! The thread that pulls one stream: asks an engine for it, reads it, and does so again when the source is lost.
//!
//! It alone reports first packets. Whichever way it ends, by an error, a stop or a panic, the drop of `Run` tells the stream
//! why, stops the engine sessions and reports the end, in that order: nobody who waits for the start waits for a thread
//! that is gone, and no opened session is left behind.

mod film;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, select};

use crate::engine::api::{Liveness, Opening as Manner};
use crate::engine::choose::Unavailable;
use crate::engine::error::{EngineError, Failed};
use crate::engine::playback::{Interrupter, Playback, Player};
use crate::engine::pool::{Content, Engine, Pool, Reservation, Wish};
use crate::engine::url::Target;
use crate::id::Digest;
use crate::threads::Threads;

use super::directory::Directory;
use super::ending::Ending;
use super::opening::{Opening, Question};
use super::pump::Pump;
use super::state::{Event, State, Why};
use super::stopping::{LAST_STOP_LIMIT, Opened};
use super::stream::{Lost, NextAttempt, Stream};

use self::film::Found;

/// How often a fetcher that waits for its turn on an engine looks again.
const TURN_INTERVAL: Duration = Duration::from_millis(50);

/// Who zaps leaves one stream for another, and that he left the first is noticed within half a second: so long even a place
/// that is not promised is waited for.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

/// An engine that is warming up is asked to play this often.
const WARM_UP_INTERVAL: Duration = Duration::from_secs(1);

/// An engine that is there tells how it is within this time.
const CHECK_PATIENCE: Duration = Duration::from_secs(6);

/// Whoever waits for an engine's answer looks this often whether it was begun anew meanwhile.
const RETURN_INTERVAL: Duration = Duration::from_secs(1);

/// For a question whose answer is good to have but not needed.
const SIDE_QUESTION_LIMIT: Duration = Duration::from_secs(2);

/// The same in front of a getstream, whose answer says it as well: what an engine knows it tells at once, and for what it has to
/// look up in the network it takes 4.7 s, for which no start waits.
const KNOWN_INFOHASH_LIMIT: Duration = Duration::from_millis(500);

/// What fetchers work with.
pub(super) struct Resources {
    /// Which other streams there are.
    pub(super) directory: Directory,
    /// The engines.
    pub(super) pool: Arc<Pool>,
    /// Where work goes that a fetcher does not wait for.
    pub(super) threads: Threads,
}

/// Fetches the stream until it is over, for whatever reason; then stops its engine sessions.
pub(super) fn run(stream: &Arc<Stream>, resources: &Resources) {
    let mut run = Run { stream, resources, pump: Pump::new(stream), opened: None, pending: Vec::new() };
    while let Some(next) = stream.next_attempt() {
        run.pause(&next);
        match run.attempt(&next) {
            // The housekeeper has given it up, and the next one is due already.
            Lost::Superseded => {}
            Lost::Why(why) => stream.lose_source(next.number, why),
        }
    }
}

struct Run<'a> {
    stream: &'a Arc<Stream>,
    resources: &'a Resources,
    pump: Pump<'a>,
    opened: Option<Opened>,
    /// Getstreams whose tries were given up; their engines are not asked again before they have answered.
    pending: Vec<Opening>,
}

/// What an attempt asks next.
enum Chosen {
    /// An engine, from now on.
    Place(Reservation),
    /// An engine that has been asked before and has not answered yet.
    Pending(Opening),
}

/// What an engine plays.
enum Source {
    /// A body to read, and what its end means.
    Stream(Playback, Ending),
    /// A film, which each client reads for itself.
    Film(Found),
}

impl Run<'_> {
    /// One source, from the choice of the engine to its loss.
    fn attempt(&mut self, next: &NextAttempt) -> Lost {
        self.pump.begin(next.number);
        let (playback, ending) = match self.obtain(next) {
            Ok(Source::Stream(playback, ending)) => (playback, ending),
            Ok(Source::Film(found)) => return self.show(found, next),
            Err(lost) => return lost,
        };
        let (opened, pending) = (&mut self.opened, &mut self.pending);
        let threads = &self.resources.threads;
        self.pump.run(playback, ending, || {
            if let Some(reservation) = opened.as_mut().and_then(Opened::reservation) {
                reservation.record_start();
            }
            pending.drain(..).for_each(|opening| opening.give_up(threads));
        })
    }

    /// Something that plays.
    fn obtain(&mut self, next: &NextAttempt) -> Result<Source, Lost> {
        let (engine, liveness) = self.open(next)?;
        self.stream.tell_opened(next.number);
        let id = self.stream.stream_id();
        log::info!("Started fetcher for {id}");
        let (mut playback, interrupter) = self.play(&engine, next)?;
        log::info!("Stream response received for {id}, status: {}", playback.status());
        self.stream.apply(&Event::Connected(next.number));
        log::info!("Stream {id} connected");
        // Who watches a stream cannot be given a file in its place.
        let may_be_film = self.stream.fanout().head() == 0;
        let found = playback.file(liveness).map_err(|error| Why::of_body(EngineError::of_body(&error)))?;
        if let Some(file) = found.filter(|_| may_be_film) {
            return Ok(Source::Film(Found { engine, playback, interrupter, file }));
        }
        let ending = match liveness {
            Liveness::Vod => Ending::Complete,
            Liveness::Live | Liveness::Unknown => Ending::Broken,
        };
        Ok(Source::Stream(playback, ending))
    }

    /// Opens a session on the best engine, after the one that was lost is stopped.
    fn open(&mut self, next: &NextAttempt) -> Result<(Arc<Engine>, Liveness), Lost> {
        let (stream, directory) = (self.stream, &self.resources.directory);
        let id = stream.stream_id();
        loop {
            log::info!("Selecting engine for stream {id}");
            let opening = match self.choose(next)? {
                Chosen::Pending(opening) => {
                    stream.begin_try(next.number, &opening.engine)?;
                    log::info!("Waiting for the answer of engine {} for {id}", opening.engine.settings.name);
                    opening
                }
                Chosen::Place(mut reservation) => {
                    let engine = Arc::clone(&reservation.engine);
                    self.stop_lost(&engine);
                    directory.cut_abandoned(&engine.settings.name, stream);
                    log::info!("Initializing session for {id} on engine {}", engine.settings.name);
                    if let Some(infohash) = self.ask_for_infohash(&engine, KNOWN_INFOHASH_LIMIT)
                        && let Some(holder) = directory.claim(stream, infohash)
                    {
                        return Err(Why::SameAs(Box::new(holder.wanted().clone())).into());
                    }
                    if !self.may_play(&mut reservation) {
                        continue;
                    }
                    // What came before may have taken long.
                    stream.begin_try(next.number, &engine)?;
                    let content = stream.content();
                    let url = Target::getstream_without_pid(&content).on(engine.api.authority());
                    log::info!("Fetching stream {id} from {url}");
                    let manner = if stream.is_asked_again(&engine) { Manner::Restart } else { Manner::Plain };
                    let question =
                        Question { stream_id: id.to_owned(), content, manner, deadline: next.answer_by };
                    Opening::begin(&self.resources.threads, reservation, question)
                }
            };
            let engine = Arc::clone(&opening.engine);
            let Some(opened) = self.await_answer(next.number, opening)? else {
                log::info!("Engine {} has come back without an answer for {id}", engine.settings.name);
                continue;
            };
            let Some((liveness, infohash)) =
                opened.session().map(|session| (session.liveness, session.infohash))
            else {
                return Err(Lost::Why(Why::Panicked));
            };
            stream.record_opened(next.number, &engine, &opened);
            self.opened = Some(opened);
            // Everybody had left, and it was to be stopped as soon as it was there.
            if !stream.is_current(next.number) {
                return Err(Lost::Superseded);
            }
            // Not every engine says it here; then it was asked too briefly before.
            let infohash = infohash.or_else(|| self.ask_for_infohash(&engine, SIDE_QUESTION_LIMIT));
            let Some(infohash) = infohash else {
                return Ok((engine, liveness));
            };
            if let Some(holder) = directory.claim(stream, infohash)
                && !next.is_recovery
            {
                self.hand_over(&[Arc::clone(&holder)]);
                return Err(Why::SameAs(Box::new(holder.wanted().clone())).into());
            }
            let content = self.content();
            let reservation = self.opened.as_mut().and_then(Opened::reservation);
            let may_play = reservation
                .zip(content)
                .is_none_or(|(reservation, content)| self.resources.pool.claim(reservation, content));
            if may_play {
                return Ok((engine, liveness));
            }
            log::info!("Engine {} plays {id} with other parameters", engine.settings.name);
            self.hand_over(&directory.variants(stream));
        }
    }

    /// Waits until the engine answers or the try is given up; then the answer is kept for later. `None` when the engine does
    /// not know of the question any more.
    fn await_answer(&mut self, attempt: u32, opening: Opening) -> Result<Option<Opened>, Lost> {
        let (cut, is_cut) = crossbeam_channel::bounded(1);
        let armed = self.stream.arm(attempt, move || {
            // Full or gone means that nobody waits any more.
            let _told = cut.try_send(());
        });
        while armed.is_ok() {
            select! {
                recv(opening.answer()) -> answer => {
                    // A thread that panicked has told nothing.
                    let answer = answer.map_err(|_| Lost::Why(Why::Panicked))?;
                    return answer.map(Some).map_err(|error| Lost::Why(Why::Engine(Failed::getstream(error))));
                }
                recv(is_cut) -> _ => break,
                recv(self.stream.stopped()) -> _ => break,
                default(RETURN_INTERVAL) => if opening.is_forgotten() {
                    opening.give_up(&self.resources.threads);
                    return Ok(None);
                }
            }
        }
        self.pending.push(opening);
        Err(Lost::Superseded)
    }

    /// What to ask next; waits for a turn, or for a stream that nobody watches to give way, as long as there is time.
    fn choose(&mut self, next: &NextAttempt) -> Result<Chosen, Lost> {
        if let Some(reservation) = self.opened.as_mut().and_then(Opened::reservation) {
            // What is lost must not take the turn of what follows it.
            reservation.end_start();
        }
        let (stream, Resources { directory, pool, .. }) = (self.stream, self.resources);
        let mut displaced: Option<Arc<Stream>> = None;
        let patience = Instant::now() + ROOM_PATIENCE;
        loop {
            let unavailable = match self.reserve(next) {
                Ok(reservation) => return Ok(Chosen::Place(reservation)),
                Err(unavailable) => unavailable,
            };
            if unavailable == Unavailable::AllTried && !self.pending.is_empty() {
                return Ok(Chosen::Pending(self.pending.remove(0)));
            }
            if unavailable == Unavailable::AllDown && self.is_one_up(next) && Instant::now() < next.deadline {
                continue;
            }
            // One at a time: its place is free a moment later.
            if displaced.as_ref().is_none_or(|displaced| matches!(displaced.state(), State::Stopped(_))) {
                displaced = directory.displace(stream, unavailable, |name| pool.is_usable(name));
            }
            let is_worth_waiting = match unavailable {
                Unavailable::AllDown | Unavailable::AllTried => false,
                Unavailable::AllFull | Unavailable::OtherVariant => {
                    directory.expects_room() || Instant::now() < patience
                }
                Unavailable::AllStarting => true,
            };
            if !is_worth_waiting || Instant::now() >= next.deadline {
                return Err(Lost::Why(Why::NoEngine(unavailable)));
            }
            if self.is_stopped_within(TURN_INTERVAL) || !stream.is_current(next.number) {
                return Err(Lost::Superseded);
            }
        }
    }

    /// A place on the engine that is to be asked next, for the content that is to be asked for next.
    fn reserve(&self, next: &NextAttempt) -> Result<Reservation, Unavailable> {
        let Resources { directory, pool, .. } = self.resources;
        let stream = self.stream;
        stream
            .choose_source(|name| directory.infohash_of(name), |content| directory.is_taken(content, stream));
        let wish = Wish {
            name: stream.content().name,
            content: self.content(),
            preferred: self.opened.as_ref().and_then(Opened::engine),
            tries: &|engine| {
                let is_pending = self.pending.iter().any(|opening| opening.engine.settings.name == engine);
                (!is_pending).then(|| stream.tries(engine, !next.is_recovery)).flatten()
            },
        };
        pool.reserve(&wish)
    }

    /// Stops the session whose picture was lost. On the engine that is asked next this is waited for, since a stop ends
    /// all readers of a content there; on another one, or where nobody answers, it runs beside.
    fn stop_lost(&mut self, next: &Arc<Engine>) {
        // The sessions that were taken over from other streams play the same picture: they go with it.
        for lost in self.opened.take().into_iter().chain(self.stream.take_adopted()) {
            if lost.engine().is_some_and(|engine| Arc::ptr_eq(engine, next)) {
                drop(lost);
            } else {
                lost.stop_beside(&self.resources.threads);
            }
        }
    }

    /// If this id could be the content of a stream that runs already, asks the engine which content it is.
    fn ask_for_infohash(&self, engine: &Engine, limit: Duration) -> Option<Digest> {
        let id = self.resources.directory.wants_infohash(self.stream)?;
        engine.api.infohash_of(id, limit).ok().flatten()
    }

    /// Gives the session just opened to a stream of the same content, if one is on the same engine: stopping it now would end
    /// that one's picture.
    fn hand_over(&mut self, holders: &[Arc<Stream>]) {
        for holder in holders {
            let Some(opened) = self.opened.take() else {
                return;
            };
            let name = opened.engine().map(|engine| engine.settings.name.clone());
            self.opened = if holder.engine_name() == name {
                holder.adopt(opened).err().map(|opened| *opened)
            } else {
                Some(opened)
            };
        }
    }

    /// Asks for the stream, again and again while the engine is warming up.
    fn play(&self, engine: &Engine, next: &NextAttempt) -> Result<(Playback, Interrupter), Lost> {
        let began = Instant::now();
        let Some(session) = self.opened.as_ref().and_then(Opened::session) else {
            return Err(Lost::Why(Why::Panicked));
        };
        loop {
            let player = Player::new(&engine.api);
            let interrupter = player.interrupter();
            let armed = interrupter.clone();
            self.stream.arm(next.number, move || armed.interrupt())?;
            let error = match player.play(session, next.play_by) {
                Ok(playback) => return Ok((playback, interrupter)),
                Err(error) => error,
            };
            if !self.stream.is_current(next.number) {
                return Err(Lost::Superseded);
            }
            if error.is_unknown_session() {
                return Err(Lost::Why(Why::SessionLost));
            }
            let text = match error {
                EngineError::Status(500 | 403, _) => {
                    // To be told if the deadline comes before the next try.
                    self.stream.record_refusal(&error.to_string());
                    let stat = session.stat.as_ref().map(|stat| engine.api.stat(stat, SIDE_QUESTION_LIMIT));
                    match stat {
                        Some(Ok(stat)) if !stat.is_warming_up() => {
                            return Err(Lost::Why(Why::Engine(Failed::playback(error))));
                        }
                        // The engine was restarted in between, or somebody stopped the content there.
                        Some(Err(error)) if error.is_unknown_session() => {
                            return Err(Lost::Why(Why::SessionLost));
                        }
                        // It is on its way, or says nothing that can be used.
                        _ => error.to_string(),
                    }
                }
                // It has opened a session, so it is there: nobody sends this content, most likely.
                EngineError::Silent(_) => return Err(Lost::Why(self.stream.connect_timeout())),
                error => return Err(Lost::Why(Why::Engine(Failed::playback(error)))),
            };
            if Instant::now() + WARM_UP_INTERVAL >= next.play_by {
                return Err(Lost::Why(Why::NotReady(began.elapsed() + WARM_UP_INTERVAL, text)));
            }
            if self.is_stopped_within(WARM_UP_INTERVAL) || !self.stream.is_current(next.number) {
                return Err(Lost::Superseded);
            }
        }
    }

    /// What the stream plays, once it is known.
    fn content(&self) -> Option<Content> {
        let infohash = self.stream.infohash()?;
        Some(Content { infohash, params: self.stream.content().params })
    }

    /// Whether the engine of this place may play the stream's content, as far as that is known.
    fn may_play(&self, reservation: &mut Reservation) -> bool {
        self.content().is_none_or(|content| self.resources.pool.claim(reservation, content))
    }

    /// Waits before an attempt; an engine that comes up ends the waiting.
    fn pause(&self, next: &NextAttempt) {
        let pool = &self.resources.pool;
        let is_wanted = || self.stream.is_current(next.number);
        pool.wait_up_while(pool.ups(), Instant::now() + next.pause, is_wanted);
    }

    /// While no engine is up: has all of them asked, once for all who wait for one; a recovery waits on until one is up.
    fn is_one_up(&self, next: &NextAttempt) -> bool {
        let pool = &self.resources.pool;
        let is_wanted = || self.stream.is_current(next.number);
        let seen = pool.ups();
        if next.is_recovery {
            log::info!("No engine is up: {} waits for one", self.stream.stream_id());
        }
        let asked_by = next.deadline.min(Instant::now() + CHECK_PATIENCE);
        pool.check_now(asked_by, is_wanted)
            || next.is_recovery && pool.wait_up_while(seen, next.deadline, is_wanted)
    }

    fn is_stopped_within(&self, pause: Duration) -> bool {
        self.stream.stopped().recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // Whatever happens here: nobody waits for a thread that is gone.
        let _gone = Gone(self.stream);
        // Nothing, if the reason is known; else this is a panic.
        self.stream.apply(&Event::Stop(Why::Panicked));
        self.stream.log_failed_start();
        let is_shutdown =
            matches!(self.stream.state(), State::Stopping(outcome) if outcome.why == Why::Shutdown);
        for opened in self.opened.take().into_iter().chain(self.stream.take_adopted()) {
            if is_shutdown {
                opened.stop_within(LAST_STOP_LIMIT);
            } else {
                drop(opened);
            }
        }
        // Until they are stopped the stream's key stays taken: a late stop would end a newer session of the content.
        self.pending.drain(..).for_each(Opening::settle);
    }
}

/// Reports the end of the fetcher when dropped.
struct Gone<'a>(&'a Stream);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.apply(&Event::FetcherGone);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config;
    use crate::id::ContentKey;
    use crate::stream::client::{ClientRecord, Protocol};
    use crate::stream::memory::Memory;
    use crate::threads::SMALL_STACK_BYTES;

    #[test]
    fn a_fetcher_that_panics_tells_everybody_who_waits() {
        let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
        let pool = Arc::new(Pool::new(Vec::new()));
        let settings = config::Stream::default();
        let wanted = key.expect("a good key").into();
        let stream = Stream::new(
            wanted,
            &settings,
            Arc::default(),
            &Memory::new(0),
            Arc::clone(&pool),
            Arc::default(),
        );
        let seat = |id| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let client = Arc::new(ClientRecord::new(id, Protocol::Ts, address, None));
            stream.take_seat(client).expect("it is starting")
        };
        let (first, second) = (seat(1), seat(2));
        let threads = Threads::new();
        let fetched = Arc::clone(&stream);
        let resources = Resources { directory: Directory::default(), pool, threads: threads.clone() };
        let body = move || {
            let stream = &fetched;
            let _run = Run {
                stream,
                resources: &resources,
                pump: Pump::new(stream),
                opened: None,
                pending: Vec::new(),
            };
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

//! The attempts of a stream: which one is current, what belongs to it, and what becomes of one that is lost.
//!
//! It must not know how an engine is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::blame::Fault;
use crate::engine::error::{EngineError, Failed};
use crate::engine::file::File;
use crate::engine::pool::Engine;
use crate::engine::stat::Watched;
use crate::id::{ContentKey, ContentName, Digest};
use crate::stream::candidates::{Candidates, Failure, Others};
use crate::stream::film::Film;
use crate::stream::state::{Event, State, TRY, Why, Yield};
use crate::stream::stopping::Opened;
use crate::sync::atomic::Ordering;

use super::{Core, Stream};

/// What belongs to the current attempt, and goes with it.
#[derive(Default)]
pub(super) struct Current {
    /// Who was asked.
    pub(super) engine: Option<Arc<Engine>>,
    /// Where the engine's stat of its session is found.
    pub(super) session: Option<Arc<Watched>>,
    /// When the engine had opened its session.
    pub(super) opened_at: Option<Instant>,
    /// An engine has opened its session, and this stream is to play it.
    pub(super) is_opened: bool,
    /// The engine's words when it was asked to play and was not ready.
    pub(super) refusal: Option<String>,
    /// What it plays, if that is a film.
    pub(super) film: Option<Arc<Film>>,
    /// Ends the fetcher's waiting or reading.
    pub(super) cut: Option<Box<dyn FnOnce() + Send>>,
}

/// An attempt that is due.
#[derive(Clone, Copy, Debug)]
pub(in crate::stream) struct NextAttempt {
    /// Its number.
    pub(in crate::stream) number: u32,
    /// Whether it is to bring back a picture that was there.
    pub(in crate::stream) is_recovery: bool,
    /// How long to wait before it is begun.
    pub(in crate::stream) pause: Duration,
    /// When a place on an engine must be there.
    pub(in crate::stream) deadline: Instant,
    /// When the playback connection must be there; the housekeeper may give the attempt up earlier.
    pub(in crate::stream) play_by: Instant,
    /// When an answer to a getstream is of no use any more, whatever becomes of the attempt.
    pub(in crate::stream) answer_by: Instant,
}

/// Why an attempt is over.
#[derive(Debug)]
pub(in crate::stream) enum Lost {
    /// For this reason.
    Why(Why),
    /// Somebody else has given it up, and knows why.
    Superseded,
}

impl From<Why> for Lost {
    fn from(why: Why) -> Self {
        Self::Why(why)
    }
}

/// An attempt was given up before the fetcher got this far.
#[derive(Debug)]
pub(in crate::stream) struct Superseded;

impl From<Superseded> for Lost {
    fn from(_: Superseded) -> Self {
        Self::Superseded
    }
}

/// An attempt that was lost, to be told to engine and log once the stream's lock is released.
pub(super) struct Loss {
    number: u32,
    engine: Option<Arc<Engine>>,
    content: ContentName,
    why: Why,
    was_active: bool,
    had_started: bool,
    /// Which attempt follows, and after which pause; `None` if it was the last.
    next: Option<(u32, Duration)>,
}

impl Stream {
    /// The attempt that is due; `None` when there is nothing more to attempt.
    pub(in crate::stream) fn next_attempt(&self) -> Option<NextAttempt> {
        let core = self.core.lock();
        let now = Instant::now();
        let (is_recovery, pause, play_by, answer_by) = match &core.life.state {
            State::Starting(start) => (false, Duration::ZERO, start.deadline, start.deadline),
            State::Recovering { until, .. } => {
                let pause = core.life.back_off();
                let play_by = (now + pause + self.limits.connect.max(TRY)).min(*until);
                (true, pause, play_by, play_by)
            }
            _ => return None,
        };
        let number = core.life.attempt;
        Some(NextAttempt { number, is_recovery, pause, deadline: play_by, play_by, answer_by })
    }

    /// Whether this attempt is still to be made.
    #[must_use]
    pub fn is_current(&self, attempt: u32) -> bool {
        self.core.lock().is_current(attempt)
    }

    /// Takes the content to ask for next; `infohash_of` tells what is known of a content by its name. Once it has played, what
    /// another stream plays is left out: an engine must not get a second session of a content, and clients cannot change
    /// streams.
    pub(in crate::stream) fn choose_source(
        &self,
        infohash_of: impl FnOnce(&ContentName) -> Option<Digest>,
        is_taken: impl Fn(&ContentKey) -> bool,
    ) {
        let sources = self.sources();
        if sources.len() == 1 {
            return;
        }
        let mut order = self.past.order(self.key(), &sources, Instant::now());
        if self.core.lock().life.activations > 0 {
            let free: Vec<_> = order.iter().copied().filter(|&source| !is_taken(&sources[source])).collect();
            // Nothing is free: then it waits for what it had, which at least is known.
            order = if free.is_empty() { vec![self.source.load(Ordering::Relaxed)] } else { free };
        }
        let at_hand = self.pool.at_hand();
        let mut core = self.core.lock();
        let is_start = core.life.activations == 0;
        let before = self.source.load(Ordering::Relaxed);
        let next = core.candidates.next_source(&order, &at_hand, is_start).unwrap_or(before);
        self.source.store(next, Ordering::Release);
        drop(core);
        if next != before {
            // What was known is known of another content.
            let infohash = infohash_of(&self.content().name);
            core = self.core.lock();
            Arc::make_mut(&mut core.facts).infohash = infohash;
        }
    }

    /// How often this engine was asked for the present content; `None` when it is not to be asked again.
    pub(in crate::stream) fn tries(&self, engine: &str, is_start: bool) -> Option<u32> {
        let source = self.source.load(Ordering::Acquire);
        let candidates = &self.core.lock().candidates;
        let is_ruled_out = is_start && candidates.is_ruled_out(engine, source);
        (!is_ruled_out).then(|| candidates.tries(engine, source))
    }

    /// This engine is asked now.
    ///
    /// # Errors
    ///
    /// When the attempt was given up in the meantime: the engine must not be asked.
    pub(in crate::stream) fn begin_try(&self, attempt: u32, engine: &Arc<Engine>) -> Result<(), Superseded> {
        let settings = &engine.settings;
        let source = self.source.load(Ordering::Acquire);
        let mut core = self.core.lock();
        if !core.is_current(attempt) {
            return Err(Superseded);
        }
        core.candidates.begin(&settings.name, source);
        core.current = Current { engine: Some(Arc::clone(engine)), ..Current::default() };
        let told = (settings.name.clone(), settings.host.as_str().to_owned(), settings.port);
        Arc::make_mut(&mut core.facts).engine = Some(told);
        self.commit(core, &Event::Asking(attempt));
        Ok(())
    }

    /// The engines that were asked since the last picture.
    pub(in crate::stream) fn engines_tried(&self) -> Vec<String> {
        self.core.lock().candidates.engines()
    }

    /// Whether the present engine was asked for the present content before, since the last picture.
    pub(in crate::stream) fn is_asked_again(&self, engine: &Engine) -> bool {
        let source = self.source.load(Ordering::Acquire);
        self.core.lock().candidates.tries(&engine.settings.name, source) > 1
    }

    /// Records what the engine told about its session, and where it can be asked about it.
    pub(in crate::stream) fn record_opened(&self, attempt: u32, engine: &Engine, opened: &Opened) {
        let Some(session) = opened.session() else { return };
        let watched = session.stat.clone().map(|stat| engine.watch(stat));
        let mut core = self.core.lock();
        if core.is_current(attempt) {
            (core.current.session, core.current.opened_at) = (watched, Some(Instant::now()));
        }
        let facts = Arc::make_mut(&mut core.facts);
        facts.playback_session_id.clone_from(&session.playback_session_id);
        facts.liveness = session.liveness;
        self.commit(core, &Event::Opened(attempt));
    }

    /// Tells who waits for it that the session of this attempt is open, and that no other stream plays it already.
    pub(in crate::stream) fn tell_opened(&self, attempt: u32) {
        let mut core = self.core.lock();
        if core.is_current(attempt) {
            core.current.is_opened = true;
        }
        drop(core);
        self.changed.notify_all();
    }

    /// Records in which words the engine said that it is not ready to play.
    pub(in crate::stream) fn record_refusal(&self, text: &str) {
        self.core.lock().current.refusal = Some(text.to_owned());
    }

    /// Publishes what ends the waiting or reading of this attempt, before it begins.
    ///
    /// # Errors
    ///
    /// When the attempt was given up in the meantime: it must not begin.
    pub(in crate::stream) fn arm(
        &self,
        attempt: u32,
        cut: impl FnOnce() + Send + 'static,
    ) -> Result<(), Superseded> {
        let mut core = self.core.lock();
        if !core.is_current(attempt) {
            return Err(Superseded);
        }
        core.current.cut = Some(Box::new(cut));
        Ok(())
    }

    /// Publishes the film that this attempt plays.
    ///
    /// # Errors
    ///
    /// When the attempt was given up in the meantime: nobody is to read it.
    pub(in crate::stream) fn show(&self, film: &Arc<Film>) -> Result<(), Superseded> {
        let mut core = self.core.lock();
        if !core.is_current(film.attempt()) {
            return Err(Superseded);
        }
        Arc::make_mut(&mut core.facts).film = Some(film.file().clone());
        core.current.film = Some(Arc::clone(film));
        Ok(())
    }

    /// The film that plays, if one does now.
    #[must_use]
    pub fn film(&self) -> Option<Arc<Film>> {
        self.core.lock().current.film.clone()
    }

    /// The file that it is, if it was found to be a film, be its source there or not.
    #[must_use]
    pub fn file(&self) -> Option<File> {
        self.core.lock().facts.film.clone()
    }

    /// Whether it was found to be a film.
    #[must_use]
    pub fn is_film(&self) -> bool {
        self.core.lock().facts.film.is_some()
    }

    /// The engine does not play this film any more, for this reason: another source is looked for.
    pub fn lose_film(&self, film: &Film, error: EngineError) {
        self.lose_source(film.attempt(), Why::of_body(error));
    }

    /// What else there is to try on these engines, once the current attempt has failed so.
    pub(super) fn others_after(
        &self,
        core: &Core,
        failure: Option<Failure>,
        mut at_hand: Vec<String>,
    ) -> Others {
        let Some(engine) = &core.current.engine else {
            // Nobody was asked yet.
            return if at_hand.is_empty() { Others::None } else { Others::Again };
        };
        let (name, source) = (&engine.settings.name, self.source.load(Ordering::Acquire));
        if engine.is_usable() && !at_hand.contains(name) {
            // It is full, and one of its places is ours.
            at_hand.push(name.clone());
        }
        let plays = matches!(core.life.state, State::Active | State::Lingering { .. });
        let mut candidates = if plays && self.flow.given() == Yield::Some {
            // As at its loss: what was tried before it played is as good as new.
            Candidates::default()
        } else {
            core.candidates.clone()
        };
        if let Some(failure) = failure {
            candidates.fail(name, source, failure, String::new());
        }
        let is_start = core.life.activations == 0;
        candidates.others((name, source), self.sources().len(), &at_hand, is_start)
    }

    /// Notes that the current attempt was lost, whose parts these are. The rest is [`Loss::tell`]'s.
    pub(super) fn note_loss(&self, core: &mut Core, was_active: bool, number: u32) -> Option<Loss> {
        let why = core.life.last_loss()?.clone();
        let source = self.source.load(Ordering::Acquire);
        let engine = core.current.engine.clone();
        if was_active && !core.life.is_barren() {
            // It played: whatever was tried before is as good as new.
            core.candidates = Candidates::default();
        } else if let (Some(engine), Some(failure)) = (&engine, why.failure()) {
            core.candidates.fail(&engine.settings.name, source, failure, why.to_string());
        }
        let content = self.content();
        // What played for long has ended for a reason of the day, and is asked once more; anything else is dead for a while.
        // What an engine does wrong is no content's fault.
        let was_good = core.plays_since.take().is_some_and(|(_, is_good)| is_good);
        let is_content_s =
            matches!(why.failure(), Some(Failure::Content | Failure::Open)) && why != Why::SessionLost;
        if !was_good && is_content_s {
            self.past.fail(&content, why.to_string(), Instant::now());
        }
        let content = content.name;
        let life = &core.life;
        let next = life.state.is_open().then(|| (life.attempt, life.back_off()));
        Some(Loss { number, engine, content, why, was_active, had_started: life.activations > 0, next })
    }
}

impl Core {
    fn is_current(&self, attempt: u32) -> bool {
        self.life.attempt == attempt && self.life.state.is_open()
    }
}

impl Loss {
    /// Tells engine and log. The last attempt of all is told of with the end of the stream.
    pub(super) fn tell(&self, stream_id: &str) {
        let Self { number, engine, content, why, was_active, had_started, next } = self;
        let name = engine.as_ref().map_or("no engine", |engine| &engine.settings.name);
        if let Some((next, pause)) = next {
            let pause = pause.as_secs();
            if *was_active {
                log::warn!(
                    "Stream {stream_id} lost its source on {name}: {why}; recovering, attempt {next} in {pause} s"
                );
            } else if *had_started {
                log::warn!(
                    "Attempt {number} at {stream_id} failed on {name}: {why}; attempt {next} in {pause} s"
                );
            } else {
                log::warn!("HTTP error streaming {stream_id} from {name}: {why}; another try follows");
            }
        }
        let Some(engine) = engine else { return };
        match why {
            Why::Engine(failed) if !had_started || next.is_some() && !was_active => {
                engine.record_failure(*content, failed, Fault::of(&failed.error));
            }
            Why::EngineDead(limit) => {
                let failed = Failed { question: "stat", error: EngineError::Silent(*limit) };
                engine.record_failure(*content, &failed, Fault::Engine);
            }
            why if why.is_content_s() => engine.doubt(*content),
            _ => {}
        }
    }
}

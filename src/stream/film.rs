//! A film: a file that every client reads for itself, out of one engine session that all of them share.
//!
//! Each client has a [`Reading`]: a connection to the engine and a thread of its own that reads it, from where the client
//! wants to where it wants. A thread, since an engine that has not loaded that part yet says nothing for as long as it likes,
//! and who waits for it must be able to leave. Between that thread and the client's lies one piece and no more: who reads
//! slowly, or not at all, holds the engine back by TCP alone.
//!
//! It must not know how parts are named to clients, nor why a session is lost; it finds out that it is.
//!
//! Lock rule: the one lock is taken alone. Connections are cut outside it.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::engine::error::EngineError;
use crate::engine::file::{File, Span};
use crate::engine::playback::{Interrupter, Playback, Player};
use crate::engine::pool::Engine;
use crate::engine::url::Target;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::threads::{LARGE_STACK_BYTES, Threads};

/// One read, and so one piece: as much as a write to a client takes at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Readings of one film at a time. A player opens two or three while it seeks; a house has no more players than this is for,
/// and each costs the engine a connection.
const MAX_READINGS: usize = 128;

/// An engine that is not ready for a part is asked for it again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// For the question whether a session is still there.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);

/// Where a film is played.
pub(super) struct Source {
    /// The engine.
    pub(super) engine: Arc<Engine>,
    /// Its playback.
    pub(super) playback: Target,
    /// Where the session is asked about.
    pub(super) stat: Option<Target>,
}

/// A film, as one engine session plays it.
pub struct Film {
    attempt: u32,
    source: Source,
    file: File,
    threads: Threads,
    is_over: AtomicBool,
    readings: Mutex<Readings>,
}

#[derive(Default)]
struct Readings {
    next: u64,
    /// What ends each.
    open: HashMap<u64, Interrupter>,
    /// What told that it is a film: the file from its first byte on, if that is what the first reading is of.
    first: Option<(Playback, Interrupter)>,
}

/// Why a film cannot be read from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoReading {
    /// Its session is over.
    Over,
    /// As many read it as may.
    TooMany,
    /// The system has no thread.
    NoThread,
}

impl Film {
    /// A film of this attempt. `first` is its playback from the first byte on, and what ends that.
    pub(super) fn new(
        attempt: u32,
        source: Source,
        file: File,
        first: (Playback, Interrupter),
        threads: Threads,
    ) -> Arc<Self> {
        let readings = Mutex::new(Readings { first: Some(first), ..Readings::default() });
        Arc::new(Self { attempt, source, file, threads, is_over: AtomicBool::new(false), readings })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The attempt that has brought it.
    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether its session is over: nothing more can be read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Closes what was opened to find out what it is, if nobody has taken it.
    pub(super) fn close_first(&self) {
        let first = self.readings.lock().first.take();
        drop(first);
    }

    /// Ends all readings, and lets none begin.
    pub(super) fn close(&self) {
        self.is_over.store(true, Ordering::Release);
        let (open, first) = {
            let mut readings = self.readings.lock();
            (std::mem::take(&mut readings.open), readings.first.take())
        };
        open.values().for_each(Interrupter::interrupt);
        drop(first);
    }

    /// Begins to read. The engine's answer is waited for until `deadline`.
    ///
    /// # Errors
    ///
    /// When the session is over, or there is no room.
    pub fn read(self: &Arc<Self>, span: Span, deadline: Instant) -> Result<Reading, NoReading> {
        // Both hold one: what the client writes, and what comes next.
        let (tell, told) = crossbeam_channel::bounded(1);
        let (give_back, spare) = crossbeam_channel::bounded(2);
        let player = Player::new(&self.source.engine.api);
        let (number, first) = self.enter(span, player.interrupter())?;
        let film = Arc::clone(self);
        let reader = Reader { film: Arc::clone(self), span, tell, spare };
        let reading = Reading { film, number, told, give_back };
        let body = move || reader.run(first, &player, deadline);
        match self.threads.spawn(&format!("film-{number}"), LARGE_STACK_BYTES, body) {
            Ok(()) => Ok(reading),
            Err(error) => {
                log::error!("No thread to read a film: {error}");
                Err(NoReading::NoThread)
            }
        }
    }

    /// Takes a place for a reading that is ended so, and with it what there is of the film already, if it fits.
    fn enter(&self, span: Span, interrupter: Interrupter) -> Result<(u64, Option<Playback>), NoReading> {
        let is_whole = span.from == 0 && (span.to.is_none() || span.to == self.file.length);
        let mut readings = self.readings.lock();
        // Under the lock, so that none is missed by the closing.
        if self.is_over() {
            return Err(NoReading::Over);
        }
        if readings.open.len() >= MAX_READINGS {
            return Err(NoReading::TooMany);
        }
        readings.next += 1;
        let number = readings.next;
        let (first, interrupter) = match readings.first.take() {
            Some((first, of_first)) if is_whole => (Some(first), of_first),
            // Whoever begins elsewhere is in the middle of it: the engine is not to load the begin for nobody.
            unwanted => {
                readings.open.insert(number, interrupter);
                drop(readings);
                drop(unwanted);
                return Ok((number, None));
            }
        };
        readings.open.insert(number, interrupter);
        Ok((number, first))
    }

    fn leave(&self, number: u64) {
        let interrupter = self.readings.lock().open.remove(&number);
        if let Some(interrupter) = interrupter {
            interrupter.interrupt();
        }
    }

    /// Whether the engine does not know the session any more, or is not there.
    fn is_lost(&self) -> Option<EngineError> {
        let stat = self.source.stat.as_ref()?;
        match self.source.engine.api.stat(stat, QUESTION_LIMIT) {
            Err(error) if error.is_unknown_session() || error.is_nobody() => Some(error),
            _ => None,
        }
    }
}

impl fmt::Debug for Film {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Film")
            .field("attempt", &self.attempt)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// What the reading thread tells.
enum Told {
    /// The engine has answered; pieces follow.
    Opened,
    /// The next piece.
    Piece(Vec<u8>),
    /// It is over: as it should be, or not.
    End(Result<(), EngineError>),
}

/// One client's part of a film. Dropping it closes its connection to the engine.
pub struct Reading {
    film: Arc<Film>,
    number: u64,
    told: Receiver<Told>,
    give_back: Sender<Vec<u8>>,
}

/// What a reading gives next.
#[derive(Debug)]
pub enum FilmNext {
    /// Some bytes.
    Piece(Vec<u8>),
    /// Nothing yet.
    Quiet,
    /// All of it was given.
    End,
    /// It broke off.
    Broken(EngineError),
}

impl Reading {
    /// Whether the engine has answered; `None` when it has not until then.
    ///
    /// # Errors
    ///
    /// Why it does not give this part.
    pub fn wait_opened(&self, until: Instant) -> Option<Result<(), EngineError>> {
        match self.told.recv_deadline(until) {
            Ok(Told::End(Err(error))) => Some(Err(error)),
            Ok(_) => Some(Ok(())),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(broken())),
        }
    }

    /// What comes next, or nothing until then.
    pub fn next(&self, until: Instant) -> FilmNext {
        match self.told.recv_deadline(until) {
            Ok(Told::Piece(piece)) => FilmNext::Piece(piece),
            Ok(Told::Opened) | Err(RecvTimeoutError::Timeout) => FilmNext::Quiet,
            Ok(Told::End(Ok(()))) => FilmNext::End,
            Ok(Told::End(Err(error))) => FilmNext::Broken(error),
            Err(RecvTimeoutError::Disconnected) => FilmNext::Broken(broken()),
        }
    }

    /// Gives the memory of a piece back, to be read into.
    pub fn give_back(&self, piece: Vec<u8>) {
        // A reader that has ended needs none.
        let _ended = self.give_back.try_send(piece);
    }

    /// The film.
    #[must_use]
    pub fn film(&self) -> &Arc<Film> {
        &self.film
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.film.leave(self.number);
    }
}

/// What is said of a reading that was ended by somebody else.
fn broken() -> EngineError {
    EngineError::Lost("the reading of the film was ended".to_owned())
}

/// What runs on a reading's thread.
struct Reader {
    film: Arc<Film>,
    span: Span,
    tell: Sender<Told>,
    spare: Receiver<Vec<u8>>,
}

impl Reader {
    fn run(self, first: Option<Playback>, player: &Player, deadline: Instant) {
        let playback = match first {
            Some(first) => Ok(first),
            None => self.open(player, deadline),
        };
        let end = playback.and_then(|playback| {
            // Nobody listens any more: then the next piece finds that out, too.
            let _left = self.tell.send(Told::Opened);
            self.pass(playback)
        });
        let _left = self.tell.send(Told::End(end));
    }

    /// Asks for the part, again and again while the engine says that it is not ready.
    fn open(&self, player: &Player, deadline: Instant) -> Result<Playback, EngineError> {
        let Source { playback, .. } = &self.film.source;
        loop {
            let error = match player.play_part(playback, self.span, deadline) {
                Err(error @ EngineError::Status(403 | 500 | 503, _)) => error,
                outcome => return outcome,
            };
            if let Some(lost) = self.film.is_lost() {
                return Err(lost);
            }
            let again = Instant::now() + RETRY_PAUSE;
            if again >= deadline || player.wait_until(again) {
                return Err(error);
            }
        }
    }

    /// Passes the part on, piece by piece.
    fn pass(&self, mut playback: Playback) -> Result<(), EngineError> {
        let to = self.span.to.or(self.film.file.length);
        let mut left = to.map(|to| to.saturating_sub(self.span.from));
        while left != Some(0) {
            let mut piece = self.spare.try_recv().unwrap_or_default();
            let wanted = left.map_or(PIECE_BYTES, |left| {
                usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES))
            });
            piece.resize(wanted, 0);
            let read = loop {
                match playback.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let read = read.map_err(|error| EngineError::of_body(&error))?;
            if read == 0 {
                return self.judge_end(left);
            }
            piece.truncate(read);
            left = left.map(|left| left.saturating_sub(read as u64));
            if self.tell.send(Told::Piece(piece)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the end of a body means that should have had so much more.
    fn judge_end(&self, left: Option<u64>) -> Result<(), EngineError> {
        if self.film.is_over() {
            return Err(broken());
        }
        if left.is_some() {
            return Err(EngineError::Lost("it ended in the middle of the film".to_owned()));
        }
        // Nothing tells the end of a body without a length from its loss, but that the engine is still there.
        self.film.is_lost().map_or(Ok(()), Err)
    }
}

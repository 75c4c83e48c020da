//! What a fetcher does when it finds that its engine session plays a film: it shows it to the clients, who read it themselves,
//! and stays with it until it is over.
//!
//! It must not know how a film is read.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::select;

use crate::engine::file::File;
use crate::engine::playback::{Interrupter, Playback};
use crate::engine::pool::Engine;
use crate::stream::film::{Film, Source};
use crate::stream::opening::Opening;
use crate::stream::state::{Event, Why};
use crate::stream::stopping::Opened;
use crate::stream::stream::{Lost, NextAttempt};

use super::{Run, SIDE_QUESTION_LIMIT};

/// Whoever asked for the film begins to read it within this time; then the connection that told what it is, which the first of
/// them may have, is closed.
const FIRST_KEPT_FOR: Duration = Duration::from_secs(5);

/// More files than a content has whose names anybody reads.
const MAX_FILES: usize = 200;

/// A film that was found.
pub(super) struct Found {
    pub(super) engine: Arc<Engine>,
    pub(super) playback: Playback,
    pub(super) interrupter: Interrupter,
    pub(super) file: File,
}

impl Run<'_> {
    /// Shows a film until it is over or lost.
    pub(super) fn show(&mut self, found: Found, next: &NextAttempt) -> Lost {
        match self.try_show(found, next) {
            Ok(()) => Lost::Superseded,
            Err(lost) => lost,
        }
    }

    fn try_show(&mut self, found: Found, next: &NextAttempt) -> Result<(), Lost> {
        let Found { engine, playback, interrupter, file } = found;
        let (stream, id) = (self.stream, self.stream.stream_id());
        let Some(session) = self.opened.as_ref().and_then(Opened::session) else {
            return Err(Why::Panicked.into());
        };
        let source = Source {
            engine: Arc::clone(&engine),
            playback: session.playback.clone().map_err(|error| Lost::Why(Why::of_body(error)))?,
            stat: session.stat.clone(),
        };
        let length =
            file.length.map_or_else(|| "unknown length".to_owned(), |bytes| format!("{bytes} bytes"));
        log::info!("Stream {id} is a film: {}, {length}", file.content_type);
        let threads = self.resources.threads.clone();
        let film = Film::new(next.number, source, file, (playback, interrupter), threads);
        let closing = Closing(&film);
        let (tell, over) = crossbeam_channel::bounded(1);
        let cut = Arc::clone(&film);
        stream.arm(next.number, move || {
            cut.close();
            // Full or gone means that nobody waits any more.
            let _told = tell.try_send(());
        })?;
        stream.show(&film)?;
        self.report_film(next);
        if let Some(reservation) = self.opened.as_mut().and_then(Opened::reservation) {
            reservation.record_start();
        }
        self.pending.drain(..).for_each(|opening: Opening| opening.give_up(&self.resources.threads));
        self.ask_for_files(&engine);
        select! {
            recv(over) -> _ => return Ok(()),
            recv(stream.stopped()) -> _ => return Ok(()),
            default(FIRST_KEPT_FOR) => film.close_first(),
        }
        select! {
            recv(over) -> _ => {}
            recv(stream.stopped()) -> _ => {}
        }
        drop(closing);
        Ok(())
    }

    fn report_film(&self, next: &NextAttempt) {
        let (stream, id) = (self.stream, self.stream.stream_id());
        let is_first = !next.is_recovery;
        stream.flow().begin_source();
        stream.apply(&Event::FirstPackets(next.number));
        stream.ask_about_it();
        match stream.first_data_after() {
            Some(after) if is_first => {
                log::info!("First data for {id} after {} ms", after.as_millis());
                log::info!("Stream created for {id}");
            }
            _ => log::info!("Stream {id} goes on with attempt {}", next.number),
        }
    }

    /// Asks what the files are called, which opens no session. Who plays does not wait for it.
    fn ask_for_files(&self, engine: &Engine) {
        let name = self.stream.content().name;
        if let Ok(mut files) = engine.api.files_of(name, SIDE_QUESTION_LIMIT) {
            files.truncate(MAX_FILES);
            self.stream.record_files(files);
        }
    }
}

/// Closes the film on every way out.
struct Closing<'a>(&'a Film);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

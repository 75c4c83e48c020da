//! What is known of a stream: the fetcher records it here, and status and log are told it from here.
//!
//! It must not change what the stream does: nothing here is an event of its life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::id::Digest;
use crate::stream::state::{Outcome, State, Why};
use crate::stream::view::{ClientView, FilmView, StreamView};
use crate::sync::atomic::Ordering;
use crate::ts::media::Media;

use super::Stream;

impl Stream {
    /// Records which content it is.
    pub(in crate::stream) fn record_infohash(&self, infohash: Digest) {
        Arc::make_mut(&mut self.core.lock().facts).infohash = Some(infohash);
    }

    /// Records what it consists of.
    pub(in crate::stream) fn record_media(&self, media: Arc<Media>) {
        Arc::make_mut(&mut self.core.lock().facts).media = Some(media);
    }

    /// What it consists of, as far as it is known.
    #[must_use]
    pub fn media(&self) -> Option<Arc<Media>> {
        self.core.lock().facts.media.clone()
    }

    /// Records what the files are called that it consists of.
    pub(in crate::stream) fn record_files(&self, files: Vec<String>) {
        Arc::make_mut(&mut self.core.lock().facts).files = files.into();
    }

    /// The stream as it is now.
    #[must_use]
    pub fn view(&self) -> StreamView {
        let now = Instant::now();
        let (life, facts, seats, last_seat_left, watched, bytes_out_of_gone) = {
            let core = self.core.lock();
            let seats: Vec<_> = core.seats.values().cloned().collect();
            let watched = core.current.session.clone();
            let gone = self.bytes_out_of_gone.load(Ordering::Relaxed);
            (core.life.clone(), Arc::clone(&core.facts), seats, core.last_seat_left, watched, gone)
        };
        let idle_for = match last_seat_left {
            Some(left) if seats.is_empty() => now.saturating_duration_since(left),
            _ => Duration::ZERO,
        };
        let mut clients = Vec::with_capacity(seats.len());
        let mut waiting = 0;
        for record in seats {
            let Some(sent_bytes) = record.sent_bytes() else {
                waiting += 1;
                continue;
            };
            let (skips, lag) = match record.progress.get() {
                Some(progress) => (progress.skips(), self.fanout.lag_of(progress, now)),
                None => Default::default(),
            };
            let length = facts.film.as_ref().and_then(|film| film.length);
            let film = record.film().map(|film| FilmView { offset: film.offset(), length });
            clients.push(ClientView { record, sent_bytes, lag, skips, film });
        }
        let sent: u64 = clients.iter().map(|client| client.sent_bytes).sum();
        StreamView {
            content: self.content(),
            channel: self.channel(),
            stream_id: Arc::clone(&self.stream_id),
            restarts: life.activations.saturating_sub(1),
            state: life.state,
            swarm: watched.and_then(|watched| watched.last()),
            facts,
            clients,
            waiting,
            idle_for,
            bytes_in: self.flow.bytes(),
            bytes_out: sent + bytes_out_of_gone,
            bitrate_bps: self.fanout.bitrate_bps(now),
            picture_missing: self.flow.picture_missing(),
            keyframe_interval: self.fanout.keyframe_interval(),
        }
    }

    /// Why it never began, in one line, in which each of the texts is found that people look for. The closing line of one that
    /// did begin comes later, since its clients may yet be sent the rest.
    pub(in crate::stream) fn log_failed_start(&self) {
        let State::Stopping(Outcome { why, had_started: false }) = self.state() else {
            return;
        };
        let id = self.stream_id();
        if !why.is_trouble() {
            log::info!("Stream {id} ended before it started: {why}");
            return;
        }
        let from = self.engine_name().map_or_else(String::new, |engine| format!(" from {engine}"));
        let what = if let Why::ConnectTimeout(limit, _) = &why {
            format!("Timeout waiting for connection of {id} after {}s{from}: {why}", limit.as_secs_f32())
        } else if why.is_stream_s() {
            format!("HTTP error streaming {id}{from}: {why}")
        } else {
            why.to_string()
        };
        log::warn!("Failed to initialize session for {id}: {what}");
    }

    /// The closing line of a stream that has run, once its last client has been sent the rest.
    pub(super) fn log_totals(&self) {
        let view = self.view();
        let (State::Stopped(outcome), Some(ran_for)) = (&view.state, view.facts.ran_for) else {
            return;
        };
        let seconds = ran_for.as_secs();
        let StreamView { stream_id, bytes_in, bytes_out, restarts, .. } = &view;
        log::info!(
            "Stream {stream_id} ended after {seconds} s, {bytes_in} bytes in, {bytes_out} bytes out, {restarts} restarts: {}",
            outcome.why
        );
    }
}

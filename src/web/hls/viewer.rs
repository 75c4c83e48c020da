//! A client that watches in segments, from its first list to its leaving.
//!
//! It must not know what it is answered; its drop is the end of its visit, and says so in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config;
use crate::hls::playlist;
use crate::hls::segmenter::USUAL_TARGET;
use crate::http::turnstile::Pass;
use crate::stream::backlog::Bounds;
use crate::stream::client::ClientRecord;
use crate::stream::fanout::{Fanout, Pieces};
use crate::stream::lease::Token;
use crate::stream::state::Why;
use crate::stream::stream::{Seat, Stream};

use super::super::connections::Registration;
use super::super::place::{log_arrival, log_departure};
use super::broadcast::{Broadcast, SegmentBody};

/// A player that plays asks at least once in a target duration. Who asked for nothing for longer may be the same that asks for the
/// first list again.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(8);

/// No segment has this number.
const NONE: u64 = u64::MAX;

/// What is kept with a viewer's lease.
pub(super) struct Viewer {
    broadcast: Arc<Broadcast>,
    pieces: Pieces,
    stream: Arc<Stream>,
    record: Arc<ClientRecord>,
    usual: Bounds,
    came: Instant,
    registration: Registration,
    _pass: Pass,
    is_unused: AtomicBool,
    has_listed: AtomicBool,
    was_told_of_its_loss: AtomicBool,
    last_sequence: AtomicU64,
    /// Segments that it took one behind the other.
    in_a_row: AtomicU64,
}

/// A viewer's list as text.
pub(super) struct List {
    pub(super) text: String,
    pub(super) segments: usize,
    pub(super) is_ended: bool,
}

impl Viewer {
    pub(super) fn new(
        seat: &Seat,
        broadcast: Arc<Broadcast>,
        settings: &config::Stream,
        registration: Registration,
        pass: Pass,
    ) -> Self {
        let usual = Bounds { bytes: settings.hls_backlog_bytes, age: settings.hls_backlog };
        Self {
            broadcast,
            pieces: seat.join_in_pieces(usual),
            stream: Arc::clone(seat.stream()),
            record: seat.record(),
            usual,
            came: Instant::now(),
            registration,
            _pass: pass,
            is_unused: AtomicBool::new(true),
            has_listed: AtomicBool::new(false),
            was_told_of_its_loss: AtomicBool::new(false),
            last_sequence: AtomicU64::new(NONE),
            in_a_row: AtomicU64::new(0),
        }
    }

    pub(super) fn log_arrival(&self) {
        log_arrival(&self.record, &self.stream, ", by HLS");
    }

    /// Whether it never asked for its own list.
    pub(super) fn is_unused(&self) -> bool {
        self.is_unused.load(Ordering::Relaxed)
    }

    /// Whether it was given its own list before.
    pub(super) fn has_listed(&self) -> bool {
        self.has_listed.load(Ordering::Relaxed)
    }

    pub(super) fn note_listed(&self) {
        self.has_listed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_asked_to_leave(&self) -> bool {
        self.registration.is_asked_to_leave()
    }

    /// It is told that its stream is lost.
    pub(super) fn tell_of_its_loss(&self) {
        self.was_told_of_its_loss.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_told_of_its_loss(&self) -> bool {
        self.was_told_of_its_loss.load(Ordering::Relaxed)
    }

    /// Its list as it is now.
    pub(super) fn list(&self, fanout: &Fanout, token: Token) -> List {
        self.is_unused.store(false, Ordering::Relaxed);
        let (list, target) = self.broadcast.read(fanout, |segmenter| {
            let list = List {
                text: playlist::media(segmenter, &format!("{token}/")),
                segments: segmenter.listed().len(),
                is_ended: segmenter.is_ended(),
            };
            (list, segmenter.target())
        });
        if target > USUAL_TARGET {
            // Longer segments, and as many of them.
            let age = self.usual.age.saturating_mul(target as u32) / USUAL_TARGET as u32;
            self.pieces.keep_at_least(Bounds { age, ..self.usual });
        }
        list
    }

    /// A segment, if it is there.
    pub(super) fn cut(&self, fanout: &Fanout, sequence: u64) -> Option<SegmentBody> {
        self.broadcast.cut(fanout, sequence)
    }

    /// A segment was sent to it. Tells whether it has left some out.
    pub(super) fn record_sent(&self, sequence: u64, end: u64, bytes: u64) -> bool {
        self.pieces.record_sent(end, bytes);
        let last = self.last_sequence.swap(sequence, Ordering::Relaxed);
        if last != NONE && sequence == last.saturating_add(1) {
            self.in_a_row.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        // Players look into one segment to see what it is, and begin at another.
        let was_playing = self.in_a_row.swap(0, Ordering::Relaxed) > 0;
        let is_skip = was_playing && sequence > last;
        if is_skip {
            self.pieces.record_skip();
        }
        is_skip
    }

    fn why_it_left(&self) -> String {
        let state = self.stream.state();
        match state.why() {
            _ if self.is_asked_to_leave() => "disconnected on request".to_owned(),
            Some(Why::Shutdown) => Why::Shutdown.to_string(),
            Some(Why::Asked) if !state.is_open() => "the stream was stopped on request".to_owned(),
            Some(_) if !state.is_open() => "the stream ended".to_owned(),
            _ => "it asked for nothing more".to_owned(),
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let progress = self.pieces.progress();
        let (bytes, skips, why) = (progress.sent_bytes(), progress.skips(), self.why_it_left());
        log_departure(&self.record, &self.stream, self.came, bytes, skips, &why);
    }
}

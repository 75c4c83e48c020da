//! Reads one source after another, aligns them, marks them, publishes them.
//!
//! The middle of the way of a chunk. It knows bodies and packets; it does not know how a source is obtained, nor why it was
//! lost beyond what reading it tells.

use std::io::{self, Read};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;

use crate::engine::error::EngineError;
use crate::engine::playback::Playback;
use crate::ts::align::{Aligner, foreign_packet_bytes};

use super::ending::Ending;
use super::marks::{Mark, Marker};
use super::splice::Splice;
use super::state::{Event, State, Why};
use super::stream::{Lost, Stream};

/// One read, and so one chunk, at most: a millisecond's work for the clients' threads, and 64 ms of an 8 Mbit/s stream.
const READ_BYTES: usize = 64 * 1024;

/// More than any engine sends before the first packet; what has no five sync bytes in it is no MPEG-TS.
const MAX_GARBAGE_BYTES: u64 = 1024 * 1024;

/// The gather pause at its longest, by clients. Longer means fewer, larger chunks, and each chunk wakes every client's
/// thread, which is most of the cost where there are many: there the last of them still has its packet well within 75 ms.
/// A household's few cost little either way, and get theirs within 15 ms.
const fn longest_pause(clients: usize) -> Duration {
    Duration::from_millis(match clients {
        0..8 => 10,
        8..32 => 20,
        32.. => 50,
    })
}

/// The gather pause at its shortest. Between the two it follows the rule of [`Pacing`], which keeps up with any source; a
/// fixed long pause does not, since the kernel's receive window and the sleep fall into step.
const MIN_PAUSE: Duration = Duration::from_millis(2);

/// The engine is made to wait for slow clients for no longer than this.
const MAX_HOLD: Duration = Duration::from_secs(10);

/// Publishes the sources of one stream, seamed together.
pub(super) struct Pump<'a> {
    stream: &'a Stream,
    marker: Marker,
    marks: Vec<Mark>,
    aligned: Vec<u8>,
    intake: Intake,
}

/// What belongs to one source.
struct Intake {
    attempt: u32,
    aligner: Aligner,
    /// While the seam to the source before is being sewn.
    splice: Option<Splice>,
    pacing: Pacing,
    has_published: bool,
    /// The length of packets that are none of ours.
    packet_bytes: Option<usize>,
    /// Picture or sound was published. Tables and null packets alone are no beginning: an encoder that has lost its input
    /// sends them for ever.
    has_begun: bool,
}

impl Intake {
    fn new(attempt: u32, splice: Option<Splice>) -> Self {
        Self {
            attempt,
            aligner: Aligner::new(),
            splice,
            pacing: Pacing::new(),
            has_published: false,
            packet_bytes: None,
            has_begun: false,
        }
    }
}

impl<'a> Pump<'a> {
    pub(super) fn new(stream: &'a Stream) -> Self {
        Self {
            stream,
            marker: Marker::new(),
            marks: Vec::new(),
            aligned: Vec::with_capacity(2 * READ_BYTES),
            intake: Intake::new(0, None),
        }
    }

    /// Begins with a new source.
    pub(super) fn begin(&mut self, attempt: u32) {
        let has_published = self.stream.fanout().head() > 0;
        let splice = has_published.then(|| Splice::new(self.marker.published()));
        if has_published {
            self.marker.break_off();
            self.stream.fanout().break_off();
        }
        self.intake = Intake::new(attempt, splice);
    }

    /// Until the body ends or breaks, or the attempt is given up. `ending` is what a proper end of the body means;
    /// `on_first` is called with the first picture or sound.
    pub(super) fn run(&mut self, mut playback: Playback, ending: Ending, on_first: impl FnOnce()) -> Lost {
        let mut on_first = Some(on_first);
        let mut buffer = vec![0; READ_BYTES];
        self.stream.flow().begin_source();
        loop {
            let read = match playback.read(&mut buffer) {
                Ok(0) => return self.finish(Why::SourceEnded(ending)).into(),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.finish(why_of(EngineError::of_body(&error))).into(),
            };
            self.stream.record_bytes_in(read as u64);
            if playback.has_jumped() {
                self.jump();
            }
            self.intake.aligner.push(&buffer[..read], &mut self.aligned);
            self.publish();
            if !self.intake.has_published {
                let seen = self.intake.packet_bytes.take();
                self.intake.packet_bytes = seen.or_else(|| foreign_packet_bytes(&buffer[..read]));
                if self.intake.aligner.skipped_bytes() > MAX_GARBAGE_BYTES {
                    return Why::NotMpegTs(self.intake.packet_bytes).into();
                }
                continue;
            }
            if self.intake.has_begun
                && let Some(on_first) = on_first.take()
            {
                on_first();
            }
            if let Some(pause) = self.intake.pacing.after_read(read, self.stream.fanout().clients())
                && self.is_stopped_after(pause)
            {
                return Lost::Superseded;
            }
            if self.hold_while_everybody_is_behind() {
                return Lost::Superseded;
            }
        }
    }

    /// What comes next does not go on where the source was: nobody begins before it, and every jump is announced.
    fn jump(&mut self) {
        self.intake.aligner.finish(&mut self.aligned);
        self.publish();
        self.intake.aligner = Aligner::new();
        // A seam that is still being looked for is found behind the jump all the same.
        let is_searching = self.intake.splice.as_ref().is_some_and(Splice::is_searching);
        if self.intake.has_published && !is_searching {
            self.intake.splice = Some(Splice::at_jump(self.marker.tables().clone(), Instant::now()));
            self.marker.break_off();
            self.stream.fanout().break_off();
        }
    }

    /// The rest of the body, then why it is over.
    fn finish(&mut self, why: Why) -> Why {
        self.intake.aligner.finish(&mut self.aligned);
        self.publish();
        match why {
            Why::SourceEnded(_) if !self.intake.has_published && self.intake.aligner.skipped_bytes() > 0 => {
                Why::NotMpegTs(self.intake.packet_bytes)
            }
            Why::SourceEnded(_) if !self.intake.has_begun => Why::EndedWithoutData,
            why => why,
        }
    }

    /// Publishes what is aligned, unless the attempt was given up in the meantime.
    fn publish(&mut self) {
        let now = Instant::now();
        if let Some(splice) = &mut self.intake.splice {
            let new = std::mem::take(&mut self.aligned);
            splice.push(&new, self.marker.published(), now, &mut self.aligned);
            if splice.is_done(now) {
                self.intake.splice = None;
            }
        }
        if self.aligned.is_empty() || self.stream.attempt() != self.intake.attempt {
            self.aligned.clear();
            return;
        }
        let seen = self.marker.observe(&self.aligned, now, &mut self.marks);
        self.stream.flow().see(seen);
        if !self.marks.is_empty()
            && let Some(media) = self.marker.news_of_media()
        {
            self.stream.record_media(media);
        }
        let is_taken = self.stream.publish(&self.aligned, &mut self.marks, now);
        self.aligned.clear();
        self.marks.clear();
        self.intake.has_published |= is_taken;
        if is_taken && seen.media && !self.intake.has_begun {
            self.intake.has_begun = true;
            self.report_first_packets();
        }
    }

    fn report_first_packets(&self) {
        let (id, attempt) = (self.stream.stream_id(), self.intake.attempt);
        let is_first = matches!(self.stream.state(), State::Starting(_));
        self.stream.apply(&Event::FirstPackets(attempt));
        self.stream.ask_about_it();
        match self.stream.first_data_after() {
            Some(after) if is_first => {
                log::info!("First data for {id} after {} ms", after.as_millis());
                log::info!("Stream created for {id}");
            }
            _ => log::info!("Stream {id} goes on with attempt {attempt}"),
        }
    }

    /// Lets TCP hold the engine back while no client keeps up. Tells whether the session was stopped.
    fn hold_while_everybody_is_behind(&mut self) -> bool {
        while self.intake.pacing.may_hold(self.stream.fanout().is_everybody_behind(), Instant::now()) {
            if self.stream.attempt() != self.intake.attempt {
                return true;
            }
            self.stream.flow().hold();
            if self.is_stopped_after(MIN_PAUSE) {
                return true;
            }
        }
        false
    }

    fn is_stopped_after(&self, pause: Duration) -> bool {
        #[expect(
            clippy::disallowed_methods,
            reason = "the pause is short, and a wait on the channel would spin before each: measured with 100 streams, a \
                      quarter of all CPU time"
        )]
        thread::sleep(pause);
        self.stream.stopped().try_recv() != Err(TryRecvError::Empty)
    }
}

/// What it means that a body cannot be read on.
fn why_of(error: EngineError) -> Why {
    if error.is_unknown_session() { Why::SessionLost } else { Why::Engine(error) }
}

/// When to pause and when to hold; a plain value.
struct Pacing {
    pause: Duration,
    since_pause: usize,
    holding_since: Option<Instant>,
}

impl Pacing {
    fn new() -> Self {
        Self { pause: longest_pause(0), since_pause: 0, holding_since: None }
    }

    /// The pause after a read of so many bytes for so many clients; none after a full one, since there is more.
    fn after_read(&mut self, read: usize, clients: usize) -> Option<Duration> {
        self.since_pause += read;
        if read == READ_BYTES {
            return None;
        }
        self.pause = if self.since_pause >= READ_BYTES {
            (self.pause / 2).max(MIN_PAUSE)
        } else {
            (self.pause + self.pause / 4).min(longest_pause(clients))
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
    use std::sync::Arc;

    use super::*;
    use crate::config;
    use crate::engine::pool::Pool;
    use crate::id::ContentKey;
    use crate::stream::memory::Memory;

    #[test]
    fn what_comes_after_the_end_is_no_first_packet() {
        let key = ContentKey::from_query(None, [("id", "0123456789abcdef0123456789abcdef01234567")]);
        let settings = config::Stream::default();
        let wanted = key.expect("a good key").into();
        let pool = Arc::new(Pool::new(Vec::new()));
        let stream =
            Stream::new(wanted, &settings, Arc::default(), &Memory::new(u64::MAX), pool, Arc::default());
        let mut pump = Pump::new(&stream);
        pump.begin(0);
        stream.fanout().close(Ending::Broken);
        pump.aligned.extend_from_slice(&[0x47; 188]);
        pump.publish();
        assert!(!pump.intake.has_begun, "nobody was given it");
        assert_eq!((stream.fanout().head(), stream.first_data_after()), (0, None));
    }

    #[test]
    fn the_pause_shrinks_while_much_comes_and_grows_back() {
        let mut pacing = Pacing::new();
        let begin = pacing.pause;
        assert_eq!(pacing.after_read(READ_BYTES, 1), None, "there is more to read");
        assert_eq!(pacing.after_read(1000, 1), Some(begin / 2), "65 kB since the last pause");
        assert_eq!(pacing.after_read(1000, 1), Some(begin / 2 + begin / 8));
        for _ in 0..10 {
            let _full = pacing.after_read(READ_BYTES, 1);
            let _pause = pacing.after_read(1, 1);
        }
        assert_eq!(pacing.pause, MIN_PAUSE);
        for clients in [1, 10, 100] {
            for _ in 0..20 {
                let _pause = pacing.after_read(1000, clients);
            }
            assert_eq!(pacing.pause, longest_pause(clients));
        }
        assert_eq!(pacing.after_read(1000, 1), Some(longest_pause(1)), "for few it is short again at once");
    }

    /// A source of this rate, whose bytes wait in a receive window of this size: how much of it comes through.
    fn share_that_passes(bytes_per_second: u64, window: u64, clients: usize) -> f64 {
        const SECONDS: u64 = 20;
        // A read and the publishing of what it gave.
        const WORK_US: u64 = 200;
        let mut pacing = Pacing::new();
        let (mut now_us, mut waiting_since_us, mut passed) = (0, 0, 0);
        while now_us < SECONDS * 1_000_000 {
            let waiting = ((now_us - waiting_since_us) * bytes_per_second / 1_000_000).min(window);
            let read = waiting.min(READ_BYTES as u64);
            passed += read;
            // What did not fit into the window was never sent, and what was not read stays in it.
            let left = waiting - read;
            waiting_since_us = now_us - left * 1_000_000 / bytes_per_second;
            let pause = pacing.after_read(read as usize, clients).unwrap_or_default();
            now_us += WORK_US + pause.as_micros() as u64;
        }
        passed as f64 / (bytes_per_second * SECONDS) as f64
    }

    #[test]
    fn every_rate_passes_through_every_window_for_any_number_of_clients() {
        for megabits in [1, 4, 8, 20, 50, 100, 200] {
            for window in [128, 256, 1024, 6144] {
                for clients in [1, 7, 8, 31, 32, 1000] {
                    let share = share_that_passes(megabits * 125_000, window * 1024, clients);
                    assert!(share > 0.97, "{share:.2} of {megabits} Mbit/s, {window} KiB, {clients} clients");
                }
            }
        }
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

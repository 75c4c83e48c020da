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
use super::pacing::{Pacing, READ_BYTES, SHORTEST};
use super::splice::Splice;
use super::state::{Event, State, Why};
use super::stream::{Lost, Stream};

/// More than any engine sends before the first packet; what has no five sync bytes in it is no MPEG-TS.
const MAX_GARBAGE_BYTES: u64 = 1024 * 1024;

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
            pacing: Pacing::new(Instant::now()),
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
                Err(error) => return self.finish(Why::of_body(EngineError::of_body(&error))).into(),
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
            if let Some(pause) =
                self.intake.pacing.after_read(read, self.stream.fanout().clients(), Instant::now())
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
            if self.is_stopped_after(SHORTEST) {
                return true;
            }
        }
        false
    }

    fn is_stopped_after(&self, pause: Duration) -> bool {
        #[expect(
            clippy::disallowed_methods,
            reason = "the pause is a tenth of a second at most, and a wait on the channel would spin before each: measured with 100 streams, a \
                      quarter of all CPU time"
        )]
        thread::sleep(pause);
        self.stream.stopped().try_recv() != Err(TryRecvError::Empty)
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
}

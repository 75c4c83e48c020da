//! A broadcast: media whose broadcaster may begin anew, with the clock and the counters of a new encoder.
//!
//! It is a row of runs. Places count through all of them; within a run each packet is the one that the media has at that
//! place since the run began. Every reader is given the same row, whenever it comes. No I/O, no clock.

use std::time::{Duration, Instant};

use super::packet::{self, PACKET_BYTES, Packet};
use super::{Media, clip, now_us, numbered};

/// As good as for ever, and still within what an `Instant` can hold.
const AGES: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a broadcaster begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// How long nothing is broadcast in between.
    pub silence: Duration,
    /// The first PCR of the new encoder, in ticks of 90 kHz; PTS and DTS follow.
    pub clock_90khz: u64,
}

impl Restart {
    /// After so long a silence, with a clock that begins at 0.
    #[must_use]
    pub fn after(silence: Duration) -> Self {
        Self { silence, clock_90khz: 0 }
    }

    /// With another clock.
    #[must_use]
    pub fn clock(mut self, clock_90khz: u64) -> Self {
        self.clock_90khz = clock_90khz;
        self
    }
}

/// The media and the runs it was sent in.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Broadcast {
    media: Media,
    runs: Vec<Run>,
}

/// From one start of the broadcaster to the next.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The place of its first packet.
    first: u64,
    /// How many numbered packets came before it.
    numbers: u64,
    /// When its first packet is due, since the beginning of the broadcast.
    at: Duration,
    /// Before this nobody has it, however fast packets are sent; `None` if it was always there.
    opens: Option<Instant>,
    /// Its first PCR; `None` is the media's own.
    clock_90khz: Option<u64>,
}

/// How far a reader may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Limit {
    /// The first packet that it may not have.
    pub(in crate::sim) packet: u64,
    /// Nothing follows before that: the broadcaster has gone, or the stream is over.
    pub(in crate::sim) is_edge: bool,
}

impl Broadcast {
    pub(in crate::sim) fn new(media: Media) -> Self {
        let run = Run { first: 0, numbers: 0, at: Duration::ZERO, opens: None, clock_90khz: None };
        Self { media, runs: vec![run] }
    }

    /// Begins anew: the present run ends in the middle of the first picture that goes on at `place` or after it.
    pub(in crate::sim) fn restart(&mut self, place: u64, restart: Restart, now: Instant) {
        let last = self.runs[self.runs.len() - 1];
        let place = self.torn_at(place.max(last.first)).min(self.packets());
        let run = Run {
            first: place,
            numbers: last.numbers + self.media.numbers_by(place - last.first),
            at: self.due(place).saturating_add(restart.silence),
            opens: Some(now + restart.silence.min(AGES)),
            clock_90khz: Some(restart.clock_90khz),
        };
        self.runs.push(run);
    }

    /// The first place from here on where the picture before it is not at its end.
    fn torn_at(&self, place: u64) -> u64 {
        /// More than there are tables in a row.
        const LOOK: u64 = 16;
        if self.runs.iter().any(|run| run.first == place) {
            return place;
        }
        let goes_on = |place: &u64| {
            let mut packet = [0; PACKET_BYTES];
            self.write(*place, 0, &mut packet);
            packet::pid(&packet) == numbered::STREAM_PID && !packet::starts_unit(&packet)
        };
        (place..place.saturating_add(LOOK)).find(goes_on).unwrap_or(place)
    }

    fn run_at(&self, place: u64) -> (usize, Run) {
        let index = self.runs.partition_point(|run| run.first <= place) - 1;
        (index, self.runs[index])
    }

    /// Where the run after this one begins, or the stream ends.
    fn end_of(&self, index: usize) -> u64 {
        self.runs.get(index + 1).map_or(self.packets(), |next| next.first)
    }

    /// Packets in the whole broadcast; `u64::MAX` if it never ends.
    pub(in crate::sim) fn packets(&self) -> u64 {
        self.media.packets()
    }

    /// When the packet at `place` is due, since the beginning.
    pub(in crate::sim) fn due(&self, place: u64) -> Duration {
        let (_, run) = self.run_at(place);
        run.at.saturating_add(self.media.due(place - run.first))
    }

    /// How far it has come once `time` has passed since the beginning.
    pub(in crate::sim) fn due_by(&self, time: Duration) -> Limit {
        let index = self.runs.partition_point(|run| run.at <= time) - 1;
        let run = self.runs[index];
        let (due, end) = (run.first.saturating_add(self.media.due_by(time - run.at)), self.end_of(index));
        Limit { packet: due.min(end), is_edge: due >= end }
    }

    /// How far it can be had now, by a reader that may have all that there is.
    pub(in crate::sim) fn all_by(&self, now: Instant) -> Limit {
        let closed = self.runs.iter().position(|run| run.opens.is_some_and(|at| now < at));
        let packet = closed.map_or(self.packets(), |index| self.runs[index].first);
        Limit { packet, is_edge: true }
    }

    /// When the run of the packet at `place` can be had.
    pub(in crate::sim) fn opens(&self, place: u64) -> Option<Instant> {
        self.run_at(place).1.opens
    }

    /// Appends packets `from..to`, as sent now.
    pub(in crate::sim) fn append(&self, from: u64, to: u64, out: &mut Vec<u8>) {
        let now_us = now_us();
        let mut packet: Packet = [0; PACKET_BYTES];
        for place in from..to {
            self.write(place, now_us, &mut packet);
            out.extend_from_slice(&packet);
        }
    }

    fn write(&self, place: u64, now_us: u64, out: &mut Packet) {
        let (index, run) = self.run_at(place);
        match &self.media {
            Media::Clip => {
                let shift = run.clock_90khz.map_or(0, |clock| clock.wrapping_sub(clip::first_clock_90khz()));
                clip::write(place - run.first, shift, out);
            }
            Media::Numbered(shape) => {
                let mut start = numbered::Start { run: index as u64, ..numbered::Start::default() };
                start.number = run.numbers;
                if let Some(clock) = run.clock_90khz {
                    start.clock_27mhz = clock.wrapping_mul(300);
                }
                shape.write_run(place - run.first, start, now_us, out);
            }
        }
    }
}

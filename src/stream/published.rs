//! What the clients of a stream were sent lately, so that a new source that repeats it is told from one that does not.
//!
//! Two things are kept of it, through any number of failed attempts: the last reference of its clock, and a fingerprint of
//! the begin of each PES packet in which a decoder may start. It knows packets; it reads no clock of ours.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ts::clock::{HERTZ, pcr_behind};
use crate::ts::follow::{ClockReference, ClockStep};
use crate::ts::packet::Packet;
use crate::ts::start::StartKind;

/// Fingerprints that are kept, 8 bytes each: those of a minute at 60 pictures a second. An engine replays less.
const MAX_PRINTS: usize = 4096;

/// For so long back there is a fingerprint of every picture, even at 100 of them a second.
const PRINTED_TICKS: u64 = 40 * HERTZ;

/// So much of a PES packet makes its fingerprint: its head with its time stamps, and the first bytes of the picture. Two
/// encoders, or two runs of one, do not agree in all of that.
const PRINT_BYTES: usize = 128;

/// A stream that has shown no keyframe for so long will not show one soon: the longest distance in use is 10 s, and an
/// encoder that refreshes its pictures bit by bit never sends a second one.
const KEYFRAME_TICKS: u64 = 15 * HERTZ;

/// The same in PES packets, where there is no clock to tell the time: 15 s at 60 pictures a second.
const KEYFRAME_PRINTS: u64 = 900;

/// What tells the begin of one PES packet from that of any other: 64 bits, taken eight bytes at a step in the manner of
/// FNV-1a. An engine may put it into other transport packets when it sends it again, so only the payload counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print(u64);

impl Print {
    /// That of the PES packet that this packet starts.
    #[must_use]
    pub(super) fn of(packet: &Packet<'_>) -> Self {
        let payload = packet.payload().unwrap_or_default();
        let bytes = &payload[..payload.len().min(PRINT_BYTES)];
        // Multiplying carries bits up only; the rotation brings them down again.
        let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words.iter().fold(bytes.len() as u64, |hash, word| step(hash, u64::from_le_bytes(*word)));
        Self(rest.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte))))
    }
}

/// Where on the clock of what was published a moment of another source lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Ahead of its end, or so far away that it has nothing to do with it.
    Elsewhere,
    /// Within what was published last: what comes from there is known by its fingerprint, or it is of another clock.
    Within,
    /// Up to a minute behind its end, in a time of which nothing, or not all, was published.
    Before,
}

/// What was published lately.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The last reference of its clock.
    clock: Option<ClockReference>,
    /// For how many 27 MHz ticks up to there the clock has run on without a jump.
    ran: u64,
    /// Oldest first.
    prints: VecDeque<Print>,
    /// Since the last keyframe, or the begin: 27 MHz ticks of the clock, and PES packets.
    since_keyframe: (u64, u64),
    /// There were no tables at the last place to start.
    lacks_tables: bool,
}

impl Published {
    /// The clock has come to this reference, by this step.
    pub(super) fn record_clock(&mut self, reference: Option<ClockReference>, step: ClockStep) {
        self.ran = match step {
            ClockStep::On(ticks) => {
                self.since_keyframe.0 = self.since_keyframe.0.saturating_add(ticks);
                self.ran.saturating_add(ticks).min(PRINTED_TICKS)
            }
            ClockStep::First | ClockStep::Jump { .. } => 0,
        };
        self.clock = reference.or(self.clock);
    }

    /// A PES packet was published that a decoder may start in.
    pub(super) fn record(&mut self, print: Print) {
        if self.prints.len() == MAX_PRINTS {
            self.prints.pop_front();
        }
        self.prints.push_back(print);
        self.since_keyframe.1 += 1;
    }

    /// A place to start was published.
    pub(super) fn record_place(&mut self, kind: StartKind, has_tables: bool) {
        self.lacks_tables = !has_tables;
        if kind == StartKind::Keyframe {
            self.since_keyframe = (0, 0);
        }
    }

    /// Whether another keyframe is to be expected: a seam waits for nothing that this stream does not show.
    #[must_use]
    pub(super) fn expects_keyframe(&self) -> bool {
        let (ticks, prints) = self.since_keyframe;
        ticks < KEYFRAME_TICKS && prints < KEYFRAME_PRINTS
    }

    /// Whether tables are to be expected.
    #[must_use]
    pub(super) fn expects_tables(&self) -> bool {
        !self.lacks_tables
    }

    /// The last reference of its clock.
    #[must_use]
    pub(super) fn clock(&self) -> Option<ClockReference> {
        self.clock
    }

    /// Whether this was published. What was published twice tells nothing: the stream repeats itself, like a film that is
    /// looped.
    #[must_use]
    pub(super) fn knows(&self, print: Print) -> bool {
        self.prints.iter().filter(|known| **known == print).take(2).count() == 1
    }

    /// Where a moment of another source lies.
    #[must_use]
    pub(super) fn place_of(&self, pcr: Option<u64>) -> Place {
        let (Some(clock), Some(pcr)) = (self.clock, pcr) else {
            return Place::Elsewhere;
        };
        let ran = Duration::from_secs_f64(self.ran as f64 / HERTZ as f64);
        match pcr_behind(clock.pcr, pcr) {
            None => Place::Elsewhere,
            Some(behind) if behind <= ran => Place::Within,
            Some(_) => Place::Before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ts::packet::{PACKET_BYTES, Pid, packets};

    fn print(number: usize) -> Print {
        let mut packet = [0; PACKET_BYTES];
        packet[..4].copy_from_slice(&[0x47, 0x41, 0x00, 0x10]);
        packet[4..12].copy_from_slice(&number.to_be_bytes());
        Print::of(&Packet::new(&packet))
    }

    #[test]
    fn a_fingerprint_is_of_the_payload_s_begin_alone() {
        let mut packet = [0x55; PACKET_BYTES];
        packet[..4].copy_from_slice(&[0x47, 0x41, 0x00, 0x10]);
        let of = |packet: &[u8; PACKET_BYTES]| Print::of(&Packet::new(packet));
        let first = of(&packet);
        packet[..4].copy_from_slice(&[0x47, 0x42, 0x00, 0x17]);
        packet[187] = 0;
        assert_eq!(of(&packet), first, "other PID and counter, other bytes behind");
        packet[4 + PRINT_BYTES - 1] = 0;
        assert_ne!(of(&packet), first);
    }

    #[test]
    fn what_was_published_once_is_known_for_a_while() {
        let mut published = Published::default();
        (0..MAX_PRINTS).for_each(|number| published.record(print(number)));
        assert!(published.knows(print(0)) && published.knows(print(MAX_PRINTS - 1)));
        assert!(!published.knows(print(MAX_PRINTS)));
        published.record(print(MAX_PRINTS));
        assert!(!published.knows(print(0)) && published.knows(print(1)));
        published.record(print(MAX_PRINTS));
        assert!(!published.knows(print(MAX_PRINTS)), "the stream repeats itself");
        assert_eq!(published.prints.len(), MAX_PRINTS);
    }

    #[test]
    fn a_keyframe_is_expected_until_none_came_for_long() {
        let mut published = Published::default();
        assert!(published.expects_keyframe() && published.expects_tables());
        let second = ClockStep::On(HERTZ);
        (0..14).for_each(|_| published.record_clock(None, second));
        assert!(published.expects_keyframe());
        published.record_clock(None, second);
        assert!(!published.expects_keyframe());
        published.record_place(StartKind::Pes, false);
        assert!(!published.expects_keyframe() && !published.expects_tables());
        published.record_place(StartKind::Keyframe, true);
        assert!(published.expects_keyframe() && published.expects_tables());
        (0..KEYFRAME_PRINTS as usize).for_each(|number| published.record(print(number)));
        assert!(!published.expects_keyframe(), "there may be no clock");
    }

    #[test]
    fn a_place_is_within_as_long_as_the_clock_has_run() {
        use Place::{Before, Elsewhere, Within};
        const SECOND: u64 = HERTZ;
        let mut published = Published::default();
        assert_eq!(published.place_of(Some(5)), Elsewhere);
        let mut at = |pcr: u64, step| {
            published.record_clock(Some(ClockReference { pid: Pid::new(0x100), pcr: pcr * SECOND }), step);
            let place = |pcr: u64| published.place_of(Some(pcr * SECOND));
            [place(pcr + 1), place(pcr), place(pcr - 3), place(pcr - 7), place(pcr - 61)]
        };
        assert_eq!(at(100, ClockStep::First), [Elsewhere, Within, Before, Before, Elsewhere]);
        let second = ClockStep::On(SECOND);
        for pcr in 101..105 {
            at(pcr, second);
        }
        assert_eq!(at(105, second), [Elsewhere, Within, Within, Before, Elsewhere]);
        let jump = ClockStep::Jump { is_announced: false };
        assert_eq!(at(205, jump), [Elsewhere, Within, Before, Before, Elsewhere]);
        assert_eq!(published.place_of(None), Elsewhere);
    }

    #[test]
    fn the_pictures_of_a_clip_differ_in_their_fingerprints() {
        const CLIP: &[u8] = include_bytes!("../sim/clip.ts");
        let mut published = Published::default();
        let starts =
            || packets(CLIP).filter(|packet| packet.starts_unit() && packet.pid() == Pid::new(0x100));
        starts().for_each(|packet| published.record(Print::of(&packet)));
        assert!(starts().count() >= 200);
        assert!(starts().all(|packet| published.knows(Print::of(&packet))));
    }
}

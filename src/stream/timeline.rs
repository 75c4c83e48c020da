//! Where the time of a stream jumps: a player that is not told of it there stalls or loses sound and picture against each
//! other.
//!
//! Where places to start carry their time, that decides, measured by how far the clock ran on between them; else the clock
//! alone does. It takes values and keeps the last of each.

use std::iter;

use crate::fnv::fnv64;
use crate::ts::follow::ClockStep;
use crate::ts::psi::PsiCache;

/// Times of 90 kHz begin anew after so many ticks (ISO/IEC 13818-1 clause 2.4.3.7).
const CYCLE: u64 = 1 << 33;

/// A time may be so far ahead of what the clock says: a decoder's buffer is a second or two deep, and fills and empties.
const MAX_AHEAD: u64 = 2 * 90_000;

/// A time may be so far back: pictures without a DTS come in the order in which they are decoded, not shown.
const MAX_BACK: u64 = 90_000 / 2;

/// Clock ticks in one of a time's.
const CLOCK_TICKS: u64 = 300;

/// The time of one stream.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Of the last place that carried one.
    time: Option<u64>,
    /// Since then, in 27 MHz ticks, jumps left out.
    ran: u64,
    /// Since the last place.
    clock: ClockSince,
    is_seam: bool,
    /// The elementary streams at the last place: a hash, 0 before there were tables.
    streams: u64,
}

/// What the clock did since the last place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ClockSince {
    #[default]
    RanOn,
    Jumped,
    /// And the stream itself says so.
    JumpedAsAnnounced,
}

impl Timeline {
    /// The clock went on by this step.
    pub(super) fn see_clock(&mut self, step: ClockStep) {
        match step {
            ClockStep::First => {}
            ClockStep::On(ticks) => self.ran = self.ran.saturating_add(ticks),
            ClockStep::Jump { is_announced: true } => self.clock = ClockSince::JumpedAsAnnounced,
            ClockStep::Jump { is_announced: false } => {
                if self.clock == ClockSince::RanOn {
                    self.clock = ClockSince::Jumped;
                }
            }
        }
    }

    /// What comes next is of another source.
    pub(super) fn see_seam(&mut self) {
        self.is_seam = true;
    }

    /// Here is the next place to start, with its time if it carries one. Tells whether the stream has jumped since the place
    /// before: in time, to another source, or to other elementary streams.
    pub(super) fn jumps_at(&mut self, time: Option<u64>, tables: &PsiCache) -> bool {
        let clock = std::mem::take(&mut self.clock);
        let is_seam = std::mem::take(&mut self.is_seam);
        let streams = streams_of(tables);
        let streams_before = std::mem::replace(&mut self.streams, streams);
        let has_other_streams = streams_before != 0 && streams_before != streams;
        let has_jumped_in_time = match (self.time, time) {
            (Some(before), Some(time)) => {
                let ahead = time.wrapping_sub(before) % CYCLE;
                let goes_on = ahead <= self.ran / CLOCK_TICKS + MAX_AHEAD || ahead >= CYCLE - MAX_BACK;
                // The clock may jump a few packets before or after the time that it is of; one jump is to be told once.
                !goes_on || clock == ClockSince::JumpedAsAnnounced
            }
            _ => clock != ClockSince::RanOn,
        };
        if time.is_some() {
            (self.time, self.ran) = (time, 0);
        }
        is_seam || has_other_streams || has_jumped_in_time
    }
}

/// A hash over PIDs and types; 0 without any.
fn streams_of(tables: &PsiCache) -> u64 {
    let mut bytes = tables.streams().flat_map(|stream| {
        let [high, low] = stream.pid.get().to_be_bytes();
        [high, low, stream.stream_type]
    });
    bytes.next().map_or(0, |first| fnv64(iter::once(first).chain(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ts::fixture::tables;
    use crate::ts::packet::Pid;

    const SECOND: u64 = 90_000;
    const HERTZ: u64 = 27_000_000;

    /// A stream with a picture each second that has run for a while, a second before the wrap of its times.
    fn timeline(tables: &PsiCache) -> Timeline {
        let mut timeline = Timeline::default();
        for second in 1..5 {
            timeline.see_clock(ClockStep::On(HERTZ));
            assert!(!timeline.jumps_at(Some(CYCLE - (6 - second) * SECOND), tables));
        }
        timeline.see_clock(ClockStep::On(HERTZ));
        timeline
    }

    #[test]
    fn what_goes_on_is_no_jump() {
        let tables = tables(&[(0x1B, Pid::new(0x100))]);
        assert!(!timeline(&tables).jumps_at(Some(CYCLE - SECOND), &tables));
        assert!(!timeline(&tables).jumps_at(Some(SECOND / 2), &tables), "over the wrap");
        assert!(!timeline(&tables).jumps_at(Some(CYCLE - 2 * SECOND - SECOND / 4), &tables), "reordered");
        assert!(!timeline(&tables).jumps_at(None, &tables));
        let mut still_picture = timeline(&tables);
        still_picture.see_clock(ClockStep::On(29 * HERTZ));
        assert!(!still_picture.jumps_at(Some(28 * SECOND), &tables), "the clock ran as far");
    }

    #[test]
    fn a_jump_is_told_once_whichever_comes_first() {
        let tables = tables(&[(0x1B, Pid::new(0x100))]);
        let jump = ClockStep::Jump { is_announced: false };
        for time in [30 * SECOND, CYCLE - 40 * SECOND] {
            let mut time_first = timeline(&tables);
            assert!(time_first.jumps_at(Some(time), &tables));
            time_first.see_clock(jump);
            assert!(!time_first.jumps_at(Some(time + SECOND), &tables));
            let mut clock_first = timeline(&tables);
            clock_first.see_clock(jump);
            assert!(!clock_first.jumps_at(Some(CYCLE - SECOND), &tables), "a last picture of the old time");
            assert!(clock_first.jumps_at(Some(time), &tables));
            assert!(!clock_first.jumps_at(Some(time + SECOND), &tables));
        }
    }

    #[test]
    fn without_times_the_clock_decides() {
        let tables = tables(&[(0x1B, Pid::new(0x100))]);
        let mut timeline = Timeline::default();
        timeline.see_clock(ClockStep::First);
        assert!(!timeline.jumps_at(None, &tables));
        timeline.see_clock(ClockStep::Jump { is_announced: false });
        timeline.see_clock(ClockStep::On(1));
        assert!(timeline.jumps_at(None, &tables));
        assert!(!timeline.jumps_at(None, &tables));
    }

    #[test]
    fn what_is_announced_a_seam_and_other_streams_are_jumps() {
        let one = tables(&[(0x1B, Pid::new(0x100))]);
        let mut announced = timeline(&one);
        announced.see_clock(ClockStep::Jump { is_announced: true });
        assert!(announced.jumps_at(Some(CYCLE - SECOND), &one), "however small");
        let mut seam = timeline(&one);
        seam.see_seam();
        assert!(seam.jumps_at(Some(CYCLE - SECOND), &one));
        for other in [tables(&[(0x1B, Pid::new(0x101))]), tables(&[(0x24, Pid::new(0x100))])] {
            assert!(timeline(&one).jumps_at(Some(CYCLE - SECOND), &other));
        }
        let mut late_tables = timeline(&PsiCache::new());
        assert!(!late_tables.jumps_at(Some(CYCLE - SECOND), &one), "they are the first ones");
    }
}

//! Reckoning with programme clock references (ISO/IEC 13818-1 clause 2.4.2.1).
//!
//! A clock counts 27,000,000 ticks a second and begins anew after 26.5 hours, so two references alone do not
//! say which came first: the shorter way round is believed only where a caller sets the limit.

use std::time::Duration;

use super::packet::{PACKET_BYTES, Packet, Pid};

/// Ticks a second (equation 2-1).
pub const HERTZ: u64 = 27_000_000;

/// Ticks after which a PCR is 0 again: a base of 33 bits at a 300th of the frequency.
const CYCLE: u64 = (1 << 33) * 300;

/// How far back a source may begin again and be believed to repeat what was published: the live buffer an
/// engine replays is shorter.
const MAX_REPLAY: Duration = Duration::from_secs(60);

/// The longest step from one PCR to the next that is believed. The standard wants one every 0.1 s (clause
/// 2.7.2); what lies further apart is a jump of the clock.
const MAX_STEP: u64 = HERTZ;

/// Ticks from one PCR to a later one, 0 to a whole cycle.
#[must_use]
pub const fn ticks_between(earlier: u64, later: u64) -> u64 {
    (later % CYCLE + CYCLE - earlier % CYCLE) % CYCLE
}

/// How far `new` lies behind the last PCR published, `None` if it lies ahead of it or more than 60 s behind.
#[must_use]
pub fn pcr_behind(published: u64, new: u64) -> Option<Duration> {
    Some(duration(ticks_between(new, published))).filter(|behind| *behind <= MAX_REPLAY)
}

/// Measures a stream by the PCRs of one PID.
#[derive(Debug)]
pub struct Clock {
    pid: Pid,
    /// The last PCR and the number of its packet.
    last: Option<(u64, u64)>,
    ticks: u64,
    packets: u64,
}

impl Clock {
    /// The clock that this PID carries.
    #[must_use]
    pub const fn new(pid: Pid) -> Self {
        Self { pid, last: None, ticks: 0, packets: 0 }
    }

    /// Whose PCRs count.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Looks at the next packet; `number` is its number in the stream.
    pub fn observe(&mut self, number: u64, packet: &Packet<'_>) {
        if packet.pid() != self.pid || packet.has_error() {
            return;
        }
        // Between an indicator and the next PCR the clock may jump (clause 2.4.3.5).
        if packet.discontinuity() {
            self.last = None;
        }
        let Some(pcr) = packet.pcr() else { return };
        if let Some((last, last_number)) = self.last.replace((pcr, number)) {
            let step = ticks_between(last, pcr);
            if step <= MAX_STEP {
                self.ticks += step;
                self.packets += number.saturating_sub(last_number);
            }
        }
    }

    /// The last PCR, in ticks; `None` before the first one, and between a discontinuity and the next one.
    #[must_use]
    pub fn pcr(&self) -> Option<u64> {
        self.last.map(|(pcr, _)| pcr)
    }

    /// Time that passed on this clock, jumps left out.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        duration(self.ticks)
    }

    /// Bits a second over all packets of the stream, jumps left out. `None` before two PCRs.
    #[must_use]
    pub fn bits_per_second(&self) -> Option<u64> {
        let bits = u128::from(self.packets) * PACKET_BYTES as u128 * 8;
        let rate = (bits * u128::from(HERTZ)).checked_div(u128::from(self.ticks))?;
        u64::try_from(rate).ok()
    }
}

fn duration(ticks: u64) -> Duration {
    // A tick is 1000/27 ns.
    Duration::from_secs(ticks / HERTZ) + Duration::from_nanos(ticks % HERTZ * 1000 / 27)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Build;
    use super::*;

    const PID: Pid = Pid::new(0x0100);

    #[test]
    fn ticks_are_counted_over_the_wrap() {
        assert_eq!(ticks_between(5, 5), 0);
        assert_eq!(ticks_between(5, 9), 4);
        assert_eq!(ticks_between(CYCLE - 3, 4), 7);
        assert_eq!(ticks_between(4, CYCLE - 3), CYCLE - 7);
        // The extension can say up to 511, so a PCR that was read may lie beyond the cycle.
        assert_eq!(ticks_between(CYCLE + 211, 212), 1);
        assert_eq!(ticks_between(u64::MAX, u64::MAX), 0);
    }

    #[test]
    fn a_new_pcr_is_behind_only_up_to_a_minute() {
        let minute = 60 * HERTZ;
        let behind = |published: u64, new: u64| pcr_behind(published % CYCLE, new % CYCLE);
        for published in [minute, 7 * minute, CYCLE + minute / 2] {
            assert_eq!(behind(published, published), Some(Duration::ZERO));
            assert_eq!(behind(published, published - minute / 2), Some(Duration::from_secs(30)));
            assert_eq!(behind(published, published - minute), Some(Duration::from_secs(60)));
            assert_eq!(behind(published, published + CYCLE - minute - 27), None);
            assert_eq!(behind(published, published + 1), None);
            assert_eq!(behind(published, published + CYCLE / 2), None);
        }
    }

    /// A clock that saw these PCRs, ten packets apart.
    fn clock(pcrs: &[u64]) -> Clock {
        let mut clock = Clock::new(PID);
        for (index, &pcr) in pcrs.iter().enumerate() {
            clock.observe(10 * index as u64, &Packet::new(&Build::new(PID, 0).pcr(pcr).payload(&[])));
        }
        clock
    }

    #[test]
    fn time_and_rate_come_from_the_steps_between_pcrs() {
        let tenth = HERTZ / 10;
        let steady = clock(&[CYCLE - tenth, 0, tenth, 2 * tenth]);
        assert_eq!(steady.pcr(), Some(2 * tenth));
        assert_eq!(steady.elapsed(), Duration::from_millis(300));
        assert_eq!(steady.bits_per_second(), Some(30 * 188 * 8 * 10 / 3));
        assert_eq!(clock(&[7]).bits_per_second(), None);
        assert_eq!(clock(&[7, 7]).bits_per_second(), None);
    }

    #[test]
    fn jumps_count_neither_time_nor_packets() {
        let tenth = HERTZ / 10;
        let jumping = clock(&[0, tenth, 90 * HERTZ, 90 * HERTZ + tenth, 0, tenth]);
        assert_eq!(jumping.elapsed(), Duration::from_millis(300));
        assert_eq!(jumping.bits_per_second(), Some(30 * 188 * 8 * 10 / 3));

        let mut announced = clock(&[0, tenth]);
        let indicator = Build::new(PID, 0).discontinuity();
        announced.observe(11, &Packet::new(&indicator.payload(&[])));
        assert_eq!(announced.pcr(), None);
        announced.observe(12, &Packet::new(&indicator.pcr(2 * tenth).payload(&[])));
        assert_eq!((announced.pcr(), announced.elapsed()), (Some(2 * tenth), Duration::from_millis(100)));
    }

    #[test]
    fn other_pids_and_broken_packets_do_not_count() {
        let mut clock = clock(&[0]);
        let other = Build::new(Pid::new(0x0101), 0).pcr(1).payload(&[]);
        clock.observe(1, &Packet::new(&other));
        let mut broken = Build::new(PID, 0).pcr(1).payload(&[]);
        broken[1] |= 0x80;
        clock.observe(1, &Packet::new(&broken));
        assert_eq!((clock.pcr(), clock.elapsed()), (Some(0), Duration::ZERO));
    }
}

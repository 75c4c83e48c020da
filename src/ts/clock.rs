//! Reckoning with programme clock references (ISO/IEC 13818-1 clause 2.4.2.1).
//!
//! A clock counts 27,000,000 ticks a second and begins anew after 26.5 hours, so two references alone do not
//! say which came first: the shorter way round is believed only where a caller sets the limit.

use std::time::Duration;

use super::packet::{PACKET_BYTES, Packet, Pid};

/// Ticks a second (equation 2-1).
const HERTZ: u64 = 27_000_000;

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

//! Reckoning with programme clock references (ISO/IEC 13818-1 clause 2.4.2.1).
//!
//! A clock counts 27,000,000 ticks a second and begins anew after 26.5 hours, so two references alone do not
//! say which came first: the shorter way round is believed only where a caller sets the limit.

use std::time::Duration;

/// Ticks a second (equation 2-1).
pub const HERTZ: u64 = 27_000_000;

/// Ticks after which a PCR is 0 again: a base of 33 bits at a 300th of the frequency.
const CYCLE: u64 = (1 << 33) * 300;

/// How far back a source may begin again and be believed to repeat what was published: the live buffer an
/// engine replays is shorter.
const MAX_REPLAY: Duration = Duration::from_secs(60);

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

fn duration(ticks: u64) -> Duration {
    // A tick is 1000/27 ns.
    Duration::from_secs(ticks / HERTZ) + Duration::from_nanos(ticks % HERTZ * 1000 / 27)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

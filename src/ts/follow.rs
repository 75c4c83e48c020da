//! Which clock a stream is measured by, and what its next reference says (ISO/IEC 13818-1 clause 2.4.2.2).
//!
//! A multiplex carries one clock a programme, and a broadcaster may move a clock to another PID. The PMT says which PID it
//! is; a stream without such a table is measured by the first PID that has a clock. Packets and tables in, references out.

use super::clock::{HERTZ, ticks_between};
use super::packet::{Packet, Pid};
use super::psi::PsiCache;

/// The longest step from one reference to the next that is believed. The standard wants one every 0.1 s (clause 2.7.2);
/// what lies further apart is a jump of the clock.
const MAX_STEP: u64 = HERTZ;

/// The same where the stream itself has announced a jump: then only what cannot be told from going on counts as going on.
const MAX_ANNOUNCED_STEP: u64 = HERTZ / 5;

/// A reference of the clock that is followed, and the PID it came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReference {
    /// The PID that carries the clock.
    pub pid: Pid,
    /// The programme clock reference, in 27 MHz ticks.
    pub pcr: u64,
}

/// How a clock went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// There was no reference before this one, or the clock moved to another PID and nothing can be said.
    First,
    /// By so many 27 MHz ticks, as it should.
    On(u64),
    /// Not from where it was: forward by more than a second, or back.
    Jump {
        /// The stream itself said that it would (`discontinuity_indicator`, clause 2.4.3.5); then a smaller step counts too.
        is_announced: bool,
    },
}

/// Follows the clock of a stream.
#[derive(Debug, Default)]
pub struct ClockFollower {
    /// The PID that counts wherever it has a clock, whatever the tables say.
    preferred: Option<Pid>,
    last: Option<ClockReference>,
    /// The discontinuity indicator was set on the clock's PID since its last reference (clause 2.4.3.5).
    is_announced: bool,
}

impl ClockFollower {
    /// Follows the clock on this PID if there is one, so that two sources are compared by the same clock.
    #[must_use]
    pub fn preferring(pid: Option<Pid>) -> Self {
        Self { preferred: pid, ..Self::default() }
    }

    /// Looks at the next packet. Tells how the clock went on if it carries a reference of it; [`ClockFollower::last`] is
    /// that reference then.
    pub fn observe(&mut self, packet: &Packet<'_>, tables: &PsiCache) -> Option<ClockStep> {
        if !packet.has_adaptation_field() {
            return None;
        }
        let pid = packet.pid();
        let followed = self.last.map(|last| last.pid);
        if followed == Some(pid) && packet.discontinuity() {
            self.is_announced = true;
        }
        let pcr = packet.pcr().filter(|_| !packet.has_error())?;
        let counts = followed.is_none_or(|followed| followed == pid || self.is_better(pid, followed, tables));
        if !counts {
            return None;
        }
        let last = self.last.replace(ClockReference { pid, pcr });
        let is_announced = std::mem::take(&mut self.is_announced);
        let max_step = if is_announced { MAX_ANNOUNCED_STEP } else { MAX_STEP };
        Some(match last.filter(|last| last.pid == pid).map(|last| ticks_between(last.pcr, pcr)) {
            None => ClockStep::First,
            Some(step) if step <= max_step => ClockStep::On(step),
            Some(_) => ClockStep::Jump { is_announced },
        })
    }

    fn is_better(&self, pid: Pid, followed: Pid, tables: &PsiCache) -> bool {
        if self.preferred == Some(followed) {
            return false;
        }
        self.preferred == Some(pid) || tables.clock_pid() == Some(pid)
    }

    /// The last reference.
    #[must_use]
    pub fn last(&self) -> Option<ClockReference> {
        self.last
    }

    /// Forgets what came, as after a gap in the stream.
    pub fn clear(&mut self) {
        *self = Self::preferring(self.preferred);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Build, packetise, pat, pmt};
    use super::super::packet::packets;
    use super::*;

    const ONE: Pid = Pid::new(0x0100);
    const OTHER: Pid = Pid::new(0x0200);
    const TENTH: u64 = HERTZ / 10;

    fn reference(pid: Pid, pcr: u64) -> [u8; 188] {
        Build::new(pid, 0).pcr(pcr).payload(&[])
    }

    fn observe(follower: &mut ClockFollower, tables: &PsiCache, bytes: &[u8]) -> Vec<Option<ClockStep>> {
        packets(bytes).map(|packet| follower.observe(&packet, tables)).collect()
    }

    fn tables(bytes: &[u8]) -> PsiCache {
        let mut tables = PsiCache::new();
        packets(bytes).for_each(|packet| {
            tables.observe(&packet);
        });
        tables
    }

    /// Two programmes: radio with its clock on one PID, television with its clock on the other.
    fn two_programmes() -> Vec<u8> {
        let [radio, television] = [Pid::new(0x1000), Pid::new(0x1001)];
        [
            packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(1, radio), (2, television)])]),
            packetise(radio, 0, &[pmt(1, 0, ONE, &[(0x0F, ONE)], 0)]),
            packetise(television, 0, &[pmt(2, 0, OTHER, &[(0x1B, OTHER)], 0)]),
        ]
        .concat()
    }

    use ClockStep::{First, On};

    const JUMP: ClockStep = ClockStep::Jump { is_announced: false };
    const ANNOUNCED: ClockStep = ClockStep::Jump { is_announced: true };

    #[test]
    fn the_clock_is_that_of_the_first_programme_with_video() {
        let tables = tables(&two_programmes());
        let mut follower = ClockFollower::default();
        let stream = [reference(ONE, 5), reference(OTHER, 77), reference(ONE, 9), reference(OTHER, 80)];
        let steps = observe(&mut follower, &tables, &stream.concat());
        assert_eq!(steps, [Some(First), Some(First), None, Some(On(3))], "at first whichever comes");
        assert_eq!(follower.last(), Some(ClockReference { pid: OTHER, pcr: 80 }));
        let none = PsiCache::new();
        follower.clear();
        let steps = observe(&mut follower, &none, &stream.concat());
        assert_eq!(steps, [Some(First), None, Some(On(4)), None], "without tables the first that has one");
    }

    #[test]
    fn a_clock_that_is_preferred_is_followed_whatever_the_tables_say() {
        let tables = tables(&two_programmes());
        let mut follower = ClockFollower::preferring(Some(ONE));
        let stream = [reference(OTHER, 77), reference(ONE, 5), reference(OTHER, 80), reference(ONE, 6)];
        let steps = observe(&mut follower, &tables, &stream.concat());
        assert_eq!(steps, [Some(First), Some(First), None, Some(On(1))]);
        let mut follower = ClockFollower::preferring(Some(Pid::new(0x0300)));
        let steps = observe(&mut follower, &tables, &stream.concat());
        assert_eq!(steps, [Some(First), None, Some(On(3)), None], "it is not there");
    }

    #[test]
    fn a_jump_is_told_from_going_on() {
        let none = PsiCache::new();
        let mut follower = ClockFollower::default();
        let mut step = |bytes: [u8; 188]| observe(&mut follower, &none, &bytes)[0];
        assert_eq!(step(reference(ONE, 50 * HERTZ)), Some(First));
        assert_eq!(step(reference(ONE, 50 * HERTZ + TENTH)), Some(On(TENTH)));
        assert_eq!(step(reference(ONE, 50 * HERTZ)), Some(JUMP), "back");
        assert_eq!(step(reference(ONE, 52 * HERTZ)), Some(JUMP), "far ahead");
        assert_eq!(step(reference(ONE, 52 * HERTZ + 5 * TENTH)), Some(On(5 * TENTH)));
        let announced = |pcr| Build::new(ONE, 0).discontinuity().pcr(pcr).payload(&[]);
        assert_eq!(step(announced(52 * HERTZ + 6 * TENTH)), Some(On(TENTH)), "announced in vain");
        assert_eq!(step(announced(53 * HERTZ + TENTH)), Some(ANNOUNCED));
        assert_eq!(step(Build::new(ONE, 0).discontinuity().payload(&[])), None);
        assert_eq!(
            step(reference(ONE, 53 * HERTZ + 6 * TENTH)),
            Some(ANNOUNCED),
            "announced by a packet before"
        );
    }
}

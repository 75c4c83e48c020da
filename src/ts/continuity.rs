//! The packets that announce a jump of the continuity counter (ISO/IEC 13818-1 clauses 2.4.3.3 and 2.4.3.5).
//!
//! A packet of nothing but an adaptation field does not advance the counter. With the discontinuity indicator
//! in it, its own counter may be any; with the counter that came last before the jump's target, the target fits
//! by itself. Such packets are made for PIDs that carry PES packets or a PCR, never for tables: there the
//! indicator would announce a jump of the version number.

use super::packet::{PACKET_BYTES, Packet, Pid, SYNC_BYTE};
use super::pes::starts_pes;
use super::pmt::StreamKind;
use super::psi::PsiCache;

/// PIDs that are followed; the rest is left to the decoder. An AceStream channel has two to ten, a whole
/// satellite multiplex about 100, of which a decoder uses a few.
const MAX_PIDS: usize = 64;

/// What a PID is to [`Continuity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// It carries tables, or what it carries is not known yet, or there are too many.
    Ignored,
    /// It carries PES packets or a PCR, and this is its first packet.
    First,
    /// It was seen before.
    Known,
}

/// Remembers the last continuity counter of each PID that carries PES packets or a PCR.
#[derive(Debug, Default)]
pub struct Continuity {
    /// In the order they appeared.
    counters: Vec<(Pid, u8)>,
}

impl Continuity {
    /// Knows of no PID.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the next packet; `tables` has seen it already.
    pub fn observe(&mut self, packet: &Packet<'_>, tables: &PsiCache) -> Sighting {
        let pid = packet.pid();
        let at = self.counters.iter().position(|(of, _)| *of == pid);
        // A PID may become that of a PMT, and the first packet of that starts a section.
        if let Some(at) = at.filter(|_| packet.starts_unit() && tables.is_table(pid)) {
            self.counters.remove(at);
            return Sighting::Ignored;
        }
        if packet.has_error() {
            return Sighting::Ignored;
        }
        if let Some(at) = at {
            self.counters[at].1 = packet.continuity();
            return Sighting::Known;
        }
        if self.counters.len() == MAX_PIDS || !carries_media(packet, tables) {
            return Sighting::Ignored;
        }
        self.counters.push((pid, packet.continuity()));
        Sighting::First
    }

    /// For each PID a packet with the discontinuity indicator and the last counter, so that the PID's next
    /// packet follows it without a gap. Empty while no PID is known.
    ///
    /// To go in front of a packet, they are taken before [`observe`](Self::observe) has seen that packet.
    #[must_use]
    pub fn indicators(&self) -> Vec<u8> {
        self.counters.iter().flat_map(|&(pid, counter)| indicator(pid, counter)).collect()
    }

    /// Forgets all PIDs, as after a gap in the stream.
    pub fn clear(&mut self) {
        self.counters.clear();
    }
}

/// A packet with the discontinuity indicator that `packet` follows without a gap, to place before a PID's
/// first packet after the source was replaced.
#[must_use]
pub fn indicator_before(packet: &Packet<'_>) -> [u8; PACKET_BYTES] {
    let advance = u8::from(packet.has_payload());
    indicator(packet.pid(), packet.continuity().wrapping_sub(advance) & 0x0F)
}

/// A packet of an adaptation field alone: `adaptation_field_control` `10`, 183 bytes long as it must be
/// without a payload (clause 2.4.3.5), `discontinuity_indicator`, stuffing.
fn indicator(pid: Pid, counter: u8) -> [u8; PACKET_BYTES] {
    let [pid_high, pid_low] = pid.get().to_be_bytes();
    let mut packet = [0xFF; PACKET_BYTES];
    packet[..6].copy_from_slice(&[SYNC_BYTE, pid_high, pid_low, 0x20 | counter, 183, 0x80]);
    packet
}

/// Whether the packet's PID carries PES packets or a PCR: it shows, or the tables say so.
fn carries_media(packet: &Packet<'_>, tables: &PsiCache) -> bool {
    let pid = packet.pid();
    if pid == Pid::NULL || tables.is_table(pid) {
        return false;
    }
    let is_listed =
        || tables.streams().any(|stream| stream.pid == pid && stream.kind() != StreamKind::Sections);
    packet.pcr().is_some() || is_listed() || !packet.is_scrambled() && starts_pes(packet)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{Build, packetise, pat, pmt, tables};
    use super::super::packet::packets;
    use super::*;

    const VIDEO: Pid = Pid::new(0x0100);
    const AUDIO: Pid = Pid::new(0x0101);
    const SPLICES: Pid = Pid::new(0x0102);
    const UNLISTED: Pid = Pid::new(0x0110);

    fn plain(pid: Pid, counter: usize) -> [u8; PACKET_BYTES] {
        Build::new(pid, counter).payload(&[0xAA; 184])
    }

    fn observe(continuity: &mut Continuity, tables: &PsiCache, bytes: &[u8]) -> Vec<Sighting> {
        packets(bytes).map(|packet| continuity.observe(&packet, tables)).collect()
    }

    /// PID and counter of indicators, each of which must be one.
    fn read(indicators: &[u8]) -> Vec<(Pid, u8)> {
        let read = |packet: Packet<'_>| {
            let bytes = packet.bytes();
            assert_eq!((bytes[0], bytes[1] & 0xE0, bytes[3] & 0xF0), (0x47, 0, 0x20));
            assert_eq!((bytes[4], bytes[5]), (183, 0x80));
            assert!(bytes[6..].iter().all(|&byte| byte == 0xFF));
            assert!(packet.discontinuity() && packet.payload().is_none() && packet.pcr().is_none());
            (packet.pid(), packet.continuity())
        };
        assert_eq!(indicators.len() % PACKET_BYTES, 0);
        packets(indicators).map(read).collect()
    }

    #[test]
    fn each_listed_pid_gets_its_last_counter() {
        let tables = tables(&[(0x1B, VIDEO), (0x0F, AUDIO), (0x86, SPLICES)]);
        let mut continuity = Continuity::new();
        let stream = [
            plain(VIDEO, 14),
            plain(AUDIO, 3),
            plain(SPLICES, 5),
            plain(VIDEO, 15),
            Build::new(VIDEO, 15).payload(&[]),
            plain(VIDEO, 16),
        ];
        use Sighting::{First, Ignored, Known};
        assert_eq!(
            observe(&mut continuity, &tables, &stream.concat()),
            [First, First, Ignored, Known, Known, Known]
        );
        assert_eq!(read(&continuity.indicators()), [(VIDEO, 0), (AUDIO, 3)]);
        continuity.clear();
        assert!(continuity.indicators().is_empty());
    }

    #[test]
    fn an_unlisted_pid_counts_once_it_shows_a_pes_packet_or_a_clock() {
        let tables = tables(&[]);
        let mut continuity = Continuity::new();
        let clock = Build::new(AUDIO, 7).pcr(1).payload(&[]);
        let pes = Build::new(UNLISTED, 2).pes(0xE0, &[0xAA; 170]);
        let section = Build::new(SPLICES, 4).starts_unit().payload(&[0, 0xFC, 0x30, 0x11]);
        let scrambled = Build::new(VIDEO, 4).starts_unit().scrambled().payload(&[0, 0, 1, 0xE0]);
        let stream = [&plain(UNLISTED, 1)[..], &pes, &clock, &section, &scrambled, &plain(UNLISTED, 3)];
        observe(&mut continuity, &tables, &stream.concat());
        assert_eq!(read(&continuity.indicators()), [(UNLISTED, 3), (AUDIO, 7)]);
    }

    #[test]
    fn tables_and_null_packets_never_count() {
        let tables = tables(&[(0x1B, VIDEO)]);
        let mut continuity = Continuity::new();
        for pid in (0..0x20).chain([0x1000, 0x1FFF]).map(Pid::new) {
            let stream = [Build::new(pid, 0).pes(0xE0, &[0; 170]), Build::new(pid, 1).pcr(5).pes(0xE0, &[0])];
            assert_eq!(observe(&mut continuity, &tables, &stream.concat()), [Sighting::Ignored; 2]);
        }
        assert!(continuity.indicators().is_empty());
    }

    #[test]
    fn a_packet_known_to_be_broken_does_not_count() {
        let tables = tables(&[(0x1B, VIDEO)]);
        let mut continuity = Continuity::new();
        let mut broken = plain(VIDEO, 9);
        broken[1] |= 0x80;
        observe(&mut continuity, &tables, &[plain(VIDEO, 1), broken].concat());
        assert_eq!(read(&continuity.indicators()), [(VIDEO, 1)]);
    }

    #[test]
    fn a_pid_that_becomes_a_tables_is_forgotten() {
        let mut tables = tables(&[(0x1B, VIDEO), (0x0F, AUDIO)]);
        let mut continuity = Continuity::new();
        observe(&mut continuity, &tables, &[plain(VIDEO, 1), plain(AUDIO, 1)].concat());
        let moved = [
            packetise(Pid::PAT, 1, &[pat(1, (0, 0), &[(1, AUDIO)])]),
            packetise(AUDIO, 2, &[pmt(1, 1, VIDEO, &[(0x1B, VIDEO)], 0)]),
        ];
        for packet in packets(&moved.concat()) {
            tables.observe(&packet);
            continuity.observe(&packet, &tables);
        }
        assert_eq!(read(&continuity.indicators()), [(VIDEO, 1)]);
    }

    #[test]
    fn a_packet_follows_the_indicator_before_it() {
        for (counter, before) in [(0, 15), (1, 0), (9, 8), (15, 14)] {
            assert_eq!(read(&indicator_before(&Packet::new(&plain(AUDIO, counter)))), [(AUDIO, before)]);
            let clock = Build::new(VIDEO, counter).pcr(1).payload(&[]);
            assert_eq!(read(&indicator_before(&Packet::new(&clock))), [(VIDEO, counter as u8)]);
        }
    }

    proptest! {
        #[test]
        fn no_garbage_makes_it_grow_or_announce_a_table(
            heads in prop::collection::vec(prop::array::uniform12(any::<u8>()), 0..400),
        ) {
            let mut tables = PsiCache::new();
            let mut continuity = Continuity::new();
            for head in heads {
                let mut bytes = [0xFF; PACKET_BYTES];
                bytes[..12].copy_from_slice(&head);
                // Often a PCR, that many PIDs count.
                bytes[3..6].copy_from_slice(&[0x20 | head[3], 183, 0x10 | head[5]]);
                let packet = Packet::new(&bytes);
                tables.observe(&packet);
                continuity.observe(&packet, &tables);
                prop_assert!(continuity.counters.len() <= MAX_PIDS);
                let _ = indicator_before(&packet);
            }
            for (pid, _) in read(&continuity.indicators()) {
                prop_assert!(!tables.is_table(pid) && pid != Pid::NULL);
            }
        }
    }
}

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

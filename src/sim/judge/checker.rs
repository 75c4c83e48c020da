//! Judges a numbered stream as it arrives: sync, continuity counters, PSI, order, and time under way.
//!
//! It takes slices of any length and keeps only what it needs to go on, so that a thousand of them can run.
//! It does not parse with the proxy's own parser.

use std::collections::HashMap;

use super::super::media::numbered::{MAP_PID, now_us, read_trailer};
use super::super::media::packet::{self, NULL_PID, PACKET_BYTES, Packet, SYNC};
use super::latency::Latency;

/// A gap list longer than this says nothing more; the sum goes on.
const MAX_GAPS: usize = 64;
/// Three sync bytes in a row are taken as found: false ones cannot come from a numbered stream's filling.
const SYNC_WINDOW_BYTES: usize = 2 * PACKET_BYTES + 1;

/// Packets missing between two that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number before the gap.
    pub after: u64,
    /// How many are missing.
    pub missing: u64,
}

/// What a [`Checker`] has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// All bytes fed.
    pub bytes: u64,
    /// Whole packets, of any PID.
    pub packets: u64,
    /// Good numbered packets of the expected tag.
    pub numbered: u64,
    /// The first number that came.
    pub first: Option<u64>,
    /// The highest number that came.
    pub last: Option<u64>,
    /// Where numbers are missing: the first 64 places.
    pub gaps: Vec<Gap>,
    /// How many gaps there are.
    pub gap_count: u64,
    /// How many numbers are missing in all.
    pub missing: u64,
    /// Packets whose number was not above every one before: repeated or out of order.
    pub doubles: u64,
    /// How often the broadcaster has begun anew, with another clock and other counters: numbers go on over it, so that
    /// gaps and doubles are told as ever, and the counters that do not follow are in `discontinuities`.
    pub restarts: u64,
    /// The numbers that the broadcaster began anew with, as far as they came: the first 64.
    pub restarted_at: Vec<u64>,
    /// Packets of a numbered stream with another tag.
    pub foreign: u64,
    /// Packets that are none of a numbered stream, or are hurt.
    pub damaged: u64,
    /// Null packets.
    pub null_packets: u64,
    /// Packets with an adaptation field only.
    pub adaptation_only: u64,
    /// PAT and PMT packets.
    pub psi_packets: u64,
    /// PAT and PMT packets with a wrong length or checksum.
    pub psi_damaged: u64,
    /// Continuity counters that do not follow.
    pub discontinuities: u64,
    /// Breaks that a discontinuity indicator announced.
    pub announced_breaks: u64,
    /// Starts of PES packets with the random access indicator.
    pub key_frames: u64,
    /// The first packet of the stream's PID was one of those.
    pub begins_with_key_frame: bool,
    /// How often the sync byte was not where it must be.
    pub sync_losses: u64,
    /// Bytes thrown away to find it, at the start too.
    pub skipped_bytes: u64,
    /// Bytes of an unfinished packet at the end ([`Checker::finish`]).
    pub partial_bytes: u64,
    /// From sending by the simulated engine to [`Checker::feed`].
    pub latency: Latency,
}

impl Report {
    /// Whether everything came, once and whole, from the first packet to the last.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        let faults = [
            self.gap_count,
            self.doubles,
            self.foreign,
            self.damaged,
            self.psi_damaged,
            self.discontinuities,
            self.announced_breaks,
            self.sync_losses,
            self.skipped_bytes,
            self.partial_bytes,
        ];
        self.numbered > 0 && faults.iter().all(|count| *count == 0)
    }
}

/// Reads a numbered stream in slices of any size.
#[derive(Debug, Default)]
pub struct Checker {
    report: Report,
    tag: Option<u32>,
    /// The start of a packet whose end is still to come; while out of sync, what may hold the next sync.
    carry: Vec<u8>,
    is_synced: bool,
    /// The run of the broadcaster that the stream is in, the latest seen.
    run: Option<u64>,
    counters: HashMap<u16, u8>,
}

impl Checker {
    /// A checker that takes the first tag it sees for the right one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A checker for the stream of this tag.
    #[must_use]
    pub fn expecting(tag: u32) -> Self {
        Self { tag: Some(tag), ..Self::default() }
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.feed_at(bytes, now_us());
    }

    /// Takes the next bytes, as come at this time of [`now_us`].
    pub fn feed_at(&mut self, mut bytes: &[u8], now_us: u64) {
        self.report.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.is_synced && self.carry.is_empty() {
                let (packets, rest) = bytes.as_chunks::<PACKET_BYTES>();
                let lost_at = packets.iter().position(|packet| packet[0] != SYNC);
                let good = lost_at.unwrap_or(packets.len());
                packets[..good].iter().for_each(|packet| self.judge(packet, now_us));
                let after = &bytes[good * PACKET_BYTES..];
                if lost_at.is_some() {
                    self.lose_sync();
                    bytes = after;
                    continue;
                }
                self.carry.extend_from_slice(rest);
                return;
            }
            let wanted = if self.is_synced { PACKET_BYTES } else { SYNC_WINDOW_BYTES };
            let take = bytes.len().min(wanted - self.carry.len());
            self.carry.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.carry.len() == wanted {
                self.settle(now_us);
            }
        }
    }

    /// Judges what the full carry holds: a packet, or a place where sync may be.
    fn settle(&mut self, now_us: u64) {
        if !self.is_synced {
            let has_sync = |at: usize| self.carry.get(at).is_none_or(|byte| *byte == SYNC);
            let found = (0..self.carry.len())
                .find(|at| has_sync(*at) && has_sync(at + PACKET_BYTES) && has_sync(at + 2 * PACKET_BYTES))
                .unwrap_or(self.carry.len());
            self.report.skipped_bytes += found as u64;
            self.carry.drain(..found);
            // Only a full window with all three sync bytes will do.
            self.is_synced = found == 0;
            if !self.is_synced {
                return;
            }
        }
        let carry = std::mem::take(&mut self.carry);
        let (packets, rest) = carry.as_chunks::<PACKET_BYTES>();
        for packet in packets {
            if packet[0] != SYNC {
                self.lose_sync();
                self.carry.extend_from_slice(packet);
                return;
            }
            self.judge(packet, now_us);
        }
        self.carry.extend_from_slice(rest);
    }

    fn lose_sync(&mut self) {
        self.is_synced = false;
        self.report.sync_losses += 1;
    }

    /// Ends the stream and gives the report.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let rest = std::mem::take(&mut self.carry);
        let mut at = 0;
        if !self.is_synced {
            let has_sync = |at: usize| rest.get(at).is_none_or(|byte| *byte == SYNC);
            at =
                (0..rest.len()).find(|at| has_sync(*at) && has_sync(at + PACKET_BYTES)).unwrap_or(rest.len());
            self.report.skipped_bytes += at as u64;
        }
        let (packets, partial) = rest[at..].as_chunks::<PACKET_BYTES>();
        let now = now_us();
        packets.iter().for_each(|packet| self.judge(packet, now));
        self.report.partial_bytes = partial.len() as u64;
        self.report
    }

    fn judge(&mut self, bytes: &Packet, now_us: u64) {
        self.report.packets += 1;
        let pid = packet::pid(bytes);
        if pid == NULL_PID {
            self.report.null_packets += 1;
            // A null packet is payload only (2.4.3.3); others are refused by strict demultiplexers.
            self.report.damaged += u64::from(bytes[3] & 0x30 != 0x10);
            return;
        }
        self.judge_counter(pid, bytes);
        if !packet::has_payload(bytes) {
            self.report.adaptation_only += 1;
        } else if pid == 0 || pid == MAP_PID {
            self.report.psi_packets += 1;
            self.report.psi_damaged += u64::from(!is_good_section(bytes));
        } else {
            self.judge_numbered(bytes, now_us);
        }
    }

    fn judge_counter(&mut self, pid: u16, bytes: &Packet) {
        let counter = bytes[3] & 0x0f;
        let last = self.counters.insert(pid, counter);
        if packet::announces_break(bytes) {
            self.report.announced_breaks += 1;
            return;
        }
        let step = u8::from(packet::has_payload(bytes));
        let follows = last.is_none_or(|last| counter == (last + step) & 0x0f);
        self.report.discontinuities += u64::from(!follows);
    }

    fn judge_numbered(&mut self, bytes: &Packet, now_us: u64) {
        let Some(trailer) = read_trailer(bytes) else {
            self.report.damaged += 1;
            return;
        };
        if *self.tag.get_or_insert(trailer.tag) != trailer.tag {
            self.report.foreign += 1;
            return;
        }
        let report = &mut self.report;
        let is_key = packet::starts_unit(bytes) && bytes[3] & 0x20 != 0 && bytes[5] & 0x40 != 0;
        report.key_frames += u64::from(is_key);
        if report.first.is_none() {
            report.begins_with_key_frame = is_key;
        }
        report.numbered += 1;
        report.first.get_or_insert(trailer.number);
        report.latency.add(now_us.saturating_sub(trailer.sent_us));
        // What is sent again from before it is no restart, nor is what follows that.
        let run = *self.run.get_or_insert(trailer.run);
        if trailer.run > run {
            self.run = Some(trailer.run);
            report.restarts += trailer.run - run;
            if report.restarted_at.len() < MAX_GAPS {
                report.restarted_at.push(trailer.number);
            }
        }
        if let Some(last) = report.last {
            if trailer.number <= last {
                report.doubles += 1;
                return;
            }
            let missing = trailer.number - last - 1;
            if missing > 0 {
                report.gap_count += 1;
                report.missing += missing;
                if report.gaps.len() < MAX_GAPS {
                    report.gaps.push(Gap { after: last, missing });
                }
            }
        }
        report.last = Some(trailer.number);
    }
}

/// Whether one whole section with a right checksum begins here.
fn is_good_section(bytes: &Packet) -> bool {
    let payload = &bytes[packet::payload_start(bytes)..];
    let Some(section) = payload.first().and_then(|pointer| payload.get(1 + usize::from(*pointer)..)) else {
        return false;
    };
    if !packet::starts_unit(bytes) || section.len() < 3 {
        return false;
    }
    let length = 3 + usize::from(u16::from_be_bytes([section[1] & 0x0f, section[2]]));
    section.get(..length).is_some_and(|whole| packet::crc32(whole) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Numbered;

    fn stream(packets: u64) -> Vec<Packet> {
        let shape = Numbered { psi_every: 40, ..Numbered::default() };
        (0..packets)
            .map(|place| {
                let mut out = [0; PACKET_BYTES];
                shape.write(place, 1000, &mut out);
                out
            })
            .collect()
    }

    fn check(bytes: &[u8], piece: usize) -> Report {
        let mut checker = Checker::expecting(0);
        bytes.chunks(piece).for_each(|piece| checker.feed_at(piece, 1500));
        checker.finish()
    }

    #[test]
    fn a_whole_stream_is_perfect_in_pieces_of_any_size() {
        let bytes = stream(1000).concat();
        for piece in [1, 7, 187, 188, 189, 376, 377, 1000, usize::MAX] {
            let report = check(&bytes, piece);
            assert!(report.is_perfect(), "pieces of {piece}: {report:?}");
            assert_eq!((report.first, report.last), (Some(0), Some(949)));
            assert_eq!((report.packets, report.numbered), (1000, 950));
            assert_eq!((report.psi_packets, report.key_frames), (50, 1));
            assert!(report.begins_with_key_frame);
            assert_eq!((report.latency.min_us, report.latency.max_us), (500, 500));
        }
    }

    #[test]
    fn a_missing_packet_is_a_gap() {
        let mut packets = stream(300);
        packets.drain(100..103);
        let report = check(&packets.concat(), 1000);
        let gap = Gap { after: 93, missing: 3 };
        assert_eq!(report.gaps, [gap]);
        assert_eq!((report.missing, report.discontinuities), (3, 1));
        assert!(!report.is_perfect());
    }

    #[test]
    fn a_packet_that_comes_again_is_a_double() {
        let mut packets = stream(300);
        packets.insert(101, packets[100]);
        let report = check(&packets.concat(), 1000);
        assert_eq!((report.doubles, report.discontinuities), (1, 1));
        assert_eq!((report.gap_count, report.missing), (0, 0));
    }

    #[test]
    fn packets_out_of_order_are_a_gap_and_a_double() {
        let mut packets = stream(300);
        packets.swap(100, 101);
        let report = check(&packets.concat(), 1000);
        assert_eq!((report.doubles, report.missing), (1, 1));
    }

    #[test]
    fn a_torn_packet_is_a_loss_of_sync_and_what_follows_is_read_again() {
        for piece in [1, 50, 188, 1000, usize::MAX] {
            let mut bytes = stream(300).concat();
            bytes.drain(100 * PACKET_BYTES + 50..100 * PACKET_BYTES + 90);
            let report = check(&bytes, piece);
            assert_eq!(report.sync_losses, 1, "pieces of {piece}: {report:?}");
            assert!(report.skipped_bytes > 0 && report.skipped_bytes < 2 * PACKET_BYTES as u64);
            assert_eq!((report.gap_count, report.last), (1, Some(283)));
        }
    }

    #[test]
    fn a_changed_bit_is_damage() {
        let mut packets = stream(100);
        packets[50][180] ^= 4;
        packets[40][8] ^= 1;
        let report = check(&packets.concat(), 1000);
        assert_eq!((report.damaged, report.psi_damaged), (1, 1));
    }

    #[test]
    fn null_packets_announced_breaks_and_other_streams_are_told_apart() {
        let mut packets = stream(100);
        let mut null = [0xff; PACKET_BYTES];
        null[..4].copy_from_slice(&[SYNC, 0x1f, 0xff, 0x10]);
        packets.insert(50, null);
        let mut announce = [0xff; PACKET_BYTES];
        announce[..6].copy_from_slice(&[SYNC, 0x01, 0x00, 0x20 | packets[70][3] & 0x0f, 183, 0x80]);
        packets.insert(71, announce);
        let mut other = [0; PACKET_BYTES];
        Numbered::default().tag(9).write(2, 0, &mut other);
        packets.insert(72, other);
        let report = check(&packets.concat(), 1000);
        assert_eq!((report.null_packets, report.announced_breaks), (1, 1));
        assert_eq!((report.adaptation_only, report.foreign), (1, 1));
        assert_eq!((report.gap_count, report.damaged), (0, 0));
    }

    #[test]
    fn a_start_in_mid_packet_is_skipped() {
        let bytes = stream(100).concat();
        let report = check(&bytes[71..], 100);
        assert_eq!((report.skipped_bytes, report.sync_losses), (117, 0));
        assert_eq!(report.packets, 99);
    }
}

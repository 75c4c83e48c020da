//! The real clip: eight seconds of H.264 and AAC (`scripts/make-clip.sh`), repeated without a seam.
//!
//! Round `k` of the clip is round 0 with `k` times its length added to every PCR, PTS and DTS, and with the
//! continuity counters of every PID counting on. So each packet is a pure function of its number since the
//! beginning, and any reader can be given the stream from anywhere. No I/O, no clock.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use super::packet::{self, PACKET_BYTES, Packet};

static FILE: &[u8] = include_bytes!("../clip.ts");

/// 200 pictures at 25 a second, and 375 AAC frames of 1024 samples at 48 kHz: both end on it exactly.
const LENGTH_S: u64 = 8;
/// The clip's length on the clock of PTS and DTS (ISO/IEC 13818-1, 2.4.3.7).
const LENGTH_90KHZ: u64 = LENGTH_S * 90_000;
const LENGTH_27MHZ: u64 = LENGTH_90KHZ * 300;
const LENGTH: Duration = Duration::from_secs(LENGTH_S);

/// What is worked out once for each packet of the clip.
struct Note {
    /// When it is due, since the beginning of its round: read off the PCR, in between in proportion.
    due: Duration,
    /// How many packets with payload its PID had before it in the round.
    ordinal: u64,
    /// How many its PID has in a whole round.
    per_round: u64,
    /// The counter that its PID begins the first round with.
    first_counter: u64,
    has_pcr: bool,
    /// Offsets of its PTS and DTS.
    stamps: [Option<usize>; 2],
}

static NOTES: LazyLock<Vec<Note>> = LazyLock::new(read_notes);

fn clip_packets() -> impl Iterator<Item = &'static Packet> {
    FILE.as_chunks::<PACKET_BYTES>().0.iter()
}

fn read_notes() -> Vec<Note> {
    let mut seen: HashMap<u16, (u64, u64)> = HashMap::new();
    let mut notes: Vec<Note> = clip_packets()
        .map(|bytes| {
            let counter = u64::from(bytes[3] & 0x0f);
            let (first_counter, count) = seen.entry(packet::pid(bytes)).or_insert((counter, 0));
            // An adaptation-only packet repeats the counter of the packet before it.
            let ordinal = if packet::has_payload(bytes) {
                *count += 1;
                *count - 1
            } else {
                count.wrapping_sub(1)
            };
            Note {
                due: Duration::ZERO,
                ordinal,
                per_round: 0,
                first_counter: *first_counter,
                has_pcr: packet::pcr(bytes).is_some(),
                stamps: packet::pes_stamps(bytes),
            }
        })
        .collect();
    for (note, bytes) in notes.iter_mut().zip(clip_packets()) {
        note.per_round = seen[&packet::pid(bytes)].1;
    }
    let pcrs: Vec<(usize, u64)> =
        clip_packets().enumerate().filter_map(|(at, bytes)| Some((at, packet::pcr(bytes)?))).collect();
    spread_due_times(&mut notes, &pcrs);
    notes
}

/// Gives the packets between two PCRs times in proportion; those after the last run up to the next round.
fn spread_due_times(notes: &mut [Note], pcrs: &[(usize, u64)]) {
    let Some(&(_, first)) = pcrs.first() else {
        return;
    };
    let end = (notes.len(), first + LENGTH_27MHZ);
    let ends = pcrs.iter().skip(1).chain([&end]);
    for (&(from, from_pcr), &(to, to_pcr)) in pcrs.iter().zip(ends) {
        let packets = (to - from) as u64;
        for (step, note) in (0..).zip(&mut notes[from..to]) {
            let ticks = from_pcr - first + (to_pcr - from_pcr) * step / packets;
            note.due = Duration::from_nanos(ticks * 1000 / 27);
        }
    }
}

/// Packets in one round.
fn round() -> u64 {
    NOTES.len() as u64
}

/// When packet `number` is due, since the beginning of the stream.
pub(super) fn due(number: u64) -> Duration {
    let rounds = number / round();
    Duration::from_secs(LENGTH_S * rounds) + NOTES[(number % round()) as usize].due
}

/// How many packets are due once `time` has passed since the beginning of the stream.
pub(super) fn due_by(time: Duration) -> u64 {
    let rounds = time.as_secs() / LENGTH_S;
    let rest = time - LENGTH * u32::try_from(rounds).unwrap_or(u32::MAX);
    rounds * round() + NOTES.partition_point(|note| note.due <= rest) as u64
}

/// The first PCR of the clip.
pub(super) fn first_clock_90khz() -> u64 {
    clip_packets().find_map(packet::pcr).unwrap_or_default() / 300
}

/// Writes packet `number` of the endless stream, its clocks moved on by so much.
pub(super) fn write(number: u64, later_90khz: u64, out: &mut Packet) {
    let at = (number % round()) as usize;
    let rounds = number / round();
    let note = &NOTES[at];
    *out = FILE.as_chunks::<PACKET_BYTES>().0[at];
    let count =
        rounds.wrapping_mul(note.per_round).wrapping_add(note.ordinal).wrapping_add(note.first_counter);
    out[3] = out[3] & 0xf0 | (count & 0x0f) as u8;
    let shift = rounds.wrapping_mul(LENGTH_90KHZ).wrapping_add(later_90khz);
    if note.has_pcr {
        packet::shift_pcr(out, shift);
    }
    for offset in note.stamps.into_iter().flatten() {
        packet::shift_stamp(out, offset, shift);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn packet_at(number: u64) -> Packet {
        let mut bytes = [0; PACKET_BYTES];
        write(number, 0, &mut bytes);
        bytes
    }

    /// Follows the stream from packet `from` over `packets` packets, and holds every rule of a seamless stream.
    fn check(from: u64, packets: u64) {
        const MASK: u64 = (1 << 33) - 1;
        let mut counters = HashMap::new();
        let mut stamps = HashMap::new();
        let mut clock = None;
        for number in from..from + packets {
            let bytes = packet_at(number);
            assert_eq!(bytes[0], 0x47);
            let pid = packet::pid(&bytes);
            let counter = bytes[3] & 0x0f;
            let step = u8::from(packet::has_payload(&bytes));
            if let Some(last) = counters.insert(pid, counter) {
                assert_eq!(counter, (last + step) & 0x0f, "packet {number}, PID {pid}");
            }
            if let Some(pcr) = packet::pcr(&bytes)
                && let Some(last) = clock.replace(pcr)
            {
                let modulus = (1 << 33) * 300;
                let step = (pcr + modulus - last) % modulus;
                assert!(step > 0 && step < 27_000_000 / 10, "packet {number}: {step}");
            }
            if let Some(at) = packet::pes_stamps(&bytes)[0] {
                let pts = packet::stamp(&bytes, at);
                if let Some(last) = stamps.insert(pid, pts) {
                    let step = pts.wrapping_sub(last) & MASK;
                    let whole = if pid == 0x100 { 3600 } else { 1920 };
                    assert!(step.is_multiple_of(whole), "packet {number}: {step}");
                    assert!(step > 0 && step < 30_000, "packet {number}: {step}");
                }
            }
        }
        assert_eq!(stamps.len(), 2, "video and audio");
    }

    #[test]
    fn the_clip_repeats_without_a_seam() {
        check(0, 3 * round());
    }

    #[test]
    fn the_clip_goes_on_over_the_wrap_of_its_clocks() {
        let wrap = (1 << 33) / LENGTH_90KHZ;
        check((wrap - 1) * round(), 3 * round());
    }

    #[test]
    fn due_times_rise_and_agree_with_their_inverse() {
        let mut last = Duration::ZERO;
        for number in 0..2 * round() + 10 {
            let time = due(number);
            assert!(time >= last);
            assert!(due_by(time) > number);
            last = time;
        }
        assert_eq!(due(5 * round()), LENGTH * 5);
    }
}

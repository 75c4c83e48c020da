//! The synthetic stream: every packet carries its number and the time it was sent, so that the
//! [`Checker`](crate::sim::Checker) at the far end of a proxy can prove that none is missing and none came twice.
//!
//! A programme of one H.264 stream: PAT and PMT every so many packets, PES packets with PTS, a PCR at each of
//! their starts, the random access indicator and an IDR slice at key frames. It is no decodable picture.
//! Each packet is a pure function of its place in the stream and of the time it is sent.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::packet::{self, PACKET_BYTES, Packet, SYNC};

/// PID of the numbered packets.
pub(in crate::sim) const STREAM_PID: u16 = 0x100;
/// PID of the programme map.
pub(in crate::sim) const MAP_PID: u16 = 0x1000;

/// Begins a trailer. Like every byte of trailer and filling it has its top bit set, so that neither a sync
/// byte nor a start code can come about.
const MAGIC: [u8; 4] = [0xac, 0xe5, 0x91, 0xd3];
/// Magic, tag (5), run (2), number (10), time (10), check value (5); seven bits a byte.
pub(in crate::sim) const TRAILER_BYTES: usize = 36;
const FILL: u8 = 0xb6;

/// How far a PTS is ahead of the PCR at its packet: a usual decoder delay.
const PTS_AHEAD_90KHZ: u64 = 45_000;
/// Where the clocks begin. Not at 0, so that an unset clock is told from a running one.
const FIRST_27MHZ: u64 = 27_000_000;

/// The shape of a numbered stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Tells this stream's packets from those of another.
    pub tag: u32,
    /// Bits a second, for pacing and for the clocks in the stream.
    pub bit_rate: u64,
    /// A PAT and a PMT come first in every group of this many packets (at least 3).
    pub psi_every: u64,
    /// A PES packet begins every this many numbered packets.
    pub pes_every: u64,
    /// A key frame comes every this many PES packets.
    pub key_every: u64,
    /// The stream ends after this many numbered packets.
    pub end_after: Option<u64>,
}

impl Default for Numbered {
    /// 8 Mbit/s, about 25 pictures a second, PAT and PMT four times a second, a key frame each second, endless.
    fn default() -> Self {
        Self { tag: 0, bit_rate: 8_000_000, psi_every: 1300, pes_every: 212, key_every: 25, end_after: None }
    }
}

impl Numbered {
    /// The default stream at another rate; key frames stay a second apart.
    #[must_use]
    pub fn at_rate(bit_rate: u64) -> Self {
        let per_second = bit_rate / (PACKET_BYTES as u64 * 8);
        Self {
            bit_rate: bit_rate.max(1),
            psi_every: (per_second / 4).max(10),
            pes_every: (per_second / 25).max(4),
            ..Self::default()
        }
    }

    /// With another tag.
    #[must_use]
    pub fn tag(mut self, tag: u32) -> Self {
        self.tag = tag;
        self
    }

    /// Ending after so many numbered packets.
    #[must_use]
    pub fn end_after(mut self, packets: u64) -> Self {
        self.end_after = Some(packets);
        self
    }

    fn psi_every(&self) -> u64 {
        self.psi_every.max(3)
    }

    /// Packets in the whole stream, PAT and PMT included.
    pub(in crate::sim) fn packets(&self) -> Option<u64> {
        let Some(last) = self.end_after?.checked_sub(1) else {
            return Some(0);
        };
        let numbered = self.psi_every() - 2;
        Some(last / numbered * self.psi_every() + last % numbered + 3)
    }

    fn ticks_27mhz(&self, place: u64) -> u64 {
        let bits = u128::from(place) * (PACKET_BYTES as u128 * 8);
        (bits * 27_000_000 / u128::from(self.bit_rate.max(1))) as u64
    }

    /// When the packet at `place` is due, since the beginning.
    pub(in crate::sim) fn due(&self, place: u64) -> Duration {
        let bits = u128::from(place) * (PACKET_BYTES as u128 * 8);
        let nanos = bits * 1_000_000_000 / u128::from(self.bit_rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many packets are due once `time` has passed since the beginning.
    pub(in crate::sim) fn due_by(&self, time: Duration) -> u64 {
        let bits = time.as_nanos() * u128::from(self.bit_rate.max(1)) / 1_000_000_000;
        u64::try_from(bits / (PACKET_BYTES as u128 * 8) + 1).unwrap_or(u64::MAX)
    }

    /// How many of the first packets carry numbers.
    pub(in crate::sim) fn numbers_by(&self, packets: u64) -> u64 {
        let (group, within) = (packets / self.psi_every(), packets % self.psi_every());
        group * (self.psi_every() - 2) + within.saturating_sub(2)
    }

    /// Writes the packet at `place` of the first run, as sent at `sent_us`.
    #[cfg(test)]
    pub(in crate::sim) fn write(&self, place: u64, sent_us: u64, out: &mut Packet) {
        self.write_run(place, Start::default(), sent_us, out);
    }

    /// Writes the packet at `place` of a run that started so.
    pub(in crate::sim) fn write_run(&self, place: u64, start: Start, sent_us: u64, out: &mut Packet) {
        let (group, within) = (place / self.psi_every(), place % self.psi_every());
        match within {
            0 => write_section(out, 0, group, &PAT),
            1 => write_section(out, MAP_PID, group, &PMT),
            _ => self.write_numbered(self.numbers_by(place), place, start, sent_us, out),
        }
    }

    /// The packet with this number since the start of its run.
    fn write_numbered(&self, number: u64, place: u64, start: Start, sent_us: u64, out: &mut Packet) {
        out.fill(FILL);
        header(out, STREAM_PID, number);
        let pes_every = self.pes_every.max(1);
        if number.is_multiple_of(pes_every) {
            let is_key = (number / pes_every).is_multiple_of(self.key_every.max(1));
            let clock = start.clock_27mhz.wrapping_add(self.ticks_27mhz(place));
            out[1] |= 0x40;
            out[3] |= 0x20;
            out[4] = 7;
            out[5] = if is_key { 0x50 } else { 0x10 };
            packet::set_pcr(out, clock);
            // PES header of a video stream, length left open, PTS only; then an access unit delimiter and the
            // first bytes of a slice: an IDR slice (type 5) or another reference slice (type 1).
            out[12..21].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5]);
            out[21] = 0x21;
            packet::set_stamp(out, 21, clock / 300 + PTS_AHEAD_90KHZ);
            out[26..32].copy_from_slice(&[0, 0, 0, 1, 0x09, if is_key { 0x10 } else { 0x30 }]);
            let slice = if is_key { [0x65, 0x88, 0x84] } else { [0x41, 0x9a, 0x84] };
            out[32..35].copy_from_slice(&[0, 0, 1]);
            out[35..38].copy_from_slice(&slice);
        }
        let number = start.number + number;
        write_trailer(out, Trailer { tag: self.tag, run: start.run, number, sent_us });
    }
}

/// Where a run of the broadcaster starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Start {
    /// How many runs there were before.
    pub(in crate::sim) run: u64,
    /// Its first number: numbers go on, though nothing else does.
    pub(in crate::sim) number: u64,
    /// The PCR at its first packet.
    pub(in crate::sim) clock_27mhz: u64,
}

impl Default for Start {
    fn default() -> Self {
        Self { run: 0, number: 0, clock_27mhz: FIRST_27MHZ }
    }
}

fn header(out: &mut Packet, pid: u16, counter: u64) {
    out[0] = SYNC;
    out[1..3].copy_from_slice(&pid.to_be_bytes());
    out[3] = 0x10 | (counter & 0x0f) as u8;
}

fn write_section(out: &mut Packet, pid: u16, counter: u64, section: &[u8]) {
    out.fill(0xff);
    header(out, pid, counter);
    out[1] |= 0x40;
    // The pointer field: the section begins right after it.
    out[4] = 0;
    out[5..5 + section.len()].copy_from_slice(section);
}

/// Programme association section (2.4.4.3): programme 1, its map on [`MAP_PID`].
static PAT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let [high, low] = MAP_PID.to_be_bytes();
    with_crc(&[0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | high, low])
});

/// Programme map section (2.4.4.8): H.264 (type 0x1b) on [`STREAM_PID`], which also carries the PCR.
static PMT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let [high, low] = STREAM_PID.to_be_bytes();
    let high = 0xe0 | high;
    let head = [2, 0xb0, 18, 0, 1, 0xc1, 0, 0, high, low, 0xf0, 0];
    let stream = [0x1b, high, low, 0xf0, 0];
    with_crc(&[head.as_slice(), &stream].concat())
});

fn with_crc(section: &[u8]) -> Vec<u8> {
    [section, &packet::crc32(section).to_be_bytes()].concat()
}

/// What a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Trailer {
    pub(in crate::sim) tag: u32,
    /// How often its broadcaster had begun anew; 14 bits of it.
    pub(in crate::sim) run: u64,
    pub(in crate::sim) number: u64,
    pub(in crate::sim) sent_us: u64,
}

fn write_trailer(out: &mut Packet, says: Trailer) {
    let says = Trailer { run: says.run & 0x3fff, ..says };
    let trailer = &mut out[PACKET_BYTES - TRAILER_BYTES..];
    trailer[..4].copy_from_slice(&MAGIC);
    put_sevens(&mut trailer[4..9], u64::from(says.tag));
    put_sevens(&mut trailer[9..11], says.run);
    put_sevens(&mut trailer[11..21], says.number);
    put_sevens(&mut trailer[21..31], says.sent_us);
    put_sevens(&mut trailer[31..], u64::from(check_value(says)));
}

/// Reads a packet's trailer; `None` if there is none or a bit of it is wrong.
pub(in crate::sim) fn read_trailer(packet: &Packet) -> Option<Trailer> {
    let trailer = &packet[PACKET_BYTES - TRAILER_BYTES..];
    if trailer[..4] != MAGIC {
        return None;
    }
    let found = Trailer {
        tag: u32::try_from(get_sevens(&trailer[4..9])?).ok()?,
        run: get_sevens(&trailer[9..11])?,
        number: get_sevens(&trailer[11..21])?,
        sent_us: get_sevens(&trailer[21..31])?,
    };
    let check = u64::from(check_value(found));
    (get_sevens(&trailer[31..])? == check).then_some(found)
}

fn put_sevens(out: &mut [u8], mut value: u64) {
    for byte in out {
        *byte = 0x80 | value as u8;
        value >>= 7;
    }
}

/// The value; `None` if it has more than 64 bits.
fn get_sevens(bytes: &[u8]) -> Option<u64> {
    bytes
        .iter()
        .rev()
        .try_fold(0_u64, |value, byte| (value >> 57 == 0).then_some(value << 7 | u64::from(byte & 0x7f)))
}

/// Mixes the fields so that each bit of them moves about half the bits of the result.
fn check_value(says: Trailer) -> u32 {
    // Any odd constant with well spread bits does; this one is 2^64 divided by the golden ratio.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = u64::from(says.tag).wrapping_add(SPREAD);
    for part in [says.run, says.number, says.sent_us] {
        mixed = (mixed ^ part).wrapping_mul(SPREAD);
        mixed ^= mixed >> 29;
    }
    (mixed >> 32) as u32
}

/// Microseconds since the first use of this clock in the process: the times in the trailers.
#[must_use]
pub fn now_us() -> u64 {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(EPOCH.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(shape: &Numbered, count: u64) -> Vec<Packet> {
        (0..count)
            .map(|place| {
                let mut out = [0; PACKET_BYTES];
                shape.write(place, 5, &mut out);
                out
            })
            .collect()
    }

    #[test]
    fn a_trailer_says_what_was_written_and_no_bit_of_it_can_change() {
        let mut packet = [FILL; PACKET_BYTES];
        let says = Trailer { tag: u32::MAX, run: 0x3fff, number: u64::MAX, sent_us: u64::MAX - 1 };
        write_trailer(&mut packet, says);
        let trailer = read_trailer(&packet).expect("a good trailer");
        assert_eq!(trailer, says);
        write_trailer(&mut packet, Trailer { tag: 3, run: 1, number: 1 << 40, sent_us: 77 });
        let good = read_trailer(&packet);
        for bit in 0..TRAILER_BYTES * 8 {
            let mut changed = packet;
            changed[PACKET_BYTES - TRAILER_BYTES + bit / 8] ^= 1 << (bit % 8);
            let found = read_trailer(&changed);
            // The top bits are fixed and not read.
            assert!(found.is_none() || bit % 8 == 7 && found == good, "bit {bit}");
        }
    }

    #[test]
    fn the_end_is_where_the_last_numbered_packet_is() {
        let shape = Numbered { psi_every: 5, ..Numbered::default() };
        for end in 1..20 {
            let shape = shape.clone().end_after(end);
            let count = shape.packets().expect("it ends");
            let all = packets(&shape, count);
            let last = all.last().expect("at least one packet");
            assert_eq!(read_trailer(last).map(|trailer| trailer.number), Some(end - 1));
        }
        assert_eq!(Numbered::default().end_after(0).packets(), Some(0));
        assert_eq!(Numbered::default().packets(), None);
    }

    #[test]
    fn no_filling_can_be_taken_for_a_start_code_or_a_sync_byte() {
        for packet in packets(&Numbered::default(), 5000) {
            if packet::pid(&packet) != STREAM_PID {
                continue;
            }
            let from = if packet::starts_unit(&packet) { 38 } else { 4 };
            assert!(packet[from..].iter().all(|byte| byte & 0x80 != 0));
        }
    }

    #[test]
    fn due_times_agree_with_their_inverse() {
        let shape = Numbered::at_rate(12_345_678);
        for place in (0..1_000_000).step_by(777) {
            assert_eq!(shape.due_by(shape.due(place) + Duration::from_nanos(1)), place + 1);
        }
    }
}

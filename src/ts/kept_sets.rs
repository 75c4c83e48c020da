//! The parameter sets that a stream showed last (H.264 and H.265 clause 7.3.1), or its sequence header (H.262 clause 6.2.2.1),
//! for a decoder that comes later.
//!
//! Most encoders repeat them at each keyframe; some send them once at the begin, and a decoder that comes later can do nothing
//! with such a stream. Here the last ones of the first video stream are kept, at most `MAX_BYTES` of them, and put into a PES
//! packet of their own. It does not know who needs them.

use super::packet::{PACKET_BYTES, Packet, Pid, SYNC_BYTE};
use super::pes::{PesHead, starts_pes};
use super::pmt::{StreamKind, VideoCodec};
use super::psi::PsiCache;

/// Parameter sets take some hundred bytes; those of an encoder with dozens of picture parameter sets are a few kilobytes.
const MAX_BYTES: usize = 4096;

/// So much of a PES packet is looked into for them: they stand in front of the picture, among messages of some hundred bytes.
const LOOK_BYTES: u32 = 16 * 1024;

/// PES packets without them after which even a place without a keyframe is preceded by them: four seconds at 25 a second.
const LONG_AGO: u32 = 100;

/// What is in front of each set, as clause B.1.2 of H.264 has it; for MPEG-2 the first zero is stuffing.
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// The head of a PES packet up to its time stamps (ISO/IEC 13818-1 table 2-21).
const PES_HEAD_BYTES: usize = 9;

/// Keeps the last parameter sets of the first video stream.
#[derive(Debug, Default)]
pub struct KeptSets {
    of: Option<(Pid, VideoCodec)>,
    stream_id: u8,
    /// Those of the PES packet that began last: its picture begins with the sets that are put in front.
    stamps: Vec<u8>,
    /// With their start codes.
    kept: Vec<u8>,
    /// PES packets since they came; 0 in the one that they came in.
    since: u32,
    open: Option<Open>,
}

/// A PES packet whose begin is looked into.
#[derive(Debug)]
struct Open {
    head: PesHead,
    continuity: u8,
    looked: u32,
    /// The last three bytes.
    code: u32,
    unit: Unit,
    /// The sets found, with start codes.
    found: Vec<u8>,
    /// Among them is the one that names the size.
    has_main: bool,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Skipped,
    Head,
    Set,
}

/// What a unit is by its head.
#[derive(Debug, PartialEq, Eq)]
enum UnitKind {
    /// A sequence parameter set or a sequence header.
    Main,
    /// Another set, or an extension of the header.
    Other,
    Picture,
    Message,
}

impl KeptSets {
    /// Looks at the next packet.
    pub fn observe(&mut self, packet: &Packet<'_>, tables: &PsiCache) {
        if packet.starts_unit() && starts_pes(packet) {
            self.begin(packet, tables);
        } else if self.open.is_some() && Some(packet.pid()) == self.of.map(|(pid, _)| pid) {
            self.go_on(packet);
        }
    }

    /// Puts them behind what goes in front of a keyframe of this PID, unless that brought its own. Asked when the keyframe is
    /// known for one.
    pub fn append_at_keyframe(&self, pid: Pid, prefix: &mut Vec<u8>) -> bool {
        self.since > 0 && self.append(pid, prefix)
    }

    /// The same of a place without a keyframe, if the stream has shown none for long.
    pub fn append_anywhere(&self, pid: Pid, prefix: &mut Vec<u8>) -> bool {
        self.since > LONG_AGO && self.append(pid, prefix)
    }

    /// Behind the last packet of the PID, which must announce the jump of its counter: it is moved back, so that the packets
    /// that are put in fit between it and what follows.
    fn append(&self, pid: Pid, prefix: &mut Vec<u8>) -> bool {
        if self.kept.is_empty() || self.of.is_none_or(|(of, _)| of != pid) {
            return false;
        }
        let (all, _) = prefix.as_chunks_mut::<PACKET_BYTES>();
        let is_announcement = |packet: &Packet<'_>| packet.pid() == pid && !packet.has_payload();
        let Some(announcement) = all.iter_mut().rfind(|packet| is_announcement(&Packet::new(packet))) else {
            return false;
        };
        let content = self.pes_packet();
        let parts = content.chunks(PACKET_BYTES - 4);
        let last = announcement[3] & 0x0F;
        let first = last.wrapping_sub(parts.len() as u8) & 0x0F;
        announcement[3] = announcement[3] & 0xF0 | first;
        for (number, part) in (1..).zip(parts) {
            let is_start = number == 1;
            prefix.extend(packet_of(pid, is_start, (first + number) & 0x0F, part));
        }
        true
    }

    fn pes_packet(&self) -> Vec<u8> {
        let length = (PES_HEAD_BYTES - 6 + self.stamps.len() + self.kept.len()) as u16;
        let [high, low] = length.to_be_bytes();
        // A PTS, or a PTS and a DTS.
        let flags = match self.stamps.len() {
            0 => 0,
            5 => 0x80,
            _ => 0xC0,
        };
        let head: [u8; PES_HEAD_BYTES] =
            [0, 0, 1, self.stream_id, high, low, 0x80, flags, self.stamps.len() as u8];
        [&head[..], &self.stamps, &self.kept].concat()
    }

    fn begin(&mut self, packet: &Packet<'_>, tables: &PsiCache) {
        let video = tables.streams().find_map(|stream| match stream.kind() {
            StreamKind::Video(codec) => Some((stream.pid, codec)),
            _ => None,
        });
        if video.is_some() && video != self.of {
            *self = Self { of: video, ..Self::default() };
        }
        if Some(packet.pid()) != self.of.map(|(pid, _)| pid) {
            return;
        }
        self.settle();
        self.since = self.since.saturating_add(1);
        if !packet.is_scrambled()
            && let Some([_, _, _, stream_id, _, _, _, flags, _, fields @ ..]) = packet.payload()
        {
            self.stream_id = *stream_id;
            let bytes = match flags >> 6 {
                0b10 => 5,
                0b11 => 10,
                _ => 0,
            };
            self.stamps.clear();
            self.stamps.extend_from_slice(fields.get(..bytes).unwrap_or_default());
        }
        self.open = Some(Open::before(packet));
        self.go_on(packet);
    }

    fn go_on(&mut self, packet: &Packet<'_>) {
        let (Some(payload), Some(open), Some((_, codec))) = (packet.payload(), &mut self.open, self.of)
        else {
            return;
        };
        if packet.continuity() == open.continuity {
            // Sent twice, which is allowed (clause 2.4.3.3).
            return;
        }
        let is_next = packet.continuity() == (open.continuity + 1) % 16;
        if packet.has_error() || packet.is_scrambled() || !is_next {
            self.open = None;
            return;
        }
        open.continuity = packet.continuity();
        if payload.iter().any(|byte| open.push(*byte, codec)) {
            self.settle();
        }
    }

    /// Keeps what was found.
    fn settle(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.found.is_empty() || open.found.len() > MAX_BYTES {
            return;
        }
        if open.has_main {
            (self.kept, self.since) = (open.found, 0);
        } else if !self.kept.is_empty() && !contains(&self.kept, &open.found) {
            // A picture parameter set that came alone. Of two with one number the later one counts.
            let is_room = self.kept.len() + open.found.len() <= MAX_BYTES;
            if is_room {
                self.kept.extend(open.found);
            }
        }
    }
}

impl Open {
    fn before(packet: &Packet<'_>) -> Self {
        Self {
            head: PesHead::new(),
            continuity: packet.continuity().wrapping_sub(1) & 0x0F,
            looked: 0,
            code: u32::MAX,
            unit: Unit::Skipped,
            found: Vec::new(),
            has_main: false,
        }
    }

    /// Takes the next byte. Tells whether enough was seen.
    fn push(&mut self, byte: u8, codec: VideoCodec) -> bool {
        match self.head {
            PesHead::Open { .. } => {
                self.head.push(byte);
                return false;
            }
            PesHead::Unreadable => return true,
            PesHead::Read => {}
        }
        self.looked += 1;
        self.code = (self.code << 8 | u32::from(byte)) & 0x00FF_FFFF;
        if self.code == 1 {
            self.close_unit(codec);
            self.unit = Unit::Head;
            return false;
        }
        match self.unit {
            Unit::Skipped => {}
            Unit::Head => {
                let kind = kind_of(byte, codec);
                self.has_main |= kind == UnitKind::Main;
                match kind {
                    UnitKind::Picture => {
                        self.unit = Unit::Skipped;
                        return true;
                    }
                    UnitKind::Message => self.unit = Unit::Skipped,
                    UnitKind::Main | UnitKind::Other => {
                        self.unit = Unit::Set;
                        self.found.extend(START_CODE);
                        self.found.push(byte);
                    }
                }
            }
            Unit::Set => self.found.push(byte),
        }
        self.looked >= LOOK_BYTES || self.found.len() > MAX_BYTES + START_CODE.len()
    }

    /// A set ends before the start code that was just read to its end. Zeros before that belong to it, but for MPEG-2, whose
    /// headers may end in zeros of their own.
    fn close_unit(&mut self, codec: VideoCodec) {
        if matches!(self.unit, Unit::Set) && self.code == 1 {
            self.found.truncate(self.found.len().saturating_sub(2));
            while codec != VideoCodec::Mpeg2 && self.found.last() == Some(&0) {
                self.found.pop();
            }
        }
        self.unit = Unit::Skipped;
    }
}

fn kind_of(head: u8, codec: VideoCodec) -> UnitKind {
    match codec {
        // H.264 table 7-1. 8 is a picture parameter set, 13 and 15 are extensions.
        VideoCodec::H264 => match head & 0x1F {
            7 => UnitKind::Main,
            8 | 13 | 15 => UnitKind::Other,
            1..=5 => UnitKind::Picture,
            _ => UnitKind::Message,
        },
        // H.265 table 7-1. 32 is a video parameter set, 34 a picture parameter set.
        VideoCodec::Hevc => match head >> 1 & 0x3F {
            33 => UnitKind::Main,
            32 | 34 => UnitKind::Other,
            0..=31 => UnitKind::Picture,
            _ => UnitKind::Message,
        },
        // H.262 table 6-1. Before the first picture, extensions are those of the sequence.
        VideoCodec::Mpeg2 => match head {
            0xB3 => UnitKind::Main,
            0xB5 => UnitKind::Other,
            0x00..=0xAF => UnitKind::Picture,
            _ => UnitKind::Message,
        },
    }
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// A packet with this payload, filled by an adaptation field.
fn packet_of(pid: Pid, is_start: bool, continuity: u8, payload: &[u8]) -> [u8; PACKET_BYTES] {
    let [pid_high, pid_low] = pid.get().to_be_bytes();
    let mut packet = [0xFF; PACKET_BYTES];
    let field_bytes = PACKET_BYTES - 4 - payload.len();
    let control = if field_bytes > 0 { 0x30 } else { 0x10 };
    packet[..4].copy_from_slice(&[
        SYNC_BYTE,
        pid_high | if is_start { 0x40 } else { 0 },
        pid_low,
        control | continuity,
    ]);
    if field_bytes > 0 {
        packet[4] = (field_bytes - 1) as u8;
    }
    if field_bytes > 1 {
        packet[5] = 0;
    }
    packet[PACKET_BYTES - payload.len()..].copy_from_slice(payload);
    packet
}

#[cfg(test)]
mod tests;

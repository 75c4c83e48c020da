//! Sections out of the packets of one PID (ISO/IEC 13818-1 clauses 2.4.4.1 to 2.4.4.3), each together with the
//! packets that carried it.
//!
//! It knows how long sections are, where they begin and that their checksum is right; what stands in them is
//! [`psi`](super::psi)'s affair.

use super::crc::crc32;
use super::packet::{PACKET_BYTES, Packet};

/// Largest section of any kind: 3 bytes and a `section_length` of 4093 (clause 2.4.4.11). A PAT or PMT is
/// bounded by 1024, but decoders take longer ones, and what they take is passed on.
const MAX_SECTION_BYTES: usize = 4096;

/// Packets that one section may be spread over. 23 carry the largest section; a peer that puts a byte into
/// each packet would make us keep thousands.
const MAX_SECTION_PACKETS: usize = 32;

/// `table_id`, flags and `section_length`.
const LENGTH_BYTES: usize = 3;

/// The head of a section with the long syntax, up to `last_section_number` (table 2-30).
const HEAD_BYTES: usize = 8;

/// `CRC_32`.
const CRC_BYTES: usize = 4;

/// In the place of a `table_id`: nothing but stuffing follows in this packet (clause 2.4.4).
const STUFFING: u8 = 0xFF;

/// A packet as it came.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// Its place among the packets that were looked at, so that packets of two sections can be put in order.
    pub(super) serial: u64,
    pub(super) bytes: [u8; PACKET_BYTES],
}

/// A whole section with the long syntax and a correct checksum.
#[derive(Debug)]
pub(super) struct Section {
    bytes: Vec<u8>,
    packets: Vec<Received>,
}

impl Section {
    fn checked(open: Open) -> Option<Self> {
        let long_syntax = open.bytes.get(1)? & 0x80 != 0;
        let whole = open.bytes.len() >= HEAD_BYTES + CRC_BYTES;
        (long_syntax && whole && crc32(&open.bytes) == 0).then_some(Self {
            bytes: open.bytes,
            packets: open.packets,
        })
    }

    /// `table_id_extension`: `transport_stream_id` in a PAT, `program_number` in a PMT.
    pub(super) fn extension(&self) -> u16 {
        u16::from_be_bytes([self.bytes[3], self.bytes[4]])
    }

    /// `version_number`, 0 to 31.
    pub(super) fn version(&self) -> u8 {
        self.bytes[5] >> 1 & 0x1F
    }

    /// `current_next_indicator`: the table holds now, not only later.
    pub(super) fn is_current(&self) -> bool {
        self.bytes[5] & 0x01 != 0
    }

    /// `section_number`.
    pub(super) fn number(&self) -> u8 {
        self.bytes[6]
    }

    /// `last_section_number`.
    pub(super) fn last_number(&self) -> u8 {
        self.bytes[7]
    }

    /// What stands between head and checksum.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[HEAD_BYTES..self.bytes.len() - CRC_BYTES]
    }

    /// The packets that carried it, in order.
    pub(super) fn packets(&self) -> &[Received] {
        &self.packets
    }

    /// The same section again, whatever packets carried it.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// A section that has begun and is not whole.
#[derive(Debug, Default)]
struct Open {
    bytes: Vec<u8>,
    packets: Vec<Received>,
}

/// Puts the sections of one table on one PID together.
#[derive(Debug)]
pub(super) struct Assembler {
    /// Sections with another `table_id` are followed to their end and dropped.
    table_id: u8,
    open: Option<Open>,
    last: Option<[u8; PACKET_BYTES]>,
}

impl Assembler {
    pub(super) fn new(table_id: u8) -> Self {
        Self {
            table_id,
            open: None,
            last: None,
        }
    }

    /// Takes the next packet of the PID and gives the sections that end in it.
    pub(super) fn push(&mut self, packet: &Packet<'_>, serial: u64) -> Vec<Section> {
        let mut whole = Vec::new();
        if packet.has_error() || packet.is_scrambled() {
            self.open = None;
            return whole;
        }
        let Some(payload) = packet.payload() else {
            return whole;
        };
        if let Some(last) = self.last.replace(*packet.bytes()) {
            // A packet may be sent twice in a row (clause 2.4.3.3).
            if last == *packet.bytes() {
                return whole;
            }
            if packet.continuity() != (Packet::new(&last).continuity() + 1) % 16 {
                self.open = None;
            }
        }
        if !packet.starts_unit() {
            // No section begins in such a packet (clause 2.4.4.1): what is left over is stuffing.
            self.feed(payload, packet, serial, &mut whole);
            return whole;
        }
        let pointer = usize::from(payload[0]);
        let Some((tail, mut heads)) = payload[1..].split_at_checked(pointer) else {
            self.open = None;
            return whole;
        };
        self.feed(tail, packet, serial, &mut whole);
        self.open = None;
        while heads.first().is_some_and(|&table_id| table_id != STUFFING) {
            self.open = Some(Open::default());
            let used = self.feed(heads, packet, serial, &mut whole);
            heads = &heads[used..];
        }
        whole
    }

    /// Adds `data` to the open section, up to its end. Gives how many bytes are done with: all of them if no
    /// section is open.
    fn feed(&mut self, data: &[u8], packet: &Packet<'_>, serial: u64, whole: &mut Vec<Section>) -> usize {
        let Some(mut open) = self.open.take() else {
            return data.len();
        };
        if open.packets.len() == MAX_SECTION_PACKETS {
            return data.len();
        }
        open.packets.push(Received {
            serial,
            bytes: *packet.bytes(),
        });

        let (head, rest) = data.split_at(data.len().min(LENGTH_BYTES.saturating_sub(open.bytes.len())));
        open.bytes.extend_from_slice(head);
        if open.bytes.len() < LENGTH_BYTES {
            self.open = Some(open);
            return data.len();
        }
        let section_bytes =
            LENGTH_BYTES + usize::from(u16::from_be_bytes([open.bytes[1], open.bytes[2]]) & 0x0FFF);
        if section_bytes > MAX_SECTION_BYTES {
            return data.len();
        }
        let part = rest.len().min(section_bytes - open.bytes.len());
        open.bytes.extend_from_slice(&rest[..part]);
        if open.bytes.len() < section_bytes {
            self.open = Some(open);
        } else if open.bytes[0] == self.table_id {
            whole.extend(Section::checked(open));
        }
        head.len() + part
    }
}

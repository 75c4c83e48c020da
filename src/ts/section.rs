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
#[derive(Debug, Clone)]
pub(super) struct Section {
    bytes: Vec<u8>,
    packets: Vec<Received>,
}

impl Section {
    fn checked(open: Open) -> Option<Self> {
        let long_syntax = open.bytes.get(1)? & 0x80 != 0;
        let whole = open.bytes.len() >= HEAD_BYTES + CRC_BYTES;
        (long_syntax && whole && crc32(&open.bytes) == 0)
            .then_some(Self { bytes: open.bytes, packets: open.packets })
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
#[derive(Debug, Clone, Default)]
struct Open {
    bytes: Vec<u8>,
    packets: Vec<Received>,
}

/// Puts the sections of one table on one PID together.
#[derive(Debug, Clone)]
pub(super) struct Assembler {
    /// Sections with another `table_id` are followed to their end and dropped.
    table_id: u8,
    open: Option<Open>,
    last: Option<[u8; PACKET_BYTES]>,
}

impl Assembler {
    pub(super) fn new(table_id: u8) -> Self {
        Self { table_id, open: None, last: None }
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
        // A packet may be sent twice in a row (clause 2.4.3.3). The counters are not looked at otherwise: a lost
        // packet spoils the checksum, and muxers that count wrong are played all the same.
        if self.last.replace(*packet.bytes()) == Some(*packet.bytes()) {
            return whole;
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
        open.packets.push(Received { serial, bytes: *packet.bytes() });

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{packetise, section};
    use super::super::packet::{Pid, SYNC_BYTE, packets};
    use super::*;

    const TABLE: u8 = 0x02;
    const PID: Pid = Pid::new(0x1000);

    fn a_section(extension: u16, body_bytes: usize) -> Vec<u8> {
        let body: Vec<_> = (0..body_bytes).map(|index| (index * 11) as u8).collect();
        section(TABLE, extension, 3, (0, 0), &body)
    }

    fn pushed(assembler: &mut Assembler, stream: &[u8]) -> Vec<Section> {
        (0..).zip(packets(stream)).flat_map(|(serial, packet)| assembler.push(&packet, serial)).collect()
    }

    /// Pushes the packets and compares the sections that come out with the expected ones.
    fn check(stream: &[u8], expected: &[Vec<u8>]) -> Vec<Section> {
        let sections = pushed(&mut Assembler::new(TABLE), stream);
        assert!(sections.iter().map(|section| &section.bytes).eq(expected), "{} came", sections.len());
        sections
    }

    fn packets_of(section: &Section) -> Vec<u8> {
        section.packets().iter().flat_map(|packet| packet.bytes).collect()
    }

    #[test]
    fn the_head_is_read_field_by_field() {
        let bytes = section(TABLE, 0x1234, 21, (3, 7), &[1, 2, 3]);
        let sections = check(&packetise(PID, 0, std::slice::from_ref(&bytes)), &[bytes]);
        let [section] = &sections[..] else { panic!("one section") };
        assert_eq!((section.extension(), section.version(), section.is_current()), (0x1234, 21, true));
        assert_eq!((section.number(), section.last_number(), section.body()), (3, 7, &[1, 2, 3][..]));
    }

    #[test]
    fn a_section_of_any_length_comes_out_with_all_its_packets() {
        for body_bytes in (0..1500).chain([4083, 4084]) {
            let bytes = a_section(1, body_bytes);
            let stream = packetise(PID, 7, std::slice::from_ref(&bytes));
            let sections = check(&stream, &[bytes]);
            assert_eq!(packets_of(&sections[0]), stream, "{body_bytes} bytes");
        }
    }

    #[test]
    fn a_section_longer_than_any_may_be_is_not_followed() {
        let next = a_section(2, 10);
        let stream =
            [packetise(PID, 0, &[a_section(1, 4085)]), packetise(PID, 8, std::slice::from_ref(&next))];
        check(&stream.concat(), &[next]);
    }

    #[test]
    fn sections_one_behind_the_other_may_begin_anywhere_in_a_packet() {
        for first_bytes in 0..400 {
            let sections = [a_section(1, first_bytes), a_section(2, 3), a_section(3, 250)];
            let stream = packetise(PID, 0, &sections);
            let came = check(&stream, &sections);
            assert!(came.iter().all(|section| stream.windows(188).any(|w| w == section.packets()[0].bytes)));
        }
    }

    #[test]
    fn sections_of_another_table_are_stepped_over() {
        let wanted = a_section(1, 70);
        for foreign_bytes in 0..400 {
            let foreign = section(0xC0, 1, 0, (0, 0), &vec![7; foreign_bytes]);
            check(&packetise(PID, 0, &[foreign, wanted.clone()]), std::slice::from_ref(&wanted));
        }
    }

    #[test]
    fn a_lost_packet_spoils_its_own_section_alone() {
        let bytes = a_section(1, 700);
        let once = packetise(PID, 0, std::slice::from_ref(&bytes));
        let again = packetise(PID, once.len() / PACKET_BYTES, std::slice::from_ref(&bytes));
        for lost in 0..once.len() / PACKET_BYTES {
            let (front, behind) = once.split_at(lost * PACKET_BYTES);
            let sections =
                check(&[front, &behind[PACKET_BYTES..], &again].concat(), std::slice::from_ref(&bytes));
            assert_eq!(packets_of(&sections[0]), again, "lost {lost}");
        }
    }

    #[test]
    fn a_packet_sent_twice_is_taken_once() {
        let bytes = a_section(1, 700);
        let stream = packetise(PID, 0, std::slice::from_ref(&bytes));
        let twice: Vec<_> = stream.chunks(PACKET_BYTES).flat_map(|packet| packet.repeat(2)).collect();
        let sections = check(&twice, &[bytes]);
        assert_eq!(packets_of(&sections[0]), stream);
    }

    #[test]
    fn a_packet_without_payload_or_with_an_error_adds_nothing() {
        let bytes = a_section(1, 300);
        let stream = packetise(PID, 0, std::slice::from_ref(&bytes));
        let (first, second) = stream.split_at(PACKET_BYTES);
        let mut other = [0xAA; PACKET_BYTES];
        other[..4].copy_from_slice(&[SYNC_BYTE, 0x10, 0x00, 0x20]);
        check(&[first, &other, second].concat(), &[bytes]);
        for (byte, flag) in [(1, 0x80), (3, 0x80)] {
            other[3] = 0x10;
            other[byte] |= flag;
            check(&[first, &other, second].concat(), &[]);
        }
    }

    #[test]
    fn any_wrong_bit_keeps_a_section_out() {
        let bytes = a_section(1, 20);
        let stream = packetise(PID, 0, std::slice::from_ref(&bytes));
        for bit in 5 * 8..(5 + bytes.len()) * 8 {
            let mut wrong = stream.clone();
            wrong[bit / 8] ^= 0x80 >> (bit % 8);
            check(&wrong, &[]);
        }
    }

    #[test]
    fn a_section_dribbled_a_byte_a_packet_is_given_up() {
        let bytes = a_section(1, 100);
        let mut assembler = Assembler::new(TABLE);
        for (index, &byte) in bytes.iter().enumerate() {
            let mut packet = [0xFF; PACKET_BYTES];
            packet[..5].copy_from_slice(&[SYNC_BYTE, 0x10, 0x00, 0x30 | (index % 16) as u8, 182]);
            packet[187] = byte;
            if index == 0 {
                packet[1] |= 0x40;
                packet[4] = 181;
                packet[186] = 0;
            }
            assert!(assembler.push(&Packet::new(&packet), 0).is_empty());
            assert!(assembler.open.as_ref().is_none_or(|open| open.packets.len() <= MAX_SECTION_PACKETS));
        }
        assert!(assembler.open.is_none());
    }

    proptest! {
        #[test]
        fn no_garbage_panics_grows_or_passes_the_checksum(
            garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 187), 0..60),
        ) {
            let mut assembler = Assembler::new(TABLE);
            for mut packet in garbage {
                packet.insert(0, SYNC_BYTE);
                // Readable and with a payload, so that it is looked at.
                packet[1] &= 0x7F;
                packet[3] = packet[3] & 0x2F | 0x10;
                prop_assert!(pushed(&mut assembler, &packet).is_empty());
                let open_bytes = assembler.open.as_ref().map_or(0, |open| open.bytes.len());
                prop_assert!(open_bytes < MAX_SECTION_BYTES);
            }
        }
    }
}

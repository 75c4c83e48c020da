//! One transport packet, read in place (ISO/IEC 13818-1 clause 2.4.3).
//!
//! Every accessor is total: a packet of pure garbage gives some answer, never a panic. Whether the packet
//! deserves belief is its reader's affair; that it begins on a sync byte is the [`Aligner`](super::align::Aligner)'s.

use std::fmt;

/// Length of a transport packet (clause 2.4.3.2).
pub const PACKET_BYTES: usize = 188;

/// First byte of every transport packet (clause 2.4.3.3).
pub const SYNC_BYTE: u8 = 0x47;

/// Length of the header that every packet has, before adaptation field and payload (clause 2.4.3.2).
const HEADER_BYTES: usize = 4;

/// Names one of the streams that a transport stream carries: 13 bits (clause 2.4.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(u16);

impl Pid {
    /// The PID of the programme association table (table 2-3).
    pub const PAT: Self = Self(0x0000);

    /// The PID of null packets, which carry nothing (table 2-3).
    pub const NULL: Self = Self(0x1FFF);

    /// The PID in the low 13 bits; the three above them belong to other fields wherever a PID is written.
    #[must_use]
    pub const fn new(bits: u16) -> Self {
        Self(bits & 0x1FFF)
    }

    /// Reads the 13 bits from two bytes in network order.
    #[must_use]
    pub const fn from_be_bytes(bytes: [u8; 2]) -> Self {
        Self::new(u16::from_be_bytes(bytes))
    }

    /// The number, 0 to 0x1FFF.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A view of one packet.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8; PACKET_BYTES],
}

impl<'a> Packet<'a> {
    /// A view of these bytes, believed to be a packet.
    #[must_use]
    pub const fn new(bytes: &'a [u8; PACKET_BYTES]) -> Self {
        Self { bytes }
    }

    /// The packet as received.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8; PACKET_BYTES] {
        self.bytes
    }

    /// `transport_error_indicator`: somebody before us knows of a bit error in this packet.
    #[must_use]
    pub const fn has_error(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// `payload_unit_start_indicator`: a PES packet begins with this payload, or a section begins in it.
    #[must_use]
    pub const fn starts_unit(&self) -> bool {
        self.bytes[1] & 0x40 != 0
    }

    /// `PID`.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        Pid::from_be_bytes([self.bytes[1], self.bytes[2]])
    }

    /// `transport_scrambling_control` is not `00`: the payload cannot be read.
    #[must_use]
    pub const fn is_scrambled(&self) -> bool {
        self.bytes[3] & 0xC0 != 0
    }

    /// `adaptation_field_control` says that there is a payload. Only such packets advance the continuity
    /// counter (clause 2.4.3.3).
    #[must_use]
    pub const fn has_payload(&self) -> bool {
        self.bytes[3] & 0x10 != 0
    }

    /// `continuity_counter`, 0 to 15.
    #[must_use]
    pub const fn continuity(&self) -> u8 {
        self.bytes[3] & 0x0F
    }

    /// What follows header and adaptation field. `None` without a payload flag, and when the adaptation field
    /// claims all the packet or more.
    #[must_use]
    pub fn payload(&self) -> Option<&'a [u8]> {
        if !self.has_payload() {
            return None;
        }
        let start = if self.has_adaptation_field() {
            HEADER_BYTES + 1 + usize::from(self.bytes[HEADER_BYTES])
        } else {
            HEADER_BYTES
        };
        self.bytes.get(start..).filter(|payload| !payload.is_empty())
    }

    /// `discontinuity_indicator`: continuity counter, or clock on the PCR PID, may jump here
    /// (clause 2.4.3.5).
    #[must_use]
    pub fn discontinuity(&self) -> bool {
        self.adaptation_flags() & 0x80 != 0
    }

    /// `random_access_indicator`: a decoder may start with the unit that begins here (clause 2.4.3.5).
    #[must_use]
    pub fn random_access(&self) -> bool {
        self.adaptation_flags() & 0x40 != 0
    }

    /// The programme clock reference, in units of 1/27,000,000 s (clause 2.4.3.5, equation 2-1).
    #[must_use]
    pub fn pcr(&self) -> Option<u64> {
        if self.adaptation_flags() & 0x10 == 0 {
            return None;
        }
        let field = self.adaptation_field()?.get(1..7)?;
        let bits = field.iter().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        // 33 bits of base at 90 kHz, 6 reserved bits, 9 bits of extension at 27 MHz.
        Some((bits >> 15) * 300 + (bits & 0x1FF))
    }

    /// Whether there is an adaptation field: most packets have none, and need not be looked at for what one may say.
    pub(super) const fn has_adaptation_field(&self) -> bool {
        self.bytes[3] & 0x20 != 0
    }

    /// The adaptation field behind its length byte; `None` if there is none or it leaves the packet.
    fn adaptation_field(&self) -> Option<&'a [u8]> {
        if !self.has_adaptation_field() {
            return None;
        }
        let start = HEADER_BYTES + 1;
        self.bytes.get(start..start + usize::from(self.bytes[HEADER_BYTES]))
    }

    fn adaptation_flags(&self) -> u8 {
        self.adaptation_field().and_then(|field| field.first()).copied().unwrap_or(0)
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("pid", &self.pid())
            .field("continuity", &self.continuity())
            .field("starts_unit", &self.starts_unit())
            .finish_non_exhaustive()
    }
}

/// The packets of aligned bytes, in order. Bytes behind the last whole packet are left out.
pub fn packets(aligned: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    aligned.as_chunks().0.iter().map(Packet::new)
}

/// A packet that every receiver throws away (clause 2.4.1, table 2-3). Its payload flag is set, because
/// `adaptation_field_control` `00` is reserved and such a packet is an error to strict receivers.
#[must_use]
pub const fn null_packet() -> [u8; PACKET_BYTES] {
    let mut packet = [0xFF; PACKET_BYTES];
    packet[0] = SYNC_BYTE;
    packet[1] = 0x1F;
    packet[2] = 0xFF;
    packet[3] = 0x10;
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_head(head: &[u8]) -> [u8; PACKET_BYTES] {
        let mut packet = [0xAA; PACKET_BYTES];
        packet[..head.len()].copy_from_slice(head);
        packet
    }

    #[test]
    fn the_header_is_read_field_by_field() {
        let bytes = with_head(&[0x47, 0x41, 0x23, 0x1C]);
        let packet = Packet::new(&bytes);
        assert_eq!(packet.pid(), Pid::new(0x0123));
        assert!(packet.starts_unit() && packet.has_payload());
        assert!(!packet.has_error() && !packet.is_scrambled());
        assert_eq!(packet.continuity(), 12);
        assert_eq!(packet.payload(), Some(&bytes[4..]));

        let bytes = with_head(&[0x47, 0xA1, 0x23, 0x90]);
        let packet = Packet::new(&bytes);
        assert_eq!(packet.pid(), Pid::new(0x0123));
        assert!(packet.has_error() && packet.is_scrambled() && !packet.starts_unit());
    }

    #[test]
    fn the_adaptation_field_is_read_and_the_payload_begins_behind_it() {
        // PCR base 0x1_2345_6789, extension 0x12C, from the bit layout of table 2-6.
        let pcr = [0x91, 0xA2, 0xB3, 0xC4, 0xFF, 0x2C];
        let bytes = with_head(&[&[0x47, 0x01, 0x00, 0x30, 7, 0xD0][..], &pcr].concat());
        let packet = Packet::new(&bytes);
        assert!(packet.discontinuity() && packet.random_access());
        assert_eq!(packet.pcr(), Some(0x1_2345_6789 * 300 + 0x12C));
        assert_eq!(packet.payload(), Some(&bytes[12..]));
    }

    #[test]
    fn an_adaptation_field_that_fills_the_packet_leaves_no_payload() {
        for (length, payload_bytes) in [(0, Some(183)), (182, Some(1)), (183, None), (184, None), (255, None)]
        {
            let bytes = with_head(&[0x47, 0x01, 0x00, 0x30, length, 0x00]);
            assert_eq!(Packet::new(&bytes).payload().map(<[u8]>::len), payload_bytes, "length {length}");
        }
    }

    #[test]
    fn flags_beyond_the_adaptation_field_are_not_read() {
        let empty = with_head(&[0x47, 0x01, 0x00, 0x30, 0, 0xFF]);
        assert!(!Packet::new(&empty).random_access() && !Packet::new(&empty).discontinuity());
        let too_short_for_a_pcr = with_head(&[0x47, 0x01, 0x00, 0x30, 6, 0x10]);
        assert_eq!(Packet::new(&too_short_for_a_pcr).pcr(), None);
        let no_field = with_head(&[0x47, 0x01, 0x00, 0x10, 7, 0xFF]);
        assert_eq!(Packet::new(&no_field).pcr(), None);
    }

    #[test]
    fn the_null_packet_is_one_that_strict_receivers_take() {
        let bytes = null_packet();
        assert_eq!(bytes[..4], [0x47, 0x1F, 0xFF, 0x10]);
        assert!(bytes[4..].iter().all(|&byte| byte == 0xFF));
        let packet = Packet::new(&bytes);
        assert_eq!(packet.pid(), Pid::NULL);
        assert!(packet.has_payload() && !packet.starts_unit());
    }

    #[test]
    fn packets_are_iterated_in_order_and_a_torn_last_one_is_left_out() {
        let bytes = [with_head(&[0x47, 0, 1, 0x10]), with_head(&[0x47, 0, 2, 0x10])].concat();
        let pids = |bytes: &[u8]| packets(bytes).map(|packet| packet.pid().get()).collect::<Vec<_>>();
        assert_eq!(pids(&bytes), [1, 2]);
        assert_eq!(pids(&bytes[..375]), [1]);
        assert!(pids(&[]).is_empty());
    }
}

//! Heads of PES packets (ISO/IEC 13818-1 clause 2.4.3.6), read a byte at a time, since one may be split over
//! transport packets anywhere.

use super::packet::Packet;

/// First bytes of every PES packet: `packet_start_code_prefix` (clause 2.4.3.7).
const PREFIX: [u8; 3] = [0x00, 0x00, 0x01];

/// Lowest `stream_id` of a PES packet (table 2-22).
const FIRST_STREAM_ID: u8 = 0xBC;

/// Bytes up to and with `PES_header_data_length` (table 2-21).
const FIXED_BYTES: u16 = 9;

/// Whether a PES packet begins in this packet. Of a scrambled one only the flag is known; of a payload of less
/// than four bytes only so much of the prefix.
pub(super) fn starts_pes(packet: &Packet<'_>) -> bool {
    if !packet.starts_unit() {
        return false;
    }
    packet.payload().is_some_and(|payload| packet.is_scrambled() || begins_like_pes(payload))
}

/// When what begins with this packet is to be decoded: the DTS of the PES packet, else its PTS, of 33 bits and 90 kHz
/// (clause 2.4.3.7). `None` where no PES packet begins, where it has no time stamp, and where its head is scrambled, or cut
/// by the end of the packet before the time stamp.
#[must_use]
pub fn decoding_time(packet: &Packet<'_>) -> Option<u64> {
    if !starts_pes(packet) || packet.is_scrambled() {
        return None;
    }
    let payload = packet.payload()?;
    let (&[_, _, _, stream_id, _, _, marker, flags, _], fields) = payload.split_first_chunk::<9>()?;
    if !has_optional_head(stream_id) || marker & 0xC0 != 0x80 {
        return None;
    }
    // PTS_DTS_flags: '10' is a PTS alone, '11' a PTS and behind it a DTS.
    let stamp = match flags >> 6 {
        0b10 => fields.first_chunk::<5>()?,
        0b11 => fields.get(5..)?.first_chunk::<5>()?,
        _ => return None,
    };
    let [a, b, c, d, e] = stamp.map(u64::from);
    Some((a >> 1 & 0x07) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

fn begins_like_pes(payload: &[u8]) -> bool {
    let known = payload.len().min(PREFIX.len());
    payload[..known] == PREFIX[..known] && payload.get(3).is_none_or(|id| *id >= FIRST_STREAM_ID)
}

/// How far a head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PesHead {
    /// So many bytes came, and it goes on until `end`.
    Open {
        /// Bytes that came.
        at: u16,
        /// Where the elementary stream begins, as far as known.
        end: u16,
    },
    /// The elementary stream has begun.
    Read,
    /// It is no PES packet whose content could be read: scrambled, of a kind without this head, or garbage.
    Unreadable,
}

impl PesHead {
    /// Before the first byte.
    pub(super) const fn new() -> Self {
        Self::Open { at: 0, end: FIXED_BYTES }
    }

    /// Takes the next byte.
    pub(super) fn push(&mut self, byte: u8) {
        let Self::Open { at, end } = *self else { return };
        let (fits, end) = match at {
            0..=2 => (byte == PREFIX[usize::from(at)], end),
            3 => (has_optional_head(byte), end),
            // '10', then PES_scrambling_control '00' for an open payload.
            6 => (byte & 0xF0 == 0x80, end),
            8 => (true, FIXED_BYTES + u16::from(byte)),
            _ => (true, end),
        };
        *self = match at + 1 {
            _ if !fits => Self::Unreadable,
            at if at == end => Self::Read,
            at => Self::Open { at, end },
        };
    }
}

/// Whether PES packets of this `stream_id` have flags and `PES_header_data_length` (table 2-21): all but those
/// of maps, padding, private_stream_2, ECM, EMM, DSM-CC, H.222.1 type E and the directory.
const fn has_optional_head(stream_id: u8) -> bool {
    stream_id >= FIRST_STREAM_ID
        && !matches!(stream_id, 0xBC | 0xBE | 0xBF | 0xF0 | 0xF1 | 0xF2 | 0xF8 | 0xFF)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Build;
    use super::super::packet::Pid;
    use super::*;

    fn read(bytes: &[u8]) -> PesHead {
        let mut head = PesHead::new();
        bytes.iter().for_each(|byte| head.push(*byte));
        head
    }

    #[test]
    fn a_head_ends_where_its_length_says() {
        let head = [0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1];
        for bytes in 0..head.len() {
            assert!(matches!(read(&head[..bytes]), PesHead::Open { .. }), "{bytes} bytes");
        }
        assert_eq!(read(&head), PesHead::Read);
        assert_eq!(read(&[0, 0, 1, 0xE0, 0, 0, 0x80, 0, 0]), PesHead::Read);
        let longest = [&[0, 0, 1, 0xE0, 0, 0, 0x80, 0, 255][..], &[0xFF; 255]].concat();
        assert_eq!(read(&longest), PesHead::Read);
        assert!(matches!(read(&longest[..263]), PesHead::Open { .. }));
    }

    #[test]
    fn the_time_to_decode_is_the_dts_or_else_the_pts() {
        const PID: Pid = Pid::new(0x0100);
        let time =
            |payload: &[u8]| decoding_time(&Packet::new(&Build::new(PID, 0).starts_unit().payload(payload)));
        let stamp = |head: u8, time: u64| {
            let top = head << 4 | (time >> 29 & 0x0E) as u8 | 1;
            let [middle, low] = [time >> 14, time << 1].map(|bits| bits as u8 | 1);
            [top, (time >> 22) as u8, middle, (time >> 7) as u8, low]
        };
        let head = |flags: u8| vec![0, 0, 1, 0xE0, 0, 0, 0x80, flags, 10];
        for at in [0, 1, 3_003, 0x1_2345_6789, (1 << 33) - 1] {
            let pts = stamp(2, at);
            assert_eq!(time(&[&head(0x80)[..], &pts].concat()), Some(at));
            let both = [&head(0xC0)[..], &stamp(3, 77), &stamp(1, at)].concat();
            assert_eq!(time(&both), Some(at));
            assert_eq!(time(&both[..both.len() - 1]), None, "cut off");
        }
        assert_eq!(time(&[&head(0x00)[..], &stamp(2, 5)].concat()), None, "no time stamp");
        assert_eq!(time(&[0, 0, 1, 0xBE, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]), None, "padding");
        let scrambled = Build::new(PID, 0).starts_unit().scrambled().payload(&head(0x80));
        assert_eq!(decoding_time(&Packet::new(&scrambled)), None);
        let middle = Build::new(PID, 0).payload(&[&head(0x80)[..], &stamp(2, 5)].concat());
        assert_eq!(decoding_time(&Packet::new(&middle)), None);
    }

    #[test]
    fn what_is_scrambled_or_no_such_packet_is_unreadable() {
        for head in [
            [0, 0, 2, 0xE0, 0, 0, 0x80],
            [0, 0, 1, 0xB3, 0, 0, 0x80],
            [0, 0, 1, 0xBE, 0, 0, 0x80],
            [0, 0, 1, 0xE0, 0, 0, 0x90],
            [0, 0, 1, 0xE0, 0, 0, 0x21],
        ] {
            assert_eq!(read(&head), PesHead::Unreadable, "{head:02x?}");
        }
    }
}

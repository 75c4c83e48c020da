//! The question and the answer of HDHomeRun discovery (playlist-facts.md section 3.3).
//!
//! A packet is a type and a length (16 bits each, big endian), fields of tag, length and value, and the CRC-32 of all that,
//! little endian. Pure.

use crate::config::DeviceId;

/// No well-formed question is longer; real ones have 20 bytes.
pub(super) const MAX_QUESTION_BYTES: usize = 256;

const QUESTION: u16 = 2;
const ANSWER: u16 = 3;

const DEVICE_TYPE: u8 = 0x01;
const DEVICE_ID: u8 = 0x02;
const TUNER_COUNT: u8 = 0x10;
const LINEUP_URL: u8 = 0x27;
const BASE_URL: u8 = 0x2A;
const DEVICE_AUTH: u8 = 0x2B;

/// The type of a tuner.
const TUNER: u32 = 1;

/// Any type, or any id.
const ANY: u32 = u32::MAX;

/// Longest value of a field: its length has 7 bits, or 15.
const MAX_VALUE_BYTES: usize = 0x7FFF;

/// Whether this is a well-formed question, for whomever.
#[must_use]
pub(super) fn is_question(packet: &[u8]) -> bool {
    fields_of(packet, QUESTION).is_some()
}

/// Whether this is a well-formed question, and one for a tuner of this id.
#[must_use]
pub(super) fn asks_for(packet: &[u8], id: DeviceId) -> bool {
    fields_of(packet, QUESTION).is_some_and(|fields| {
        let number_in = |tag| {
            let mut values = fields.iter().filter(|(found, _)| *found == tag).map(|(_, value)| *value);
            values.next_back().map_or(Some(ANY), |value| value.try_into().ok().map(u32::from_be_bytes))
        };
        matches!(number_in(DEVICE_TYPE), Some(TUNER | ANY))
            && number_in(DEVICE_ID).is_some_and(|wanted| wanted == ANY || wanted == id.number())
    })
}

/// The fields of a packet of this type; `None` for one that is not whole to the last byte.
fn fields_of(packet: &[u8], kind: u16) -> Option<Vec<(u8, &[u8])>> {
    let packet = Some(packet).filter(|packet| packet.len() <= MAX_QUESTION_BYTES)?;
    let (body, sum) = packet.split_last_chunk::<4>()?;
    let (head, mut rest) = body.split_first_chunk::<4>()?;
    let is_whole = u32::from_le_bytes(*sum) == crc32(body)
        && u16::from_be_bytes([head[0], head[1]]) == kind
        && usize::from(u16::from_be_bytes([head[2], head[3]])) == rest.len();
    if !is_whole {
        return None;
    }
    let mut fields = Vec::new();
    while let Some((&tag, behind)) = rest.split_first() {
        let (&low, mut behind) = behind.split_first()?;
        let mut length = usize::from(low & 0x7F);
        if low & 0x80 != 0 {
            let (&high, further) = behind.split_first()?;
            length |= usize::from(high) << 7;
            behind = further;
        }
        let (value, behind) = behind.split_at_checked(length)?;
        fields.push((tag, value));
        rest = behind;
    }
    Some(fields)
}

/// The answer of a tuner of this id, with so many tuners, at this base.
pub(super) fn answer(id: DeviceId, tuners: u8, base: &str, auth: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut put = |tag: u8, value: &[u8]| {
        let value = &value[..value.len().min(MAX_VALUE_BYTES)];
        fields.push(tag);
        let low = (value.len() & 0x7F) as u8;
        match (value.len() >> 7) as u8 {
            0 => fields.push(low),
            high => fields.extend([low | 0x80, high]),
        }
        fields.extend_from_slice(value);
    };
    put(DEVICE_TYPE, &TUNER.to_be_bytes());
    put(DEVICE_ID, &id.number().to_be_bytes());
    put(TUNER_COUNT, &[tuners]);
    put(BASE_URL, base.as_bytes());
    put(LINEUP_URL, format!("{base}/lineup.json").as_bytes());
    put(DEVICE_AUTH, auth.as_bytes());

    let mut packet = ANSWER.to_be_bytes().to_vec();
    packet.extend((fields.len() as u16).to_be_bytes());
    packet.append(&mut fields);
    let sum = crc32(&packet);
    packet.extend(sum.to_le_bytes());
    packet
}

/// The CRC-32 of Ethernet (IEEE 802.3 section 3.2.9). A packet has some dozen bytes, so no table.
fn crc32(bytes: &[u8]) -> u32 {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
    });
    !sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Jellyfin asks.
    const ASKED: &str = "0002000c0104ffffffff0204ffffffff73cc7d8f";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
            .collect()
    }

    fn id() -> DeviceId {
        "1ACE1234".parse().expect("an id")
    }

    fn question(fields: &[u8]) -> Vec<u8> {
        let mut packet = vec![0, 2, 0, fields.len() as u8];
        packet.extend_from_slice(fields);
        let sum = crc32(&packet);
        packet.extend(sum.to_le_bytes());
        packet
    }

    #[test]
    fn a_question_is_answered_if_it_is_for_us() {
        assert!(asks_for(&bytes(ASKED), id()));
        for (fields, is_ours) in [
            ("", true),
            ("010400000001", true),
            ("01040000000102041ace1234", true),
            ("02041ace1234", true),
            ("02041ace1235", false),
            ("010400000005", false),
            ("0103000001", false),
            ("010400000001ff00", true),
            ("2a8000", true),
            // A field that goes on behind the end.
            ("0104000000", false),
            ("01", false),
            ("0180", false),
        ] {
            assert_eq!(asks_for(&question(&bytes(fields)), id()), is_ours, "{fields}");
        }
    }

    #[test]
    fn what_is_not_whole_is_no_question() {
        let whole = bytes(ASKED);
        for length in 0..whole.len() {
            assert!(!asks_for(&whole[..length], id()), "{length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(!asks_for(&damaged, id()), "{at}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(!asks_for(&longer, id()));
    }

    #[test]
    fn an_answer_is_what_clients_read() {
        let expected = "0003004f01040000000102041ace12341001042a18687474703a2f2f3139322e3136382e312e32303a383030302724\
                        687474703a2f2f3139322e3136382e312e32303a383030302f6c696e6575702e6a736f6e";
        let packet = answer(id(), 4, "http://192.168.1.20:8000", "acerelay");
        // But for the auth string, which the expected one has not, in its length and its sum.
        assert_eq!(packet[4..expected.len() / 2], bytes(expected)[4..]);
        let fields = fields_of(&packet, ANSWER).expect("it is whole");
        assert_eq!(fields.last(), Some(&(DEVICE_AUTH, &b"acerelay"[..])));
        let long = format!("http://{}", "a".repeat(150));
        let packet = answer(id(), 4, &long, "");
        let length = long.len();
        assert_eq!(packet[19..22], [BASE_URL, length as u8 & 0x7F | 0x80, (length >> 7) as u8]);
    }

    #[test]
    fn the_sum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(packet in prop::collection::vec(any::<u8>(), 0..300), fields in prop::collection::vec(any::<u8>(), 0..200)) {
            let _asked = asks_for(&packet, id());
            let _asked = asks_for(&question(&fields), id());
        }
    }
}

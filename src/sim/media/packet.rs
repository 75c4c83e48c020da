//! Bits of transport packets (ISO/IEC 13818-1, 2.4.3): just what the simulated engine writes and checks.
//!
//! Deliberately its own: what the proxy reads with one parser is not made or judged by the same one.

/// Length of a transport packet.
pub(in crate::sim) const PACKET_BYTES: usize = 188;
/// The first byte of each packet.
pub(in crate::sim) const SYNC: u8 = 0x47;
/// The PID of stuffing packets.
pub(in crate::sim) const NULL_PID: u16 = 0x1fff;

/// One transport packet.
pub(in crate::sim) type Packet = [u8; PACKET_BYTES];

const STAMP_MASK: u64 = (1 << 33) - 1;

pub(in crate::sim) fn pid(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

pub(in crate::sim) fn has_payload(packet: &Packet) -> bool {
    packet[3] & 0x10 != 0
}

pub(in crate::sim) fn starts_unit(packet: &Packet) -> bool {
    packet[1] & 0x40 != 0
}

/// Whether the adaptation field announces a break (discontinuity_indicator).
pub(in crate::sim) fn announces_break(packet: &Packet) -> bool {
    packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0
}

/// Where the payload begins; the packet's end if it has none or its adaptation field is too long.
pub(in crate::sim) fn payload_start(packet: &Packet) -> usize {
    let adaptation = if packet[3] & 0x20 == 0 { 0 } else { 1 + usize::from(packet[4]) };
    if has_payload(packet) { (4 + adaptation).min(PACKET_BYTES) } else { PACKET_BYTES }
}

/// The programme clock reference, in 27 MHz ticks.
pub(in crate::sim) fn pcr(packet: &Packet) -> Option<u64> {
    if packet[3] & 0x20 == 0 || packet[4] < 7 || packet[5] & 0x10 == 0 {
        return None;
    }
    Some(pcr_base(packet) * 300 + (u64::from(packet[10] & 1) << 8 | u64::from(packet[11])))
}

fn pcr_base(packet: &Packet) -> u64 {
    u64::from(u32::from_be_bytes([packet[6], packet[7], packet[8], packet[9]])) << 1
        | u64::from(packet[10] >> 7)
}

/// Writes a PCR into an adaptation field that has room for one.
pub(in crate::sim) fn set_pcr(packet: &mut Packet, ticks_27mhz: u64) {
    let (base, extension) = ((ticks_27mhz / 300) & STAMP_MASK, ticks_27mhz % 300);
    packet[6..10].copy_from_slice(&((base >> 1) as u32).to_be_bytes());
    packet[10] = (base as u8 & 1) << 7 | 0x7e | (extension >> 8) as u8;
    packet[11] = extension as u8;
}

/// Adds to the PCR, wrapping as 33 bits of 90 kHz do.
pub(in crate::sim) fn shift_pcr(packet: &mut Packet, ticks_90khz: u64) {
    let base = pcr_base(packet).wrapping_add(ticks_90khz) & STAMP_MASK;
    packet[6..10].copy_from_slice(&((base >> 1) as u32).to_be_bytes());
    packet[10] = packet[10] & 0x7f | (base as u8 & 1) << 7;
}

/// Offsets of PTS and DTS, if a PES packet with them begins here (2.4.3.6).
pub(in crate::sim) fn pes_stamps(packet: &Packet) -> [Option<usize>; 2] {
    let start = payload_start(packet);
    let payload = &packet[start..];
    if !starts_unit(packet) || payload.len() < 9 || !payload.starts_with(&[0, 0, 1]) {
        return [None; 2];
    }
    // Programme stream maps, padding, private stream 2 and their like have no such header.
    if !matches!(payload[3], 0xbd | 0xc0..=0xef) || payload[6] & 0xc0 != 0x80 {
        return [None; 2];
    }
    let fits = |offset: usize| (offset + 5 <= PACKET_BYTES).then_some(offset);
    match payload[7] >> 6 {
        2 => [fits(start + 9), None],
        3 => [fits(start + 9), fits(start + 14)],
        _ => [None; 2],
    }
}

/// Reads the PTS or DTS at `offset`.
pub(in crate::sim) fn stamp(packet: &Packet, offset: usize) -> u64 {
    let field = &packet[offset..offset + 5];
    u64::from(field[0] >> 1 & 7) << 30
        | u64::from(field[1]) << 22
        | u64::from(field[2] >> 1) << 15
        | u64::from(field[3]) << 7
        | u64::from(field[4] >> 1)
}

/// Writes the 33 bits of a PTS or DTS, leaving its four-bit prefix.
pub(in crate::sim) fn set_stamp(packet: &mut Packet, offset: usize, ticks_90khz: u64) {
    let field = &mut packet[offset..offset + 5];
    field[0] = field[0] & 0xf0 | (ticks_90khz >> 29) as u8 & 0x0e | 1;
    field[1] = (ticks_90khz >> 22) as u8;
    field[2] = (ticks_90khz >> 14) as u8 | 1;
    field[3] = (ticks_90khz >> 7) as u8;
    field[4] = (ticks_90khz << 1) as u8 | 1;
}

/// Adds to the PTS or DTS at `offset`, wrapping at 33 bits.
pub(in crate::sim) fn shift_stamp(packet: &mut Packet, offset: usize, ticks_90khz: u64) {
    let sum = stamp(packet, offset).wrapping_add(ticks_90khz) & STAMP_MASK;
    set_stamp(packet, offset, sum);
}

/// PID of the picture, in the clip as in numbered streams.
const PICTURE_PID: u16 = 0x100;

/// Makes null packets of those with picture; of one with a clock reference nothing but that is left.
pub(in crate::sim) fn take_out_picture(packets: &mut [u8]) {
    for packet in packets.as_chunks_mut::<PACKET_BYTES>().0 {
        if pid(packet) != PICTURE_PID {
            continue;
        }
        let clock = pcr(packet);
        packet[12..].fill(0xff);
        match clock {
            // Adaptation field alone, with a clock reference.
            Some(_) => {
                packet[1] &= !0x40;
                packet[3] = packet[3] & 0x0f | 0x20;
                packet[4..6].copy_from_slice(&[183, 0x10]);
            }
            None => {
                packet[4..].fill(0xff);
                packet[1..4].copy_from_slice(&[0x1f, 0xff, 0x10]);
            }
        }
    }
}

/// The checksum at the end of PSI sections (annex A): over a section with its checksum it is zero.
pub(in crate::sim) fn crc32(section: &[u8]) -> u32 {
    section.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            let polynomial = if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            crc << 1 ^ polynomial
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_wrap_and_keeps_its_prefix() {
        let mut packet = [0; PACKET_BYTES];
        packet[20] = 0x31;
        set_stamp(&mut packet, 20, STAMP_MASK - 9);
        assert_eq!(stamp(&packet, 20), STAMP_MASK - 9);
        shift_stamp(&mut packet, 20, 30);
        assert_eq!(stamp(&packet, 20), 20);
        assert_eq!(packet[20] & 0xf1, 0x31);
        assert_eq!(packet[22] & packet[24] & 1, 1);
    }

    #[test]
    fn a_pcr_survives_the_wrap_and_keeps_its_extension() {
        let mut packet = [0; PACKET_BYTES];
        packet[3] = 0x30;
        packet[4] = 7;
        packet[5] = 0x10;
        set_pcr(&mut packet, STAMP_MASK * 300 + 257);
        assert_eq!(pcr(&packet), Some(STAMP_MASK * 300 + 257));
        shift_pcr(&mut packet, 2);
        assert_eq!(pcr(&packet), Some(300 + 257));
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        // The well-known check value of CRC-32/MPEG-2.
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
    }
}

//! Packets and tables for tests.

use super::packet::{PACKET_BYTES, Pid, SYNC_BYTE};

/// A packet of this PID and counter, with a payload that names it and holds no sync byte.
pub(crate) fn media_packet(pid: Pid, counter: usize) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[0] = SYNC_BYTE;
    packet[1..3].copy_from_slice(&pid.get().to_be_bytes());
    packet[3] = 0x10 | (counter % 16) as u8;
    for (index, byte) in packet.iter_mut().enumerate().skip(4) {
        *byte = (counter * 7 + index * 13 + counter / 251) as u8;
        if *byte == SYNC_BYTE {
            *byte = 0;
        }
    }
    packet
}

/// So many media packets of PID 0x100, all different, without any sync byte in their payload.
pub(crate) fn media(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|counter| media_packet(Pid::new(0x0100), counter))
        .collect()
}

//! Packets and tables for tests.

use super::crc::crc32;
use super::packet::{PACKET_BYTES, Pid, SYNC_BYTE, packets};
use super::psi::PsiCache;

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
    (0..count).flat_map(|counter| media_packet(Pid::new(0x0100), counter)).collect()
}

/// A long section: head, body, checksum.
pub(crate) fn section(table_id: u8, extension: u16, version: u8, part: (u8, u8), body: &[u8]) -> Vec<u8> {
    let length = 0xB000 | (body.len() + 9) as u16 & 0x0FFF;
    let mut section = vec![table_id];
    section.extend(length.to_be_bytes());
    section.extend(extension.to_be_bytes());
    section.extend([0xC1 | version << 1, part.0, part.1]);
    section.extend(body);
    section.extend(crc32(&section).to_be_bytes());
    section
}

/// A PAT section of these programmes: number and PMT PID.
pub(crate) fn pat(version: u8, part: (u8, u8), programmes: &[(u16, Pid)]) -> Vec<u8> {
    let entry =
        |&(number, pid): &(u16, Pid)| [number.to_be_bytes(), (0xE000 | pid.get()).to_be_bytes()].concat();
    section(0x00, 1, version, part, &programmes.iter().flat_map(entry).collect::<Vec<_>>())
}

/// A PMT of these streams: type and PID. Each has a descriptor of `padding` bytes, to make it long.
pub(crate) fn pmt(number: u16, version: u8, pcr_pid: Pid, streams: &[(u8, Pid)], padding: usize) -> Vec<u8> {
    let mut body = (0xE000 | pcr_pid.get()).to_be_bytes().to_vec();
    body.extend([0xF0, 0x00]);
    for &(stream_type, pid) in streams {
        body.push(stream_type);
        body.extend((0xE000 | pid.get()).to_be_bytes());
        body.extend((0xF000 | padding as u16).to_be_bytes());
        body.extend((0..padding).map(|index| index as u8));
    }
    section(0x02, number, version, (0, 0), &body)
}

/// Puts sections into packets of a PID, one behind the other without stuffing between them, as clause 2.4.4
/// allows, with counters from `counter` on.
pub(crate) fn packetise(pid: Pid, counter: usize, sections: &[Vec<u8>]) -> Vec<u8> {
    let mut starts = sections.iter().scan(0, |at, section| {
        let start = *at;
        *at += section.len();
        Some(start)
    });
    let mut next_start = starts.next();
    let data = sections.concat();
    let mut out = Vec::new();
    let (mut at, mut count) = (0, counter);
    while at < data.len() {
        let mut packet = [0xFF; PACKET_BYTES];
        packet[0] = SYNC_BYTE;
        packet[1..3].copy_from_slice(&pid.get().to_be_bytes());
        packet[3] = 0x10 | (count % 16) as u8;
        let mut head_bytes = 4;
        let next_offset = next_start.map_or(usize::MAX, |start| start - at);
        if next_offset < PACKET_BYTES - 5 {
            packet[1] |= 0x40;
            packet[4] = next_offset as u8;
            head_bytes = 5;
        } else if next_offset == PACKET_BYTES - 5 {
            // The section would begin in the last byte, but there is no room for the pointer to it: an empty
            // adaptation field moves it to the next packet.
            packet[3] |= 0x20;
            packet[4] = 0;
            head_bytes = 5;
        }
        let part = (data.len() - at).min(PACKET_BYTES - head_bytes);
        packet[head_bytes..head_bytes + part].copy_from_slice(&data[at..at + part]);
        at += part;
        count += 1;
        while next_start.is_some_and(|start| start < at) {
            next_start = starts.next();
        }
        out.extend(packet);
    }
    out
}

/// A packet to be, of a PID and with a counter.
#[derive(Clone, Copy)]
pub(crate) struct Build {
    pid: Pid,
    counter: usize,
    unit_start: u8,
    scrambling: u8,
    flags: u8,
    pcr: Option<u64>,
}

impl Build {
    pub(crate) fn new(pid: Pid, counter: usize) -> Self {
        Self { pid, counter, unit_start: 0, scrambling: 0, flags: 0, pcr: None }
    }

    pub(crate) fn starts_unit(self) -> Self {
        Self { unit_start: 0x40, ..self }
    }

    pub(crate) fn scrambled(self) -> Self {
        Self { scrambling: 0x80, ..self }
    }

    pub(crate) fn discontinuity(self) -> Self {
        Self { flags: self.flags | 0x80, ..self }
    }

    pub(crate) fn random_access(self) -> Self {
        Self { flags: self.flags | 0x40, ..self }
    }

    pub(crate) fn pcr(self, ticks: u64) -> Self {
        Self { flags: self.flags | 0x10, pcr: Some(ticks), ..self }
    }

    /// With this payload; an adaptation field fills the rest.
    pub(crate) fn payload(self, payload: &[u8]) -> [u8; PACKET_BYTES] {
        let [pid_high, pid_low] = self.pid.get().to_be_bytes();
        let mut packet = [0xFF; PACKET_BYTES];
        packet[..3].copy_from_slice(&[SYNC_BYTE, self.unit_start | pid_high, pid_low]);
        packet[3] = self.scrambling | (self.counter % 16) as u8;
        packet[3] |= if payload.is_empty() { 0 } else { 0x10 };
        let field_bytes = PACKET_BYTES - 4 - payload.len();
        if field_bytes > 0 {
            packet[3] |= 0x20;
            packet[4] = (field_bytes - 1) as u8;
        }
        if field_bytes > 1 {
            packet[5] = self.flags;
        }
        if let Some(pcr) = self.pcr {
            let bits = ((pcr / 300) << 15) | 0x7E00 | (pcr % 300);
            packet[6..12].copy_from_slice(&bits.to_be_bytes()[2..]);
        }
        packet[PACKET_BYTES - payload.len()..].copy_from_slice(payload);
        packet
    }

    /// With this content in a PES packet with a time stamp, spread over full packets with counters from this
    /// one on. Only the first has flags.
    pub(crate) fn pes(self, stream_id: u8, content: &[u8]) -> Vec<u8> {
        self.pes_at(stream_id, 0, content)
    }

    /// The same with this time stamp, of 90 kHz.
    pub(crate) fn pes_at(self, stream_id: u8, time: u64, content: &[u8]) -> Vec<u8> {
        let mut head = pes_head(stream_id);
        head[9] |= (time >> 29) as u8 & 0x0E;
        head[10] = (time >> 22) as u8;
        head[11] |= (time >> 14) as u8;
        head[12] = (time >> 7) as u8;
        head[13] |= (time << 1) as u8;
        let unit = [&head[..], content].concat();
        let first = if self.flags == 0 { 184 } else { 176 }.min(unit.len());
        let mut out = self.starts_unit().payload(&unit[..first]).to_vec();
        for (index, part) in unit[first..].chunks(184).enumerate() {
            let rest = Self { unit_start: 0, flags: 0, pcr: None, counter: self.counter + 1 + index, ..self };
            out.extend(rest.payload(part));
        }
        out
    }
}

/// The head of an unbounded PES packet with a PTS.
pub(crate) fn pes_head(stream_id: u8) -> [u8; 14] {
    [0, 0, 1, stream_id, 0, 0, 0x84, 0x80, 5, 0x21, 0, 1, 0, 1]
}

/// The tables of one programme with these streams, its PMT on PID 0x1000.
pub(crate) fn tables(streams: &[(u8, Pid)]) -> PsiCache {
    let pmt_pid = Pid::new(0x1000);
    let mut cache = PsiCache::new();
    let clock = streams.first().map_or(Pid::NULL, |(_, pid)| *pid);
    let bytes = [
        packetise(Pid::PAT, 0, &[pat(0, (0, 0), &[(1, pmt_pid)])]),
        packetise(pmt_pid, 0, &[pmt(1, 0, clock, streams, 0)]),
    ]
    .concat();
    for packet in packets(&bytes) {
        cache.observe(&packet);
    }
    cache
}

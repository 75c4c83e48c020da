//! Tables (ISO/IEC 13818-1 clause 2.4.4), written here by the book and read there.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::ts::crc::crc32;
use crate::ts::packet::{PACKET_BYTES, Pid, SYNC_BYTE, packets};
use crate::ts::psi::PsiCache;
use crate::ts::tests::check;

/// A programme: its number, the PID of its map, and its streams with their types and descriptors.
#[derive(Clone, Debug)]
struct Programme {
    number: u16,
    map_pid: u16,
    streams: Vec<(u8, u16, Vec<u8>)>,
}

/// A section with the long head (table 2-30 and the like).
fn section(table: u8, extension: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let length = 0xB000 | (body.len() + 9) as u16;
    let mut section = vec![table];
    section.extend(length.to_be_bytes());
    section.extend(extension.to_be_bytes());
    section.extend([0xC1 | version << 1, 0, 0]);
    section.extend(body);
    section.extend(crc32(&section).to_be_bytes());
    section
}

fn pat(version: u8, programmes: &[Programme]) -> Vec<u8> {
    let entries = programmes.iter().flat_map(|programme| {
        [programme.number.to_be_bytes(), (0xE000 | programme.map_pid).to_be_bytes()].concat()
    });
    section(0x00, 1, version, &entries.collect::<Vec<_>>())
}

fn pmt(version: u8, programme: &Programme) -> Vec<u8> {
    let mut body = vec![0xE1, 0x00, 0xF0, 0x00];
    for (kind, pid, descriptors) in &programme.streams {
        body.push(*kind);
        body.extend((0xE000 | pid).to_be_bytes());
        body.extend((0xF000 | descriptors.len() as u16).to_be_bytes());
        body.extend(descriptors);
    }
    section(0x02, programme.number, version, &body)
}

/// A section in packets of its own, with stuffing behind it.
fn packetise(pid: u16, counter: &mut u8, section: &[u8]) -> Vec<u8> {
    let data = [&[0][..], section].concat();
    let mut out = Vec::new();
    for (index, part) in data.chunks(PACKET_BYTES - 4).enumerate() {
        let [high, low] = pid.to_be_bytes();
        let start = if index == 0 { 0x40 } else { 0 };
        out.extend([SYNC_BYTE, start | high, low, 0x10 | *counter]);
        out.extend(part);
        out.resize(out.len().next_multiple_of(PACKET_BYTES), 0xFF);
        *counter = (*counter + 1) % 16;
    }
    out
}

/// The whole of them, one behind the other.
fn stream(version: u8, programmes: &[Programme], counters: &mut [u8; 8]) -> Vec<u8> {
    let mut out = packetise(0, &mut counters[0], &pat(version, programmes));
    for (programme, counter) in programmes.iter().zip(&mut counters[1..]) {
        out.extend(packetise(programme.map_pid, counter, &pmt(version, programme)));
    }
    out
}

fn any_programmes() -> impl Strategy<Value = Vec<Programme>> {
    let stream = (any::<u8>(), 0x100_u16..0x1FFF, prop::collection::vec(any::<u8>(), 0..60));
    let streams = prop::collection::vec(prop::collection::vec(stream, 0..8), 1..5);
    (streams, 1_u16..60_000).prop_map(|(streams, first)| {
        let number = |(index, streams)| Programme {
            number: first + index as u16,
            map_pid: 0x20 + 7 * index as u16,
            streams,
        };
        streams.into_iter().enumerate().map(number).collect()
    })
}

/// A programme's number, the PID of its map, and its streams.
type Entry = (u16, Pid, Vec<(u8, Pid)>);

/// What was read, in the terms of what was written.
fn read(tables: &PsiCache) -> Vec<Entry> {
    let programmes = tables.programmes.iter();
    programmes
        .map(|programme| {
            let streams = super::pmt_of(programme).map(|pmt| pmt.streams.clone()).unwrap_or_default();
            let streams = streams.iter().map(|stream| (stream.stream_type, stream.pid));
            (programme.number, programme.pmt_pid, streams.collect())
        })
        .collect()
}

fn written(programmes: &[Programme]) -> Vec<Entry> {
    let streams = |programme: &Programme| {
        programme.streams.iter().map(|(kind, pid, _)| (*kind, Pid::new(*pid))).collect::<Vec<_>>()
    };
    let programmes = programmes.iter();
    programmes.map(|programme| (programme.number, Pid::new(programme.map_pid), streams(programme))).collect()
}

fn observe(tables: &mut PsiCache, bytes: &[u8]) {
    for packet in packets(bytes) {
        tables.observe(&packet);
    }
}

#[test]
fn tables_are_read_as_they_were_written_and_the_newest_counts() {
    check(300, &(any_programmes(), any_programmes(), 0_u8..31), |(old, new, version)| {
        let (mut tables, mut counters) = (PsiCache::new(), [0; 8]);
        for (version, programmes) in [(version, &old), (version + 1, &new)] {
            let bytes = stream(version, programmes, &mut counters);
            observe(&mut tables, &bytes);
            prop_assert_eq!(read(&tables), written(programmes));
            prop_assert_eq!(tables.prefix(), Some(bytes));
        }
        Ok(())
    });
}

#[test]
fn damaged_tables_change_nothing_and_whole_ones_are_read_behind_them() {
    let damage = prop::collection::vec((any::<Index>(), 1_u8..), 1..12);
    let lost = prop::option::of(any::<Index>());
    check(400, &(any_programmes(), any_programmes(), damage, lost), |(old, new, damage, lost)| {
        let (mut tables, mut counters) = (PsiCache::new(), [0; 8]);
        observe(&mut tables, &stream(0, &old, &mut counters));
        let before = written(&old);
        // Only behind the heads of packets: what those say is another affair.
        let mut torn = stream(1, &new, &mut counters);
        for (at, bits) in damage {
            let at = at.index(torn.len());
            if at % PACKET_BYTES >= 4 {
                torn[at] ^= bits;
            }
        }
        if let Some(at) = lost {
            let at = at.index(torn.len() / PACKET_BYTES) * PACKET_BYTES;
            torn.drain(at..at + PACKET_BYTES);
        }
        observe(&mut tables, &torn);
        // Each table is the old one, the new one, or not there yet.
        let after = written(&new);
        for (number, pid, streams) in read(&tables) {
            let is_known = |(other, other_pid, other_streams): &Entry| {
                (*other, *other_pid) == (number, pid) && (streams.is_empty() || *other_streams == streams)
            };
            prop_assert!(before.iter().chain(&after).any(is_known), "{number} on {pid}: {streams:?}");
        }
        observe(&mut tables, &stream(2, &new, &mut counters));
        prop_assert_eq!(read(&tables), after);
        Ok(())
    });
}

#[test]
fn sections_of_anything_with_a_good_checksum_are_read_within_bounds() {
    let body = prop::collection::vec(any::<u8>(), 0..400);
    let section_of = (prop::sample::select(vec![0_u8, 2, 1, 0x42]), 0_u16..4, 0_u8..3, body);
    let sections = prop::collection::vec((any::<bool>(), section_of), 0..30);
    check(300, &sections, |sections| {
        let (mut tables, mut counters) = (PsiCache::new(), [0; 8]);
        let programme = Programme { number: 1, map_pid: 0x20, streams: vec![(0x1B, 0x100, Vec::new())] };
        observe(&mut tables, &stream(0, &[programme], &mut counters));
        for (is_map, (table, extension, version, body)) in sections {
            let pid = if is_map { 0x20 } else { 0 };
            let bytes = section(table, extension, version, &body);
            observe(&mut tables, &packetise(pid, &mut counters[usize::from(is_map)], &bytes));
            prop_assert!(tables.programmes.len() <= 64, "{} programmes", tables.programmes.len());
            let prefix = tables.prefix().unwrap_or_default();
            prop_assert!(
                prefix.len() % PACKET_BYTES == 0
                    && packets(&prefix).all(|packet| tables.is_table(packet.pid()))
            );
        }
        Ok(())
    });
}

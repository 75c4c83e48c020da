use proptest::prelude::*;

use super::super::continuity::Continuity;
use super::super::fixture::{Build, tables};
use super::super::packet::packets;
use super::*;

const VIDEO: Pid = Pid::new(0x0100);

/// What is put in front of a keyframe whose last packet had counter 9, behind these PES packets.
fn kept_of(stream_type: u8, units: &[&[u8]]) -> (KeptSets, Vec<u8>) {
    let tables = tables(&[(stream_type, VIDEO)]);
    let (mut sets, mut continuity) = (KeptSets::default(), Continuity::new());
    let mut counter = 3;
    for unit in units {
        let bytes = Build::new(VIDEO, counter).pes(0xE0, unit);
        for packet in packets(&bytes) {
            sets.observe(&packet, &tables);
            continuity.observe(&packet, &tables);
        }
        counter += bytes.len() / PACKET_BYTES;
    }
    let mut prefix = continuity.indicators();
    sets.append_at_keyframe(VIDEO, &mut prefix);
    (sets, prefix)
}

fn code(unit: &[u8]) -> Vec<u8> {
    [&START_CODE[..], unit].concat()
}

#[test]
fn the_last_sets_of_each_coding_are_kept_without_what_is_beside_them() {
    let h264: [&[u8]; 5] = [&[0x09, 0xF0], &[0x67, 1, 2, 3], &[0x68, 4], &[0x06, 9, 9], &[0x65, 0x88]];
    let hevc: [&[u8]; 5] = [&[0x46, 1], &[0x40, 1, 5], &[0x42, 1, 6], &[0x44, 1, 7], &[0x26, 1, 0xAF]];
    let mpeg2: [&[u8]; 4] = [&[0xB3, 45, 0], &[0xB5, 0x14, 7], &[0xB8, 1], &[0x00, 0, 8]];
    for (stream_type, units, kept) in [
        (0x1B, &h264[..], [&code(&[0x67, 1, 2, 3])[..], &code(&[0x68, 4])].concat()),
        (0x24, &hevc[..], [code(&[0x40, 1, 5]), code(&[0x42, 1, 6]), code(&[0x44, 1, 7])].concat()),
        (0x02, &mpeg2[..], [code(&[0xB3, 45, 0, 0]), code(&[0xB5, 0x14, 7, 0])].concat()),
    ] {
        let unit: Vec<u8> = units.iter().flat_map(|unit| code(unit)).collect();
        let later = code(units[units.len() - 1]);
        let (sets, prefix) = kept_of(stream_type, &[&unit, &later]);
        assert_eq!(sets.kept, kept, "{stream_type:02x}");
        assert!(packets(&prefix).any(|packet| packet.payload().is_some_and(|all| all.ends_with(&kept))));
        let (_, prefix) = kept_of(stream_type, &[&unit]);
        assert_eq!(prefix.len(), PACKET_BYTES, "it brings its own: the announcement alone");
    }
}

#[test]
fn a_picture_s_set_that_comes_alone_goes_behind_the_others_once() {
    let first = [code(&[0x67, 1]), code(&[0x68, 2]), code(&[0x65, 8])].concat();
    let alone = [code(&[0x68, 3]), code(&[0x41, 8])].concat();
    let (sets, _) = kept_of(0x1B, &[&first, &alone, &alone]);
    assert_eq!(sets.kept, [code(&[0x67, 1]), code(&[0x68, 2]), code(&[0x68, 3])].concat());
}

proptest! {
    /// Whatever comes: what is kept is bounded, and what is put in front are whole packets whose counters run on from the
    /// announcement to where it was.
    #[test]
    fn what_goes_in_front_is_valid(units in proptest::collection::vec(
        (proptest::sample::select(vec![0x67u8, 0x68, 0x06, 0x65, 0x41, 0x0F]), proptest::collection::vec(any::<u8>(), 0..1500)), 1..8)
    ) {
        let pes: Vec<Vec<u8>> = units.iter().map(|(head, rest)| [&code(&[*head])[..], rest].concat()).collect();
        let views: Vec<&[u8]> = pes.iter().map(Vec::as_slice).collect();
        let (sets, prefix) = kept_of(0x1B, &views);
        prop_assert!(sets.kept.len() <= MAX_BYTES);
        prop_assert_eq!(prefix.len() % PACKET_BYTES, 0);
        let total: usize = pes.iter().map(|unit| (unit.len() + 14).div_ceil(184)).sum();
        let mut counter = None;
        for packet in packets(&prefix) {
            prop_assert_eq!(packet.bytes()[0], SYNC_BYTE);
            if let Some(before) = counter {
                prop_assert_eq!(packet.continuity(), (before + 1) % 16);
            }
            counter = Some(packet.continuity());
        }
        prop_assert_eq!(counter.map(usize::from), Some((3 + total - 1) % 16));
    }
}
